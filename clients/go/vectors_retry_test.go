package backscroll

// retry.json: the events are played on the client's own pendingCalls.

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

type retryEvent struct {
	At        int64             `json:"at"`
	Do        string            `json:"do"`
	Call      string            `json:"call"`
	Kind      string            `json:"kind"`
	WaitMs    *int64            `json:"waitMs"`
	TimeoutMs *int64            `json:"timeoutMs"`
	Kilobytes int               `json:"kilobytes"`
	With      string            `json:"with"`
	Sends     []retrySent       `json:"sends"`
	Outcomes  map[string]string `json:"outcomes"`
	GivesUp   bool              `json:"givesUp"`
}

type retrySent struct {
	Call       string `json:"call"`
	N          int64  `json:"n"`
	DeadlineMs int64  `json:"deadlineMs"`
	WaitMs     int64  `json:"waitMs"`
}

type rowVector struct {
	State   string
	Event   json.RawMessage
	To      string
	Outcome string
}

type sequenceVector struct {
	Events []json.RawMessage
}

const retryTimeout = 5 * time.Second

var retryOperations = map[string][2]string{
	"command":     {"initialize", "{}"},
	"query":       {"get-user", `{"userId":"ada"}`},
	"waiting":     {"get-changes", "{}"},
	"maintenance": {"delete-scope", "{}"},
	"large":       {"save-user", `{"user":{"oderId":"ada","id":"ada"}}`},
}

// playRow plays a row of the table: the state and the outcome that its event leads to.
func playRow(run *vectorRun, each rowVector) (string, error) {
	var event retryEvent
	if err := strictly(each.Event, &event); err != nil {
		return "", err
	}
	machine := newRetryMachine()
	for _, before := range run.states[each.State] {
		if _, err := machine.play(before); err != nil {
			return "", err
		}
	}
	state, _, _ := strings.Cut(each.State, ",")
	if differs := difference("the state before", state, machine.state("a")); differs != "" {
		return differs, nil
	}
	if _, err := machine.play(event); err != nil {
		return "", err
	}
	if differs := difference("to", each.To, machine.state("a")); differs != "" {
		return differs, nil
	}
	found := machine.outcomes["a"]
	if state == "settled" {
		found = ""
	}
	return difference("outcome", each.Outcome, found), nil
}

func playSequence(_ *vectorRun, each sequenceVector) (string, error) {
	machine := newRetryMachine()
	for index, text := range each.Events {
		var event retryEvent
		if err := strictly(text, &event); err != nil {
			return "", err
		}
		differs, err := machine.play(event)
		if err != nil || differs != "" {
			return fmt.Sprintf("events[%d] (%s): %s", index, event.Do, differs), err
		}
	}
	return "", nil
}

type retryMachine struct {
	pending  *pendingCalls
	calls    map[string]*call
	outcomes map[string]string
	// The calls in the order in which they were settled.
	settled []string
	clients map[string]bool
	begun   time.Time
	// When the latest reply arrived; before anything was sent, if none did on this connection.
	receivedAt int64
	givesUp    bool
}

func newRetryMachine() *retryMachine {
	return &retryMachine{
		pending: newPendingCalls(), calls: map[string]*call{}, outcomes: map[string]string{}, clients: map[string]bool{},
		begun: time.Now(), receivedAt: -1,
	}
}

// play does an event; it returns what that led to and should not have.
func (m *retryMachine) play(event retryEvent) (string, error) {
	m.givesUp, m.settled = false, nil
	sends, err := m.do(event)
	if err != nil {
		return "", err
	}
	sends = inRanges(sends)
	expected := []retrySent{}
	if event.Do == "send" {
		expected = event.Sends
		if expected == nil { // of the states of the table
			expected = sends
		}
	}
	if differs := difference("sends", fmt.Sprint(expected), fmt.Sprint(sends)); differs != "" {
		return differs, nil
	}
	slices.SortFunc(m.settled, func(one, other string) int { return m.calls[one].number - m.calls[other].number })
	var settled []retrySent // in ranges of the same outcome, which stands in place of a number
	codes := []string{}
	for _, name := range m.settled {
		code := m.outcomes[name]
		if !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
		settled = append(settled, retrySent{Call: name, WaitMs: int64(slices.Index(codes, code))})
	}
	outcomes := map[string]string{}
	for _, each := range inRanges(settled) {
		outcomes[each.Call] = codes[each.WaitMs]
	}
	if event.Outcomes == nil {
		event.Outcomes = map[string]string{}
	}
	if differs := difference("outcomes", event.Outcomes, outcomes); differs != "" {
		return differs, nil
	}
	if len(m.clients) > 1 {
		return "the commands have not all the same `client`", nil
	}
	return difference("givesUp", event.GivesUp, m.givesUp), nil
}

// state returns the state of a call, in the words of the table.
func (m *retryMachine) state(name string) string {
	each := m.calls[name]
	switch {
	case m.outcomes[name] != "":
		return "settled"
	case each.awaitingReply && each.inDoubt:
		return "resent"
	case each.awaitingReply:
		return "sent"
	case !each.inDoubt:
		return "to-send"
	case !m.pending.retryAt.IsZero():
		return "to-retry"
	default:
		return "to-resend"
	}
}

func (m *retryMachine) at(ms int64) time.Time {
	return m.begun.Add(time.Duration(ms) * time.Millisecond)
}

// do does an event; it returns what is sent.
func (m *retryMachine) do(event retryEvent) ([]retrySent, error) {
	switch event.Do {
	case "add":
		for _, name := range callsIn(event.Call) {
			if err := m.add(event, name); err != nil {
				return nil, err
			}
		}
	case "send":
		return m.send(event.At)
	case "reply":
		m.receivedAt = event.At
		for _, name := range callsIn(event.Call) {
			opened, problem := openReply(m.replyTo(name, event.With))
			if problem != nil {
				return nil, problem
			}
			m.pending.handleReply(opened, m.at(event.At))
		}
	case "connected":
		m.receivedAt = event.At - 1
		m.pending.reconnected()
	case "wait":
		m.pending.retryIfDue(m.at(event.At))
	case "deadline":
		for _, name := range callsIn(event.Call) {
			each := m.calls[name]
			if !each.isSettled && m.pending.timeOut(each, each.unanswered(""), m.at(m.receivedAt)) {
				m.givesUp = true
			}
		}
	case "close":
		m.pending.isClosed = true
		m.pending.fail(func(each *call) *Error { return each.unanswered(whyClosed) })
	default:
		return nil, fmt.Errorf("unknown event %s", event.Do)
	}
	return nil, nil
}

func (m *retryMachine) add(event retryEvent, name string) error {
	operation, isKnown := retryOperations[event.Kind]
	if !isKnown {
		return fmt.Errorf("unknown kind %s", event.Kind)
	}
	var payload map[string]any
	if err := json.Unmarshal([]byte(operation[1]), &payload); err != nil {
		return err
	}
	if event.WaitMs != nil {
		payload["waitMs"] = *event.WaitMs
	}
	if event.Kilobytes > 0 {
		payload["padding"] = strings.Repeat("x", 1000*event.Kilobytes)
	}
	around := envelope{id: name, timeout: retryTimeout, now: m.at(event.At)}
	if event.TimeoutMs != nil {
		around.timeout = time.Duration(*event.TimeoutMs) * time.Millisecond
	}
	settle := func(found outcome) {
		m.settled = append(m.settled, name)
		m.outcomes[name] = "ok"
		if found.err != nil {
			m.outcomes[name] = string(found.err.Code)
		}
	}
	added, problem := newCall(operation[0], payload, around, settle)
	if problem != nil {
		return problem
	}
	m.calls[name] = added
	if problem := m.pending.add(added); problem != nil {
		settle(outcome{err: problem})
	}
	return nil
}

func (m *retryMachine) replyTo(id, with string) []byte {
	answer := map[string]any{"id": id, "ok": true, "result": nil, "seq": 1}
	if each := m.calls[id]; each != nil && each.waits() {
		answer["result"] = map[string]any{"changes": []any{}, "cursor": "c", "more": false}
	}
	if with != "ok" {
		problem := map[string]any{"code": with, "message": "refused", "fault": Code(with).Fault(), "retryable": true}
		answer = map[string]any{"id": id, "ok": false, "error": problem}
	}
	return []byte(textOf(answer))
}

func (m *retryMachine) send(at int64) ([]retrySent, error) {
	sends := []retrySent{}
	for each := m.pending.next(); each != nil; each = m.pending.next() {
		var body struct {
			Client     *string `json:"client"`
			N          *int64  `json:"n"`
			DeadlineMs int64   `json:"deadlineMs"`
			Payload    struct {
				WaitMs int64 `json:"waitMs"`
			} `json:"payload"`
		}
		if err := json.Unmarshal(m.pending.markSent(each, m.at(at), ""), &body); err != nil {
			return nil, err
		}
		if (body.Client == nil) != (body.N == nil) {
			return nil, fmt.Errorf("`client` and `n` go together")
		}
		sent := retrySent{Call: each.id, DeadlineMs: body.DeadlineMs, WaitMs: body.Payload.WaitMs}
		if body.N != nil {
			sent.N = *body.N
			m.clients[*body.Client] = true
		}
		sends = append(sends, sent)
	}
	return sends, nil
}

// callsIn returns the names of the calls in a, or in a-1 to a-1000.
func callsIn(names string) []string {
	first, last, isRange := strings.Cut(names, " to ")
	if !isRange {
		return []string{first}
	}
	group, low := split(first)
	_, high := split(last)
	var calls []string
	for number := low; number <= high; number++ {
		calls = append(calls, fmt.Sprintf("%s-%d", group, number))
	}
	return calls
}

// inRanges returns entries of calls with successive numbers, such as a-1 and a-2, as one, if nothing but n differs, which
// has to rise with them.
func inRanges(entries []retrySent) []retrySent {
	ranges := []retrySent{}
	for at := 0; at < len(entries); {
		first, end := entries[at], at+1
		for end < len(entries) && reflect.DeepEqual(entries[end], after(first, end-at)) {
			end++
		}
		if end > at+1 {
			first.Call += " to " + entries[end-1].Call
		}
		ranges = append(ranges, first)
		at = end
	}
	return ranges
}

// after returns the entry that comes so many calls after one in its range.
func after(first retrySent, count int) retrySent {
	group, number := split(first.Call)
	first.Call = fmt.Sprintf("%s-%d", group, number+count)
	if first.N > 0 {
		first.N += int64(count)
	}
	return first
}

func split(name string) (group string, number int) {
	at := strings.LastIndexByte(name, '-')
	number, _ = strconv.Atoi(name[at+1:])
	return name[:max(at, 0)], number
}
