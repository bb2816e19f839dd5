package poller

import (
	"context"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// ResyncResult says what became of a resync.
type ResyncResult struct {
	// Published is how many snapshots were stored. Of a resync of everything it is 0: that goes on in the background.
	Published int
	// Missing are contacts that Nimble does not give; a reconciliation finds out whether they are deleted.
	Missing []string
}

// Resync publishes the given contacts again, as snapshots of how they are now, for consumers that need a fresh picture: each with its next revision. Without ids, all
// contacts of the account are published so, beside the polls; that goes on after a restart where it stopped.
func (p *Poller) Resync(ctx context.Context, ids ...string) (result ResyncResult, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		if len(ids) == 0 {
			if p.progress.Resyncing {
				return nil
			}
			p.progress.Resyncing, p.progress.Resynced = true, time.Time{}
			p.log.Info("resync of the whole account begins")
			return p.save(ctx)
		}
		outer := p.pass
		p.pass = pass{foundBy: FoundByResync, published: make(map[Kind]int)}
		defer func() { p.pass = outer }()
		found, err := p.source.ContactsByID(ctx, ids...)
		if err != nil {
			if _, malformed := recordErrors(err); !malformed {
				return err
			}
		}
		present := make(map[string]bool)
		for i, c := range found {
			present[c.ID] = true
			found[i] = p.calibrated(c)
		}
		for _, id := range ids {
			if !present[id] {
				result.Missing = append(result.Missing, id)
			}
		}
		if err := p.picture(ctx, found); err != nil {
			if isLedgerError(err) {
				p.table = nil
			}
			return err
		}
		result.Published = p.pass.events()
		p.countPublished()
		return nil
	})
	return result, err
}

// picture publishes contacts as they are now, whether they changed or not.
func (p *Poller) picture(ctx context.Context, rows []nimble.Contact) error {
	changes := make([]Change, 0, len(rows))
	taken := make(map[string]bool, len(rows))
	for _, c := range rows {
		if taken[c.ID] {
			continue
		}
		taken[c.ID] = true
		known, ok := p.table.get(c.ID)
		if !ok || known.Deleted || c.Updated.Before(known.Updated) {
			continue // That is news, not a picture: a poll or a reconciliation tells it.
		}
		fingerprint, err := p.fingerprint(c)
		if err != nil {
			continue // As in a poll, which has said so.
		}
		changes = append(changes, Change{
			Kind: Snapshot, Contact: c, Fingerprint: fingerprint, Revision: known.Revision + 1, Previous: known.Sequence,
			Observed: time.Now().UTC(), FoundBy: FoundByResync,
		})
		if len(changes) == p.cfg.Batch {
			if err := p.publish(ctx, changes); err != nil {
				return err
			}
			changes = changes[:0]
		}
	}
	return p.publish(ctx, changes)
}

// resyncDue tells whether a resync of everything is under way.
func (p *Poller) resyncDue() bool {
	return p.table != nil && p.failures == 0 && p.progress.Resyncing && !p.progress.SnapshotFinished.IsZero() && !time.Now().Before(p.resyncAt)
}

// resyncOn goes on with the resync of everything, in the order of creation, until it is done or something fails.
func (p *Poller) resyncOn(ctx context.Context) {
	outer := p.pass
	p.pass = pass{foundBy: FoundByResync, published: make(map[Kind]int)}
	defer func() { p.pass = outer }()
	countable := p.countable()
	emit := func(rows []nimble.Contact, through time.Time) error {
		if err := p.picture(ctx, rows); err != nil {
			return err
		}
		p.countPublished()
		if countable && through.After(p.progress.Resynced) && through.Before(forEver) {
			p.progress.Resynced = through
			p.saveProgress(ctx, time.Since(p.savedAt) > time.Second)
		}
		return nil
	}
	w := window{}
	if countable {
		w = window{nimble.Created, later(p.progress.Resynced, beginning), forEver}
	}
	err := p.readCreated(ctx, w, emit)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.saveProgress(ctx, true) // Loading what is known brings back what was saved.
		if isLedgerError(err) {
			p.table = nil
		}
		p.log.Warn("resync interrupted; it goes on", zap.Error(err), zap.Time("resynced", p.progress.Resynced))
		p.resyncAt = time.Now().Add(p.cfg.Interval)
		return
	}
	p.progress.Resyncing, p.progress.Resynced = false, time.Time{}
	p.log.Info("resync of the whole account finished")
	p.saveProgress(ctx, true)
}
