package backscroll

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"slices"
	"time"

	"backscroll/language"
)

// Following the feed: one question is asked at a time, and only while the caller wants the next item, so nothing is queued
// for a slow caller. The first question shows whether a daemon answers: its error ends the iteration. From then on the
// iterators wait for the daemon, however long it is away. Nothing is lost with a connection, because the daemon pushes
// nothing: whatever happened, the next question has the same cursor.

const (
	// How long one question waits for a change.
	feedWait     = 30 * time.Second
	feedPause    = 20 * time.Millisecond
	feedPauseMax = time.Second
)

// nounsInRooms are the kinds of items that are in rooms.
var nounsInRooms = []string{NounMessage, NounRoom, NounMember, NounBan}

// ChangesOptions says where to begin, and what to leave out.
type ChangesOptions struct {
	// After is the cursor to begin after; "now" stands for the end of the feed, and nothing for its beginning.
	After string
	// Rooms are those whose items count; nil for all.
	Rooms []string
	// Nouns are the kinds of items that count, such as [NounMessage]; nil for all.
	Nouns []string
	// WithoutValues leaves out what the items are: then only which ones changed is told.
	WithoutValues bool
	// Limit is about how many changes are read at once, at most 500: 100 if left out.
	Limit int64
}

// FeedChange is a change, and where the feed goes on after it.
type FeedChange struct {
	ItemChange
	// Cursor is where to begin the next time: after the latest page of changes of which all were given out. It is empty
	// at the beginning of the feed.
	Cursor string
	// AtPageEnd tells whether Cursor is after this change, and not after one before it.
	AtPageEnd bool
}

// Changes follows the feed for ever: what changed after a cursor, in order, and what changes next.
//
// Store a change's Cursor together with what was applied when it is AtPageEnd, and begin there the next time. To start
// without the history and lose nothing, store the cursor of GetChanges{After: "now"} first, and begin there.
//
// If no daemon answers at the start, the iteration ends with its error. Later it goes on by itself when the daemon was
// restarted or could not answer for a while. A [*FeedGapError] means that the cursor is of another history of the scope.
// The iteration ends with the reason of the context when that has ended, and without an error when the client was closed.
// nil stands for the zero value of ChangesOptions.
func (c *Client) Changes(ctx context.Context, options *ChangesOptions) iter.Seq2[FeedChange, error] {
	if options == nil {
		options = &ChangesOptions{}
	}
	query := GetChanges{Rooms: options.Rooms, Nouns: options.Nouns, Limit: options.Limit}
	if options.WithoutValues {
		query.Values = Ptr(false)
	}
	return followed(ctx, c, func(asking *asking, yield func(FeedChange) bool) error {
		return asking.changes(query, options.After, yield)
	})
}

// Watched is a result of a watched query.
type Watched[Result any] struct {
	Result Result
	// Seq is the number of the scope's commit that the result reflects.
	Seq int64
	// Gap tells that the scope has another history than at the result before, and may have fewer commits.
	Gap bool
}

// Watch gives the result of a query, now and whenever it has changed, for ever:
//
//	for watched, err := range backscroll.Watch(ctx, client, backscroll.GetMessagePage{RoomID: "home"}) {
//
// A slow reader gets the newest result and misses those between; a result is never older than the one before it. It goes
// on and ends like [Client.Changes]. That only time passes is not noticed. The daemon lets 64 wait for one client: where
// there are more, each may notice a change a second later.
func Watch[Result any](
	ctx context.Context, client *Client, query Query[Result],
) iter.Seq2[Watched[Result], error] {
	return followed(ctx, client, func(asking *asking, yield func(Watched[Result]) bool) error {
		return watch(asking, query, yield)
	})
}

// followed is an iteration of items, which ends with the error that the steps return.
func followed[Item any](
	ctx context.Context, client *Client, steps func(asking *asking, yield func(Item) bool) error,
) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		asking := &asking{ctx: ctx, client: client, delay: feedPause}
		err := steps(asking, func(item Item) bool { return yield(item, nil) })
		if err == nil || client.ctx.Err() != nil {
			return
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		var none Item
		yield(none, err)
	}
}

// asking asks for an iteration; longer delays follow questions that brought nothing, until one does.
type asking struct {
	ctx    context.Context
	client *Client
	delay  time.Duration
}

// once returns the answer to a question.
func once[Result any](a *asking, question Operation[Result]) (Answer[Result], error) {
	return Start(a.ctx, a.client, question, bounded).Wait()
}

// patiently returns the answer to a question, however long the daemon is away; it fails where waiting does not help.
func patiently[Result any](a *asking, question Operation[Result]) (Answer[Result], error) {
	for delay := feedPause; ; delay = min(2*delay, feedPauseMax) {
		answer, err := once(a, question)
		var problem *Error
		if err == nil || !errors.As(err, &problem) || !problem.Retryable && problem.Code != ErrNoReply {
			return answer, err
		}
		if err := a.sleep(delay); err != nil {
			return answer, err
		}
	}
}

func (a *asking) sleep(delay time.Duration) error {
	select {
	case <-time.After(delay):
		return nil
	case <-a.ctx.Done():
		return context.Cause(a.ctx)
	case <-a.client.ctx.Done():
		return unavailable("%s", whyClosed)
	}
}

// now returns the cursor at the end of the feed.
func (a *asking) now() (string, error) {
	answer, err := patiently(a, GetChanges{After: "now"})
	if err != nil {
		return "", err
	}
	return answer.Result.Cursor, nil
}

// nextPage returns the page after a cursor. Where an empty one came long before its time, the daemon has too many that
// wait.
func (a *asking) nextPage(query GetChanges, cursor string) (*ChangePage, error) {
	begun := time.Now()
	query.After, query.WaitMs = cursor, feedWait.Milliseconds()
	answer, err := patiently(a, query)
	if err != nil {
		return nil, err
	}
	page := answer.Result
	if len(page.Changes) > 0 || page.More || page.Gap || time.Since(begun) > feedWait/2 {
		a.delay = feedPause
		return page, nil
	}
	err = a.sleep(a.delay)
	a.delay = min(2*a.delay, feedPauseMax)
	return page, err
}

func (a *asking) changes(query GetChanges, cursor string, yield func(FeedChange) bool) error {
	if _, err := once(a, Ping{}); err != nil {
		return err
	}
	if cursor == "now" {
		found, err := a.now()
		if err != nil {
			return err
		}
		cursor = found
	}
	for {
		page, err := a.nextPage(query, cursor)
		if err != nil {
			return err
		}
		if page.Gap {
			return &FeedGapError{Cursor: page.Cursor}
		}
		for index, change := range page.Changes {
			item := FeedChange{ItemChange: change, Cursor: cursor}
			if index == len(page.Changes)-1 {
				item.Cursor, item.AtPageEnd = page.Cursor, true
			}
			if !yield(item) {
				return nil
			}
		}
		cursor = page.Cursor
	}
}

// watch gives the results of a query: the first at once, and others when it may have changed and does differ.
func watch[Result any](a *asking, query Query[Result], yield func(Watched[Result]) bool) error {
	question, problem := readsOf(query.OperationName(), query)
	if problem != nil {
		return problem
	}
	if _, err := once(a, Ping{}); err != nil {
		return err
	}
	cursor, err := a.now() // first, so that what changes while the query is answered is asked for afterwards
	if err != nil {
		return err
	}
	var given *Watched[Result]
	var newest int64
	for gap := false; ; {
		answer, err := patiently(a, query)
		if err != nil {
			return err
		}
		gap = gap || answer.Seq < newest // requests are answered in order, so only another history has a lower one
		newest = answer.Seq
		if gap || given == nil || !reflect.DeepEqual(given.Result, answer.Result) {
			given = &Watched[Result]{Result: answer.Result, Seq: answer.Seq, Gap: gap}
			if !yield(*given) {
				return nil
			}
		}
		if cursor, gap, err = a.changed(question, cursor); err != nil {
			return err
		}
	}
}

// changed waits for a change; it returns the cursor to go on with, which is older than any later result, and whether there
// is a gap.
func (a *asking) changed(question GetChanges, cursor string) (next string, gap bool, err error) {
	for {
		page, err := a.nextPage(question, cursor)
		switch {
		case err != nil:
			return "", false, err
		case page.More:
			return a.jump(question, page.Cursor)
		case page.Gap || len(page.Changes) > 0:
			return page.Cursor, page.Gap, nil
		}
		cursor = page.Cursor
	}
}

// jump leaves out the changes that there are until now. That the old cursor still fits shows that this is no gap.
func (a *asking) jump(question GetChanges, cursor string) (next string, gap bool, err error) {
	now, err := a.now()
	if err != nil {
		return "", false, err
	}
	question.After, question.Limit = cursor, 1
	answer, err := patiently(a, question)
	if err != nil {
		return "", false, err
	}
	if answer.Result.Gap {
		return answer.Result.Cursor, true, nil
	}
	return now, false, nil
}

// readsOf returns what to ask the feed for, to know of the changes that tell that a query's result may be another one.
func readsOf(operation string, payload any) (GetChanges, *Error) {
	info, _ := language.FindOperation(operation)
	question := GetChanges{Values: Ptr(false), Nouns: info.Reads}
	isInRooms := len(info.Reads) > 0
	for _, noun := range info.Reads {
		isInRooms = isInRooms && slices.Contains(nounsInRooms, noun)
	}
	if !isInRooms {
		return question, nil
	}
	encoded, problem := encode(payload)
	if problem != nil {
		return question, problem
	}
	if roomID := roomOf(encoded); roomID != "" {
		question.Rooms = []string{roomID}
	}
	return question, nil
}
