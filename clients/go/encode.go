package backscroll

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"backscroll/language"
)

// replacement is what encoding/json writes in place of bytes that are not UTF-8.
var replacement = []byte(`\ufffd`)

// encode writes a payload as JSON. It refuses what that would change silently.
func encode(payload any) ([]byte, *Error) {
	if payload == nil {
		return []byte("{}"), nil
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(payload); err != nil {
		return nil, failure(ErrInvalid, "the payload cannot be written: %v", err)
	}
	written := bytes.TrimSpace(buffer.Bytes())
	if written[0] != '{' {
		return nil, invalidAt("$.payload", "expected an object, such as {\"roomId\": \"home\"}, got %s", typeOf(written))
	}
	if !utf8.Valid(written) || bytes.Contains(written, replacement) {
		if path := invalidText(reflect.ValueOf(payload), "$.payload"); path != "" {
			return nil, invalidAt(path, "text must be valid UTF-8")
		}
	}
	return written, nil
}

// decode reads a result into what target points to; nil leaves it.
func decode(operation language.OperationInfo, result json.RawMessage, target any) *Error {
	if found := typeOf(result); len(operation.Results) > 0 && !slices.Contains(operation.Results, found) {
		declared := strings.Join(operation.Results, " or ")
		return failure(ErrInternal, "the daemon's result is %s, where %s is declared", found, declared)
	}
	if target == nil {
		return nil
	}
	if err := json.Unmarshal(result, target); err != nil {
		return failure(ErrInternal, "the daemon's result cannot be read: %v", err)
	}
	return nil
}

// typeOf returns the type of a value of JSON.
func typeOf(value json.RawMessage) string {
	trimmed := bytes.TrimSpace(value)
	if len(trimmed) == 0 {
		return "nothing"
	}
	switch trimmed[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	default:
		return "number"
	}
}

// invalidText returns the path of text that is not UTF-8, as far as reflection finds it; empty if there is none.
func invalidText(value reflect.Value, path string) string {
	switch value.Kind() {
	case reflect.String:
		if !utf8.ValidString(value.String()) {
			return path
		}
	case reflect.Pointer, reflect.Interface:
		if !value.IsNil() {
			return invalidText(value.Elem(), path)
		}
	case reflect.Slice:
		if raw, isRaw := value.Interface().(json.RawMessage); isRaw {
			if !utf8.Valid(raw) {
				return path
			}
			return ""
		}
		if value.Type().Elem().Kind() == reflect.Uint8 {
			return "" // bytes are written as base64
		}
		for index := range value.Len() {
			if found := invalidText(value.Index(index), fmt.Sprintf("%s[%d]", path, index)); found != "" {
				return found
			}
		}
	case reflect.Map:
		for entries := value.MapRange(); entries.Next(); {
			key := entries.Key().String()
			if !utf8.ValidString(key) {
				return path
			}
			if found := invalidText(entries.Value(), path+"."+key); found != "" {
				return found
			}
		}
	case reflect.Struct:
		return invalidField(value, path)
	}
	return ""
}

func invalidField(value reflect.Value, path string) string {
	if batch, isBatch := value.Interface().(Batch); isBatch {
		for index, command := range batch.Commands {
			place := fmt.Sprintf("%s.commands[%d].payload", path, index)
			if found := invalidText(reflect.ValueOf(command), place); found != "" {
				return found
			}
		}
		return ""
	}
	if field, isField := value.Interface().(interface{ Any() any }); isField {
		return invalidText(reflect.ValueOf(field.Any()), path)
	}
	for index := range value.NumField() {
		field := value.Type().Field(index)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		if found := invalidText(value.Field(index), path+"."+name); found != "" {
			return found
		}
	}
	return ""
}

// roomOf returns the room that a payload names; empty if it names none.
func roomOf(payload json.RawMessage) string {
	var fields struct {
		RoomID string `json:"roomId"`
	}
	_ = json.Unmarshal(payload, &fields) // no text is no room
	return fields.RoomID
}
