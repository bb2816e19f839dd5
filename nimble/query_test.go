package nimble_test

import (
	"strings"
	"testing"
	"time"

	"nimble-bridge/nimble"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

func TestQuery(t *testing.T) {
	from := time.Date(2031, 5, 4, 12, 0, 0, 999, time.FixedZone("", 2*3600))
	to := time.Date(2031, 5, 4, 10, 15, 0, 1, time.UTC)
	person := nimble.RecordTypeIs("person")
	recent := nimble.InTheLast(nimble.Created, 1500*time.Millisecond)
	var none nimble.Query

	tests := []struct {
		name  string
		query nimble.Query
		want  string
	}{
		{"zero value", none, ``},
		{
			"range with Z", nimble.Between(nimble.Updated, from, to, nimble.DatetimeZ),
			`{"updated":{"range":{"start_datetime":"2031-05-04T10:00:00Z","end_datetime":"2031-05-04T10:15:01Z"}}}`,
		},
		{
			"range without a zone", nimble.Between(nimble.Created, from, to.Truncate(time.Second), nimble.DatetimeBare),
			`{"created":{"range":{"start_datetime":"2031-05-04T10:00:00","end_datetime":"2031-05-04T10:15:00"}}}`,
		},
		{
			"range with an offset", nimble.Between(nimble.Created, from, to, nimble.DatetimeOffset),
			`{"created":{"range":{"start_datetime":"2031-05-04T10:00:00+00:00","end_datetime":"2031-05-04T10:15:01+00:00"}}}`,
		},
		{
			"range of all time", nimble.Between(nimble.Created, time.Unix(-1<<40, 0), time.Unix(1<<40, 0), nimble.DatetimeZ),
			`{"created":{"range":{"start_datetime":"0001-01-01T00:00:00Z","end_datetime":"9999-12-31T23:59:59Z"}}}`,
		},
		{"relative, rounded up", recent, `{"created":{"in_the_last":{"unit":"second","quantity":2}}}`},
		{"relative, at least a second", nimble.InTheLast(nimble.Updated, -time.Hour), `{"updated":{"in_the_last":{"unit":"second","quantity":1}}}`},
		{"ids", nimble.IDIn("a", "b"), `{"_id":{"in":["a","b"]}}`},
		{"record type", person, `{"record type":{"is":"person"}}`},
		{"quotes in a value", nimble.RecordTypeIs(`a"b\`), `{"record type":{"is":"a\"b\\"}}`},
		{"and", nimble.And(person, none, recent), `{"and":[{"record type":{"is":"person"}},{"created":{"in_the_last":{"unit":"second","quantity":2}}}]}`},
		{"a single condition stays bare", nimble.And(none, nimble.Or(person), none), `{"record type":{"is":"person"}}`},
		{"and of nothing", nimble.And(none), ``},
		{"or", nimble.Or(person, nimble.IDIn("a")), `{"or":[{"record type":{"is":"person"}},{"_id":{"in":["a"]}}]}`},
		{"not", nimble.Not(person), `{"not":[{"record type":{"is":"person"}}]}`},
		{"not any of two", nimble.Not(person, nimble.IDIn("a")), `{"not":[{"or":[{"record type":{"is":"person"}},{"_id":{"in":["a"]}}]}]}`},
		{"not nothing", nimble.Not(none), ``},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.query.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if got := tt.query.IsZero(); got != (tt.want == "") {
				t.Errorf("IsZero() = %v for %s", got, tt.want)
			}
		})
	}
}

func TestListOptionsBecomeParameters(t *testing.T) {
	tests := []struct {
		name string
		opts nimble.ListOptions
		want string
	}{
		{"zero value", nimble.ListOptions{}, "page=1"},
		{"all but a query", nimble.ListOptions{Sort: "updated:asc", Page: 3, PerPage: 100, RecordType: "company"}, "page=3&per_page=100&record_type=company&sort=updated%3Aasc"},
		// Nimble ignores record_type beside a query.
		{
			"record type and query",
			nimble.ListOptions{Query: nimble.IDIn("a"), RecordType: "company"},
			"page=1&query=%7B%22and%22%3A%5B%7B%22_id%22%3A%7B%22in%22%3A%5B%22a%22%5D%7D%7D%2C%7B%22record+type%22%3A%7B%22is%22%3A%22company%22%7D%7D%5D%7D",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			values, err := tt.opts.Values()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, values.Encode()); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
		})
	}
	for _, opts := range []nimble.ListOptions{{Page: -1}, {PerPage: -1}} {
		if _, err := opts.Values(); err == nil {
			t.Errorf("%+v is accepted", opts)
		}
	}
}

// FuzzQuery: whatever goes in, the query is one valid JSON object whose leaves hold what went in, to the second.
func FuzzQuery(f *testing.F) {
	f.Add("updated", "5049fb849b85f669e40000dc", int64(1938420000), int64(1938420900), int64(5), uint8(0))
	f.Add("custom \"field\"", "a\x00\xff\\", int64(-1<<60), int64(1<<60), int64(-5), uint8(1))
	f.Add("", "", int64(0), int64(0), int64(0), uint8(2))
	f.Fuzz(func(t *testing.T, field, id string, from, to, nanos int64, form uint8) {
		between := nimble.Between(nimble.Field(field), time.Unix(from, nanos), time.Unix(to, nanos), nimble.DatetimeForm(form))
		q := nimble.And(between, nimble.Not(nimble.IDIn(id, id)), nimble.Or(nimble.InTheLast(nimble.Field(field), time.Duration(nanos)), nimble.RecordTypeIs(id)))
		if !jsontext.Value(q.String()).IsValid() {
			t.Fatalf("not valid JSON: %s", q)
		}
		var back struct {
			And []map[string]jsontext.Value
		}
		if err := json.Unmarshal([]byte(q.String()), &back, json.MatchCaseInsensitiveNames(true)); err != nil || len(back.And) != 3 {
			t.Fatalf("reads back as %v, %v: %s", back, err, q)
		}
		var bounds map[string]map[string]map[string]string
		if err := json.Unmarshal([]byte(between.String()), &bounds); err != nil {
			t.Fatalf("%v: %s", err, between)
		}
		fieldBack := strings.ToValidUTF8(field, "\uFFFD")
		if len(bounds) != 1 || bounds[fieldBack] == nil && strings.ToValidUTF8(field, "") == field {
			t.Fatalf("field %q reads back as %v", field, bounds)
		}
		for _, b := range bounds {
			start, err := nimble.ParseTime(b["range"]["start_datetime"])
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Unix(from, nanos); want.Year() >= 1 && want.UTC().Year() <= 9999 && (start.After(want) || want.Sub(start) >= time.Second) {
				t.Errorf("start %v for %v", start, want)
			}
			end, err := nimble.ParseTime(b["range"]["end_datetime"])
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Unix(to, nanos).UTC(); want.Year() >= 1 && want.Year() <= 9998 && (end.Before(want) || end.Sub(want) >= time.Second) {
				t.Errorf("end %v for %v", end, want)
			}
		}
	})
}
