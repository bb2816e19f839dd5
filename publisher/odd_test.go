package publisher_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/streamtest"
)

// TestOddFieldNamesInStoredMessages gives a contact fields with every kind of name that a user may invent, changes them and takes them away, and reads the stored messages as a consumer does that
// has nothing but NATS, JSON and percent-decoding.
func TestOddFieldNamesInStoredMessages(t *testing.T) {
	names := []string{
		"a.b", "a..b", "fields.a", "a,b", "a, b ,c", "first name 2", " ", " around ", "50%", "100%25", "%2C", `say "hi"`, "it's", `back\slash`, "*", ">", "a*", "a=b&c+d;e",
		"☂", "👩‍👩‍👧", "名前", "Größe", "tab\there", "line\r\nfeed", "nul\x00", "del\x7f", "Tags", "tags", "#", "$KV.x", strings.Repeat("long ", 100), "",
	}
	var keys []string
	for _, name := range names {
		keys = append(keys, "fields."+name)
	}
	slices.Sort(keys)
	o := newSolo(t, startModelServer(t))
	var given, changed, taken []nimbletest.Edit
	for _, name := range names {
		given = append(given, nimbletest.Field(name, "one"))
		changed = append(changed, nimbletest.Field(name, "two"))
		taken = append(taken, nimbletest.RemoveField(name))
	}
	for _, edits := range [][]nimbletest.Edit{given, changed, taken} {
		o.account.Edit(o.edited, edits...)
		o.publishes(1)
		m := o.messages[slices.Max(slices.Collect(maps.Keys(o.messages)))]
		var body struct {
			Data struct {
				Changes map[string]struct{ Before, After jsontext.Value } `json:"changes"`
			} `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &body); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(keys, slices.Sorted(maps.Keys(body.Data.Changes))); diff != "" {
			t.Errorf("keys of changes (-want +got):\n%s", diff)
		}
		header := m.Header.Get("Nimble-Changed")
		if i := strings.IndexFunc(header, func(c rune) bool { return c <= ' ' || c > '~' }); i >= 0 {
			t.Errorf("the header has %q in it", header[i:])
		}
		var decoded []string
		for part := range strings.SplitSeq(header, ",") {
			key, err := url.PathUnescape(part)
			if err != nil {
				t.Error(err)
			}
			decoded = append(decoded, key)
		}
		if diff := cmp.Diff(keys, decoded); diff != "" {
			t.Errorf("keys in the header (-want +got):\n%s", diff)
		}
	}
	o.drop(0)
	o.publishes(0)
	o.agrees()
}

// TestOddDocumentsInStoredMessages has contacts in which every key is null, or of a type that it should not be, and one that has nothing but its id. Each is stored, as the schema of events says,
// and as it was written; so is its next change, by a bridge that was started since.
func TestOddDocumentsInStoredMessages(t *testing.T) {
	o := newSolo(t, startModelServer(t))
	document := func(i int, value, title string) string {
		var b strings.Builder
		fmt.Fprintf(&b, `{"id": "6f10a0c2d4e5b6a7c8d9e0f%d"`, i)
		if value != "" {
			for _, key := range []string{
				"object_type", "record_type", "created", "updated", "creator", "creator_id", "updater", "owner_id", "tags", "tags2", "children", "employers_info", "privacy", "is_editable",
				"is_important", "avatar_url", "last_contacted", "company_last_contacted", "last_contacted_user", "lc", "reminder", "reminders", "notice", "stages_info", "files", "contexts",
			} {
				fmt.Fprintf(&b, `, %q: %s`, key, value)
			}
		}
		fmt.Fprintf(&b, `, "fields": {"title": [{"value": %q}]`, title)
		if value != "" {
			for _, field := range []string{"first name", "last name", "email", "phone", "address", "contact employment", "company name"} {
				fmt.Fprintf(&b, `, %q: %s, "%s 2": [%s], "%s 3": [{"value": %s, "modifier": %s, "is_primary": %s, "extra_value": %s}]`, field, value, field, value, field, value, value, value, value)
			}
		}
		return b.String() + "}}"
	}
	values := []string{"", `null`, `true`, `17`, `1e400`, `""`, `"text"`, `[]`, `[null, 17, "x", ["y"], {"z": 1}]`, `{"value": {"tag": {"text": 1}}}`}
	for _, title := range []string{"CFO", "CEO"} {
		for i, value := range values {
			if err := o.account.Put(document(i, value, title)); err != nil {
				t.Fatal(err)
			}
		}
		o.publishes(len(values))
		o.drop(0)
	}
	o.publishes(0)
	o.agrees()
	all := slices.Collect(maps.Values(o.messages))
	if err := streamtest.CheckSchemas(all); err != nil {
		t.Error(err)
	}
	for i, value := range values {
		id := fmt.Sprintf("6f10a0c2d4e5b6a7c8d9e0f%d", i)
		for _, m := range all {
			switch e := m.Event; {
			case e.Subject != id:
			case e.Time.IsZero():
				t.Errorf("%s: revision %d has no time", value, e.Data.Revision)
			case m.Header.Get("Nimble-Updated") != "":
				t.Errorf("%s: revision %d has an updated of %s", value, e.Data.Revision, m.Header.Get("Nimble-Updated"))
			case e.Data.Revision == 2 && len(e.Data.Changes) != 1:
				t.Errorf("%s: changes %v, want the title", value, e.Data.Changes)
			}
		}
	}
}

// TestMalformedRecordIsOneNotice lets a record be unreadable through polls, reconciliations and starts. One notice tells of it, with the record as it was; the contact's event is none the less
// published when there is a contact again.
func TestMalformedRecordIsOneNotice(t *testing.T) {
	const raw = `{"id": {"$oid": "5"}, "fields": []}`
	o := newSolo(t, startModelServer(t))
	o.account.Spoil(o.edited, raw)
	for range 3 {
		o.publishes(0)
		o.publishes(0)
		o.drop(0)
	}
	var notices []*event.Rejected
	for _, m := range messages(t, o.js, "NIMBLE") {
		if m.Subject != "nimble."+o.name+".bridge.rejected" {
			continue
		}
		notice, err := event.DecodeRejected(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		notices = append(notices, notice)
	}
	if len(notices) != 1 || string(notices[0].Data.Record) != raw || notices[0].Data.Reason == "" {
		t.Errorf("%d notices, want one of %s: %v", len(notices), raw, notices)
	}
	o.account.Edit(o.edited, nimbletest.Field("title", "mended"))
	o.account.Mend(o.edited)
	o.publishes(1)
	o.agrees()
}
