package poller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// DeleteLimit is how many deletions one reconciliation may publish without being told so by a person: the larger of a count and a share of
// the known contacts.
type DeleteLimit struct {
	Count int
	// Share is between 0 and 1.
	Share float64
}

// absence is what is known of a contact that is known and not listed.
type absence struct {
	// held says that the API does not give it by id either, and that its deletion waits for a person. Otherwise the contact exists, and only the
	// listings do not show it.
	held bool
}

// held is the number of deletions that wait for a person.
func (p *Poller) held() int {
	n := 0
	for _, a := range p.absent {
		if a.held {
			n++
		}
	}
	return n
}

// returned notes that a contact is listed again.
func (p *Poller) returned(id string) {
	if p.absent[id].held {
		p.log.Info("a contact whose deletion was held back is there again", zap.String("contact_id", id))
	}
	delete(p.absent, id)
	p.noteHeld()
}

// mayDelete is the one decision on whether deletions are published without asking: not more than the limit, and never those that leave an account empty or half
// of what it was, unless a person has confirmed as many. An API that suddenly shows half an account must not erase it downstream.
func (p *Poller) mayDelete(n int) bool {
	const (
		confirmationHolds = 24 * time.Hour
		fewEnoughForEmpty = 2 // Of an account this small, each contact may be the last one.
		fewEnoughForHalf  = 4
	)
	known, limit := p.table.present, p.cfg.DeleteLimit
	switch {
	case n <= p.progress.Confirmed && time.Since(p.progress.ConfirmedAt) < confirmationHolds:
		return true
	case n > max(limit.Count, int(limit.Share*float64(known))):
		return false
	case n >= known && known > fewEnoughForEmpty:
		return false
	case 2*n >= known && n > fewEnoughForHalf && limit.Share < 0.5:
		return false
	}
	return true
}

// confirmDeletions asks for the missing contacts by id, twice with time between, and publishes the deletion of those that are gone, or holds all of
// them back.
func (p *Poller) confirmDeletions(ctx context.Context, r *reconciliation) error {
	var suspects, gone []string
	sequences := make(map[string]uint64)
	suspect := func(id string) {
		k, ok := p.table.get(id)
		if !ok || k.Deleted || sequences[id] > 0 {
			return
		}
		sequences[id] = k.Sequence
		if p.absent[id].held { // Asked for already.
			gone = append(gone, id)
		} else {
			suspects = append(suspects, id)
		}
	}
	for id := range p.absent { // Also those that only the listings do not show: no count tells when they go.
		suspect(id)
	}
	for id := range r.missing {
		suspect(id)
	}
	slices.Sort(suspects)
	first, err := p.absentByID(ctx, r, suspects)
	if err != nil {
		return err
	}
	p.split(suspects, first)
	gone = append(gone, first...)
	slices.Sort(gone)
	if len(gone) == 0 || !p.mayDelete(len(gone)) {
		p.hold(gone)
		return nil
	}
	if err := p.rest(ctx, p.cfg.ConfirmAfter); err != nil {
		return err
	}
	reasons, err := p.reasons(ctx, r, gone)
	if err != nil {
		return err
	}
	changes := make([]Change, 0, min(len(gone), p.cfg.Batch))
	for _, id := range gone {
		known, ok := p.table.get(id)
		reason := reasons[id]
		if !ok || known.Deleted || known.Sequence != sequences[id] || reason == "" {
			delete(p.absent, id)
			continue // Somebody has seen it since.
		}
		change, err := p.deletion(ctx, known, reason)
		if err != nil {
			return err
		}
		if changes = append(changes, change); len(changes) == p.cfg.Batch {
			if err := p.publishDeletions(ctx, r, changes); err != nil {
				return err
			}
			changes = changes[:0]
		}
	}
	if err := p.publishDeletions(ctx, r, changes); err != nil {
		return err
	}
	p.progress.Confirmed, p.progress.ConfirmedAt = 0, time.Time{}
	p.noteHeld()
	return nil
}

func (p *Poller) publishDeletions(ctx context.Context, r *reconciliation, changes []Change) error {
	if err := p.publish(ctx, changes); err != nil {
		return err
	}
	for _, c := range changes {
		delete(p.absent, c.Contact.ID)
	}
	r.differences += len(changes)
	return nil
}

// split notes which of the suspects exist although no listing shows them.
func (p *Poller) split(suspects, gone []string) {
	for _, id := range suspects {
		if _, missing := slices.BinarySearch(gone, id); missing {
			continue
		}
		if k, ok := p.table.get(id); ok && !k.Deleted {
			p.absent[id] = absence{}
		}
	}
}

// hold keeps deletions back until a person confirms them or the contacts are there again.
func (p *Poller) hold(gone []string) {
	before := p.held()
	for _, id := range gone {
		p.absent[id] = absence{held: true}
	}
	if len(gone) > before {
		p.log.Error("more contacts are gone than may be deleted without a person; their deletions are held back, all else goes on: look at Nimble and at what the key's user may see, then release them with `nimble-bridge confirm-deletions`",
			zap.Int("held", len(gone)), zap.Int("contacts", p.table.present), zap.Int("limit_count", p.cfg.DeleteLimit.Count), zap.Float64("limit_share", p.cfg.DeleteLimit.Share))
	}
	p.noteHeld()
}

// noteHeld keeps the number of held deletions where a restart and the status find it.
func (p *Poller) noteHeld() {
	n := p.held()
	switch {
	case n == 0:
		p.progress.HeldSince = time.Time{}
	case p.progress.HeldSince.IsZero():
		p.progress.HeldSince = toSecond(time.Now())
	}
	p.progress.Held = n
	p.report()
}

// reasons asks for contacts by id once more, and returns why each of them that is still missing is: a few one by one, since only then the API may tell one reason from the
// other, many together.
func (p *Poller) reasons(ctx context.Context, r *reconciliation, ids []string) (map[string]Reason, error) {
	reasons := make(map[string]Reason, len(ids))
	if len(ids) > maxIDs {
		gone, err := p.absentByID(ctx, r, ids)
		for _, id := range gone {
			reasons[id] = NotFound
		}
		return reasons, err
	}
	for _, id := range ids {
		if err := p.breathe(ctx); err != nil {
			return nil, err
		}
		c, err := p.source.ContactByID(ctx, id)
		p.pass.requests++
		switch {
		case errors.Is(err, nimble.ErrNotFound):
			reasons[id] = NotFound
		case errors.Is(err, nimble.ErrForbidden):
			reasons[id] = Forbidden
		case err == nil:
			if err := p.takeFound(ctx, r, []nimble.Contact{p.calibrated(c)}); err != nil {
				return nil, err
			}
		default:
			if _, malformed := recordErrors(err); !malformed { // A record is there.
				return nil, err
			}
		}
	}
	return reasons, nil
}

// deletion makes the change that says that a contact is gone, with the contact as it was last known.
func (p *Poller) deletion(ctx context.Context, known Known, reason Reason) (Change, error) {
	raw, err := p.ledger.Last(ctx, known)
	if errors.Is(err, ErrNotRecorded) {
		raw, _ = jsontext.AppendQuote([]byte(`{"id":`), known.ID)
		raw, err = append(raw, '}'), nil
	}
	if err != nil {
		return Change{}, &ledgerError{"reading the last event of contact " + known.ID, err}
	}
	contact, err := nimble.ParseContact(raw)
	if err != nil {
		return Change{}, fmt.Errorf("last event of contact %s: %w", known.ID, err)
	}
	contact.Created, contact.Updated = known.Created, known.Updated
	fingerprint, err := p.fingerprint(contact)
	if err != nil {
		return Change{}, fmt.Errorf("last event of contact %s: %w", known.ID, err)
	}
	return Change{
		Kind: Deleted, Contact: contact, Fingerprint: fingerprint, Revision: known.Revision + 1, Previous: known.Sequence,
		Observed: time.Now().UTC(), FoundBy: FoundByReconcile, Reason: reason, MergedInto: p.recent.holding(known.ID, raw, time.Now()),
	}, nil
}

// HeldDeletions returns the ids of the contacts whose deletion waits for a person, sorted.
func (p *Poller) HeldDeletions(ctx context.Context) (ids []string, err error) {
	err = p.do(ctx, func(context.Context) error {
		for _, id := range slices.Sorted(maps.Keys(p.absent)) {
			if p.absent[id].held {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids, err
}

// ConfirmDeletions lets the deletions that are held back be published, as many as wait now, and returns how many that are. They are asked for once more by id
// before; those that are there again are not published. The confirmation outlives the process, for a day.
func (p *Poller) ConfirmDeletions(ctx context.Context) (n int, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		if n = max(p.held(), p.progress.Held); n == 0 {
			return nil
		}
		p.progress.Confirmed, p.progress.ConfirmedAt = n, toSecond(time.Now())
		p.reconcileAsked = true
		return p.save(ctx)
	})
	return n, err
}
