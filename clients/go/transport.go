package backscroll

import (
	"context"
	"fmt"
	"time"
)

const (
	// The delay before the next connection after one that was lost or refused; it doubles up to the second until a reply
	// comes.
	reconnectDelay    = 25 * time.Millisecond
	reconnectDelayMax = time.Second
	// How long a connection may take until requests can be sent.
	connectTimeout = 2 * time.Second
)

// connection is a connection on which requests can be sent. Over tcp the daemon has proved that it knows the token, which
// is sent with each request.
type connection struct {
	*zmtpConn
	endpoint string
	token    string
}

// connect finds the daemon and connects to it. Over tcp the daemon first proves with hello that it knows the token; until
// then neither token nor requests are sent.
func connect(ctx context.Context, where location) (*connection, *Error) {
	found, problem := where.find()
	if problem != nil {
		return nil, problem
	}
	late := fmt.Errorf("it did not let the client connect within %d ms", connectTimeout.Milliseconds())
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, late)
	defer cancel()
	conn, err := dialZMTP(ctx, found.endpoint)
	if err != nil {
		if problem, isOurs := err.(*Error); isOurs {
			return nil, problem
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, noDaemonAt(found.endpoint, err)
	}
	made := &connection{zmtpConn: conn, endpoint: found.endpoint, token: found.token}
	stop := context.AfterFunc(ctx, func() { conn.close(context.Cause(ctx)) })
	if problem := made.open(); problem != nil {
		conn.close(problem)
		return nil, problem
	}
	if !stop() {
		return nil, made.problem(late)
	}
	return made, nil
}

// open waits until requests can be sent, and over tcp has the daemon prove that it knows the token.
func (c *connection) open() *Error {
	if err := c.handshake(); err != nil {
		return c.problem(err)
	}
	if c.token == "" {
		return nil
	}
	question := newHello(address{endpoint: c.endpoint, token: c.token})
	if _, err := c.stream.Write(appendFrame(nil, question.request())); err != nil {
		return c.problem(err)
	}
	answer, err := c.receive()
	if err != nil {
		return c.problem(err)
	}
	return question.check(answer)
}

// problem returns the error that says why there is no connection any more.
func (c *connection) problem(err error) *Error { return noDaemonAt(c.endpoint, c.cause(err)) }

func noDaemonAt(endpoint string, err error) *Error {
	return unavailable("no daemon answers at %s: %v", endpoint, err)
}
