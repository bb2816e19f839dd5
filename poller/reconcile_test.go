package poller_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble"
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(2000))
		ledger := newMemory()
		start(t, account, ledger, poller.Config{Interval: 10 * time.Second})
		dice := rand.New(rand.NewPCG(1, 2))
		var late []time.Duration
		for range 100 {
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
		if p99 := late[98]; p99 > 30*time.Second {
			t.Errorf("99 of 100 deletions are published within %v, want 30s; the last within %v", p99, late[99])
		}
		checkTruth(t, account, ledger)
		for _, r := range ledger.receipts {
			if r.Method != poller.ByCount {
				t.Errorf("receipt %+v, want one by counting", r)
			}
		}
	})
}

func TestContactsThatVanishAndReturn(t *testing.T) {
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
		{20000, 3, 60},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("contacts=%d,deleted=%d", tt.contacts, tt.deleted), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(tt.contacts))
				ledger := newMemory()
				start(t, account, ledger, poller.Config{ReconcileInterval: 15 * time.Minute})
				pass(14*time.Minute + 30*time.Second)
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

func TestHalfAnAccountVanishingIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(400))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{Interval: 10 * time.Second})
		pass(time.Minute)
		ids := account.IDs()
		account.Hide(ids[:200]...)
		pass(5 * time.Minute)
		if got := ledger.count(poller.Deleted); got != 0 {
			t.Fatalf("%d deletions published, want none", got)
		}
		if got := p.Status(); got.Held != 200 || got.HeldSince.IsZero() || got.State != poller.Polling {
			t.Fatalf("status %+v, want 200 held while polling goes on", got)
		}
		if held, err := p.HeldDeletions(t.Context()); err != nil || len(held) != 200 {
			t.Errorf("%d held, %v", len(held), err)
		}
		account.Edit(ids[300], nimbletest.Field("title", "all else flows"))
		pass(20 * time.Second)
		checkTruth(t, account, ledger)

		// Some come back: no event, and so many less are held.
		account.Show(ids[:150]...)
		pass(20 * time.Minute)
		if got := p.Status().Held; got != 50 || len(ledger.of(ids[0])) != 1 {
			t.Errorf("%d held and %d events of a contact that came back, want 50 and its snapshot", got, len(ledger.of(ids[0])))
		}
		if got := ledger.count(poller.Deleted); got != 0 {
			t.Errorf("%d deletions published, want none", got)
		}
		n, err := p.ConfirmDeletions(t.Context())
		if err != nil || n != 50 {
			t.Fatalf("confirmed %d, %v", n, err)
		}
		pass(time.Minute)
		if got := ledger.count(poller.Deleted); got != 50 || p.Status().Held != 0 {
			t.Errorf("%d deletions published and %d held, want 50 and none", got, p.Status().Held)
		}
		account.Show(ids[150:200]...)
		pass(20 * time.Minute)
		if got := ledger.count(poller.Created); got != 50 {
			t.Errorf("%d contacts created again, want 50", got)
		}
		checkTruth(t, account, ledger)
	})
}

func TestHeldDeletionsAndTheirConfirmationOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(100))
		ledger := newMemory()
		p, stop := startStoppable(t, account, ledger, poller.Config{})
		account.Delete(account.IDs()[:60]...)
		pass(time.Minute)
		if got := p.Status().Held; got != 60 {
			t.Fatalf("%d held, want 60", got)
		}
		stop()
		p, stop = startStoppable(t, account, ledger, poller.Config{})
		if got := p.Status().Held; got != 60 {
			t.Errorf("%d held after the restart, want 60", got)
		}
		if _, err := p.ConfirmDeletions(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop() // Before anything was published.
		start(t, account, ledger, poller.Config{})
		pass(time.Minute)
		if got := ledger.count(poller.Deleted); got != 60 {
			t.Errorf("%d deletions published, want 60", got)
		}
	})
}

func TestDeletionsAreHeld(t *testing.T) {
	tests := []struct {
		name                   string
		contacts, gone, publed int
		limit                  *poller.DeleteLimit
	}{
		{"as many as the count allows", 100, 20, 20, nil},
		{"more than that", 100, 21, 0, nil},
		{"as many as the share allows", 1000, 50, 50, nil},
		{"more than the share", 1000, 51, 0, nil},
		{"half of a small account", 20, 10, 0, nil},
		{"all of a small account", 3, 3, 0, nil},
		{"two of three", 3, 2, 2, nil},
		{"the only one", 1, 1, 1, nil},
		{"one, when none is allowed", 100, 1, 0, &poller.DeleteLimit{}},
		{"most, when a person has allowed all", 100, 90, 90, &poller.DeleteLimit{Share: 1}},
		{"everything, even so", 100, 100, 0, &poller.DeleteLimit{Share: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(tt.contacts))
				ledger := newMemory()
				p := start(t, account, ledger, poller.Config{DeleteLimit: tt.limit})
				account.Delete(account.IDs()[:tt.gone]...)
				pass(10 * time.Minute)
				if got := ledger.count(poller.Deleted); got != tt.publed || p.Status().Held != tt.gone-tt.publed {
					t.Errorf("%d published and %d held, want %d and %d", got, p.Status().Held, tt.publed, tt.gone-tt.publed)
				}
			})
		})
	}
}

// TestContentMovingWithoutUpdated edits contacts without moving `updated`.
func TestContentMovingWithoutUpdated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(2000))
		ledger := newMemory()
		start(t, account, ledger, poller.Config{Interval: time.Minute})
		pass(time.Minute)
		ids := account.IDs()
		for i := range 40 {
			account.EditSilently(ids[i*50], nimbletest.Field("title", "nobody was told"))
		}
		pass(25 * time.Hour)
		for i := range 40 {
			events := ledger.of(ids[i*50])
			if last := events[len(events)-1]; last.Kind != poller.Updated || last.FoundBy != poller.FoundByReconcile {
				t.Errorf("contact %s: last event %s, found by %s", ids[i*50], last.Kind, last.FoundBy)
			}
		}
		checkTruth(t, account, ledger)
	})
}

// TestIndexLagBeyondTheOverlap has the search index show edits long after the overlap.
func TestIndexLagBeyondTheOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(2000))
		ledger := newMemory()
		start(t, account, ledger, poller.Config{Interval: 10 * time.Second, Overlap: time.Minute})
		pass(20 * time.Minute)
		account.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = 10 * time.Minute })
		ids := account.IDs()
		for i := range 5 {
			account.Edit(ids[i*300], nimbletest.Field("title", "shown late"))
		}
		late := account.Create()
		account.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = 0 })
		pass(45 * time.Minute)
		for i := range 5 {
			if got := ledger.kinds(ids[i*300]); got != "snapshot updated " {
				t.Errorf("contact %s: %s", ids[i*300], got)
			}
		}
		if got := ledger.kinds(late); got != "created " {
			t.Errorf("the new contact: %s", got)
		}
		checkTruth(t, account, ledger)
	})
}

// TestIndexLagBeyondTheOverlapAndOutOfOrder has the index show the oldest of some edits last, and all but the newest after the overlap. An agreement in between does not
// put an end to looking for them.
func TestIndexLagBeyondTheOverlapAndOutOfOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(800))
		ledger := newMemory()
		start(t, account, ledger, poller.Config{Interval: time.Minute, Overlap: time.Minute})
		pass(20 * time.Minute)
		ids := account.IDs()
		lag := make(map[string]time.Duration)
		for i := range 5 {
			lag[ids[i*80]] = time.Duration(4-i) * 10 * time.Minute
		}
		account.SetBehaviour(func(b *nimbletest.Behaviour) { b.LagOf = func(id string) time.Duration { return lag[id] } })
		for i := range 5 {
			account.Edit(ids[i*80], nimbletest.Field("title", "shown late"))
			pass(time.Second)
		}
		pass(time.Hour) // The last one is to be seen after 40 minutes, and found by the reconciliation after that.
		for i := range 5 {
			if got := ledger.kinds(ids[i*80]); got != "snapshot updated " {
				t.Errorf("contact shown %v late: %s", lag[ids[i*80]], got)
			}
		}
		checkTruth(t, account, ledger)
	})
}

// TestContactsCreatedEverySecondAreCounted has no empty second to put the bound of a range in, so that what the API does at bounds has to be learnt.
func TestContactsCreatedEverySecondAreCounted(t *testing.T) {
	for _, bounds := range []int{0, 3, 4, 7} {
		t.Run(fmt.Sprint("bounds=", bounds), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const contacts = 6000
				account := nimbletest.New(nimbletest.WithContacts(contacts))
				account.SetBehaviour(func(b *nimbletest.Behaviour) {
					b.ExclusiveLower, b.ExclusiveUpper, b.RangeSeconds = bounds&1 != 0, bounds&2 != 0, bounds&4 != 0
				})
				first := time.Now().Add(-contacts * time.Second)
				ids := account.IDs()
				for i, id := range ids {
					at := first.Add(time.Duration(i)*time.Second + 250*time.Millisecond)
					account.SetTimes(id, at, at)
				}
				ledger := newMemory()
				start(t, account, ledger, poller.Config{})
				pass(14 * time.Minute)
				account.Delete(ids[777], ids[3000], ids[4001])
				pass(5 * time.Minute)
				if got := ledger.count(poller.Deleted); got != 3 {
					t.Errorf("%d deletions published, want 3", got)
				}
				most := 0
				for _, r := range ledger.receipts {
					most = max(most, r.Requests)
					if r.Method != poller.ByCount {
						t.Errorf("receipt %+v, want one by counting", r)
					}
				}
				if len(ledger.receipts) == 0 || most > 100 { // Most where bounds belong to neither half, which takes two counts.
					t.Errorf("%d receipts, %d requests at most, want one and 100", len(ledger.receipts), most)
				}
			})
		})
	}
}

func TestUnlistedContactIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(300))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{})
		id := account.IDs()[100]
		account.Unlist(id)
		pass(time.Hour)
		if got := ledger.kinds(id); got != "snapshot " {
			t.Fatalf("events of a contact that only the listings do not show: %s", got)
		}
		if e, err := p.Explain(t.Context(), id); err != nil || !e.Unlisted || e.Now != "present" {
			t.Errorf("explanation %+v, %v", e, err)
		}
		account.Delete(id)
		pass(time.Hour)
		if got := ledger.kinds(id); got != "snapshot deleted " {
			t.Errorf("events after it was deleted: %s", got)
		}
	})
}

func TestMergeIsHintedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(100))
		ledger := newMemory()
		start(t, account, ledger, poller.Config{})
		address := nimbletest.Field("email", "Ines@Brandt.example")
		survivor, loser := account.Create(nimbletest.Field("first name", "Ines")), account.Create(nimbletest.Field("first name", "Inès"), address)
		bystander := account.IDs()[3]
		pass(3 * time.Minute)
		account.Edit(bystander, nimbletest.Field("title", "CFO"))
		account.Merge(survivor, loser)
		pass(time.Minute)
		events := ledger.of(loser)
		last := events[len(events)-1]
		if last.Kind != poller.Deleted || !slices.Equal(last.MergedInto, []string{survivor}) {
			t.Errorf("last event of the loser: %s, merged into %v, want %s", last.Kind, last.MergedInto, survivor)
		}
	})
}

func TestReconciliationDoesNotDelayPolls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(2000))
		account.SetBehaviour(func(b *nimbletest.Behaviour) { b.TotalNoise = func(int) int { return 7 } }) // All is listed, then.
		ledger := newMemory()
		var mu sync.Mutex
		var polls []time.Time
		polled := func(poller.PollResult) {
			mu.Lock()
			defer mu.Unlock()
			polls = append(polls, time.Now())
		}
		client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithTransport(account.Transport()), nimble.WithRateLimit(2), nimble.WithoutRetry())
		if err != nil {
			t.Fatal(err)
		}
		_, stop := startBetween(t, client, ledger, poller.Config{Interval: 5 * time.Second, ReconcileInterval: time.Minute, Polled: polled})
		defer stop()
		pass(5 * time.Minute)
		mu.Lock()
		polls = nil
		mu.Unlock()
		pass(5 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for i := 1; i < len(polls); i++ {
			if apart := polls[i].Sub(polls[i-1]); apart > 8*time.Second {
				t.Errorf("%v between two polls, want about 5s", apart)
			}
		}
		if len(polls) < 40 {
			t.Errorf("%d polls in 5 minutes, want about 50", len(polls))
		}
	})
}

func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(450))
		ledger := newMemory()
		p, stop := startStoppable(t, account, ledger, poller.Config{})
		ids := account.IDs()
		result, err := p.Resync(t.Context(), ids[3], ids[4], "5049fb849b85f669e40000dc")
		if err != nil || result.Published != 2 || !slices.Equal(result.Missing, []string{"5049fb849b85f669e40000dc"}) {
			t.Fatalf("resync of two and a stranger: %+v, %v", result, err)
		}
		events := ledger.of(ids[3])
		if last := events[1]; last.Kind != poller.Snapshot || last.FoundBy != poller.FoundByResync || last.Revision != 2 {
			t.Errorf("event %+v, want the second snapshot", last)
		}
		ledger.mu.Lock()
		failing := true
		ledger.fail = func(n int) (error, bool) {
			if failing && n > 700 {
				return errors.New("the disk is full"), false
			}
			return nil, false
		}
		ledger.mu.Unlock()
		if _, err := p.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		ledger.mu.Lock()
		failing = false
		ledger.mu.Unlock()
		stop()
		p = start(t, account, ledger, poller.Config{}) // It goes on where it stopped.
		pass(time.Minute)
		if p.Status().Resyncing {
			t.Error("the resync goes on for ever")
		}
		for _, id := range ids {
			events := ledger.of(id)
			if last := events[len(events)-1]; len(events) < 2 || len(events) > 4 || last.FoundBy != poller.FoundByResync {
				t.Errorf("contact %s: %d events, the last found by %s", id, len(events), last.FoundBy)
			}
		}
		checkTruth(t, account, ledger)
	})
}

func TestPauseOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(20))
		ledger := newMemory()
		p, stop := startStoppable(t, account, ledger, poller.Config{})
		if err := p.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := p.Resume(t.Context()); !errors.Is(err, poller.ErrNotRunning) {
			t.Errorf("Resume of a stopped poller: %v", err)
		}
		account.ResetRequests()
		id := account.Create()
		p = start(t, account, ledger, poller.Config{})
		pass(time.Hour)
		if got := len(account.Requests()); got != 0 || p.Status().State != poller.Paused {
			t.Errorf("%d requests in state %s, want none, paused", got, p.Status().State)
		}
		if err := p.PollNow(t.Context()); !errors.Is(err, poller.ErrPaused) {
			t.Errorf("PollNow while paused: %v", err)
		}
		if e, err := p.Explain(t.Context(), id); err != nil || e.Known != nil || e.Now != "present" {
			t.Errorf("explanation %+v, %v", e, err)
		}
		if err := p.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := ledger.kinds(id); got != "created " {
			t.Errorf("after the pause: %q, want it created at once", got)
		}
		account.Edit(id, nimbletest.Field("title", "now"))
		if err := p.PollNow(t.Context()); err != nil || ledger.kinds(id) != "created updated " {
			t.Errorf("PollNow: %v, events %s", err, ledger.kinds(id))
		}
	})
}

// TestOrdersDoNotShortenTheConfirmation steers the poller while a missing contact waits to be asked for again.
func TestOrdersDoNotShortenTheConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(50))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{Interval: 10 * time.Second, ConfirmAfter: 20 * time.Second})
		account.ResetRequests()
		account.Delete(account.IDs()[5])
		for range 60 {
			pass(time.Second)
			if err := p.ReconcileSoon(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var asked []time.Time
		for _, r := range account.Requests() {
			if r.Path == "/api/v1/contact" {
				asked = append(asked, r.Time)
			}
		}
		if len(asked) != 2 || asked[1].Sub(asked[0]) < 20*time.Second {
			t.Errorf("asked for the contact at %v, want twice, 20s apart", asked)
		}
		if got := ledger.count(poller.Deleted); got != 1 {
			t.Errorf("%d deletions published, want 1", got)
		}
	})
}
