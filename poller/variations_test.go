package poller_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// The documents of the Nimble API contradict each other, and what was recorded of it, in how a contact is written. The tests of this file let an account write one contact now in one
// way and now in another.

const varied = "6f10a0c2d4e5b6a7c8d9e0f1"

// template is a contact with all keys that one was ever seen with, in their order. What a test says of a key takes the place of what is here.
func template() [][2]string {
	return [][2]string{
		{"object_type", `"contact"`},
		{"record_type", `"person"`},
		{"creator", `"Ines Okafor"`},
		{"creator_id", `"6e00000000000000000000a1"`},
		{"updater", `null`},
		{"owner_id", `"6e00000000000000000000a1"`},
		{"fields", ``},
		{"fields.first name", `[{"value": "Tomasz", "modifier": "", "label": "first name", "is_primary": false}]`},
		{"fields.email", `[{"value": "tomasz@brandt.example", "modifier": "work", "label": "email", "is_primary": true}, {"value": "t@home.example", "modifier": "personal", "label": "email", "is_primary": false}]`},
		{"fields.address", `[{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\", \"country\": \"Poland\"}", "modifier": "work", "label": "address", "is_primary": false}]`},
		{"fields.contact employment", `[{"value": "{\"company_name\": \"Brandt Marine\", \"title\": \"CFO\", \"is_present\": true}", "modifier": "", "label": "contact employment", "is_primary": true, "extra_value": "6f10a0c9d4e5b6a7c8d9e0f2"}]`},
		{"fields.birthday", `[{"value": "05/04/1971", "modifier": ""}]`},
		{"tags", `[{"tag": "supplier", "id": "6e00000000000000000000c0/supplier"}]`},
		{"tags2", `["supplier"]`},
		{"children", `[]`},
		{"employers_info", `[]`},
		{"privacy", `{"read": null, "edit": null}`},
		{"is_editable", `true`},
		{"is_important", `null`},
		{"avatar_url", `"https://app.nimble.com/api/avatars/person_default"`},
		{"last_contacted", `{"tstamp": null, "type": null, "object_id": null, "user_id": null, "deletion_tstamp": null}`},
		{"company_last_contacted", `{"in": null, "out": null}`},
		{"last_contacted_user", `null`},
		{"lc", `null`},
		{"reminder", `null`},
		{"reminders", `null`},
		{"notice", `null`},
		{"stages_info", `{}`},
		{"files", `null`},
		{"contexts", `[]`},
	}
}

// absent stands for a key that is not there.
const absent = ""

// document writes the varied contact, or another, with a value of one key. The times are as they are to be written.
func document(t *testing.T, id, created, updated, key, value string) string {
	t.Helper()
	var top, fields []string
	found := false
	for _, m := range template() {
		name, is := m[0], m[1]
		if name == key {
			found, is = true, value
		}
		field, isField := strings.CutPrefix(name, "fields.")
		switch {
		case name == "fields" && key != "fields" || is == absent:
		case isField && key != "fields":
			fields = append(fields, fmt.Sprintf("%q: %s", field, is))
		case !isField:
			top = append(top, fmt.Sprintf("%q: %s", name, is))
		}
	}
	if !found && value != absent { // A key that the template does not have.
		if field, isField := strings.CutPrefix(key, "fields."); isField {
			fields = append(fields, fmt.Sprintf("%q: %s", field, value))
		} else {
			top = append(top, fmt.Sprintf("%q: %s", key, value))
		}
	}
	if key != "fields" {
		top = append(top, `"fields": {`+strings.Join(fields, ", ")+`}`)
	}
	for name, text := range map[string]string{"created": created, "updated": updated} {
		if text != absent {
			top = append(top, fmt.Sprintf("%q: %s", name, text))
		}
	}
	doc := fmt.Sprintf(`{"id": %q, %s}`, id, strings.Join(top, ", "))
	if !jsontext.Value(doc).IsValid() {
		t.Fatalf("the test's document is no JSON: %s", doc)
	}
	return doc
}

// stamp is a time as the account writes it.
func stamp(at time.Time) string { return at.UTC().Format(`"2006-01-02T15:04:05.000000"`) }

func put(t *testing.T, account *nimbletest.Account, doc string) {
	t.Helper()
	if err := account.Put(doc); err != nil {
		t.Fatal(err)
	}
}

// TestTypeVariations has one row for each way in which a value of a contact is known, or feared, to vary. Where the two ways mean the same there is no event; where they do not
// there is one, which names the key and has both sides as they were written. No way of writing anything makes a contact unreadable.
func TestTypeVariations(t *testing.T) {
	const (
		same    = false
		changed = true
	)
	tests := []struct {
		name, key, a, b string
		change          bool
	}{
		{"tags as objects or strings", "tags", `[{"tag": "a", "id": "6e/a"}, {"tag": "b", "id": "6e/b"}]`, `["a", "b"]`, same},
		{"tags in another order", "tags", `["a", "b"]`, `["b", "a"]`, same},
		{"tags with other ids", "tags", `[{"tag": "a", "id": "6e00000000000000000000c0"}]`, `[{"tag": "a", "id": "6e00000000000000000000c0/a"}]`, same},
		{"tags with members that came later", "tags", `[{"tag": "a", "id": "6e/a"}]`, `[{"tag": "a", "id": "6e/a", "color": "red"}]`, same},
		{"a tag twice", "tags", `["a", "a"]`, `["a"]`, same},
		{"null among tags", "tags", `["a", null]`, `["a"]`, same},
		{"no tags: list or null", "tags", `[]`, `null`, same},
		{"no tags: list or absent", "tags", `[]`, absent, same},
		{"another tag", "tags", `["a"]`, `["b"]`, changed},
		{"a tag in other letters", "tags", `["vip"]`, `["VIP"]`, changed},
		{"one tag more, in the other form", "tags", `[{"tag": "a", "id": "6e/a"}]`, `["a", "b"]`, changed},
		{"tags gone altogether", "tags", `["a"]`, absent, changed},

		{"stages: object or list", "stages_info", `{}`, `[]`, same},
		{"stages: object or null", "stages_info", `{}`, `null`, same},
		{"stages: list or absent", "stages_info", `[]`, absent, same},
		{"stages in another order", "stages_info", `[{"pipeline_id": "1"}, {"pipeline_id": "2"}]`, `[{"pipeline_id": "2"}, {"pipeline_id": "1"}]`, same},
		{"null members of a stage", "stages_info", `[{"pipeline_id": "1", "days_limit": null}]`, `[{"pipeline_id": "1"}]`, same},
		{"a first stage", "stages_info", `{}`, `[{"pipeline_id": "1", "pipeline_name": "Leads", "stage_name": "New", "entered_data": "2031-05-04", "is_final": false, "days_limit": 30}]`, changed},
		{"another stage", "stages_info", `[{"pipeline_id": "1", "stage_name": "New"}]`, `[{"pipeline_id": "1", "stage_name": "Won"}]`, changed},

		{"the owner: null or absent", "owner_id", `null`, absent, same},
		{"the owner: null or empty", "owner_id", `null`, `""`, same},
		{"assigned", "owner_id", `null`, `"6e00000000000000000000a1"`, changed},
		{"assigned to another", "owner_id", `"6e00000000000000000000a1"`, `"6e00000000000000000000a2"`, changed},

		{"privacy: null or an object of nulls", "privacy", `null`, `{"read": null, "edit": null}`, same},
		{"privacy: absent or an object of nulls", "privacy", absent, `{"read": null, "edit": null}`, same},
		{"privacy: users in another order", "privacy", `{"read": {"user_ids": ["1", "2"], "group_ids": []}}`, `{"read": {"user_ids": ["2", "1"], "group_ids": []}}`, same},
		{"privacy: a list absent or empty", "privacy", `{"read": {"user_ids": ["1"]}}`, `{"read": {"user_ids": ["1"], "group_ids": []}, "edit": null}`, same},
		{"privacy: the owner alone, spelt out or not", "privacy", `{"read": {"user_ids": [], "group_ids": []}}`, `{"read": {}}`, same},
		{"from everyone to the owner alone", "privacy", `null`, `{"read": {"user_ids": [], "group_ids": []}, "edit": null}`, changed},
		{"one user more may read", "privacy", `{"read": {"user_ids": ["1"], "group_ids": []}}`, `{"read": {"user_ids": ["1", "2"], "group_ids": []}}`, changed},

		{"the star: null or absent", "is_important", `null`, absent, same},
		{"the star set", "is_important", `null`, `true`, changed},
		{"the star taken away", "is_important", `true`, `false`, changed},

		{"the notice: null or absent", "notice", `null`, absent, same},
		{"the notice: null or empty", "notice", `null`, `{"text": "", "color": null, "created": null, "updated": null, "creator": null, "updated_by": null}`, same},
		{"who wrote the notice, and when", "notice", `{"text": "careful", "color": "red", "created": "2031-05-04", "creator": {"name": "Ines"}}`, `{"text": "careful", "color": "red", "updated": "2031-05-05", "updated_by": "Ines"}`, same},
		{"a notice", "notice", `null`, `{"text": "careful", "color": "red"}`, changed},
		{"the notice's color", "notice", `{"text": "careful", "color": "red"}`, `{"text": "careful", "color": "blue"}`, changed},

		{"the reminder: null or absent", "reminder", `null`, absent, same},
		{"the reminder's countdown", "reminder", `{"contact_id": "` + varied + `", "period": 30, "days_till_triggered": 4, "active": true, "triggered": false}`, `{"period": 30, "days_till_triggered": 0, "active": true, "triggered": true}`, same},
		{"a reminder", "reminder", `null`, `{"contact_id": "` + varied + `", "period": 30, "days_till_triggered": 30, "active": true, "triggered": false}`, changed},
		{"the reminder's period", "reminder", `{"period": 30, "active": true}`, `{"period": 60, "active": true}`, changed},
		{"the reminder switched off", "reminder", `{"period": 30, "active": true}`, `{"period": 30, "active": false}`, changed},

		{"a person made a company", "record_type", `"person"`, `"company"`, changed},

		// Keys that say nothing that a person did to the contact.
		{"object_type absent", "object_type", `"contact"`, absent, same},
		{"the updater named", "updater", `null`, `"Ines Okafor"`, same},
		{"the creator renamed", "creator", `"Ines Okafor"`, `"Ines Okafor-Brandt"`, same},
		{"the creator's id", "creator_id", absent, `"6e00000000000000000000a1"`, same},
		{"the second list of tags", "tags2", `["supplier"]`, absent, same},
		{"reminders", "reminders", `null`, `[{"period": 30}]`, same},
		{"the avatar: null or a URL", "avatar_url", `null`, `"https://app.nimble.com/api/avatars/1"`, same},
		{"children", "children", `[]`, `["6f10a0c9d4e5b6a7c8d9e0f2"]`, same},
		{"employers", "employers_info", `[]`, `[{"contact_id": "6f10a0c9d4e5b6a7c8d9e0f2", "company_name": "Brandt Marine", "avatar_url": null}]`, same},
		{"last contacted: null or an object of nulls", "last_contacted", `null`, `{"tstamp": null, "type": null, "object_id": null, "user_id": null, "deletion_tstamp": null}`, same},
		{"last contacted: by whom, and in which direction", "last_contacted", `null`, `{"tstamp": "2031-05-04T10:07:41+0000", "type": "mail", "object_id": "1", "user_id": "2", "deletion_tstamp": null, "direction": "out"}`, same},
		{"last contacted: absent", "last_contacted", `null`, absent, same},
		{"company last contacted", "company_last_contacted", `{"in": null, "out": null}`, `{"in": {"tstamp": "2031-05-04T10:07:41+0000"}, "out": null}`, same},
		{"the user who made the last contact", "last_contacted_user", `null`, `"Ines Okafor"`, same},
		{"lc", "lc", `null`, `{"company_lc": null, "user_lc": {"in": 1}, "last_user": "Ines"}`, same},
		{"contexts, one of them null", "contexts", `[]`, `[{"context_key": "email_lists", "context": null}, {"context_key": "sequences_data", "context": {"elapsed": 17}}]`, same},
		{"rights of the caller", "is_editable", `true`, `false`, same},
		{"files", "files", `null`, `[]`, same},
		{"a key that nobody has heard of", "relationship_score", absent, `{"score": 17}`, same},

		// The field map as a whole.
		{"no fields: object or null", "fields", `{}`, `null`, same},
		{"no fields: object or list", "fields", `{}`, `[]`, same},
		{"no fields: object or absent", "fields", `{}`, absent, same},

		// Fields.
		{"a field: no values or absent", "fields.phone", `[]`, absent, same},
		{"a field: null or absent", "fields.phone", `null`, absent, same},
		{"a field: an empty value or absent", "fields.phone", `[{"value": "", "modifier": "work"}]`, absent, same},
		{"a field: a null value or absent", "fields.phone", `[{"value": null, "modifier": "work", "is_primary": true}]`, absent, same},
		{"null among values", "fields.phone", `[{"value": "1"}, null]`, `[{"value": "1"}]`, same},
		{"values in another order", "fields.phone", `[{"value": "1"}, {"value": "2"}]`, `[{"value": "2"}, {"value": "1"}]`, same},
		{"a value as a string or a number", "fields.age", `[{"value": "5", "modifier": ""}]`, `[{"value": 5, "modifier": ""}]`, same},
		{"a value as a string or a boolean", "fields.vip", `[{"value": "true", "modifier": ""}]`, `[{"value": true, "modifier": ""}]`, same},
		{"a value in a list or alone", "fields.title", `[{"value": "CFO"}]`, `{"value": "CFO"}`, same},
		{"a value with field_id and group, or with a label", "fields.phone", `[{"field_id": "6e", "group": "Basic", "value": "1", "modifier": "work"}]`, `[{"label": "phone", "value": "1", "modifier": "work"}]`, same},
		{"is_primary: absent or false", "fields.phone", `[{"value": "1"}]`, `[{"value": "1", "is_primary": false}]`, same},
		{"is_primary: null or false", "fields.phone", `[{"value": "1", "is_primary": null}]`, `[{"value": "1", "is_primary": false}]`, same},
		{"modifier: absent or empty", "fields.phone", `[{"value": "1"}]`, `[{"value": "1", "modifier": ""}]`, same},
		{"modifier: null or empty", "fields.phone", `[{"value": "1", "modifier": null}]`, `[{"value": "1", "modifier": ""}]`, same},
		{"extra_value: absent or null", "fields.phone", `[{"value": "1"}]`, `[{"value": "1", "extra_value": null}]`, same},
		{"what a network says of itself", "fields.twitter", `[{"value": "@tb"}]`, `[{"value": "@tb", "user_id": "17", "user_name": "Tomasz", "avatar_url": "https://network.example/17"}]`, same},
		{"a value", "fields.birthday", `[{"value": "05/04/1971"}]`, `[{"value": "05/04"}]`, changed},
		{"a number", "fields.age", `[{"value": 5}]`, `[{"value": 6}]`, changed},
		{"a boolean", "fields.vip", `[{"value": true}]`, `[{"value": false}]`, changed},
		{"a modifier", "fields.phone", `[{"value": "1", "modifier": "work"}]`, `[{"value": "1", "modifier": "home"}]`, changed},
		{"the primary mark", "fields.phone", `[{"value": "1"}]`, `[{"value": "1", "is_primary": true}]`, changed},
		{"the employer's id", "fields.parent company", `[{"value": "Brandt Marine", "extra_value": "1"}]`, `[{"value": "Brandt Marine", "extra_value": "2"}]`, changed},
		{"one value more", "fields.phone", `[{"value": "1"}]`, `[{"value": "1"}, {"value": "2"}]`, changed},
		{"a value a second time", "fields.phone", `[{"value": "1"}]`, `[{"value": "1"}, {"value": "1"}]`, changed},
		{"a field gone", "fields.phone", `[{"value": "1"}]`, absent, changed},

		// Objects that are encoded as strings.
		{"an address with its members in another order", "fields.address", `[{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\"}"}]`, `[{"value": "{\"city\":\"Gdynia\",\"street\":\"4 Quay Rd\"}"}]`, same},
		{"an address with empty members", "fields.address", `[{"value": "{\"city\": \"Gdynia\"}"}]`, `[{"value": "{\"street\": \"\", \"city\": \"Gdynia\", \"state\": null}"}]`, same},
		{"an address encoded or not", "fields.address", `[{"value": "{\"city\": \"Gdynia\"}"}]`, `[{"value": {"city": "Gdynia"}}]`, same},
		{"an address's city", "fields.address", `[{"value": "{\"city\": \"Gdynia\"}"}]`, `[{"value": "{\"city\": \"Sopot\"}"}]`, changed},
		{"an address in single quotes", "fields.address", `[{"value": "{'city': 'Gdynia'}"}]`, `[{"value": "{'city': 'Sopot'}"}]`, changed},
		{"an employment with its members in another order", "fields.contact employment", `[{"value": "{\"company_name\": \"Brandt Marine\", \"title\": \"CFO\"}"}]`, `[{"value": "{\"title\": \"CFO\", \"company_name\": \"Brandt Marine\", \"end_date\": null}"}]`, same},
		{"an employment that ended", "fields.contact employment", `[{"value": "{\"title\": \"CFO\", \"is_present\": true}"}]`, `[{"value": "{\"title\": \"CFO\", \"end_date\": \"03/2031\", \"is_present\": false}"}]`, changed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(3))
				ledger := newMemory()
				created := stamp(time.Now().Add(-time.Hour))
				put(t, account, document(t, varied, created, stamp(time.Now().Add(-time.Minute)), tt.key, tt.a))
				p := start(t, account, ledger, poller.Config{})
				want := 1
				for _, value := range []string{tt.b, tt.a} { // There, and back.
					pass(time.Minute)
					now := stamp(time.Now())
					put(t, account, document(t, varied, created, now, tt.key, value))
					put(t, account, document(t, fmt.Sprintf("6f10a0c2d4e5b6a7c8d9e0f%d", 2+want), now, now, tt.key, value)) // It begins so, too.
					pass(30 * time.Second)
					if tt.change {
						want++
					}
					events := ledger.of(varied)
					if len(events) != want {
						t.Fatalf("after %s: %d events, want %d; the last changes %v", value, len(events), want, slices.Collect(maps.Keys(events[len(events)-1].Changes)))
					}
					if last := events[want-1]; tt.change {
						d, ok := last.Changes[tt.key]
						after := value
						if slices.Contains([]string{absent, "null", "{}", "[]"}, value) {
							after = "" // No value, however that is written.
						}
						if !ok || len(last.Changes) != 1 || string(d.After) != after {
							t.Errorf("changes %v, want %s to be %s", last.Changes, tt.key, value)
						}
						if raw, _ := account.Contact(varied); string(raw) != string(last.Contact.Raw) {
							t.Errorf("published %s, want it as it was written: %s", last.Contact.Raw, raw)
						}
					}
				}
				if got, status := len(ledger.rejected), p.Status(); got != 0 || status.State != poller.Polling || status.Contacts != account.Len() {
					t.Errorf("%d records rejected, state %s, %v, %d contacts of %d", got, status.State, status.Err, status.Contacts, account.Len())
				}
				checkTruth(t, account, ledger)
			})
		})
	}
}

// TestTimestampsInEveryForm edits a contact whose times are written in each way that was ever seen or documented, and in none.
func TestTimestampsInEveryForm(t *testing.T) {
	tests := []struct {
		name, updated string
		want          time.Duration // From the moment of the edit, which is 2000-01-01T10:00:00.123456Z; at is zero for unreadable.
		none          bool
	}{
		{"microseconds, no zone", `"2000-01-01T10:00:00.123456"`, 123456 * time.Microsecond, false},
		{"whole seconds, no zone", `"2000-01-01T10:00:00"`, 0, false},
		{"tenths", `"2000-01-01T10:00:00.1"`, 100 * time.Millisecond, false},
		{"nanoseconds", `"2000-01-01T10:00:00.123456789"`, 123456789, false},
		{"an offset without a colon", `"2000-01-01T13:00:00+0300"`, 0, false},
		{"an offset behind UTC", `"2000-01-01T04:30:00-0530"`, 0, false},
		{"no offset, spelt out", `"2000-01-01T10:00:00+0000"`, 0, false},
		{"an offset with a colon", `"2000-01-01T10:00:00+00:00"`, 0, false},
		{"an offset and microseconds", `"2000-01-01T13:00:00.123456+03:00"`, 123456 * time.Microsecond, false},
		{"Z", `"2000-01-01T10:00:00Z"`, 0, false},
		{"Z and microseconds", `"2000-01-01T10:00:00.123456Z"`, 123456 * time.Microsecond, false},
		{"a space", `"2000-01-01 10:00:00.123456"`, 123456 * time.Microsecond, false},
		{"older than before", `"1999-12-31T10:00:00"`, -24 * time.Hour, false},
		{"absent", absent, 0, true},
		{"null", `null`, 0, true},
		{"empty", `""`, 0, true},
		{"words", `"yesterday"`, 0, true},
		{"a number", `946720800`, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pass(9 * time.Hour)
				account := nimbletest.New(nimbletest.WithContacts(3))
				ledger := newMemory()
				created := stamp(time.Now().Add(-time.Hour))
				put(t, account, document(t, varied, created, stamp(time.Now().Add(-time.Minute)), "fields.title", `[{"value": "CFO"}]`))
				p := start(t, account, ledger, poller.Config{})
				pass(time.Hour)
				at := time.Now()
				put(t, account, document(t, varied, created, tt.updated, "fields.title", `[{"value": "CEO"}]`))
				pass(20 * time.Minute)
				events := ledger.of(varied)
				if len(events) != 2 || events[1].Kind != poller.Updated || len(events[1].Changes) != 1 {
					t.Fatalf("events: %s", ledger.kinds(varied))
				}
				if got := events[1].Contact.Updated; got.IsZero() != tt.none || !tt.none && !got.Equal(at.Add(tt.want)) {
					t.Errorf("updated is %v, want %v", got, at.Add(tt.want))
				}
				if len(ledger.rejected) != 0 || p.Status().State != poller.Polling {
					t.Errorf("%d rejected, %+v", len(ledger.rejected), p.Status())
				}
			})
		})
	}
}

// TestUnknownKeysAreNoContent gives contacts keys that no document has, changes them and takes them away. Each is logged once and counted, and there is no event; it is in the
// document of the next event that there is.
func TestUnknownKeysAreNoContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := nimbletest.New(nimbletest.WithContacts(50))
		ledger := newMemory()
		core, logged := observer.New(zapcore.InfoLevel)
		p, stop := startOn(t, account, ledger, poller.Config{Log: zap.New(core)})
		defer stop()
		pass(5 * time.Minute)
		if got := p.Status().UnknownKeys; got != nil {
			t.Errorf("unknown keys %v in documents as the API describes them", got)
		}
		ids := account.IDs()
		for round := range 3 {
			for _, id := range ids[:10] {
				account.Edit(id, nimbletest.Key("relationship_score", fmt.Sprint(round)), nimbletest.Key("Größe, \"neu\"", `{"a": [1]}`))
			}
			pass(5 * time.Minute)
		}
		if got := len(ledger.events); got != 50 {
			t.Errorf("%d events, want the 50 of the snapshot", got)
		}
		counts := p.Status().UnknownKeys
		for _, key := range []string{"relationship_score", "Größe, \"neu\""} {
			if n := logged.FilterField(zap.String("key", key)).Len(); n != 1 {
				t.Errorf("key %q is logged %d times, want once", key, n)
			}
			if counts[key] < 30 { // Each edit is read once at least.
				t.Errorf("key %q is counted %d times, want 30 or more", key, counts[key])
			}
		}
		if len(counts) != 2 {
			t.Errorf("unknown keys %v, want two", counts)
		}
		account.Edit(ids[0], nimbletest.Field("title", "CFO"))
		pass(time.Minute)
		events := ledger.of(ids[0])
		last := events[len(events)-1]
		var members map[string]jsontext.Value
		if err := json.Unmarshal(last.Contact.Raw, &members); err != nil {
			t.Fatal(err)
		}
		if len(last.Changes) != 1 || string(members["relationship_score"]) != "2" {
			t.Errorf("changes %v and score %s, want the title's change alone and the score as it is", last.Changes, members["relationship_score"])
		}
	})
}
