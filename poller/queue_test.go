package poller_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// slow is a ledger that takes its time over each Append.
type slow struct {
	*memory
	append       time.Duration
	under, calls atomic.Int32
	// most is how many calls were seen at the same time.
	most atomic.Int32
	// largest is the most bytes of contacts that one call got.
	largest atomic.Int64
	// refuse makes the call with that number fail after its time, with nothing stored.
	refuse int32
}

func (s *slow) Append(ctx context.Context, changes []poller.Change) ([]uint64, error) {
	call := s.calls.Add(1)
	s.most.Store(max(s.most.Load(), s.under.Add(1)))
	defer s.under.Add(-1)
	size := 0
	for _, c := range changes {
		size += len(c.Contact.Raw)
	}
	s.largest.Store(max(s.largest.Load(), int64(size)))
	time.Sleep(s.append)
	if call == s.refuse {
		return nil, errors.New("refused on purpose")
	}
	return s.memory.Append(ctx, changes)
}

// distant answers each request after some time.
type distant struct {
	http.RoundTripper
	answer time.Duration
}

func (d distant) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(d.answer)
	return d.RoundTripper.RoundTrip(r)
}

// startSlow lets a poller take the snapshot of 3,000 contacts, 30 pages that take 100 ms each and far more than one Append.
func startSlow(t *testing.T, ledger *slow) (*nimbletest.Account, *poller.Poller) {
	t.Helper()
	account := nimbletest.New(nimbletest.WithContacts(3000))
	client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithRateLimit(1e6), nimble.WithoutRetry(),
		nimble.WithTransport(distant{account.Transport(), 100 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	p, stop := startBetween(t, client, ledger, poller.Config{Interval: 10 * time.Second})
	t.Cleanup(stop)
	return account, p
}

func TestFetchingAndPublishingOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &slow{memory: newMemory(), append: 400 * time.Millisecond}
		account, p := startSlow(t, ledger)
		// One after the other it would take 3 s to fetch, and 12 s to publish each page.
		pass(4500 * time.Millisecond)
		if p.Status().SnapshotFinished.IsZero() {
			t.Errorf("snapshot not finished after 4.5s, %d of 3000 events are there", ledger.count(poller.Snapshot))
		}
		checkTruth(t, account, ledger.memory)
	})
}

func TestSlowLedgerGetsFullBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &slow{memory: newMemory(), append: 2 * time.Second}
		account, p := startSlow(t, ledger)
		pass(12 * time.Second)
		if p.Status().SnapshotFinished.IsZero() {
			t.Errorf("snapshot not finished after 12s, %d of 3000 events are there", ledger.count(poller.Snapshot))
		}
		// The first page goes alone.
		if calls := ledger.calls.Load(); calls > 8 {
			t.Errorf("%d calls of Append, want at most 8 for 3000 events in batches of up to 500", calls)
		}
		if most := ledger.most.Load(); most != 2 {
			t.Errorf("%d calls of Append at the same time, want 2 at most, and that many", most)
		}
		checkTruth(t, account, ledger.memory)
	})
}

// TestHugeContactsAreNotGathered has contacts of 50 kB each, of which far fewer than Config.Batch may wait for a slow ledger.
func TestHugeContactsAreNotGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(500))
		for _, id := range account.IDs() {
			account.Edit(id, nimbletest.Field("description", strings.Repeat("x", 50_000)))
		}
		ledger := &slow{memory: newMemory(), append: 2 * time.Second}
		_, stop := startOn(t, account, ledger, poller.Config{})
		t.Cleanup(stop)
		pass(30 * time.Second)
		if n := ledger.count(poller.Snapshot); n != 500 {
			t.Errorf("%d events, want 500", n)
		}
		if largest := ledger.largest.Load(); largest < 5<<20 || largest > 9<<20 {
			t.Errorf("%d bytes of contacts at once, want 8 MiB or a little more, at most", largest)
		}
	})
}

// TestFailureBesideAnotherAppend makes one Append fail while the next one, of other contacts, is under way and succeeds.
func TestFailureBesideAnotherAppend(t *testing.T) {
	for _, refused := range []int32{1, 2, 3, 6} {
		synctest.Test(t, func(t *testing.T) {
			ledger := &slow{memory: newMemory(), append: time.Second, refuse: refused}
			account, p := startSlow(t, ledger)
			updated := make(map[string]time.Time)
			for _, id := range account.IDs() {
				raw, _ := account.Contact(id)
				c, err := nimble.ParseContact([]byte(raw))
				if err != nil {
					t.Fatal(err)
				}
				updated[id] = c.Updated
			}
			for range 30 {
				pass(time.Second)
				settled := p.Status().Settled
				for id, at := range updated {
					if at.Before(settled) && !ledger.has(id) {
						t.Fatalf("settled up to %v, and contact %s of %v has no event", settled, id, at)
					}
				}
			}
			if p.Status().SnapshotFinished.IsZero() {
				t.Errorf("append %d refused: snapshot not finished after 30s", refused)
			}
			checkTruth(t, account, ledger.memory)
			if n := ledger.count(poller.Snapshot); n != 3000 {
				t.Errorf("append %d refused: %d snapshot events, want 3000", refused, n)
			}
		})
	}
}

// TestChangesAreNotHeldBack publishes the page of a poll that is not full, and the first of a snapshot, at once.
func TestChangesAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &slow{memory: newMemory()}
		account, _ := startSlow(t, ledger)
		// The probe asks for some pages first.
		for ledger.count(poller.Snapshot) == 0 {
			pass(100 * time.Millisecond)
		}
		if n := ledger.count(poller.Snapshot); n != 100 {
			t.Errorf("%d events after the first page, want 100", n)
		}
		pass(20 * time.Second)
		account.Edit(account.IDs()[7], nimbletest.Field("title", "Captain"))
		pass(10*time.Second + 100*time.Millisecond)
		if n := ledger.count(poller.Updated); n != 1 {
			t.Errorf("%d updated events right after the poll, want 1", n)
		}
	})
}

// TestUnsortedAccountIsHandedOverPageByPage reads an account that can only be listed, and publishes what it has seen long before it has seen all: an account may
// be larger than memory.
func TestUnsortedAccountIsHandedOverPageByPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(3000))
		account.SetBehaviour(func(b *nimbletest.Behaviour) {
			b.Range, b.UpdatedSort, b.CreatedSort = nimbletest.RangeIgnored, nimbletest.SortIgnored, nimbletest.SortIgnored
		})
		client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithRateLimit(1e6), nimble.WithoutRetry(),
			nimble.WithTransport(distant{account.Transport(), time.Second}))
		if err != nil {
			t.Fatal(err)
		}
		ledger := newMemory()
		p, stop := startBetween(t, client, ledger, poller.Config{Interval: 10 * time.Second})
		t.Cleanup(stop)
		for p.Status().Findings.Strategy != poller.FullCompare {
			pass(time.Second)
		}
		pass(15 * time.Second)
		if n := ledger.count(poller.Snapshot); n < 1000 || n > 2000 {
			t.Errorf("%d events after 15 of 30 pages, want about 1500", n)
		}
		pass(time.Minute)
		checkTruth(t, account, ledger)
	})
}

// TestInterruptedWhileAppending ends a poll while some changes are being appended and others wait. What was appended is remembered: the next poll goes on from there.
func TestInterruptedWhileAppending(t *testing.T) {
	for _, after := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			account := nimbletest.New(nimbletest.WithContacts(1500))
			ledger := &slow{memory: newMemory(), append: time.Second}
			p, err := poller.New(newClient(t, account), ledger, poller.Config{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			if err := p.Poll(ctx); err == nil && ledger.count(poller.Snapshot) < 1500 { // The last changes may be under way when ctx ends.
				t.Errorf("interrupted after %v: the poll says that it is complete, with %d events", after, ledger.count(poller.Snapshot))
			}
			if err := p.Poll(t.Context()); err != nil {
				t.Errorf("interrupted after %v: the next poll fails: %v", after, err)
			}
			checkTruth(t, account, ledger.memory)
			if n := ledger.count(poller.Snapshot); n != 1500 {
				t.Errorf("interrupted after %v: %d snapshot events, want 1500", after, n)
			}
		})
	}
}
