package poller

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// Strategy is how changed contacts are found, by what the account's API turns out to do.
type Strategy uint8

// The strategies, from the cheapest to the one that needs nothing.
const (
	// KeyedWalk reads contacts in the order of their `updated`, from the settled mark on. It needs a range and a sort that hold.
	KeyedWalk Strategy = iota
	// WindowRead reads everything in a range of `updated` and orders it itself. It needs a range that holds.
	WindowRead
	// CreatedWalk reads the whole account each time, in the order of `created`, which never changes. It needs a range and a sort of that.
	CreatedWalk
	// FullCompare reads the whole account each time, page by page.
	FullCompare
)

// String returns the strategy's name for people.
func (s Strategy) String() string {
	return [...]string{"keyed walk", "window read", "full compare by created", "full compare"}[s]
}

// readsAll tells whether each poll reads the whole account.
func (s Strategy) readsAll() bool { return s >= CreatedWalk }

// Findings are what is known of the way this account's API answers. The documents leave open whether `updated` can be sorted by and which spelling
// of a range is accepted, and parameters the API does not know are ignored without a word; so nothing is believed that is not verified by the answers.
type Findings struct {
	Strategy Strategy
	// Form is the spelling of the bounds of a range.
	Form nimble.DatetimeForm
	// Relative says that ranges are asked for as "in the last n seconds", because no spelling of bounds was accepted. They cannot be walked: they
	// have one bound, and only as exact as two clocks agree.
	Relative bool
}

// rungs is the ladder of what is tried, best first.
var rungs = []Findings{
	{Strategy: KeyedWalk, Form: nimble.DatetimeZ},
	{Strategy: KeyedWalk, Form: nimble.DatetimeBare},
	{Strategy: KeyedWalk, Form: nimble.DatetimeOffset},
	{Strategy: WindowRead, Form: nimble.DatetimeZ},
	{Strategy: WindowRead, Form: nimble.DatetimeBare},
	{Strategy: WindowRead, Form: nimble.DatetimeOffset},
	{Strategy: WindowRead, Relative: true},
	{Strategy: CreatedWalk, Form: nimble.DatetimeZ},
	{Strategy: CreatedWalk, Form: nimble.DatetimeBare},
	{Strategy: CreatedWalk, Form: nimble.DatetimeOffset},
	{Strategy: FullCompare},
}

// ladder holds the rung in use.
type ladder struct {
	rung int
	// since is when the rung was taken; a lower one is left again after a while, to see whether the API has come round.
	since time.Time
	// proven are the fields by which answers in both directions have shown the sort to be real.
	proven map[nimble.Field]bool
	// unsortedCreated and unrangedCreated say that `created` cannot be sorted by, or be asked for by range, although the rung in use does both with `updated`.
	unsortedCreated, unrangedCreated bool
}

// climbAfter is how long a lower rung is kept before the best is tried again.
const climbAfter = time.Hour

func (l *ladder) findings() Findings { return rungs[l.rung] }

func (l *ladder) take(rung int) {
	*l = ladder{rung: rung, since: time.Now()}
}

// stepDown takes the next rung that can do without what an answer has shown not to hold. It tells whether there is one.
func (l *ladder) stepDown(err error) bool {
	now := l.findings()
	next := func(fits func(Findings) bool) bool {
		i := slices.IndexFunc(rungs[l.rung+1:], fits)
		if i >= 0 {
			l.take(l.rung + 1 + i)
		}
		return i >= 0
	}
	if surprise, ok := errors.AsType[*SurpriseError](err); ok {
		if surprise.Ignored == "sort" {
			return next(func(f Findings) bool {
				return f.Strategy > now.Strategy && (f.Strategy == FullCompare || f.Form == now.Form && f.Relative == now.Relative || f.Strategy == CreatedWalk)
			})
		}
		return next(func(f Findings) bool { return f.Strategy > max(now.Strategy, WindowRead) })
	}
	if _, ok := errors.AsType[*nimble.ValidationError](err); ok {
		return next(func(Findings) bool { return true })
	}
	return false
}

// withoutCreated does without what an answer about `created` has shown not to hold, beside the polls, which need only `updated`. It tells whether there is a way.
func (l *ladder) withoutCreated(err error) bool {
	surprise, surprised := errors.AsType[*SurpriseError](err)
	_, refused := errors.AsType[*nimble.ValidationError](err)
	switch {
	case !surprised && !refused, l.unrangedCreated:
		return false
	case l.unsortedCreated, surprised && surprise.Ignored == "range":
		l.unrangedCreated = true
	}
	l.unsortedCreated = true
	if l.rung == 0 {
		l.since = time.Now()
	}
	return true
}

// lookAgain gives the better strategies another chance now and then.
func (l *ladder) lookAgain() {
	if (l.rung > 0 || l.unsortedCreated) && time.Since(l.since) >= climbAfter {
		l.take(0)
	}
}

// adapt steps down the ladder when the error is about the way the API answers, and says so. It tells whether trying again at once makes sense.
func (p *Poller) adapt(err error) bool {
	before := p.ladder.findings()
	if !p.ladder.stepDown(err) {
		return false
	}
	now := p.ladder.findings()
	level := zap.InfoLevel
	if now.Strategy != before.Strategy {
		level = zap.WarnLevel
	}
	p.log.Log(level, "the API does not answer as this strategy needs; going on with the next", zap.Stringer("strategy", before.Strategy), zap.Stringer("next", now.Strategy),
		zap.Stringer("form", now.Form), zap.Bool("relative", now.Relative), zap.Bool("reads_everything", now.Strategy.readsAll()), zap.Error(err))
	return true
}

// proveSort asks for a window in the other direction before a walk over several pages relies on its order: an answer that ignores the sort may look
// ordered by chance, but not both ways.
func (p *Poller) proveSort(ctx context.Context, w window, ascending *nimble.Page) error {
	if p.ladder.proven[w.field] {
		return nil
	}
	opts := p.listOptions(w, false, 1)
	opts.Sort = string(w.field) + ":desc"
	page, err := p.source.ContactsPage(ctx, opts)
	if err != nil {
		return err
	}
	p.pass.requests++
	p.calibrate(page.Contacts)
	slices.Reverse(page.Contacts)
	if err := p.verify(page, w, true); err != nil {
		return err
	}
	first, ok1 := lastTime(w, ascending.Contacts[:1])
	last, ok2 := lastTime(w, page.Contacts)
	if !ok1 || !ok2 || first.Equal(last) {
		// All at one time, as after an import: that says nothing about the order, and what is older may come on a later page.
		older, err := p.count(ctx, window{w.field, w.from, first.Add(-2 * time.Second)})
		if err == nil && older > 0 {
			err = &SurpriseError{"sort", "older contacts come after newer ones"}
		}
		return err
	}
	if last.Before(first) {
		return &SurpriseError{"sort", "the same order comes in both directions"}
	}
	if p.ladder.proven == nil {
		p.ladder.proven = make(map[nimble.Field]bool)
	}
	p.ladder.proven[w.field] = true
	return nil
}
