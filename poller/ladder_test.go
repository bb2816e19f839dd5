package poller_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// TestIgnoredSortAfterAnImport lets an import's contacts, all of one second, come before older ones: a page that looks sorted and is not.
func TestIgnoredSortAfterAnImport(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			account := nimbletest.New(nimbletest.WithContacts(3), nimbletest.WithSeed(seed))
			account.SetBehaviour(func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortIgnored })
			account.Import(28)
			ledger := newMemory()
			start(t, account, ledger, poller.Config{PerPage: 4})
			pass(10 * time.Minute)
			checkTruth(t, account, ledger)
		})
	}
}

// TestEveryAPI runs one day in an account's life against each way in which the API may turn out to answer, and expects the same events of all.
func TestEveryAPI(t *testing.T) {
	z := nimbletest.RangeT | nimbletest.RangeZ
	tests := []struct {
		name      string
		behaviour func(b *nimbletest.Behaviour)
		want      poller.Findings
	}{
		{"the best evidence", func(*nimbletest.Behaviour) {}, poller.Findings{}},
		{"exclusive bounds", func(b *nimbletest.Behaviour) { b.ExclusiveLower, b.ExclusiveUpper = true, true }, poller.Findings{}},
		{"bounds in whole seconds", func(b *nimbletest.Behaviour) { b.RangeSeconds = true }, poller.Findings{}},
		{"exclusive bounds in whole seconds", func(b *nimbletest.Behaviour) {
			b.RangeSeconds, b.ExclusiveLower, b.ExclusiveUpper = true, true, true
		}, poller.Findings{}},
		{"whole seconds", func(b *nimbletest.Behaviour) { b.Timestamps = nimbletest.TimestampSeconds }, poller.Findings{}},
		{"whole seconds and exclusive bounds", func(b *nimbletest.Behaviour) {
			b.Timestamps, b.ExclusiveLower, b.ExclusiveUpper = nimbletest.TimestampSeconds, true, true
		}, poller.Findings{}},
		{"an offset in timestamps", func(b *nimbletest.Behaviour) {
			b.Timestamps, b.UserZone = nimbletest.TimestampOffset, time.FixedZone("", 3*3600)
		}, poller.Findings{}},
		{"ties in another order each time", func(b *nimbletest.Behaviour) { b.UnstableTies = true }, poller.Findings{}},
		{"rows twice across pages", func(b *nimbletest.Behaviour) { b.DuplicateRows = true }, poller.Findings{}},
		{"total capped", func(b *nimbletest.Behaviour) { b.TotalCap = 200 }, poller.Findings{}},
		{"paging capped", func(b *nimbletest.Behaviour) { b.TotalCap, b.DepthCap = 300, 300 }, poller.Findings{}},
		{"no Date", func(b *nimbletest.Behaviour) { b.NoDate = true }, poller.Findings{}},
		{"an hour off", func(b *nimbletest.Behaviour) { b.DateSkew = time.Hour }, poller.Findings{}},
		{"404 for the missing", func(b *nimbletest.Behaviour) { b.MissingStatus, b.PastEnd = 404, nimbletest.PastEndRefused }, poller.Findings{}},
		{"tags as texts", func(b *nimbletest.Behaviour) { b.TagsAsStrings, b.StagesAsList, b.Gzip = true, true, true }, poller.Findings{}},
		{"no Z", func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeBare }, poller.Findings{Form: nimble.DatetimeBare}},
		{"offsets only", func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeOffset }, poller.Findings{Form: nimble.DatetimeOffset}},
		{"no ranges but relative ones", func(b *nimbletest.Behaviour) { b.Range = nimbletest.RangeRefused }, poller.Findings{Strategy: poller.WindowRead, Relative: true}},
		{"updated cannot be sorted by", func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortRefused }, poller.Findings{Strategy: poller.WindowRead}},
		{"sort by updated ignored", func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortIgnored }, poller.Findings{Strategy: poller.WindowRead}},
		{"sort by updated ignored, one spelling", func(b *nimbletest.Behaviour) {
			b.UpdatedSort, b.RangeForms = nimbletest.SortIgnored, nimbletest.RangeT|nimbletest.RangeBare
		}, poller.Findings{Strategy: poller.WindowRead, Form: nimble.DatetimeBare}},
		{"no range of either kind", func(b *nimbletest.Behaviour) { b.Range, b.Relative = nimbletest.RangeRefused, nimbletest.RangeRefused }, poller.Findings{Strategy: poller.FullCompare}},
		{"no range of updated", func(b *nimbletest.Behaviour) {
			b.Range, b.Relative, b.UpdatedOnly = nimbletest.RangeRefused, nimbletest.RangeRefused, true
		}, poller.Findings{Strategy: poller.CreatedWalk}},
		{"ranges of updated ignored", func(b *nimbletest.Behaviour) { b.Range, b.UpdatedOnly = nimbletest.RangeIgnored, true }, poller.Findings{Strategy: poller.CreatedWalk}},
		{"ranges ignored", func(b *nimbletest.Behaviour) { b.Range, b.RangeForms = nimbletest.RangeIgnored, z }, poller.Findings{Strategy: poller.FullCompare}},
		{"ranges and sort ignored", func(b *nimbletest.Behaviour) {
			b.Range, b.UpdatedSort, b.CreatedSort = nimbletest.RangeIgnored, nimbletest.SortIgnored, nimbletest.SortIgnored
		}, poller.Findings{Strategy: poller.FullCompare}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(420))
				account.SetBehaviour(tt.behaviour)
				ledger := newMemory()
				p := start(t, account, ledger, poller.Config{Interval: 10 * time.Second, Overlap: 2 * time.Minute})
				pass(3 * time.Second)
				ids := account.IDs()
				for i := range 40 {
					account.Edit(ids[i*10], nimbletest.Field("title", fmt.Sprint("edit ", i)))
					if i == 20 {
						account.Import(150)
					}
					pass(1700 * time.Millisecond)
				}
				pass(time.Minute)
				checkTruth(t, account, ledger)
				if t.Failed() {
					t.Logf("status before the overlap passed: %+v", p.Status())
				}
				pass(4 * time.Minute)
				checkTruth(t, account, ledger)
				status := p.Status()
				if status.Findings != tt.want || status.Err != nil {
					t.Errorf("findings %+v, error %v; want %+v and none", status.Findings, status.Err, tt.want)
				}
				if s, c := ledger.count(poller.Snapshot), ledger.count(poller.Created); s != 420 || c != 150 {
					t.Errorf("%d snapshot and %d created events, want 420 and 150", s, c)
				}
			})
		})
	}
}

// TestContactsWithoutUpdated has so many contacts without a readable `updated` that whole pages have none to go on from.
func TestContactsWithoutUpdated(t *testing.T) {
	for _, n := range []int{90, 150, 300} {
		t.Run(fmt.Sprintf("%d of 300", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(300))
				ids := account.IDs()
				for _, id := range ids[:n] {
					account.EditSilently(id, nimbletest.Key("updated", "null"))
				}
				ledger := newMemory()
				p := start(t, account, ledger, poller.Config{})
				pass(5 * time.Minute)
				for _, id := range ids[:3] {
					account.Edit(id, nimbletest.Field("title", "with a time"))
					account.EditSilently(id, nimbletest.Key("updated", "null")) // Shown by then.
				}
				account.Create()
				pass(20 * time.Minute)
				if s, c, u := ledger.count(poller.Snapshot), ledger.count(poller.Created), ledger.count(poller.Updated); s != 300 || c != 1 || u != 3 {
					t.Errorf("%d snapshot, %d created and %d updated events, want 300, 1 and 3; %v", s, c, u, p.Status().Err)
				}
				checkTruth(t, account, ledger)
			})
		})
	}
}
