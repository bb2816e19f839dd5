package poller

import (
	"context"
	"slices"
	"sort"
	"time"

	"nimble-bridge/nimble"
)

// axis has the known contacts along one of their times, oldest first, so that counts over ranges of it can be held against the API's.
//
// Ranges are asked for with bounds in whole seconds, and no document says whether a bound is part of its range. So bounds are put, where possible, into
// seconds in which nothing lies; elsewhere the API is first asked about contacts that are known to lie on a bound.
type axis struct {
	field nimble.Field
	// at are the times, in microseconds.
	at []int64
	// ids are the contacts', in the same order; the axis of `updated` has none.
	ids []objectID
}

// created returns the axis of the contacts' creation. Contacts without a readable time, or with an odd id, are not on it.
func (t *table) created() *axis {
	a := &axis{field: nimble.Created, at: make([]int64, 0, t.present), ids: make([]objectID, 0, t.present)}
	for id, r := range t.byID {
		if !r.deleted && r.created != noTime {
			a.at, a.ids = append(a.at, r.created), append(a.ids, id)
		}
	}
	sort.Sort(byTime{a})
	return a
}

// updated returns the axis of the contacts' last edits, between two moments.
func (t *table) updated(from, to time.Time) *axis {
	a := &axis{field: nimble.Updated}
	low, high := toMicro(from), toMicro(to)
	add := func(r record) {
		if !r.deleted && r.updated != noTime && r.updated >= low && r.updated < high {
			a.at = append(a.at, r.updated)
		}
	}
	for _, r := range t.byID {
		add(r)
	}
	for _, r := range t.odd {
		add(r)
	}
	slices.Sort(a.at)
	return a
}

// unplaced returns the contacts that are on no axis of creation.
func (t *table) unplaced() []string {
	var ids []string
	for id, r := range t.byID {
		if !r.deleted && r.created == noTime {
			ids = append(ids, id.String())
		}
	}
	for id, r := range t.odd {
		if !r.deleted {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

type byTime struct{ *axis }

func (b byTime) Len() int           { return len(b.at) }
func (b byTime) Less(i, j int) bool { return b.at[i] < b.at[j] }
func (b byTime) Swap(i, j int) {
	b.at[i], b.at[j] = b.at[j], b.at[i]
	b.ids[i], b.ids[j] = b.ids[j], b.ids[i]
}

// second is the whole second that a time lies in, counted since 1970.
func second(us int64) int64 {
	s := us / 1e6
	if us%1e6 < 0 {
		s--
	}
	return s
}

func fromSecond(s int64) time.Time { return time.Unix(s, 0).UTC() }

// from returns the index of the first contact in the given second or later.
func (a *axis) from(s int64) int {
	i, _ := slices.BinarySearch(a.at, s*1e6)
	return i
}

// in is the number of contacts in one second.
func (a *axis) in(s int64) int { return a.from(s+1) - a.from(s) }

// expected is how many contacts the API should count between two moments, given what it does at the bounds.
func (a *axis) expected(from, to time.Time, b bounds) int {
	low, high := from.Unix(), to.Unix()
	n := a.from(high) - a.from(low+1)
	if b.lower {
		n += a.in(low)
	}
	if b.upper {
		n += a.in(high)
	}
	return max(n, 0)
}

// within returns the contacts in the seconds from the first to the last, both included.
func (a *axis) within(from, to time.Time) []objectID {
	return a.ids[a.from(from.Unix()):a.from(to.Unix()+1)]
}

// cut returns a second that divides the contacts between two moments about in the middle, and lies well between the moments. One without
// a contact in it is preferred; without knowledge of the API's bounds it has to be one.
func (a *axis) cut(from, to time.Time, b bounds) (time.Time, bool) {
	lo, hi := a.from(from.Unix()+1), a.from(to.Unix())
	if hi-lo < 2 {
		return time.Time{}, false
	}
	return a.cutNear(lo+(hi-lo)/2, lo, hi, b)
}

func (a *axis) cutNear(middle, lo, hi int, b bounds) (time.Time, bool) {
	for step := range max(middle-lo, hi-middle) {
		for _, i := range [2]int{middle - step, middle + step} {
			if i <= lo || i >= hi {
				continue
			}
			if before := second(a.at[i-1]); second(a.at[i])-before >= 2 {
				return fromSecond(before + 1), true
			}
		}
		if b.known && step > 16 {
			break // Close to the middle nothing is empty; the bounds are known to do without.
		}
	}
	if !b.known {
		return time.Time{}, false
	}
	// The first contact of a second that the next one does not share, so that something lies on either side.
	for step := range max(middle-lo, hi-middle) {
		for _, i := range [2]int{middle - step, middle + step} {
			if i > lo && i < hi && second(a.at[i]) > second(a.at[i-1]) && a.clear(second(a.at[i])) {
				return fromSecond(second(a.at[i])), true
			}
		}
	}
	return time.Time{}, false
}

// after is the lower bound of a range that goes on where another one ends, so that what lies on the bound is in one of them: where the API counts it in neither, that is
// a second earlier.
func (a *axis) after(cut time.Time, b bounds) time.Time {
	if b.known && !b.lower && !b.upper && a.in(cut.Unix()) > 0 {
		return cut.Add(-time.Second)
	}
	return cut
}

// clear tells whether a second can be a bound of a range: what is known of bounds is known of times like those in it. A time of the
// whole second itself, among times with fractions, may lie on the other side.
func (a *axis) clear(s int64) bool {
	first, last := a.from(s), a.from(s+1)
	whole := 0
	for _, at := range a.at[first:last] {
		if at%1e6 == 0 {
			whole++
		}
	}
	return whole == 0 || whole == last-first && !a.fractional()
}

// fractional tells whether the account's times have fractions of a second, by a sample.
func (a *axis) fractional() bool {
	n := 0
	for i := 0; i < len(a.at); i += max(1, len(a.at)/64) {
		if a.at[i]%1e6 != 0 {
			n++
		}
	}
	return n > 0
}

// bounds is whether the seconds at the bounds of a range are part of it.
type bounds struct {
	known, lower, upper bool
}

// boundSamples is how many contacts are asked about before their absence from a range is believed: one may have just been deleted.
const boundSamples = 3

// learnBounds finds out what the API does at the bounds of ranges, by counts of single seconds in which contacts are known beside seconds in which none are.
func (p *Poller) learnBounds(ctx context.Context, a *axis) error {
	if p.bounds.known || len(a.at) == 0 {
		return nil
	}
	ask := func(beside int64, w func(s int64) window) (bool, error) {
		asked := 0
		for i := 0; i < len(a.at) && asked < boundSamples; i++ {
			j := i / 2 // From both ends: where every second is taken, only the first and the last have an empty one beside them.
			if i%2 == 1 {
				j = len(a.at) - 1 - i/2
			}
			s := second(a.at[j])
			if a.in(s+beside) > 0 || !a.clear(s) {
				continue
			}
			asked++
			n, err := p.count(ctx, w(s))
			if n > 0 || err != nil {
				return n > 0, err
			}
		}
		return false, nil
	}
	upper, err := ask(-1, func(s int64) window { return window{a.field, fromSecond(s - 1), fromSecond(s)} })
	if err != nil {
		return err
	}
	lower, err := ask(+1, func(s int64) window { return window{a.field, fromSecond(s), fromSecond(s + 1)} })
	if err != nil {
		return err
	}
	p.bounds = bounds{known: true, lower: lower, upper: upper}
	return nil
}
