package backscroll

// hello.json, and refusals.json: bodies that no client makes, sent over one connection of this one.

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

type helloVector struct {
	Token, Nonce, Proof string
	Endpoints           []string
}

func playHello(_ *vectorRun, each helloVector) (string, error) {
	return difference("proof", each.Proof, proofOf(each.Token, each.Nonce, each.Endpoints)), nil
}

type refusalVector struct {
	Before []json.RawMessage
	JSON   string
	Expand map[string][]json.RawMessage
	ID     any
	Error  refusalError
}

type refusalError struct {
	Code      Code
	Fault     Fault
	Retryable bool
	Message   string
	Path      string
}

func playRefusal(run *vectorRun, each refusalVector) (string, error) {
	exchange, err := run.opened()
	if err != nil {
		return "", err
	}
	for _, request := range each.Before {
		answer, err := exchange.reply(request)
		if err != nil {
			return "", err
		}
		if !*answer.OK {
			return "before it: " + answer.Error.Message, nil
		}
	}
	body, err := expanded(each.JSON, each.Expand)
	if err != nil {
		return "", err
	}
	answer, err := exchange.reply([]byte(body))
	if err != nil {
		return "", err
	}
	if *answer.OK {
		return "the daemon accepts it", nil
	}
	if differs := difference("id", each.ID, answer.ID); differs != "" {
		return differs, nil
	}
	problem := answer.outcome().err
	found := refusalError{problem.Code, answer.Error.Fault, problem.Retryable, each.Error.Message, problem.Path()}
	if differs := difference("error", each.Error, found); differs != "" {
		return differs, nil
	}
	pattern, err := regexp.Compile(`(?s)\A(?:` + each.Error.Message + `)\z`)
	if err != nil {
		return "", err
	}
	if !pattern.MatchString(problem.Message) {
		return fmt.Sprintf("message: expected %s, got %s", each.Error.Message, problem.Message), nil
	}
	return "", nil
}

// expanded returns a text with its placeholders replaced by what they stand for.
func expanded(text string, expand map[string][]json.RawMessage) (string, error) {
	for name, means := range expand {
		var part string
		var times int
		if err := json.Unmarshal(means[0], &part); err != nil {
			return "", err
		}
		if err := json.Unmarshal(means[1], &times); err != nil {
			return "", err
		}
		text = strings.ReplaceAll(text, name, strings.Repeat(part, times))
	}
	return text, nil
}

// exchange is a connection over which one body after the other is sent and answered.
type exchange struct {
	conn *zmtpConn
}

func (r *vectorRun) opened() (*exchange, error) {
	if r.exchange != nil {
		return r.exchange, nil
	}
	endpoint, err := r.daemon()
	if err != nil {
		return nil, err
	}
	conn, err := dialZMTP(context.Background(), endpoint)
	if err != nil {
		return nil, err
	}
	r.exchange = &exchange{conn: conn}
	return r.exchange, conn.handshake()
}

func (e *exchange) reply(body []byte) (reply, error) {
	if err := e.conn.stream.SetDeadline(time.Now().Add(vectorTimeout)); err != nil {
		return reply{}, err
	}
	if _, err := e.conn.stream.Write(appendFrame(nil, body)); err != nil {
		return reply{}, err
	}
	answer, err := e.conn.receive()
	if err != nil {
		return reply{}, err
	}
	opened, problem := openReply(answer)
	if problem != nil {
		return reply{}, problem
	}
	return opened, nil
}
