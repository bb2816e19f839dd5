package poller_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"pgregory.net/rapid"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// The model of deletions runs a real poller on a simulated account whose listings and totals lie, lag and fail in every way there is a switch for, and holds
// what it publishes against the account: no contact that exists is ever called deleted, and each one that is gone is, within two reconciliations. Run more schedules with
//
//	go test ./poller -run TestNoFalseDeletion -rapid.checks=5000 -v

var deletionSchedules = flag.Int("deletions.schedules", 150, "schedules of the model of deletions, unless -rapid.checks is given")

// way is how an account's API answers throughout a schedule.
type way struct {
	Contacts, Seed int
	Count          bool // Counts instead of listings, as in large accounts.
	Rung           string
	Totals         string
	Lag            int // Seconds, at most.
	Bounds, Stamps int
	Spread         int // Seconds between the creation of one contact and the next; 0 leaves the invented times.
}

type deletionStep struct {
	What string
	N    int
}

func drawWay(t *rapid.T) way {
	return way{
		Contacts: rapid.IntRange(0, 120).Draw(t, "contacts"),
		Seed:     rapid.IntRange(0, 9).Draw(t, "seed"),
		Count:    rapid.Bool().Draw(t, "count"),
		Rung:     rapid.SampledFrom([]string{"keyed", "keyed", "keyed", "window", "relative", "created", "full"}).Draw(t, "rung"),
		Totals:   rapid.SampledFrom([]string{"exact", "exact", "exact", "capped", "paging capped", "approximate", "too many", "stuck"}).Draw(t, "totals"),
		Lag:      rapid.IntRange(0, 12).Draw(t, "lag"),
		Bounds:   rapid.IntRange(0, 7).Draw(t, "bounds"),
		Stamps:   rapid.IntRange(0, 2).Draw(t, "stamps"),
		Spread:   rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "spread"),
	}
}

func drawDeletionStep(t *rapid.T) deletionStep {
	return deletionStep{
		What: rapid.SampledFrom([]string{
			"edit", "edit silently", "create", "import", "delete", "delete", "delete many", "restore", "hide", "show", "merge", "move back",
			"poll", "poll", "poll", "reconcile", "reconcile", "reconcile and edit", "reconcile and delete", "reconcile and fail", "fault", "crash", "wait",
		}).Draw(t, "what"),
		N: rapid.IntRange(0, 200).Draw(t, "n"),
	}
}

func (w way) apply(b *nimbletest.Behaviour) {
	setting{Rung: w.Rung, Lag: w.Lag, Bounds: w.Bounds, Stamps: w.Stamps}.apply(b)
	switch w.Totals {
	case "capped":
		b.TotalCap = 30
	case "paging capped":
		b.TotalCap = 130 // More than one import, or no walk gets past it.
		if w.Rung == "keyed" || w.Rung == "created" {
			b.DepthCap = 130 // Without a sort, nobody gets past it.
		}
	case "approximate":
		n := 0
		b.TotalNoise = func(total int) int { n++; return total + n%3 - 1 }
	case "too many":
		b.TotalNoise = func(total int) int { return total + 2 }
	case "stuck":
		b.TotalNoise = func(total int) int { return total / 10 * 10 }
	}
}

// setting is the part that the model in package publisher has as well.
type setting struct {
	Rung                string
	Lag, Bounds, Stamps int
}

func (how setting) apply(b *nimbletest.Behaviour) {
	switch how.Rung {
	case "window":
		b.UpdatedSort, b.CreatedSort = nimbletest.SortIgnored, nimbletest.SortIgnored
	case "relative":
		b.Range = nimbletest.RangeRefused
	case "created":
		b.Range, b.Relative, b.UpdatedOnly = nimbletest.RangeRefused, nimbletest.RangeRefused, true
	case "full":
		b.Range, b.UpdatedSort, b.CreatedSort = nimbletest.RangeIgnored, nimbletest.SortIgnored, nimbletest.SortRefused
	}
	b.LagOf = func(id string) time.Duration {
		return time.Duration(how.Lag) * time.Second * time.Duration(id[len(id)-1]%4) / 3
	}
	b.ExclusiveLower, b.ExclusiveUpper, b.RangeSeconds = how.Bounds&1 != 0, how.Bounds&2 != 0, how.Bounds&4 != 0
	b.Timestamps = []nimbletest.TimestampForm{nimbletest.TimestampMicros, nimbletest.TimestampSeconds, nimbletest.TimestampRFC3339}[how.Stamps]
}

func TestNoFalseDeletion(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		_ = f.Value.Set(fmt.Sprint(*deletionSchedules))
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	var mu sync.Mutex
	had := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		how := drawWay(rt)
		steps := rapid.SliceOfN(rapid.Custom(drawDeletionStep), 4, 30).Draw(rt, "schedule")
		var wrong error
		var masked bool
		synctest.Test(t, func(t *testing.T) { masked, wrong = runDeletions(t, how, steps) })
		if wrong != nil {
			rt.Fatalf("%v", wrong)
		}
		mu.Lock()
		defer mu.Unlock()
		had["rung "+how.Rung]++
		had["totals "+how.Totals]++
		if masked {
			had["what no count could tell"]++
		}
		for _, s := range slices.Compact(slices.Sorted(func(yield func(string) bool) {
			for _, s := range steps {
				if !yield(s.What) {
					return
				}
			}
		})) {
			had[s]++
		}
	})
	for _, what := range slices.Sorted(maps.Keys(had)) {
		t.Logf("%6d schedules with: %s", had[what], what)
	}
}

// deletionWorld is one schedule's account, ledger and poller.
type deletionWorld struct {
	t       *testing.T
	how     way
	account *nimbletest.Account
	ledger  *memory
	p       *poller.Poller
	gone    []string // In the order in which they went, those that came back included.
	edits   int
	masked  bool
}

func runDeletions(t *testing.T, how way, steps []deletionStep) (masked bool, err error) {
	w := &deletionWorld{t: t, how: how, ledger: newMemory()}
	w.account = nimbletest.New(nimbletest.WithContacts(how.Contacts), nimbletest.WithSeed(uint64(how.Seed)))
	if how.Spread > 0 {
		for i, id := range w.account.IDs() {
			at := time.Now().Add(-time.Duration(1000-i*how.Spread) * time.Second)
			w.account.SetTimes(id, at, at)
		}
	}
	w.account.SetBehaviour(how.apply)
	time.Sleep(time.Minute)
	for _, s := range steps {
		w.do(s)
	}
	err = w.check()
	return w.masked, err
}

func (w *deletionWorld) poller() *poller.Poller {
	if w.p == nil {
		p, err := poller.New(newClient(w.t, w.account), w.ledger, poller.Config{
			Interval: 10 * time.Second, Overlap: 20 * time.Second, PerPage: 10, ConfirmAfter: time.Second, DeleteLimit: &poller.DeleteLimit{Count: 1000, Share: 1}, Log: zap.NewNop(),
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if w.how.Count {
			poller.CountOnly(p, 25)
		}
		w.p = p
	}
	return w.p
}

func (w *deletionWorld) pick(n int) (string, bool) {
	ids := w.account.IDs()
	if len(ids) == 0 {
		return "", false
	}
	return ids[n%len(ids)], true
}

func (w *deletionWorld) do(s deletionStep) {
	ctx := w.t.Context()
	id, ok := w.pick(s.N)
	w.edits++
	title := nimbletest.Field("title", fmt.Sprint("edit ", w.edits))
	switch s.What {
	case "edit":
		w.account.Edit(id, title)
	case "edit silently":
		w.account.EditSilently(id, title)
	case "create":
		w.account.Create()
	case "import":
		w.account.Import(s.N % 40)
		time.Sleep(2 * time.Second)
	case "delete":
		w.account.Delete(id)
	case "delete many":
		for i := range s.N % 30 {
			if id, ok := w.pick(s.N*7 + i*3); ok {
				w.account.Delete(id)
				w.gone = append(w.gone, id)
			}
		}
	case "hide":
		w.account.Hide(id)
	case "merge":
		if other, _ := w.pick(s.N + 1); other != id {
			w.account.Merge(other, id)
		}
	case "restore", "show":
		if len(w.gone) > 0 {
			w.account.Restore(w.gone[s.N%len(w.gone)])
			w.account.Show(w.gone[s.N%len(w.gone)])
		}
	case "move back": // A date that goes back, as a restored backup has it.
		if created, updated := w.account.Times(id); ok && updated.Add(-time.Hour).After(created) {
			w.account.SetTimes(id, created, updated.Add(-time.Hour))
		}
	case "poll":
		_ = w.poller().Poll(ctx)
	case "reconcile":
		_, _ = w.poller().Reconcile(ctx)
	case "reconcile and edit", "reconcile and delete":
		left := 1 + s.N%6
		w.account.OnRequest(func(n int, _ *http.Request) {
			if id, ok := w.pick(s.N*5 + n); ok && left > 0 {
				left--
				if s.What == "reconcile and delete" && n%2 == 0 {
					w.account.Delete(id)
				} else {
					w.account.Edit(id, nimbletest.Field("title", fmt.Sprint("edit ", w.edits, " ", n)))
				}
			}
		})
		_, _ = w.poller().Reconcile(ctx)
		w.account.OnRequest(nil)
	case "reconcile and fail":
		w.account.OnRequest(func(n int, _ *http.Request) {
			if n == 1+s.N%9 {
				w.account.Inject(1, nimbletest.Fault{Status: 500})
			}
		})
		_, _ = w.poller().Reconcile(ctx)
		w.account.OnRequest(nil)
		w.account.ClearFaults()
	case "fault":
		w.account.Inject(1+s.N%3, []nimbletest.Fault{{Status: 500}, {Status: 429}, {Truncate: true}, {Reset: true}, {HTML: true}, {Status: 403}, {Status: 404}}[s.N%7])
	case "crash":
		w.p = nil
	case "wait":
		time.Sleep(time.Duration(s.N) * 200 * time.Millisecond)
	}
	if ok && slices.Contains([]string{"delete", "hide", "merge"}, s.What) {
		w.gone = append(w.gone, id)
	}
	time.Sleep(50 * time.Millisecond)
}

// check lets everything come to rest, reconciles twice, and holds the ledger against the account.
func (w *deletionWorld) check() error {
	w.account.ClearFaults()
	w.account.Create() // An account that turns up empty is held back.
	ctx := w.t.Context()
	for range 3 {
		time.Sleep(15 * time.Second)
		if err := w.poller().Poll(ctx); err != nil && !errors.Is(err, poller.ErrConflict) {
			return fmt.Errorf("poll: %w", err)
		}
	}
	for range 2 {
		if _, err := w.poller().Reconcile(ctx); err != nil {
			return fmt.Errorf("reconcile: %w", err)
		}
	}
	gone, back := w.unseen()
	counted := w.how.Count || w.account.Len() > 45
	if masked := gone > 0 && gone == back || w.how.Totals != "exact"; counted && gone+back > 0 && masked {
		// As many have come into sight as have gone from it, or a total lies by as many: no count tells, and the comparison of everything, slice by
		// slice, has to.
		w.masked = true
		for range w.account.Len()/5 + 2 {
			if _, err := w.poller().Reconcile(ctx); err != nil {
				return fmt.Errorf("reconcile: %w", err)
			}
		}
	}
	var wrong []error
	existing := make(map[string]bool)
	for _, id := range w.account.IDs() {
		existing[id] = true
		raw, _ := w.account.Contact(id)
		want, err := poller.FingerprintOf([]byte(raw))
		if err != nil {
			return err
		}
		events := w.ledger.of(id)
		switch {
		case len(events) == 0:
			wrong = append(wrong, fmt.Errorf("contact %s has no event", id))
		case events[len(events)-1].Kind == poller.Deleted:
			wrong = append(wrong, fmt.Errorf("contact %s exists, and its last event is %s", id, poller.Deleted))
		case events[len(events)-1].Fingerprint != want && w.quick(id):
			wrong = append(wrong, fmt.Errorf("contact %s: the last event shows an older state", id))
		}
	}
	absent := w.absences()
	for _, e := range w.ledger.events {
		if e.Kind == poller.Deleted && !absent.at(e.Contact.ID, e.Observed) {
			wrong = append(wrong, fmt.Errorf("contact %s was called deleted at %v, when it existed", e.Contact.ID, e.Observed))
		}
		if e.Kind == poller.Created && e.Restored && e.Revision == 1 {
			wrong = append(wrong, fmt.Errorf("contact %s is restored with revision 1", e.Contact.ID))
		}
	}
	for id := range w.ledger.last {
		events := w.ledger.of(id)
		if !existing[id] && events[len(events)-1].Kind != poller.Deleted {
			wrong = append(wrong, fmt.Errorf("contact %s is gone, and its last event is %s", id, events[len(events)-1].Kind))
		}
		for i, e := range events {
			if e.Revision != uint64(i+1) {
				wrong = append(wrong, fmt.Errorf("contact %s: event %d has revision %d", id, i+1, e.Revision))
			}
		}
	}
	return errors.Join(wrong...)
}

// unseen counts the contacts that are gone and not called deleted, and those that exist and are not known to.
func (w *deletionWorld) unseen() (gone, back int) {
	existing := make(map[string]bool)
	for _, id := range w.account.IDs() {
		existing[id] = true
		if events := w.ledger.of(id); len(events) == 0 || events[len(events)-1].Kind == poller.Deleted {
			back++
		}
	}
	for id := range w.ledger.last {
		if events := w.ledger.of(id); !existing[id] && events[len(events)-1].Kind != poller.Deleted {
			gone++
		}
	}
	return gone, back
}

// quick tells whether a contact's state shows in polls: edits that moved no `updated` take the comparison of everything, which takes a day.
func (w *deletionWorld) quick(id string) bool {
	for _, e := range w.account.Journal() {
		if e.ID == id && (e.Op == nimbletest.OpEditSilently || e.Op == nimbletest.OpSetTimes) {
			return false
		}
	}
	return true
}

// absences are the times in which contacts were gone.
type absences map[string][]nimbletest.Entry

func (w *deletionWorld) absences() absences {
	a := make(absences)
	for _, e := range w.account.Journal() {
		switch e.Op {
		case nimbletest.OpDelete, nimbletest.OpHide, nimbletest.OpRestore, nimbletest.OpShow, nimbletest.OpMerge:
			a[e.ID] = append(a[e.ID], e)
		}
	}
	return a
}

// at tells whether a contact was gone at a moment, or went or came at it.
func (a absences) at(id string, moment time.Time) bool {
	deleted, hidden := false, false
	for _, e := range a[id] {
		if e.Time.After(moment) {
			break
		}
		if e.Time.Equal(moment) {
			return true
		}
		switch e.Op {
		case nimbletest.OpDelete:
			deleted = true
		case nimbletest.OpRestore:
			deleted = false
		case nimbletest.OpHide:
			hidden = true
		case nimbletest.OpShow:
			hidden = false
		case nimbletest.OpMerge: // Named after the survivor.
		}
	}
	return deleted || hidden
}
