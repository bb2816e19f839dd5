package nimbletest

import (
	"cmp"
	"container/heap"
	"slices"
)

// index is what listings, counts and queries see: the account as it was when the changes that have arrived
// so far were made. It holds its visible records in three orders, each a sorted slice, so that a range is two
// binary searches and a change two short moves of memory.
type index struct {
	byUpdated, byCreated, byScramble order
	pending                          pendingHeap
	generation                       uint64 // moves with every change, for the result cache
	sequence                         uint64 // number of the newest change
}

// order is a slice of records sorted by one key and, among equals, by compareTied.
type order struct {
	key     func(*state) int64
	records []*record
}

func newIndex() *index {
	return &index{
		byUpdated:  order{key: func(s *state) int64 { return s.updated }},
		byCreated:  order{key: func(s *state) int64 { return s.created }},
		byScramble: order{key: func(*state) int64 { return 0 }},
	}
}

func (o *order) compare(a, b *record) int {
	if c := cmp.Compare(o.key(a.indexed()), o.key(b.indexed())); c != 0 {
		return c
	}
	return compareTied(a, b)
}

// between gives the records whose key lies in iv, in order.
func (o *order) between(iv interval) []*record {
	if iv.empty() {
		return nil
	}
	lo, _ := slices.BinarySearchFunc(o.records, iv.from, func(r *record, at int64) int {
		return cmp.Or(cmp.Compare(o.key(r.indexed()), at), 1) // the first of the equals
	})
	hi, _ := slices.BinarySearchFunc(o.records, iv.to, func(r *record, at int64) int {
		return cmp.Or(cmp.Compare(o.key(r.indexed()), at), -1) // behind the last of the equals
	})
	return o.records[lo:hi:hi]
}

func (o *order) insert(r *record) {
	i, _ := slices.BinarySearchFunc(o.records, r, o.compare)
	o.records = slices.Insert(o.records, i, r)
}

func (o *order) remove(r *record) {
	if i, found := slices.BinarySearchFunc(o.records, r, o.compare); found {
		o.records = slices.Delete(o.records, i, i+1)
	}
}

// merge inserts many records at once, from the back so that nothing moves twice.
func (o *order) merge(added []*record) {
	added = slices.Clone(added)
	slices.SortFunc(added, o.compare)
	i, j := len(o.records)-1, len(added)-1
	o.records = append(o.records, added...)
	for k := len(o.records) - 1; j >= 0; k-- {
		if i >= 0 && o.compare(o.records[i], added[j]) > 0 {
			o.records[k] = o.records[i]
			i--
		} else {
			o.records[k] = added[j]
			j--
		}
	}
}

// arrival is a version of a contact on its way into the index.
type arrival struct {
	record *record
	next   state
	due    int64  // Unix microseconds
	number uint64 // order in which the changes were made
}

// bulk is the number of records from which on rebuilding an order is cheaper than single moves.
const bulk = 64

// apply puts versions into the index. Of one contact an older version never replaces a newer one, in
// whatever order they arrive.
func (x *index) apply(arrivals []arrival) {
	if len(arrivals) == 0 {
		return
	}
	x.generation++
	if len(arrivals) < bulk {
		for _, a := range arrivals {
			x.applyOne(a)
		}
		return
	}
	touched := make(map[*record]bool, len(arrivals))
	for _, a := range arrivals {
		touched[a.record] = true
	}
	gone := func(r *record) bool { return touched[r] }
	for _, o := range x.orders() {
		o.records = slices.DeleteFunc(o.records, gone)
	}
	for _, a := range arrivals {
		a.install()
	}
	added := make([]*record, 0, len(touched))
	for _, a := range arrivals {
		if touched[a.record] && a.record.indexed().listed() {
			touched[a.record] = false
			added = append(added, a.record)
		}
	}
	for _, o := range x.orders() {
		o.merge(added)
	}
}

func (x *index) orders() [3]*order { return [3]*order{&x.byUpdated, &x.byCreated, &x.byScramble} }

func (x *index) applyOne(a arrival) {
	was := *a.record.indexed()
	now := a.outcome()
	moved := was.updated != now.updated || was.created != now.created || was.listed() != now.listed()
	if was.listed() && moved {
		for _, o := range x.orders() {
			o.remove(a.record)
		}
	}
	a.install()
	if now.listed() && moved {
		for _, o := range x.orders() {
			o.insert(a.record)
		}
	}
}

// outcome is what the index has of the contact once the version has arrived.
func (a arrival) outcome() state {
	if l := a.record.lag; l != nil && l.applied > a.number {
		return l.indexed
	}
	return a.next
}

// install makes the arrived version the indexed one and forgets the lag with the last one on its way.
func (a arrival) install() {
	l := a.record.lag // Never nil: it stays until the last version has arrived.
	if a.number > l.applied {
		l.indexed, l.applied = a.next, a.number
	}
	l.waiting--
	if l.waiting == 0 {
		a.record.lag = nil
	}
}

// settle lets everything arrive that is due.
func (x *index) settle(now int64) {
	var due []arrival
	for len(x.pending) > 0 && x.pending[0].due <= now {
		due = append(due, heap.Pop(&x.pending).(arrival))
	}
	x.apply(due)
}

// pendingHeap has the arrival that is due first at its top.
type pendingHeap []arrival

func (h pendingHeap) Len() int { return len(h) }
func (h pendingHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].number < h[j].number
}
func (h pendingHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *pendingHeap) Push(v any)   { *h = append(*h, v.(arrival)) }
func (h *pendingHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = arrival{}
	*h = old[:len(old)-1]
	return last
}

// interval is a range of instants in Unix microseconds, both ends included.
type interval struct{ from, to int64 }

// always is the interval of all instants.
var always = interval{from: -1 << 62, to: 1 << 62}

func (iv interval) empty() bool             { return iv.from > iv.to }
func (iv interval) contains(at int64) bool  { return iv.from <= at && at <= iv.to }
func (iv interval) cap(o interval) interval { return interval{max(iv.from, o.from), min(iv.to, o.to)} }
