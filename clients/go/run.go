package backscroll

import (
	"context"
	"errors"
	"time"
)

// So many bytes of requests are written at once, or one request.
const writeBytes = 1 << 20

// run owns the socket: while there are requests, the connection is made again whenever it is lost.
func (c *Client) run() {
	delay := reconnectDelay
	for c.hasCalls() {
		made, problem := connect(c.ctx, c.options.location())
		if problem == nil {
			var hasReplied bool
			if problem, hasReplied = c.serve(made); hasReplied {
				delay = reconnectDelay // and not before: a daemon may accept connections only to end them
			}
		}
		if !c.lost(problem) {
			continue
		}
		select {
		case <-time.After(delay):
		case <-c.ctx.Done():
		}
		delay = min(2*delay, reconnectDelayMax)
	}
}

// hasCalls waits until there are calls; it is false when the client was closed.
func (c *Client) hasCalls() bool {
	for {
		c.mu.Lock()
		isClosed, count := c.pending.isClosed, len(c.pending.calls)
		c.mu.Unlock()
		if isClosed || count > 0 {
			return !isClosed
		}
		select {
		case <-c.wake:
		case <-c.ctx.Done():
		}
	}
}

// serve sends and receives until the connection is lost; it returns why that is, and whether a reply came.
func (c *Client) serve(made *connection) (problem *Error, hasReplied bool) {
	stop := context.AfterFunc(c.ctx, func() { made.close(errors.New(whyClosed)) })
	defer stop()
	c.mu.Lock()
	c.connection, c.problem = made, nil
	c.pending.reconnected()
	c.unlock()
	c.report(nil)
	ended := make(chan error, 1)
	go func() {
		err := c.receive(made, &hasReplied)
		made.close(err)
		ended <- err
	}()
	for {
		frames, retryAt := c.sendable(made)
		if len(frames) > 0 {
			if _, err := made.stream.Write(frames); err != nil {
				made.close(err)
				<-ended
				return made.problem(err), hasReplied
			}
			continue
		}
		if err, isLost := c.pause(retryAt, ended); isLost {
			return made.problem(err), hasReplied
		}
	}
}

// pause waits until something may have to be sent, or the connection is lost.
func (c *Client) pause(retryAt time.Time, ended <-chan error) (err error, isLost bool) {
	var retry <-chan time.Time
	if !retryAt.IsZero() {
		retry = time.After(time.Until(retryAt))
	}
	select {
	case <-c.wake:
	case <-retry:
	case err := <-ended:
		return err, true
	}
	return nil, false
}

// sendable returns the frames of requests to send now, and when to look again for one to retry.
func (c *Client) sendable(made *connection) (frames []byte, retryAt time.Time) {
	c.mu.Lock()
	defer c.unlock()
	now := time.Now()
	c.pending.retryIfDue(now)
	for len(frames) < writeBytes && !made.isClosed() {
		next := c.pending.next()
		if next == nil {
			break
		}
		if !next.waits() && !c.askedAt.After(made.receivedAt()) {
			c.askedAt = now
		}
		frames = appendFrame(frames, c.pending.markSent(next, now, made.token))
	}
	return frames, c.pending.retryAt
}

// receive processes replies until the connection is lost.
func (c *Client) receive(made *connection, hasReplied *bool) error {
	for {
		body, err := made.receive()
		if err != nil {
			return err
		}
		*hasReplied = true
		opened, problem := openReply(body)
		c.mu.Lock()
		if problem != nil {
			c.pending.fail(func(*call) *Error { return problem }) // it is unknown which call it belongs to
		} else {
			c.pending.handleReply(opened, time.Now())
		}
		canSend := c.pending.next() != nil || !c.pending.retryAt.IsZero()
		c.unlock()
		if canSend {
			c.wakeUp()
		}
	}
}

// lost notes that there is no connection; it returns whether one is needed.
func (c *Client) lost(problem *Error) bool {
	c.mu.Lock()
	c.connection, c.problem = nil, problem
	c.pending.lost()
	if problem.Fault == FaultCaller { // what does not go away by waiting is said at once
		c.pending.fail(func(each *call) *Error {
			if each.wasSent() {
				return nil
			}
			return problem
		})
	}
	isClosed, count := c.pending.isClosed, len(c.pending.calls)
	c.unlock()
	if !isClosed {
		c.report(problem)
	}
	return !isClosed && count > 0
}
