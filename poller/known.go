package poller

import (
	"encoding/hex"
	"math"
	"slices"
	"time"
)

// table remembers what is known of every contact of the account, compactly: an account of a million contacts has to fit
// in a small machine's memory.
//
// Besides, it keeps apart the contacts whose `updated` is not settled yet, because only they are counted and read again.
type table struct {
	byID map[objectID]record
	// odd holds contacts whose ids are not 24 hex digits; the API has none today.
	odd map[string]record
	// unsettled maps the ids of contacts updated at or after the settled mark to that time.
	unsettled map[string]time.Time
	settled   time.Time
	// newest is the latest `updated` that is not in the future.
	newest  time.Time
	present int
	// moves counts the contacts that came or went, and those whose time of creation changed: what was derived from the table is out of date when it rises.
	moves uint64
}

// objectID is an id of 24 hex digits, decoded.
type objectID [12]byte

func (o objectID) String() string { return hex.EncodeToString(o[:]) }

// idSet is a set of ids, as compact as the table.
type idSet struct {
	byID map[objectID]struct{}
	odd  map[string]struct{}
}

func newIDSet() idSet {
	return idSet{byID: make(map[objectID]struct{}), odd: make(map[string]struct{})}
}

func (s idSet) add(id string) {
	if o, ok := parseObjectID(id); ok {
		s.byID[o] = struct{}{}
	} else {
		s.odd[id] = struct{}{}
	}
}

func (s idSet) len() int { return len(s.byID) + len(s.odd) }

// record is Known in 48 bytes.
type record struct {
	hash     [16]byte
	sequence uint64
	created  int64 // Microseconds since 1970, noTime for none.
	updated  int64
	revision uint32
	version  uint8
	deleted  bool
}

const noTime = math.MinInt64

func newTable(settled time.Time) *table {
	return &table{
		byID: make(map[objectID]record), odd: make(map[string]record),
		unsettled: make(map[string]time.Time), settled: settled,
	}
}

func parseObjectID(id string) (objectID, bool) {
	var o objectID
	if len(id) != 2*len(o) {
		return o, false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return o, false // Upper case is another id, not another spelling.
		}
	}
	_, err := hex.Decode(o[:], []byte(id))
	return o, err == nil
}

// get returns what is known of a contact.
func (t *table) get(id string) (Known, bool) {
	r, ok := t.record(id)
	if !ok {
		return Known{}, false
	}
	return Known{
		ID: id, Fingerprint: Fingerprint{Version: r.version, Hash: r.hash}, Revision: uint64(r.revision), Sequence: r.sequence,
		Created: fromMicro(r.created), Updated: fromMicro(r.updated), Deleted: r.deleted,
	}, true
}

func (t *table) record(id string) (record, bool) {
	if o, ok := parseObjectID(id); ok {
		r, ok := t.byID[o]
		return r, ok
	}
	r, ok := t.odd[id]
	return r, ok
}

// put replaces what is known of a contact.
func (t *table) put(k Known) {
	old, had := t.record(k.ID)
	was := had && !old.deleted
	if was {
		t.present--
	}
	if !k.Deleted {
		t.present++
	}
	if was == k.Deleted || old.created != toMicro(k.Created) {
		t.moves++
	}
	r := record{
		hash: k.Fingerprint.Hash, version: k.Fingerprint.Version, sequence: k.Sequence, revision: uint32(k.Revision),
		created: toMicro(k.Created), updated: toMicro(k.Updated), deleted: k.Deleted,
	}
	if o, ok := parseObjectID(k.ID); ok {
		t.byID[o] = r
	} else {
		t.odd[k.ID] = r
	}
	if k.Updated.After(t.newest) && k.Updated.Before(time.Now()) {
		t.newest = k.Updated
	}
	if !k.Deleted && !k.Updated.IsZero() && !k.Updated.Before(t.settled) {
		t.unsettled[k.ID] = k.Updated
	} else {
		delete(t.unsettled, k.ID)
	}
}

// seen notes an `updated` that moved without a change of content, so that counting by `updated` stays true.
func (t *table) seen(id string, updated time.Time) {
	k, ok := t.get(id)
	if !ok || k.Deleted || k.Updated.Equal(updated) {
		return
	}
	k.Updated = updated
	t.put(k)
}

// settle moves the mark forward and forgets the unsettled contacts before it.
func (t *table) settle(mark time.Time) {
	if !mark.After(t.settled) {
		return
	}
	t.settled = mark
	for id, updated := range t.unsettled {
		if updated.Before(mark) {
			delete(t.unsettled, id)
		}
	}
}

// unsettledTimes returns the `updated` of the unsettled contacts, oldest first.
func (t *table) unsettledTimes() []time.Time {
	times := make([]time.Time, 0, len(t.unsettled))
	for _, updated := range t.unsettled {
		times = append(times, updated)
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

func toMicro(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == noTime {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
