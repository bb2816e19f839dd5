package poller

import (
	"context"
	"errors"
	"slices"
	"time"

	"nimble-bridge/nimble"
)

// Probed is what [Probe] has found out about the way an account's API answers.
type Probed struct {
	// Findings are how changes will be found. Where RangeProven is false they are only what was not disproved.
	Findings Findings
	// RangeProven says that a range was seen to leave contacts out, SortProven that sorting in both directions was seen to make a
	// difference. An account of one contact, or of one import, proves neither.
	RangeProven, SortProven bool
	// Surprises are why better strategies than the one in Findings were given up.
	Surprises []error

	// Contacts is the number of contacts, as the API counts them.
	Contacts int
	// Counts is what counting is worth.
	Counts CountQuality
	// Malformed is the number of records among the first page's that cannot be understood.
	Malformed int

	// Offset is how far the account's timestamps are from UTC, if OffsetKnown says that the ids tell.
	Offset      time.Duration
	OffsetKnown bool
	// Dated says that answers carry a Date, Skew how far that is ahead of the local clock; it is exact to about a second.
	Dated bool
	Skew  time.Duration
}

// CountQuality is what the API's counts are worth.
type CountQuality uint8

// The qualities of counts.
const (
	// CountsUnknown: nothing could be compared.
	CountsUnknown CountQuality = iota
	// CountsExact: the parts of the account add up to the whole.
	CountsExact
	// CountsCapped: the whole is shown smaller than the sum of its parts.
	CountsCapped
	// CountsOff: the parts do not add up to the whole, or no range of `created` is obeyed.
	CountsOff
)

// String returns the quality for people.
func (q CountQuality) String() string {
	return [...]string{"unknown", "exact", "capped", "not reliable"}[q]
}

// Probe asks a few small requests to see how an account's API answers, by the same ladder and the same checks as polling, and publishes nothing. With an error it
// returns what was found before it. Of cfg only PerPage counts.
func Probe(ctx context.Context, source Source, cfg Config) (Probed, error) {
	p, err := New(source, nil, Config{PerPage: cfg.PerPage})
	if err != nil {
		return Probed{}, err
	}
	p.table = newTable(time.Time{})
	probe := probe{p: p}
	err = probe.run(ctx)
	return probe.found, err
}

// probe is one run of [Probe].
type probe struct {
	p      *Poller
	sample []nimble.Contact
	found  Probed
}

func (pr *probe) run(ctx context.Context) error {
	if err := pr.look(ctx); err != nil {
		return err
	}
	for {
		err := pr.rung(ctx)
		pr.found.Findings = pr.p.ladder.findings()
		if err == nil {
			break
		}
		if !pr.p.ladder.stepDown(err) {
			return err
		}
		pr.found.Surprises = append(pr.found.Surprises, err)
	}
	return pr.count(ctx)
}

// look takes a sample of the account, without any condition.
func (pr *probe) look(ctx context.Context) error {
	began := time.Now()
	page, err := pr.p.source.ContactsPage(ctx, nimble.ListOptions{Page: 1, PerPage: pr.p.cfg.PerPage})
	if err != nil {
		return err
	}
	pr.p.pass.began = time.Now()
	if pr.found.Dated = !page.Date.IsZero(); pr.found.Dated {
		// The header has whole seconds, so that half of one is missing on average; and it was written half-way through the request.
		middle := began.Add(time.Since(began) / 2)
		pr.found.Skew = page.Date.Add(time.Second / 2).Sub(middle)
	}
	pr.p.calibrate(page.Contacts)
	pr.found.Offset, pr.found.OffsetKnown = pr.p.zone.offset, pr.p.zone.known
	pr.found.Contacts, pr.found.Malformed = page.Meta.Total, len(page.Malformed)
	pr.sample = page.Contacts
	return nil
}

// rung asks for one range in the way of the rung in use, such that about half of the sample lies outside it.
func (pr *probe) rung(ctx context.Context) error {
	findings := pr.p.ladder.findings()
	if findings.Strategy == FullCompare {
		return nil
	}
	w := window{nimble.Updated, beginning, forEver}
	if findings.Strategy == CreatedWalk {
		w.field = nimble.Created
	}
	w.from, pr.found.RangeProven = pr.middle(w)
	sorted := findings.Strategy != WindowRead
	page, err := pr.p.list(ctx, w, sorted, 1)
	if err != nil {
		pr.found.RangeProven = false
		return err
	}
	if !sorted || len(page.Contacts) < 2 {
		return nil
	}
	err = pr.p.proveSort(ctx, w, page)
	pr.found.SortProven = err == nil && pr.p.ladder.proven[w.field]
	return err
}

// middle returns a time that leaves out about half of the sample, and whether it leaves out any.
func (pr *probe) middle(w window) (from time.Time, proves bool) {
	times := make([]time.Time, 0, len(pr.sample))
	for _, c := range pr.sample {
		if at := w.timeOf(c); !at.IsZero() {
			times = append(times, toSecond(at))
		}
	}
	if len(times) == 0 {
		return beginning, false
	}
	slices.SortFunc(times, time.Time.Compare)
	from = times[len(times)/2]
	// As everywhere, a second either way proves nothing; and a relative range is only as exact as two clocks agree.
	margin := 2 * time.Second
	if pr.p.ladder.findings().Relative {
		margin += 3 * relativeSlack
	}
	return from, times[0].Before(from.Add(-margin))
}

// count compares the whole account's number with the sum of two parts of it, divided by `created`.
func (pr *probe) count(ctx context.Context) error {
	whole, err := pr.p.source.Count(ctx, nimble.Query{})
	if err != nil {
		return err
	}
	pr.found.Contacts = whole.Total
	if findings := pr.found.Findings; findings.Relative || findings.Strategy == FullCompare || whole.Total == 0 {
		return nil // There are no ranges to count by, or nothing to count.
	}
	quality, err := pr.parts(ctx)
	if refused := (*nimble.ValidationError)(nil); errors.As(err, &refused) {
		quality, err = CountsOff, nil
	}
	pr.found.Counts = quality
	return err
}

// countAttempts is how often the parts are counted anew when they do not add up: people go on working meanwhile.
const countAttempts = 3

func (pr *probe) parts(ctx context.Context) (CountQuality, error) {
	created := func(from, to time.Time) window { return window{nimble.Created, from, to} }
	// Where nothing can be, nothing must be counted, or else ranges of `created` are not obeyed.
	nothing, err := pr.p.count(ctx, created(forEver.AddDate(-1, 0, 0), forEver))
	if err != nil {
		return CountsUnknown, err
	}
	if nothing > 0 {
		return CountsOff, nil
	}
	middle, _ := pr.middle(created(beginning, forEver))
	quality := CountsUnknown
	for attempt := range countAttempts {
		whole, err := pr.p.source.Count(ctx, nimble.Query{})
		if err != nil {
			return quality, err
		}
		// What was created in the second of the cut is counted twice or never, as bounds may be inclusive or not: it is cut in a gap.
		cut := pr.gap(middle, attempt)
		before, err := pr.p.count(ctx, created(beginning, cut))
		if err != nil {
			return quality, err
		}
		after, err := pr.p.count(ctx, created(cut, forEver))
		if err != nil {
			return quality, err
		}
		switch {
		case before+after == whole.Total:
			return CountsExact, nil
		case before+after > whole.Total:
			quality = CountsCapped
		default:
			quality = CountsOff
		}
	}
	return quality, nil
}

// gap returns a second near the given time in which no contact of the sample was created; another one at each attempt.
func (pr *probe) gap(near time.Time, attempt int) time.Time {
	cut := near.Add(time.Duration(attempt) * time.Minute)
	for slices.ContainsFunc(pr.sample, func(c nimble.Contact) bool { return toSecond(c.Created).Sub(cut).Abs() < 2*time.Second }) {
		cut = cut.Add(time.Second)
	}
	return cut
}
