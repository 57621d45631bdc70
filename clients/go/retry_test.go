package backscroll

// Sending again, against a daemon that does what a test says; losses_test.go has real ones.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func pong(request fakeRequest) any { return request.ok(map[string]bool{"pong": true}) }

// Rule: at most 1,000 requests are in flight, and the others follow; after a loss all are sent again in their order.
func TestWindow(t *testing.T) {
	var answers atomic.Bool
	fake := startFake(t, "", func(request fakeRequest) any {
		if answers.Load() {
			return request.ok(nil)
		}
		return nil
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: longTimeout})
	const count = 1_500
	var saving []*Pending[None]
	for number := range count {
		saving = append(saving, Start(ctx, client, saveOf(number, "")))
	}
	waitUntil(t, "the window is full", func() bool { return len(fake.requests()) == inFlightMax })
	answers.Store(true)
	fake.cut()
	for _, each := range saving {
		_, err := each.Wait()
		must(t, err)
	}
	for number, request := range fake.requests()[inFlightMax:] {
		same(t, request.Payload["message"].(map[string]any)["id"], fmt.Sprintf("m%d", number))
	}
}

// Rule: what waits to be sent is bounded in bytes.
func TestBoundInBytes(t *testing.T) {
	pending := newPendingCalls()
	around := func() envelope { return envelope{id: newID(), timeout: longTimeout, now: time.Now()} }
	var first *call
	for number := range 255 {
		made, problem := newCall("save-message", saveOf(1, strings.Repeat("x", 1<<20)), around(), func(outcome) {})
		if problem == nil {
			problem = pending.add(made)
		}
		if problem != nil {
			t.Fatal(problem)
		}
		if number == 0 {
			first = made
		}
	}
	more, _ := newCall("save-message", saveOf(1, strings.Repeat("x", 1<<20)), around(), func(outcome) {})
	problem := pending.add(more)
	fails(t, problem, ErrBusy, "255 requests of this client, of", "wait for some; nothing was sent")
	same(t, problem.Retryable, true)
	pending.settle(first, outcome{})
	if problem := pending.add(more); problem != nil {
		t.Fatal(problem)
	}
}

// Rule: a request that was settled holds its body no longer, also where it is still in the queue or its caller keeps it.
func TestSettledRequestsHoldNoBody(t *testing.T) {
	pending := newPendingCalls()
	var made []*call
	for range 2 {
		around := envelope{id: newID(), timeout: longTimeout, now: time.Now()}
		each, problem := newCall("save-message", saveOf(1, ""), around, func(outcome) {})
		if problem == nil {
			problem = pending.add(each)
		}
		if problem != nil {
			t.Fatal(problem)
		}
		made = append(made, each)
	}
	pending.settle(made[1], outcome{})
	same(t, []any{len(made[1].before), len(made[1].payload), len(made[1].after)}, []any{0, 0, 0})
	sent := string(pending.markSent(pending.next(), time.Now(), ""))
	same(t, strings.Contains(sent, `"id":"m1"`), true)
	if next := pending.next(); next != nil {
		t.Fatalf("%s is sent after it was settled", next.id)
	}
}

// Rule: a retry has the same bytes, but for the deadline that is left and the level, which only the first request has.
func TestRetryHasTheSameBytes(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any {
		if request.connection > 2 {
			return request.ok(nil)
		}
		_ = request.conn.Close()
		return nil
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: longTimeout})
	metadata := json.RawMessage(`{"z":1,"a":{"y":2,"b":[3]}}`)
	saving := Start(ctx, client, save(metadata))
	copy(metadata, `{"q"`)
	_, err := saving.Wait()
	must(t, err)
	changing := regexp.MustCompile(`,"(deadlineMs|level)":\d+`)
	asked := fake.requests()
	same(t, len(asked), 3)
	last := int64(math.MaxInt64)
	for index, request := range asked {
		same(t, changing.ReplaceAllString(request.body, ""), changing.ReplaceAllString(asked[0].body, ""))
		same(t, request.Level == 1, index == 0)
		if !strings.Contains(request.body, `"metadata":{"z":1,"a":{"y":2,"b":[3]}}`) || request.DeadlineMs > last {
			t.Fatalf("sent %s", request.body)
		}
		last = request.DeadlineMs
	}
}

// Rule: commands are numbered, by each client for itself; an operation that is not known here may be one.
func TestNumbers(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any { return request.ok(nil) })
	var clients []string
	for _, scope := range []string{"ada", "bob"} {
		client := newTestClient(t, Options{Endpoint: fake.endpoint, Scope: scope})
		must(t, client.SaveMessage(ctx, saveOf(1, "")))
		_, err := client.GetUser(ctx, GetUser{UserID: "u"})
		must(t, err)
		must(t, client.DeleteScope(ctx, DeleteScope{}))
		must(t, client.Call(ctx, "get-moon", nil, nil))
		must(t, client.SaveMessage(ctx, saveOf(2, "")))
	}
	var numbers []int64
	for _, request := range fake.requests() {
		numbers = append(numbers, request.N)
		same(t, request.Client == "", request.N == 0)
		if request.Client != "" && !slices.Contains(clients, request.Client) {
			clients = append(clients, request.Client)
		}
	}
	same(t, numbers, []int64{1, 0, 0, 2, 3, 1, 0, 0, 2, 3})
	same(t, len(clients), 2)
	if !regexp.MustCompile(`^[0-9A-Z]{26}$`).MatchString(clients[0]) {
		t.Fatalf("%s is no ULID", clients[0])
	}
}

// Rule: a retry that is refused for the daemon's reasons is sent again while nothing was sent after it.
func TestRefusedRetry(t *testing.T) {
	var refusals atomic.Int64
	fake := startFake(t, "", func(request fakeRequest) any {
		switch {
		case request.connection == 1:
			_ = request.conn.Close()
			return nil
		case refusals.Add(1) <= 2:
			return request.refused("busy", FaultDaemon, true)
		}
		return request.ok(nil)
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: longTimeout})
	must(t, client.SaveMessage(ctx, saveOf(1, "")))
	same(t, len(fake.requests()), 4)
}

// Rule: it is not sent behind a later request: its outcome is unknown.
func TestRefusedRetryBehindAnother(t *testing.T) {
	var count atomic.Int64
	fake := startFake(t, "", func(request fakeRequest) any {
		if request.connection == 1 {
			if count.Add(1) == 2 {
				_ = request.conn.Close()
			}
			return nil
		}
		if request.Payload["message"].(map[string]any)["id"] == "m1" {
			return request.refused("busy", FaultDaemon, true)
		}
		return request.ok(nil)
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: longTimeout})
	first, second := Start(ctx, client, saveOf(1, "")), Start(ctx, client, saveOf(2, ""))
	_, err := first.Wait()
	fails(t, err, ErrNoReply, "a retry was refused, and other requests were sent after it: whether the request took effect is unknown")
	_, err = second.Wait()
	must(t, err)
	same(t, len(fake.requests()), 4)
}

// Rule: the first refusal is the outcome, also of a code that may pass.
func TestFirstRefusal(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any { return request.refused("busy", FaultDaemon, true) })
	client := newTestClient(t, Options{Endpoint: fake.endpoint})
	problem := fails(t, client.SaveMessage(ctx, saveOf(1, "")), ErrBusy)
	same(t, []any{problem.Retryable, len(fake.requests())}, []any{true, 1})
}

// Rule: maintenance is sent once.
func TestMaintenanceIsSentOnce(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any {
		if request.Type == "ping" {
			return pong(request)
		}
		_ = request.conn.Close()
		return nil
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: longTimeout})
	fails(t, client.DeleteScope(ctx, DeleteScope{}), ErrNoReply, "the connection was lost")
	_, err := client.Ping(ctx, Ping{})
	must(t, err)
	same(t, len(fake.requests()), 2)
}

// Rule: a command that is executed again has its own reply, not that of the attempt that nobody waits for.
func TestCommandThatIsExecutedAgain(t *testing.T) {
	held := make(chan fakeRequest, 2)
	fake := startFake(t, "", func(request fakeRequest) any {
		if request.Type == "ping" {
			return pong(request)
		}
		held <- request
		return nil
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: longTimeout})
	stopping, stop := context.WithCancel(ctx)
	first := Start(stopping, client, saveOf(1, ""), WithRequestID("mine"))
	refused := <-held
	stop()
	_, err := first.Wait()
	fails(t, err, ErrNoReply, "the caller stopped waiting")
	second := Start(ctx, client, saveOf(1, ""), WithRequestID("mine"))
	executed := <-held
	refused.send(refused.refused("busy", FaultDaemon, true))
	executed.send(executed.ok(nil))
	_, err = second.Wait()
	must(t, err)
	same(t, fake.connections(), 1)
}

// Rule: what got no reply in time has an unknown outcome, and says so; a connection that was silent is given up.
func TestNoReplyInTime(t *testing.T) {
	fake := startFake(t, "", func(fakeRequest) any { return nil })
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: 120 * time.Millisecond})
	err := client.SaveMessage(ctx, saveOf(1, ""))
	problem := fails(t, err, ErrNoReply)
	same(t, problem.Message, "no reply within 120 ms: whether the request took effect is unknown")
	err = client.SaveMessage(ctx, saveOf(2, ""))
	fails(t, err, ErrNoReply)
	same(t, fake.connections(), 2)
}

// Rule: a query that waits and is sent again waits for the rest of its time; it holds up nobody.
func TestWaitingQueries(t *testing.T) {
	asked := make(chan fakeRequest, 2_000)
	fake := startFake(t, "", func(request fakeRequest) any {
		if request.Type == "ping" {
			return pong(request)
		}
		asked <- request
		return nil
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint})
	waiting := Start(ctx, client, GetChanges{WaitMs: 10_000})
	first := <-asked
	time.Sleep(20 * time.Millisecond) // time passes: it is what the rule is about
	fake.cut()
	again := <-asked
	before, after := first.Payload["waitMs"].(float64), again.Payload["waitMs"].(float64)
	if before > 10_000 || after >= before || after <= 0 {
		t.Fatalf("waits %v and then %v ms", before, after)
	}
	again.send(again.ok(ChangePage{Changes: []ItemChange{}, Cursor: "c"}))
	_, err := waiting.Wait()
	must(t, err)
	for range 1_100 {
		Start(ctx, client, GetChanges{WaitMs: 60_000})
	}
	_, err = client.Ping(ctx, Ping{})
	must(t, err)
}

// Rule: what a later level adds to replies survives: fields do no harm, values and codes stay as they are.
func TestLaterLevel(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any {
		switch request.Type {
		case "get-user":
			return request.refused("moon-phase", FaultCaller, false)
		case "list-tokens":
			return request.ok([]any{map[string]any{"name": "a", "right": "dream", "createdAt": 1, "colour": "red"}})
		case "get-moon":
			return request.ok(map[string]bool{"full": true})
		}
		return request.refused("tide", FaultDaemon, true)
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint})
	_, err := client.GetUser(ctx, GetUser{UserID: "u"})
	problem := fails(t, err, Code("moon-phase"))
	same(t, problem.Fault, FaultCaller)
	_, err = client.Ping(ctx, Ping{})
	problem = fails(t, err, "tide")
	same(t, []any{problem.Fault, problem.Retryable}, []any{FaultDaemon, true})
	tokens, err := client.ListTokens(ctx, ListTokens{})
	must(t, err)
	same(t, tokens, []AccessToken{{Name: "a", Right: "dream", CreatedAt: 1}})
	var moon struct{ Full bool }
	must(t, client.Call(ctx, "get-moon", nil, &moon))
	same(t, moon.Full, true)
}

// Rule: what is no reply, or a result of another type, is an error of the daemon.
func TestWhatIsNoReply(t *testing.T) {
	for answer, expected := range map[string]string{
		`nonsense`: "the daemon sent an invalid reply",
		`{"id": "ID", "ok": true, "result": {"pong": "` + "\xff" + `"}, "seq": 1}`: "the daemon sent an invalid reply",
		`{"id": "ID", "ok": true, "result": "text", "seq": 1}`:                     "the daemon's result is string, where object is declared",
		`{"id": "ID", "ok": true, "result": null, "seq": 1}`:                       "the daemon's result is null, where object is declared",
		`{"id": "ID", "ok": true, "result": {"pong": 7}, "seq": 1}`:                "the daemon's result cannot be read",
	} {
		fake := startFake(t, "", func(request fakeRequest) any {
			body := bytes.ReplaceAll([]byte(answer), []byte("ID"), []byte(request.ID))
			_, _ = request.conn.Write(appendFrame(nil, body))
			return nil
		})
		client := newTestClient(t, Options{Endpoint: fake.endpoint})
		_, err := client.Ping(ctx, Ping{})
		fails(t, err, ErrInternal, expected)
	}
}

// Rule: details that are not as declared are those of an error all the same.
func TestStrangeDetails(t *testing.T) {
	for _, details := range []any{5, "text", nil, map[string]any{"failures": "text"}, map[string]any{"path": 7}} {
		fake := startFake(t, "", func(request fakeRequest) any {
			problem := map[string]any{"code": "invalid", "message": "no", "details": details}
			return map[string]any{"id": request.ID, "ok": false, "error": problem}
		})
		client := newTestClient(t, Options{Endpoint: fake.endpoint})
		_, err := client.Ping(ctx, Ping{})
		problem := fails(t, err, ErrInvalid, "invalid: no")
		same(t, []any{problem.Path(), len(problem.Failures())}, []any{"", 0})
	}
}

// Rule: a daemon that ends each connection is asked less and less often.
func TestBackOff(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any {
		_ = request.conn.Close()
		return nil
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: 700 * time.Millisecond})
	_, err := client.Ping(ctx, Ping{})
	fails(t, err, ErrNoReply)
	if count := fake.connections(); count < 2 || count > 6 { // after 25, 50, 100, 200 and 400 ms
		t.Fatalf("there were %d connections", count)
	}
}

// Rule: a daemon that ends its side and reads no more is left at once, also while a request is written.
func TestDaemonThatReadsNoMore(t *testing.T) {
	path := filepath.Join(shortDir(t), "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	must(t, err)
	defer func() { _ = listener.Close() }()
	var connections atomic.Int64
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			connections.Add(1)
			_, _ = conn.Write(append(slices.Clone(zmtpGreeting), bytes.Replace(zmtpReady, []byte("DEALER"), []byte("ROUTER"), 1)...))
			_, _ = conn.Read(make([]byte, 200))
			_, _ = conn.Read(make([]byte, 200))
			_ = conn.CloseWrite()
		}
	}()
	client := newTestClient(t, Options{Endpoint: "ipc://" + path, Timeout: longTimeout})
	saving := Start(ctx, client, saveOf(1, strings.Repeat("x", 6<<20)))
	waitUntil(t, "it connects again", func() bool { return connections.Load() > 1 })
	must(t, client.Close())
	_, err = saving.Wait()
	fails(t, err, ErrNoReply)
}

// Rule: a waitMs that the daemon refuses is sent as it is, and its refusal is waited for.
func TestWaitThatIsRefused(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir, Timeout: longTimeout})
	for _, waitMs := range []int64{-1, 60_001, 1<<53 - 1, math.MaxInt64} {
		_, err := client.GetChanges(ctx, GetChanges{WaitMs: waitMs})
		same(t, fails(t, err, ErrInvalid).Path(), "$.payload.waitMs")
	}
}

// Rule: ids rise with time, also when the clock does not.
func TestIDsRise(t *testing.T) {
	var made ulids
	now := time.Now()
	last := ""
	for _, at := range []time.Time{now, now, now.Add(-time.Hour), now.Add(time.Millisecond), now} {
		id := made.next(at)
		if len(id) != ulidBytes || id <= last {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
	carried := ulids{high: uint64(now.UnixMilli()) << 16, low: math.MaxUint64}
	before := carried.high
	carried.next(now)
	same(t, []uint64{carried.high, carried.low}, []uint64{before + 1, 0})
	same(t, made.next(time.UnixMilli(1 << 47))[:10], "4000000000")
}
