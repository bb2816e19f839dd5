package poller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"nimble-bridge/nimble"
)

// queue has the changes on their way to the ledger. While some are being appended, the poller's goroutine goes on examining, and the next page is fetched: what gathers meanwhile
// is appended in one step. A server that makes each step durable then costs one wait for many contacts, and a poll that finds a single change none more.
type queue struct {
	// waiting are the changes that are not being appended yet, at most Config.Batch, size the bytes of their contacts.
	waiting []Change
	size    int
	// under is what is being appended, the oldest first, at most maxUnder.
	under []*appending
	// queued has the contacts of both.
	queued map[string]queued
	// through is the time before which everything was examined: once all of them are stored, it is settled.
	through time.Time
	// spare is the room of changes that are stored, for the next ones.
	spare []Change
}

// maxUnder lets the ledger encode some changes while it waits for the acknowledgement of others.
const maxUnder = 2

// maxWaiting is how many bytes of contacts may wait, so that huge ones do not fill the memory.
const maxWaiting = 8 << 20

// queued is what will be known of a contact.
type queued struct {
	fingerprint Fingerprint
	updated     time.Time
}

// appending is one call of Ledger.Append.
type appending struct {
	changes []Change
	through time.Time
	// done is closed at the end of the call; then the rest is there.
	done      chan struct{}
	sequences []uint64
	err       error
}

func newQueue() queue { return queue{queued: make(map[string]queued)} }

// enqueue takes a change over. The ledger gets it now or when it is through with what it has; land tells what became of it.
func (p *Poller) enqueue(ctx context.Context, c Change) error {
	p.queue.waiting = append(p.queue.waiting, c)
	p.queue.queued[c.Contact.ID] = queued{c.Fingerprint, c.Contact.Updated}
	p.queue.size += len(c.Contact.Raw)
	if len(p.queue.waiting) < p.cfg.Batch && p.queue.size < maxWaiting {
		return nil
	}
	return p.launch(ctx)
}

// again tells whether a contact that was read is in the queue already, just as it is or in a later state.
func (p *Poller) again(c nimble.Contact, fingerprint Fingerprint) (same, other bool) {
	q, ok := p.queue.queued[c.ID]
	if !ok {
		return false, false
	}
	same = c.Updated.Before(q.updated) || c.Updated.Equal(q.updated) && fingerprint == q.fingerprint
	return same, !same
}

// advance notes that everything before a time was examined, zero for nothing, and keeps the ledger busy.
func (p *Poller) advance(ctx context.Context, through time.Time) error {
	q := &p.queue
	if !through.IsZero() {
		q.through = through
	}
	for len(q.under) > 0 && q.under[0].ended() {
		if err := p.landFirst(); err != nil {
			return err
		}
	}
	switch {
	case len(q.under) > 0: // What waits grows meanwhile.
	case len(q.waiting) > 0:
		if err := p.launch(ctx); err != nil {
			return err
		}
	default:
		p.settle(q.through)
	}
	p.saveProgress(ctx, false)
	return nil
}

func (a *appending) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// launch has the ledger append what waits. It is not begun after the end of ctx, and not interrupted by it.
func (p *Poller) launch(ctx context.Context) error {
	q := &p.queue
	for len(q.under) >= maxUnder {
		if err := p.landFirst(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a := &appending{changes: q.waiting, through: q.through, done: make(chan struct{})}
	q.waiting, q.spare, q.size = q.spare, nil, 0
	q.under = append(q.under, a)
	go func() {
		defer close(a.done)
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
		defer cancel()
		a.sequences, a.err = p.ledger.Append(finish, a.changes)
	}()
	return nil
}

// landFirst waits for the oldest of the changes that are being appended, and remembers them.
func (p *Poller) landFirst() error {
	q := &p.queue
	a := q.under[0]
	<-a.done
	q.under = slices.Delete(q.under, 0, 1)
	if a.err != nil {
		return &ledgerError{fmt.Sprintf("publishing %d changes", len(a.changes)), a.err}
	}
	p.remember(a.changes, a.sequences)
	p.settle(a.through)
	clear(a.changes)
	q.spare = a.changes[:0]
	return nil
}

// land waits until the ledger has nothing left to do, and remembers what it has stored.
func (p *Poller) land(ctx context.Context) error {
	q := &p.queue
	for len(q.under) > 0 {
		if err := p.landFirst(); err != nil {
			return err
		}
	}
	if len(q.waiting) == 0 {
		p.settle(q.through)
	}
	p.saveProgress(ctx, false)
	return nil
}

// publish has changes stored and remembered.
func (p *Poller) publish(ctx context.Context, changes []Change) error {
	for _, c := range changes {
		if err := p.enqueue(ctx, c); err != nil {
			return p.clear(ctx, err)
		}
	}
	return p.clear(ctx, nil)
}

// publishTimeout bounds one publication, and so how long the end of the process can be held up by a ledger that does not answer.
const publishTimeout = 20 * time.Second

// flush has everything stored that was enqueued.
func (p *Poller) flush(ctx context.Context) error {
	if len(p.queue.waiting) > 0 {
		if err := p.launch(ctx); err != nil {
			return err
		}
	}
	return p.land(ctx)
}

// clear empties the queue after the last change, or after an error for which no more will follow: what was examined is stored all the same, unless it is the ledger that
// failed.
func (p *Poller) clear(ctx context.Context, err error) error {
	if !isLedgerError(err) {
		failed := p.flush(ctx)
		if failed != nil && !isLedgerError(failed) { // Nothing more is begun; what is under way is remembered all the same.
			failed = cmp.Or(p.land(ctx), failed)
		}
		if err == nil || isLedgerError(failed) {
			err = failed
		}
	}
	for _, a := range p.queue.under {
		<-a.done
	}
	p.queue = newQueue()
	return err
}

// remember notes what the ledger has stored.
func (p *Poller) remember(changes []Change, sequences []uint64) {
	for i, c := range changes {
		p.table.put(Known{
			ID: c.Contact.ID, Fingerprint: c.Fingerprint, Revision: c.Revision, Sequence: sequences[i],
			Created: c.Contact.Created, Updated: c.Contact.Updated, Deleted: c.Kind == Deleted,
		})
		p.pass.published[c.Kind]++
		delete(p.queue.queued, c.Contact.ID)
	}
	p.recent.note(changes, time.Now())
	p.known(p.table)
	if p.cfg.Published != nil {
		p.cfg.Published(changes)
	}
	p.report()
}
