package event_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"nimble-bridge/publisher/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

var (
	at       = time.Date(2026, 3, 1, 10, 15, 0, 0, time.UTC)
	observed = time.Date(2026, 3, 1, 10, 15, 12, 31_000_000, time.UTC)
)

const contact = `{"id":"5049fb849b85f669e40000dc","object_type":"contact","record_type":"person","created":"2026-02-27T08:00:00.120934","updated":"2026-03-01T10:15:00",` +
	`"fields":{"first name":[{"value":"Tomasz","modifier":"","is_primary":false}],"last name":[{"value":"Brandt","modifier":""}],` +
	`"email":[{"value":"old@brandt.example","modifier":"work"},{"value":"tomasz@brandt.example","modifier":"work","is_primary":true}],` +
	`"contact employment":[{"value":"{\"company_name\": \"Brandt Marine\", \"title\": \"CFO\", \"is_present\": true}","modifier":""}]},` +
	`"tags":[{"tag":"supplier","id":"6e00000000000000000000c0/supplier"}], "stages_info" : { } }`

// sample is a contact event with the given verb.
func sample(verb event.Verb) *event.Event {
	const account, id = "acme", "5049fb849b85f669e40000dc"
	summary, err := event.Summarize(jsontext.Value(contact))
	if err != nil {
		panic(err)
	}
	e := &event.Event{
		Envelope: event.Envelope{
			ID: event.ContactEventID(account, id, 7, verb, "1:00112233445566778899aabbccddeeff"), Source: event.Source(account), Type: verb.Type(), Subject: id, Time: at,
		},
		Data: event.Data{
			Account: account, RecordType: "person", Revision: 7, Observed: observed, FoundBy: "poll", Summary: summary, Contact: jsontext.Value(contact),
		},
	}
	switch verb {
	case event.Snapshot:
		e.Data.FoundBy = "snapshot"
	case event.Updated:
		e.Data.Changes = map[string]event.Change{
			"tags":         {Before: jsontext.Value(`[]`), After: jsontext.Value(`[{"tag":"supplier","id":"6e00000000000000000000c0/supplier"}]`)},
			"fields.email": {After: jsontext.Value(`[{"value":"tomasz@brandt.example","modifier":"work"}]`)},
		}
	case event.Deleted:
		e.Data.FoundBy, e.Data.Reason = "reconcile", "not_found"
	case event.Created:
	}
	return e
}

func reconciled() *event.Reconciled {
	return &event.Reconciled{
		Envelope: event.Envelope{ID: event.ReconciledEventID("acme", at), Source: event.Source("acme"), Type: event.ReconciledType, Time: at},
		Data:     event.ReconciledData{Contacts: 25000, DifferencesFound: 3, Requests: 41, Method: "count", Since: at.Add(-15 * time.Minute)},
	}
}

func rejected() *event.Rejected {
	record := jsontext.Value(`{"id":"a b","fields":{}}`)
	return &event.Rejected{
		Envelope: event.Envelope{ID: event.RejectedEventID("acme", "", record), Source: event.Source("acme"), Type: event.RejectedType, Time: at},
		Data:     event.RejectedData{Reason: "no usable id", Record: record},
	}
}

func restored() *event.Event {
	e := sample(event.Created)
	e.Data.Restored = true
	return e
}

func merged() *event.Event {
	e := sample(event.Deleted)
	e.Data.MergedIntoCandidates = []string{"5049fb849b85f669e40000dd"}
	return e
}

func erased() *event.Event {
	e := sample(event.Deleted)
	e.Data.Erased, e.Data.Reason, e.Data.FoundBy = true, "erased", "reconcile"
	e.Data.Contact, e.Data.Summary = jsontext.Value(`{"id":"5049fb849b85f669e40000dc"}`), event.Summary{}
	return e
}

func samples() map[string][]byte {
	truncated := sample(event.Updated)
	truncated.Truncate(0)
	return map[string][]byte{
		"restored": restored().Encode(), "merged": merged().Encode(), "erased": erased().Encode(),
		"snapshot": sample(event.Snapshot).Encode(), "created": sample(event.Created).Encode(), "updated": sample(event.Updated).Encode(),
		"deleted": sample(event.Deleted).Encode(), "truncated": truncated.Encode(), "reconciled": reconciled().Encode(), "rejected": rejected().Encode(),
	}
}

func TestEventsAreWhatTheyWere(t *testing.T) {
	for name, got := range samples() {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(bytes.TrimSuffix(want, []byte("\n"))), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEventsAreCloudEvents(t *testing.T) {
	for name, data := range samples() {
		t.Run(name, func(t *testing.T) {
			var ev cloudevents.Event
			if err := ev.UnmarshalJSON(data); err != nil {
				t.Fatal(err)
			}
			if err := ev.Validate(); err != nil {
				t.Error(err)
			}
			if ev.SpecVersion() != "1.0" || ev.DataContentType() != "application/json" || ev.Source() != "urn:nimble:acme" || !ev.Time().Equal(at) {
				t.Errorf("attributes: %v", ev)
			}
			if partition := ev.Extensions()["partitionkey"]; partition != "5049fb849b85f669e40000dc" && partition != "acme" {
				t.Errorf("partitionkey %v", partition)
			}
			if typ, err := event.TypeOf(data); err != nil || typ != ev.Type() {
				t.Errorf("TypeOf %q, %v", typ, err)
			}
		})
	}
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	events := []*event.Event{restored(), merged(), erased()}
	for _, verb := range []event.Verb{event.Snapshot, event.Created, event.Updated, event.Deleted} {
		events = append(events, sample(verb))
	}
	for _, want := range events {
		verb := want.Verb()
		got, err := event.Decode(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if got.Verb() != verb {
			t.Errorf("verb %q, want %q", got.Verb(), verb)
		}
		// Empty lists are lists, not nothing.
		want.Data.Summary.Phones = got.Data.Summary.Phones
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	gotReceipt, err := event.DecodeReconciled(reconciled().Encode())
	if diff := cmp.Diff(reconciled(), gotReceipt); err != nil || diff != "" {
		t.Error(err, diff)
	}
	gotNotice, err := event.DecodeRejected(rejected().Encode())
	if diff := cmp.Diff(rejected(), gotNotice); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestContactPassesThroughByteForByte(t *testing.T) {
	for _, raw := range []string{
		`{"a": 1.0e2, "a":2}`, "{\"x\":\"\xff\xfe\"}", "{ \"b\"\t:\n[ 1 , 2 ] }", `{"u":"\u00e9é\/"}`, `{"big":12345678901234567890123}`, `null`,
	} {
		e := sample(event.Updated)
		e.Data.Contact = jsontext.Value(raw)
		e.Data.Changes = map[string]event.Change{"k": {Before: jsontext.Value(raw)}}
		got, err := event.Decode(e.Encode())
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		want := raw
		if raw == "null" {
			want = ""
		}
		if string(got.Data.Contact) != want || string(got.Data.Changes["k"].Before) != want || got.Data.Changes["k"].After != nil {
			t.Errorf("%s became %s", raw, got.Data.Contact)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := string(sample(event.Updated).Encode())
	tests := map[string]string{
		"nothing":          "",
		"no object":        `[]`,
		"no JSON":          good[:len(good)-10],
		"more than one":    good + `{}`,
		"no data":          `{"specversion":"1.0","id":"1","source":"s","type":"com.nimble.contact.updated","subject":"a"}`,
		"another version":  strings.Replace(good, `"specversion":"1.0"`, `"specversion":"0.3"`, 1),
		"no id":            strings.Replace(good, `"id":`, `"ID":`, 1),
		"no subject":       strings.Replace(good, `"subject":`, `"Subject":`, 1),
		"a number for id":  strings.Replace(good, `"source":"`, `"source":1,"x":"`, 1),
		"a bad time":       strings.Replace(good, `"time":"2026`, `"time":"soon`, 1),
		"a bad revision":   strings.Replace(good, `"revision":7`, `"revision":-7`, 1),
		"data as text":     `{"specversion":"1.0","id":"1","source":"s","type":"com.nimble.contact.updated","subject":"a","data":"x"}`,
		"changes in lists": strings.Replace(good, `"changes":{"fields.email":{`, `"changes":{"x":[],"fields.email":{`, 1),
	}
	for name, data := range tests {
		if e, err := event.Decode([]byte(data)); err == nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for _, other := range [][]byte{reconciled().Encode(), rejected().Encode()} {
		if _, err := event.Decode(other); !errors.Is(err, event.ErrType) {
			t.Errorf("another type: %v", err)
		}
	}
	if _, err := event.DecodeRejected([]byte(good)); !errors.Is(err, event.ErrType) {
		t.Errorf("another type: %v", err)
	}
}

func TestDecodePassesOverWhatItDoesNotKnow(t *testing.T) {
	data := strings.Replace(string(sample(event.Created).Encode()), `"data":{`, `"traceparent":"00-x","data":{"score":{"a":[1]},`, 1)
	got, err := event.Decode([]byte(data))
	if err != nil || got.Data.Revision != 7 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSummary(t *testing.T) {
	tests := []struct {
		name, contact string
		want          event.Summary
	}{
		{"a person", contact, event.Summary{Name: "Tomasz Brandt", Company: "Brandt Marine", Title: "CFO", Emails: []string{"tomasz@brandt.example", "old@brandt.example"}, Tags: []string{"supplier"}}},
		{
			"a company", `{"fields":{"company name":[{"value":"Brandt Marine"}],"phone":[{"value":"+48 1"},{"value":"+48 2","is_primary":true},{"value":"+48 3"}]},"record_type":"company","tags":["a","b"]}`,
			event.Summary{Name: "Brandt Marine", Company: "Brandt Marine", Phones: []string{"+48 2", "+48 1", "+48 3"}, Tags: []string{"a", "b"}},
		},
		{
			"deprecated fields", `{"record_type":"person","fields":{"last name":[{"value":"Brandt"}],"parent company":[{"value":"Old Co"}],"title":[{"value":"Boss"}]}}`,
			event.Summary{Name: "Brandt", Company: "Old Co", Title: "Boss"},
		},
		{
			"the present employment", `{"record_type":"person","fields":{"contact employment":[{"value":"{\"company_name\":\"First\"}"},{"value":"{\"company_name\":\"Primary\",\"title\":\"x\"}","is_primary":true},` +
				`{"value":"{\"company_name\":\"Now\",\"title\":\"y\",\"is_present\":true}"},{"value":"{\"company_name\":\"Also now\",\"is_present\":true}"}],"parent company":[{"value":"Old"}]}}`,
			event.Summary{Company: "Now", Title: "y"},
		},
		{"an employment that is no JSON", `{"record_type":"person","fields":{"contact employment":[{"value":"{\"company_name\": \"x\"} since May"}],"parent company":[{"value":"Old"}]}}`, event.Summary{Company: "Old"}},
		{"an employment as Python prints it", `{"record_type":"person","fields":{"contact employment":[{"value":"{'company_name': 'x'}"}],"parent company":[{"value":"Old"}]}}`, event.Summary{Company: "x"}},
		{
			"bare values", `{"fields":{"first name":"Ines","last name":["Okafor"],"email":[null,{"value":null},"i@x.example",{"value":""}],"phone":{"value":17}},"tags":{"tag":"one"}}`,
			event.Summary{Name: "Ines Okafor", Emails: []string{"i@x.example"}, Phones: []string{"17"}, Tags: []string{"one"}},
		},
		{"odd shapes", `{"record_type":[],"fields":[],"tags":null}`, event.Summary{}},
		{"nothing", `{}`, event.Summary{}},
		{"escapes", `{"\u0066ields":{"first name":[{"value":"J\u00f6rg \"J\""}]}}`, event.Summary{Name: `Jörg "J"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := event.Summarize(jsontext.Value(tt.contact))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, raw := range []string{"", "[]", `"x"`, "null", "{", `{"a"}`, "{}x"} {
		if _, err := event.Summarize(jsontext.Value(raw)); err == nil {
			t.Errorf("%q has a summary", raw)
		}
	}
}

func TestTruncateFits(t *testing.T) {
	e := sample(event.Updated)
	long := jsontext.Value(`"` + strings.Repeat("x", 5000) + `"`)
	e.Data.Changes = map[string]event.Change{}
	for i := range 100 {
		e.Data.Changes[fmt.Sprintf("fields.%02d", i)] = event.Change{Before: long, After: long}
	}
	e.Data.Summary.Emails = []string{strings.Repeat("é", 1000)}
	for _, limit := range []int{100_000, 9_000, 3_000, 2_000} {
		e.Truncate(limit)
		data := e.Encode()
		if len(data) > limit {
			t.Errorf("%d bytes, limit %d", len(data), limit)
		}
		got, err := event.Decode(data)
		if err != nil || !got.Data.Truncated || len(got.Data.Changes) == 0 || !bytes.Contains(got.Data.Contact, []byte(got.Subject)) {
			t.Errorf("limit %d: %v, %+v", limit, err, got)
		}
	}
}

func TestEventIDDependsOnAllOfItsParts(t *testing.T) {
	type parts struct {
		account, contact string
		revision         uint64
		verb             event.Verb
		fingerprint      string
	}
	all := []parts{
		{"acme", "a1", 1, event.Updated, "1:ff"},
		{"acm", "ea1", 1, event.Updated, "1:ff"},
		{"acme", "a2", 1, event.Updated, "1:ff"},
		{"acme", "a1", 2, event.Updated, "1:ff"},
		{"acme", "a1", 1, event.Created, "1:ff"},
		{"acme", "a1", 1, event.Updated, "2:ff"},
	}
	seen := make(map[string]parts)
	for _, p := range all {
		id := event.ContactEventID(p.account, p.contact, p.revision, p.verb, p.fingerprint)
		if other, twice := seen[id]; twice {
			t.Errorf("%v and %v have the id %s", p, other, id)
		}
		seen[id] = p
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
			t.Errorf("id %q", id)
		}
	}
	// Ids are in streams, so that the way they are made must never change.
	if got := event.ContactEventID("acme", "a1", 1, event.Updated, "1:ff"); got != "1bf0e2a35541dfd5e7fd7ca121327ae6" {
		t.Errorf("id %s", got)
	}
}

func TestHeadersReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := event.Headers{
			ID: "id", Verb: rapid.SampledFrom([]event.Verb{event.Snapshot, event.Created, event.Updated, event.Deleted}).Draw(t, "verb"),
			Revision: rapid.Uint64Min(1).Draw(t, "revision"), Fingerprint: "1:ff",
		}
		if rapid.Bool().Draw(t, "dated") {
			want.Created = time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "created")).UTC()
			want.Updated = time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "updated")).UTC()
		}
		if want.Verb == event.Updated {
			want.ChangedKeys = slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.String().Filter(func(s string) bool { return s != "" }), 1, 20, rapid.ID).Draw(t, "changed")))
		}
		m := want.Map()
		for name, values := range m {
			if len(values) != 1 || strings.ContainsAny(values[0], "\r\n") {
				t.Fatalf("header %s: %q", name, values)
			}
		}
		if _, deleted := m[event.HeaderOperation]; deleted != (want.Verb == event.Deleted) {
			t.Fatalf("headers %v", m)
		}
		got, err := event.ParseHeaders(m)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestParseHeadersRefuses(t *testing.T) {
	for name, spoil := range map[string]func(m map[string][]string){
		"no id":          func(m map[string][]string) { delete(m, event.HeaderID) },
		"another verb":   func(m map[string][]string) { m[event.HeaderType] = []string{"moved"} },
		"no revision":    func(m map[string][]string) { m[event.HeaderRevision] = []string{"0"} },
		"a bad revision": func(m map[string][]string) { m[event.HeaderRevision] = []string{"x"} },
		"a bad time":     func(m map[string][]string) { m[event.HeaderUpdated] = []string{"soon"} },
		"bad keys":       func(m map[string][]string) { m[event.HeaderChanged] = []string{"a%2"} },
		"no values":      func(m map[string][]string) { m[event.HeaderType] = nil },
	} {
		m := event.Headers{ID: "x", Verb: event.Updated, Revision: 1, ChangedKeys: []string{"a"}}.Map()
		spoil(m)
		if _, err := event.ParseHeaders(m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestChangedIsPlainASCII(t *testing.T) {
	got := event.FormatChanged([]string{"tags", "fields.first name", "fields.a,b%c*", "fields.名"})
	if want := "fields.a%2Cb%25c%2A,fields.first%20name,fields.%E5%90%8D,tags"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprintf("fields.custom field %05d", i))
	}
	long := event.FormatChanged(many)
	keys, left, err := event.ParseChanged(long)
	if err != nil || !left || len(long) > 33<<10 || !slices.Equal(keys, many[:len(keys)]) || len(keys) < 1000 {
		t.Errorf("%d keys in %d bytes, cut %v, %v", len(keys), len(long), left, err)
	}
}

func TestSubjectsReadBack(t *testing.T) {
	token := rapid.StringMatching(`[A-Za-z0-9_-]{1,24}`)
	rapid.Check(t, func(t *rapid.T) {
		want := event.Subject{
			Prefix:  strings.Join(rapid.SliceOfN(token, 1, 3).Draw(t, "prefix"), "."),
			Account: token.Draw(t, "account"), ContactID: token.Draw(t, "id"),
			Verb: rapid.SampledFrom([]event.Verb{event.Snapshot, event.Created, event.Updated, event.Deleted}).Draw(t, "verb"),
		}
		if err := want.Check(); err != nil {
			t.Fatal(err)
		}
		got, err := event.ParseSubject(want.String())
		if err != nil || got != want {
			t.Fatalf("%s: %+v, %v", want, got, err)
		}
	})
}

func TestSubjectsAreChecked(t *testing.T) {
	good := event.Subject{Prefix: "nimble", Account: "acme", Verb: event.Created, ContactID: "a1"}
	for part, spoil := range map[string]func(s *event.Subject){
		"prefix":     func(s *event.Subject) { s.Prefix = "nimble..x" },
		"account":    func(s *event.Subject) { s.Account = "*" },
		"verb":       func(s *event.Subject) { s.Verb = "moved" },
		"contact id": func(s *event.Subject) { s.ContactID = "a.b" },
	} {
		s := good
		spoil(&s)
		err := s.Check()
		if bad, ok := errors.AsType[*event.SubjectError](err); !ok || bad.Part != part {
			t.Errorf("%s: %v", part, err)
		}
	}
	for _, s := range []string{"", "nimble", "nimble.acme.contact.created", "acme.contact.created.a1", "nimble.acme.bridge.rejected", "nimble.acme.contact.created.a*", "nimble.acme.deal.created.a1", ".acme.contact.created.a1"} {
		if got, err := event.ParseSubject(s); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, data := range samples() {
		f.Add(data)
	}
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"com.nimble.contact.updated","subject":"a","data":{"contact":{"a":1,"a":2},"changes":{"x":{"before":"` + "\xff" + `"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = event.TypeOf(data)
		_, _ = event.DecodeReconciled(data)
		_, _ = event.DecodeRejected(data)
		first, err := event.Decode(data)
		if err != nil {
			return
		}
		// What can be read is written so that it reads the same.
		encoded := first.Encode()
		second, err := event.Decode(encoded)
		if err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		if again := second.Encode(); !bytes.Equal(encoded, again) {
			t.Fatalf("%s\nbecame\n%s", encoded, again)
		}
	})
}

func FuzzSummarize(f *testing.F) {
	f.Add([]byte(contact))
	f.Add([]byte(`{"fields":{"contact employment":[{"value":"{\"is_present\":true}"}]},"tags":["a",{"tag":"b"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := event.Summarize(data)
		if err != nil {
			return
		}
		if slices.Contains(s.Emails, "") || slices.Contains(s.Phones, "") || slices.Contains(s.Tags, "") {
			t.Errorf("empty values: %q", s)
		}
	})
}

func FuzzParseChanged(f *testing.F) {
	f.Add("fields.first%20name,tags")
	f.Add("*")
	f.Add("a%")
	f.Fuzz(func(t *testing.T, s string) {
		keys, left, err := event.ParseChanged(s)
		if err != nil || left || len(s) > 30<<10 {
			return
		}
		slices.Sort(keys)
		again, left, err := event.ParseChanged(event.FormatChanged(keys))
		if err != nil || left && len(keys) < 100 || !left && !slices.Equal(keys, again) {
			t.Errorf("%q became %q, %v, %v", keys, again, left, err)
		}
	})
}

func FuzzParseHeaders(f *testing.F) {
	f.Add("id", "updated", "7", "1:ff", "2026-03-01T10:15:00Z", "2026-03-01T10:15:00.123456789+03:00", "fields.first%20name,tags")
	f.Add("id", "deleted", "1", "", "", "", "")
	f.Add("id", "created", "18446744073709551615", "x", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", ",")
	f.Fuzz(func(t *testing.T, id, verb, revision, fingerprint, created, updated, changed string) {
		m := map[string][]string{
			event.HeaderID: {id}, event.HeaderType: {verb}, event.HeaderRevision: {revision}, event.HeaderFingerprint: {fingerprint},
			event.HeaderCreated: {created}, event.HeaderUpdated: {updated}, event.HeaderChanged: {changed},
		}
		first, err := event.ParseHeaders(m)
		if err != nil {
			return
		}
		if first.Verb != event.Updated {
			first.ChangedKeys, first.ChangedCut = nil, false
		}
		slices.Sort(first.ChangedKeys)
		if len(changed) > 30<<10 || first.ChangedCut {
			return
		}
		// What can be read is written so that it reads the same.
		second, err := event.ParseHeaders(first.Map())
		if err != nil {
			t.Fatalf("%q: %v", first.Map(), err)
		}
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzParseSubject(f *testing.F) {
	f.Add("nimble.acme.contact.updated.5049fb849b85f669e40000dc")
	f.Add("a.b.c.contact.deleted.x")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := event.ParseSubject(s)
		if err != nil {
			return
		}
		if got.String() != s || strings.ContainsAny(s, "*> \r\n") {
			t.Errorf("%q is %+v", s, got)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := sample(event.Updated)
	buf := e.Encode()
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = e.Append(buf[:0])
	}
}

func BenchmarkSummarize(b *testing.B) {
	raw := jsontext.Value(contact)
	for name, summarize := range map[string]func(jsontext.Value) (event.Summary, error){"checked": event.SummarizeValid, "unchecked": event.Summarize} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := summarize(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	data := sample(event.Updated).Encode()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
