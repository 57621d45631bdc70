package backscroll

// zmtp.json: a daemon byte by byte, which a client pings.

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"
)

type zmtpVector struct {
	Connections [][]json.RawMessage
}

type zmtpStep struct {
	Send    string `json:"send"`
	Each    int    `json:"each"`
	Receive string `json:"receive"`
	Silent  *int64 `json:"silent"`
	Reply   *byte  `json:"reply"`
	Padding int    `json:"padding"`
	End     bool   `json:"end"`
}

func playZMTP(run *vectorRun, each zmtpVector) (string, error) {
	path := filepath.Join(run.directory, run.newName("z"))
	listener, err := net.Listen("unix", path)
	if err != nil {
		return "", err
	}
	defer func() { _ = listener.Close() }()
	client, err := New(&Options{Endpoint: "ipc://" + path, Timeout: vectorTimeout})
	if err != nil {
		return "", err
	}
	defer func() { _ = client.Close() }()
	served, pinged := make(chan error, 1), make(chan error, 1)
	go func() { served <- serveZMTP(listener.(*net.UnixListener), each.Connections) }()
	go func() {
		_, err := client.Ping(context.Background(), Ping{})
		pinged <- err
	}()
	select { // a daemon that met something wrong plays no further, so the client waits in vain
	case err := <-served:
		if err != nil {
			return "", err
		}
		return "", <-pinged
	case err := <-pinged:
		if err != nil {
			return "", err
		}
	}
	_ = client.Close()
	return "", <-served
}

// serveZMTP plays one connection after the other; the error is what is not as expected.
func serveZMTP(listener *net.UnixListener, connections [][]json.RawMessage) error {
	for index, steps := range connections {
		_ = listener.SetDeadline(time.Now().Add(vectorTimeout))
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		isLast := index == len(connections)-1
		if err := playConnection(conn, steps, isLast); err != nil {
			return fmt.Errorf("connection %d of %d: %w", index+1, len(connections), err)
		}
		if isLast { // until the client has closed it
			_, _ = io.Copy(io.Discard, conn)
		}
		_ = conn.Close()
	}
	return nil
}

func playConnection(conn net.Conn, steps []json.RawMessage, isLast bool) error {
	var request []byte
	for _, text := range steps {
		var step zmtpStep
		if err := strictly(text, &step); err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(vectorTimeout))
		var err error
		switch {
		case step.End:
			return nil
		case step.Receive == "greeting":
			err = checkGreeting(conn)
		case step.Receive == "ready":
			err = checkReady(conn)
		case step.Receive == "request":
			request, err = readRequest(conn)
		case step.Silent != nil:
			err = checkSilence(conn, time.Duration(*step.Silent)*time.Millisecond)
		case step.Reply != nil:
			_, err = conn.Write(replyFrame(request, *step.Reply, step.Padding))
		default:
			err = sendHex(conn, step.Send, step.Each)
		}
		if err != nil {
			return err
		}
	}
	if isLast {
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(vectorTimeout))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isNetTimeout(err) {
		return errors.New("the client did not close the connection")
	}
	return nil
}

func isNetTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func sendHex(conn net.Conn, text string, each int) error {
	content, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	size := len(content)
	if each > 0 {
		size = each
	}
	for len(content) > 0 {
		count := min(size, len(content))
		if _, err := conn.Write(content[:count]); err != nil {
			return nil // the client may have closed the connection, as it should have: the next step tells
		}
		content = content[count:]
	}
	return nil
}

func checkGreeting(conn net.Conn) error {
	greeting := make([]byte, 64)
	if _, err := io.ReadFull(conn, greeting); err != nil {
		return fmt.Errorf("the client sent no greeting: %w", err)
	}
	mechanism := strings.TrimRight(string(greeting[12:32]), "\x00")
	if greeting[0] != 0xff || greeting[9] != 0x7f || greeting[10] != 3 || mechanism != "NULL" {
		return fmt.Errorf("the client's greeting is not one of ZMTP 3 with the mechanism NULL: %x", greeting)
	}
	return nil
}

func checkReady(conn net.Conn) error {
	flags, body, err := readZMTPFrame(conn)
	if err != nil {
		return err
	}
	if flags&4 == 0 || !bytes.HasPrefix(body, []byte("\x05READY")) ||
		!bytes.Contains(body, []byte("\x0bSocket-Type\x00\x00\x00\x06DEALER")) {
		return fmt.Errorf("expected READY of a DEALER, got flags %d and %q", flags, body)
	}
	return nil
}

// readRequest returns the client's next message, which must be one frame; commands are skipped.
func readRequest(conn net.Conn) ([]byte, error) {
	for {
		flags, body, err := readZMTPFrame(conn)
		switch {
		case err != nil:
			return nil, err
		case flags&4 != 0:
			continue
		case flags&1 != 0:
			return nil, errors.New("the client's request has more than one frame")
		}
		return body, nil
	}
}

func readZMTPFrame(conn io.Reader) (flags byte, body []byte, err error) {
	header := make([]byte, 9)
	if _, err := io.ReadFull(conn, header[:2]); err != nil {
		return 0, nil, fmt.Errorf("the client sent no frame: %w", err)
	}
	size := uint64(header[1])
	if header[0]&2 != 0 {
		if _, err := io.ReadFull(conn, header[2:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(header[1:])
	}
	body = make([]byte, size)
	_, err = io.ReadFull(conn, body)
	return header[0], body, err
}

func checkSilence(conn net.Conn, during time.Duration) error {
	_ = conn.SetReadDeadline(time.Now().Add(during))
	found := make([]byte, 64)
	count, err := conn.Read(found)
	if count > 0 {
		return fmt.Errorf("the client sent %x where nothing may come", found[:count])
	}
	if !isNetTimeout(err) {
		time.Sleep(during) // it has closed the connection
	}
	return nil
}

// replyFrame returns a frame with the reply to a ping.
func replyFrame(request []byte, flags byte, padding int) []byte {
	var asked struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(request, &asked)
	answer := map[string]any{"id": asked.ID, "ok": true, "result": map[string]bool{"pong": true}, "seq": 0}
	if padding > 0 {
		answer["padding"] = strings.Repeat("x", padding)
	}
	body := []byte(textOf(answer))
	frame := []byte{flags, byte(len(body))}
	if flags&2 != 0 {
		frame = binary.BigEndian.AppendUint64([]byte{flags}, uint64(len(body)))
	}
	return append(frame, body...)
}
