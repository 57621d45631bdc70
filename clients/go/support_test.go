package backscroll

// What tests share: daemons of this repository, relays, and a small fake daemon.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const longTimeout = 20 * time.Second

var (
	ctx = context.Background()
	// Whether the long forms of tests run.
	isLong = os.Getenv("LONG") != ""
	onTCP  = []string{"--endpoint", "tcp://127.0.0.1:*"}
)

// backscrollCommand is the command that starts daemons: the environment variable BACKSCROLL, or what is on the PATH.
func backscrollCommand() string {
	if command := os.Getenv("BACKSCROLL"); command != "" {
		return command
	}
	return "backscroll"
}

// shortDir is a temporary directory whose path is short enough for sockets in it.
func shortDir(t testing.TB) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "backscroll-go-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	return directory
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, actual, expected any) {
	t.Helper()
	if !reflect.DeepEqual(actual, expected) {
		t.Fatalf("expected %+v, got %+v", expected, actual)
	}
}

// fails checks the code of an error, and that its text contains these parts.
func fails(t testing.TB, err error, code Code, parts ...string) *Error {
	t.Helper()
	var problem *Error
	if !errors.As(err, &problem) || !errors.Is(err, code) {
		t.Fatalf("expected %s, got %v", code, err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Fatalf("expected ... %s ..., got %v", part, err)
		}
	}
	return problem
}

func waitUntil(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(longTimeout); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s", longTimeout, what)
		}
	}
}

// newTestClient returns a client that is closed when the test ends.
func newTestClient(t testing.TB, options Options) *Client {
	t.Helper()
	client, err := New(&options)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func messageOf(number int, content string) MessageInput {
	return MessageInput{
		ID: fmt.Sprintf("m%d", number), RoomID: "r1", SenderID: "ada", Content: content,
		Timestamp: 1_767_225_600_000 + int64(number),
	}
}

func saveOf(number int, content string) SaveMessage {
	return SaveMessage{Message: messageOf(number, content)}
}

// noGoroutineIsLeft checks at the end of the test that the client's goroutines have ended.
func noGoroutineIsLeft(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		waitUntil(t, "no goroutine of the client is left", func() bool {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			return !bytes.Contains(stacks, []byte("backscroll.(*Client)"))
		})
	})
}

// testDaemon is a daemon that serves a directory; it is killed and started again as a test says, and ends with it.
type testDaemon struct {
	dataDir string
	flags   []string
	mu      sync.Mutex
	process *exec.Cmd
	input   io.Closer
}

func startTestDaemon(t testing.TB, flags ...string) *testDaemon {
	t.Helper()
	daemon := &testDaemon{dataDir: shortDir(t), flags: flags}
	t.Cleanup(func() { _ = daemon.kill() }) // before its directory is removed
	must(t, daemon.start())
	return daemon
}

func (d *testDaemon) start() error {
	words := append([]string{"serve", "--data-dir", d.dataDir, "--exit-with-parent"}, d.flags...)
	process := exec.Command(backscrollCommand(), words...)
	input, err := process.StdinPipe()
	if err != nil {
		return err
	}
	output, err := process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return err
	}
	d.mu.Lock()
	d.process, d.input = process, input
	d.mu.Unlock()
	if _, err := output.Read(make([]byte, 4096)); err != nil {
		return fmt.Errorf("the daemon did not start: %w", err)
	}
	return nil
}

func (d *testDaemon) kill() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == nil {
		return nil
	}
	err := d.process.Process.Kill()
	_ = d.process.Wait()
	_ = d.input.Close()
	d.process = nil
	return err
}

func (d *testDaemon) restart() error { return errors.Join(d.kill(), d.start()) }

func (d *testDaemon) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	must(t, d.process.Process.Signal(signal))
}

func (d *testDaemon) announced() announcement {
	announced, _ := readAnnouncementFile(d.dataDir)
	return announced
}

func (d *testDaemon) endpoint() string { return d.announced().firstEndpoint() }

// printed is what a command of backscroll prints, the last line of it.
func printed(t testing.TB, words ...string) string {
	t.Helper()
	output, err := exec.Command(backscrollCommand(), words...).Output()
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return lines[len(lines)-1]
}

// testProxy is the proxy of the project's tests: it cuts connections at any byte, delays, and swallows what is sent.
type testProxy struct {
	endpoint string
	process  *exec.Cmd
	input    io.Closer
	output   *bufio.Reader
}

func startProxy(t testing.TB, target string, seed int) *testProxy {
	t.Helper()
	python := os.Getenv("PYTHON")
	if python == "" {
		python = "python3"
	}
	listen := "ipc://" + filepath.Join(shortDir(t), "proxy")
	process := exec.Command(python, "-m", "tests.support.proxy", listen, target, "--seed", fmt.Sprint(seed))
	process.Dir = filepath.Join("..", "..")
	process.Stderr = os.Stderr
	input, err := process.StdinPipe()
	must(t, err)
	output, err := process.StdoutPipe()
	must(t, err)
	must(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	proxy := &testProxy{process: process, input: input, output: bufio.NewReader(output)}
	var ready struct{ Endpoint string }
	proxy.read(t, &ready)
	proxy.endpoint = ready.Endpoint
	return proxy
}

func (p *testProxy) read(t testing.TB, target any) {
	t.Helper()
	line, err := p.output.ReadBytes('\n')
	must(t, err)
	must(t, json.Unmarshal(line, target))
}

// stop ends it; it returns how many faults there were.
func (p *testProxy) stop(t testing.TB) (count int) {
	t.Helper()
	must(t, p.input.Close())
	var did struct{ Faults map[string]int }
	p.read(t, &did)
	for _, each := range did.Faults {
		count += each
	}
	return count
}

// relay stands between a client and a daemon: the test decides which replies are lost, and when the connection is.
type relay struct {
	endpoint string
	// change may alter what the client sends; onReply sees what the daemon sends, and passes it on or not.
	change  func(chunk []byte) []byte
	onReply func(chunk []byte) bool
	mu      sync.Mutex
	conns   []net.Conn
}

func startRelay(t testing.TB, network, address string, target func() string, made *relay) *relay {
	t.Helper()
	listener, err := net.Listen(network, address)
	must(t, err)
	made.endpoint = "ipc://" + listener.Addr().String()
	if network == "tcp" {
		made.endpoint = "tcp://" + listener.Addr().String()
	}
	t.Cleanup(func() {
		_ = listener.Close()
		made.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			made.connect(conn, target())
		}
	}()
	return made
}

func (r *relay) connect(client net.Conn, target string) {
	network, address, _ := targetOf(target)
	daemon, err := net.Dial(network, address)
	if err != nil {
		_ = client.Close()
		return
	}
	r.mu.Lock()
	r.conns = append(r.conns, client, daemon)
	r.mu.Unlock()
	go forward(client, daemon, func(chunk []byte) ([]byte, bool) {
		if r.change == nil {
			return chunk, true
		}
		changed := r.change(chunk)
		return changed, changed != nil
	})
	go forward(daemon, client, func(chunk []byte) ([]byte, bool) {
		return chunk, r.onReply == nil || r.onReply(chunk)
	})
}

// forward passes on what passes a function, until either side ends.
func forward(from, to net.Conn, change func([]byte) ([]byte, bool)) {
	defer func() {
		_ = from.Close()
		_ = to.Close()
	}()
	chunk := make([]byte, 64<<10)
	for {
		count, err := from.Read(chunk)
		if err != nil {
			return
		}
		if changed, passes := change(chunk[:count]); passes {
			if _, err := to.Write(changed); err != nil {
				return
			}
		}
	}
}

// cut cuts all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil
}

// fakeRequest is a request as a fake daemon reads it.
type fakeRequest struct {
	ID, Type, Auth, Traceparent, Client string
	Payload                             map[string]any
	Level, N, DeadlineMs                int64
	body                                string
	// The number of the connection, and what sends on it and ends it.
	connection int
	conn       net.Conn
}

func (r fakeRequest) ok(result any) any {
	return map[string]any{"id": r.ID, "ok": true, "result": result, "seq": 1}
}

func (r fakeRequest) refused(code string, fault Fault, isRetryable bool) any {
	problem := map[string]any{"code": code, "message": "refused: " + code, "fault": fault, "retryable": isRetryable}
	return map[string]any{"id": r.ID, "ok": false, "error": problem}
}

func (r fakeRequest) send(answer any) { _, _ = r.conn.Write(appendFrame(nil, []byte(textOf(answer)))) }

// fakeDaemon is a program that speaks ZMTP and answers what a test says; nil is no answer.
type fakeDaemon struct {
	endpoint string
	listener net.Listener
	answer   func(request fakeRequest) any
	mu       sync.Mutex
	asked    []fakeRequest
	conns    []net.Conn
	count    int
}

// startFake listens on an address, or in a directory of its own if that is empty.
func startFake(t testing.TB, address string, answer func(fakeRequest) any) *fakeDaemon {
	t.Helper()
	network, scheme := "tcp", schemeTCP
	if address == "" {
		network, scheme, address = "unix", schemeIPC, filepath.Join(shortDir(t), "fake")
	}
	listener, err := net.Listen(network, address)
	must(t, err)
	fake := &fakeDaemon{endpoint: scheme + listener.Addr().String(), listener: listener, answer: answer}
	t.Cleanup(fake.close)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fake.mu.Lock()
			fake.count++
			fake.conns = append(fake.conns, conn)
			number := fake.count
			fake.mu.Unlock()
			go fake.serve(conn, number)
		}
	}()
	return fake
}

func (f *fakeDaemon) serve(conn net.Conn, number int) {
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write(zmtpGreeting)
	reader := bufio.NewReader(conn)
	if _, err := io.ReadFull(reader, make([]byte, greetingBytes)); err != nil {
		return
	}
	_, _ = conn.Write(bytes.Replace(zmtpReady, []byte("DEALER"), []byte("ROUTER"), 1))
	for {
		flags, body, err := readZMTPFrame(reader)
		if err != nil {
			return
		}
		if flags&frameCommand != 0 {
			continue
		}
		request := fakeRequest{body: string(body), connection: number, conn: conn}
		if json.Unmarshal(body, &request) != nil {
			return
		}
		f.mu.Lock()
		f.asked = append(f.asked, request)
		f.mu.Unlock()
		if answer := f.answer(request); answer != nil {
			request.send(answer)
		}
	}
}

// requests returns what was asked so far.
func (f *fakeDaemon) requests() []fakeRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]fakeRequest{}, f.asked...)
}

func (f *fakeDaemon) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// cut cuts all connections.
func (f *fakeDaemon) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.conns {
		_ = conn.Close()
	}
	f.conns = nil
}

func (f *fakeDaemon) close() {
	_ = f.listener.Close()
	f.cut()
}
