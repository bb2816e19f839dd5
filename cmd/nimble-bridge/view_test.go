package main

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"nimble-bridge/publisher/event"
)

func TestView(t *testing.T) {
	observed := time.Date(2026, 3, 1, 10, 15, 12, 0, time.UTC)
	tests := []struct {
		name  string
		event event.Event
		want  string
	}{
		{
			"a snapshot",
			event.Event{
				Envelope: event.Envelope{Type: event.Snapshot.Type(), Subject: "a1"},
				Data: event.Data{Revision: 1, Observed: observed, Summary: event.Summary{
					Name: "Tomasz Brandt", Title: "CFO", Company: "Brandt Marine", Emails: []string{"tomasz@brandt.example", "t@home.example"}, Tags: []string{"supplier", "boats"},
				}},
			},
			"10:15:12  snapshot  Tomasz Brandt  CFO · Brandt Marine · tomasz@brandt.example · supplier, boats  #1\n",
		},
		{
			"a company, which is its own name",
			event.Event{
				Envelope: event.Envelope{Type: event.Created.Type(), Subject: "a1"},
				Data:     event.Data{Revision: 1, Observed: observed, Summary: event.Summary{Name: "Brandt Marine", Company: "Brandt Marine"}},
			},
			"10:15:12  created   Brandt Marine  #1\n",
		},
		{
			"an update",
			event.Event{
				Envelope: event.Envelope{Type: event.Updated.Type(), Subject: "a1"},
				Data: event.Data{Revision: 7, Observed: observed, Summary: event.Summary{Name: "Tomasz Brandt"}, Changes: map[string]event.Change{
					"tags":         {Before: jsontext.Value(`[{"tag":"supplier","id":"x/supplier"}]`), After: jsontext.Value(`["supplier","VIP"]`)},
					"fields.email": {Before: nil, After: jsontext.Value(`[{"value":"a@b.example","modifier":"work"},{"value":"c@d.example"}]`)},
					"is_important": {Before: jsontext.Value(`null`), After: jsontext.Value(`true`)},
					"owner_id":     {Before: jsontext.Value(`"6e00"`), After: jsontext.Value(`null`)},
				}},
			},
			`10:15:12  updated   Tomasz Brandt  #7
                      email         (none) → a@b.example (work), c@d.example
                      is_important  (none) → true
                      owner_id      6e00 → (none)
                      tags          supplier → supplier, VIP
`,
		},
		{
			"a deletion of somebody without a name",
			event.Event{
				Envelope: event.Envelope{Type: event.Deleted.Type(), Subject: "a1"},
				Data:     event.Data{Revision: 3, Observed: observed, Reason: "not_found"},
			},
			"10:15:12  deleted   a1  no longer in Nimble  #3\n",
		},
		{
			"a deletion that was a merge",
			event.Event{
				Envelope: event.Envelope{Type: event.Deleted.Type(), Subject: "a1"},
				Data: event.Data{
					Revision: 3, Observed: observed, Reason: "forbidden", Summary: event.Summary{Name: "Tomasz Brandt"},
					MergedIntoCandidates: []string{"b2", "c3"},
				},
			},
			"10:15:12  deleted   Tomasz Brandt  no longer to be seen with this key  perhaps merged into b2 or c3  #3\n",
		},
		{
			"an erasure",
			event.Event{
				Envelope: event.Envelope{Type: event.Deleted.Type(), Subject: "a1"},
				Data:     event.Data{Revision: 4, Observed: observed, Reason: "not_found", Erased: true},
			},
			"10:15:12  erased    a1  removed from NATS on request  #4\n",
		},
		{
			"an erasure of somebody who is still in Nimble",
			event.Event{
				Envelope: event.Envelope{Type: event.Deleted.Type(), Subject: "a1"},
				Data:     event.Data{Revision: 4, Observed: observed, Reason: "erased", Erased: true},
			},
			"10:15:12  erased    a1  removed from NATS on request; Nimble still has it  #4\n",
		},
		{
			"somebody who is back",
			event.Event{
				Envelope: event.Envelope{Type: event.Created.Type(), Subject: "a1"},
				Data:     event.Data{Revision: 5, Observed: observed, Restored: true, Summary: event.Summary{Name: "Tomasz Brandt", Title: "CFO"}},
			},
			"10:15:12  restored  Tomasz Brandt  CFO  back after it was deleted  #5\n",
		},
		{
			"a snapshot that was asked for",
			event.Event{
				Envelope: event.Envelope{Type: event.Snapshot.Type(), Subject: "a1"},
				Data:     event.Data{Revision: 9, Observed: observed, FoundBy: "resync", Summary: event.Summary{Name: "Tomasz Brandt"}},
			},
			"10:15:12  snapshot  Tomasz Brandt  sent again, as asked  #9\n",
		},
		{
			"an update that a reconciliation found, too large for a message",
			event.Event{
				Envelope: event.Envelope{Type: event.Updated.Type(), Subject: "a1"},
				Data: event.Data{
					Revision: 2, Observed: observed, FoundBy: "reconcile", Truncated: true, Summary: event.Summary{Name: "Tomasz Brandt"},
					Changes: map[string]event.Change{"fields.description": {}},
				},
			},
			`10:15:12  updated   Tomasz Brandt  found by reconciliation  too large for one message: the event has a part of it  #2
                      description   (none) → (none)
`,
		},
		{
			"a name that would move the cursor",
			event.Event{
				Envelope: event.Envelope{Type: event.Created.Type(), Subject: "a1"},
				Data:     event.Data{Revision: 1, Observed: observed, Summary: event.Summary{Name: "Eve\x1b[2J\nMallory\u202e"}},
			},
			"10:15:12  created   Eve[2J Mallory  #1\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := view{zone: time.UTC}.event(&tt.event)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("view (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrintableCutsBetweenCharacters(t *testing.T) {
	long := ""
	for range maxText {
		long += "é"
	}
	got := printable(long)
	if want := maxText/2 + 1; len([]rune(got)) != want {
		t.Errorf("%d characters are left, want %d", len([]rune(got)), want)
	}
}

func TestViewOnSingleLines(t *testing.T) {
	observed := time.Date(2026, 3, 1, 10, 15, 12, 0, time.UTC)
	since := time.Date(2026, 3, 1, 10, 0, 12, 0, time.UTC)
	v := view{zone: time.FixedZone("elsewhere", 3600), single: true, ids: true}
	for _, tt := range []struct {
		message event.Message
		want    string
	}{
		{
			&event.Event{
				Envelope: event.Envelope{Type: event.Updated.Type(), Subject: "a1"},
				Data: event.Data{Revision: 7, Observed: observed, Summary: event.Summary{Name: "Tomasz Brandt"}, Changes: map[string]event.Change{
					"tags":         {Before: jsontext.Value(`["supplier"]`), After: jsontext.Value(`["supplier","VIP"]`)},
					"fields.email": {After: jsontext.Value(`[{"value":"a@b.example\nc","modifier":"work"}]`)},
				}},
			},
			"2026-03-01T10:15:12Z  updated   a1  Tomasz Brandt  #7  email: (none) → a@b.example c (work); tags: supplier → supplier, VIP\n",
		},
		{
			&event.Reconciled{Envelope: event.Envelope{Time: observed}, Data: event.ReconciledData{Contacts: 1234567, Requests: 1, Method: "count"}},
			"2026-03-01T10:15:12Z  receipt   1,234,567 contacts in Nimble and in the stream, in agreement  (1 request, by counting)\n",
		},
		{
			&event.Reconciled{Envelope: event.Envelope{Time: observed}, Data: event.ReconciledData{Contacts: 1, DifferencesFound: 120, Requests: 1000, Method: "list", Since: since}},
			"2026-03-01T10:15:12Z  receipt   1 contact in Nimble and in the stream, in agreement after 120 differences  (1,000 requests, by listing, since 1 Mar 11:00:12)\n",
		},
		{
			&event.Rejected{Envelope: event.Envelope{Time: observed}, Data: event.RejectedData{Reason: "no updated", ContactID: "a1"}},
			"2026-03-01T10:15:12Z  rejected  a1  no updated\n",
		},
		{
			&event.Rejected{Envelope: event.Envelope{Time: observed}, Data: event.RejectedData{Reason: "not an object"}},
			"2026-03-01T10:15:12Z  rejected  a record without an id  not an object\n",
		},
	} {
		if diff := cmp.Diff(tt.want, v.message(tt.message)); diff != "" {
			t.Errorf("view (-want +got):\n%s", diff)
		}
	}
}
