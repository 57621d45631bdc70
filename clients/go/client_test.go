package backscroll

// Requests and their results, against real daemons.

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Rule: what is saved is read back as it was, free JSON byte for byte.
func TestSavedIsReadBack(t *testing.T) {
	t.Parallel()
	for carrier, flags := range map[string][]string{"ipc": nil, "tcp": onTCP} {
		t.Run(carrier, func(t *testing.T) {
			client := newTestClient(t, Options{DataDir: startTestDaemon(t, flags...).dataDir})
			message := messageOf(1, "hello 👋 \u2028 <b>&</b>")
			message.EditedAt = Ptr(int64(253_402_300_799_999))
			message.Revision = Ptr(int64(1<<53 - 1))
			message.SenderName = Ptr("")
			message.Metadata = json.RawMessage(`{"list":[1,1.0,null,true,18446744073709551615],"nested":{"text":"é\u0000<>"}}`)
			must(t, client.SaveMessage(ctx, SaveMessage{Message: message}))
			page, err := client.GetMessagePage(ctx, GetMessagePage{RoomID: "r1", Limit: 50})
			must(t, err)
			same(t, len(page.Messages), 1)
			found := page.Messages[0]
			same(t, meaning(found.Metadata), meaning(message.Metadata))
			found.Metadata, message.Metadata = nil, nil
			same(t, found, Message{
				ID: message.ID, RoomID: message.RoomID, SenderID: message.SenderID, Content: message.Content,
				Timestamp: message.Timestamp, EditedAt: message.EditedAt, Revision: message.Revision,
				SenderName: message.SenderName, Reactions: []Reaction{},
			})
		})
	}
}

// Rule: in an update a field has three states: it is left, cleared or set.
func TestThreeStates(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir})
	message := messageOf(1, "old")
	message.SenderName, message.Metadata = Ptr("Ada"), json.RawMessage(`{"a":1}`)
	message.ThreadID = "m0"
	must(t, client.SaveMessage(ctx, SaveMessage{Message: message}))
	updates := MessageUpdates{SenderName: Clear[string](), Content: Ptr("new"), ThreadID: Set("m7")}
	must(t, client.UpdateMessage(ctx, UpdateMessage{MessageID: "m1", Updates: updates}))
	read, err := client.GetMessageByID(ctx, GetMessageByID{MessageID: "m1"})
	must(t, err)
	if read.SenderName != nil {
		t.Fatalf("it was not cleared: %s", *read.SenderName)
	}
	same(t, []string{read.Content, read.ThreadID, string(read.Metadata)}, []string{"new", "m7", `{"a":1}`})
	none, err := client.GetMessageByID(ctx, GetMessageByID{MessageID: "none"})
	must(t, err)
	if none != nil {
		t.Fatalf("found %v", none)
	}
}

// Rule: an error has its code, which errors.Is finds, and the path of the field that it is about.
func TestErrors(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir})
	err := client.UpdateMessage(ctx, UpdateMessage{MessageID: "none", Updates: MessageUpdates{Content: Ptr("x")}})
	problem := fails(t, err, ErrNotFound, "not-found: $.payload.messageId: there is no message 'none'")
	same(t, []any{problem.Fault, problem.Retryable, problem.Path()}, []any{FaultCaller, false, "$.payload.messageId"})
	if errors.Is(err, ErrConflict) || errors.Is(err, context.Canceled) {
		t.Fatalf("%v is another error", err)
	}
	late := map[string]any{"message": map[string]any{
		"id": "m1", "roomId": "r1", "content": "", "timestamp": "late",
	}}
	problem = fails(t, client.Call(ctx, "save-message", late, nil), ErrInvalid)
	same(t, problem.Path(), "$.payload.message.timestamp")
	_, err = client.GetMessages(ctx, GetMessages{RoomID: "r1", Limit: 501})
	same(t, fails(t, err, ErrInvalid).Path(), "$.payload.limit")
}

// Rule: a batch is one command, and its error says which of its commands fail.
func TestBatch(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir})
	commands := []Command{saveOf(1, "1"), DeleteMessage{MessageID: "none"}}
	_, err := client.Batch(ctx, Batch{Commands: commands})
	failures := fails(t, err, ErrNotFound).Failures()
	same(t, []any{len(failures), failures[0].Index, failures[0].Code}, []any{1, 1, ErrNotFound})
	raw := BatchedCommand{Type: "create-user", Payload: json.RawMessage(`{"pubkey":"<k>"}`)}
	results, err := client.Batch(ctx, Batch{Commands: []Command{saveOf(1, "1"), raw}})
	must(t, err)
	var user User
	must(t, json.Unmarshal(results[1], &user))
	same(t, []any{string(results[0]), *user.Pubkey}, []any{"null", "<k>"})
	_, err = client.Batch(ctx, Batch{Commands: []Command{nil}})
	fails(t, err, ErrInvalid, "the payload cannot be written", "commands[0] is nil")
}

// Rule: text that is not UTF-8 is refused before it is sent, wherever it is, and not replaced.
func TestTextThatIsNotUTF8(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any { return request.ok(nil) })
	client := newTestClient(t, Options{Endpoint: fake.endpoint})
	bad := "cut \xf0\x9f"
	save := func(change func(message *MessageInput)) SaveMessage {
		message := messageOf(1, "")
		change(&message)
		return SaveMessage{Message: message}
	}
	for _, each := range []struct {
		payload interface{ OperationName() string }
		path    string
	}{
		{save(func(m *MessageInput) { m.Content = bad }), "$.payload.message.content"},
		{save(func(m *MessageInput) { m.SenderName = &bad }), "$.payload.message.senderName"},
		{save(func(m *MessageInput) { m.Mentions = []string{"a", bad} }), "$.payload.message.mentions[1]"},
		{save(func(m *MessageInput) { m.Metadata = json.RawMessage(`{"a":"` + bad + `"}`) }), "$.payload.message.metadata"},
		{
			save(func(m *MessageInput) { m.Reactions = []ReactionInput{{MessageID: "m1", Emoji: bad}} }),
			"$.payload.message.reactions[0].emoji",
		},
		{UpdateMessage{MessageID: "m1", Updates: MessageUpdates{Content: &bad}}, "$.payload.updates.content"},
		{UpdateMessage{MessageID: "m1", Updates: MessageUpdates{SenderName: Set(bad)}}, "$.payload.updates.senderName"},
		{
			Batch{Commands: []Command{saveOf(1, ""), saveOf(2, bad)}},
			"$.payload.commands[1].payload.message.content",
		},
	} {
		problem := fails(t, client.Call(ctx, each.payload.OperationName(), each.payload, nil), ErrInvalid, "valid UTF-8")
		same(t, problem.Path(), each.path)
	}
	problem := fails(t, client.Call(ctx, "x", map[string]any{"a": []any{bad}}, nil), ErrInvalid)
	same(t, problem.Path(), "$.payload.a[0]")
	same(t, len(fake.requests()), 0)
	must(t, client.SaveMessage(ctx, saveOf(1, "a \ufffd is text too")))
	same(t, fake.requests()[0].Payload["message"].(map[string]any)["content"], "a \ufffd is text too")
	_, err := New(&Options{Scope: bad})
	fails(t, err, ErrInvalid)
}

// Rule: what JSON cannot carry, and what is too large, is refused before it is sent.
func TestWhatCannotBeSent(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any { return request.ok(nil) })
	client := newTestClient(t, Options{Endpoint: fake.endpoint})
	for _, payload := range []any{
		map[string]any{"a": math.NaN()}, map[string]any{"a": make(chan int)},
		save(json.RawMessage(`{"a":`)), json.RawMessage(`{`),
	} {
		fails(t, client.Call(ctx, "save-message", payload, nil), ErrInvalid, "the payload cannot be written")
	}
	for payload, found := range map[any]string{"m1": "string", 7: "number", true: "boolean"} {
		fails(t, client.Call(ctx, "save-message", payload, nil), ErrInvalid, "expected an object, such as", found)
	}
	fails(t, client.SaveMessage(ctx, saveOf(1, strings.Repeat("x", 8<<20))), ErrTooLarge, "at most 7340032 are allowed")
	for _, id := range []string{"", strings.Repeat("x", 65), strings.Repeat("é", 33), "\xff"} {
		_, err := Start(ctx, client, saveOf(1, ""), WithRequestID(id)).Wait()
		fails(t, err, ErrInvalid, "a request id must be text of 1 to 64 bytes")
	}
	same(t, len(fake.requests()), 0)
}

func save(metadata json.RawMessage) SaveMessage {
	message := messageOf(1, "")
	message.Metadata = metadata
	return SaveMessage{Message: message}
}

// Rule: an id makes a command take effect once, and belongs to one command.
func TestRequestID(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir})
	create := func(pubkey string) (Answer[*User], error) {
		return Start(ctx, client, CreateUser{Pubkey: pubkey}, WithRequestID("mine")).Wait()
	}
	first, err := create("a key")
	must(t, err)
	again, err := create("a key")
	must(t, err)
	same(t, again, first)
	_, err = create("another key")
	fails(t, err, ErrConflict)
	one := Start(ctx, client, saveOf(1, ""), WithRequestID("same"))
	other := Start(ctx, client, saveOf(1, ""), WithRequestID("same"))
	_, err = one.Wait()
	must(t, err)
	_, err = other.Wait()
	fails(t, err, ErrInvalid, "already in flight")
}

// Rule: scopes are separate.
func TestScopes(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	ada := newTestClient(t, Options{DataDir: daemon.dataDir, Scope: "ada"})
	bob := newTestClient(t, Options{DataDir: daemon.dataDir, Scope: "bob"})
	must(t, ada.SaveMessage(ctx, saveOf(1, "")))
	found, err := bob.GetMessageByID(ctx, GetMessageByID{MessageID: "m1"})
	must(t, err)
	if found != nil {
		t.Fatal("bob sees what ada saved")
	}
}

// Rule: without a daemon it says so and what to do; a client that waits finds one that starts.
func TestNoDaemon(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: shortDir(t), Timeout: 50 * time.Millisecond})
	_, err := client.Ping(ctx, Ping{})
	problem := fails(t, err, ErrUnavailable, "no daemon is ready in", "start one with `backscroll serve --data-dir")
	same(t, problem.Retryable, true)

	daemon := startTestDaemon(t)
	must(t, daemon.kill())
	patient := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	waiting := Start(ctx, patient, Ping{})
	must(t, daemon.start())
	answer, err := waiting.Wait()
	must(t, err)
	same(t, answer.Result.Pong, true)
}

// Rule: a context ends the wait, with its reason in the error; one that has ended sends nothing.
func TestContext(t *testing.T) {
	daemon := startTestDaemon(t)
	client := newTestClient(t, Options{DataDir: daemon.dataDir})
	now, err := client.GetChanges(ctx, GetChanges{After: "now"})
	must(t, err)
	enough := errors.New("enough")
	stopping, stop := context.WithCancelCause(ctx)
	waiting := Start(stopping, client, GetChanges{After: now.Cursor, WaitMs: 60_000})
	stop(enough)
	_, err = waiting.Wait()
	if !errors.Is(err, enough) || !errors.Is(err, ErrNoReply) && !errors.Is(err, ErrUnavailable) {
		t.Fatalf("expected the reason, got %v", err)
	}
	_, err = client.Ping(stopping, Ping{})
	fails(t, err, ErrUnavailable, "the caller stopped waiting; nothing was sent")
	short, cancel := context.WithTimeout(ctx, 150*time.Millisecond)
	defer cancel()
	_, err = client.GetChanges(short, GetChanges{After: now.Cursor, WaitMs: 60_000})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNoReply) {
		t.Fatalf("expected the deadline, got %v", err)
	}
	_, err = client.Ping(ctx, Ping{})
	must(t, err)
}

// Rule: that nothing arrives while a caller with less time than the client's Timeout waits, gives no connection up.
func TestImpatientCallers(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any {
		if request.Type == "ping" {
			return request.ok(map[string]bool{"pong": true})
		}
		return nil
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint})
	_, err := client.Ping(ctx, Ping{})
	must(t, err)
	for _, timeout := range []time.Duration{10 * time.Millisecond, 150 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, timeout)
		_, err := client.GetChanges(short, GetChanges{WaitMs: 1_000})
		fails(t, err, ErrNoReply)
		cancel()
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err = client.GetUser(short, GetUser{UserID: "u"})
	fails(t, err, ErrNoReply)
	_, err = client.Ping(ctx, Ping{})
	must(t, err)
	same(t, fake.connections(), 1)
}

// Rule: if nothing arrives for as long as the client's Timeout, the connection is given up, however little time each caller
// has.
func TestSilenceForImpatientCallers(t *testing.T) {
	fake := startFake(t, "", func(fakeRequest) any { return nil })
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Timeout: shortTimeout})
	waitUntil(t, "it connects again", func() bool {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err := client.GetUser(short, GetUser{UserID: "u"})
		return err != nil && fake.connections() > 1
	})
}

// Rule: closing fails what has no reply and what comes later, ends iterations, and leaves no goroutine.
func TestClose(t *testing.T) {
	noGoroutineIsLeft(t)
	daemon := startTestDaemon(t)
	client := newTestClient(t, Options{DataDir: daemon.dataDir, OnConnection: func(error) {}})
	now, err := client.GetChanges(ctx, GetChanges{After: "now"})
	must(t, err)
	waiting := Start(ctx, client, GetChanges{After: now.Cursor, WaitMs: 60_000})
	ended := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		count := 0
		for _, err := range Watch(ctx, client, GetUser{UserID: "u"}) {
			if count++; count == 1 {
				close(began)
			}
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	<-began
	must(t, client.Close())
	must(t, client.Close())
	_, err = waiting.Wait()
	fails(t, err, ErrNoReply, "the client was closed: whether the request took effect is unknown")
	must(t, <-ended)
	_, err = client.Ping(ctx, Ping{})
	fails(t, err, ErrUnavailable, "the client was closed; nothing was sent")
}

// Rule: a client that was never used, or finds no daemon, can be closed too.
func TestCloseWithoutConnection(t *testing.T) {
	noGoroutineIsLeft(t)
	must(t, newTestClient(t, Options{DataDir: shortDir(t)}).Close())
	client := newTestClient(t, Options{DataDir: shortDir(t)})
	waiting := Start(ctx, client, Ping{})
	must(t, client.Close())
	_, err := waiting.Wait()
	fails(t, err, ErrUnavailable)
}

// Rule: a client is for many goroutines at once.
func TestManyGoroutines(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir, Timeout: longTimeout})
	outcomes := make(chan error)
	const goroutines, each = 20, 50
	for goroutine := range goroutines {
		go func() {
			for number := range each {
				if err := client.SaveMessage(ctx, saveOf(goroutine*each+number, "")); err != nil {
					outcomes <- err
					return
				}
			}
			outcomes <- nil
		}()
	}
	for range goroutines {
		must(t, <-outcomes)
	}
	page, err := client.GetLog(ctx, GetLog{Limit: 1})
	must(t, err)
	same(t, page.LastSeq, int64(goroutines*each))
}

// Rule: OnConnection may call the client, and close it.
func TestOnConnectionMayCallTheClient(t *testing.T) {
	noGoroutineIsLeft(t)
	client := new(atomic.Pointer[Client])
	problems := make(chan error, 100)
	made, err := New(&Options{
		DataDir: shortDir(t), Timeout: longTimeout,
		OnConnection: func(problem error) {
			problems <- problem
			if len(problems) == 3 {
				_ = client.Load().Close()
			} else {
				Start(ctx, client.Load(), Ping{})
			}
		},
	})
	must(t, err)
	client.Store(made)
	_, err = made.Ping(ctx, Ping{})
	fails(t, err, ErrUnavailable, "the client was closed; nothing was sent")
	fails(t, <-problems, ErrUnavailable, "no daemon is ready in")
}

// Rule: options that cannot be used are refused.
func TestBadOptions(t *testing.T) {
	for _, options := range []Options{{Timeout: -1}, {Scope: strings.Repeat("x", 129)}} {
		_, err := New(&options)
		fails(t, err, ErrInvalid)
	}
}

// Rule: pages go backwards with the cursor of the page before, as the README says.
func TestPagesGoBackwards(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir})
	for number := range 7 {
		must(t, client.SaveMessage(ctx, saveOf(number, "")))
	}
	var ids []string
	query := GetMessagePage{RoomID: "r1", Limit: 3}
	for hasOlder := true; hasOlder; {
		page, err := client.GetMessagePage(ctx, query)
		must(t, err)
		for _, message := range slices.Backward(page.Messages) {
			ids = append(ids, message.ID)
		}
		query.Before, hasOlder = page.OlderCursor, page.HasOlder
	}
	same(t, ids, []string{"m6", "m5", "m4", "m3", "m2", "m1", "m0"})
}
