package nimbletest_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nimble-bridge/nimble/nimbletest"
)

// contactKeys are all keys that contacts are known to carry.
var contactKeys = []string{
	"avatar_url", "children", "company_last_contacted", "contexts", "created", "creator", "creator_id", "employers_info",
	"fields", "files", "id", "is_editable", "is_important", "last_contacted", "last_contacted_user", "lc", "notice",
	"object_type", "owner_id", "privacy", "record_type", "reminder", "reminders", "stages_info", "tags", "tags2", "updated", "updater",
}

func TestInventedContactsAreBelievable(t *testing.T) {
	const n = 2000
	c := newClock()
	a := nimbletest.New(nimbletest.WithContacts(n), nimbletest.WithClock(c.Now))
	mail := regexp.MustCompile(`^[a-z0-9.-]+@[a-z0-9-]+(\.[a-z0-9-]+)*\.example$`)
	companies, bytes, employed := 0, 0, 0
	names := make(map[string]bool)
	updated := make(map[string]bool)
	domains := make(map[string]bool)
	everyone := make(map[string]contact)
	for _, id := range a.IDs() {
		raw, _ := a.Contact(id)
		bytes += len(raw)
		got := parseContact(t, raw)
		everyone[id] = got
		var keys []string
		for key := range got.Raw {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		if diff := cmp.Diff(contactKeys, keys); diff != "" {
			t.Fatalf("keys (-want +got):\n%s", diff)
		}
		created, err := time.Parse("2006-01-02T15:04:05", got.Created)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := strconv.ParseInt(id[:8], 16, 64); err != nil || second != created.Unix() {
			t.Fatalf("id %s does not carry created %s", id, got.Created)
		}
		if updated[got.Updated] || got.Updated < got.Created {
			t.Fatalf("updated %s of %s repeats, or comes before created %s", got.Updated, id, got.Created)
		}
		updated[got.Updated] = true
		if got.RecordType == "company" {
			companies++
			if domain := got.text("domain"); domain == "" || domains[domain] {
				t.Fatalf("domain %q is empty or not unique", domain)
			}
			domains[got.text("domain")] = true
		}
		names[got.text("first name")+" "+got.text("last name")+got.text("company name")] = true
		for _, v := range got.Fields["email"] {
			if address, _ := v["value"].(string); !mail.MatchString(address) {
				t.Errorf("e-mail address %q", address)
			}
		}
		for _, name := range []string{"address", "contact employment"} {
			for _, v := range got.Fields[name] {
				var encoded map[string]any
				if text, _ := v["value"].(string); json.Unmarshal([]byte(text), &encoded) != nil || len(encoded) == 0 {
					t.Errorf("%s %q is no encoded object", name, text)
				}
			}
		}
		if values := got.Fields["contact employment"]; len(values) > 0 {
			employed++
		}
	}
	for id, got := range everyone {
		for _, v := range got.Fields["contact employment"] {
			employer, _ := v["extra_value"].(string)
			company := everyone[employer]
			if company.RecordType != "company" || !strings.Contains(string(company.Raw["children"]), id) {
				t.Errorf("%s works for %s, which is a %q with children %s", id, employer, company.RecordType, company.Raw["children"])
			}
		}
	}
	if companies != n*15/100 || employed < n/2 || len(names) < n*8/10 || bytes/n < 1500 || bytes/n > 3000 {
		t.Errorf("of %d: %d companies, %d employed, %d names, %d bytes each", n, companies, employed, len(names), bytes/n)
	}
}

func TestSeedDecidesEverything(t *testing.T) {
	c := newClock()
	documents := func(seed uint64) []string {
		a := nimbletest.New(nimbletest.WithContacts(50), nimbletest.WithSeed(seed), nimbletest.WithClock(c.Now))
		a.Create()
		a.Edit(a.IDs()[7], nimbletest.Star(true))
		var all []string
		for _, id := range a.IDs() {
			raw, _ := a.Contact(id)
			all = append(all, string(raw))
		}
		return all
	}
	if diff := cmp.Diff(documents(7), documents(7)); diff != "" {
		t.Errorf("the same seed gives another account:\n%s", diff)
	}
	if slices.Equal(documents(7), documents(8)) {
		t.Error("another seed gives the same account")
	}
}

func TestEditingKeepsTheRestOfAnInventedContact(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(200))
	for _, id := range a.IDs() {
		before, _ := a.Contact(id)
		a.EditSilently(id)
		after, _ := a.Contact(id)
		if string(before) != string(after) {
			t.Fatalf("an edit that edits nothing changed the contact:\n%s\n%s", before, after)
		}
	}
}

func TestSmallAccounts(t *testing.T) {
	for n := range 25 {
		a := nimbletest.New(nimbletest.WithContacts(n))
		a.Import(2)
		if got := len(call(t, a).ids("")); got != n+2 {
			t.Errorf("account of %d lists %d", n+2, got)
		}
	}
}
