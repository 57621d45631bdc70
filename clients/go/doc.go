// Package backscroll is a client of backscroll, a storage daemon for chat applications.
//
// [Open] returns a [Client] of the daemon that serves a directory, and starts one if there is none. Every operation of the
// protocol is a method of it, which takes a payload:
//
//	client, err := backscroll.Open(ctx, "./data", nil)
//	…
//	err = client.SaveMessage(ctx, backscroll.SaveMessage{Message: message})
//
// Also operations whose payload has no fields take one, because a later level of the protocol may add some. Records and
// payloads are types of the package language, of which this one has aliases, so users import only this one.
package backscroll
