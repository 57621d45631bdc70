package backscroll

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"backscroll/language"
	"backscroll/update"
)

const (
	defaultTimeout = 5 * time.Second
	timeoutMax     = (1<<31 - 1) * time.Millisecond

	whyCanceled = "the caller stopped waiting"
)

// Options says how to find the daemon, and what holds for all requests. The zero value means the daemon of the directory
// that BACKSCROLL_DATA_DIR names, or else of the platform's directory for the data of this user.
type Options struct {
	// DataDir is the data directory of the daemon.
	DataDir string
	// Endpoint is its address, such as ipc:///run/chat/backscroll.sock or tcp://127.0.0.1:5555, in place of DataDir.
	Endpoint string
	// Token is the token for tcp; otherwise BACKSCROLL_TOKEN, or the one in the data directory.
	Token string
	// Scope is the account whose data it is: "default" if left out. At most 128 bytes.
	Scope string
	// Timeout is how long a request waits for its reply if its context has no deadline: 5 s if left out. The daemon does
	// not start the request later than that. When a request got no reply in its time, and nothing at all has arrived for
	// so long, the connection is given up for a new one.
	Timeout time.Duration
	// OnConnection is called with nil whenever a connection was made, and with the problem, an [*Error], whenever it was
	// lost or could not be made. It may call the client. While one call goes on, 16 others wait; of more the oldest are left out.
	OnConnection func(problem error)
	// Logger gets a line for each request that has its outcome, and for each connection: as a warning if the daemon was
	// at fault, or does not answer, otherwise for debugging. Payloads, results and tokens are never written. It is called
	// by the goroutine that receives, so it must not wait for a request.
	Logger *slog.Logger
	// Traceparent returns the W3C trace context of a request, such as that of the span in its context; the daemon writes
	// it to its log. Empty for none.
	Traceparent func(ctx context.Context) string
}

// Client is a client of a backscroll daemon, for any number of goroutines. Make it with [Open] or [New], and close it. It
// connects with the first request, and again whenever the connection was lost.
//
// Every operation is a method; the package language documents their payloads. [Start] sends a request without
// waiting for its reply, [Watch] follows the result of a query, and [Client.Changes] each change.
//
// Requests take effect in the order in which they were made. Those without a reply are sent again on a new connection, in
// that order and before any other; the daemon recognises commands by their ids, so each takes effect once. At most 1,000
// are in flight; more wait here, up to 100,000 with bodies of 256 MiB, and beyond that fail with [ErrBusy].
//
// A request waits until the deadline of its context, or the client's Timeout if that has none. It fails with an [*Error]:
// with that of the daemon's reply if it had no effect ([ErrNotFound], …), with [ErrUnavailable] if nothing was sent, and
// with [ErrNoReply] if its outcome is unknown.
type Client struct {
	options Options
	// Ends when the client is closed.
	ctx   context.Context
	stop  context.CancelFunc
	start sync.Once
	// Something may have to be sent.
	wake   chan struct{}
	events chan error

	mu         sync.Mutex
	pending    *pendingCalls
	connection *connection
	// When the first request was sent after the latest bytes that had arrived, other than queries that wait.
	askedAt time.Time
	// Why there is no connection.
	problem *Error
	// The calls that were settled since mu was locked.
	settled []*request
}

// request is a call and whoever waits for it.
type request struct {
	*call
	ctx     context.Context
	begun   time.Time
	release func()
	done    chan struct{}
	// What it led to; to be read after done was closed.
	outcome outcome
}

// New returns a client of the daemon of a directory, or at an endpoint; nil stands for the zero value of Options. It fails
// with [ErrInvalid] if these cannot be used. Whether a daemon answers, the first request shows.
func New(options *Options) (*Client, error) {
	if options == nil {
		options = &Options{}
	}
	client, problem := newClient(*options)
	if problem != nil {
		return nil, problem
	}
	return client, nil
}

func newClient(options Options) (*Client, *Error) {
	if options.Endpoint != "" {
		if _, _, problem := targetOf(options.Endpoint); problem != nil {
			return nil, problem
		}
	}
	if len(options.Scope) > language.MaxScopeBytes || !utf8.ValidString(options.Scope) {
		return nil, invalidAt("$.scope", "a scope is text of at most %d bytes", language.MaxScopeBytes)
	}
	if options.Timeout < 0 {
		return nil, failure(ErrInvalid, "Timeout must not be negative, and is %v", options.Timeout)
	}
	if options.Timeout == 0 {
		options.Timeout = defaultTimeout
	}
	options.Timeout = min(options.Timeout, timeoutMax)
	client := &Client{
		options: options, wake: make(chan struct{}, 1), events: make(chan error, eventsMax), pending: newPendingCalls(),
	}
	client.ctx, client.stop = context.WithCancel(context.Background())
	return client, nil
}

// Call sends a request by its name, waits for its result, and decodes it into what result points to, as encoding/json
// does; nil drops it. The operation may be one of a later level than this client. A nil payload is an empty one.
func (c *Client) Call(ctx context.Context, operation string, payload, result any) error {
	sent, problem := c.send(ctx, operation, payload, requestOptions{})
	if problem != nil {
		return problem
	}
	_, problem = sent.await(result)
	if problem != nil {
		return problem
	}
	return nil
}

// Close closes the connection. Requests without a reply fail, later ones too, and iterators end. It always returns nil.
func (c *Client) Close() error {
	c.mu.Lock()
	c.pending.isClosed = true
	c.stop() // before anything fails: iterators end without an error then
	c.pending.fail(func(each *call) *Error { return each.unanswered(whyClosed) })
	c.unlock()
	return nil
}

// Ptr returns a pointer to a value, for optional fields.
func Ptr[T any](value T) *T { return &value }

// Field is a field of an update, which is left as it is, set, or cleared.
type Field[T any] = update.Field[T]

// Set gives a field of an update a value.
func Set[T any](value T) Field[T] { return update.Set(value) }

// Clear takes away the value of a field in an update.
func Clear[T any]() Field[T] { return update.Clear[T]() }

// send adds a request to those to send.
func (c *Client) send(ctx context.Context, operation string, payload any, with requestOptions) (*request, *Error) {
	if ctx.Err() != nil {
		return nil, unavailable("%s; nothing was sent", whyCanceled).because(context.Cause(ctx))
	}
	now := time.Now()
	added := &request{ctx: ctx, begun: now, done: make(chan struct{})}
	around := envelope{id: newID(), scope: c.options.Scope, timeout: c.options.Timeout, now: now}
	if with.id != nil {
		around.id = *with.id
	}
	if c.options.Traceparent != nil {
		around.traceparent = c.options.Traceparent(ctx)
	}
	made, problem := newCall(operation, payload, around, func(found outcome) {
		added.outcome = found
		close(added.done)
		c.settled = append(c.settled, added)
	})
	if problem != nil {
		return nil, problem
	}
	if deadline, hasDeadline := ctx.Deadline(); hasDeadline && (!with.isBounded || deadline.Before(made.deadline)) {
		made.timeout = min(max(0, deadline.Sub(now)), timeoutMax)
		made.deadline = now.Add(made.timeout)
	}
	added.call = made
	waiting, cancel := context.WithDeadline(ctx, made.deadline)
	c.mu.Lock()
	if problem := c.pending.add(made); problem != nil {
		c.mu.Unlock()
		cancel()
		return nil, problem
	}
	stop := context.AfterFunc(waiting, func() { c.giveUp(added, waiting) })
	added.release = func() {
		stop()
		cancel()
	}
	c.unlock()
	c.start.Do(func() {
		go c.run()
		if c.options.OnConnection != nil {
			go c.tellEvents()
		}
	})
	c.wakeUp()
	return added, nil
}

// await waits for the outcome, and decodes the result into what target points to.
func (r *request) await(target any) (int64, *Error) {
	<-r.done
	if r.outcome.err != nil {
		return 0, r.outcome.err
	}
	return r.outcome.seq, decode(r.info, r.outcome.result, target)
}

// giveUp settles a request whose context has ended.
func (c *Client) giveUp(given *request, waiting context.Context) {
	c.mu.Lock()
	defer c.unlock()
	if given.isSettled {
		return
	}
	isDeadline := errors.Is(waiting.Err(), context.DeadlineExceeded)
	problem := given.unanswered(c.whyUnanswered(given.call, isDeadline))
	if !given.wasSent() && c.problem != nil {
		problem = c.problem
	}
	problem = problem.because(context.Cause(waiting))
	if c.connection == nil {
		c.pending.settle(given.call, outcome{err: problem})
		return
	}
	now, receivedAt := time.Now(), c.connection.receivedAt()
	isSilent := c.askedAt.After(receivedAt) && now.Sub(c.askedAt) >= c.options.Timeout
	if !isDeadline || given.timeout < c.options.Timeout+given.call.wait {
		receivedAt = now // that nothing arrived while a caller with less time waited says nothing about the daemon
	}
	if c.pending.timeOut(given.call, problem, receivedAt) || isSilent {
		c.connection.close(errors.New("the daemon does not answer"))
	}
}

// whyUnanswered says why a call has no reply, where that is not just its deadline.
func (c *Client) whyUnanswered(given *call, isDeadline bool) string {
	switch {
	case !isDeadline:
		return whyCanceled
	case c.connection != nil && !given.wasSent():
		return "too many requests before it have no reply yet"
	default:
		return ""
	}
}

// wakeUp has the goroutine that owns the socket look for what is to be sent.
func (c *Client) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// unlock unlocks mu, and tells of the requests that were settled meanwhile.
func (c *Client) unlock() {
	settled := c.settled
	c.settled = nil
	c.mu.Unlock()
	for _, each := range settled {
		each.release()
		c.logOutcome(each)
	}
}

func (o Options) location() location {
	return location{dataDir: o.DataDir, endpoint: o.Endpoint, token: o.Token}
}
