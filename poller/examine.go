package poller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// take examines contacts that were read and publishes what changed. When it returns nil, all of it is stored and remembered.
func (p *Poller) take(ctx context.Context, rows []nimble.Contact) error {
	return p.clear(ctx, p.examineAll(ctx, rows))
}

// examineAll examines contacts that were read and enqueues what changed.
func (p *Poller) examineAll(ctx context.Context, rows []nimble.Contact) error {
	for _, c := range rows {
		if _, ok := p.absent[c.ID]; ok {
			p.returned(c.ID)
		}
		delete(p.unreadable, c.ID)
		change, changed, err := p.examine(ctx, c)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		if err := p.enqueue(ctx, change); err != nil {
			return err
		}
	}
	return nil
}

// examine compares a contact with what is known of it and returns the change, if it is one.
func (p *Poller) examine(ctx context.Context, c nimble.Contact) (Change, bool, error) {
	p.pass.examined++
	fingerprint, err := p.fingerprint(c)
	if err != nil {
		p.pass.malformed = append(p.pass.malformed, nimble.Malformed{ID: c.ID, Reason: err.Error(), Raw: c.Raw})
		return Change{}, false, nil
	}
	if same, other := p.again(c, fingerprint); same {
		return Change{}, false, nil
	} else if other { // What it is to be compared with has to be stored first.
		if err := p.flush(ctx); err != nil {
			return Change{}, false, err
		}
	}
	change := Change{Contact: c, Fingerprint: fingerprint, Observed: time.Now().UTC(), FoundBy: p.pass.foundBy, Revision: 1}
	known, ok := p.table.get(c.ID)
	if !ok {
		change.Kind = p.kindOfNew(c)
		return change, true, nil
	}
	if !known.Deleted && known.Fingerprint == fingerprint {
		p.table.seen(c.ID, c.Updated)
		return Change{}, false, nil
	}
	// A listing can lag behind by more than is known already. What the API says of the contact itself decides then.
	if known.Deleted || c.Updated.Before(known.Updated) {
		current, err := p.source.ContactByID(ctx, c.ID)
		p.pass.requests++
		switch {
		case errors.Is(err, nimble.ErrNotFound), errors.Is(err, nimble.ErrForbidden):
			return Change{}, false, nil // It is gone; that is found by reconciliation.
		case err != nil:
			return Change{}, false, fmt.Errorf("contact %s, listed in an older state: %w", c.ID, err)
		}
		current = p.calibrated(current)
		if fingerprint, err = p.fingerprint(current); err != nil {
			return Change{}, false, fmt.Errorf("contact %s: %w", c.ID, err)
		}
		c, change.Contact, change.Fingerprint = current, current, fingerprint
		if !known.Deleted && known.Fingerprint == fingerprint {
			p.table.seen(c.ID, c.Updated)
			return Change{}, false, nil
		}
	}
	change.Previous, change.Revision = known.Sequence, known.Revision+1
	if known.Deleted {
		change.Kind, change.Restored = Created, true
		return change, true, nil
	}
	return p.update(ctx, change, known)
}

// update completes the change of a contact whose fingerprint differs from the known one with what differs.
func (p *Poller) update(ctx context.Context, change Change, known Known) (Change, bool, error) {
	if err := p.land(ctx); err != nil {
		return Change{}, false, err
	}
	last, err := p.ledger.Last(ctx, known)
	if errors.Is(err, ErrNotRecorded) {
		// Nobody can say any more what changed. A fresh picture is the truth; an invented comparison would not be.
		p.log.Warn("the contact's last event is no longer stored; its present state is published as a snapshot",
			zap.String("contact_id", known.ID), zap.Uint64("revision", change.Revision), zap.Error(err))
		change.Kind = Snapshot
		return change, true, nil
	}
	if err != nil {
		err = &ledgerError{"reading the last event of contact " + known.ID, err}
		return Change{}, false, cmp.Or(p.flush(ctx), err) // What was found before does not have to wait.
	}
	before, err := p.before.read(last)
	if err != nil {
		return Change{}, false, fmt.Errorf("last event of contact %s: %w", known.ID, err)
	}
	after, err := p.after.read(change.Contact.Raw)
	if err != nil {
		return Change{}, false, fmt.Errorf("contact %s: %w", known.ID, err)
	}
	change.Kind, change.Changes = Updated, diff(before, after)
	if len(change.Changes) == 0 {
		// The known fingerprint was made by other rules; by today's, nothing changed.
		known.Fingerprint, known.Updated = change.Fingerprint, change.Contact.Updated
		p.table.put(known)
		return Change{}, false, nil
	}
	return change, true, nil
}

func (p *Poller) fingerprint(c nimble.Contact) (Fingerprint, error) {
	content, err := p.after.read(c.Raw)
	if err != nil {
		return Fingerprint{}, err
	}
	var f Fingerprint
	f, p.hashed = content.fingerprint(p.hashed)
	return f, nil
}

// kindOfNew tells whether a contact that was never seen is new, or existed when the account was first met. The first meeting is known to the second: while
// the snapshot runs, contacts of that very second count as existing; afterwards they are new, because the snapshot would have shown them.
func (p *Poller) kindOfNew(c nimble.Contact) Kind {
	met := p.progress.FirstMet
	if p.progress.SnapshotFinished.IsZero() {
		met = met.Add(time.Second)
	}
	if c.Created.Before(met) { // Unreadable times are zero: such a contact is not announced as new.
		return Snapshot
	}
	return Created
}

// reject hands records that cannot be understood to the ledger.
func (p *Poller) reject(ctx context.Context) error {
	if len(p.pass.malformed) == 0 {
		return nil
	}
	if err := p.land(ctx); err != nil {
		return err
	}
	rejected := make([]Rejection, len(p.pass.malformed))
	for i, m := range p.pass.malformed {
		rejected[i] = Rejection{ContactID: m.ID, Reason: m.Reason, Record: m.Raw, Observed: time.Now().UTC()}
		if _, again := p.unreadable[m.ID]; again && m.ID != "" {
			continue
		}
		p.log.Warn("a record in the contacts listing cannot be understood", zap.String("contact_id", m.ID), zap.String("reason", m.Reason))
		if _, known := p.table.get(m.ID); m.ID != "" && !known {
			p.unreadable[m.ID], _ = nimble.IDTime(m.ID)
		}
	}
	p.pass.malformed = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	if err := p.ledger.Reject(ctx, rejected); err != nil {
		return &ledgerError{fmt.Sprintf("publishing %d rejected records", len(rejected)), err}
	}
	return nil
}

// ledgerError marks what the ledger failed at: what is known may be out of date afterwards.
type ledgerError struct {
	doing string
	err   error
}

func (e *ledgerError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *ledgerError) Unwrap() error { return e.err }

func isLedgerError(err error) bool {
	_, ok := errors.AsType[*ledgerError](err)
	return ok
}
