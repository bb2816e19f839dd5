package poller_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

func TestProbeFindsOutHowTheAPIAnswers(t *testing.T) {
	tests := []struct {
		name      string
		contacts  int
		behaviour func(b *nimbletest.Behaviour)
		want      poller.Findings
		ranges    bool
		sort      bool
		counts    poller.CountQuality
	}{
		{name: "the best evidence", want: poller.Findings{}, ranges: true, sort: true, counts: poller.CountsExact},
		{name: "few contacts", contacts: 6, want: poller.Findings{}, ranges: true, sort: true, counts: poller.CountsExact},
		{
			name: "exclusive bounds in whole seconds",
			behaviour: func(b *nimbletest.Behaviour) {
				b.RangeSeconds, b.ExclusiveLower, b.ExclusiveUpper = true, true, true
			},
			ranges: true, sort: true, counts: poller.CountsExact,
		},
		{
			name:      "one spelling of ranges only",
			behaviour: func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeOffset },
			want:      poller.Findings{Form: nimble.DatetimeOffset}, ranges: true, sort: true, counts: poller.CountsExact,
		},
		{
			name:      "sort by updated ignored",
			behaviour: func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortIgnored },
			want:      poller.Findings{Strategy: poller.WindowRead}, ranges: true, counts: poller.CountsExact,
		},
		{
			name:      "sort by updated refused",
			behaviour: func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortRefused },
			want:      poller.Findings{Strategy: poller.WindowRead}, ranges: true, counts: poller.CountsExact,
		},
		{
			name:      "ranges of updated ignored",
			behaviour: func(b *nimbletest.Behaviour) { b.Range, b.UpdatedOnly = nimbletest.RangeIgnored, true },
			want:      poller.Findings{Strategy: poller.CreatedWalk}, ranges: true, sort: true, counts: poller.CountsExact,
		},
		{
			name:      "ranges ignored",
			behaviour: func(b *nimbletest.Behaviour) { b.Range = nimbletest.RangeIgnored },
			want:      poller.Findings{Strategy: poller.FullCompare}, counts: poller.CountsUnknown,
		},
		{
			name:      "no ranges but relative ones",
			behaviour: func(b *nimbletest.Behaviour) { b.Range = nimbletest.RangeRefused },
			want:      poller.Findings{Strategy: poller.WindowRead, Relative: true}, ranges: true, counts: poller.CountsUnknown,
		},
		{
			name: "totals capped", behaviour: func(b *nimbletest.Behaviour) { b.TotalCap = 150 },
			ranges: true, sort: true, counts: poller.CountsCapped,
		},
		{
			name: "totals wrong", behaviour: func(b *nimbletest.Behaviour) {
				b.TotalNoise = func(total int) int { return total - total/100 - 1 + 2*(total%2) }
			},
			ranges: true, sort: true, counts: poller.CountsOff,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.contacts == 0 {
					tt.contacts = 450
				}
				account := nimbletest.New(nimbletest.WithContacts(tt.contacts))
				if tt.behaviour != nil {
					account.SetBehaviour(tt.behaviour)
				}
				got, err := poller.Probe(t.Context(), newClient(t, account), poller.Config{})
				if err != nil {
					t.Fatal(err)
				}
				if got.Findings != tt.want || got.RangeProven != tt.ranges || got.SortProven != tt.sort || got.Counts != tt.counts {
					t.Errorf("found %+v", got)
				}
				if (len(got.Surprises) > 0) != (tt.want != poller.Findings{}) {
					t.Errorf("surprises %v for %+v", got.Surprises, got.Findings)
				}
				if !got.OffsetKnown || got.Offset != 0 || !got.Dated || got.Skew.Abs() > time.Second {
					t.Errorf("offset %v (known: %v), dated %v, skew %v", got.Offset, got.OffsetKnown, got.Dated, got.Skew)
				}
				if n := len(account.Requests()); n > 25 || tt.want == (poller.Findings{}) && tt.counts == poller.CountsExact && n != 8 {
					t.Errorf("%d requests, want 8 where nothing surprises", n)
				}
			})
		})
	}
}

// createdIgnored is an account that takes no notice of ranges of created.
type createdIgnored struct{ *nimble.Client }

func (c createdIgnored) Count(ctx context.Context, q nimble.Query) (nimble.Count, error) {
	if strings.Contains(q.String(), "created") {
		q = nimble.Query{}
	}
	return c.Client.Count(ctx, q)
}

func TestProbeDoesNotTakeIgnoredRangesForCappedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(450))
		got, err := poller.Probe(t.Context(), createdIgnored{newClient(t, account)}, poller.Config{})
		if err != nil || got.Counts != poller.CountsOff {
			t.Errorf("counts are %s, %v; want %s", got.Counts, err, poller.CountsOff)
		}
	})
}

func TestProbeSeesTheClocksAndTheZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(50))
		account.SetBehaviour(func(b *nimbletest.Behaviour) { b.DateSkew = -time.Hour })
		got, err := poller.Probe(t.Context(), newClient(t, account), poller.Config{})
		if err != nil || (got.Skew+time.Hour).Abs() > time.Second {
			t.Errorf("skew %v, %v; want an hour behind", got.Skew, err)
		}
		account.SetBehaviour(func(b *nimbletest.Behaviour) { b.NoDate = true })
		if got, err := poller.Probe(t.Context(), newClient(t, account), poller.Config{}); err != nil || got.Dated {
			t.Errorf("dated %v, %v; want no date", got.Dated, err)
		}
	})
}

func TestProbeOfSmallAccountsProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(0))
		got, err := poller.Probe(t.Context(), newClient(t, account), poller.Config{})
		if err != nil || got.Contacts != 0 || got.RangeProven || got.SortProven || got.Counts != poller.CountsUnknown || got.OffsetKnown {
			t.Errorf("empty account: %+v, %v", got, err)
		}
		account.Import(30) // All of one second.
		got, err = poller.Probe(t.Context(), newClient(t, account), poller.Config{})
		if err != nil || got.Contacts != 30 || got.RangeProven || got.SortProven || got.Findings != (poller.Findings{}) || got.Counts != poller.CountsExact {
			t.Errorf("one import: %+v, %v", got, err)
		}
	})
}

func TestProbeReportsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(450))
		account.Inject(1, nimbletest.Fault{Endpoint: nimbletest.EndpointIDs, Status: http.StatusServiceUnavailable})
		got, err := poller.Probe(t.Context(), newClient(t, account), poller.Config{})
		if err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("error %v, want the 503", err)
		}
		if !got.SortProven || got.Contacts != 450 {
			t.Errorf("found %+v, want what was found before the failure", got)
		}
	})
}
