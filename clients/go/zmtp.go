package backscroll

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"backscroll/language"
)

const (
	frameMore    = 1
	frameLong    = 2
	frameCommand = 4

	greetingBytes = 64
	// So many bytes are read at once.
	readBytes = 64 << 10
)

var (
	// The signature, version 3.0, the mechanism NULL, and zeros up to 64 bytes.
	zmtpGreeting = append([]byte("\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x03\x00NULL"), make([]byte, 48)...)
	zmtpReady    = []byte("\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER")
)

// zmtpConn is one connection that speaks ZMTP 3.0 with the mechanism NULL, as a DEALER: greeting, READY, and then
// frames. A message is one frame, the body. The end of the stream is the end of the connection; it never connects again.
type zmtpConn struct {
	*stream
	reader *bufio.Reader
}

// dialZMTP connects to an endpoint; the handshake follows.
func dialZMTP(ctx context.Context, endpoint string) (*zmtpConn, error) {
	connected, err := dialStream(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	return &zmtpConn{stream: connected, reader: bufio.NewReaderSize(connected, readBytes)}, nil
}

// handshake waits until requests can be sent.
func (z *zmtpConn) handshake() error {
	if _, err := z.stream.Write(zmtpGreeting); err != nil {
		return err
	}
	if err := z.readGreeting(); err != nil {
		return err
	}
	if _, err := z.stream.Write(zmtpReady); err != nil {
		return err
	}
	for {
		flags, body, err := z.readFrame()
		if err != nil {
			return err
		}
		if flags&frameCommand == 0 {
			return errors.New("the daemon sent a message before it was ready")
		}
		name, data, err := readCommand(body)
		if err != nil {
			return err
		}
		if name != "READY" {
			continue
		}
		switch socket := socketType(data); socket {
		case "ROUTER", "DEALER", "REP": // a daemon has a ROUTER; a DEALER may talk to all of these
			return nil
		default:
			return fmt.Errorf("what answers there is a %q, no daemon's socket", quoted(socket))
		}
	}
}

// readGreeting reads the daemon's greeting. Whatever is no greeting may show in its first byte, with none to follow.
func (z *zmtpConn) readGreeting() error {
	greeting, err := z.reader.Peek(1)
	if err == nil && greeting[0] == zmtpGreeting[0] {
		greeting = make([]byte, greetingBytes)
		_, err = io.ReadFull(z.reader, greeting)
	}
	if err != nil {
		return err
	}
	if len(greeting) < greetingBytes || greeting[9] != 0x7f || greeting[10] < 3 {
		return errors.New("what answers there does not speak ZMTP 3: it is no backscroll daemon")
	}
	if mechanism := strings.TrimRight(string(greeting[12:32]), "\x00"); mechanism != "NULL" {
		return fmt.Errorf("the daemon asks for the mechanism %q, which this client lacks", mechanism)
	}
	return nil
}

// receive returns the body of the next message. The frames before it carry nothing for a DEALER.
func (z *zmtpConn) receive() ([]byte, error) {
	for {
		flags, body, err := z.readFrame()
		if err != nil {
			return nil, err
		}
		if flags&frameCommand != 0 {
			if _, _, err := readCommand(body); err != nil {
				return nil, err
			}
		} else if flags&frameMore == 0 {
			return body, nil
		}
	}
}

func (z *zmtpConn) readFrame() (flags byte, body []byte, err error) {
	var header [9]byte
	if _, err := io.ReadFull(z.reader, header[:2]); err != nil {
		return 0, nil, err
	}
	flags, size := header[0], uint64(header[1])
	if flags&frameLong != 0 {
		if _, err := io.ReadFull(z.reader, header[2:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(header[1:])
	}
	if size > language.MaxFrameBytes {
		return 0, nil, fmt.Errorf("the daemon sent a frame of %d bytes", size)
	}
	body = make([]byte, size)
	_, err = io.ReadFull(z.reader, body)
	return flags, body, err
}

// appendFrame appends a message of one frame.
func appendFrame(buffer, body []byte) []byte {
	buffer = append(buffer, frameLong)
	buffer = binary.BigEndian.AppendUint64(buffer, uint64(len(body)))
	return append(buffer, body...)
}

// readCommand returns the name and the data of a command; ERROR is an error.
func readCommand(body []byte) (name string, data []byte, err error) {
	name, data = shortText(body)
	if name == "ERROR" {
		reason, _ := shortText(data)
		return name, nil, fmt.Errorf("the daemon refused the connection: %s", reason)
	}
	return name, data, nil
}

// socketType returns the type of socket in the properties of READY, whose names are in any case; empty if there is none.
func socketType(properties []byte) string {
	for len(properties) > 0 {
		name, rest := shortText(properties)
		if len(rest) < 4 {
			return ""
		}
		size := uint64(binary.BigEndian.Uint32(rest))
		value := rest[4:][:min(size, uint64(len(rest)-4))]
		if strings.EqualFold(name, "Socket-Type") {
			return string(value)
		}
		properties = rest[4+len(value):]
	}
	return ""
}

// shortText splits off a text that stands after its size, which is one byte.
func shortText(data []byte) (text string, rest []byte) {
	if len(data) == 0 {
		return "", nil
	}
	end := min(1+int(data[0]), len(data))
	return string(bytes.ToValidUTF8(data[1:end], []byte("?"))), data[end:]
}
