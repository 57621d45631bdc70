package backscroll

// The conformance vectors, of which schema/vectors/README.md says what they mean. This test's program is also their runner:
// with a directory as its only argument it prints a JSON line for each vector.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const vectorTimeout = 10 * time.Second

// lacking is what this language lacks: the client has no MessagePack.
var lacking = []string{"msgpack"}

// vector is a vector as it stands in its file.
type vector map[string]json.RawMessage

// vectorFile is a file of vectors, in lists by name.
type vectorFile map[string]json.RawMessage

// vectorList is where vectors stand, the keys that they may have, and what plays one: it returns what is not as expected.
type vectorList struct {
	set, list, keys string
	play            func(run *vectorRun, text json.RawMessage) (string, error)
}

var vectorLists = []vectorList{
	{"codec", "requests", "type json msgpack canonical error", playing(playRequest)},
	{"codec", "replies", "type json msgpack result kept error invalid", playing(playReply)},
	{"canonical", "vectors", "type json canonical salt digest", playing(playCanonical)},
	{"hello", "vectors", "token nonce endpoints proof", playing(playHello)},
	{"refusals", "vectors", "before json hex expand id error", playing(playRefusal)},
	{"zmtp", "vectors", "connections", playing(playZMTP)},
	{"retry", "table", "state event to outcome", playing(playRow)},
	{"retry", "sequences", "events", playing(playSequence)},
	{"scenarios", "vectors", "steps", playing(playScenario)},
}

// vectorResult is the line that is printed for a vector.
type vectorResult struct {
	Set  string `json:"set"`
	Name string `json:"name"`
	OK   *bool  `json:"ok"`
	Why  string `json:"why"`
}

// vectorRun is what the sets share: a daemon that is started when it is first needed, and clients of it.
type vectorRun struct {
	directory string
	stop      func()
	endpoint  string
	clients   map[string]*Client
	count     int
	exchange  *exchange
	states    map[string][]retryEvent
}

// TestMain runs the tests, or the vectors of a directory if that is the argument.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && !strings.HasPrefix(os.Args[1], "-") {
		if err := runVectors(os.Args[1], func(result vectorResult) {
			line, _ := json.Marshal(result)
			fmt.Println(string(line))
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Rule: every vector of the project that the language can express is as expected.
func TestVectors(t *testing.T) {
	t.Parallel()
	directory := filepath.Join("..", "..", "schema", "vectors")
	err := runVectors(directory, func(result vectorResult) {
		if result.OK != nil && !*result.OK {
			t.Errorf("%s: %s: %s", result.Set, result.Name, result.Why)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// runVectors plays the vectors of a directory.
func runVectors(directory string, tell func(vectorResult)) error {
	place, err := os.MkdirTemp("", "backscroll-vectors-")
	if err != nil {
		return err
	}
	run := &vectorRun{directory: place, clients: map[string]*Client{}, stop: func() {}}
	defer run.close()
	for _, list := range vectorLists {
		text, err := os.ReadFile(filepath.Join(directory, list.set+".json"))
		if err != nil {
			return err
		}
		var file vectorFile
		var vectors []json.RawMessage
		if err := json.Unmarshal(text, &file); err != nil {
			return err
		}
		if err := json.Unmarshal(file[list.list], &vectors); err != nil {
			return err
		}
		if states := file["states"]; states != nil {
			if err := strictly(states, &run.states); err != nil {
				return err
			}
		}
		for _, each := range vectors {
			tell(list.result(run, each))
		}
	}
	return nil
}

func (l vectorList) result(run *vectorRun, text json.RawMessage) vectorResult {
	var common struct {
		Name  string   `json:"name"`
		Needs []string `json:"needs"`
	}
	var keys vector
	result := vectorResult{Set: l.set}
	if err := errors.Join(json.Unmarshal(text, &common), json.Unmarshal(text, &keys)); err != nil {
		return result.failed(err.Error())
	}
	result.Name = common.Name
	for key := range keys {
		if !slices.Contains(append(strings.Fields(l.keys), "name", "needs"), key) {
			return result.failed("unknown key " + key)
		}
	}
	for _, need := range common.Needs {
		if slices.Contains(lacking, need) {
			result.Why = "needs " + need
			return result
		}
	}
	why, err := l.play(run, text)
	if err != nil {
		why = err.Error()
	}
	return result.failed(why)
}

// failed is the result that has these problems, or none.
func (r vectorResult) failed(why string) vectorResult {
	isOK := why == ""
	r.OK, r.Why = &isOK, why
	return r
}

// playing reads a vector as what a function plays.
func playing[Vector any](play func(*vectorRun, Vector) (string, error)) func(*vectorRun, json.RawMessage) (string, error) {
	return func(run *vectorRun, text json.RawMessage) (string, error) {
		var read Vector
		if err := json.Unmarshal(text, &read); err != nil {
			return "", err
		}
		return play(run, read)
	}
}

// client returns a client of a scope, which lives as long as the run.
func (r *vectorRun) client(scope string) (*Client, error) {
	if client := r.clients[scope]; client != nil {
		return client, nil
	}
	endpoint, err := r.daemon()
	if err != nil {
		return nil, err
	}
	client, err := New(&Options{Endpoint: endpoint, Scope: scope, Timeout: vectorTimeout})
	r.clients[scope] = client
	return client, err
}

// newName returns a name that was not used yet.
func (r *vectorRun) newName(prefix string) string {
	r.count++
	return fmt.Sprintf("%s%d", prefix, r.count)
}

// daemon returns the address of the daemon.
func (r *vectorRun) daemon() (string, error) {
	if r.endpoint != "" {
		return r.endpoint, nil
	}
	serve := os.Getenv("CONFORMANCE_SERVE") // words of a shell
	if serve == "" {
		serve = backscrollCommand() + " serve"
	}
	dataDir := filepath.Join(r.directory, "data")
	daemon := exec.Command("sh", "-c", "exec "+serve+` --data-dir "$0" --exit-with-parent`, dataDir)
	input, err := daemon.StdinPipe()
	if err != nil {
		return "", err
	}
	output, err := daemon.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := daemon.Start(); err != nil {
		return "", err
	}
	r.stop = func() {
		_ = input.Close()
		_, _ = io.Copy(io.Discard, output)
		_ = daemon.Wait()
	}
	if _, err := output.Read(make([]byte, 1)); err != nil {
		return "", fmt.Errorf("the daemon (%s) did not start: %w", serve, err)
	}
	found, problem := location{dataDir: dataDir}.find()
	if problem != nil {
		return "", problem
	}
	r.endpoint = found.endpoint
	return r.endpoint, nil
}

func (r *vectorRun) close() {
	for _, client := range r.clients {
		_ = client.Close()
	}
	if r.exchange != nil {
		r.exchange.conn.close(errors.New("the run is over"))
	}
	r.stop()
	_ = os.RemoveAll(r.directory)
}

// reply is the result of a request as JSON, or its error.
type vectorReply struct {
	result json.RawMessage
	seq    int64
	err    *Error
}

// request sends a request: typed as the client has it, if that says the same.
func (r *vectorRun) request(client *Client, operation, payload, id string) (vectorReply, error) {
	var sent any = json.RawMessage(payload)
	if typed, isSame := typedPayload(operation, payload); isSame {
		sent = typed
	}
	with := requestOptions{}
	if id != "" {
		with.id = &id
	}
	pending, problem := client.send(context.Background(), operation, sent, with)
	if problem != nil {
		return vectorReply{err: problem}, nil
	}
	seq, problem := pending.await(nil)
	if problem != nil {
		return vectorReply{err: problem}, nil
	}
	result, err := typedResult(operation, pending.outcome.result)
	return vectorReply{result: result, seq: seq}, err
}

// payloadTypes has the type of each operation's payload, and that of its result.
var payloadTypes = func() map[string]reflect.Method {
	types := map[string]reflect.Method{}
	methods := reflect.TypeFor[*Client]()
	for index := range methods.NumMethod() {
		method := methods.Method(index)
		if method.Type.NumIn() != 3 {
			continue
		}
		if named, isPayload := reflect.Zero(method.Type.In(2)).Interface().(interface{ OperationName() string }); isPayload {
			types[named.OperationName()] = method
		}
	}
	return types
}()

// typedPayload reads a payload as the type of its operation; isSame tells whether that says all that the text says.
func typedPayload(operation, payload string) (typed any, isSame bool) {
	method, isKnown := payloadTypes[operation]
	if !isKnown {
		return nil, false
	}
	value := reflect.New(method.Type.In(2))
	if strictly([]byte(payload), value.Interface()) != nil {
		return nil, false
	}
	written, problem := encode(value.Elem().Interface())
	if problem != nil || bytes.ContainsRune(written, utf8.RuneError) { // in place of what is no text
		return nil, false
	}
	return value.Elem().Interface(), reflect.DeepEqual(meaning([]byte(payload)), meaning(written))
}

// typedResult returns a result as the client has it, written as JSON again.
func typedResult(operation string, result json.RawMessage) (json.RawMessage, error) {
	method, isKnown := payloadTypes[operation]
	if !isKnown || method.Type.NumOut() != 2 {
		return result, nil
	}
	value := reflect.New(method.Type.Out(0))
	if err := json.Unmarshal(result, value.Interface()); err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value.Elem().Interface())
	return bytes.TrimSpace(buffer.Bytes()), err
}

// strictly reads JSON that has no unknown fields.
func strictly(text []byte, target any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(target)
}

// meaning is what JSON says, with all digits of its numbers.
func meaning(text []byte) any {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	return value
}

// difference says what differs between two values of JSON; empty if nothing does.
func difference(what string, expected, actual any) string {
	if reflect.DeepEqual(expected, actual) {
		return ""
	}
	return fmt.Sprintf("%s: expected %s, got %s", what, textOf(expected), textOf(actual))
}

func textOf(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}
