package backscroll

// The README's example: word for word, and with a daemon that is killed in the middle.

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const examplePrints = "ada: Hello! 👋\n"

// Rule: the README shows the example as it is.
func TestREADMEShowsTheExample(t *testing.T) {
	code, err := os.ReadFile(filepath.Join("example", "main.go"))
	must(t, err)
	readme, err := os.ReadFile("README.md")
	must(t, err)
	if !strings.Contains(string(readme), "```go\n"+string(code)+"```") {
		t.Fatal("README.md does not show example/main.go as it is")
	}
}

// Rule: it runs, and when the daemon is killed at any of its requests, nothing is lost or done twice.
func TestExample(t *testing.T) {
	program := filepath.Join(shortDir(t), "example")
	output, err := exec.Command("go", "build", "-o", program, "./example").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	run := func(t *testing.T, dataDir string) {
		t.Helper()
		output, err := exec.Command(program, dataDir).CombinedOutput()
		must(t, err)
		same(t, string(output), examplePrints)
	}
	t.Run("runs", func(t *testing.T) { run(t, startTestDaemon(t).dataDir) })
	for _, operation := range []string{"save-message", "save-reaction", "get-message-page"} {
		for _, when := range []string{"request", "reply"} {
			t.Run(operation+" "+when, func(t *testing.T) {
				daemon := startTestDaemon(t)
				run(t, killedAt(t, daemon, operation, when == "reply"))
				page, err := newTestClient(t, Options{DataDir: daemon.dataDir}).GetLog(ctx, GetLog{})
				must(t, err)
				same(t, []string{page.Entries[0].Type, page.Entries[1].Type}, []string{"save-message", "save-reaction"})
				same(t, len(page.Entries), 2)
			})
		}
	}
}

// killedAt returns a directory that leads to a daemon through a relay. The relay kills the daemon once, at the first request
// of an operation: either in place of sending it, or when its reply has come, which is then not passed on. Then it starts
// it again.
func killedAt(t *testing.T, daemon *testDaemon, operation string, atReply bool) string {
	t.Helper()
	var mu sync.Mutex
	isAsked, isKilled := false, false
	between := &relay{}
	restart := func() {
		isKilled = true
		must(t, daemon.kill())
		between.cut()
		must(t, daemon.start())
	}
	between.change = func(chunk []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		isAsked = !isKilled && bytes.Contains(chunk, []byte(`"type":"`+operation+`"`))
		if isAsked && !atReply {
			restart()
			return nil
		}
		return chunk
	}
	between.onReply = func([]byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if isAsked && !isKilled {
			restart()
			return false
		}
		return true
	}
	dataDir := shortDir(t)
	startRelay(t, "unix", filepath.Join(dataDir, "relay"), daemon.endpoint, between)
	announced := fmt.Sprintf(`{"endpoints": [%q]}`, between.endpoint)
	must(t, os.WriteFile(filepath.Join(dataDir, endpointFile), []byte(announced), 0o600))
	t.Cleanup(func() {
		if !isKilled {
			t.Error("the daemon was never killed")
		}
	})
	return dataDir
}
