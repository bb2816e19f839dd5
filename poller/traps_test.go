package poller_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

func TestPollGoesOnAfterAPIFaults(t *testing.T) {
	faults := map[string]nimbletest.Fault{
		"429 without Retry-After": {Status: http.StatusTooManyRequests},
		"429 with Retry-After":    {Status: http.StatusTooManyRequests, RetryAfter: "20"},
		"500":                     {Status: http.StatusInternalServerError},
		"502 with a web page":     {Status: http.StatusBadGateway, HTML: true},
		"503":                     {Status: http.StatusServiceUnavailable},
		"a web page":              {HTML: true},
		"a truncated body":        {Truncate: true},
		"a reset connection":      {Reset: true},
		"an empty body":           {Body: " "},
		"no answer in time":       {Delay: time.Hour},
		"half an answer in time":  {BodyDelay: time.Hour},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(450))
				ledger := newMemory()
				account.OnRequest(func(n int, _ *http.Request) {
					if n == 3 { // In the middle of the snapshot.
						account.Inject(4, fault)
					}
				})
				p := start(t, account, ledger, poller.Config{})
				pass(3 * time.Minute)
				if got := ledger.count(poller.Snapshot); got != 450 {
					t.Errorf("%d snapshot events, want 450", got)
				}
				if status := p.Status(); status.State != poller.Polling || status.Findings.Strategy != poller.KeyedWalk {
					t.Errorf("status = %+v, want polling by keyed walk", status)
				}
				checkTruth(t, account, ledger)
			})
		})
	}
}

func TestPollContinuesAtTheSameKeyAfterAPIFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(2000))
		ledger := newMemory()
		account.OnRequest(func(n int, _ *http.Request) {
			if n == 15 { // In the second half of the snapshot.
				account.Inject(3, nimbletest.Fault{Status: http.StatusServiceUnavailable})
			}
		})
		start(t, account, ledger, poller.Config{})
		pass(5 * time.Second)
		account.OnRequest(nil)
		failed, pages := 0, 0
		for _, r := range account.Requests() {
			switch {
			case r.Status == http.StatusServiceUnavailable:
				failed++
			case strings.HasSuffix(r.Path, "/contacts"):
				pages++
			}
		}
		if failed != 3 {
			t.Fatalf("%d requests failed, want 3", failed)
		}
		// There are 20 pages of contacts; the walk begins each page with the contact that the one before ended with, and looks at the order once.
		if pages > 26 {
			t.Errorf("%d pages read: reading began anew after the faults", pages)
		}
		pass(time.Minute)
		checkTruth(t, account, ledger)
	})
}

func TestSnapshotWhilePeopleEditAndDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(1000))
		ledger := newMemory()
		ids := account.IDs()
		edited := 0
		account.OnRequest(func(n int, _ *http.Request) {
			if n < 10 { // Before the walk gets there, behind it, and where it stands.
				account.Delete(ids[n*90], ids[n*90+1])
				for i := range 5 {
					account.Edit(ids[(n*150+i*7+3)%1000], nimbletest.Field("title", fmt.Sprint("edit ", n, i)))
					edited++
				}
			}
		})
		start(t, account, ledger, poller.Config{})
		pass(5 * time.Minute)
		if edited == 0 {
			t.Fatal("nothing was edited")
		}
		checkTruth(t, account, ledger)
		for _, id := range ids {
			events := ledger.of(id)
			if _, exists := account.Contact(id); !exists && len(events) > 0 && events[len(events)-1].Kind != poller.Deleted {
				t.Errorf("contact %s is gone, its events are %s", id, ledger.kinds(id))
			}
			if len(events) > 0 && events[0].Kind != poller.Snapshot {
				t.Errorf("contact %s, which was there before: %s", id, ledger.kinds(id))
			}
		}
	})
}

// repeating is a source that counts the rows which a listing shows although it showed them already.
type repeating struct {
	*altered
	mu      sync.Mutex // Pages are fetched beside the rest.
	shown   map[string]bool
	repeats int
}

// take returns the count, and begins it anew.
func (r *repeating) take() (repeats int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	repeats, r.repeats = r.repeats, 0
	return repeats
}

func newRepeating(client *nimble.Client) *repeating {
	r := &repeating{shown: make(map[string]bool)}
	r.altered = &altered{client, func(page *nimble.Page) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if page.Meta.Page == 1 {
			clear(r.shown)
		}
		for _, c := range page.Contacts {
			if r.shown[c.ID] {
				r.repeats++
			}
			r.shown[c.ID] = true
		}
		if n := len(page.Contacts); n > 1 && n < page.Meta.PerPage { // And one within a page.
			page.Contacts = append(page.Contacts, page.Contacts[n-1])
			r.repeats++
		}
	}}
	return r
}

// TestRowsTwiceAcrossPages begins each page with the row that the page before ended with, as listings do in which a row comes in between two requests, and shows rows twice within
// one page. In the snapshot and in later polls, that makes no event twice, and no poll fails of it.
func TestRowsTwiceAcrossPages(t *testing.T) {
	for strategy, behaviour := range map[poller.Strategy]func(b *nimbletest.Behaviour){
		poller.KeyedWalk:   func(*nimbletest.Behaviour) {},
		poller.WindowRead:  func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortIgnored },
		poller.CreatedWalk: func(b *nimbletest.Behaviour) { b.Range, b.UpdatedOnly = nimbletest.RangeIgnored, true },
		poller.FullCompare: func(b *nimbletest.Behaviour) {
			b.Range, b.UpdatedSort, b.CreatedSort = nimbletest.RangeIgnored, nimbletest.SortIgnored, nimbletest.SortIgnored
		},
	} {
		t.Run(strategy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(100))
				account.Import(120) // Pages of one instant advance by number, in whatever way the others do.
				account.SetBehaviour(func(b *nimbletest.Behaviour) {
					behaviour(b)
					b.DuplicateRows = true
				})
				ledger := newMemory()
				source := newRepeating(newClient(t, account))
				polled := func(r poller.PollResult) {
					if r.Err != nil {
						t.Errorf("poll fails: %v", r.Err)
					}
				}
				pass(time.Minute)
				p, stop := startBetween(t, source, ledger, poller.Config{Interval: 30 * time.Second, Batch: 50, Polled: polled})
				defer stop()
				if source.take() == 0 {
					t.Error("no row came twice in the snapshot")
				}
				pass(time.Minute)
				source.take()
				ids := account.IDs()
				account.Import(130)
				for _, id := range ids[60:180] {
					account.Edit(id, nimbletest.Field("title", "new"))
				}
				pass(40 * time.Second)
				if source.take() == 0 {
					t.Error("no row came twice in the polls after it")
				}
				pass(time.Minute)
				if s, c, u := ledger.count(poller.Snapshot), ledger.count(poller.Created), ledger.count(poller.Updated); s != 220 || c != 130 || u != 120 || len(ledger.events) != s+c+u {
					t.Errorf("%d snapshot, %d created and %d updated events of %d, want 220, 130 and 120", s, c, u, len(ledger.events))
				}
				if got := p.Status().Findings.Strategy; got != strategy {
					t.Errorf("strategy %v, want %v", got, strategy)
				}
				checkTruth(t, account, ledger)
			})
		})
	}
}

// TestImportThatKeepsOldDates adds contacts whose `updated` lies far behind the settled mark, where no poll looks, and some whose `created` does as well.
func TestImportThatKeepsOldDates(t *testing.T) {
	for _, contacts := range []int{200, 2000} { // One is compared by listing ids, the other by counting.
		t.Run(fmt.Sprint("contacts=", contacts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(contacts))
				ledger := newMemory()
				start(t, account, ledger, poller.Config{})
				pass(time.Hour)
				old := time.Now().AddDate(-3, 0, 0)
				var kept []string
				for i := range 30 {
					id, created := account.Create(), time.Time{}
					if i >= 20 {
						created = old.Add(-time.Hour)
					}
					account.SetTimes(id, created, old.Add(time.Duration(i)*time.Minute))
					kept = append(kept, id)
				}
				pass(16 * time.Minute)
				for i, id := range kept {
					want := "created "
					if i >= 20 {
						want = "snapshot " // By its own word, it was there before the account was met.
					}
					if got := ledger.kinds(id); got != want {
						t.Errorf("contact %d: %q, want %q", i, got, want)
					}
				}
				account.Edit(kept[0], nimbletest.Field("title", "new"))
				account.Edit(kept[29], nimbletest.Field("title", "new"))
				pass(time.Hour)
				if got := len(ledger.events); got != contacts+32 {
					t.Errorf("%d events, want %d", got, contacts+32)
				}
				checkTruth(t, account, ledger)
			})
		})
	}
}

func TestMalformedRecordAmongGoodOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(50))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{})
		account.PutRaw("broken", `{"id": {"$oid": "5"}, "fields": []}`)
		account.Create()
		pass(time.Minute)
		if got := ledger.count(poller.Created); got != 1 {
			t.Errorf("%d created events, want the good one", got)
		}
		if len(ledger.rejected) == 0 || !strings.Contains(string(ledger.rejected[0].Record), "$oid") {
			t.Errorf("rejected = %v, want the broken record", ledger.rejected)
		}
		if status := p.Status(); status.State != poller.Polling {
			t.Errorf("status = %+v, want polling", status)
		}
	})
}

func TestMostlyMalformedPageFailsThePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(50))
		ledger := newMemory()
		p := start(t, account, ledger, poller.Config{})
		pass(10 * time.Minute)
		settled := p.Status().Settled
		for i := range 5 {
			account.PutRaw(fmt.Sprint("broken", i), `"not even an object"`)
		}
		pass(10 * time.Minute)
		status := p.Status()
		if status.State != poller.Failing || status.Err == nil || !strings.Contains(status.Err.Error(), "cannot be understood") {
			t.Errorf("status = %+v, want failing", status)
		}
		if status.Settled.Sub(settled) > time.Minute {
			t.Errorf("the settled mark moved from %v to %v over records that were not understood", settled, status.Settled)
		}
	})
}

// outage is a ledger whose reads fail for a while.
type outage struct {
	*memory
	failing  atomic.Bool
	attempts atomic.Int32 // To append while it lasts.
}

func (o *outage) Append(ctx context.Context, changes []poller.Change) ([]uint64, error) {
	if o.failing.Load() {
		o.attempts.Add(1)
	}
	return o.memory.Append(ctx, changes)
}

func (o *outage) Load(ctx context.Context, known func(poller.Known)) error {
	if o.failing.Load() {
		return errors.New("no answer")
	}
	return o.memory.Load(ctx, known)
}

func TestFailingStateReadIsNoUnknownContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(120))
		ledger := &outage{memory: newMemory()}
		_, stop := startOn(t, account, ledger, poller.Config{})
		pass(time.Minute)
		stop()
		ledger.failing.Store(true)
		p, stop := startOn(t, account, ledger, poller.Config{})
		defer func() { stop() }()
		account.Edit(account.IDs()[3], nimbletest.Field("title", "meanwhile"))
		pass(10 * time.Minute)
		if got := len(ledger.events); got != 120 || p.Status().State != poller.Failing {
			t.Fatalf("%d events and %v while the state cannot be read, want 120 and failing", got, p.Status().State)
		}
		if n := ledger.attempts.Load(); n > 0 {
			t.Errorf("%d attempts to publish without knowing what is known", n)
		}
		ledger.failing.Store(false)
		pass(time.Minute)
		checkTruth(t, account, ledger.memory)
		if got := len(ledger.events); got != 121 {
			t.Errorf("%d events, want 121", got)
		}
	})
}

// forgetful is a ledger whose last events cannot be read while forgets is set.
type forgetful struct {
	*memory
	forgets atomic.Bool
}

func (f *forgetful) Last(ctx context.Context, k poller.Known) (jsontext.Value, error) {
	if f.forgets.Load() {
		return nil, errors.New("no answer")
	}
	return f.memory.Last(ctx, k)
}

// TestFailingReadOfTheLastEventIsNoSnapshot has an edit seen while nobody can say what the contact was before: that waits, and what comes with it is published.
func TestFailingReadOfTheLastEventIsNoSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(120))
		ledger := &forgetful{memory: newMemory()}
		p, stop := startOn(t, account, ledger, poller.Config{})
		defer stop()
		pass(time.Minute)
		ledger.forgets.Store(true)
		account.Create()
		pass(time.Second)
		account.Edit(account.IDs()[3], nimbletest.Field("title", "meanwhile"))
		pass(5 * time.Minute)
		if s, c, u := ledger.count(poller.Snapshot), ledger.count(poller.Created), ledger.count(poller.Updated); s != 120 || c != 1 || u != 0 || p.Status().State != poller.Failing {
			t.Errorf("%d snapshot, %d created and %d updated events and %v, want 120, 1, 0 and failing", s, c, u, p.Status().State)
		}
		ledger.forgets.Store(false)
		pass(2 * time.Minute)
		checkTruth(t, account, ledger.memory)
		if u := ledger.count(poller.Updated); u != 1 || len(ledger.events) != 122 {
			t.Errorf("%d updated events of %d, want 1 of 122", u, len(ledger.events))
		}
	})
}

func TestOlderUpdatedDoesNotHideAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(10))
		ledger := newMemory()
		id := account.IDs()[4]
		account.SetTimes(id, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
		start(t, account, ledger, poller.Config{})
		// Back from the future: the contact's `updated` is now before the known one, and its content is new.
		account.Edit(id, nimbletest.Field("title", "now"))
		account.SetTimes(id, time.Time{}, time.Now())
		pass(time.Minute)
		events := ledger.of(id)
		if len(events) != 2 || events[1].Kind != poller.Updated {
			t.Fatalf("%d events of the contact, want a snapshot and an update", len(events))
		}
		checkTruth(t, account, ledger)
	})
}

// altered is a source whose pages are changed on the way.
type altered struct {
	*nimble.Client
	page func(*nimble.Page)
}

func (a *altered) ContactsPage(ctx context.Context, opts nimble.ListOptions) (*nimble.Page, error) {
	page, err := a.Client.ContactsPage(ctx, opts)
	if err == nil {
		a.page(page)
	}
	return page, err
}

// TestStaleReplicaIsAskedAgainByID lets a listing show a state that it was ahead of already, as one replica of a search engine may.
func TestStaleReplicaIsAskedAgainByID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(10))
		ledger := newMemory()
		id := account.Create()
		var old nimble.Contact
		var stale atomic.Bool
		source := &altered{newClient(t, account), func(page *nimble.Page) {
			for i, c := range page.Contacts {
				switch {
				case c.ID == id && old.ID == "":
					old = c
				case c.ID == id && stale.Load():
					page.Contacts[i] = old
				}
			}
		}}
		_, stop := startBetween(t, source, ledger, poller.Config{})
		defer stop()
		pass(time.Second)
		account.Edit(id, nimbletest.Field("title", "new"))
		pass(15 * time.Second)
		stale.Store(true)
		pass(30 * time.Second)
		stale.Store(false)
		pass(30 * time.Second)
		if events := ledger.of(id); len(events) != 2 {
			t.Errorf("%d events, want the two of its two states", len(events))
		}
		checkTruth(t, account, ledger)
	})
}

// TestTimesWithoutZoneThatAreNotUTC lets an account write its timestamps in a zone of its own without saying so.
func TestTimesWithoutZoneThatAreNotUTC(t *testing.T) {
	for _, offset := range []time.Duration{3 * time.Hour, -5*time.Hour - 30*time.Minute} {
		t.Run(offset.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(250))
				ledger := newMemory()
				source := &altered{newClient(t, account), func(page *nimble.Page) {
					for i := range page.Contacts {
						page.Contacts[i].Created = page.Contacts[i].Created.Add(offset)
						page.Contacts[i].Updated = page.Contacts[i].Updated.Add(offset)
					}
				}}
				p, stop := startBetween(t, source, ledger, poller.Config{})
				defer stop()
				id := account.IDs()[7]
				account.Edit(id, nimbletest.Field("title", "new"))
				pass(5 * time.Minute)
				checkTruth(t, account, ledger)
				if got := p.Status().Findings.Strategy; got != poller.KeyedWalk {
					t.Errorf("strategy %v, want the keyed walk", got)
				}
				_, updated := account.Times(id)
				if events := ledger.of(id); !events[len(events)-1].Contact.Updated.Equal(updated) {
					t.Errorf("updated %v, want %v", events[len(events)-1].Contact.Updated, updated)
				}
			})
		})
	}
}

// TestMalformedRecordIsLookedAtAgain spoils the records of a known contact and of a new one, and mends them without `updated` telling. Neither passes for deleted meanwhile, the log names each
// once, and reconciliation finds what became of them.
func TestMalformedRecordIsLookedAtAgain(t *testing.T) {
	for name, spoilt := range map[string]string{
		"null":           `null`,
		"a text":         `"soon"`,
		"without id":     `{"record_type": "person", "fields": {}}`,
		"odd id":         `{"id": {"$oid": "ID"}, "fields": {}}`,
		"a name twice":   `{"id": "ID", "tags": [], "tags": ["a"]}`,
		"no valid UTF-8": "{\"id\": \"ID\", \"creator\": \"\xff\"}",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(60))
				ledger := newMemory()
				core, logged := observer.New(zap.WarnLevel)
				p, stop := startOn(t, account, ledger, poller.Config{Interval: time.Minute, Log: zap.New(core)})
				defer stop()
				pass(time.Hour)
				known, unknown := account.IDs()[30], account.Create(nimbletest.Field("title", "new"))
				for _, id := range []string{known, unknown} {
					account.Spoil(id, strings.ReplaceAll(spoilt, "ID", id))
				}
				pass(time.Hour)
				if status := p.Status(); status.State != poller.Polling { // Although there is nothing else on the page.
					t.Errorf("state %s, %v", status.State, status.Err)
				}
				account.Edit(account.IDs()[7], nimbletest.Field("title", "beside them"))
				pass(time.Hour)
				if got := ledger.kinds(known) + ledger.kinds(unknown) + ledger.kinds(account.IDs()[7]); got != "snapshot snapshot updated " {
					t.Errorf("events while the records cannot be read: %s", got)
				}
				records := make(map[string]int)
				for _, r := range ledger.rejected {
					records[string(r.Record)]++
				}
				if want := strings.ReplaceAll(spoilt, "ID", known); records[want] == 0 {
					t.Errorf("rejected %v, want %q", records, want)
				}
				if strings.HasPrefix(spoilt, `{"id": "ID"`) {
					if n := logged.FilterField(zap.String("contact_id", unknown)).Len(); n != 1 {
						t.Errorf("the record of contact %s is logged %d times, want once", unknown, n)
					}
				}
				if status := p.Status(); status.State != poller.Polling {
					t.Errorf("state %s, %v", status.State, status.Err)
				}
				for _, id := range []string{known, unknown} {
					account.Edit(id, nimbletest.Field("title", "mended"))
					account.Mend(id)
					account.SetTimes(id, time.Time{}, time.Now().Add(-50*time.Minute)) // Where no poll looks.
				}
				pass(2 * time.Hour)
				if got := ledger.kinds(known) + ledger.kinds(unknown); got != "snapshot updated created " {
					t.Errorf("events after they were mended: %s", got)
				}
				checkTruth(t, account, ledger)
			})
		})
	}
}
