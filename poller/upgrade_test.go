package poller_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// formerRules is a ledger whose events were fingerprinted by rules of another version.
type formerRules struct {
	*memory
	version uint8
}

func (l formerRules) Load(ctx context.Context, known func(poller.Known)) error {
	return l.memory.Load(ctx, func(k poller.Known) {
		k.Fingerprint.Version = l.version
		for i := range k.Fingerprint.Hash {
			k.Fingerprint.Hash[i] ^= 0x5a
		}
		known(k)
	})
}

// After an upgrade that changes what counts in a contact, or a step back from one, the contacts are compared by the documents themselves.
func TestFingerprintsOfOtherRulesGiveNoFalseUpdates(t *testing.T) {
	for name, version := range map[string]uint8{"older": poller.FingerprintVersion - 1, "newer": poller.FingerprintVersion + 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(40))
				ledger := newMemory()
				_, stop := startStoppable(t, account, ledger, poller.Config{})
				pass(time.Minute)
				stop()
				published := len(ledger.events)
				if published != 40 {
					t.Fatalf("%d events, want the snapshot of 40", published)
				}
				ids := account.IDs()
				for _, id := range ids[:20] {
					account.Touch(id) // Seen again, with nothing changed in it.
				}
				account.Edit(ids[0], nimbletest.Tags("edited while it was upgraded"))

				p, stop := startOn(t, account, formerRules{ledger, version}, poller.Config{Interval: 10 * time.Second, ReconcileInterval: time.Minute})
				pass(time.Hour)
				if status := p.Status(); status.Err != nil || status.LastReconcile.IsZero() {
					t.Errorf("status %+v, want reconciled without an error", status)
				}
				stop()
				events := ledger.events[published:]
				if len(events) != 1 || events[0].Contact.ID != ids[0] || events[0].Kind != poller.Updated || events[0].Revision != 2 {
					t.Fatalf("%d events after the upgrade: %v; want the one edit", len(events), events)
				}
				if got := slices.Collect(maps.Keys(events[0].Changes)); !slices.Equal(got, []string{"tags"}) {
					t.Errorf("changed keys %v, want tags", got)
				}
				if got := events[0].Fingerprint.Version; got != poller.FingerprintVersion {
					t.Errorf("the new event's fingerprint has version %d, want today's", got)
				}
			})
		})
	}
}
