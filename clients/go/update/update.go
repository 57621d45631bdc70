// Package update has the fields of updates, which have three states: a field is left as it is, set, or cleared.
package update

import (
	"bytes"
	"encoding/json"
)

// Field is a field of an update that can be cleared. Its zero value leaves the field as it is.
type Field[T any] struct {
	value T
	state state
}

type state uint8

const (
	left state = iota
	set
	cleared
)

// Set gives a field a value.
func Set[T any](value T) Field[T] { return Field[T]{value: value, state: set} }

// Clear takes away the value of a field.
func Clear[T any]() Field[T] { return Field[T]{state: cleared} }

// Value returns the value that the field is set to, and whether it is set to one.
func (f Field[T]) Value() (value T, isSet bool) { return f.value, f.state == set }

// Any returns the value that the field is set to, and nil if it is set to none.
func (f Field[T]) Any() any {
	if f.state != set {
		return nil
	}
	return f.value
}

// IsCleared tells whether the field is cleared.
func (f Field[T]) IsCleared() bool { return f.state == cleared }

// IsZero tells whether the field is left as it is: then it is not written.
func (f Field[T]) IsZero() bool { return f.state == left }

// MarshalJSON writes the value, and null for a field that is cleared.
func (f Field[T]) MarshalJSON() ([]byte, error) {
	if f.state != set {
		return []byte("null"), nil
	}
	var written bytes.Buffer
	encoder := json.NewEncoder(&written)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(f.value); err != nil {
		return nil, err
	}
	return written.Bytes(), nil
}

// UnmarshalJSON reads a field: null clears it.
func (f *Field[T]) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*f = Clear[T]()
		return nil
	}
	var value T
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	*f = Set(value)
	return nil
}
