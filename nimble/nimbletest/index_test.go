package nimbletest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"nimble-bridge/nimble/nimbletest"
)

func TestIndexLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := nimbletest.New(nimbletest.WithContacts(3))
		a.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = 2 * time.Second })
		c := call(t, a)
		old := a.IDs()
		listed := func(id string) string {
			for _, raw := range c.list("contacts").Resources {
				if got := parseContact(t, raw); got.ID == id {
					return got.text("title") + " " + got.Updated
				}
			}
			return "nothing"
		}
		created := a.Create(nimbletest.Field("title", "new"))
		a.Delete(old[0])
		before := listed(old[1])
		a.Edit(old[1], nimbletest.Field("title", "edited"))

		if got, ok := c.contact(created); !ok || got.text("title") != "new" {
			t.Error("reading by id lags")
		}
		if _, ok := c.contact(old[0]); ok {
			t.Error("the deleted contact can be read by id")
		}
		time.Sleep(2*time.Second - time.Nanosecond)
		if got := c.ids(""); !slices.Equal(got, old) {
			t.Errorf("ids after 1.99 s = %v, want the old %v", got, old)
		}
		if got := listed(old[1]); got != before {
			t.Errorf("listed after 1.99 s: %s, want the old row %s", got, before)
		}
		time.Sleep(time.Nanosecond)
		if got := c.ids(""); !slices.Equal(got, a.IDs()) || len(got) != 3 {
			t.Errorf("ids after 2 s = %v, want %v", got, a.IDs())
		}
		if got := listed(old[1]); got == before || got[:6] != "edited" {
			t.Errorf("listed after 2 s: %s", got)
		}
	})
}

func TestIndexLagOutOfOrder(t *testing.T) {
	c := newClock()
	a := nimbletest.New(nimbletest.WithClock(c.Now))
	lags := map[string]time.Duration{}
	first, second := a.Create(), a.Create()
	lags[first], lags[second] = 5*time.Second, time.Second
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.LagOf = func(id string) time.Duration { return lags[id] } })
	start, _ := a.Times(second)
	a.Touch(first)
	a.Touch(second)
	c.Advance(time.Second)
	query := fmt.Sprintf(`{"updated":{"range":{"start_datetime":%q,"end_datetime":"2099-01-01T00:00:00Z"}}}`, start.Add(time.Microsecond).Format(time.RFC3339Nano))
	if got := call(t, a).ids(query); !slices.Equal(got, []string{second}) {
		t.Errorf("after 1 s: %v, want only the later edit %s", got, second)
	}
	// An older version that arrives late does not undo a newer one.
	lags[first] = 0
	a.Delete(first)
	if got := call(t, a).ids(""); !slices.Equal(got, []string{second}) {
		t.Errorf("ids = %v, want %s", got, second)
	}
	c.Advance(10 * time.Second)
	if got := call(t, a).ids(""); !slices.Equal(got, []string{second}) {
		t.Errorf("ids = %v after the old version arrived, want %s", got, second)
	}
}

// version is what a model of the account knows of one version of a contact.
type version struct {
	due              time.Time
	created, updated time.Time
	visible          bool
}

// TestIndexAgainstModel lets anything happen to an account, with any lag, and compares every way to list it
// with a model that remembers all versions.
func TestIndexAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := newClock()
		start := c.Now()
		a := nimbletest.New(nimbletest.WithClock(c.Now), nimbletest.WithContacts(rapid.IntRange(0, 10).Draw(r, "contacts")))
		model := make(map[string][]version)
		var lag time.Duration
		remember := func(visible func(id string) bool, ids ...string) {
			for _, id := range ids {
				created, updated := a.Times(id)
				model[id] = append(model[id], version{c.Now().Add(lag), created, updated, visible(id)})
			}
		}
		exists := func(id string) bool { _, ok := a.Contact(id); return ok }
		remember(exists, a.IDs()...)
		known := func() []string {
			var ids []string
			for id := range model {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			return ids
		}
		one := func(r *rapid.T) string {
			if len(model) == 0 {
				remember(exists, a.Create())
			}
			return rapid.SampledFrom(known()).Draw(r, "id")
		}
		indexed := func(id string) (version, bool) {
			for _, v := range slices.Backward(model[id]) {
				if !v.due.After(c.Now()) {
					return v, v.visible
				}
			}
			return version{}, false
		}
		actions := map[string]func(*rapid.T){
			"wait":   func(r *rapid.T) { c.Advance(time.Duration(rapid.IntRange(0, 3000).Draw(r, "ms")) * time.Millisecond) },
			"create": func(*rapid.T) { remember(exists, a.Create()) },
			"import": func(r *rapid.T) {
				remember(exists, a.Import(rapid.SampledFrom([]int{1, 2, 3, 4, 5, 6, 7, 66}).Draw(r, "n"))...)
			},
			"touch": func(r *rapid.T) {
				if id := one(r); a.Touch(id) {
					remember(exists, id)
				}
			},
			"edit": func(r *rapid.T) {
				if id := one(r); a.Edit(id, nimbletest.Star(true)) {
					remember(exists, id)
				}
			},
			"date": func(r *rapid.T) {
				at := start.Add(time.Duration(rapid.IntRange(-5, 5).Draw(r, "s")) * time.Second)
				if id := one(r); a.SetTimes(id, at, at) {
					remember(exists, id)
				}
			},
			"delete": func(r *rapid.T) {
				if id := one(r); a.Delete(id) == 1 {
					remember(exists, id)
				}
			},
			"restore": func(r *rapid.T) {
				if id := one(r); a.Restore(id) == 1 {
					remember(exists, id)
				}
			},
			"hide": func(r *rapid.T) {
				if id := one(r); a.Hide(id) == 1 {
					remember(exists, id)
				}
			},
			"show": func(r *rapid.T) {
				if id := one(r); a.Show(id) == 1 {
					remember(exists, id)
				}
			},
			"lag": func(r *rapid.T) {
				lag = time.Duration(rapid.IntRange(0, 4).Draw(r, "lag")) * time.Second
				a.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = lag })
			},
			"": func(r *rapid.T) {
				from := start.Add(time.Duration(rapid.IntRange(-6, 6).Draw(r, "from")) * time.Second)
				to := from.Add(time.Duration(rapid.IntRange(0, 20).Draw(r, "length")) * time.Second)
				if rapid.IntRange(0, 2).Draw(r, "wide") == 0 {
					from = from.AddDate(-10, 0, 0)
				}
				field := rapid.SampledFrom([]string{"created", "updated"}).Draw(r, "field")
				sort := rapid.SampledFrom([]string{"", "created", "updated"}).Draw(r, "sort")
				want := make(map[string][2]string)
				for id := range model {
					v, ok := indexed(id)
					at := v.updated
					if field == "created" {
						at = v.created
					}
					if ok && !at.Before(from) && !at.After(to) {
						want[id] = [2]string{wire(v.created), wire(v.updated)}
					}
				}
				params := []string{"query", fmt.Sprintf(`{%q:{"range":{"start_datetime":%q,"end_datetime":%q}}}`, field, from.UTC().Format(time.RFC3339Nano), to.UTC().Format(time.RFC3339Nano))}
				if sort != "" {
					params = append(params, "sort", sort+":"+rapid.SampledFrom([]string{"asc", "desc"}).Draw(r, "order"))
				}
				got := readIDs(t, a, rapid.SampledFrom([]int{7, 30, 100}).Draw(r, "per page"), params)
				keys := make([]string, len(got))
				for i, id := range got {
					if keys[i] = want[id][1]; sort == "created" {
						keys[i] = want[id][0]
					}
				}
				if len(params) == 4 && params[3] == sort+":desc" {
					slices.Reverse(keys)
				}
				if sort != "" && !slices.IsSorted(keys) {
					r.Fatalf("%q: out of order: %v", params, keys)
				}
				for _, raw := range call(t, a).list("contacts", append(params, "per_page", "3")...).Resources {
					var row struct{ ID, Created, Updated string }
					if err := json.Unmarshal(raw, &row); err != nil {
						r.Fatal(err)
					}
					if got := [2]string{row.Created, row.Updated}; got != want[row.ID] {
						r.Fatalf("%q: %s is listed with times %s, want %s", params, row.ID, got, want[row.ID])
					}
				}
				slices.Sort(got)
				if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), got, cmpopts.EquateEmpty()); diff != "" {
					r.Fatalf("%q (-want +got):\n%s", params, diff)
				}
			},
		}
		r.Repeat(actions)
	})
}

// readIDs pages through a listing of ids and gives them in order.
func readIDs(t *testing.T, a *nimbletest.Account, perPage int, params []string) []string {
	t.Helper()
	c := call(t, a)
	var ids []string
	for n := 1; ; n++ {
		p := c.list("contacts/ids", append(slices.Clone(params), "per_page", fmt.Sprint(perPage), "page", fmt.Sprint(n))...)
		for _, raw := range p.Resources {
			ids = append(ids, strings.Trim(string(raw), `"`))
		}
		if n >= p.Meta.Pages {
			if p.Meta.Total != len(ids) {
				t.Fatalf("total = %d, saw %d", p.Meta.Total, len(ids))
			}
			return ids
		}
	}
}

// wire is how the account writes an instant, fit for comparison as text.
func wire(at time.Time) string {
	if at.Nanosecond() == 0 {
		return at.UTC().Format("2006-01-02T15:04:05")
	}
	return at.UTC().Format("2006-01-02T15:04:05.000000")
}

func TestOwnOrderIsFixedAndTellsNothing(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(200))
	c := call(t, a)
	order := func() []string {
		var ids []string
		for _, raw := range c.list("contacts/ids", "per_page", "200").Resources {
			ids = append(ids, string(raw))
		}
		return ids
	}
	first := order()
	if slices.IsSorted(first) {
		t.Error("the account's own order is that of the ids")
	}
	a.Touch(a.IDs()[17])
	if diff := cmp.Diff(first, order()); diff != "" {
		t.Errorf("an edit changed the order (-before +after):\n%s", diff)
	}
}

func TestTies(t *testing.T) {
	a := nimbletest.New(nimbletest.WithClock(newClock().Now))
	imported := a.Import(60)
	c := call(t, a)
	order := func(dir string) []string {
		var ids []string
		for _, n := range []string{"1", "2", "3"} {
			for _, raw := range c.list("contacts/ids", "per_page", "25", "page", n, "sort", "updated:"+dir).Resources {
				var id string
				if err := json.Unmarshal(raw, &id); err != nil {
					t.Fatal(err)
				}
				ids = append(ids, id)
			}
		}
		return ids
	}
	ascending, descending := order("asc"), order("desc")
	if slices.Equal(ascending, imported) || slices.IsSorted(ascending) {
		t.Error("ties come in order of creation or id")
	}
	if !slices.Equal(ascending, order("asc")) {
		t.Error("ties change their order between requests")
	}
	slices.Reverse(descending)
	if !slices.Equal(ascending, descending) {
		t.Error("descending is not ascending backwards")
	}
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.UnstableTies = true })
	page := func() []string {
		var ids []string
		for _, raw := range c.list("contacts/ids", "per_page", "60", "sort", "updated:asc").Resources {
			ids = append(ids, string(raw))
		}
		return ids
	}
	one, two := page(), page()
	if slices.Equal(one, two) {
		t.Error("unstable ties are stable")
	}
	slices.Sort(one)
	slices.Sort(two)
	if !slices.Equal(one, two) || len(slices.Compact(one)) != 60 {
		t.Error("unstable ties lose or repeat rows within a page")
	}
}

func TestOnRequestMayChangeTheAccount(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(20))
	ids := a.IDs()
	a.OnRequest(func(n int, r *http.Request) {
		if n == 2 && r.URL.Query().Get("page") == "2" {
			a.Delete(ids[0])
			a.Touch(ids[1])
		}
	})
	c := call(t, a)
	first := c.list("contacts", "page", "1", "sort", "updated:asc", "per_page", "10")
	second := c.list("contacts", "page", "2", "sort", "updated:asc", "per_page", "10")
	if first.Meta.Total != 20 || second.Meta.Total != 19 {
		t.Errorf("totals = %d, %d, want 20, 19", first.Meta.Total, second.Meta.Total)
	}
	if got := parseContact(t, second.Resources[len(second.Resources)-1]); got.ID != ids[1] {
		t.Errorf("last row is %s, want the touched %s", got.ID, ids[1])
	}
}

func TestBulkLagArrivesTogether(t *testing.T) {
	c := newClock()
	a := nimbletest.New(nimbletest.WithClock(c.Now), nimbletest.WithContacts(500))
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = time.Second })
	imported := a.Import(5000)
	a.Delete(imported[:2000]...)
	for _, id := range imported[2000:2200] {
		a.Touch(id) // Two versions of one contact arrive at once.
	}
	a.Delete(a.IDs()[:250]...)
	if got := call(t, a).list("contacts/ids", "per_page", "1").Meta.Total; got != 500 {
		t.Errorf("total = %d before the lag, want 500", got)
	}
	c.Advance(time.Second)
	if got := call(t, a).list("contacts/ids", "per_page", "1").Meta.Total; got != 3250 || a.Len() != got {
		t.Errorf("total = %d after the lag, Len = %d, want 3250", got, a.Len())
	}
	seen := make(map[string]bool)
	for n := 1; n <= 33; n++ {
		for _, raw := range call(t, a).list("contacts/ids", "per_page", "100", "page", fmt.Sprint(n), "sort", "updated:asc").Resources {
			seen[string(raw)] = true
		}
	}
	if len(seen) != 3250 {
		t.Errorf("the pages have %d contacts, want 3250", len(seen))
	}
}
