package poller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// forEver is the upper bound of a range that has none: the API documents both bounds as required, and a record dated in
// the future has to be found as well.
var forEver = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// beginning is the lower bound of the first reading: before every contact, and a date that any parser takes.
var beginning = time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)

// emitFunc takes over contacts that were read. through is the time before which everything in the range asked for has
// now been handed over; zero while nothing can be said.
type emitFunc func(rows []nimble.Contact, through time.Time) error

// window is a range of one of the contacts' times. Whether the API's bounds are inclusive is in none of its documents, so nothing
// here relies on either: lower bounds go down by a second, and what comes back twice is recognised.
type window struct {
	field    nimble.Field
	from, to time.Time
}

func (w window) timeOf(c nimble.Contact) time.Time {
	if w.field == nimble.Created {
		return c.Created
	}
	return c.Updated
}

// read hands over every contact whose `updated` lies in the range, in the way this account's API permits. It returns errUnsteady when the account
// changed too quickly under the reader to say that nothing was skipped; everything seen has been handed over even so.
func (p *Poller) read(ctx context.Context, from, to time.Time, emit emitFunc) error {
	switch p.ladder.findings().Strategy {
	case KeyedWalk:
		return p.walk(ctx, window{nimble.Updated, from, to}, emit)
	case WindowRead:
		return p.readWindows(ctx, window{nimble.Updated, from, to}, emit)
	case CreatedWalk:
		return p.walk(ctx, window{nimble.Created, beginning, forEver}, withoutMark(emit))
	default:
		return p.readAll(ctx, withoutMark(emit))
	}
}

// withoutMark hands contacts over in an order that says nothing about `updated`.
func withoutMark(emit emitFunc) emitFunc {
	return func(rows []nimble.Contact, _ time.Time) error { return emit(rows, time.Time{}) }
}

// walk reads a window in the order of its field, by key: each request asks from the last time seen on. Page numbers shift when a contact
// moves meanwhile, times do not. Only inside one instant that fills a page do page numbers advance.
func (p *Poller) walk(ctx context.Context, w window, emit emitFunc) error {
	low := toSecond(w.from).Add(-time.Second)
	unsteady := false
	var next *fetch
	defer func() { next.giveUp() }()
	for {
		page, err := p.receive(ctx, next, window{w.field, low, w.to}, true, 1)
		next = nil
		if err != nil {
			return err
		}
		last, ok := lastTime(w, page.Contacts)
		if isLast(page) {
			through := w.to
			if unsteady {
				through = time.Time{}
			}
			if err := emit(page.Contacts, through); err != nil {
				return err
			}
			break
		}
		if !ok {
			return &SurpriseError{"sort", fmt.Sprintf("page 1 of %d holds no contact with a readable %s to go on from", page.Meta.Pages, w.field)}
		}
		if err := p.proveSort(ctx, window{w.field, low, w.to}, page); err != nil {
			return err
		}
		through := toSecond(last)
		from := through.Add(-time.Second)
		rows := page.Contacts
		if !from.After(low) { // More contacts in these seconds than fit on a page: an import.
			var steady bool
			rows, steady, err = p.readRange(ctx, window{w.field, low, earlier(through.Add(2*time.Second), w.to)}, true)
			if err != nil {
				return err
			}
			unsteady = unsteady || !steady
			through = through.Add(time.Second)
			from = through
		}
		low = from
		// It comes while this one is examined.
		if next, err = p.request(ctx, window{w.field, low, w.to}, true, 1); err != nil {
			return err
		}
		if unsteady {
			through = time.Time{}
		}
		if err := emit(rows, through); err != nil {
			return err
		}
	}
	if unsteady {
		return errUnsteady
	}
	return nil
}

// maxWindow is the number of contacts that a window may hold to be read as a whole: well below any limit that search engines set to
// paging, and little enough to hold in memory.
const maxWindow = 1000

// readWindows reads a window whose answers come in no order. It is halved until the parts are small; each is read whole, put in order and handed
// over, oldest first.
func (p *Poller) readWindows(ctx context.Context, w window, emit emitFunc) error {
	unsteady := false
	for parts := []window{w}; len(parts) > 0; {
		part := parts[0]
		asked := window{w.field, toSecond(part.from).Add(-time.Second), part.to}
		page, err := p.list(ctx, asked, false, 1)
		if err != nil {
			return err
		}
		if cut, ok := p.cut(part); ok && page.Meta.Total > maxWindow {
			parts = slices.Insert(parts[1:], 0, window{w.field, part.from, cut}, window{w.field, cut, part.to})
			continue
		}
		parts = parts[1:]
		rows, steady := page.Contacts, true
		if !isLast(page) {
			if rows, steady, err = p.readRange(ctx, asked, false); err != nil {
				return err
			}
		}
		sortRows(asked, rows)
		unsteady = unsteady || !steady
		through := part.to
		if unsteady {
			through = time.Time{}
		}
		if err := emit(rows, through); err != nil {
			return err
		}
	}
	if unsteady {
		return errUnsteady
	}
	return nil
}

// cut returns the time at which a window that holds too much is divided, if it is long enough. Nearly all of an open end is empty: the present
// is the place to cut that.
func (p *Poller) cut(w window) (time.Time, bool) {
	if p.ladder.findings().Relative {
		return time.Time{}, false
	}
	if soon := toSecond(p.pass.began.Add(time.Minute)); w.from.Before(soon) && soon.Before(w.to) {
		return soon, true
	}
	half := w.to.Sub(w.from) / 2
	return toSecond(w.from.Add(half)), half > 2*time.Second
}

// readAll reads every contact, and hands each page over as it comes: an account may be larger than memory.
func (p *Poller) readAll(ctx context.Context, emit emitFunc) error {
	steady, err := p.readPages(ctx, window{}, false, func(rows []nimble.Contact) error { return emit(rows, time.Time{}) })
	if err != nil {
		return err
	}
	if !steady {
		return errUnsteady
	}
	return nil
}

// A range whose total differs from what was read is read again: maxAttempts times at most, while that shows contacts not seen before, else idleAttempts times.
const (
	maxAttempts  = 25
	idleAttempts = 4
)

// readRange reads a range that fits in memory and returns its contacts in order, each in the latest state that was seen. steady is that of readPages.
func (p *Poller) readRange(ctx context.Context, w window, sorted bool) (rows []nimble.Contact, steady bool, err error) {
	latest := make(map[string]nimble.Contact)
	steady, err = p.readPages(ctx, w, sorted, func(page []nimble.Contact) error {
		for _, c := range page {
			if seen, ok := latest[c.ID]; !ok || !c.Updated.Before(seen.Updated) {
				latest[c.ID] = c
			}
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	rows = slices.Collect(maps.Values(latest))
	sortRows(w, rows)
	return rows, steady, nil
}

// readPages reads all pages of a range by page number, more than once if need be, and hands each over. steady says that nothing can have been
// skipped: while the range's total stayed the same, just as many different contacts were read; or, where totals are not exact, reading all of it several times has shown
// nothing more.
func (p *Poller) readPages(ctx context.Context, w window, sorted bool, each func([]nimble.Contact) error) (steady bool, err error) {
	listed := newIDSet()
	unique := newIDSet() // Records read since the total last changed.
	total, deep := -1, false
	var next *fetch
	defer func() { next.giveUp() }()
	for attempt, idle := 0, 0; attempt < maxAttempts && !steady && !deep; attempt++ {
		before := listed.len()
		for number, last := 1, false; !last; number++ {
			page, err := p.receive(ctx, next, w, sorted, number)
			next = nil
			if tooDeep(err, number) {
				p.log.Warn("the API lists no further in a range that holds more; what it does list is published, and the range read again at each poll",
					zap.Time("from", w.from), zap.Time("to", w.to), zap.Int("page", number), zap.Int("total", total), zap.Error(err))
				deep = true
				break
			}
			if err != nil {
				return false, err
			}
			if page.Meta.Total != total {
				total = page.Meta.Total
				unique = newIDSet()
			}
			for _, c := range page.Contacts {
				listed.add(c.ID)
				unique.add(c.ID)
			}
			for _, m := range page.Malformed {
				unique.add(string(m.Raw))
			}
			if last = isLast(page); !last {
				if next, err = p.request(ctx, w, sorted, number+1); err != nil {
					return false, err
				}
			}
			if err := each(page.Contacts); err != nil {
				return false, err
			}
		}
		if idle++; listed.len() > before {
			idle = 0
		}
		steady = !deep && (unique.len() >= total || idle == idleAttempts)
	}
	if steady && unique.len() < total {
		p.log.Debug("the API says that a range has more contacts than it lists", zap.Time("from", w.from), zap.Time("to", w.to), zap.Int("total", total), zap.Int("listed", listed.len()))
	}
	return steady, nil
}

func sortRows(w window, rows []nimble.Contact) {
	slices.SortFunc(rows, func(a, b nimble.Contact) int {
		return cmp.Or(w.timeOf(a).Compare(w.timeOf(b)), cmp.Compare(a.ID, b.ID))
	})
}

// tooDeep tells whether an error on a later page is what search engines answer beyond the rows they are willing to page through.
func tooDeep(err error, number int) bool {
	_, refused := errors.AsType[*nimble.ValidationError](err)
	_, failed := errors.AsType[*nimble.ServerError](err)
	return number > 1 && (refused || failed)
}

// list asks for one page of a window and checks the answer.
func (p *Poller) list(ctx context.Context, w window, sorted bool, number int) (*nimble.Page, error) {
	return p.receive(ctx, nil, w, sorted, number)
}

// fetch is a request for a page that is under way. There may be none: nil.
type fetch struct {
	cancel context.CancelFunc
	done   chan struct{} // Closed when there is an answer.
	page   *nimble.Page
	err    error
}

// request asks for a page of a window without waiting for the answer.
func (p *Poller) request(ctx context.Context, w window, sorted bool, number int) (*fetch, error) {
	if err := p.breathe(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &fetch{cancel: cancel, done: make(chan struct{})}
	opts := p.listOptions(w, sorted, number)
	go func() {
		defer close(f.done)
		f.page, f.err = p.source.ContactsPage(ctx, opts)
	}()
	return f, nil
}

// giveUp ends a request whose answer nobody wants any more.
func (f *fetch) giveUp() {
	if f != nil {
		f.cancel()
		<-f.done
	}
}

// receive returns the page that was requested; if none was, it asks for it now. It checks the answer against what was asked: the API ignores parameters it does not know, without
// a word.
func (p *Poller) receive(ctx context.Context, f *fetch, w window, sorted bool, number int) (*nimble.Page, error) {
	var page *nimble.Page
	var err error
	if f != nil {
		<-f.done
		f.cancel()
		page, err = f.page, f.err
	} else {
		if err := p.breathe(ctx); err != nil {
			return nil, err
		}
		page, err = p.source.ContactsPage(ctx, p.listOptions(w, sorted, number))
	}
	if err != nil {
		return nil, err
	}
	p.pass.requests++
	p.begin(page.Date)
	p.calibrate(page.Contacts)
	if err := p.verify(page, w, sorted); err != nil {
		return nil, err
	}
	if bad := len(page.Malformed); bad > 0 {
		if bad > len(page.Contacts) && bad > fewMalformed {
			return nil, fmt.Errorf("contacts listing: %d of %d records on the page cannot be understood: %s", bad, bad+len(page.Contacts), page.Malformed[0].Reason)
		}
		p.pass.malformed = append(p.pass.malformed, page.Malformed...)
	}
	return page, nil
}

// fewMalformed is how many records that cannot be understood may be all that a page has: in a quiet account, one of them is often alone there, and that says nothing about the API.
const fewMalformed = 2

func (p *Poller) listOptions(w window, sorted bool, number int) nimble.ListOptions {
	opts := nimble.ListOptions{Query: p.query(w), Page: number, PerPage: p.cfg.PerPage}
	if sorted {
		opts.Sort = string(w.field) + ":asc"
	}
	return opts
}

// query asks for a window in the way the API was found to accept; nothing for all of the account.
func (p *Poller) query(w window) nimble.Query {
	switch f := p.ladder.findings(); {
	case w.to.IsZero():
		return nimble.Query{}
	case f.Relative: // There is no upper bound then, and nothing relies on one.
		return nimble.InTheLast(w.field, time.Since(w.from).Truncate(time.Second)+relativeSlack)
	default:
		return nimble.Between(w.field, w.from, w.to, f.Form)
	}
}

// relativeSlack covers the way to the API and the difference between its clock and the local one.
const relativeSlack = maxSkew

// count asks how many contacts lie in a window.
func (p *Poller) count(ctx context.Context, w window) (int, error) {
	if err := p.breathe(ctx); err != nil {
		return 0, err
	}
	count, err := p.source.Count(ctx, p.query(w))
	if err != nil {
		return 0, err
	}
	p.pass.requests++
	p.begin(count.Date)
	return count.Total, nil
}

// SurpriseError says that the API answered something else than it was asked for. It leads to a new look at what this
// account's API can do.
type SurpriseError struct {
	// Ignored is what the answer does not obey: "range", "sort".
	Ignored string
	// Detail says what was seen, without anything of the contact but its id and time.
	Detail string
}

// Error implements error.
func (e *SurpriseError) Error() string {
	return fmt.Sprintf("the contacts listing does not obey the %s asked for: %s", e.Ignored, e.Detail)
}

// errUnsteady says that contacts moved under the reader too often; the pass settles nothing and the next one reads again.
var errUnsteady = errors.New("the account changed while it was read")

// verify checks a page against the window and order asked for. A second either way is the API's own resolution.
func (p *Poller) verify(page *nimble.Page, w window, sorted bool) error {
	if w.to.IsZero() {
		return nil
	}
	from, to := w.from.Add(-time.Second), w.to.Add(time.Second)
	if p.ladder.findings().Relative {
		from, to = from.Add(-2*relativeSlack), time.Time{}
	}
	var before time.Time
	for _, c := range page.Contacts {
		at := w.timeOf(c)
		if at.IsZero() {
			continue // Unreadable: it cannot be judged, and its neighbours can.
		}
		if at.Before(from) || !to.IsZero() && at.After(to) {
			return &SurpriseError{"range", fmt.Sprintf("contact %s has %s %s, outside %s to %s", c.ID, w.field, at.Format(time.RFC3339Nano),
				w.from.Format(time.RFC3339), w.to.Format(time.RFC3339))}
		}
		if sorted && at.Before(before) {
			return &SurpriseError{"sort", fmt.Sprintf("contact %s has %s %s, after one of %s", c.ID, w.field, at.Format(time.RFC3339Nano),
				before.Format(time.RFC3339Nano))}
		}
		before = at
	}
	return nil
}

// isLast tells whether nothing follows a page: it is not full, and says so itself. An empty page ends everything.
func isLast(page *nimble.Page) bool {
	rows := len(page.Contacts) + len(page.Malformed)
	full := page.Meta.PerPage > 0 && rows >= page.Meta.PerPage
	return rows == 0 || !full && page.Meta.Page >= page.Meta.Pages
}

// lastTime returns the time of the last contact that has one.
func lastTime(w window, rows []nimble.Contact) (time.Time, bool) {
	for _, c := range slices.Backward(rows) {
		if at := w.timeOf(c); !at.IsZero() {
			return at, true
		}
	}
	return time.Time{}, false
}

// begin notes the moment, on Nimble's clock, of a pass's first answer.
func (p *Poller) begin(date time.Time) {
	if p.pass.began.IsZero() {
		p.pass.began = p.nimbleTime(date)
	}
}

// nimbleTime returns the moment of an answer on Nimble's clock. The Date header is believed while it is within minutes of the local clock; otherwise the newest
// `updated` known before takes its place: marks then lag, and never lead.
func (p *Poller) nimbleTime(date time.Time) time.Time {
	skew := time.Until(date)
	if !date.IsZero() && skew.Abs() <= maxSkew {
		p.skewed = false
		return date.UTC()
	}
	if !p.skewed {
		p.skewed = true
		p.log.Warn("the Date of the API's answers is missing or minutes away from the local clock; times are taken from the contacts instead",
			zap.Time("date", date), zap.Duration("skew", skew))
	}
	return p.table.newest
}

// maxSkew is how far Nimble's clock and the local one may be apart.
const maxSkew = 10 * time.Minute

func toSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
