package poller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// Source is the account that is read. [nimble.Client] is one.
type Source interface {
	// ContactsPage returns one page of contacts.
	ContactsPage(ctx context.Context, opts nimble.ListOptions) (*nimble.Page, error)
	// Count returns how many contacts match.
	Count(ctx context.Context, q nimble.Query) (nimble.Count, error)
	// ContactIDsPage returns one page of ids.
	ContactIDsPage(ctx context.Context, opts nimble.ListOptions) (*nimble.IDPage, error)
	// ContactsByID returns those of the contacts that there are to see; records that cannot be understood make the error join a [*nimble.RecordError] each.
	ContactsByID(ctx context.Context, ids ...string) ([]nimble.Contact, error)
	// ContactByID returns one contact as it is now; the error wraps [nimble.ErrNotFound] or [nimble.ErrForbidden] if there is none to see.
	ContactByID(ctx context.Context, id string) (nimble.Contact, error)
}

// Config is how a [Poller] works. The zero value of each field stands for its default.
type Config struct {
	// Interval is the time from the beginning of one poll to the beginning of the next. Defaults to 10 seconds.
	Interval time.Duration
	// Overlap is how long after a contact's `updated` a poll still looks for it, for search indexes that lag. Negative means none.
	// Defaults to 2 minutes.
	Overlap time.Duration
	// PerPage is the number of contacts a request asks for, at most 100: beyond that the API does not sort. Defaults to 100.
	PerPage int
	// Batch is the number of changes published in one step, at most. Defaults to 500.
	Batch int
	// ReconcileInterval is the time between comparisons of the whole account with what is known, which find deletions and what polling missed. The account's total, asked for with
	// each poll, starts one at once when it disagrees. Negative turns both off. Defaults to 15 minutes.
	ReconcileInterval time.Duration
	// ConfirmAfter is the time between the two requests by id that have to show that a contact is gone. Defaults to half of Interval, from 1 to 30 seconds.
	ConfirmAfter time.Duration
	// DeleteLimit is how many deletions are published from one reconciliation without a person. Defaults to 20 or 5 %.
	DeleteLimit *DeleteLimit
	// Log receives what an operator wants to read. Defaults to none.
	Log *zap.Logger
	// Known, if set, is called with the number of contacts that are known: now and then while they are loaded, and when changes were stored.
	Known func(contacts int)
	// Published, if set, is called after changes were stored. The slice is the poller's again when it returns.
	Published func([]Change)
	// Polled, if set, is called after each poll, with its error if it had one.
	Polled func(PollResult)
	// Reconciled, if set, is called after each reconciliation, with its error if it had one.
	Reconciled func(ReconcileResult)
}

func (c Config) withDefaults() (Config, error) {
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	switch {
	case c.Overlap == 0:
		c.Overlap = 2 * time.Minute
	case c.Overlap < 0:
		c.Overlap = 0
	}
	if c.PerPage == 0 {
		c.PerPage = 100
	}
	if c.Batch == 0 {
		c.Batch = 500
	}
	if c.ReconcileInterval == 0 {
		c.ReconcileInterval = 15 * time.Minute
	}
	if c.ConfirmAfter == 0 {
		c.ConfirmAfter = min(max(c.Interval/2, time.Second), 30*time.Second)
	}
	if c.DeleteLimit == nil {
		c.DeleteLimit = &DeleteLimit{Count: 20, Share: 0.05}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	switch {
	case c.Interval < 0:
		return c, fmt.Errorf("poller: interval %s is negative", c.Interval)
	case c.PerPage < 1 || c.PerPage > 100:
		return c, fmt.Errorf("poller: %d contacts a page: 1 to 100 are possible", c.PerPage)
	case c.Batch < 1:
		return c, fmt.Errorf("poller: batches of %d changes: 1 at least", c.Batch)
	case c.ConfirmAfter < 0:
		return c, fmt.Errorf("poller: confirmation after %s", c.ConfirmAfter)
	case c.DeleteLimit.Count < 0 || !(c.DeleteLimit.Share >= 0 && c.DeleteLimit.Share <= 1):
		return c, fmt.Errorf("poller: at most %d deletions or a share of %v: a count of 0 or more and a share of 0 to 1 are possible", c.DeleteLimit.Count, c.DeleteLimit.Share)
	}
	return c, nil
}

// PollResult describes one poll.
type PollResult struct {
	// Duration is the time it took.
	Duration time.Duration
	// Requests is the number of listings and counts asked for; repeated attempts of one request are not counted.
	Requests int
	// Examined is the number of contacts compared with what is known.
	Examined int
	// Published is the number of events stored, by kind.
	Published map[Kind]int
	// Err is nil after a complete poll.
	Err error
}

// Poller reads an account again and again and appends each change to the ledger. Create it with [New]; one goroutine calls [Poller.Run].
type Poller struct {
	source Source
	ledger Ledger
	cfg    Config
	log    *zap.Logger

	// What follows belongs to Run's goroutine.
	table    *table // nil until loaded, and again when it may be out of date
	progress Progress
	saved    Progress
	savedAt  time.Time
	ladder   ladder
	zone     zone
	pass     pass
	skewed   bool
	before   *reader
	after    *reader
	unknown  map[string]*int // How often each key that does not count was read.
	hashed   []byte
	failures int
	queue    queue

	// pace is set while Run runs; polling while a poll is under way, which nothing interrupts.
	pace    *pace
	polling bool

	// absent are the known contacts that the listings do not show, unreadable the records that they show and nobody can read, with about when those were created.
	absent     map[string]absence
	unreadable map[string]time.Time
	bounds     bounds
	maxCounted int
	listBelow  int
	drift      drift
	recent     *recent
	// reconcileAt is when the next reconciliation is due; reconcileAsked says that a person wants one now.
	reconcileAt    time.Time
	reconcileAsked bool
	resyncAt       time.Time
	sweptAt        time.Time
	// distrust is how many reconciliations by listing the counts have to agree with before they are relied on.
	distrust int

	orders chan order

	mu     sync.Mutex
	status Status
	// running is closed when Run ends; nil while it does not run.
	running chan struct{}
}

// pass is what one poll gathers.
type pass struct {
	began     time.Time // On Nimble's clock; zero before the first answer.
	foundBy   FoundBy
	requests  int
	examined  int
	published map[Kind]int
	malformed []nimble.Malformed
}

// New returns a poller that reads from source and appends to ledger. It does nothing until [Poller.Run].
func New(source Source, ledger Ledger, cfg Config) (*Poller, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Poller{
		source: source, ledger: ledger, cfg: cfg, log: cfg.Log, status: Status{State: Starting, Published: make(map[Kind]int)},
		absent: make(map[string]absence), unreadable: make(map[string]time.Time), unknown: make(map[string]*int), recent: newRecent(), queue: newQueue(), orders: make(chan order), maxCounted: maxCounted, listBelow: listBelow,
	}
	p.before, p.after = newReader(nil), newReader(p.countUnknown)
	return p, nil
}

// countUnknown counts a key that does not count as content, and says so the first time: new keys appear in an API without notice.
func (p *Poller) countUnknown(key []byte) {
	if n, ok := p.unknown[string(key)]; ok {
		*n++
		return
	}
	if len(p.unknown) == maxUnknownKeys {
		return
	}
	first := 1
	p.unknown[string(key)] = &first
	p.log.Info("contacts carry a key that is in no document of the API; it does not count as content", zap.String("key", string(key)))
}

// maxUnknownKeys bounds the memory for keys that somebody makes up. No API has so many.
const maxUnknownKeys = 100

// logFailure says that a poll failed: when it begins, and then ever more seldom.
func (p *Poller) logFailure(err error, wait time.Duration) {
	failures := p.failures
	level := zap.DebugLevel
	if failures&(failures-1) == 0 { // 1, 2, 4, 8 …
		level = zap.WarnLevel
		if _, ok := errors.AsType[*nimble.CredentialsError](err); ok {
			level = zap.ErrorLevel
		}
	}
	p.log.Log(level, "poll failed", zap.Error(err), zap.Int("failures", failures), zap.Duration("retry_in", wait))
}

// Poll polls once, after loading what is known if that was not done yet or may be out of date. [Poller.Run] calls it again and again; call it
// directly to decide on the times yourself. After an error, call it again: nothing is lost.
func (p *Poller) Poll(ctx context.Context) error {
	began := time.Now()
	p.pass = pass{published: make(map[Kind]int)}
	p.polling = true
	defer func() { p.polling = false }()
	err := p.cycle(ctx)
	if errors.Is(err, errPaused) {
		return err
	}
	if ctx.Err() == nil {
		p.finish(time.Since(began), err)
	}
	return err
}

func (p *Poller) cycle(ctx context.Context) error {
	if p.table == nil {
		if err := p.load(ctx); err != nil {
			return err
		}
		if p.pace != nil && p.progress.Paused {
			return errPaused // Already before this process, as turns out now.
		}
	}
	p.ladder.lookAgain()
	err := p.poll(ctx)
	for err != nil && p.adapt(err) {
		err = p.poll(ctx)
	}
	if err == nil {
		p.watchTotal(ctx)
	}
	if isLedgerError(err) {
		p.table = nil // It may have been stored in part, or somebody else may write: what is known is loaded again.
	}
	return err
}

// load reads what is known from the ledger.
func (p *Poller) load(ctx context.Context) error {
	progress, err := p.ledger.Progress(ctx)
	if err != nil {
		return &ledgerError{"reading the progress", err}
	}
	began := time.Now()
	t := newTable(progress.Settled)
	told := 0
	if err := p.ledger.Load(ctx, func(k Known) {
		t.put(k)
		if told++; told%knownEvery == 0 {
			p.known(t)
		}
	}); err != nil {
		return &ledgerError{"loading the known contacts", err}
	}
	p.known(t)
	p.table, p.progress, p.saved = t, progress, progress
	clear(p.absent)
	p.drift = drift{}
	if progress.Held > 0 { // Which ones is found again, by the same means.
		p.reconcileAsked = true
	} else if due := progress.Agreed.Add(p.cfg.ReconcileInterval); !progress.Agreed.IsZero() && due.Before(p.reconcileAt) {
		p.reconcileAt = due
	}
	facts := []zap.Field{zap.Int("contacts", t.present), zap.Duration("duration", time.Since(began))}
	if !progress.Settled.IsZero() {
		facts = append(facts, zap.Time("settled", progress.Settled))
	}
	level := zap.InfoLevel
	if p.failures > 0 {
		level = zap.DebugLevel // It is loaded again after each failure, of which the log tells more seldom.
	}
	p.log.Log(level, "known contacts loaded", facts...)
	p.report()
	return nil
}

// poll reads what may have changed, publishes what did, and settles what cannot change unseen any more.
func (p *Poller) poll(ctx context.Context) error {
	if err := p.clear(ctx, p.readChanges(ctx)); err != nil {
		return err
	}
	p.settle(p.pass.began)
	if p.progress.SnapshotFinished.IsZero() {
		p.progress.SnapshotFinished = toSecond(time.Now())
		p.log.Info("snapshot finished", zap.Int("contacts", p.table.present))
		p.saveProgress(ctx, true)
	}
	p.saveProgress(ctx, false)
	return nil
}

// knownEvery is after how many loaded contacts Config.Known is told.
const knownEvery = 10_000

func (p *Poller) known(t *table) {
	if p.cfg.Known != nil {
		p.cfg.Known(t.present)
	}
}

// readChanges reads what may have changed, and enqueues what did.
//
// Everything from the settled mark on is read, usually in one request. When much lies there, after an import say, reading it
// all at each poll would be waste: then what is newer than all that is known is read, the part that is about to be settled is read a last time, and the rest is
// read only if Nimble counts more or fewer contacts in it than are known.
func (p *Poller) readChanges(ctx context.Context) error {
	p.pass.foundBy = FoundByPoll
	if p.progress.SnapshotFinished.IsZero() {
		p.pass.foundBy = FoundBySnapshot
	}
	settled := later(p.table.settled, beginning)
	emit := func(rows []nimble.Contact, through time.Time) error {
		if err := p.meet(ctx); err != nil {
			return err
		}
		if err := p.examineAll(ctx, rows); err != nil {
			return err
		}
		if err := p.reject(ctx); err != nil {
			return err
		}
		return p.advance(ctx, through)
	}
	handOver := func(rows []nimble.Contact, _ time.Time) error { return emit(rows, time.Time{}) }

	if times := p.table.unsettledTimes(); p.progress.SnapshotFinished.IsZero() || p.ladder.findings().Strategy.readsAll() || len(times) <= p.cfg.PerPage {
		if err := p.read(ctx, settled, forEver, emit); err != nil {
			return err
		}
	} else {
		if err := p.read(ctx, p.newer(times), forEver, handOver); err != nil {
			return err
		}
		due := p.pass.began.Add(-p.cfg.Overlap)
		if due.After(settled) {
			if err := p.read(ctx, settled, due, emit); err != nil {
				return err
			}
		} else {
			due = settled
		}
		if err := p.flush(ctx); err != nil { // What is counted has to be known.
			return err
		}
		agree, from, err := p.countAgrees(ctx, due)
		if err != nil {
			return err
		}
		if !agree {
			if err := p.read(ctx, from, forEver, handOver); err != nil {
				return err
			}
		}
	}
	return nil
}

// countAgrees asks whether Nimble counts as many contacts from a moment on as are known there. The moment lies in a gap between the known times at or before from,
// because nobody knows whether the API's bounds are inclusive.
func (p *Poller) countAgrees(ctx context.Context, from time.Time) (agree bool, at time.Time, err error) {
	const margin = 2 * time.Second
	times := p.table.unsettledTimes()
	i, _ := slices.BinarySearchFunc(times, from, time.Time.Compare)
	for ; ; i-- {
		at = from
		if i < len(times) {
			at = earlier(at, times[i].Add(-margin))
		}
		if i == 0 || at.Sub(times[i-1]) >= margin {
			break
		}
	}
	count, err := p.count(ctx, window{nimble.Updated, at, forEver})
	return count == len(times)-i, at, err
}

// meet notes the moment of the first meeting, before anything is published that depends on it.
func (p *Poller) meet(ctx context.Context) error {
	if !p.progress.FirstMet.IsZero() {
		return nil
	}
	p.progress.FirstMet = p.pass.began
	if p.skewed { // The newest contact's time is no moment of meeting; the local clock is the best there is.
		p.progress.FirstMet = toSecond(time.Now())
	}
	p.log.Info("account met for the first time; publishing its contacts as a snapshot", zap.Time("first_met", p.progress.FirstMet))
	return p.save(ctx)
}

// settle moves the settled mark to a time before which everything was read and published, but never closer to Nimble's present than the overlap.
func (p *Poller) settle(through time.Time) {
	mark := earlier(through, p.pass.began.Add(-p.cfg.Overlap))
	if through.IsZero() || !mark.After(p.table.settled) {
		return
	}
	p.table.settle(mark)
	p.progress.Settled = mark
	p.report()
}

// saveEvery is how far the settled mark may run ahead of the saved one, which a restart has to read again.
const saveEvery = time.Minute

// saveProgress saves the progress when it is worth it, or when told to. Failing costs a restart some reading, and no more: it is logged.
func (p *Poller) saveProgress(ctx context.Context, now bool) {
	if p.table == nil || p.progress == p.saved {
		return
	}
	if !now && (p.progress.Settled.Sub(p.saved.Settled) < saveEvery || time.Since(p.savedAt) < time.Second) {
		return
	}
	if err := p.save(ctx); err != nil {
		p.log.Warn("progress not saved; a restart will read again from the last saved mark", zap.Error(err), zap.Time("saved", p.saved.Settled))
	}
}

func (p *Poller) save(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if err := p.ledger.SaveProgress(ctx, p.progress); err != nil {
		return &ledgerError{"saving the progress", err}
	}
	p.saved, p.savedAt = p.progress, time.Now()
	return nil
}

const saveTimeout = 5 * time.Second

// newer returns the moment from which contacts are newer than the sorted known times: the latest of them, as far as it is not in the future, since a
// record dated there must not hide what comes before it. When that moment is the middle of an import, it is passed over: a contact of the import
// that is edited in the very same second is then seen when the second is settled, and any other is missing from the count.
func (p *Poller) newer(times []time.Time) time.Time {
	i, _ := slices.BinarySearchFunc(times, time.Now().Add(maxSkew), time.Time.Compare)
	newest := times[max(i-1, 0)]
	first, _ := slices.BinarySearchFunc(times, toSecond(newest).Add(-time.Second), time.Time.Compare)
	if i-first > p.cfg.PerPage {
		return toSecond(newest).Add(2 * time.Second)
	}
	return newest
}
