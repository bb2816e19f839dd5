package poller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"nimble-bridge/nimble"
)

// Explanation is why a contact did or did not give an event. It holds nothing of the contact's content.
type Explanation struct {
	ID string `json:"id"`
	// Known is what the last event says; nil if the contact never had one.
	Known *KnownFacts `json:"known,omitzero"`
	// Held says that its deletion waits for a person, Unlisted that it exists and that the listings do not show it, Rejected that its record cannot be understood.
	Held     bool `json:"held,omitzero"`
	Unlisted bool `json:"unlisted,omitzero"`
	Rejected bool `json:"rejected,omitzero"`
	// Now is what Nimble says by id, "present", "not_found", "forbidden" or "malformed".
	Now string `json:"now"`
	// Created, Updated and Fingerprint are the present record's.
	Created     time.Time `json:"created,omitzero"`
	Updated     time.Time `json:"updated,omitzero"`
	Fingerprint string    `json:"fingerprint,omitzero"`
	// Differing are the significant keys in which the present record differs from the last event.
	Differing []string `json:"differing,omitzero"`
	// Settled is up to which time the account is completely read.
	Settled time.Time `json:"settled,omitzero"`
	// Verdict says in words what follows from all that.
	Verdict string `json:"verdict"`
}

// KnownFacts is what a contact's last event says of it.
type KnownFacts struct {
	Revision    uint64    `json:"revision"`
	Sequence    uint64    `json:"sequence"`
	Fingerprint string    `json:"fingerprint"`
	Created     time.Time `json:"created,omitzero"`
	Updated     time.Time `json:"updated,omitzero"`
	Deleted     bool      `json:"deleted,omitzero"`
}

// Explain says what is known of a contact, what Nimble says of it now, and what follows.
func (p *Poller) Explain(ctx context.Context, id string) (e Explanation, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		e, err = p.explain(ctx, id)
		return err
	})
	return e, err
}

func (p *Poller) explain(ctx context.Context, id string) (Explanation, error) {
	e := Explanation{ID: id, Settled: p.table.settled}
	known, ok := p.table.get(id)
	if ok {
		e.Known = &KnownFacts{known.Revision, known.Sequence, known.Fingerprint.String(), known.Created, known.Updated, known.Deleted}
	}
	if a, absent := p.absent[id]; absent {
		e.Held, e.Unlisted = a.held, !a.held
	}
	_, e.Rejected = p.unreadable[id]
	current, err := p.source.ContactByID(ctx, id)
	switch {
	case err == nil:
		e.Now = "present"
	case errors.Is(err, nimble.ErrNotFound):
		e.Now = string(NotFound)
	case errors.Is(err, nimble.ErrForbidden):
		e.Now = string(Forbidden)
	default:
		if _, malformed := recordErrors(err); !malformed {
			return e, err
		}
		e.Now, e.Rejected = "malformed", true
	}
	if err == nil {
		current = p.calibrated(current)
		e.Created, e.Updated = current.Created, current.Updated
		fingerprint, err := p.fingerprint(current)
		if err != nil {
			return e, fmt.Errorf("contact %s: %w", id, err)
		}
		e.Fingerprint = fingerprint.String()
		if ok && !known.Deleted && fingerprint != known.Fingerprint {
			if e.Differing, err = p.differing(ctx, known, current); err != nil {
				return e, err
			}
		}
	}
	e.Verdict = p.verdict(e)
	return e, nil
}

// differing returns the keys in which a contact differs from its last event.
func (p *Poller) differing(ctx context.Context, known Known, current nimble.Contact) ([]string, error) {
	last, err := p.ledger.Last(ctx, known)
	if errors.Is(err, ErrNotRecorded) {
		return nil, nil
	}
	if err != nil {
		return nil, &ledgerError{"reading the last event of contact " + known.ID, err}
	}
	before, err := p.before.read(last)
	if err != nil {
		return nil, fmt.Errorf("contact %s: %w", known.ID, err)
	}
	after, err := p.after.read(current.Raw)
	if err != nil {
		return nil, fmt.Errorf("contact %s: %w", known.ID, err)
	}
	return slices.Sorted(maps.Keys(diff(before, after))), nil
}

// verdict says in words what the facts mean.
func (p *Poller) verdict(e Explanation) string {
	present, deleted := e.Now == "present", e.Known != nil && e.Known.Deleted
	switch {
	case e.Rejected:
		return "Nimble's record of it cannot be understood; it is on the bridge.rejected subject, and looked at again with each reconciliation"
	case e.Held:
		return "it is gone in Nimble, and its deletion is held back: release it with confirm-deletions"
	case e.Known == nil && present && p.progress.SnapshotFinished.IsZero():
		return "it has no event yet: the snapshot is still running"
	case e.Known == nil && present && p.progress.Paused, e.Known != nil && present && len(e.Differing) > 0 && p.progress.Paused:
		return "it is not published because polling is paused"
	case e.Known == nil && present:
		return "it has no event yet: Nimble's search does not show it, or the next poll does; the next reconciliation finds it at the latest"
	case e.Known == nil:
		return "it has no event, and Nimble gives no such contact to this API key: it does not exist, or its privacy excludes the key's user"
	case deleted && present:
		return "it was deleted and is there again: the next poll or reconciliation publishes it as created"
	case deleted:
		return "it is deleted, and that is published"
	case !present:
		return "it is gone in Nimble: its deletion is published once it is confirmed, within a few polls"
	case e.Unlisted:
		return "it exists, but Nimble's listings do not show it: edits are found by reconciliations only"
	case len(e.Differing) > 0 && !e.Updated.After(e.Known.Updated):
		return "it changed without Nimble moving its `updated`: the comparison of everything, which takes a day, finds that"
	case len(e.Differing) > 0:
		return "it changed, and the change is not published yet: the next poll does, unless Nimble's search lags"
	case e.Updated.After(e.Known.Updated):
		return "its `updated` moved, but nothing changed that counts as content: there is no event for that"
	case e.Fingerprint != e.Known.Fingerprint:
		return "its last event was made by other rules or is no longer stored; nothing is known to differ"
	}
	return "its last event shows what Nimble shows now"
}
