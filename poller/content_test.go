package poller_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nimble-bridge/poller"
)

const contact = `{"id": "6f10a0c2d4e5b6a7c8d9e0f1", "object_type": "contact", "record_type": "person",
 "created": "2029-01-17T16:11:46.120934", "updated": "2031-05-04T10:07:41.553012", "updater": null, "owner_id": null,
 "fields": {
  "first name": [{"value": "Tomasz", "modifier": "", "label": "first name", "is_primary": false}],
  "email": [{"value": "tomasz@brandt.example", "modifier": "work", "label": "email", "is_primary": true},
            {"value": "t@home.example", "modifier": "personal", "label": "email", "is_primary": false}],
  "address": [{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\"}", "modifier": "work", "label": "address", "is_primary": false}]},
 "tags": [{"tag": "supplier", "id": "6e00000000000000000000c0/supplier"}, {"tag": "boats", "id": "6e00000000000000000000c1/boats"}],
 "privacy": {"read": null, "edit": null}, "is_important": null, "stages_info": {}, "reminder": null, "notice": null}`

// edit replaces one piece of the contact and fails the test if it is not there.
func edit(t *testing.T, old, with string) jsontext.Value {
	t.Helper()
	if strings.Count(contact, old) != 1 {
		t.Fatalf("%q stands %d times in the contact, want once", old, strings.Count(contact, old))
	}
	return jsontext.Value(strings.Replace(contact, old, with, 1))
}

func TestNoChangeOf(t *testing.T) {
	tests := []struct{ name, old, with string }{
		{"updated", `"updated": "2031-05-04T10:07:41.553012"`, `"updated": "2032-05-04T10:07:41+0300"`},
		{"the updater's name", `"updater": null`, `"updater": "Ines Okafor"`},
		{"an unknown key", `"updater": null`, `"relationship_score": 17`},
		{"empty stages as a list", `"stages_info": {}`, `"stages_info": []`},
		{"empty stages as null", `"stages_info": {}`, `"stages_info": null`},
		{"an absent owner", `"owner_id": null,`, ``},
		{"an empty owner", `"owner_id": null`, `"owner_id": ""`},
		{"absent privacy", `"privacy": {"read": null, "edit": null},`, ``},
		{"tags as texts in another order", `[{"tag": "supplier", "id": "6e00000000000000000000c0/supplier"}, {"tag": "boats", "id": "6e00000000000000000000c1/boats"}]`, `["boats", "supplier"]`},
		{"a tag twice", `{"tag": "boats", "id": "6e00000000000000000000c1/boats"}]`, `"boats", "boats"]`},
		{"a tag's id", `6e00000000000000000000c1/boats`, `6e00000000000000000000c9/boats`},
		{"a label", `"label": "first name", `, ``},
		{"an absent is_primary", `"label": "first name", "is_primary": false`, `"label": "first name"`},
		{"a field id", `"label": "first name"`, `"field_id": "6e00", "group": "x"`},
		{"an empty field", `"fields": {`, `"fields": {"phone": [], "skype id": null, "URL": [{"value": "", "modifier": "work"}],`},
		{"the members of an address in another order", `{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\"}`, `{\"city\":\"Gdynia\", \"street\":\"4 Quay Rd\"}`},
		{"an empty member of an address", `\"city\": \"Gdynia\"`, `\"city\": \"Gdynia\", \"zip\": \"\", \"state\": null`},
		{"escapes", `"Tomasz"`, `"\u0054omasz"`},
		{"the days until a reminder of nothing", `"reminder": null`, `"reminder": {"days_till_triggered": 4, "triggered": false}`},
		{"who wrote an empty notice", `"notice": null`, `"notice": {"creator": {"name": "x"}, "created": "2031-05-04"}`},
	}
	want, err := poller.FingerprintOf(jsontext.Value(contact))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			after := edit(t, tt.old, tt.with)
			got, err := poller.FingerprintOf(after)
			if err != nil {
				t.Fatal(err)
			}
			changes, err := poller.Diff(jsontext.Value(contact), after)
			if got != want || len(changes) != 0 || err != nil {
				t.Errorf("fingerprint %v, want %v; changes %v, %v, want none", got, want, changes, err)
			}
		})
	}
}

func TestChangeOf(t *testing.T) {
	const emails = `[{"value": "tomasz@brandt.example", "modifier": "work", "label": "email", "is_primary": true},
            {"value": "t@home.example", "modifier": "personal", "label": "email", "is_primary": false}]`
	tests := []struct{ name, old, with, key, before, after string }{
		{"the record type", `"record_type": "person"`, `"record_type": "company"`, "record_type", `"person"`, `"company"`},
		{"the owner", `"owner_id": null`, `"owner_id": "6e00"`, "owner_id", "", `"6e00"`},
		{"a star set", `"is_important": null`, `"is_important": true`, "is_important", "", `true`},
		{"a star taken away after being set", `"is_important": null`, `"is_important": false`, "is_important", "", `false`},
		{
			"a value", `"value": "Tomasz"`, `"value": "Tomek"`, "fields.first name",
			`[{"value": "Tomasz", "modifier": "", "label": "first name", "is_primary": false}]`, `[{"value": "Tomek", "modifier": "", "label": "first name", "is_primary": false}]`,
		},
		{"a modifier", `"modifier": "personal"`, `"modifier": "other"`, "fields.email", emails, strings.Replace(emails, "personal", "other", 1)},
		{"the primary value", `"label": "email", "is_primary": false`, `"label": "email", "is_primary": true`, "fields.email", emails, strings.Replace(emails, "false", "true", 1)},
		{"a field gone", `"email": ` + emails + `,`, ``, "fields.email", emails, ""},
		{"a field added, with dots and emoji in its name", `"fields": {`, `"fields": {"a.b, \"☂\"": [{"value": "1"}],`, `fields.a.b, "☂"`, "", `[{"value": "1"}]`},
		{
			"a text behind the address's object", `\"Gdynia\"}"`, `\"Gdynia\"} at the back"`, "fields.address",
			`[{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\"}", "modifier": "work", "label": "address", "is_primary": false}]`,
			`[{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\"} at the back", "modifier": "work", "label": "address", "is_primary": false}]`,
		},
		{
			"a city", `Gdynia`, `Sopot`, "fields.address",
			`[{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\"}", "modifier": "work", "label": "address", "is_primary": false}]`,
			`[{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Sopot\"}", "modifier": "work", "label": "address", "is_primary": false}]`,
		},
		{
			"a tag gone", `, {"tag": "boats", "id": "6e00000000000000000000c1/boats"}`, ``, "tags",
			`[{"tag": "supplier", "id": "6e00000000000000000000c0/supplier"}, {"tag": "boats", "id": "6e00000000000000000000c1/boats"}]`,
			`[{"tag": "supplier", "id": "6e00000000000000000000c0/supplier"}]`,
		},
		{"privacy from everyone to the owner alone", `{"read": null, "edit": null}`, `{"read": {"user_ids": [], "group_ids": []}, "edit": null}`, "privacy", "", `{"read": {"user_ids": [], "group_ids": []}, "edit": null}`},
		{"a notice", `"notice": null`, `"notice": {"text": "careful", "creator": "x"}`, "notice", "", `{"text": "careful", "creator": "x"}`},
		{"a reminder", `"reminder": null`, `"reminder": {"period": 30, "days_till_triggered": 4}`, "reminder", "", `{"period": 30, "days_till_triggered": 4}`},
		{"a stage", `"stages_info": {}`, `"stages_info": [{"stage_name": "won"}]`, "stages_info", "", `[{"stage_name": "won"}]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			after := edit(t, tt.old, tt.with)
			changes, err := poller.Diff(jsontext.Value(contact), after)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]poller.Difference{tt.key: {Before: jsontext.Value(tt.before), After: jsontext.Value(tt.after)}}
			if d := cmp.Diff(texts(want), texts(changes)); d != "" {
				t.Errorf("changes (-want +got):\n%s", d)
			}
			was, _ := poller.FingerprintOf(jsontext.Value(contact))
			is, _ := poller.FingerprintOf(after)
			if was == is {
				t.Error("the fingerprint did not change")
			}
		})
	}
}

func texts(changes map[string]poller.Difference) map[string][2]string {
	m := make(map[string][2]string)
	for k, d := range changes {
		m[k] = [2]string{string(d.Before), string(d.After)}
	}
	return m
}

func TestOddDocuments(t *testing.T) {
	tests := []struct{ name, a, b string }{
		{"a number and its text", `{"fields":{"age":[{"value":5}]}}`, `{"fields":{"age":[{"value":"5"}]}}`},
		{"a boolean and its text", `{"fields":{"vip":[{"value":true}]}}`, `{"fields":{"vip":[{"value":"true"}]}}`},
		{"a single value without a list", `{"fields":{"age":{"value":"5"}}}`, `{"fields":{"age":[{"value":"5"}]}}`},
		{"a bare value", `{"fields":{"title":["CFO"]}}`, `{"fields":{"title":"CFO"}}`},
		{"no fields", `{"fields":null}`, `{"fields":[]}`},
		{"tags twice", `{"tags":["a","a"]}`, `{"tags":["a"]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes, err := poller.Diff(jsontext.Value(tt.a), jsontext.Value(tt.b))
			if err != nil || len(changes) != 0 {
				t.Errorf("Diff = %v, %v, want no changes", changes, err)
			}
		})
	}
	changes, err := poller.Diff(jsontext.Value(`{"fields":{"address":[{"value":"{'street': 'x'}"}]}}`), jsontext.Value(`{"fields":{"address":[{"value":"{'street': 'y'}"}]}}`))
	if err != nil || len(changes) != 1 {
		t.Errorf("addresses that are no JSON: Diff = %v, %v, want one change", changes, err)
	}
}

// TestNormalFormIsStable holds the fingerprint against documents whose lists are shuffled and whose numbers of spaces differ.
func TestShuffledListsAreNoChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			value, _ := jsontext.AppendQuote(nil, rapid.String().Draw(t, "value"))
			return fmt.Sprintf(`{"value": %s, "modifier": %q, "is_primary": %t}`, value,
				rapid.SampledFrom([]string{"work", "home", ""}).Draw(t, "modifier"), rapid.Bool().Draw(t, "primary"))
		}), 0, 6).Draw(t, "values")
		shuffled := rapid.Permutation(values).Draw(t, "shuffled")
		a := jsontext.Value(`{"fields":{"phone":[` + strings.Join(values, ",") + `]}}`)
		b := jsontext.Value(`{"fields":{"phone":[` + strings.Join(shuffled, " , ") + `]}}`)
		changes, err := poller.Diff(a, b)
		if err != nil || len(changes) != 0 {
			t.Fatalf("Diff = %v, %v, want none", changes, err)
		}
		one, err1 := poller.FingerprintOf(a)
		two, err2 := poller.FingerprintOf(b)
		if one != two || err1 != nil || err2 != nil {
			t.Fatalf("fingerprints %v %v and %v %v, want equal", one, err1, two, err2)
		}
	})
}

func FuzzFingerprint(f *testing.F) {
	f.Add([]byte(contact))
	f.Add([]byte(`{"fields":{"address":[{"value":"{\"a\":[1,{\"b\":2}]}"}]},"tags":["x",{"tag":""}],"privacy":{"read":{}}}`))
	f.Add([]byte(`{"tags":{"tag":"x"},"notice":[1],"reminder":"soon","privacy":7}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		first, err := poller.FingerprintOf(raw)
		if err != nil {
			return
		}
		if again, err := poller.FingerprintOf(raw); again != first || err != nil {
			t.Errorf("fingerprint %v, and then %v, %v", first, again, err)
		}
		if changes, err := poller.Diff(raw, raw); len(changes) != 0 || err != nil {
			t.Errorf("a document differs from itself in %v, %v", changes, err)
		}
		if back, err := poller.ParseFingerprint(first.String()); back != first || err != nil {
			t.Errorf("ParseFingerprint(%q) = %v, %v", first.String(), back, err)
		}
	})
}

func BenchmarkFingerprint(b *testing.B) {
	raw := jsontext.Value(contact)
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := poller.FingerprintOf(raw); err != nil {
			b.Fatal(err)
		}
	}
}
