package nimbletest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// objectID is a contact's id: 4 bytes of creation second, 5 bytes that stand for a machine, 3 bytes of counter.
type objectID [12]byte

// newObjectID makes the id of the contact with the given ordinal; seed stands in for the machine.
func newObjectID(created int64, seed uint64, ordinal uint32) objectID {
	var id objectID
	binary.BigEndian.PutUint32(id[0:4], uint32(created/1e6))
	machine := mix(seed, 0x6d616368696e65)
	binary.BigEndian.PutUint32(id[4:8], uint32(machine))
	id[8] = byte(machine >> 32)
	counter := uint32(machine>>40) + ordinal
	id[9], id[10], id[11] = byte(counter>>16), byte(counter>>8), byte(counter)
	return id
}

// parseObjectID reads 24 lowercase hex characters; ok is false for anything else.
func parseObjectID(s string) (id objectID, ok bool) {
	if len(s) != 24 {
		return id, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return id, false
		}
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}

func (id objectID) String() string { return hex.EncodeToString(id[:]) }

// scramble is the rank of an id in the order that the account uses where the API promises none. It is fixed
// for an id and tells nothing about its age.
func (id objectID) scramble() uint64 {
	return mix(binary.BigEndian.Uint64(id[0:8]), uint64(binary.BigEndian.Uint32(id[8:12])))
}

// state is one version of a contact. Values are never changed after they are stored: an edit makes a new one.
type state struct {
	created, updated int64     // Unix microseconds
	doc              *document // nil: the content is invented anew from the seed each time it is shown
	visible          bool      // exists and may be read by the key's user
	unlisted         bool      // no listing, count or query has it, although it can be read by id
	company          bool
}

// listed tells whether listings have this version.
func (s *state) listed() bool { return s.visible && !s.unlisted }

// record is a contact's place in the account. It stays when the contact is deleted, so that it can come back.
type record struct {
	id      objectID
	ordinal uint32
	deleted bool
	hidden  bool
	// unlisted is what the next version says of it.
	unlisted bool
	// hiddenAs is the status with which reading the hidden contact by id is answered; 0 leaves that to the behaviour.
	hiddenAs int16
	stored   state
	lag      *lag // nil: the search index has the stored state
}

// lag is what the search index still has of a contact while changes wait to reach it.
type lag struct {
	indexed state
	applied uint64 // number of the newest change in the index
	waiting int    // changes on their way
}

// indexed is the version that the search index has.
func (r *record) indexed() *state {
	if r.lag != nil {
		return &r.lag.indexed
	}
	return &r.stored
}

// compareTied orders two records whose sort keys are equal.
func compareTied(a, b *record) int {
	x, y := a.id.scramble(), b.id.scramble()
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return bytes.Compare(a.id[:], b.id[:])
}

// micros is t in Unix microseconds, the account's resolution.
func micros(t time.Time) int64 { return t.UnixMicro() }

// mix hashes two words into one (two rounds of the splitmix64 finaliser).
func mix(a, b uint64) uint64 {
	z := a*0x9e3779b97f4a7c15 ^ (b + 0x9e3779b97f4a7c15)
	for range 2 {
		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
		z = (z ^ (z >> 27)) * 0x94d049bb133111eb
		z ^= z >> 31
	}
	return z
}
