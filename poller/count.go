package poller

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// maxCounted is the number of contacts in a range that is counted, about: well below the 10,000 at which search engines of the kind stop counting.
const maxCounted = 5000

// listBelow is the number of pages up to which the ids of an account are listed rather than counted: that costs little, and a listing also shows it when
// one contact has gone and another, of the same range, has come.
const listBelow = 5

// compareCounts holds the API's counts over ranges of `created` against the numbers of known contacts, and looks closer where they differ. A range with few
// differences is halved until it is short, and then its ids are listed; one with many is listed at once.
func (p *Poller) compareCounts(ctx context.Context, r *reconciliation) error {
	if err := p.compareUnplaced(ctx, r); err != nil {
		return err
	}
	if everything := (window{nimble.Created, beginning, forEver}); p.expected(r, everything) <= p.listBelow*p.cfg.PerPage {
		return p.compareIDs(ctx, r, everything)
	}
	ranges, err := p.ranges(ctx, r)
	if err != nil {
		return err
	}
	for _, w := range ranges {
		n, err := p.count(ctx, w)
		if err != nil {
			return err
		}
		if n == p.expected(r, w) {
			continue
		}
		r.differing = append(r.differing, w)
		if err := p.locate(ctx, r, w, n); err != nil {
			return err
		}
	}
	return nil
}

// ranges divides the whole account into ranges that may be counted.
func (p *Poller) ranges(ctx context.Context, r *reconciliation) ([]window, error) {
	a := p.axis(r)
	parts := (len(a.at) + p.maxCounted - 1) / p.maxCounted
	ranges := make([]window, 0, parts)
	from := beginning
	for i := 1; i < parts; i++ {
		lo, hi := (i-1)*len(a.at)/parts, (i+1)*len(a.at)/parts
		cut, ok := a.cutNear(i*len(a.at)/parts, lo, hi, p.bounds)
		if !ok && !p.bounds.known {
			if err := p.learnBounds(ctx, a); err != nil {
				return nil, err
			}
			a = p.axis(r)
			cut, ok = a.cutNear(min(i*len(a.at)/parts, len(a.at)-1), min(lo, len(a.at)), min(hi, len(a.at)), p.bounds)
		}
		if ok && cut.After(from) {
			ranges = append(ranges, window{nimble.Created, from, cut})
			from = a.after(cut, p.bounds)
		}
	}
	return append(ranges, window{nimble.Created, from, forEver}), nil
}

// axis returns the known contacts by `created`, made anew when any came or went.
func (p *Poller) axis(r *reconciliation) *axis {
	if r.axis == nil || r.moves != p.table.moves {
		r.axis, r.moves = p.table.created(), p.table.moves
	}
	return r.axis
}

// expected is how many contacts the API should count in a range of `created`: those that are known and listed, and the records that cannot be understood.
func (p *Poller) expected(r *reconciliation, w window) int {
	n := p.axis(r).expected(w.from, w.to, p.bounds)
	inside := func(at time.Time) bool { return at.After(w.from) && at.Before(w.to) }
	for id := range p.absent {
		if k, ok := p.table.get(id); ok && inside(k.Created) {
			n--
		}
	}
	for _, at := range p.unreadable {
		if inside(at) {
			n++
		}
	}
	return n
}

// locate finds the contacts in which a range of `created` differs, given how many the API counts in it.
func (p *Poller) locate(ctx context.Context, r *reconciliation, w window, counted int) error {
	expected := p.expected(r, w)
	if counted == expected {
		return nil
	}
	size, differences := max(expected, counted), max(expected-counted, counted-expected)
	// Listing the whole of it costs a request for every page; halving costs one for every step and a listing at the end, for each difference.
	pages := size/p.cfg.PerPage + 1
	steps := bits.Len(uint(pages)) + 1
	if pages <= 2 || differences*steps >= pages {
		return p.compareIDs(ctx, r, w)
	}
	cut, ok := p.axis(r).cut(w.from, w.to, p.bounds)
	if !ok && !p.bounds.known {
		if err := p.learnBounds(ctx, p.axis(r)); err != nil {
			return err
		}
		cut, ok = p.axis(r).cut(w.from, w.to, p.bounds)
	}
	if !ok || !cut.After(w.from) || !cut.Before(w.to) {
		return p.compareIDs(ctx, r, w)
	}
	before, after := window{w.field, w.from, cut}, window{w.field, p.axis(r).after(cut, p.bounds), w.to}
	n, err := p.count(ctx, before)
	if err != nil {
		return err
	}
	if n > counted { // Impossible, unless the account changed meanwhile or the counts are not exact.
		return p.compareIDs(ctx, r, w)
	}
	if err := p.locate(ctx, r, before, n); err != nil {
		return err
	}
	if !p.bounds.lower || !p.bounds.upper || p.axis(r).in(cut.Unix()) == 0 {
		return p.locate(ctx, r, after, counted-n)
	}
	// The contacts on the bound are in both halves: only another count tells how many are in the second.
	if n, err = p.count(ctx, after); err != nil {
		return err
	}
	return p.locate(ctx, r, after, n)
}

// compareIDs lists the ids in a range of `created` and notes those that are missing and those that are not known.
func (p *Poller) compareIDs(ctx context.Context, r *reconciliation, w window) error {
	// A second further on either side, whatever is part of the range is listed.
	asked := w
	if w.to.Before(forEver) {
		asked.to = w.to.Add(time.Second)
	}
	if w.from.After(beginning) {
		asked.from = w.from.Add(-time.Second)
	}
	listed, steady, err := p.readIDs(ctx, asked)
	if err != nil {
		return err
	}
	a := p.axis(r)
	var missing []string
	for _, o := range a.within(w.from, w.to) {
		id := o.String()
		if _, ok := listed[id]; !ok {
			missing = append(missing, id)
		}
	}
	if !steady && len(missing) > maxDoubtful {
		p.log.Debug("a listing of ids was not complete", zap.Time("from", w.from), zap.Time("to", w.to), zap.Int("missing", len(missing)))
		r.incomplete = true
		missing = nil
	}
	for _, id := range missing {
		r.missing[id] = struct{}{}
	}
	for id := range listed {
		k, ok := p.table.get(id)
		_, unreadable := p.unreadable[id]
		if _, absent := p.absent[id]; absent {
			p.returned(id)
		} else if (!ok || k.Deleted) && !unreadable {
			r.extra[id] = w
		}
	}
	return nil
}

// maxDoubtful is how many contacts missing from a listing that may not be complete are asked for one by one.
const maxDoubtful = 300

// readIDs lists all ids in a range. steady says that as many different ones came as the API says there are, and that it said the same throughout.
func (p *Poller) readIDs(ctx context.Context, w window) (ids map[string]struct{}, steady bool, err error) {
	ids = make(map[string]struct{})
	for attempt := 0; attempt < idleAttempts && !steady; attempt++ {
		seen := make(map[string]struct{})
		malformed, total := 0, -1
		steady = true
		for number := 1; ; number++ {
			page, err := p.listIDs(ctx, w, number)
			if tooDeep(err, number) {
				return ids, false, nil
			}
			if err != nil {
				return nil, false, err
			}
			if total >= 0 && page.Meta.Total != total {
				steady = false
			}
			total = page.Meta.Total
			malformed += page.Malformed
			for _, id := range page.IDs {
				seen[id], ids[id] = struct{}{}, struct{}{}
			}
			rows := len(page.IDs) + page.Malformed
			full := page.Meta.PerPage > 0 && rows >= page.Meta.PerPage
			if rows == 0 || !full && page.Meta.Page >= page.Meta.Pages {
				break // A full page is followed by another one, whatever the total says: it may be capped.
			}
		}
		steady = steady && len(seen)+malformed >= total
	}
	return ids, steady, nil
}

func (p *Poller) listIDs(ctx context.Context, w window, number int) (*nimble.IDPage, error) {
	if err := p.breathe(ctx); err != nil {
		return nil, err
	}
	page, err := p.source.ContactIDsPage(ctx, p.listOptions(w, false, number))
	if err != nil {
		return nil, err
	}
	p.pass.requests++
	return page, nil
}

// compareUnplaced looks for the contacts that no range holds, since their time of creation cannot be read.
func (p *Poller) compareUnplaced(ctx context.Context, r *reconciliation) error {
	ids := p.table.unplaced()
	if len(ids) == 0 {
		return nil
	}
	gone, err := p.absentByID(ctx, r, ids)
	if err != nil {
		return err
	}
	for _, id := range gone {
		r.missing[id] = struct{}{}
	}
	return nil
}

// compareUpdated counts the contacts by `updated` since an hour before the last agreement, up to the settled mark. Where the API counts others than are known, the walk
// has missed something: it is read again.
func (p *Poller) compareUpdated(ctx context.Context, r *reconciliation) error {
	// The agreement before did not see what the index had yet to show.
	from, to := p.progress.Agreed.Add(-max(p.cfg.Overlap, latest)), p.table.settled
	if p.progress.Agreed.IsZero() || !from.Before(to) {
		return nil
	}
	a := p.table.updated(from.Add(-time.Hour), to.Add(time.Hour))
	window := func(from, to time.Time) (window, bool) {
		from, ok1 := a.emptySecond(from, -1)
		to, ok2 := a.emptySecond(to, -1)
		return window{nimble.Updated, from, to}, ok1 && ok2 && from.Before(to)
	}
	w, ok := window(from, to)
	if !ok {
		return nil // An hour without an empty second: the slow comparison of everything has to find what is missed.
	}
	return p.locateUpdated(ctx, r, a, w)
}

// latest is how late the index may show an edit that the next reconciliation still finds by counting. What comes later is found when the part that it lies in is listed.
const latest = time.Hour

// emptySecond returns the nearest second, from a moment on in a direction and less than an hour away, in which no known contact lies.
func (a *axis) emptySecond(at time.Time, direction int64) (time.Time, bool) {
	s := at.Unix()
	for range int64(time.Hour / time.Second) {
		if a.in(s) == 0 {
			return fromSecond(s), true
		}
		s += direction
	}
	return time.Time{}, false
}

// locateUpdated reads again the parts of a range of `updated` in which the API counts more contacts than are known.
func (p *Poller) locateUpdated(ctx context.Context, r *reconciliation, a *axis, w window) error {
	n, err := p.count(ctx, w)
	if err != nil {
		return err
	}
	expected := a.expected(w.from, w.to, bounds{})
	if n <= expected {
		// Fewer have moved on, and the next poll sees where to; or they are gone, which is found by `created`.
		return nil
	}
	if cut, ok := a.cut(w.from, w.to, bounds{}); ok && expected > 2*p.cfg.PerPage {
		if err := p.locateUpdated(ctx, r, a, window{w.field, w.from, cut}); err != nil {
			return err
		}
		return p.locateUpdated(ctx, r, a, window{w.field, cut, w.to})
	}
	rows, _, err := p.readRange(ctx, window{w.field, w.from.Add(-time.Second), w.to.Add(time.Second)}, false)
	if err != nil {
		return err
	}
	return p.takeFound(ctx, r, rows)
}

// takeFound examines contacts that a reconciliation has read, and counts what turns out to differ.
func (p *Poller) takeFound(ctx context.Context, r *reconciliation, rows []nimble.Contact) error {
	before := p.pass.events()
	if err := p.take(ctx, rows); err != nil {
		return err
	}
	if err := p.reject(ctx); err != nil {
		return err
	}
	r.differences += p.pass.events() - before
	return nil
}

// events is the number of events published in a pass.
func (ps *pass) events() int {
	n := 0
	for _, k := range ps.published {
		n += k
	}
	return n
}

// absentByID asks for contacts by id and returns those that the API does not give. The others exist, whatever its listings say: what changed in
// them is published.
func (p *Poller) absentByID(ctx context.Context, r *reconciliation, ids []string) (gone []string, err error) {
	for len(ids) > 0 {
		batch := ids[:min(len(ids), maxIDs)]
		ids = ids[len(batch):]
		if err := p.breathe(ctx); err != nil {
			return nil, err
		}
		found, err := p.source.ContactsByID(ctx, batch...)
		p.pass.requests++
		present := make(map[string]bool, len(batch))
		if err != nil {
			malformed, ok := recordErrors(err)
			if !ok {
				return nil, err
			}
			for _, m := range malformed {
				present[m.ID] = true
				p.pass.malformed = append(p.pass.malformed, m)
			}
		}
		for i, c := range found {
			present[c.ID] = true
			found[i] = p.calibrated(c)
		}
		for _, id := range batch {
			if !present[id] {
				gone = append(gone, id)
			}
		}
		if err := p.takeFound(ctx, r, found); err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// maxIDs is how many contacts the API gives by id in one request.
const maxIDs = 30

// recordErrors returns the records that an error joins, if it is about nothing else.
func recordErrors(err error) ([]nimble.Malformed, bool) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []nimble.Malformed
		for _, one := range joined.Unwrap() {
			m, ok := recordErrors(one)
			if !ok {
				return nil, false
			}
			all = append(all, m...)
		}
		return all, true
	}
	if record, ok := errors.AsType[*nimble.RecordError](err); ok {
		return []nimble.Malformed{record.Malformed}, true
	}
	return nil, false
}

// Method is how a reconciliation compares the account with what is known.
type Method string

// The methods.
const (
	// ByCount counts ranges, and lists where the counts differ.
	ByCount Method = "count"
	// ByList lists everything.
	ByList Method = "list"
)

func (w window) String() string {
	return fmt.Sprintf("%s %s to %s", w.field, w.from.Format(time.RFC3339), w.to.Format(time.RFC3339))
}
