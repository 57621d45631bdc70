package backscroll

// scenarios.json: steps that the client does on a real daemon.

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

type scenarioVector struct {
	Steps []json.RawMessage
}

type scenarioStep struct {
	Type      string                     `json:"type"`
	ID        string                     `json:"id"`
	Payload   json.RawMessage            `json:"payload"`
	Scope     string                     `json:"scope"`
	Meanwhile []json.RawMessage          `json:"meanwhile"`
	Result    json.RawMessage            `json:"result"`
	Error     map[string]json.RawMessage `json:"error"`
}

// scenario is one that is played; bound has what its placeholders stand for.
type scenario struct {
	run   *vectorRun
	scope string
	bound map[string]any
}

func playScenario(run *vectorRun, each scenarioVector) (string, error) {
	playing := &scenario{run: run, scope: run.newName("scope-"), bound: map[string]any{}}
	for index, text := range each.Steps {
		differs, err := playing.play(text)
		if err != nil || differs != "" {
			return fmt.Sprintf("steps[%d]: %s", index, differs), err
		}
	}
	return "", nil
}

func (s *scenario) play(text json.RawMessage) (string, error) {
	var step scenarioStep
	if err := strictly(text, &step); err != nil {
		return "", err
	}
	client, err := s.run.client(s.scope + step.Scope)
	if err != nil {
		return "", err
	}
	payload := "{}"
	if step.Payload != nil {
		payload = textOf(s.filled(meaning(step.Payload)))
	}
	type replied struct {
		reply vectorReply
		err   error
	}
	replies := make(chan replied, 1)
	ask := func() {
		reply, err := s.run.request(client, step.Type, payload, step.ID)
		replies <- replied{reply, err}
	}
	if step.Meanwhile == nil {
		ask()
	} else {
		go ask()
	}
	for _, inner := range step.Meanwhile {
		if differs, err := s.play(inner); err != nil || differs != "" {
			return differs, err
		}
	}
	found := <-replies
	if found.err != nil {
		return "", found.err
	}
	return s.compare(step, found.reply), nil
}

// filled returns a payload with what its placeholders stand for.
func (s *scenario) filled(value any) any {
	switch value := value.(type) {
	case string:
		if rest, isEscaped := strings.CutPrefix(value, "$$"); isEscaped {
			return "$" + rest
		}
		if strings.HasPrefix(value, "$") {
			return s.bound[value]
		}
	case []any:
		for index, each := range value {
			value[index] = s.filled(each)
		}
	case map[string]any:
		for name, each := range value {
			value[name] = s.filled(each)
		}
	}
	return value
}

func (s *scenario) compare(step scenarioStep, found vectorReply) string {
	if step.Error == nil {
		if found.err != nil {
			return "expected a result, got " + found.err.Error()
		}
		result := found.result
		if result == nil {
			result = json.RawMessage("null")
		}
		return s.match(meaning(step.Result), meaning(result), "result")
	}
	if found.err == nil {
		return fmt.Sprintf("expected the error %s, got %s", step.Error["code"], found.result)
	}
	details := map[string]any{}
	if found.err.Details != nil {
		details, _ = meaning(found.err.Details).(map[string]any)
	}
	path := details["path"]
	delete(details, "path")
	actual := map[string]any{"code": string(found.err.Code), "path": path, "details": details}
	for _, name := range slices.Sorted(maps.Keys(step.Error)) {
		if differs := s.match(meaning(step.Error[name]), actual[name], "error."+name); differs != "" {
			return differs
		}
	}
	return ""
}

// match says what differs from what is expected; placeholders take what is there the first time.
func (s *scenario) match(expected, actual any, where string) string {
	switch expected := expected.(type) {
	case string:
		if expected == "$any" {
			return ""
		}
		if rest, isEscaped := strings.CutPrefix(expected, "$$"); isEscaped {
			return difference(where, "$"+rest, actual)
		}
		if strings.HasPrefix(expected, "$") {
			if _, isBound := s.bound[expected]; !isBound {
				s.bound[expected] = actual
			}
			return difference(where, s.bound[expected], actual)
		}
	case []any:
		items, isList := actual.([]any)
		if !isList || len(items) != len(expected) {
			return difference(where, expected, actual)
		}
		for index, each := range expected {
			if differs := s.match(each, items[index], fmt.Sprintf("%s[%d]", where, index)); differs != "" {
				return differs
			}
		}
		return ""
	case map[string]any:
		fields, isObject := actual.(map[string]any)
		if !isObject {
			return difference(where, expected, actual)
		}
		names := slices.Sorted(maps.Keys(expected))
		if differs := difference(where+": keys", names, slices.Sorted(maps.Keys(fields))); differs != "" {
			return differs
		}
		for _, name := range names {
			if differs := s.match(expected[name], fields[name], where+"."+name); differs != "" {
				return differs
			}
		}
		return ""
	}
	return difference(where, expected, actual)
}
