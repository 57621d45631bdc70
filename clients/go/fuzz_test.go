package backscroll

import (
	"bufio"
	"bytes"
	"net"
	"testing"
)

// FuzzZMTP checks that no bytes of a peer do harm: a message arrives, or the connection is given up.
func FuzzZMTP(f *testing.F) {
	greeting := string(zmtpGreeting)
	ready := "\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
	for _, sent := range []string{
		greeting + ready + "\x00\x02{}", greeting + ready + "\x01\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02{}",
		greeting + "\x04\x06\x05ERROR", greeting + "\x04\x0a\x05READY\x03a\x00\x00", "\xff", "HTTP/1.1",
	} {
		f.Add([]byte(sent))
	}
	f.Fuzz(func(_ *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		defer func() { _ = ours.Close() }()
		_ = theirs.Close()
		conn := &zmtpConn{stream: &stream{Conn: discard{ours}}, reader: bufio.NewReader(bytes.NewReader(sent))}
		if conn.handshake() != nil {
			return
		}
		for {
			body, err := conn.receive()
			if err != nil {
				return
			}
			_, _ = openReply(body)
		}
	})
}

// discard drops what is written.
type discard struct{ net.Conn }

func (discard) Write(sent []byte) (int, error) { return len(sent), nil }
