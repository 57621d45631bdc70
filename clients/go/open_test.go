package backscroll

// Opening a directory: a client of the daemon that serves it, started if there is none.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// opened opens a directory with the project's daemon, which ends with the test.
func opened(t testing.TB, dataDir string, options OpenOptions) *Client {
	t.Helper()
	if options.Command == nil {
		options.Command = []string{backscrollCommand()}
	}
	client, err := Open(ctx, dataDir, &options)
	must(t, err)
	pid := pidOf(t, client)
	t.Cleanup(func() {
		_ = client.Close()
		_ = syscall.Kill(pid, syscall.SIGKILL)
		waitUntil(t, "the daemon has ended", func() bool { return !isRunning(pid) })
	})
	return client
}

func pidOf(t testing.TB, client *Client) int {
	t.Helper()
	health, err := client.Health(ctx, Health{})
	must(t, err)
	return int(health.PID)
}

// isRunning tells whether a process is there and is no zombie.
func isRunning(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !bytes.Contains(status, []byte("State:\tZ"))
}

// Rule: two that open a directory at once have one daemon, which outlives its clients; its log is in the directory, which is
// this user's alone.
func TestOpenTwiceAtOnce(t *testing.T) {
	t.Parallel()
	dataDir := filepath.Join(shortDir(t), "new", "data")
	type result struct {
		client *Client
		err    error
	}
	results := make(chan result)
	for range 2 {
		go func() {
			client, err := Open(ctx, dataDir, &OpenOptions{Command: []string{backscrollCommand()}})
			results <- result{client, err}
		}()
	}
	var pids []int
	for range 2 {
		each := <-results
		must(t, each.err)
		pids = append(pids, pidOf(t, each.client))
		must(t, each.client.SaveMessage(ctx, saveOf(1, "1")))
		must(t, each.client.Close())
	}
	again := opened(t, dataDir, OpenOptions{})
	same(t, []int{pids[0], pids[1]}, []int{pidOf(t, again), pidOf(t, again)})
	found, err := again.GetMessageByID(ctx, GetMessageByID{MessageID: "m1"})
	must(t, err)
	same(t, found.Content, "1")
	log, err := os.ReadFile(filepath.Join(dataDir, "daemon.log"))
	must(t, err)
	same(t, bytes.Contains(log, []byte(`"event":"ready"`)), true)
	info, err := os.Stat(dataDir)
	must(t, err)
	same(t, info.Mode().Perm(), os.FileMode(0o700))
}

// Rule: a directory that is served is found, whatever the program that would start a daemon.
func TestOpenFindsADaemon(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	client, err := Open(ctx, daemon.dataDir, &OpenOptions{Command: []string{"no-such-program"}, Scope: "ada"})
	must(t, err)
	defer func() { _ = client.Close() }()
	must(t, client.SaveMessage(ctx, saveOf(1, "")))
	scopes, err := newTestClient(t, Options{DataDir: daemon.dataDir}).ListScopes(ctx, ListScopes{})
	must(t, err)
	same(t, scopes, []string{"ada", "default"})
}

// Rule: after a kill the next one that opens starts a daemon, and clients there go on.
func TestOpenAfterAKill(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	before := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	must(t, before.SaveMessage(ctx, saveOf(1, "")))
	must(t, daemon.kill())
	waiting := Start(ctx, before, Ping{})
	opened(t, daemon.dataDir, OpenOptions{})
	_, err := waiting.Wait()
	must(t, err)
}

// Rule: whoever has a killed daemon's port is not taken for it.
func TestOpenWithAnImpostor(t *testing.T) {
	t.Parallel()
	dataDir := shortDir(t)
	other := startFake(t, "127.0.0.1:0", func(request fakeRequest) any {
		return request.ok(Proof{Proof: strings.Repeat("0", 64), Endpoints: []string{}})
	})
	announced := fmt.Sprintf(`{"endpoints": [%q], "token": "a secret"}`, other.endpoint)
	must(t, os.WriteFile(filepath.Join(dataDir, endpointFile), []byte(announced), 0o600))
	client := opened(t, dataDir, OpenOptions{Flags: onTCP})
	_, err := client.Ping(ctx, Ping{})
	must(t, err)
	for _, request := range other.requests() {
		same(t, request.Type, "hello")
	}
}

// Rule: with ExitWithParent the daemon ends with the process, however that ends; its log is where LogFile says.
func TestExitWithParent(t *testing.T) {
	t.Parallel()
	dataDir := shortDir(t)
	log := filepath.Join(dataDir, "own.log")
	parent := exec.Command(os.Args[0], "-test.run=^TestParent$")
	parent.Env = append(os.Environ(), "TEST_PARENT_OF="+dataDir)
	output, err := parent.StdoutPipe()
	must(t, err)
	must(t, parent.Start())
	var pid int
	_, err = fmt.Fscan(output, &pid)
	must(t, err)
	same(t, isRunning(pid), true)
	must(t, parent.Process.Kill())
	_ = parent.Wait()
	waitUntil(t, "the daemon has ended", func() bool { return !isRunning(pid) })
	written, err := os.ReadFile(log)
	must(t, err)
	same(t, len(written) > 0, true)
}

// TestParent is the process of TestExitWithParent.
func TestParent(t *testing.T) {
	dataDir := os.Getenv("TEST_PARENT_OF")
	if dataDir == "" {
		t.Skip("it is run by TestExitWithParent")
	}
	client, err := Open(ctx, dataDir, &OpenOptions{
		Command: []string{backscrollCommand()}, ExitWithParent: true, LogFile: filepath.Join(dataDir, "own.log"),
	})
	must(t, err)
	fmt.Println(pidOf(t, client))
	time.Sleep(longTimeout) // until it is killed
}

// Rule: after its context has ended nothing is opened or started.
func TestOpenThatIsStopped(t *testing.T) {
	t.Parallel()
	dataDir := shortDir(t)
	enough := errors.New("the application ends")
	stopped, stop := context.WithCancelCause(ctx)
	stop(enough)
	daemon := startTestDaemon(t)
	for _, directory := range []string{dataDir, daemon.dataDir} {
		if _, err := Open(stopped, directory, &OpenOptions{Command: []string{backscrollCommand()}}); !errors.Is(err, enough) {
			t.Fatalf("expected the reason, got %v", err)
		}
	}
	stopping, stop := context.WithCancelCause(ctx)
	time.AfterFunc(100*time.Millisecond, func() { stop(enough) })
	// Another daemon holds the directory, it says, so it is tried again.
	_, err := Open(stopping, dataDir, &OpenOptions{Command: []string{"sh", "-c", "exit 3"}})
	if !errors.Is(err, enough) || !errors.Is(err, ErrUnavailable) {
		t.Fatalf("expected the reason, got %v", err)
	}
	_, isThere := readAnnouncementFile(dataDir)
	same(t, isThere, false)
}

// Rule: a program that prints something before its daemon is ready is started once, and waited for.
func TestProgramThatPrintsBefore(t *testing.T) {
	t.Parallel()
	dataDir := shortDir(t)
	starts := filepath.Join(dataDir, "starts")
	script := fmt.Sprintf("echo started >> %q; echo hello; echo '{\"event\": \"hello\"}'; exec %q \"$@\"", starts, backscrollCommand())
	opened(t, dataDir, OpenOptions{Command: []string{"sh", "-c", script, "sh"}})
	written, err := os.ReadFile(starts)
	must(t, err)
	same(t, string(written), "started\n")
}

// Rule: what keeps a daemon from starting is said, with what to do.
func TestDaemonThatDoesNotStart(t *testing.T) {
	t.Parallel()
	dataDir := filepath.Join(shortDir(t), "data")
	open := func(options OpenOptions) error {
		if options.Command == nil {
			options.Command = []string{backscrollCommand()}
		}
		_, err := Open(ctx, dataDir, &options)
		return err
	}
	fails(t, open(OpenOptions{Timeout: -1}), ErrInvalid)
	fails(t, open(OpenOptions{StartTimeout: -1}), ErrInvalid)
	_, err := Open(ctx, "", nil)
	fails(t, err, ErrInvalid)
	_, err = os.Stat(dataDir)
	same(t, errors.Is(err, os.ErrNotExist), true)
	fails(t, open(OpenOptions{Command: []string{"no-such-program"}}), ErrUnavailable,
		"the daemon cannot be started: ", "not found", "check the option Command")
	fails(t, open(OpenOptions{Flags: []string{"--no-such-flag"}}), ErrUnavailable,
		"ended with exit code 2 before it was ready: ", "no-such-flag")
	// Nothing of what the daemon before it wrote into the same log.
	problem := fails(t, open(OpenOptions{Command: []string{"true"}}), ErrUnavailable, "ended with exit code 0")
	same(t, strings.HasSuffix(problem.Message, "before it was ready: it wrote nothing to its log"), true)
	fails(t, open(OpenOptions{LogFile: filepath.Join(dataDir, "none", "log")}), ErrUnavailable,
		"because its log cannot be written", "name another file in LogFile")
	fails(t, open(OpenOptions{Command: []string{"sh", "-c", "exec sleep 60"}, StartTimeout: shortTimeout}), ErrUnavailable,
		"the daemon was not ready in time, and was stopped; its log is")
	dataDir = filepath.Join(dataDir, "daemon.log")
	fails(t, open(OpenOptions{}), ErrUnavailable, "no daemon can be started in", "name a directory that this user can write")
}

// Rule: a daemon of another level is told in words, unless it serves clients of this one.
func TestOtherLevels(t *testing.T) {
	for _, each := range []struct {
		level, lowest int
		expected      string
	}{
		{0, 0, "speaks level 0 of the protocol, and this client was made for level 1: the daemon is too old; update backscroll"},
		{9, 8, "speaks level 9 of the protocol, and this client was made for level 1: this client is too old; update this module"},
		{9, 1, ""},
	} {
		fake := startFake(t, "", func(request fakeRequest) any {
			if request.Type == "health" {
				return request.ok(map[string]any{"level": each.level, "version": "0.0.9"})
			}
			return request.ok(map[string]any{"lowestCompatibleLevel": each.lowest})
		})
		dataDir := shortDir(t)
		announced := fmt.Sprintf(`{"endpoints": [%q]}`, fake.endpoint)
		must(t, os.WriteFile(filepath.Join(dataDir, endpointFile), []byte(announced), 0o600))
		client, err := Open(ctx, dataDir, nil)
		if each.expected != "" {
			fails(t, err, ErrUnavailable, each.expected)
			continue
		}
		must(t, err)
		must(t, client.Close())
	}
}

// Rule: the daemon is the program of the option, or a sidecar beside this program, or what is on the PATH.
func TestWhichProgram(t *testing.T) {
	same(t, findProgram([]string{"own", "word"}).command, []string{"own", "word"})
	same(t, findProgram(nil).command, []string{"backscroll"})
	directory := shortDir(t)
	same(t, findSidecar(directory), "")
	sidecar := filepath.Join(directory, "backscroll-0.1.0-linux-x64-gnu", "backscroll")
	must(t, os.MkdirAll(filepath.Dir(sidecar), 0o700))
	must(t, os.WriteFile(sidecar, nil, 0o700))
	same(t, findSidecar(directory), sidecar)
}
