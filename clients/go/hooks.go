package backscroll

import (
	"log/slog"
	"time"
)

// So many changes of the connection wait for OnConnection; of those beyond the oldest are not told.
const eventsMax = 16

// report tells of a connection, or with a problem that there is none.
func (c *Client) report(problem *Error) {
	if logger := c.options.Logger; logger != nil {
		if problem == nil {
			logger.Debug("connected")
		} else {
			logger.Warn("not connected", "code", string(problem.Code), "problem", problem.Message)
		}
	}
	if c.options.OnConnection == nil {
		return
	}
	var event error
	if problem != nil {
		event = problem
	}
	for {
		select {
		case c.events <- event:
			return
		default: // the application is still busy with others
		}
		select {
		case <-c.events: // the latest one says how it is now
		default:
		}
	}
}

// tellEvents calls OnConnection, in a goroutine of its own so that it may call the client.
func (c *Client) tellEvents() {
	for {
		select {
		case event := <-c.events:
			c.options.OnConnection(event)
		case <-c.ctx.Done():
			return
		}
	}
}

// logOutcome reports the outcome of a request. The message of a caller's error may quote what people wrote.
func (c *Client) logOutcome(of *request) {
	logger := c.options.Logger
	if logger == nil {
		return
	}
	about := []slog.Attr{slog.String("id", of.id), slog.Duration("duration", time.Since(of.begun))}
	level, said := slog.LevelDebug, of.info.Name+": ok"
	switch problem := of.outcome.err; {
	case problem == nil:
		about = append(about, slog.Int64("seq", of.outcome.seq))
	case problem.Fault == FaultCaller:
		said = of.info.Name + ": " + string(problem.Code)
		about = append(about, slog.String("path", problem.Path()))
	default:
		level, said = slog.LevelWarn, of.info.Name+": "+problem.Error()
	}
	logger.LogAttrs(of.ctx, level, said, about...)
}
