// Package development has what working on the client needs, and nothing that its users do.
package development

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
)

// Rule: an ordinary ZeroMQ library talks to the daemon: a round trip, and a command that is sent again, byte for byte, is
// answered byte for byte, and takes effect once.
func TestOrdinaryLibrary(t *testing.T) {
	for carrier, flags := range map[string][]string{"ipc": nil, "tcp": {"--endpoint", "tcp://127.0.0.1:*"}} {
		t.Run(carrier, func(t *testing.T) {
			announced := serve(t, flags...)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			socket := zmq4.NewDealer(ctx)
			defer func() { _ = socket.Close() }()
			if err := socket.Dial(announced.Endpoints[0]); err != nil {
				t.Fatal(err)
			}
			ask := func(id, operation string, payload any) string {
				body, err := json.Marshal(map[string]any{
					"id": id, "type": operation, "payload": payload, "deadlineMs": 5_000, "auth": announced.auth(),
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := socket.Send(zmq4.NewMsg(body)); err != nil {
					t.Fatal(err)
				}
				reply, err := socket.Recv()
				if err != nil {
					t.Fatal(err)
				}
				return string(reply.Frames[len(reply.Frames)-1])
			}
			if pong := ask("1", "ping", map[string]any{}); pong != `{"id":"1","ok":true,"result":{"pong":true},"seq":0}` {
				t.Fatalf("ping is answered %s", pong)
			}
			create := map[string]any{"pubkey": "a key"} // the result has ids that the daemon makes
			first, again := ask("2", "create-user", create), ask("2", "create-user", create)
			if first != again {
				t.Fatalf("%s is answered, and then %s", first, again)
			}
			if next := ask("3", "create-user", map[string]any{"pubkey": "another"}); json.Valid([]byte(next)) {
				var reply struct{ Seq int }
				if err := json.Unmarshal([]byte(next), &reply); err != nil || reply.Seq != 2 {
					t.Fatalf("the next command is answered %s", next)
				}
			}
		})
	}
}

type announcement struct {
	Endpoints []string
	Token     *string
}

// auth is the token, or null over ipc.
func (a announcement) auth() *string { return a.Token }

// serve starts a daemon that ends with the test.
func serve(t *testing.T, flags ...string) (announced announcement) {
	t.Helper()
	command := os.Getenv("BACKSCROLL")
	if command == "" {
		command = "backscroll"
	}
	dataDir, err := os.MkdirTemp("", "backscroll-go-")
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(command, append([]string{"serve", "--data-dir", dataDir, "--exit-with-parent"}, flags...)...)
	input, err := daemon.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		_, _ = io.Copy(io.Discard, output)
		_ = daemon.Wait()
		_ = os.RemoveAll(dataDir)
	})
	if _, err := output.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dataDir, "endpoint.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &announced); err != nil {
		t.Fatal(err)
	}
	return announced
}
