package backscroll

// What an application can attach: a logger, and the trace context of its spans.

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// lines is a log, as text.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.text.String()), "\n")
}

// Rule: the logger gets outcomes and connections, as warnings if the daemon is at fault, and nothing of what people wrote.
func TestLogger(t *testing.T) {
	fake := startFake(t, "", func(request fakeRequest) any {
		switch request.Type {
		case "save-user":
			return request.refused("busy", FaultDaemon, true)
		case "get-room":
			return request.refused("not-found", FaultCaller, false)
		}
		return request.ok(nil)
	})
	var log lines
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Logger: logger})
	_, err := Start(ctx, client, saveOf(1, "a secret"), WithRequestID("first")).Wait()
	must(t, err)
	_, err = client.GetRoom(ctx, GetRoom{RoomID: "r1"})
	fails(t, err, ErrNotFound)
	user := UserInput{ID: "ada", OderID: "ada", Username: "ada", DisplayName: Ptr("a secret")}
	fails(t, client.SaveUser(ctx, SaveUser{User: user}), ErrBusy)
	fake.cut()
	waitUntil(t, "the loss is told", func() bool { return len(log.all()) == 5 })
	for index, expected := range []string{
		`level=DEBUG msg=connected$`,
		`level=DEBUG msg="save-message: ok" id=first duration=\S+ seq=1$`,
		`level=DEBUG msg="get-room: not-found" id=\S+ duration=\S+ path=""$`,
		`level=WARN msg="save-user: busy: refused: busy" id=\S+ duration=\S+$`,
		`level=WARN msg="not connected" code=unavailable problem="no daemon answers at ipc:.*: the connection was closed"$`,
	} {
		if line := log.all()[index]; !regexp.MustCompile(expected).MatchString(line) || strings.Contains(line, "secret") {
			t.Fatalf("expected %s, got %s", expected, line)
		}
	}
}

// Rule: an application whose OnConnection takes long misses some changes of the connection, but not the latest.
func TestSlowOnConnection(t *testing.T) {
	client := newTestClient(t, Options{DataDir: shortDir(t), OnConnection: func(error) {}})
	for number := range 3 * eventsMax {
		client.report(unavailable("%d", number))
	}
	client.report(nil)
	same(t, len(client.events), eventsMax)
	for range eventsMax - 1 {
		<-client.events
	}
	same(t, <-client.events, error(nil))
}

// Rule: a request has the trace context of its context.
func TestTraceparent(t *testing.T) {
	fake := startFake(t, "", pong)
	type span struct{}
	client := newTestClient(t, Options{Endpoint: fake.endpoint, Traceparent: func(ctx context.Context) string {
		traceparent, _ := ctx.Value(span{}).(string)
		return traceparent
	}})
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	_, err := client.Ping(ctx, Ping{})
	must(t, err)
	_, err = client.Ping(context.WithValue(ctx, span{}, traceparent), Ping{})
	must(t, err)
	asked := fake.requests()
	same(t, []string{asked[0].Traceparent, asked[1].Traceparent}, []string{"", traceparent})
}
