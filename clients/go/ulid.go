package backscroll

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"
)

const (
	ulidAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base 32
	ulidBytes    = 26
)

// ulids makes ULIDs: request ids that sort by time, which keeps the daemon's indexes compact.
type ulids struct {
	mu sync.Mutex
	// The latest one: 48 bits of milliseconds and 16 random bits, and 64 random bits.
	high, low uint64
}

var newIDs ulids

// newID returns an id that is greater than the one before, even if the clock goes back.
func newID() string { return newIDs.next(time.Now()) }

func (u *ulids) next(now time.Time) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if at := uint64(now.UnixMilli()); at > u.high>>16 {
		var random [10]byte
		_, _ = rand.Read(random[:]) // it never fails
		u.high = at<<16 | uint64(binary.BigEndian.Uint16(random[:2]))
		u.low = binary.BigEndian.Uint64(random[2:])
	} else if u.low++; u.low == 0 {
		u.high++
	}
	high, low := u.high, u.low
	var text [ulidBytes]byte
	for place := ulidBytes - 1; place >= 0; place-- {
		text[place] = ulidAlphabet[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(text[:])
}
