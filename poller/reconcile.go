package poller

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// reconciliation is one comparison of the whole account with what is known of it. It finds what polling cannot see: contacts that are gone, contacts that
// came into sight without having been edited, and edits that moved no `updated` or that the search index showed too late.
type reconciliation struct {
	began  time.Time
	method Method
	// axis has the known contacts by `created`, as they were at that number of moves.
	axis  *axis
	moves uint64
	// missing are known contacts that the listings do not show, extra those that they show and that are not known, with the range they were found in.
	missing map[string]struct{}
	extra   map[string]window
	// differing are the ranges of `created` in which something differed, swept is one that was listed, to see whether counts tell the same.
	differing []window
	swept     window
	// differences is how many events made good what differed.
	differences int
	// incomplete says that something could not be read completely, lagging that the listings show contacts that are gone.
	incomplete, lagging bool
	// unlocated is by how many contacts counts differ for no reason that could be found.
	unlocated int
}

// ReconcileResult describes one reconciliation.
type ReconcileResult struct {
	Duration time.Duration
	// Requests is what it cost.
	Requests int
	Method   Method
	// Differences is how many events made good what differed; Published has them by kind.
	Differences int
	Published   map[Kind]int
	// Held is how many deletions wait for a person.
	Held int
	// Unlocated is by how many contacts Nimble's counts differ from what is known for no reason that could be found.
	Unlocated int
	// Agreed says that the account and the ledger agree now.
	Agreed bool
	// Err is nil after a complete reconciliation.
	Err error
}

var (
	// errReloaded ends a reconciliation whose knowledge went out of date.
	errReloaded = errors.New("what is known was loaded again meanwhile")
	// errPaused ends one when a person pauses the poller.
	errPaused = errors.New("paused")
)

// sweepPeriod is the time in which the whole account is read and compared, slice by slice, beside the counting.
const sweepPeriod = 24 * time.Hour

// Reconcile compares the whole account with what is known now, and publishes what differs. [Poller.Run] does so by itself every [Config.ReconcileInterval] and whenever
// the account's total disagrees; call it directly to decide on the times yourself, after a first complete [Poller.Poll]. It takes at least [Config.ConfirmAfter] when
// contacts are missing. After an error, call it again: nothing is lost.
func (p *Poller) Reconcile(ctx context.Context) (ReconcileResult, error) {
	if p.table == nil || p.progress.SnapshotFinished.IsZero() {
		return ReconcileResult{}, errors.New("the account has to be read completely once before it can be reconciled")
	}
	outer := p.pass
	p.pass = pass{foundBy: FoundByReconcile, published: make(map[Kind]int)}
	defer func() { p.pass = outer }()
	p.reconcileAsked = false
	r := &reconciliation{began: time.Now()}
	agreed, err := p.reconcile(ctx, r)
	for err != nil && p.ladder.withoutCreated(err) {
		p.log.Info("the API does not answer as the reconciliation needs; going on without", zap.Bool("sort_by_created", false), zap.Bool("range_of_created", !p.ladder.unrangedCreated), zap.Error(err))
		agreed, err = p.reconcile(ctx, r)
	}
	if _, ok := errors.AsType[*ledgerError](err); ok {
		p.table = nil
	}
	if ctx.Err() != nil {
		return ReconcileResult{}, ctx.Err()
	}
	result := ReconcileResult{
		Duration: time.Since(r.began), Requests: p.pass.requests, Method: r.method, Differences: r.differences, Published: p.pass.published,
		Held: p.held(), Unlocated: r.unlocated, Agreed: agreed, Err: err,
	}
	p.reconciled(result)
	return result, err
}

// countable tells whether ranges of `created` can be asked for.
func (p *Poller) countable() bool {
	f := p.ladder.findings()
	return f.Strategy != FullCompare && !f.Relative && !p.ladder.unrangedCreated
}

// reconcile compares, publishes what differs, and makes sure that nothing does any more. It tells whether that is so.
func (p *Poller) reconcile(ctx context.Context, r *reconciliation) (agreed bool, err error) {
	*r = reconciliation{began: r.began, method: ByCount, differences: r.differences, missing: make(map[string]struct{}), extra: make(map[string]window)}
	if !p.countable() || p.distrust > 0 || p.ladder.findings().Strategy.readsAll() {
		r.method = ByList // Where each poll reads everything, once more is not much.
	}
	if r.method == ByCount {
		if err := p.compareCounts(ctx, r); err != nil {
			return false, err
		}
		if r.incomplete {
			p.log.Info("counts and listings of ids do not tell what differs; the whole account is listed")
			r.method, r.incomplete = ByList, false
		}
	}
	if r.method == ByList {
		if err := p.compareUnplaced(ctx, r); err != nil {
			return false, err
		}
		if err := p.compareEverything(ctx, r); err != nil {
			return false, err
		}
	} else {
		if err := p.sweep(ctx, r); err != nil {
			return false, err
		}
		if err := p.compareUpdated(ctx, r); err != nil {
			return false, err
		}
	}
	if err := p.publishDifferences(ctx, r); err != nil {
		return false, err
	}
	if err := p.verifyCounts(ctx, r); err != nil {
		return false, err
	}
	agreed = !r.incomplete && !r.lagging && r.unlocated == 0 && p.held() == 0
	return agreed, p.conclude(ctx, r, agreed)
}

// compareEverything lists the whole account, in parts where the API permits that.
func (p *Poller) compareEverything(ctx context.Context, r *reconciliation) error {
	if !p.countable() {
		return p.compareListing(ctx, r, window{})
	}
	ranges, err := p.ranges(ctx, r)
	if err != nil {
		return err
	}
	for _, w := range ranges {
		if err := p.compareListing(ctx, r, w); err != nil {
			return err
		}
	}
	return nil
}

// sweep reads a part of the account, the next one each time, and compares it completely: what changed without moving `updated` shows in no count.
func (p *Poller) sweep(ctx context.Context, r *reconciliation) error {
	a := p.axis(r)
	if len(a.at) == 0 {
		return nil
	}
	slice := max(p.cfg.PerPage, int(float64(len(a.at))*p.sweepShare(r)))
	from := later(p.progress.Swept, beginning)
	to, exact := forEver, true
	if end := a.from(from.Unix()) + slice; end < len(a.at) {
		if to, exact = a.cutNear(end, end-slice/2, len(a.at), p.bounds); !exact {
			to = fromSecond(second(a.at[end]) + 1)
		}
	}
	w := window{nimble.Created, from, to}
	if err := p.compareListing(ctx, r, w); err != nil {
		return err
	}
	if exact {
		r.swept = w
	}
	p.progress.Swept = time.Time{}
	if to.Before(forEver) {
		p.progress.Swept = to
	}
	return nil
}

// sweepShare is the part of the account that is due, given when the last part was read.
func (p *Poller) sweepShare(r *reconciliation) float64 {
	since := p.cfg.ReconcileInterval
	if !p.sweptAt.IsZero() {
		since = min(r.began.Sub(p.sweptAt), 4*p.cfg.ReconcileInterval)
	}
	p.sweptAt = r.began
	return since.Hours() / sweepPeriod.Hours()
}

// compareListing reads the contacts in a range of `created`, or all of them for the zero window, publishes what changed in them and notes which are missing.
func (p *Poller) compareListing(ctx context.Context, r *reconciliation, w window) error {
	seen := make(map[string]struct{})
	before := len(r.missing) + r.differences
	emit := func(rows []nimble.Contact, _ time.Time) error {
		for _, c := range rows {
			seen[c.ID] = struct{}{}
		}
		for _, m := range p.pass.malformed {
			seen[m.ID] = struct{}{}
		}
		return p.takeFound(ctx, r, rows)
	}
	err := p.readCreated(ctx, w, emit)
	if errors.Is(err, errUnsteady) {
		err = nil // Everything that was seen is handled; what was skipped is asked for by id.
	}
	if err != nil {
		return err
	}
	a := p.axis(r)
	known := a.ids
	if !w.to.IsZero() {
		known = a.within(w.from, w.to)
	}
	for _, o := range known {
		if _, ok := seen[o.String()]; !ok {
			r.missing[o.String()] = struct{}{}
		}
	}
	if len(r.missing)+r.differences > before && !w.to.IsZero() {
		r.differing = append(r.differing, w)
	}
	return nil
}

// readCreated hands over every contact in a range of `created`, and a little more at either end.
func (p *Poller) readCreated(ctx context.Context, w window, emit emitFunc) error {
	if w.to.IsZero() {
		return p.readAll(ctx, emit)
	}
	if w.to.Before(forEver) {
		w.to = w.to.Add(2 * time.Second)
	}
	if p.ladder.findings().Strategy == WindowRead || p.ladder.unsortedCreated {
		return p.readWindows(ctx, w, emit)
	}
	return p.walk(ctx, w, emit)
}

// publishDifferences fetches what is not known, and confirms and publishes what is gone.
func (p *Poller) publishDifferences(ctx context.Context, r *reconciliation) error {
	extra := slices.Sorted(maps.Keys(r.extra))
	unreadable := len(p.unreadable)
	gone, err := p.absentByID(ctx, r, extra)
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		r.lagging = true
	}
	if len(p.unreadable) > unreadable {
		for id, w := range r.extra { // Where its creation cannot be read, the range it was found in says where it lies.
			if at, ok := p.unreadable[id]; ok && w.to.Before(forEver) && (at.Before(w.from) || at.After(w.to)) {
				p.unreadable[id] = w.from.Add(w.to.Sub(w.from) / 2)
			}
		}
	}
	clear(r.extra)
	err = p.confirmDeletions(ctx, r)
	clear(r.missing)
	return err
}

// verifyCounts counts again where something differed. What still differs is listed once; what differs even then is reported, and counts are not relied
// on for a while.
func (p *Poller) verifyCounts(ctx context.Context, r *reconciliation) error {
	if r.method == ByList && !p.countable() {
		return nil
	}
	if err := p.probeCounts(ctx, r); err != nil {
		return err
	}
	ranges := r.differing
	if r.method == ByList { // All of it was listed: are the counts to be trusted?
		var err error
		if ranges, err = p.ranges(ctx, r); err != nil {
			return err
		}
	}
	disagree, err := p.disagreeing(ctx, r, ranges)
	if err != nil || len(disagree) == 0 {
		if r.method == ByList && p.distrust > 0 && err == nil {
			if p.distrust--; p.distrust == 0 {
				p.log.Info("Nimble's counts agree with its listings again; they are relied on")
			}
		}
		return err
	}
	if r.method == ByCount {
		for _, w := range disagree {
			if err := p.compareListing(ctx, r, w); err != nil {
				return err
			}
		}
		if err := p.publishDifferences(ctx, r); err != nil {
			return err
		}
		if disagree, err = p.disagreeing(ctx, r, disagree); err != nil {
			return err
		}
	}
	if len(disagree) == 0 || r.lagging {
		return nil
	}
	p.distrustCounts(disagree[0])
	if r.method == ByCount {
		for _, w := range disagree {
			n, err := p.count(ctx, w)
			if err != nil {
				return err
			}
			r.unlocated += max(n-p.expected(r, w), p.expected(r, w)-n)
		}
	}
	return nil
}

// probeCounts asks twice for the count of a range that was listed: a count that is approximate, or that leaves out or adds something, would hide what is gone.
func (p *Poller) probeCounts(ctx context.Context, r *reconciliation) error {
	if r.swept.to.IsZero() || r.lagging {
		return nil
	}
	for range 2 { // The account may change in between.
		one, err := p.count(ctx, r.swept)
		if err != nil {
			return err
		}
		two, err := p.count(ctx, r.swept)
		if err != nil {
			return err
		}
		if one == two && two == p.expected(r, r.swept) {
			return nil
		}
	}
	p.distrustCounts(r.swept)
	r.incomplete = true
	return nil
}

func (p *Poller) distrustCounts(w window) {
	if p.distrust == 0 {
		p.log.Warn("Nimble's counts do not agree with its listings; the whole account is listed at each reconciliation until they do", zap.Stringer("range", w))
	}
	p.distrust = distrustFor
}

// distrustFor is how many reconciliations by listing have to find the counts right before they are relied on again.
const distrustFor = 3

// disagreeing returns the ranges in which the API counts other contacts than are known, twice: the account may change in between.
func (p *Poller) disagreeing(ctx context.Context, r *reconciliation, ranges []window) ([]window, error) {
	var disagree []window
	for i, w := range ranges {
		if slices.Contains(ranges[:i], w) {
			continue
		}
		for range 2 {
			n, err := p.count(ctx, w)
			if err != nil {
				return nil, err
			}
			if n == p.expected(r, w) {
				w.to = time.Time{}
				break
			}
		}
		if !w.to.IsZero() {
			disagree = append(disagree, w)
		}
	}
	return disagree, nil
}

// conclude stores the receipt and remembers the outcome.
func (p *Poller) conclude(ctx context.Context, r *reconciliation, agreed bool) error {
	if p.countable() || r.method == ByList {
		if total, err := p.total(ctx); err == nil { // What the total is compared with from now on.
			p.drift.settle(total, r.differences > 0, p.cfg)
		}
	}
	if !agreed {
		p.saveProgress(ctx, p.progress.Held != p.saved.Held || p.progress.Confirmed != p.saved.Confirmed)
		return nil
	}
	receipt := Receipt{
		At: time.Now().UTC(), Contacts: p.table.present, Differences: r.differences, Requests: p.pass.requests, Method: r.method, Since: p.progress.Agreed,
	}
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	if err := p.ledger.Receipt(finish, receipt); err != nil {
		return &ledgerError{"publishing the receipt of a reconciliation", err}
	}
	p.progress.Agreed = later(p.pass.began, p.progress.Agreed)
	p.saveProgress(ctx, true)
	return nil
}

// reconciled brings the status up to date after a reconciliation, and decides when the next one is due.
func (p *Poller) reconciled(result ReconcileResult) {
	now := time.Now()
	p.reconcileAt = now.Add(p.cfg.ReconcileInterval)
	if result.Err != nil && !errors.Is(result.Err, errPaused) {
		p.reconcileAt = now.Add(min(p.cfg.ReconcileInterval, max(3*p.cfg.Interval, 30*time.Second)))
	}
	p.mu.Lock()
	heldBefore := p.status.Reconciliation.Held
	if result.Err == nil {
		p.status.LastReconcile = now
	}
	if result.Agreed {
		p.status.LastAgreed = now
	}
	p.status.Reconciliation, p.status.Held, p.status.HeldSince = result, p.held(), p.progress.HeldSince
	for kind, n := range result.Published {
		p.status.Published[kind] += n
	}
	p.mu.Unlock()
	p.report()
	facts := []zap.Field{
		zap.Bool("agreed", result.Agreed), zap.String("method", string(result.Method)), zap.Int("differences", result.Differences), zap.Int("deleted", result.Published[Deleted]),
		zap.Int("held", result.Held), zap.Int("requests", result.Requests), zap.Duration("duration", result.Duration),
	}
	switch {
	case errors.Is(result.Err, errReloaded), errors.Is(result.Err, errPaused):
		p.log.Info("reconciliation interrupted", append(facts, zap.Error(result.Err))...)
	case result.Err != nil:
		p.log.Warn("reconciliation failed; it is tried again", append(facts, zap.Error(result.Err))...)
	case result.Unlocated > 0:
		p.log.Warn("reconciliation: Nimble counts other contacts than it lists, and nothing tells which", append(facts, zap.Int("unlocated", result.Unlocated))...)
	case result.Differences > 0 || result.Held != heldBefore:
		p.log.Info("reconciliation", facts...)
	default:
		p.log.Debug("reconciliation", facts...)
	}
	if p.cfg.Reconciled != nil {
		p.cfg.Reconciled(result)
	}
}

// total asks for the number of contacts in the whole account.
func (p *Poller) total(ctx context.Context) (difference int, err error) {
	n, err := p.count(ctx, window{})
	if err != nil {
		return 0, err
	}
	return n - (p.table.present - len(p.absent)), nil
}

// drift watches by how much the account's total, as the API has it, differs from what is known. A difference that was there before a reconciliation
// found nothing, and is still there after it, means nothing new: totals may be capped, or include what is never listed.
type drift struct {
	base int
	// last is the difference that was noted last.
	last int
	// above is how often in a row the total was too large: a contact that is being created is counted before it is read.
	above int
	// pause is how long to leave a total alone that cried wolf, notBefore until when.
	pause     time.Duration
	notBefore time.Time
}

// totalPatience is how many polls may pass before a total that is too large counts.
const totalPatience = 3

// note takes the difference that a poll has found, and tells whether it calls for a reconciliation.
func (d *drift) note(difference int) bool {
	d.last = difference
	if difference == 0 {
		d.pause = 0
	}
	if difference <= d.base {
		d.above = 0
		return difference < d.base && !time.Now().Before(d.notBefore)
	}
	d.above++
	return d.above >= totalPatience && !time.Now().Before(d.notBefore)
}

// settle takes the difference that is left after a reconciliation, which has found something or not.
func (d *drift) settle(difference int, found bool, cfg Config) {
	d.above = 0
	switch {
	case found || difference == 0:
		d.base, d.pause, d.notBefore = 0, 0, time.Time{}
	case d.last != 0:
		d.pause = min(max(2*d.pause, cfg.Interval), max(cfg.ReconcileInterval, cfg.Interval))
		d.notBefore = time.Now().Add(d.pause)
		if difference == d.last {
			d.base = difference
		}
	}
}

// countEvery is how often the account's total is asked for by a bridge that polls more often than that: its requests are better spent on finding changes.
const countEvery = 500 * time.Millisecond

// watchTotal holds the account's total against what is known, after a complete poll.
func (p *Poller) watchTotal(ctx context.Context) {
	if p.cfg.ReconcileInterval < 0 || p.progress.SnapshotFinished.IsZero() {
		return
	}
	if p.pace != nil && p.cfg.Interval < countEvery {
		if time.Since(p.pace.counted) < countEvery {
			return
		}
		p.pace.counted = time.Now()
	}
	difference, err := p.total(ctx)
	if err != nil {
		p.log.Debug("the account's total was not counted", zap.Error(err))
		return
	}
	if p.drift.note(difference) {
		p.log.Debug("the account's total differs; reconciling", zap.Int("difference", difference))
		p.reconcileAt = time.Time{}
	}
}
