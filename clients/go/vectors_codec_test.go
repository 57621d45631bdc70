package backscroll

// codec.json and canonical.json. The client has no canonical form: a daemon executes what it sends, and the digest in the
// log tells whether the canonical form of that is the expected one.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"backscroll/language"
)

const canonicalAt = 1_767_225_600_000 // when the commands of the canonical vectors took effect

type requestVector struct {
	Type      string
	JSON      string
	Canonical string
	Error     *struct {
		Code Code
		Path *string
	}
}

type replyVector struct {
	Type    string
	JSON    string
	Result  json.RawMessage
	Kept    json.RawMessage
	Error   json.RawMessage
	Invalid bool
}

type canonicalVector struct {
	Type      string
	JSON      []string
	Canonical string
	Salt      string
	Digest    string
}

// playRequest has the client send a payload, or refuse it.
func playRequest(run *vectorRun, each requestVector) (string, error) {
	client, err := run.client("codec")
	if err != nil {
		return "", err
	}
	if err := prepare(client); err != nil {
		return "", err
	}
	answer, err := run.request(client, each.Type, each.JSON, "")
	if err != nil {
		return "", err
	}
	if answer.err != nil {
		if each.Error == nil {
			return answer.err.Error(), nil
		}
		path := ""
		if each.Error.Path != nil {
			path = *each.Error.Path
		}
		return difference("error", []string{string(each.Error.Code), path}, []string{string(answer.err.Code), answer.err.Path()}), nil
	}
	if each.Canonical == "" {
		return "the client sends it, and the daemon accepts it", nil
	}
	entry, err := entryOf(client, answer.seq)
	if err != nil {
		return "", err
	}
	if entry.Digest == nil || *entry.Digest != digestOf(*entry.Salt, each.Canonical) {
		return fmt.Sprintf("the canonical form of what was sent is another one than %s: %s", each.Canonical, entry.Payload), nil
	}
	return "", nil
}

// prepare saves what the requests refer to.
func prepare(client *Client) error {
	ctx := context.Background()
	if room, err := client.GetRoom(ctx, GetRoom{RoomID: "default"}); err != nil || room != nil {
		return err
	}
	if err := client.SaveRoom(ctx, SaveRoom{Room: RoomInput{ID: "default", Name: "d"}}); err != nil {
		return err
	}
	return client.SaveMessage(ctx, SaveMessage{Message: MessageInput{ID: "m1", RoomID: "r1", SenderID: "ada", Timestamp: 1}})
}

// playReply has the client read a reply.
func playReply(_ *vectorRun, each replyVector) (string, error) {
	found := outcomeOf(each)
	switch {
	case each.Invalid && (found.err == nil || found.err.Code != ErrInternal):
		return "it is taken for a reply", nil
	case each.Invalid:
		return "", nil
	case found.err != nil:
		told := map[string]any{
			"code": found.err.Code, "fault": found.err.Fault, "retryable": found.err.Retryable, "message": found.err.Message,
		}
		if found.err.Details != nil {
			told["details"] = found.err.Details
		}
		return difference("error", meaning(each.Error), meaning([]byte(textOf(told)))), nil
	case each.Result == nil:
		return "it is taken for a success", nil
	}
	typed, err := typedResult(each.Type, found.result)
	if err != nil {
		return "", err
	}
	differs := difference("result", meaning(each.Result), meaning(typed))
	if differs != "" && each.Kept != nil {
		differs = difference("result", meaning(each.Kept), meaning(typed))
	}
	return differs, nil
}

func outcomeOf(each replyVector) (found outcome) {
	pending := newPendingCalls()
	around := envelope{id: "1", timeout: vectorTimeout, now: time.Now()}
	sent, problem := newCall(each.Type, nil, around, func(settled outcome) { found = settled })
	if problem == nil {
		problem = pending.add(sent)
	}
	if problem == nil {
		pending.markSent(pending.next(), time.Now(), "")
		var opened reply
		if opened, problem = openReply([]byte(each.JSON)); problem == nil {
			pending.handleReply(opened, time.Now())
		}
	}
	if problem == nil && found.err == nil {
		info, _ := language.FindOperation(each.Type)
		problem = decode(info, found.result, nil)
	}
	if problem != nil {
		return outcome{err: problem}
	}
	return found
}

// playCanonical appends the first payload to a log, where it has a digest; the others are the same command, so the same id
// is a retry.
func playCanonical(run *vectorRun, each canonicalVector) (string, error) {
	client, err := run.client("canonical")
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	page, err := client.GetLog(ctx, GetLog{Limit: 1})
	if err != nil {
		return "", err
	}
	seq := page.LastSeq + 1
	id := fmt.Sprintf("c%d", seq)
	entry := LogEntryInput{
		Seq: seq, At: canonicalAt, ID: id, Type: each.Type, Payload: json.RawMessage(each.JSON[0]), Salt: &each.Salt,
	}
	if err := client.AppendLog(ctx, AppendLog{Entries: []LogEntryInput{entry}}); err != nil {
		return "", err
	}
	found, err := entryOf(client, seq)
	if err != nil {
		return "", err
	}
	if differs := difference("the digest in the log", each.Digest, *found.Digest); differs != "" {
		return differs, nil
	}
	if differs := difference("SHA-256(salt · canonical)", each.Digest, digestOf(each.Salt, each.Canonical)); differs != "" {
		return differs, nil
	}
	for _, payload := range each.JSON[1:] {
		answer, err := run.request(client, each.Type, payload, id)
		if err != nil {
			return "", err
		}
		if answer.err != nil {
			return fmt.Sprintf("%s is not the same command: %v", payload, answer.err), nil
		}
		if answer.seq != seq {
			return payload + " was executed again", nil
		}
	}
	return "", nil
}

func entryOf(client *Client, seq int64) (LogEntry, error) {
	page, err := client.GetLog(context.Background(), GetLog{FromSeq: seq, Limit: 1})
	if err != nil {
		return LogEntry{}, err
	}
	if len(page.Entries) == 0 || page.Entries[0].Salt == nil || page.Entries[0].Digest == nil {
		return LogEntry{}, fmt.Errorf("the log has no entry %d", seq)
	}
	return page.Entries[0], nil
}

func digestOf(salt, canonical string) string {
	content, err := hex.DecodeString(salt + canonical)
	if err != nil {
		return err.Error()
	}
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}
