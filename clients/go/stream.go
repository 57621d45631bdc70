package backscroll

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

var errClosed = errors.New("the connection was closed")

// stream is a stream socket that knows when the latest bytes arrived, and why it was closed.
type stream struct {
	net.Conn
	// When the connection was made, and the time from then until the latest bytes arrived.
	opened   time.Time
	received atomic.Int64
	// Why it was closed; set once.
	reason atomic.Pointer[error]
}

func dialStream(ctx context.Context, endpoint string) (*stream, error) {
	network, target, problem := targetOf(endpoint)
	if problem != nil {
		return nil, problem
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, target)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: conn, opened: time.Now()}, nil
}

// Read reads, and notes when.
func (s *stream) Read(bytes []byte) (int, error) {
	count, err := s.Conn.Read(bytes)
	if count > 0 {
		s.received.Store(int64(time.Since(s.opened)))
	}
	return count, err
}

// receivedAt returns when the latest bytes arrived, or when the connection was made.
func (s *stream) receivedAt() time.Time { return s.opened.Add(time.Duration(s.received.Load())) }

// close ends the connection. The first reason is the one that counts.
func (s *stream) close(reason error) {
	s.reason.CompareAndSwap(nil, &reason)
	_ = s.Close()
}

func (s *stream) isClosed() bool { return s.reason.Load() != nil }

// cause returns why the connection was closed, or else what went wrong with it.
func (s *stream) cause(err error) error {
	if reason := s.reason.Load(); reason != nil {
		err = *reason
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errClosed
	}
	return err
}
