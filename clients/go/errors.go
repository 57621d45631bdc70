package backscroll

import (
	"encoding/json"
	"fmt"

	"backscroll/language"
)

// ErrNoReply is the code of a request of which no reply came in time, or whose client was closed: whether it took
// effect is unknown. The daemon never sends it.
const ErrNoReply = language.Code("no-reply")

// Error is the error of a request.
//
// Its code is compared with errors.Is: errors.Is(err, backscroll.ErrNotFound). Every code but ErrNoReply says that the
// request had no effect; but ErrInternal may also be about a reply that cannot be read. If a context ended the wait,
// errors.Is finds the reason of that too.
type Error struct {
	// Code is the code of the protocol, such as not-found; it may be one of a later level.
	Code Code
	// Fault says on whose side the reason lies.
	Fault Fault
	// Retryable says whether the same request may succeed later.
	Retryable bool
	// Message says what happened and what to do. It may quote what the request contained.
	Message string
	// Details has more about the error as a JSON object, such as the path of the field that it is about. It is nil if
	// there is no more.
	Details json.RawMessage

	cause error
}

// Error returns the code and the message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is tells whether the error has a code, for errors.Is.
func (e *Error) Is(target error) bool {
	code, isCode := target.(Code)
	return isCode && code == e.Code
}

// Unwrap returns what ended the wait for a reply, such as context.Canceled, if that is the reason of the error.
func (e *Error) Unwrap() error { return e.cause }

// Path returns the path of the field that the error is about, from the root of the request, such as
// $.payload.message.timestamp. It is empty if the error is about none.
func (e *Error) Path() string {
	var details struct {
		Path string `json:"path"`
	}
	if json.Unmarshal(e.Details, &details) != nil {
		return ""
	}
	return details.Path
}

// FailedCommand is a command of a batch that cannot be executed.
type FailedCommand struct {
	// Index is its place in the batch.
	Index int  `json:"index"`
	Code  Code `json:"code"`
	// Message is empty where the list became too long for messages.
	Message string `json:"message"`
	Path    string `json:"path"`
}

// Failures returns the commands of a batch that failed, in their order; none if the error is about something else.
func (e *Error) Failures() []FailedCommand {
	var details struct {
		Failures []FailedCommand `json:"failures"`
	}
	if json.Unmarshal(e.Details, &details) != nil {
		return nil
	}
	return details.Failures
}

// because returns the error with what ended the wait.
func (e *Error) because(cause error) *Error {
	caused := *e
	caused.cause = cause
	return &caused
}

// FeedGapError says that a cursor is of another history of the scope, because its files were restored from a copy or it
// was deleted. What changed since is unknown: read everything anew, and then follow the changes after Cursor.
type FeedGapError struct {
	Cursor string
}

// Error says what to do.
func (e *FeedGapError) Error() string {
	return "the cursor belongs to another history of this scope, because its files were restored from a copy or it was " +
		"deleted: read everything anew, and then go on with the changes after the error's Cursor"
}

// failure returns an error of the client itself.
func failure(code Code, format string, values ...any) *Error {
	return &Error{Code: code, Fault: code.Fault(), Message: fmt.Sprintf(format, values...)}
}

// unavailable returns an error that may pass: nothing was sent.
func unavailable(format string, values ...any) *Error {
	problem := failure(ErrUnavailable, format, values...)
	problem.Retryable = true
	return problem
}

// invalidAt returns an error about the field at a path.
func invalidAt(path, format string, values ...any) *Error {
	problem := failure(ErrInvalid, "%s: %s", path, fmt.Sprintf(format, values...))
	problem.Details, _ = json.Marshal(map[string]string{"path": path})
	return problem
}
