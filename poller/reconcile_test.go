package poller_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// kinds returns what happened to a contact, as one text.
func (m *memory) kinds(id string) string {
	s := ""
	for _, e := range m.of(id) {
		s += string(e.Kind) + " "
	}
	return s
}

func TestDeletionIsPublishedWithinThreePolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(3000))
		ledger := newMemory()
		start(t, account, ledger, poller.Config{Interval: 10 * time.Second})
		dice := rand.New(rand.NewPCG(1, 2))
		var late []time.Duration
		for range 200 {
			pass(time.Duration(dice.Int64N(int64(40 * time.Second))))
			id := account.IDs()[dice.IntN(account.Len())]
			account.Delete(id)
			deleted := time.Now()
			for ledger.kinds(id) != "snapshot deleted " && time.Since(deleted) < time.Hour {
				pass(time.Second)
			}
			late = append(late, time.Since(deleted))
		}
		slices.Sort(late)
		if p99 := late[198]; p99 > 30*time.Second {
			t.Errorf("99 of 100 deletions are published within %v, want 30s; the last within %v", p99, late[199])
		}
		checkTruth(t, account, ledger)
		for _, r := range ledger.receipts {
			if r.Method != poller.ByCount {
				t.Errorf("receipt %+v, want one by counting", r)
			}
		}
	})
}

func TestDeletionSaysWhyAndIsUndoneByReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(300))
		account.SetBehaviour(func(b *nimbletest.Behaviour) { b.HiddenStatus = 403 })
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{Interval: 10 * time.Second})
		gone, hidden := account.IDs()[7], account.IDs()[11]
		account.Delete(gone)
		account.Hide(hidden)
		pass(time.Minute)
		for id, want := range map[string]poller.Reason{gone: poller.NotFound, hidden: poller.Forbidden} {
			events := ledger.of(id)
			if last := events[len(events)-1]; len(events) != 2 || last.Kind != poller.Deleted || last.Reason != want || last.FoundBy != poller.FoundByReconcile {
				t.Errorf("contact %s: %d events, the last %s, reason %s, found by %s", id, len(events), last.Kind, last.Reason, last.FoundBy)
			}
		}
		if got := p.Status().Contacts; got != 298 {
			t.Errorf("%d contacts, want 298", got)
		}
		account.Restore(gone)
		account.Show(hidden)
		pass(5 * time.Minute)
		for _, id := range []string{gone, hidden} {
			events := ledger.of(id)
			if last := events[len(events)-1]; len(events) != 3 || last.Kind != poller.Created || !last.Restored || last.Revision != 3 {
				t.Errorf("contact %s after its return: %d events, the last %s, restored %t, revision %d", id, len(events), last.Kind, last.Restored, last.Revision)
			}
		}
		checkTruth(t, account, ledger)
	})
}

func TestReconciliationIsCheap(t *testing.T) {
	tests := []struct {
		contacts, deleted, most int
	}{
		{1000, 0, 15},
		{1000, 1, 20},
		{20000, 0, 15},
		{20000, 1, 60},
		{20000, 3, 60},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("contacts=%d,deleted=%d", tt.contacts, tt.deleted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(tt.contacts))
				ledger := newMemory()
				start(t, account, ledger, poller.Config{ReconcileInterval: 15 * time.Minute})
				pass(14 * time.Minute)
				for i := range tt.deleted {
					account.Delete(account.IDs()[(i*7919+13)%account.Len()])
				}
				account.ResetRequests()
				pass(5 * time.Minute)
				if got := ledger.count(poller.Deleted); got != tt.deleted {
					t.Fatalf("%d deletions published, want %d", got, tt.deleted)
				}
				if len(ledger.receipts) == 0 {
					t.Fatal("no receipt")
				}
				most := 0
				for _, r := range ledger.receipts {
					most = max(most, r.Requests)
				}
				last := ledger.receipts[len(ledger.receipts)-1]
				t.Logf("at most %d requests; last receipt %+v", most, last)
				if most > tt.most || last.Contacts != tt.contacts-tt.deleted {
					t.Errorf("at most %d requests, want %d; %d contacts agreed on, want %d", most, tt.most, last.Contacts, tt.contacts-tt.deleted)
				}
			})
		})
	}
}
