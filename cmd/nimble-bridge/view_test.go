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
			"10:15:12  deleted   a1  not_found  #3\n",
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
