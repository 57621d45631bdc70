package backscroll

// Who is calling: tokens, and whether what answers is the daemon.

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const shortTimeout = 300 * time.Millisecond

// Rule: a token without the right or the scope is forbidden, and one that is revoked is unauthenticated, which is said at
// once.
func TestToken(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t, onTCP...)
	token := printed(t, "token", "create", "bot", "--right", "read", "--scope", "ada", "--data-dir", daemon.dataDir)
	client := newTestClient(t, Options{Endpoint: daemon.endpoint(), Token: token, Scope: "ada"})
	users, err := client.ListUsers(ctx, ListUsers{})
	must(t, err)
	same(t, users, []User{})
	fails(t, client.SaveMessage(ctx, saveOf(1, "")), ErrForbidden)
	elsewhere := newTestClient(t, Options{Endpoint: daemon.endpoint(), Token: token, Scope: "bob"})
	_, err = elsewhere.ListUsers(ctx, ListUsers{})
	fails(t, err, ErrForbidden)

	printed(t, "token", "revoke", "bot", "--data-dir", daemon.dataDir)
	_, err = client.ListUsers(ctx, ListUsers{})
	fails(t, err, ErrUnauthenticated)
	after := newTestClient(t, Options{Endpoint: daemon.endpoint(), Token: token, Scope: "ada", Timeout: longTimeout})
	_, err = after.ListUsers(ctx, ListUsers{})
	fails(t, err, ErrUnauthenticated, `does not know the token "bot": it was revoked, has expired, or is for another daemon`)
}

// Rule: a token that may write is not one that may administer.
func TestTokenThatMayWrite(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t, onTCP...)
	token := printed(t, "token", "create", "bot", "--right", "write", "--data-dir", daemon.dataDir)
	client := newTestClient(t, Options{Endpoint: daemon.endpoint(), Token: token})
	must(t, client.SaveMessage(ctx, saveOf(1, "1")))
	_, err := client.GetLog(ctx, GetLog{})
	fails(t, err, ErrForbidden)
	fails(t, client.DeleteScope(ctx, DeleteScope{}), ErrForbidden)
	_, err = client.ListTokens(ctx, ListTokens{})
	fails(t, err, ErrForbidden)
}

// Rule: without a token it says where to get one, and what is no token is refused.
func TestNoToken(t *testing.T) {
	daemon := startTestDaemon(t, onTCP...)
	t.Setenv(tokenVariable, "")
	client := newTestClient(t, Options{Endpoint: daemon.endpoint(), DataDir: shortDir(t), Timeout: longTimeout})
	_, err := client.Ping(ctx, Ping{})
	fails(t, err, ErrUnauthenticated, "there is no token for tcp:", "`backscroll token create`")
	for _, token := range []string{"line\nbreak", "\xff", strings.Repeat("x", 257)} {
		bad := newTestClient(t, Options{Endpoint: daemon.endpoint(), Token: token, Timeout: longTimeout})
		_, err := bad.Ping(ctx, Ping{})
		fails(t, err, ErrInvalid, "it must be printable text of at most 256 bytes")
	}
}

// Rule: a wrong token is not sent: what answers cannot prove that it knows it.
func TestWrongToken(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t, onTCP...)
	client := newTestClient(t, Options{Endpoint: daemon.endpoint(), Token: "wrong", Timeout: shortTimeout})
	_, err := client.Ping(ctx, Ping{})
	fails(t, err, ErrUnavailable, "did not prove that it knows the token", "the token is wrong or for another daemon")
}

// Rule: an impostor on the old port of a daemon gets neither token nor requests.
func TestImpostorOnTheOldPort(t *testing.T) {
	daemon := startTestDaemon(t, onTCP...)
	announced := daemon.announced()
	client := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: shortTimeout})
	must(t, client.SaveMessage(ctx, saveOf(1, "")))
	must(t, daemon.kill())
	impostor := startFake(t, "127.0.0.1:"+portOf(announced.firstEndpoint()), func(request fakeRequest) any {
		if request.Type == "hello" {
			return request.ok(Proof{Proof: strings.Repeat("0", 64), Endpoints: announced.Endpoints})
		}
		return request.ok(nil)
	})
	fails(t, client.SaveMessage(ctx, saveOf(2, "a secret")), ErrUnavailable,
		"did not prove that it knows the token: it is another program")
	asked := impostor.requests()
	if len(asked) == 0 {
		t.Fatal("nothing was asked")
	}
	for _, request := range asked {
		if request.Type != "hello" || strings.Contains(request.body, announced.Token) || strings.Contains(request.body, "secret") {
			t.Fatalf("the impostor got %s", request.body)
		}
	}
	impostor.close()
	must(t, daemon.start())
	patient := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	must(t, patient.SaveMessage(ctx, saveOf(2, "")))
}

// Rule: a program that passes on what the daemon itself answers, a real proof, gets neither token nor requests.
func TestImpostorThatRelaysAProof(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t, onTCP...)
	var mu sync.Mutex
	var seen bytes.Buffer
	impostor := startRelay(t, "tcp", "127.0.0.1:0", daemon.endpoint, &relay{change: func(chunk []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		seen.Write(chunk)
		return chunk
	}})
	token := daemon.announced().Token
	client := newTestClient(t, Options{Endpoint: impostor.endpoint, Token: token, Timeout: shortTimeout})
	fails(t, client.SaveMessage(ctx, saveOf(1, "a secret")), ErrUnavailable,
		"did not prove that it knows the token: it is another program")
	mu.Lock()
	defer mu.Unlock()
	text := seen.String()
	if !strings.Contains(text, `"type":"hello"`) || strings.Contains(text, token) || strings.Contains(text, "secret") {
		t.Fatalf("the impostor got %s", text)
	}
}

// Rule: an answer to hello that is a refusal, or no proof, proves nothing and does no harm.
func TestNoProof(t *testing.T) {
	for name, answer := range map[string]func(fakeRequest) any{
		`answered "unknown-operation"`: func(request fakeRequest) any {
			return request.refused("unknown-operation", FaultCaller, false)
		},
		"did not prove": func(request fakeRequest) any {
			return request.ok(map[string]any{"proof": "0", "endpoints": []any{1, nil}})
		},
		"did not prove that": func(fakeRequest) any { return "text" },
	} {
		fake := startFake(t, "127.0.0.1:0", answer)
		client := newTestClient(t, Options{Endpoint: fake.endpoint, Token: "bot.secret", Timeout: shortTimeout})
		_, err := client.Ping(ctx, Ping{})
		fails(t, err, ErrUnavailable, name)
		for _, request := range fake.requests() {
			if strings.Contains(request.body, "secret") {
				t.Fatalf("it got %s", request.body)
			}
		}
	}
}

// Rule: what speaks no ZMTP, or is no daemon's socket, is told apart; of what it says only the reason is quoted.
func TestWhatIsNoDaemon(t *testing.T) {
	long := strings.Repeat("x", 255)
	greeting := string(zmtpGreeting)
	for said, expected := range map[string]string{
		"HTTP/1.1 400 Bad Request\r\n\r\n":                "does not speak ZMTP 3: it is no backscroll daemon",
		greeting + "\x04\x0b\x05ERROR\x04full":            "the daemon refused the connection: full",
		greeting + "\x00\x01x":                            "the daemon sent a message before it was ready",
		greeting + "\x06\x7f" + strings.Repeat("\xff", 8): "the daemon sent a frame of",
		greeting + "\x06\x00\x00\x00\x00\x00\x00\x01\x15\x05READY\x0bSocket-Type\x00\x00\x00\xff" + long: fmt.Sprintf(
			"what answers there is a %q, no daemon's socket", long[:64]),
	} {
		path := filepath.Join(shortDir(t), "socket")
		listener, err := net.Listen("unix", path)
		must(t, err)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte(said))
			}
		}()
		client := newTestClient(t, Options{Endpoint: "ipc://" + path, Timeout: shortTimeout})
		_, err = client.Ping(ctx, Ping{})
		fails(t, err, ErrUnavailable, expected)
		must(t, listener.Close())
	}
}

// Rule: an address that nobody can connect to is an error of each call, and one that cannot be used is refused at once.
func TestAddresses(t *testing.T) {
	dataDir := shortDir(t)
	announced := []byte(`{"endpoints": ["tcp://127.0.0.1:99999"], "token": "a"}`)
	must(t, os.WriteFile(filepath.Join(dataDir, endpointFile), announced, 0o600))
	client := newTestClient(t, Options{DataDir: dataDir, Timeout: longTimeout})
	for range 2 {
		_, err := client.Ping(ctx, Ping{})
		fails(t, err, ErrInvalid, "cannot connect to")
	}
	for _, endpoint := range []string{
		"http://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:x", "tcp://:5555", "ipc://", "x",
	} {
		_, err := New(&Options{Endpoint: endpoint})
		fails(t, err, ErrInvalid, "an address is such as tcp://127.0.0.1:5555")
	}
	_, err := New(&Options{Endpoint: "curve://127.0.0.1:5555"})
	fails(t, err, ErrInvalid, "no CURVE")
	for _, endpoint := range []string{"tcp://127.0.0.1:5555", "tcp://[::1]:5555", "tcp://localhost:1", "ipc://relative"} {
		_ = newTestClient(t, Options{Endpoint: endpoint})
	}
}

// Rule: without DataDir and Endpoint it is the directory of the environment, or the platform's.
func TestDefaultDirectory(t *testing.T) {
	for _, each := range []struct{ named, xdg, home, expected string }{
		{"/srv/data", "/xdg", "/home/ada", "/srv/data"},
		{"~/data", "/xdg", "/home/ada", "/home/ada/data"},
		{"~data", "/xdg", "/home/ada", "~data"},
		{"", "/xdg", "/home/ada", "/xdg/backscroll"},
		{"", "", "/home/ada", "/home/ada/.local/share/backscroll"},
	} {
		t.Setenv(dataDirVariable, each.named)
		t.Setenv("XDG_DATA_HOME", each.xdg)
		t.Setenv("HOME", each.home)
		found, problem := defaultDataDir()
		if problem != nil {
			t.Fatal(problem)
		}
		same(t, found, each.expected)
	}
	t.Setenv("HOME", "")
	_, problem := defaultDataDir()
	fails(t, problem, ErrInvalid, "this user has no home directory: name a data directory")
}

// Rule: a daemon whose data directory cannot be written is found in the directory for run time data, if that is this user's.
func TestDaemonThatCannotWrite(t *testing.T) {
	place, dataDir := shortDir(t), shortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", place)
	elsewhere := runtimeDir(dataDir)
	must(t, os.MkdirAll(elsewhere, 0o700))
	fake := startFake(t, "", func(request fakeRequest) any { return request.ok(map[string]bool{"pong": true}) })
	announced := fmt.Sprintf(`{"endpoints": [%q]}`, fake.endpoint)
	must(t, os.WriteFile(filepath.Join(elsewhere, endpointFile), []byte(announced), 0o600))
	client := newTestClient(t, Options{DataDir: dataDir})
	_, err := client.Ping(ctx, Ping{})
	must(t, err)
}
