package backscroll

import "context"

// RequestOption is something that holds for one request.
type RequestOption func(*requestOptions)

type requestOptions struct {
	id *string
	// Whether the client's Timeout holds also if the context has a later deadline.
	isBounded bool
}

// WithRequestID gives a command an id, 1 to 64 bytes, preferably a ULID. To be sure of a command even across a restart of
// the application, store the id before, and execute the same command with it until a reply comes: it takes effect once.
func WithRequestID(id string) RequestOption {
	return func(options *requestOptions) { options.id = &id }
}

// bounded has a request wait no longer than the client's Timeout.
func bounded(options *requestOptions) { options.isBounded = true }

// Pending is a request whose result may not have come yet.
type Pending[Result any] struct {
	sent    *request
	problem *Error
}

// Answer is a result, and the number of the scope's commit that it reflects.
type Answer[Result any] struct {
	Result Result
	Seq    int64
}

// Start sends a request without waiting for its reply. Requests take effect in the order in which they were started, so
// this is for many at once:
//
//	saving := backscroll.Start(ctx, client, backscroll.SaveMessage{Message: message})
//	…
//	_, err := saving.Wait()
//
// The context holds until the reply came.
func Start[Result any](
	ctx context.Context, client *Client, payload Operation[Result], options ...RequestOption,
) *Pending[Result] {
	with := requestOptions{}
	for _, option := range options {
		option(&with)
	}
	sent, problem := client.send(ctx, payload.OperationName(), payload, with)
	return &Pending[Result]{sent: sent, problem: problem}
}

// Wait returns the result, or the error of the request.
func (p *Pending[Result]) Wait() (Answer[Result], error) {
	if p.problem != nil {
		return Answer[Result]{}, p.problem
	}
	var result Result
	seq, problem := p.sent.await(&result)
	if problem != nil {
		return Answer[Result]{}, problem
	}
	return Answer[Result]{Result: result, Seq: seq}, nil
}

// execute sends a request and waits for its result.
func execute[Result any](ctx context.Context, client *Client, payload Operation[Result]) (Result, error) {
	answer, err := Start(ctx, client, payload).Wait()
	return answer.Result, err
}
