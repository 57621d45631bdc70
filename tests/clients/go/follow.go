// Follow the changes of a room, over the raw protocol: the standard library only, ZMTP by hand.
//
//	go run follow.go DATA_DIR ROOM
//
// Prints JSON lines: first {"shown": ids of the newest messages, "gap": false} and {"cursor"}, then {"seq", "noun",
// "id", "gone"} of each change and {"cursor"} after each page. When the daemon is lost, it connects again and asks on
// with the same cursor. If that belongs to another history, it shows the room anew, with "gap": true.
package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	waitMs        = 30_000
	timeout       = 40 * time.Second // for a daemon that hangs
	shortestDelay = 25 * time.Millisecond
	longestDelay  = 500 * time.Millisecond
	largestFrame  = 8 << 20 // bytes of a reply
	long, command = 2, 4    // flags of a frame
)

// The signature, version 3.0, the mechanism, and zeros up to 64 bytes; then the command READY with our type of socket.
var (
	greeting = "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x03\x00NULL" + strings.Repeat("\x00", 48)
	ready    = "\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
)

var output = json.NewEncoder(os.Stdout)

type object map[string]any

// refusal is the error of a reply.
type refusal struct {
	Message   string
	Retryable bool
}

func (r *refusal) Error() string { return r.Message }

// daemon is a connection on which one request at a time is asked. After its first error it does nothing.
type daemon struct {
	net.Conn
	input *bufio.Reader
	auth  string
	err   error
}

// connect connects to the first endpoint of the daemon, which is ipc or tcp.
func connect(dataDir string) (*daemon, error) {
	var file struct {
		Endpoints []string
		Token     string
	}
	text, err := os.ReadFile(filepath.Join(dataDir, "endpoint.json"))
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		return nil, err
	}
	endpoint := file.Endpoints[0]
	scheme, address, _ := strings.Cut(endpoint, "://")
	conn, err := net.Dial(map[string]string{"ipc": "unix", "tcp": "tcp"}[scheme], address)
	if err != nil {
		return nil, err
	}
	d := &daemon{Conn: conn, input: bufio.NewReader(conn)}
	d.write([]byte(greeting))
	d.read(uint64(len(greeting)))
	d.send(command, []byte(ready))
	d.receive(command) // the daemon's READY: it takes no request before
	if scheme == "tcp" {
		d.checkProof(endpoint, file.Token)
		d.auth = file.Token
	}
	return d, nil
}

// checkProof has the daemon prove that it knows the token, before the token is sent.
func (d *daemon) checkProof(endpoint, token string) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		log.Fatal(err)
	}
	nonce := hex.EncodeToString(random)
	var answer struct {
		Proof     string
		Endpoints []string
	}
	d.ask("hello", object{"nonce": nonce}, &answer)
	text := strings.Join(append([]string{"backscroll-hello", nonce}, answer.Endpoints...), "\n")
	key := sha256.Sum256([]byte(token))
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(text))
	proven := answer.Proof == hex.EncodeToString(mac.Sum(nil)) && strings.Contains(text+"\n", "\n"+endpoint+"\n")
	if d.err == nil && !proven {
		d.err = errors.New("another program has the daemon's port")
	}
}

func (d *daemon) write(data []byte) {
	if d.err == nil {
		d.SetDeadline(time.Now().Add(timeout))
		_, d.err = d.Write(data)
	}
}

// read returns that many bytes: zeros after an error.
func (d *daemon) read(size uint64) []byte {
	data := make([]byte, size)
	if d.err == nil {
		_, d.err = io.ReadFull(d.input, data)
	}
	return data
}

func (d *daemon) send(flags byte, body []byte) {
	header := make([]byte, 9)
	header[0] = flags | long
	binary.BigEndian.PutUint64(header[1:], uint64(len(body)))
	d.write(append(header, body...))
}

// receive returns the body of the next frame that is a command, or that is a reply; others are skipped.
func (d *daemon) receive(kind byte) []byte {
	for {
		flags := d.read(1)[0]
		size := make([]byte, 8)
		if flags&long != 0 {
			size = d.read(8)
		} else {
			size[7] = d.read(1)[0]
		}
		length := binary.BigEndian.Uint64(size)
		if length > largestFrame {
			d.err = fmt.Errorf("a frame of %d bytes", length)
			return nil
		}
		if body := d.read(length); flags&command == kind || d.err != nil {
			return body
		}
	}
}

// ask sends a query and stores its result.
func (d *daemon) ask(operation string, payload object, result any) {
	request := object{"id": fmt.Sprint(time.Now().UnixNano()), "type": operation, "payload": payload}
	if d.auth != "" {
		request["auth"] = d.auth
	}
	body, _ := json.Marshal(request)
	d.send(0, body)
	reply := struct {
		ID     string
		Error  *refusal
		Result any
	}{Result: result}
	body = d.receive(0)
	if d.err == nil {
		d.err = json.Unmarshal(body, &reply)
	}
	if d.err == nil && reply.Error != nil {
		d.err = reply.Error
	} else if d.err == nil && reply.ID != request["id"] {
		d.err = errors.New("a reply to another request")
	}
}

// show prints the newest messages of a room.
func show(d *daemon, room string, gap bool) {
	var page struct{ Messages []struct{ ID string } }
	d.ask("get-message-page", object{"roomId": room}, &page)
	ids := []string{}
	for _, message := range page.Messages {
		ids = append(ids, message.ID)
	}
	if d.err == nil {
		output.Encode(object{"shown": ids, "gap": gap})
	}
}

// follow prints changes until something fails, and returns the cursor after those that it printed.
func follow(d *daemon, room, cursor string) string {
	for {
		var page struct {
			Changes []struct {
				Seq      int64
				Noun, ID string
				Gone     bool
			}
			Cursor string
			Gap    bool
		}
		d.ask("get-changes", object{"after": cursor, "waitMs": waitMs, "rooms": []string{room}}, &page)
		if page.Gap || cursor == "now" {
			show(d, room, page.Gap)
		}
		if d.err != nil {
			return cursor
		}
		for _, change := range page.Changes {
			output.Encode(object{"seq": change.Seq, "noun": change.Noun, "id": change.ID, "gone": change.Gone})
		}
		cursor = page.Cursor
		output.Encode(object{"cursor": cursor})
	}
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: follow DATA_DIR ROOM")
	}
	cursor, delay := "now", shortestDelay
	for {
		before := cursor
		d, err := connect(os.Args[1])
		if err == nil {
			cursor = follow(d, os.Args[2], cursor)
			err = d.err
			d.Close()
		}
		var refused *refusal
		if errors.As(err, &refused) && !refused.Retryable {
			log.Fatal(err)
		}
		log.Print(err, "; trying again")
		if cursor != before {
			delay = shortestDelay
		}
		time.Sleep(delay)
		if delay *= 2; delay > longestDelay {
			delay = longestDelay
		}
	}
}
