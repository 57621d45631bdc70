package backscroll

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"backscroll/language"
)

const (
	startTimeout  = 30 * time.Second
	startPause    = 50 * time.Millisecond
	startPauseMax = time.Second
	// The exit code of a daemon whose directory another one holds.
	exitHeld       = 3
	logBytesMax    = 8 << 20
	quotedLogBytes = 2_000
)

// OpenOptions says how to open a directory, and what holds for all requests.
type OpenOptions struct {
	// Token, Scope, Timeout, OnConnection, Logger and Traceparent are those of Options.
	Token        string
	Scope        string
	Timeout      time.Duration
	OnConnection func(problem error)
	Logger       *slog.Logger
	Traceparent  func(ctx context.Context) string

	// Command is the program that starts a daemon, and its first arguments. If left out, it is the program of a sidecar
	// beside this program, or else backscroll on the PATH.
	Command []string
	// Flags are further flags of `backscroll serve`.
	Flags []string
	// ExitWithParent lets a daemon that is started here end with this process; otherwise it goes on, and others may use
	// it.
	ExitWithParent bool
	// LogFile is the file for the log of a daemon that is started here: daemon.log in the directory if left out.
	LogFile string
	// StartTimeout is how long to wait until a daemon serves: 30 s if left out.
	StartTimeout time.Duration
}

// Open returns a client of the daemon that serves a data directory; it starts one if none does. When two programs open a
// directory at once, both get clients of the same daemon. It fails with [ErrUnavailable] if no daemon starts, as in a
// directory that cannot be written, or if the daemon speaks a level of the protocol that does not fit, and with
// [ErrInvalid] or [ErrUnauthenticated] if the options cannot be used. nil stands for the zero value of OpenOptions.
//
// The context holds for opening only; after its end no daemon is started. The daemon goes on when this process ends,
// except with ExitWithParent. To stop it, send SIGTERM to the PID that Health returns.
func Open(ctx context.Context, dataDir string, options *OpenOptions) (*Client, error) {
	if options == nil {
		options = &OpenOptions{}
	}
	client, problem := open(ctx, dataDir, *options)
	if problem != nil {
		return nil, problem
	}
	return client, nil
}

func open(ctx context.Context, dataDir string, options OpenOptions) (*Client, *Error) {
	directory, err := filepath.Abs(dataDir) // the same for the daemon and the client
	if err != nil || dataDir == "" {
		return nil, failure(ErrInvalid, "%q is not the path of a data directory", dataDir)
	}
	client, problem := newClient(Options{
		DataDir: directory, Token: options.Token, Scope: options.Scope, Timeout: options.Timeout,
		OnConnection: options.OnConnection, Logger: options.Logger, Traceparent: options.Traceparent,
	})
	if problem != nil {
		return nil, problem
	}
	start := starting{
		daemonProgram: findProgram(options.Command), client: client, directory: directory, flags: options.Flags,
		exitsWithParent: options.ExitWithParent, log: options.LogFile, timeout: options.StartTimeout,
	}
	if problem = start.check(); problem == nil {
		problem = start.unlessServed(ctx)
	}
	if problem == nil {
		problem = checkLevel(ctx, client, directory)
	}
	if problem != nil {
		_ = client.Close()
		return nil, problem
	}
	return client, nil
}

// starting is how to start a daemon.
type starting struct {
	daemonProgram
	client          *Client
	directory       string
	flags           []string
	exitsWithParent bool
	log             string
	timeout         time.Duration
}

func (s *starting) check() *Error {
	if s.timeout < 0 {
		return failure(ErrInvalid, "StartTimeout must not be negative, and is %v", s.timeout)
	}
	if s.timeout == 0 {
		s.timeout = startTimeout
	}
	if s.log == "" {
		s.log = filepath.Join(s.directory, "daemon.log")
	}
	return nil
}

func (s *starting) unlessServed(ctx context.Context) *Error {
	starts, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for pause := startPause; ; pause = min(2*pause, startPauseMax) {
		problem := s.problem(starts)
		if problem == nil || problem.Fault == FaultCaller {
			return problem
		}
		if starts.Err() == nil {
			var isHeld bool
			if isHeld, problem = s.startDaemon(starts); problem != nil {
				return problem
			}
			if !isHeld {
				continue
			}
		}
		select {
		case <-time.After(pause): // another daemon is starting or stopping there
		case <-starts.Done():
			return s.tooLate(ctx, problem)
		}
	}
}

// tooLate returns the error of opening that was ended by its context, or by the time that it may take.
func (s *starting) tooLate(ctx context.Context, problem *Error) *Error {
	if ctx.Err() != nil {
		return unavailable("opening %s was ended", s.directory).because(context.Cause(ctx))
	}
	why := "another daemon holds it and is not ready"
	if problem != nil {
		why = problem.Message
	}
	return unavailable("no daemon served %s within %d ms: %s; the log of one that was started is %s",
		s.directory, s.timeout.Milliseconds(), why, s.log)
}

// problem returns why no daemon serves the directory; nil if one does. Its address may be that of a daemon that was killed,
// and another program, or another directory's daemon, may have its port: so over tcp it has to prove who it is.
func (s *starting) problem(ctx context.Context) *Error {
	made, problem := connect(ctx, s.client.options.location())
	if problem != nil {
		return problem
	}
	made.close(errors.New(whyClosed))
	return nil
}

// startDaemon starts a daemon, and waits until it is ready; or until it ended because another one holds the directory.
func (s *starting) startDaemon(ctx context.Context) (isHeld bool, problem *Error) {
	log, problem := s.openLog()
	if problem != nil {
		return false, problem
	}
	defer func() { _ = log.Close() }()
	logFrom, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return false, s.cannotStart(err)
	}
	ready, output, err := os.Pipe()
	if err != nil {
		return false, s.cannotStart(err)
	}
	defer func() { _ = ready.Close() }()
	words := append(append([]string{}, s.command[1:]...), "serve", "--data-dir", s.directory)
	daemon := exec.Command(s.command[0], words...)
	daemon.Stdout, daemon.Stderr = output, log
	if s.exitsWithParent {
		daemon.Args = append(daemon.Args, "--exit-with-parent")
		if _, err := daemon.StdinPipe(); err != nil { // it stays open until this process ends
			return false, s.cannotStart(err)
		}
	} else {
		daemon.SysProcAttr = detached()
	}
	daemon.Args = append(daemon.Args, s.flags...)
	err = daemon.Start()
	_ = output.Close()
	if err != nil {
		return false, s.cannotStart(err)
	}
	ended := make(chan struct{})
	go func() { // as long as the daemon runs: nobody else could take note that it has ended
		_ = daemon.Wait()
		close(ended)
	}()
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Now()) })
	defer stop()
	for lines := bufio.NewScanner(ready); lines.Scan(); {
		if isReady(lines.Bytes()) {
			return false, nil
		}
	}
	return s.notReady(ctx, daemon, ended, logFrom)
}

// isReady tells whether a line is what a daemon prints when it serves. The program that starts it may print others before.
func isReady(line []byte) bool {
	var printed struct{ Event string }
	return json.Unmarshal(line, &printed) == nil && printed.Event == "ready"
}

// notReady returns what to say of a daemon that ended before it was ready, or that took too long and is stopped.
func (s *starting) notReady(
	ctx context.Context, daemon *exec.Cmd, ended <-chan struct{}, logFrom int64,
) (isHeld bool, problem *Error) {
	select {
	case <-ended:
	case <-ctx.Done():
		if daemon.Process.Signal(os.Interrupt) != nil { // not every system has it
			_ = daemon.Process.Kill()
		}
		return false, unavailable("the daemon was not ready in time, and was stopped; its log is %s", s.log).
			because(context.Cause(ctx))
	}
	code := daemon.ProcessState.ExitCode()
	if code == exitHeld {
		return true, nil
	}
	return false, failure(ErrUnavailable, "the daemon (%s) ended with exit code %d before it was ready: %s",
		s.command[0], code, s.logged(logFrom))
}

// logged returns the end of what the daemon wrote into its log.
func (s *starting) logged(from int64) string {
	log, err := os.Open(s.log)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = log.Close() }()
	if info, err := log.Stat(); err == nil {
		from = max(from, info.Size()-quotedLogBytes)
	}
	text, _ := io.ReadAll(io.NewSectionReader(log, from, quotedLogBytes))
	said := string(bytes.ToValidUTF8(bytes.TrimSpace(text), nil))
	if said == "" {
		return "it wrote nothing to its log"
	}
	return said
}

func (s *starting) cannotStart(err error) *Error {
	return unavailable("the daemon cannot be started: %v; %s", err, s.advice)
}

// openLog opens the daemon's log, in a data directory that may not be there yet; like the daemon it makes one for this user
// alone.
func (s *starting) openLog() (*os.File, *Error) {
	if err := os.MkdirAll(s.directory, 0o700); err != nil {
		return nil, failure(ErrUnavailable, "no daemon can be started in %s: %v; name a directory that this user can write",
			s.directory, err)
	}
	if info, err := os.Stat(s.log); err == nil && info.Size() > logBytesMax {
		_ = os.Truncate(s.log, 0)
	}
	log, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, failure(ErrUnavailable, "no daemon can be started in %s, because its log cannot be written: %v; name "+
			"another file in LogFile", s.directory, err)
	}
	return log, nil
}

// checkLevel says in words that a daemon's level of the protocol does not fit.
func checkLevel(ctx context.Context, client *Client, directory string) *Error {
	health, err := client.Health(ctx, Health{})
	if err != nil {
		return asError(err)
	}
	if health.Level == language.Level {
		return nil
	}
	older, update := "the daemon", "backscroll, and stop that daemon"
	if health.Level > language.Level {
		described, err := client.Describe(ctx, Describe{})
		if err != nil {
			return asError(err)
		}
		var lowest struct {
			Level int64 `json:"lowestCompatibleLevel"`
		}
		if json.Unmarshal(described, &lowest) != nil || lowest.Level <= language.Level {
			return nil
		}
		older, update = "this client", "this module"
	}
	return failure(ErrUnavailable, "the daemon that serves %s (backscroll %s) speaks level %s of the protocol, and this "+
		"client was made for level %d: %s is too old; update %s",
		directory, health.Version, strconv.FormatInt(health.Level, 10), language.Level, older, update)
}

func asError(err error) *Error {
	var problem *Error
	if errors.As(err, &problem) {
		return problem
	}
	return failure(ErrInternal, "%v", err)
}
