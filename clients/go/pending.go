package backscroll

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"backscroll/language"
)

const (
	retryDelay = 100 * time.Millisecond
	// Requests without a reply, and their bytes. Queries that wait in the daemon do not count: it has a bound for them.
	inFlightMax      = 1_000
	inFlightBytesMax = 32 << 20
	// All calls of a client, also those that are not sent yet, and the bytes of their bodies.
	callsMax      = 100_000
	callsBytesMax = 256 << 20

	whyClosed    = "the client was closed"
	defaultScope = "default"
)

// call is one request, from its creation until its outcome is known.
type call struct {
	id   string
	info language.OperationInfo
	// How long its caller waits, and until when.
	timeout  time.Duration
	deadline time.Time
	payload  []byte
	wait     time.Duration
	// What stands around the payload in the body, so that this has the same bytes whenever it is sent.
	before, after []byte
	bytes         int
	// Its place among all calls of the client.
	number int
	// When it was sent on the current connection.
	sentAt        time.Time
	awaitingReply bool
	inDoubt       bool
	isSettled     bool
	settle        func(outcome)
}

// outcome is the result of a call as JSON and the number of the scope's commit that it reflects, or an error.
type outcome struct {
	result json.RawMessage
	seq    int64
	err    *Error
}

// envelope is what a request has besides its operation.
type envelope struct {
	id, scope, traceparent string
	// How long the caller waits besides the time for which the operation itself does.
	timeout time.Duration
	now     time.Time
}

// newCall encodes a request.
func newCall(operation string, payload any, with envelope, settle func(outcome)) (*call, *Error) {
	if len(with.id) < 1 || len(with.id) > language.MaxRequestIDBytes || !utf8.ValidString(with.id) {
		return nil, failure(ErrInvalid, "a request id must be text of 1 to %d bytes", language.MaxRequestIDBytes)
	}
	encoded, problem := encode(payload)
	if problem != nil {
		return nil, problem
	}
	info, isKnown := language.FindOperation(operation)
	if !isKnown { // one of a later level; the daemon ignores what only a command needs, where it is none
		info = language.OperationInfo{Name: operation, Kind: language.CommandOperation}
	}
	wait := waitOf(encoded)
	c := &call{id: with.id, info: info, payload: encoded, wait: wait, settle: settle}
	c.timeout = with.timeout + wait
	c.deadline = with.now.Add(c.timeout)
	c.before = appendField(appendField([]byte(`{`), "id", with.id), "type", operation)
	c.before = append(c.before, `"payload":`...)
	c.after = []byte(`,`)
	if with.scope != "" && with.scope != defaultScope {
		c.after = appendField(c.after, "scope", with.scope)
	}
	if with.traceparent != "" {
		c.after = appendField(c.after, "traceparent", with.traceparent)
	}
	c.bytes = len(c.before) + len(c.payload) + len(c.after)
	if most := bodyBytesMax(operation); c.bytes > most {
		return nil, failure(ErrTooLarge, "the body has %d bytes; at most %d are allowed", c.bytes, most)
	}
	return c, nil
}

func bodyBytesMax(operation string) int {
	if operation == (AppendLog{}).OperationName() {
		return language.MaxLogBodyBytes
	}
	return language.MaxBodyBytes
}

// waitOf returns how long the daemon is asked to wait; 0 also for what it refuses, so that its refusal is waited for like
// any reply.
func waitOf(payload []byte) time.Duration {
	var waiting struct {
		WaitMs int64 `json:"waitMs"`
	}
	if !bytes.Contains(payload, []byte(`"waitMs"`)) || json.Unmarshal(payload, &waiting) != nil ||
		waiting.WaitMs < 0 || waiting.WaitMs > language.MaxWaitMs {
		return 0
	}
	return time.Duration(waiting.WaitMs) * time.Millisecond
}

// appendField appends a field of a JSON object, whose value is text or a number, and a comma.
func appendField(body []byte, name string, value any) []byte {
	written, _ := json.Marshal(value) // of text and numbers, which it can always write
	body = append(append(append(body, '"'), name...), `":`...)
	return append(append(body, written...), ',')
}

// wasSent tells whether the call may have had an effect, while it has no outcome.
func (c *call) wasSent() bool { return c.awaitingReply || c.inDoubt }

// waits tells whether its reply may come long after those of later calls.
func (c *call) waits() bool { return c.wait > 0 }

// bodyAt returns what to send now. Attempts differ only in deadlineMs, the remaining time. A query that waits must wait
// so much less, or its reply would come after the deadline.
func (c *call) bodyAt(now time.Time, level int, token string) []byte {
	remainingMs := max(1, int64((c.deadline.Sub(now)+time.Millisecond-1)/time.Millisecond))
	payload := c.payload
	if passed := c.timeout - time.Duration(remainingMs)*time.Millisecond; c.waits() && passed > 0 {
		payload = withWait(payload, max(0, c.wait-passed))
	}
	body := make([]byte, 0, c.bytes+len(token)+64)
	body = append(append(append(body, c.before...), payload...), c.after...)
	if level > 0 {
		body = appendField(body, "level", level)
	}
	if token != "" {
		body = appendField(body, "auth", token)
	}
	body = appendField(body, "deadlineMs", remainingMs)
	body[len(body)-1] = '}'
	return body
}

func withWait(payload []byte, wait time.Duration) []byte {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(payload, &fields) // it was encoded here
	fields["waitMs"], _ = json.Marshal(wait.Milliseconds())
	shorter, _ := json.Marshal(fields)
	return shorter
}

// unanswered returns the error of a call that got no reply: ErrUnavailable if it was not sent, otherwise ErrNoReply.
func (c *call) unanswered(why string) *Error {
	switch {
	case c.wasSent() && why == "":
		within := c.timeout.Round(time.Millisecond).Milliseconds()
		return failure(ErrNoReply, "no reply within %d ms: whether the request took effect is unknown", within)
	case c.wasSent():
		return failure(ErrNoReply, "%s: whether the request took effect is unknown", why)
	case why == "":
		return unavailable("no daemon answers; nothing was sent")
	default:
		return unavailable("%s; nothing was sent", why)
	}
}

// pendingCalls has a client's calls without an outcome, in the order first sent, and the queue of those to send next. It
// does no I/O:
//
//	call ──add()──▶ queue ──next(), markSent()──▶ daemon
//	                ▲  ▲                            │
//	reconnected() ──┘  └──── handleReply() ◀────────┘
//
// The daemon executes a command once, however often it receives the same id. So unanswered calls are sent again:
//
//   - On a new connection, all of them in the order first sent, before anything new.
//   - After a refusal while an earlier attempt is in doubt, because its connection was lost. Such a refusal says nothing
//     about that attempt, unless it is the caller's fault. The call is sent again after retryDelay, unless others were
//     sent after it: then its outcome is unknown.
//
// A call is never sent twice on one connection, which loses nothing while it lives: the copy would stand behind later
// requests, and could take effect after them. The ids of maintenance operations are not remembered by the daemon, so
// these are sent once; if their connection is lost, the outcome is unknown.
//
// A connection may be lost while the daemon runs on, with the refusal of a command unread. Sent again, it is judged anew,
// after commands that were sent later. So commands have client, an id of this object, and n, which rises: the daemon does
// not execute a command after a later one of its client, and answers superseded.
type pendingCalls struct {
	// When to call queueRetry; zero if there is nothing to retry.
	retryAt  time.Time
	isClosed bool

	client string
	n      int64
	// For the first request only.
	level      int
	calls      map[string]*call
	callsBytes int
	// Those to send next. Settled ones are skipped when they come to the head.
	queue []*call
	// The bytes of each request that has no reply on this connection, also of those that nobody waits for any more. There
	// are several with one id if the caller stopped waiting and executed the command again.
	inFlight      map[string][]int
	inFlightCount int
	inFlightBytes int
	added         int
	highestSent   int
	refused       *call
}

func newPendingCalls() *pendingCalls {
	return &pendingCalls{
		client: newID(), level: language.Level, calls: map[string]*call{}, inFlight: map[string][]int{},
	}
}

// add appends a call to the queue. It is an error if the client was closed, has too many calls, or one with this id.
func (p *pendingCalls) add(c *call) *Error {
	if p.isClosed {
		return c.unanswered(whyClosed)
	}
	if p.calls[c.id] != nil {
		return failure(ErrInvalid, "a request with the id %q is already in flight", c.id)
	}
	if len(p.calls) >= callsMax || p.callsBytes+c.bytes > callsBytesMax {
		problem := failure(ErrBusy, "%d requests of this client, of %d bytes, have no reply yet: wait for some; nothing was "+
			"sent", len(p.calls), p.callsBytes)
		problem.Retryable = true
		return problem
	}
	p.queueRetry() // a refused call goes before a new one
	if c.info.Kind == language.CommandOperation {
		p.n++
		c.after = appendField(appendField(c.after, "client", p.client), "n", p.n)
	}
	p.added++
	c.number = p.added
	p.calls[c.id] = c
	p.callsBytes += c.bytes
	p.queue = append(p.queue, c)
	return nil
}

// next returns the next call to send; nil if there is none, or too many are in flight.
func (p *pendingCalls) next() *call {
	for len(p.queue) > 0 && p.queue[0].isSettled {
		p.dequeue()
	}
	if len(p.queue) == 0 || !p.queue[0].waits() && p.isFull(p.queue[0].bytes) {
		return nil
	}
	return p.queue[0]
}

// markSent notes that the next call is sent now; it returns its body.
func (p *pendingCalls) markSent(c *call, now time.Time, token string) []byte {
	body := c.bodyAt(now, p.level, token)
	p.level = 0
	p.dequeue()
	c.awaitingReply = true
	c.sentAt = now
	p.highestSent = max(p.highestSent, c.number)
	if !c.waits() {
		p.inFlight[c.id] = append(p.inFlight[c.id], c.bytes)
		p.inFlightCount++
		p.inFlightBytes += c.bytes
	}
	return body
}

// handleReply processes a reply. One to a call that nobody waits for is dropped.
func (p *pendingCalls) handleReply(opened reply, now time.Time) {
	id, isText := opened.ID.(string)
	if !isText || p.isOfEarlier(id) {
		return
	}
	c := p.calls[id]
	if c == nil || !c.awaitingReply {
		return
	}
	c.awaitingReply = false
	found := opened.outcome()
	switch {
	case !c.inDoubt || found.err == nil || found.err.Fault == FaultCaller:
		p.settle(c, found)
	case c.number < p.highestSent:
		p.settle(c, outcome{err: c.unanswered("a retry was refused, and other requests were sent after it")})
	default:
		p.refused = c
		p.retryAt = now.Add(retryDelay)
		if slices.ContainsFunc(p.queue, func(each *call) bool { return !each.isSettled }) {
			p.queueRetry()
		}
	}
}

// reconnected queues all calls without an outcome to be sent on a new connection, in order.
func (p *pendingCalls) reconnected() {
	p.lost()
	p.queue = p.inOrder()
}

// lost notes that the connection was lost: what was sent on it is in doubt.
func (p *pendingCalls) lost() {
	clear(p.inFlight)
	p.inFlightCount, p.inFlightBytes = 0, 0
	p.refused, p.retryAt = nil, time.Time{}
	p.queue = nil
	for _, c := range p.inOrder() {
		c.inDoubt = c.wasSent()
		c.awaitingReply = false
		if c.inDoubt && c.info.Kind == language.MaintenanceOperation {
			p.settle(c, outcome{err: c.unanswered("the connection was lost")})
		}
	}
}

// retryIfDue queues the refused call if its delay is over.
func (p *pendingCalls) retryIfDue(now time.Time) {
	if !p.retryAt.IsZero() && !now.Before(p.retryAt) {
		p.queueRetry()
	}
}

// queueRetry queues the refused call, if there is one, before those that were never sent.
func (p *pendingCalls) queueRetry() {
	if p.refused != nil {
		p.queue = append([]*call{p.refused}, p.queue...)
	}
	p.refused, p.retryAt = nil, time.Time{}
}

// settle gives a call its outcome. What is held of it from then on, in the queue or by its caller, is without its body.
func (p *pendingCalls) settle(c *call, found outcome) {
	c.isSettled = true
	c.before, c.payload, c.after = nil, nil, nil
	if p.calls[c.id] == c {
		p.forget(c)
	}
	c.settle(found)
}

// forget drops a call that nobody waits for any more.
func (p *pendingCalls) forget(c *call) {
	delete(p.calls, c.id)
	p.callsBytes -= c.bytes
	if p.refused == c {
		p.refused, p.retryAt = nil, time.Time{}
	}
	if len(p.queue) > 2*len(p.calls)+inFlightMax {
		p.queue = slices.DeleteFunc(p.queue, func(each *call) bool { return each.isSettled })
	}
}

// fail settles all calls for which there is an error.
func (p *pendingCalls) fail(errorOf func(*call) *Error) {
	for _, c := range p.inOrder() {
		if problem := errorOf(c); problem != nil {
			p.settle(c, outcome{err: problem})
		}
	}
}

// timeOut settles a call whose deadline has passed; receivedAt is when the latest bytes arrived. It returns whether the
// connection is to be given up as lost: if nothing has arrived since the call was sent, and if nobody waits for any of
// the requests that fill the window, because their replies may never come.
func (p *pendingCalls) timeOut(c *call, problem *Error, receivedAt time.Time) bool {
	isSilent := c.awaitingReply && receivedAt.Before(c.sentAt)
	p.settle(c, outcome{err: problem})
	if isSilent || c.waits() || !p.isFull(c.bytes) {
		return isSilent
	}
	for id := range p.inFlight {
		if p.calls[id] != nil {
			return false
		}
	}
	return true
}

// inOrder returns all calls in the order first sent.
func (p *pendingCalls) inOrder() []*call {
	return slices.SortedFunc(maps.Values(p.calls), func(one, other *call) int { return cmp.Compare(one.number, other.number) })
}

func (p *pendingCalls) dequeue() {
	p.queue[0] = nil // so that it can be freed
	p.queue = p.queue[1:]
}

// isOfEarlier notes a reply. It is true if the reply is to a request that nobody waits for, after which the same id was
// sent again: a refusal of the first says nothing about the second.
func (p *pendingCalls) isOfEarlier(id string) bool {
	sizes := p.inFlight[id]
	if len(sizes) == 0 {
		return false
	}
	p.inFlightCount--
	p.inFlightBytes -= sizes[0]
	if len(sizes) > 1 {
		p.inFlight[id] = sizes[1:]
		return true
	}
	delete(p.inFlight, id)
	return false
}

// isFull tells whether so many bytes more would be too much; one request is always allowed.
func (p *pendingCalls) isFull(bytes int) bool {
	return p.inFlightCount >= inFlightMax || p.inFlightCount > 0 && p.inFlightBytes+bytes > inFlightBytesMax
}

// reply is the body of a reply.
type reply struct {
	ID     any             `json:"id"` // null or no text only in answer to a body without an id that is one
	OK     *bool           `json:"ok"`
	Result json.RawMessage `json:"result"`
	Seq    int64           `json:"seq"`
	Error  *replyError     `json:"error"`
}

type replyError struct {
	Code      Code            `json:"code"`
	Message   string          `json:"message"`
	Fault     Fault           `json:"fault"`
	Retryable bool            `json:"retryable"`
	Details   json.RawMessage `json:"details"`
}

// openReply reads the body of a reply; it is an error if it is none.
func openReply(body []byte) (reply, *Error) {
	var opened reply
	err := json.Unmarshal(body, &opened)
	if err != nil || opened.OK == nil || *opened.OK && opened.Result == nil || !*opened.OK && opened.Error == nil ||
		!utf8.Valid(body) {
		return reply{}, failure(ErrInternal, "the daemon sent an invalid reply")
	}
	return opened, nil
}

func (r reply) outcome() outcome {
	if *r.OK {
		return outcome{result: r.Result, seq: r.Seq}
	}
	problem := &Error{
		Code: r.Error.Code, Fault: r.Error.Code.Fault(), Retryable: r.Error.Retryable,
		Message: r.Error.Message, Details: r.Error.Details,
	}
	if problem.Code == "" {
		problem.Code = ErrInternal
	}
	if problem.Message == "" {
		problem.Message = string(problem.Code)
	}
	if r.Error.Fault == FaultCaller { // also that of a code which this level does not know
		problem.Fault = FaultCaller
	}
	if typeOf(problem.Details) != "object" {
		problem.Details = nil
	}
	return outcome{err: problem}
}
