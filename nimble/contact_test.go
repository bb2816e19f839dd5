package nimble_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nimble-bridge/nimble"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

func TestParseContact(t *testing.T) {
	created := time.Date(2029, 1, 17, 16, 11, 46, 0, time.UTC)
	tests := []struct {
		name, raw string
		want      nimble.Contact // without Raw
	}{
		{
			"everything there", `{"id":"a1","record_type":"company","created":"2029-01-17T16:11:46","updated":"2029-01-17T19:11:47+0300"}`,
			nimble.Contact{ID: "a1", RecordType: "company", Created: created, Updated: created.Add(time.Second)},
		},
		{"only an id", `{"id":"A_z-9"}`, nimble.Contact{ID: "A_z-9"}},
		{"an unknown type of record", `{"id":"a1","record_type":"robot"}`, nimble.Contact{ID: "a1", RecordType: "robot"}},
		{"null everywhere", `{"id":"a1","record_type":null,"created":null,"updated":null,"fields":null}`, nimble.Contact{ID: "a1"}},
		{"other types everywhere", `{"id":"a1","record_type":["person"],"created":{"id":"b2"},"updated":1938420000,"fields":[]}`, nimble.Contact{ID: "a1"}},
		{"unreadable times", `{"id":"a1","created":"yesterday","updated":""}`, nimble.Contact{ID: "a1"}},
		{"escapes", `{"\u0069d":"\u0061\u0031","record_type":"p\u0065rson","created":"2029-01-17T16\u003a11:46"}`, nimble.Contact{ID: "a1", RecordType: "person", Created: created}},
		{"ids further in", `{"tags":[{"id":"t1"}],"id":"a1","owner":{"id":"o1","updated":"2029-01-17T16:11:46"}}`, nimble.Contact{ID: "a1"}},
		{"names of other case", `{"ID":"b2","id":"a1","Updated":"2029-01-17T16:11:46"}`, nimble.Contact{ID: "a1"}},
		{"the longest id", `{"id":"` + strings.Repeat("a", 64) + `"}`, nimble.Contact{ID: strings.Repeat("a", 64)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nimble.ParseContact(jsontext.Value("\n " + tt.raw + " \r\n"))
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Raw) != tt.raw {
				t.Errorf("Raw = %s, want %s", got.Raw, tt.raw)
			}
			got.Raw = nil
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("contact (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseContactRefuses(t *testing.T) {
	tests := []struct{ name, raw, reason string }{
		{"nothing", ``, "not a JSON object"},
		{"white space", ` `, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"a list", `[{"id":"a1"}]`, "not a JSON object"},
		{"half an object", `{"id":"a1"`, "not a JSON object"},
		{"half a string", `{"id":"a1`, "not a JSON object"},
		{"two objects", `{"id":"a1"}{"id":"a2"}`, "not a JSON object"},
		{"text after it", `{"id":"a1"}x`, "not a JSON object"},
		{"an id twice", `{"id":"a1","id":"a2"}`, "not a JSON object"},
		{"invalid UTF-8", "{\"id\":\"a1\",\"name\":\"\xff\"}", "not a JSON object"},
		{"no id", `{"record_type":"person"}`, "no usable id"},
		{"null id", `{"id":null}`, "no usable id"},
		{"numeric id", `{"id":17}`, "no usable id"},
		{"empty id", `{"id":""}`, "no usable id"},
		{"id with a point", `{"id":"a.1"}`, "no usable id"},
		{"id with a wildcard", `{"id":"*"}`, "no usable id"},
		{"id with a comma", `{"id":"a1,a2"}`, "no usable id"},
		{"id with a line feed", `{"id":"a1\n"}`, "no usable id"},
		{"id in another script", `{"id":"é"}`, "no usable id"},
		{"endless id", `{"id":"` + strings.Repeat("a", 65) + `"}`, "no usable id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nimble.ParseContact(jsontext.Value(tt.raw))
			record, ok := errors.AsType[*nimble.RecordError](err)
			if !ok {
				t.Fatalf("ParseContact(%s) = %+v, %v, want a RecordError", tt.raw, got, err)
			}
			if record.Reason != tt.reason || string(record.Raw) != tt.raw {
				t.Errorf("RecordError is %q about %s, want %q about %s", record.Reason, record.Raw, tt.reason, tt.raw)
			}
		})
	}
}

func FuzzParseContact(f *testing.F) {
	f.Add([]byte(document(1)))
	f.Add([]byte(` {"id":"\u0061","updated":"2029-01-17T16:11:46.5+0300","tags":[{"id":"x"}]} `))
	f.Add([]byte(`{"id":"a","id":"b"}`))
	f.Add([]byte("{\"id\":\"a\",\"n\":\"\xed\xa0\x80\"}"))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := string(raw)
		c, err := nimble.ParseContact(raw)
		if string(raw) != before {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if record, ok := errors.AsType[*nimble.RecordError](err); !ok || record.Reason == "" {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !c.Raw.IsValid() || c.Raw.Kind() != '{' || string(c.Raw) != strings.Trim(before, " \t\r\n") {
			t.Fatalf("Raw is %q for %q", c.Raw, before)
		}
		if c.ID == "" || len(c.ID) > 64 || strings.Trim(c.ID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			t.Fatalf("ID is %q", c.ID)
		}
		again, err := nimble.ParseContact(c.Raw)
		if diff := cmp.Diff(c, again); err != nil || diff != "" {
			t.Fatalf("reads differently again: %v\n%s", err, diff)
		}
	})
}

func TestPageSurvivesMalformedRecords(t *testing.T) {
	tests := []struct {
		name, record string
		want         nimble.Malformed // without Raw
	}{
		{"null", `null`, nimble.Malformed{Reason: "not a JSON object"}},
		{"a string", `"x"`, nimble.Malformed{Reason: "not a JSON object"}},
		{"a list", `[1,{}]`, nimble.Malformed{Reason: "not a JSON object"}},
		{"no id", `{"record_type":"person"}`, nimble.Malformed{Reason: "no usable id"}},
		{"a repeated name", `{"id":"bad", "tags":[], "tags":{}}`, nimble.Malformed{ID: "bad", Reason: "invalid UTF-8 or a repeated name"}},
		{"a repeated name further in", `{"fields":{"a":1,"a":2}, "id":"bad"}`, nimble.Malformed{ID: "bad", Reason: "invalid UTF-8 or a repeated name"}},
		{"invalid UTF-8", "{\"id\":\"bad\",\"name\":\"\xc3\x28\"}", nimble.Malformed{ID: "bad", Reason: "invalid UTF-8 or a repeated name"}},
		{"half a surrogate pair", `{"id":"bad","name":"\ud800"}`, nimble.Malformed{ID: "bad", Reason: "invalid UTF-8 or a repeated name"}},
		{"an unusable id in bad UTF-8", "{\"id\":\"\xff\"}", nimble.Malformed{Reason: "invalid UTF-8 or a repeated name"}},
		{"invalid UTF-8 in a list", "[\"\xff\"]", nimble.Malformed{Reason: "invalid UTF-8 or a repeated name"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			page, err := nimble.DecodePage([]byte(listing(1, 1, 100, 5, document(1), tt.record, document(2), tt.record, document(3))))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{id(1), id(2), id(3)}, ids(page.Contacts)); diff != "" {
				t.Errorf("contacts (-want +got):\n%s", diff)
			}
			for i, c := range page.Contacts {
				if string(c.Raw) != document(i+1) {
					t.Errorf("contact %d is %s, want %s", i, c.Raw, document(i+1))
				}
			}
			if len(page.Malformed) != 2 {
				t.Fatalf("%d malformed records, want 2", len(page.Malformed))
			}
			for _, m := range page.Malformed {
				if string(m.Raw) != tt.record {
					t.Errorf("Raw = %s, want %s", m.Raw, tt.record)
				}
				m.Raw = nil
				if diff := cmp.Diff(tt.want, m); diff != "" {
					t.Errorf("malformed (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestMetaIsReadLeniently(t *testing.T) {
	tests := []struct {
		name, meta string
		want       nimble.Meta
	}{
		{"numbers", `{"page":2,"pages":4,"per_page":10,"total":34}`, nimble.Meta{Page: 2, Pages: 4, PerPage: 10, Total: 34}},
		{"other order, other keys", `{"total":34,"has_more":true,"page":2,"x":{"page":9}}`, nimble.Meta{Page: 2, Total: 34}},
		{"strings", `{"page":"2","pages":" 4 ","per_page":"10","total":"34"}`, nimble.Meta{Page: 2, Pages: 4, PerPage: 10, Total: 34}},
		{"floating point", `{"page":2.0,"pages":4e0,"per_page":1E+1,"total":34.0}`, nimble.Meta{Page: 2, Pages: 4, PerPage: 10, Total: 34}},
		{"null and nonsense", `{"page":null,"pages":[],"per_page":"ten","total":-1}`, nimble.Meta{}},
		{"beyond all bounds", `{"page":1e300,"total":99999999999999999999}`, nimble.Meta{}},
		{"null", `null`, nimble.Meta{}},
		{"a list", `[1,2]`, nimble.Meta{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, body := range []string{
				`{"meta":` + tt.meta + `,"resources":[]}`,
				`{"resources":[],"more":{"meta":{"page":7}},"meta":` + tt.meta + "}\n",
			} {
				page, err := nimble.DecodePage([]byte(body))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, page.Meta); diff != "" {
					t.Errorf("meta (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestBodiesThatAreNoListing(t *testing.T) {
	tests := []struct {
		name, body string
		reason     string // of the NotJSONError; empty for a TruncatedError
	}{
		{"nothing", "", ""},
		{"white space", " \n", ""},
		{"a listing cut short", listing(1, 1, 10, 2, document(1), document(2))[:900], ""},
		{"all but the last bracket", `{"meta":{"page":1},"resources":[]`, ""},
		{"HTML", "\n<!DOCTYPE html><title>Secret maintenance</title>", "an HTML or XML document"},
		{"a list", `[]`, "JSON of another shape"},
		{"a string", `"ok"`, "JSON of another shape"},
		{"null", `null`, "JSON of another shape"},
		{"no resources", `{"meta":{"total":0}}`, "JSON without a list of resources"},
		{"resources null beside contacts", `{"meta":{"total":3},"resources":null}`, "JSON without a list of resources"},
		{"resources null without a total", `{"meta":{},"resources":null}`, "JSON without a list of resources"},
		{"resources an object", `{"meta":{"total":0},"resources":{}}`, "JSON without a list of resources"},
		{"two values", `{"resources":[]}{}`, "more data after the JSON"},
		{"text after it", `{"resources":[]} secret`, "more data after the JSON"},
		{"text", `secret`, "not valid JSON at byte 0"},
		{"a broken record", `{"resources":[{"id":"a1", secret}]}`, "not valid JSON at byte 26"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := nimble.DecodePage([]byte(tt.body))
			if err != nil && strings.Contains(strings.ToLower(err.Error()), "secret") {
				t.Errorf("the error quotes the body: %v", err)
			}
			if tt.reason == "" {
				truncated, ok := errors.AsType[*nimble.TruncatedError](err)
				if !ok || truncated.Read != int64(len(tt.body)) {
					t.Fatalf("got %v, want a TruncatedError after %d bytes", err, len(tt.body))
				}
				return
			}
			notJSON, ok := errors.AsType[*nimble.NotJSONError](err)
			if !ok {
				t.Fatalf("got %v, want a NotJSONError", err)
			}
			if notJSON.Reason != tt.reason {
				t.Errorf("reason %q, want %q", notJSON.Reason, tt.reason)
			}
		})
	}
}

func TestNullResourcesBesideNoTotalAreEmpty(t *testing.T) {
	page, err := nimble.DecodePage([]byte(`{"resources":null,"meta":{"total":0}}`))
	if err != nil || len(page.Contacts) != 0 {
		t.Errorf("got %+v, %v, want an empty page", page, err)
	}
}

// FuzzDecodePage: no body makes it panic, every record ends up in one of the two lists exactly as it was, and what counts as a
// contact is JSON for the strictest reader.
func FuzzDecodePage(f *testing.F) {
	f.Add([]byte(listing(1, 1, 100, 2, document(1), document(2))))
	f.Add([]byte(`{"resources":[null,{"id":"a"},{"id":"b","x":1,"x":2},{}],"meta":{"total":"4"}}`))
	f.Add([]byte("{\"resources\":[{\"id\":\"a\",\"n\":\"\xff\"},[\"\xff\"]]}"))
	f.Add([]byte(`{"resources":null,"meta":{"total":0}}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		before := string(body)
		page, err := nimble.DecodePage(body)
		if string(body) != before {
			t.Fatal("the body was changed")
		}
		if err != nil {
			if !nimble.Retryable(err) {
				t.Fatalf("damage is not worth a retry: %v", err)
			}
			return
		}
		for _, c := range page.Contacts {
			if !strings.Contains(before, string(c.Raw)) {
				t.Fatalf("Raw %q is not in the body", c.Raw)
			}
			again, err := nimble.ParseContact(c.Raw)
			if diff := cmp.Diff(c, again); err != nil || diff != "" {
				t.Fatalf("contact reads differently again: %v\n%s", err, diff)
			}
		}
		for _, m := range page.Malformed {
			if m.Reason == "" || !strings.Contains(before, string(m.Raw)) {
				t.Fatalf("malformed %+v", m)
			}
			if _, err := nimble.ParseContact(m.Raw); err == nil {
				t.Fatalf("%q is not malformed", m.Raw)
			}
		}
	})
}

func TestPageDecodingAllocatesOncePerContact(t *testing.T) {
	var documents []string
	for n := range 100 {
		documents = append(documents, document(n))
	}
	body := []byte(listing(1, 1, 100, 100, documents...))
	got := testing.AllocsPerRun(50, func() {
		if _, err := nimble.DecodePage(body); err != nil {
			t.Fatal(err)
		}
	})
	// One for each id; the rest is the decoder's, whatever the number of contacts.
	if got > 100+60 {
		t.Errorf("a page of 100 contacts takes %v allocations", got)
	}
}

func BenchmarkDecodePage(b *testing.B) {
	for _, n := range []int{1, 100} {
		for _, damaged := range []bool{false, true} {
			var documents []string
			for i := range n {
				documents = append(documents, document(i))
			}
			if damaged {
				documents[n/2] = `{"id":"a","x":1,"x":2}`
			}
			body := []byte(listing(1, 1, n, n, documents...))
			b.Run(fmt.Sprintf("contacts=%d/damaged=%v", n, damaged), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					if _, err := nimble.DecodePage(body); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
