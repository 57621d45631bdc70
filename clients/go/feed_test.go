package backscroll

// Following what changes, over restarts and other histories.

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"testing"
	"time"
)

// taken returns so many items of an iteration.
func taken(t testing.TB, changes iter.Seq2[FeedChange, error], count int) (items []FeedChange) {
	t.Helper()
	for change, err := range changes {
		must(t, err)
		if items = append(items, change); len(items) == count {
			break
		}
	}
	return items
}

// Rule: changes come in order, from the beginning, and over restarts; a cursor leads to the next one.
func TestChanges(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	client := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	for number := 1; number <= 3; number++ {
		must(t, client.SaveMessage(ctx, saveOf(number, "")))
	}
	items := taken(t, client.Changes(ctx, &ChangesOptions{Nouns: []string{NounMessage}, Limit: 2}), 3)
	same(t, []any{items[0].ID, items[1].ID, items[2].ID, items[2].AtPageEnd}, []any{"m1", "m2", "m3", true})

	next := make(chan []FeedChange)
	go func() { next <- taken(t, client.Changes(ctx, &ChangesOptions{After: items[2].Cursor}), 2) }()
	for number, content := range []string{"4", "5"} {
		must(t, daemon.restart())
		must(t, client.SaveMessage(ctx, saveOf(4+number, content)))
	}
	items = <-next
	fifth, isMessage := items[1].Value.(*Message)
	if !isMessage {
		t.Fatalf("the value is a %T", items[1].Value)
	}
	same(t, []any{items[0].ID, fifth.Content, items[1].Seq}, []any{"m4", "5", int64(5)})

	must(t, client.DeleteRoom(ctx, DeleteRoom{RoomID: "r1"}))
	last := taken(t, client.Changes(ctx, &ChangesOptions{After: items[1].Cursor, WithoutValues: true}), 1)[0]
	same(t, []any{last.Gone, last.ID, last.RoomID, last.Value}, []any{true, "", "r1", nil})
}

// Rule: a cursor of another history is a gap, with the cursor to go on with.
func TestGap(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir})
	must(t, client.SaveMessage(ctx, saveOf(1, "")))
	must(t, client.SaveMessage(ctx, saveOf(2, "")))
	cursor := taken(t, client.Changes(ctx, nil), 2)[1].Cursor
	must(t, client.DeleteScope(ctx, DeleteScope{}))
	must(t, client.SaveMessage(ctx, saveOf(3, "")))
	count := 0
	for _, err := range client.Changes(ctx, &ChangesOptions{After: cursor}) {
		count++
		var gap *FeedGapError
		if !errors.As(err, &gap) || gap.Cursor == "" || gap.Cursor == cursor {
			t.Fatalf("expected a gap, got %v", err)
		}
	}
	same(t, count, 1)
}

// Rule: a watched query gives each new result, over restarts and gaps, and none twice.
func TestWatch(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	client := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	other := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	type seen struct {
		length int
		seq    int64
		gap    bool
	}
	results, ended := make(chan seen, 10), make(chan error, 1)
	go func() {
		for watched, err := range Watch(ctx, client, GetMessages{RoomID: "r1"}) {
			if err != nil {
				ended <- err
				return
			}
			results <- seen{len(watched.Result), watched.Seq, watched.Gap}
		}
		ended <- nil
	}()
	same(t, <-results, seen{0, 0, false})
	must(t, other.SaveMessage(ctx, saveOf(1, "")))
	same(t, <-results, seen{1, 1, false})
	must(t, daemon.restart())
	must(t, other.SaveMessage(ctx, saveOf(2, "")))
	same(t, <-results, seen{2, 2, false})
	elsewhere := messageOf(3, "")
	elsewhere.RoomID = "r2"
	must(t, other.SaveMessage(ctx, SaveMessage{Message: elsewhere}))
	must(t, other.DeleteScope(ctx, DeleteScope{}))
	same(t, <-results, seen{0, 0, true})
	must(t, client.Close())
	must(t, <-ended)
}

// Rule: an iteration ends with the reason of its context, and when its loop is left.
func TestIterationEnds(t *testing.T) {
	noGoroutineIsLeft(t)
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir})
	stopping, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	enough := errors.New("enough")
	count := 0
	for watched, err := range Watch(stopping, client, GetUser{UserID: "u"}) {
		if count++; count == 1 {
			must(t, err)
			same(t, watched.Result, (*User)(nil))
			time.AfterFunc(10*time.Millisecond, func() { stop(enough) })
		} else if !errors.Is(err, enough) {
			t.Fatalf("expected the reason, got %v", err)
		}
	}
	same(t, count, 2)
	for range Watch(ctx, client, GetUser{UserID: "u"}) {
		break
	}
}

// Rule: without a daemon at the start it ends with that error.
func TestIterationWithoutDaemon(t *testing.T) {
	client := newTestClient(t, Options{DataDir: shortDir(t), Timeout: 50 * time.Millisecond})
	for _, err := range client.Changes(ctx, nil) {
		fails(t, err, ErrUnavailable)
	}
	for _, err := range Watch(ctx, client, GetUser{UserID: "u"}) {
		fails(t, err, ErrUnavailable)
	}
}

// Rule: a change of a later noun keeps what it has.
func TestLaterNoun(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any {
		if request.Type == "ping" {
			return pong(request)
		}
		change := map[string]any{
			"seq": 1, "at": 1, "requestId": "x", "noun": "moon", "id": "m", "value": map[string]string{"phase": "full"},
		}
		return request.ok(map[string]any{"changes": []any{change}, "cursor": "c", "more": false})
	})
	client := newTestClient(t, Options{Endpoint: fake.endpoint})
	change := taken(t, client.Changes(ctx, nil), 1)[0]
	same(t, []any{change.Noun, change.Value}, []any{"moon", json.RawMessage(`{"phase":"full"}`)})
}

// Rule: the feed is asked for what a query reads, in its room if that is all that it reads.
func TestReads(t *testing.T) {
	for _, each := range []struct {
		payload interface{ OperationName() string }
		nouns   []string
		rooms   []string
	}{
		{GetMessagePage{RoomID: "r1"}, []string{"message"}, []string{"r1"}},
		{GetRoom{RoomID: "r1"}, []string{"room", "member"}, []string{"r1"}},
		{GetUsersByRoom{RoomID: "r1"}, []string{"member", "user"}, nil},
		{ListUsers{}, []string{"user"}, nil},
		{ListChannels{}, []string{"room"}, nil},
		{GetLog{}, nil, nil},
	} {
		question, problem := readsOf(each.payload.OperationName(), each.payload)
		if problem != nil {
			t.Fatal(problem)
		}
		same(t, []any{question.Nouns, question.Rooms, *question.Values}, []any{each.nouns, each.rooms, false})
	}
}
