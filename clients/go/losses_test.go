package backscroll

// Real daemons and lost connections: nothing is lost, nothing takes effect twice, and nothing overtakes what was sent
// before.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	manyCommands = 10_000
	refusedEvery = 7
	pairs        = 20
)

func isRefused(number int) bool { return number%refusedEvery == 0 }

// pipelined saves messages without waiting, and among that updates one that is never there; each must have its outcome. A
// command that was refused, the reply lost, may be superseded when it is sent again.
func pipelined(t testing.TB, client *Client, settled func(count int)) {
	t.Helper()
	outcomes := make(chan func() error, manyCommands)
	go func() {
		defer close(outcomes)
		for number := range manyCommands {
			if isRefused(number) {
				update := UpdateMessage{MessageID: "none", Updates: MessageUpdates{Content: Ptr("x")}}
				outcomes <- outcomeFrom(Start(ctx, client, update))
			} else {
				outcomes <- outcomeFrom(Start(ctx, client, saveOf(number, fmt.Sprint(number))))
			}
		}
	}()
	number := 0
	for outcome := range outcomes {
		err := outcome()
		isAsExpected := err == nil
		if isRefused(number) {
			isAsExpected = errors.Is(err, ErrNotFound) || errors.Is(err, ErrSuperseded)
		}
		if !isAsExpected {
			t.Fatalf("command %d: %v", number, err)
		}
		number++
		settled(number)
	}
}

func outcomeFrom[Result any](pending *Pending[Result]) func() error {
	return func() error {
		_, err := pending.Wait()
		return err
	}
}

// checkComplete has an observer read in the log that each save took effect once, in the order in which they were started.
func checkComplete(t testing.TB, observer *Client) {
	t.Helper()
	expected := 0
	for from := int64(1); ; {
		page, err := observer.GetLog(ctx, GetLog{FromSeq: from, Limit: 500})
		must(t, err)
		for _, entry := range page.Entries {
			for isRefused(expected) {
				expected++
			}
			var payload SaveMessage
			must(t, json.Unmarshal(entry.Payload, &payload))
			if payload.Message.ID != fmt.Sprintf("m%d", expected) {
				t.Fatalf("entry %d: expected m%d, got %s", entry.Seq, expected, payload.Message.ID)
			}
			expected++
		}
		if from += int64(len(page.Entries)); from > page.LastSeq {
			break
		}
	}
	same(t, expected, manyCommands)
}

// Rule: 10,000 pipelined commands, refusals among them, over three kills end complete, once each and in order.
func TestCommandsOverKills(t *testing.T) {
	for carrier, flags := range map[string][]string{"ipc": nil, "tcp": onTCP} {
		t.Run(carrier, func(t *testing.T) {
			noGoroutineIsLeft(t)
			// So that replies come in small portions.
			daemon := startTestDaemon(t, append([]string{"--batch-requests", "100"}, flags...)...)
			var connections atomic.Int64
			client := newTestClient(t, Options{
				DataDir: daemon.dataDir, Timeout: 4 * longTimeout,
				OnConnection: func(problem error) {
					if problem == nil {
						connections.Add(1)
					}
				},
			})
			kills := 0
			var restarting sync.WaitGroup
			restarted := make(chan error, 3)
			pipelined(t, client, func(count int) {
				if kills < 3 && count >= (kills+1)*manyCommands/5 && len(restarted) == kills {
					kills++
					restarting.Add(1)
					go func() {
						defer restarting.Done()
						restarted <- daemon.restart()
					}()
				}
			})
			restarting.Wait()
			for range kills {
				must(t, <-restarted)
			}
			same(t, kills, 3)
			waitUntil(t, "there were four connections", func() bool { return connections.Load() == 4 })
			checkComplete(t, newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout}))
		})
	}
}

// Rule: so they do over connections that are cut at any byte, delayed, or swallow what is sent.
func TestCommandsOverBadConnections(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	seeds := 3
	if isLong {
		seeds = 100
	}
	faults := 0
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			scope := fmt.Sprintf("seed-%d", seed)
			proxy := startProxy(t, daemon.endpoint(), seed)
			client := newTestClient(t, Options{Endpoint: proxy.endpoint, Scope: scope, Timeout: 4 * longTimeout})
			pipelined(t, client, func(int) {})
			must(t, client.Close())
			faults += proxy.stop(t)
			checkComplete(t, newTestClient(t, Options{Endpoint: daemon.endpoint(), Scope: scope, Timeout: longTimeout}))
		})
	}
	if faults <= seeds {
		t.Fatalf("there were only %d faults", faults)
	}
}

// Rule: an update that was refused, its reply unread, and is sent again never wins over a save that was started after it.
// Without its number it would: that shows that the test is one.
func TestRefusedUpdateNeverWins(t *testing.T) {
	t.Parallel()
	for name, isNumbered := range map[string]bool{"numbered": true, "not numbered": false} {
		t.Run(name, func(t *testing.T) {
			daemon := startTestDaemon(t)
			var losesReplies atomic.Bool
			between := &relay{onReply: func([]byte) bool { return !losesReplies.Load() }}
			if !isNumbered {
				between.change = withoutNumbers
			}
			path := filepath.Join(shortDir(t), "relay")
			startRelay(t, "unix", path, daemon.endpoint, between)
			client := newTestClient(t, Options{Endpoint: between.endpoint, Timeout: longTimeout})
			observer := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
			_, err := client.Ping(ctx, Ping{})
			must(t, err)
			losesReplies.Store(true)
			var updates, saves []func() error
			for number := range pairs {
				update := UpdateMessage{MessageID: fmt.Sprintf("m%d", number), Updates: MessageUpdates{Content: Ptr("old")}}
				updates = append(updates, outcomeFrom(Start(ctx, client, update)))
				saves = append(saves, outcomeFrom(Start(ctx, client, saveOf(number, "new"))))
			}
			waitUntil(t, "all are saved", func() bool { return len(contentsOf(t, observer)) == pairs })
			losesReplies.Store(false)
			between.cut()
			expected := "new"
			if !isNumbered {
				expected = "old"
			}
			for number := range pairs {
				must(t, saves[number]())
				if err := updates[number](); isNumbered {
					fails(t, err, ErrSuperseded)
				} else {
					must(t, err)
				}
			}
			for _, content := range contentsOf(t, observer) {
				same(t, content, expected)
			}
		})
	}
}

func contentsOf(t testing.TB, client *Client) (contents []string) {
	t.Helper()
	page, err := client.GetMessagePage(ctx, GetMessagePage{RoomID: "r1"})
	must(t, err)
	for _, message := range page.Messages {
		contents = append(contents, message.Content)
	}
	return contents
}

// withoutNumbers blanks out client and n, as many bytes as they are.
func withoutNumbers(chunk []byte) []byte {
	for {
		start := bytes.Index(chunk, []byte(`"client":`))
		if start < 0 {
			return chunk
		}
		end := start + bytes.Index(chunk[start:], []byte(`"deadlineMs"`))
		if level := bytes.Index(chunk[start:end], []byte(`"level"`)); level >= 0 {
			end = start + level
		}
		for at := start; at < end; at++ {
			chunk[at] = ' '
		}
	}
}

// Rule: a stopped daemon is waited for until the deadline, then its connection is given up; it goes on when the daemon
// does.
func TestStoppedDaemon(t *testing.T) {
	daemon := startTestDaemon(t)
	client := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: 150 * time.Millisecond})
	_, err := client.Ping(ctx, Ping{})
	must(t, err)
	daemon.signal(t, syscall.SIGSTOP)
	_, err = client.Ping(ctx, Ping{})
	fails(t, err, ErrNoReply)
	_, err = client.Ping(ctx, Ping{})
	fails(t, err, ErrUnavailable)
	daemon.signal(t, syscall.SIGCONT)
	patient := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	_, err = patient.Ping(ctx, Ping{})
	must(t, err)
	waitUntil(t, "the client goes on", func() bool {
		_, err := client.Ping(ctx, Ping{})
		return err == nil
	})
}
