package poller_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a poller on the account inside a bubble and stops it at the end of the test.
func start(t *testing.T, account *nimbletest.Account, ledger *memory, cfg poller.Config) *poller.Poller {
	t.Helper()
	p, stop := startStoppable(t, account, ledger, cfg)
	t.Cleanup(stop)
	return p
}

func startStoppable(t *testing.T, account *nimbletest.Account, ledger *memory, cfg poller.Config) (*poller.Poller, func()) {
	t.Helper()
	return startOn(t, account, ledger, cfg)
}

func startOn(t *testing.T, account *nimbletest.Account, ledger poller.Ledger, cfg poller.Config) (*poller.Poller, func()) {
	t.Helper()
	return startBetween(t, newClient(t, account), ledger, cfg)
}

func newClient(t testing.TB, account *nimbletest.Account) *nimble.Client {
	t.Helper()
	client, err := nimble.NewClient("http://nimble.test", "test-key",
		nimble.WithTransport(account.Transport()), nimble.WithRateLimit(1e6), nimble.WithoutRetry())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func startBetween(t *testing.T, source poller.Source, ledger poller.Ledger, cfg poller.Config) (*poller.Poller, func()) {
	t.Helper()
	p, err := poller.New(source, ledger, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	synctest.Wait()
	return p, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v after its context ended, want nil", err)
		}
	}
}

// pass lets simulated time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// checkTruth holds the ledger's last events against the account.
func checkTruth(t *testing.T, account *nimbletest.Account, ledger *memory) {
	t.Helper()
	for _, id := range account.IDs() {
		events := ledger.of(id)
		if len(events) == 0 {
			t.Errorf("contact %s has no event", id)
			continue
		}
		raw, _ := account.Contact(id)
		want, err := poller.FingerprintOf([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if got := events[len(events)-1].Fingerprint; got != want {
			t.Errorf("contact %s: the last event has fingerprint %v, the account %v", id, got, want)
		}
		for i, e := range events {
			if e.Revision != uint64(i+1) {
				t.Errorf("contact %s: event %d has revision %d", id, i+1, e.Revision)
			}
			if (e.Kind == poller.Updated) != (len(e.Changes) > 0) {
				t.Errorf("contact %s: %s with %d changes", id, e.Kind, len(e.Changes))
			}
			if first := e.Kind == poller.Snapshot || e.Kind == poller.Created; i == 0 && !first {
				t.Errorf("contact %s: the first event is %s", id, e.Kind)
			} else if i > 0 && first && e.FoundBy != poller.FoundByResync && events[i-1].Kind != poller.Deleted {
				t.Errorf("contact %s: event %d meets it again, as %s", id, i+1, e.Kind)
			}
			if i > 0 && e.Kind == poller.Updated && e.Fingerprint == events[i-1].Fingerprint {
				t.Errorf("contact %s: events %d and %d show the same", id, i, i+1)
			}
		}
	}
}

func TestSnapshotThenCreatedThenUpdated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(250))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{})
		if got := ledger.count(poller.Snapshot); got != 250 {
			t.Fatalf("%d snapshot events, want 250", got)
		}
		pass(5 * time.Second)
		id := account.Create(nimbletest.Field("first name", "Amara"), nimbletest.Tags("new"))
		pass(10 * time.Second)
		account.Edit(id, nimbletest.Field("first name", "Amina"))
		pass(10 * time.Second)
		events := ledger.of(id)
		if len(events) != 2 || events[0].Kind != poller.Created || events[1].Kind != poller.Updated {
			t.Fatalf("events of the new contact: %v, want created and updated", events)
		}
		if _, ok := events[1].Changes["fields.first name"]; !ok || len(events[1].Changes) != 1 {
			t.Errorf("changes = %v, want fields.first name alone", events[1].Changes)
		}
		if got := p.Status(); got.Contacts != 251 || got.State != poller.Polling {
			t.Errorf("status = %+v, want 251 contacts, polling", got)
		}
		checkTruth(t, account, ledger)
	})
}

func TestIdlePollIsOneRequestAndOneCount(t *testing.T) {
	tests := []struct {
		name                string
		interval, reconcile time.Duration
		want                int
	}{
		{"with the total that finds deletions", 10 * time.Second, 0, 20},
		{"without reconciliation", 10 * time.Second, -1, 10},
		{"two a second with the total", 500 * time.Millisecond, 0, 400},
		{"ten a second with the total twice a second", 100 * time.Millisecond, 0, 1200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(1000))
				ledger := newMemory()
				start(t, account, ledger, poller.Config{Interval: tt.interval, ReconcileInterval: tt.reconcile})
				pass(5 * time.Second)
				account.ResetRequests()
				pass(100 * time.Second)
				if got := len(account.Requests()); got != tt.want {
					t.Errorf("%d requests in %d idle polls, want %d", got, 100*time.Second/tt.interval, tt.want)
				}
			})
		})
	}
}

// TestTiesLargerThanAPage imports more contacts in one second than a page, or several, can hold; afterwards the bridge goes quiet again.
func TestTiesLargerThanAPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(300))
		ledger := newMemory()
		start(t, account, ledger, poller.Config{Interval: 10 * time.Second, Overlap: 2 * time.Minute, ReconcileInterval: -1})
		pass(5 * time.Second)
		account.Import(1500)
		pass(10 * time.Second)
		if got := ledger.count(poller.Created); got != 1500 {
			t.Fatalf("%d created events, want 1500", got)
		}
		account.ResetRequests()
		pass(30 * time.Second)
		if got := len(account.Requests()); got > 9 {
			t.Errorf("%d requests in 3 polls right after the import, want at most 9", got)
		}
		pass(2 * time.Minute)
		account.ResetRequests()
		pass(50 * time.Second)
		if got := len(account.Requests()); got != 5 {
			t.Errorf("%d requests in 5 polls after the overlap, want 5", got)
		}
		checkTruth(t, account, ledger)
	})
}

func TestEditsBetweenPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(1200))
		ledger := newMemory()
		ids := account.IDs()
		edits := 0
		account.OnRequest(func(_ int, r *http.Request) {
			if r.URL.Path == "/api/v1/contacts" && edits < 100 {
				for range 10 {
					account.Edit(ids[(edits*37)%len(ids)], nimbletest.Field("title", fmt.Sprint("edit ", edits)))
					edits++
				}
			}
		})
		start(t, account, ledger, poller.Config{})
		pass(time.Minute)
		if edits != 100 {
			t.Fatalf("%d edits were made, want 100", edits)
		}
		checkTruth(t, account, ledger)
	})
}

func TestEditsWithinAnImportWhileItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New()
		ledger := newMemory()
		start(t, account, ledger, poller.Config{})
		pass(5 * time.Second)
		ids := account.Import(1500)
		edits := 0
		account.OnRequest(func(int, *http.Request) {
			if edits < 100 {
				account.Edit(ids[edits*15], nimbletest.Field("title", fmt.Sprint("edit ", edits)))
				edits++
			}
		})
		pass(5 * time.Minute)
		checkTruth(t, account, ledger)
	})
}

func TestIndexLagWithinTheOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(200))
		account.SetBehaviour(func(b *nimbletest.Behaviour) {
			b.LagOf = func(id string) time.Duration { return time.Duration(id[len(id)-1]%7) * 15 * time.Second }
		})
		ledger := newMemory()
		start(t, account, ledger, poller.Config{Interval: 10 * time.Second, Overlap: 2 * time.Minute})
		ids := account.IDs()
		for i := range 60 {
			pass(2 * time.Second)
			account.Edit(ids[i], nimbletest.Field("title", fmt.Sprint("edit ", i)))
			if i%10 == 0 {
				account.Import(130)
			}
		}
		pass(10 * time.Minute)
		checkTruth(t, account, ledger)
	})
}

// TestUpdatedMovingWithoutContent moves `updated` alone, or with what is no content: who wrote last, when somebody was in touch, days that are left.
func TestUpdatedMovingWithoutContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(50))
		ledger := newMemory()
		var examined atomic.Int64
		start(t, account, ledger, poller.Config{Polled: func(r poller.PollResult) { examined.Add(int64(r.Examined)) }})
		examined.Store(0)
		for i, id := range account.IDs() {
			if i%2 == 0 {
				account.Touch(id)
			} else { // It sets the updater as well.
				account.Edit(id, nimbletest.Key("avatar_url", `"https://app.nimble.com/a/1"`), nimbletest.Key("last_contacted", `{"tstamp": "2000-01-01T00:00:00+0000"}`))
			}
		}
		account.CountDown()
		pass(time.Minute)
		if got := examined.Load(); got < 50 {
			t.Errorf("%d contacts examined since, want the 50 that moved", got)
		}
		pass(2 * time.Hour)
		if got := len(ledger.events); got != 50 {
			t.Errorf("%d events, want the 50 of the snapshot", got)
		}
		checkTruth(t, account, ledger)
	})
}

func TestInterruptedSnapshotGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(1000))
		ledger := newMemory()
		ledger.fail = func(n int) (error, bool) {
			if n >= 500 {
				return errors.New("the disk is full"), false
			}
			return nil, false
		}
		start(t, account, ledger, poller.Config{})
		pass(30 * time.Second)
		ledger.mu.Lock()
		ledger.fail = nil
		ledger.mu.Unlock()
		account.ResetRequests()
		pass(time.Minute)
		checkTruth(t, account, ledger)
		if got := ledger.count(poller.Snapshot); got != 1000 {
			t.Errorf("%d snapshot events, want 1000", got)
		}
		firsts := account.Requests()[0].Query.Get("query")
		if slices.ContainsFunc([]string{"1969", "1970", "0001"}, func(year string) bool { return len(firsts) > 0 && containsText(firsts, year) }) {
			t.Errorf("the snapshot began again from the beginning: %s", firsts)
		}
	})
}

func containsText(s, part string) bool {
	for i := range len(s) - len(part) + 1 {
		if s[i:i+len(part)] == part {
			return true
		}
	}
	return false
}

func TestLostAcknowledgementPublishesNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(300))
		ledger := newMemory()
		n := 0
		ledger.fail = func(int) (error, bool) {
			if n++; n%2 == 1 && n < 20 {
				return errors.New("no acknowledgement"), true
			}
			return nil, false
		}
		start(t, account, ledger, poller.Config{})
		pass(5 * time.Minute)
		checkTruth(t, account, ledger)
		if got := len(ledger.events); got != 300 {
			t.Errorf("%d events, want 300", got)
		}
	})
}

func TestRestartReadsNothingOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(1000))
		ledger := newMemory()
		_, stop := startStoppable(t, account, ledger, poller.Config{})
		pass(10 * time.Minute)
		stop()
		account.Edit(account.IDs()[0], nimbletest.Field("title", "changed while nobody looked"))
		account.ResetRequests()
		start(t, account, ledger, poller.Config{})
		if got := len(account.Requests()); got != 2 {
			t.Errorf("%d requests after the restart, want a listing and the total", got)
		}
		checkTruth(t, account, ledger)
	})
}

func TestFutureDatedContactHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(150))
		future := account.IDs()[3]
		account.SetTimes(future, time.Now().Add(-time.Hour), time.Now().AddDate(20, 0, 0))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{})
		pass(5 * time.Minute)
		account.Edit(account.IDs()[5], nimbletest.Field("title", "after"))
		pass(time.Minute)
		checkTruth(t, account, ledger)
		if got := p.Status().Settled; got.After(time.Now()) {
			t.Errorf("settled = %v, in the future", got)
		}
	})
}

func TestCredentialsRefusedAndRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(20))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{})
		account.RefuseKey(true)
		pass(10 * time.Minute)
		status := p.Status()
		if _, ok := errors.AsType[*nimble.CredentialsError](status.Err); !ok || status.State != poller.Failing {
			t.Errorf("status = %+v, want failing with the credentials refused", status)
		}
		account.ResetRequests()
		pass(10 * time.Minute)
		if got := len(account.Requests()); got > 30 {
			t.Errorf("%d requests in 10 minutes with a refused key", got)
		}
		account.RefuseKey(false)
		account.Edit(account.IDs()[5], nimbletest.Field("title", "after"))
		pass(time.Minute)
		if status := p.Status(); status.State != poller.Polling {
			t.Errorf("status = %+v, want polling", status)
		}
		checkTruth(t, account, ledger)
	})
}
