package nimbletest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"nimble-bridge/nimble/nimbletest"
)

// queryAccount has a handful of contacts to tell apart, with ids that are a letter.
func queryAccount(t testing.TB) (*nimbletest.Account, *clock) {
	t.Helper()
	c := newClock() // 2031-05-04T10:00:00.25Z
	a := nimbletest.New(nimbletest.WithClock(c.Now))
	for _, doc := range []string{
		document("a", "2031-05-04T09:59:59.900000", `,"fields":{"first name":[{"value":"Zoë"}],"last name":[{"value":"Ñandú"}],"email":[{"value":"Zoe@Mail.example"}]},"tags":[{"tag":"VIP","id":"x"}]`),
		document("b", "2031-05-04T09:45:00", `,"fields":{"first name":[{"value":"Bo"}],"email":[{"value":"bo@mail.example"},{"value":"bo@work.example"}]},"tags":["press","vip"]`),
		document("c", "2031-05-03T22:30:00", `,"fields":{"first name":[{"value":"Cleo"}],"last name":[{"value":"Ng"}]},"tags":[]`),
		`{"id":"d","record_type":"company","created":"2031-04-20T12:00:00","updated":"2031-05-04T09:45:00","fields":{"company name":[{"value":"Ängström Ltd"}],"domain":[{"value":"ang.example"}]},"tags":null}`,
		document("e", "2030-05-04T10:00:00", `,"fields":{"first name":[{"value":"Eve"}],"description":[{"value":"likes tea"}]},"tags":["press"]`),
	} {
		if err := a.Put(doc); err != nil {
			t.Fatal(err)
		}
	}
	return a, c
}

func TestQueries(t *testing.T) {
	between := func(kind, from, to string) string {
		return fmt.Sprintf(`{"updated":{"range":{"start_%[1]s":%[2]q,"end_%[1]s":%[3]q}}}`, kind, from, to)
	}
	a, _ := queryAccount(t)
	for _, tt := range []struct{ query, want string }{
		// Ranges: bounds included, every spelling, finer than a second.
		{between("datetime", "2031-05-04T09:45:00Z", "2031-05-04T09:59:59.9Z"), "abd"},
		{between("datetime", "2031-05-04T09:45:00Z", "2031-05-04T09:59:59Z"), "bd"},
		{between("datetime", "2031-05-04T09:45:00.000001Z", "2031-05-04T10:00:00Z"), "a"},
		{between("datetime", "2031-05-04T09:45:00", "2031-05-04T09:45:00"), "bd"},
		{between("datetime", "2031-05-04 09:45:00", "2031-05-04 09:45:00"), "bd"},
		{between("datetime", "2031-05-04T09:45:00+00:00", "2031-05-04T09:45:00.5+00:00"), "bd"},
		{between("datetime", "2031-05-04T12:45:00+03:00", "2031-05-04T12:45:00+0300"), "bd"},
		{between("datetime", "2031-05-04 04:45:00-0500", "2031-05-04T09:45:00Z"), "bd"},
		{between("datetime", "2031-05-04T10:00:00Z", "2031-05-04T09:00:00Z"), ""},
		{between("date", "2031-05-04", "2031-05-04"), "abd"},
		{between("date", "2031-05-03", "2031-05-04"), "abcd"},
		{`{"created":{"range":{"start_date":"2031-04-20","end_date":"2031-04-20"}}}`, "d"},
		{`{"updated":{"not_in_range":{"start_date":"2031-05-04","end_date":"2031-05-04"}}}`, "ce"},

		// Relative to the account's now.
		{`{"updated":{"in_the_last":{"unit":"second","quantity":1}}}`, "a"},
		{`{"updated":{"in_the_last":{"unit":"second","quantity":900}}}`, "a"},
		{`{"updated":{"in_the_last":{"unit":"second","quantity":901}}}`, "abd"},
		{`{"updated":{"in_the_last":{"unit":"day","quantity":1}}}`, "abcd"},
		{`{"created":{"in_the_last":{"unit":"week","quantity":1}}}`, "abc"},
		{`{"created":{"in_the_last":{"unit":"week","quantity":2}}}`, "abcd"},
		{`{"created":{"in_the_last":{"unit":"month","quantity":1}}}`, "abcd"},
		{`{"updated":{"in_the_last":{"unit":"year","quantity":1}}}`, "abcd"},
		{`{"updated":{"not_in_the_last":{"unit":"day","quantity":1}}}`, "e"},

		// Ids and kinds.
		{`{"_id":{"is":"c"}}`, "c"},
		{`{"_id":{"in":["c","a","c","unknown"]}}`, "ac"},
		{`{"_id":{"not_in":["c","a"]}}`, "bde"},
		{`{"record type":{"is":"company"}}`, "d"},
		{`{"record type":{"is":"person"}}`, "abce"},

		// Texts, folded on both sides.
		{`{"tag":{"is":"ViP"}}`, "ab"},
		{`{"tag":{"is_not":"vip"}}`, "cde"},
		{`{"tag":{"in":["press","nobody"]}}`, "be"},
		{`{"tag":{"is_empty":true}}`, "cd"},
		{`{"tag":{"is_empty":false}}`, "abe"},
		{`{"email":{"is":"zoe@mail.EXAMPLE"}}`, "a"},
		{`{"email":{"contain":"@mail"}}`, "ab"},
		{`{"email":{"is_empty":true}}`, "cde"},
		{`{"first name":{"is":"zoe"}}`, "a"},
		{`{"last name":{"in":["ñandu","NG"]}}`, "ac"},
		{`{"names":{"is":"Zoe Nandu"}}`, "a"},
		{`{"names":{"contain":"angstrom"}}`, "d"},
		{`{"domain":{"is":"ang.example"}}`, "d"},
		{`{"__any":{"contain":"TEA"}}`, "e"},

		// Joins.
		{`{"and":[{"tag":{"is":"vip"}},{"email":{"contain":"work"}}]}`, "b"},
		{`{"and":[{"tag":{"is":"vip"}}]}`, "ab"},
		{`{"or":[{"tag":{"is":"vip"}},{"record type":{"is":"company"}}]}`, "abd"},
		{`{"not":{"tag":{"is":"vip"}}}`, "cde"},
		{`{"not":[{"tag":{"is":"vip"}}]}`, "cde"},
		{`{"and":[` + between("date", "2031-05-04", "2031-05-04") + `,` + between("datetime", "2031-05-04T09:45:00Z", "2031-05-04T09:50:00Z") + `]}`, "bd"},
		{`{"and":[` + between("date", "2031-05-04", "2031-05-04") + `,{"created":{"range":{"start_date":"2031-05-01","end_date":"2031-05-09"}}}]}`, "ab"},
		{`{"and":[` + between("date", "2031-05-04", "2031-05-04") + `,{"record type":{"is":"person"}}]}`, "ab"},
		{`{"and":[{"_id":{"in":["a","c"]}},{"_id":{"in":["c","d"]}}]}`, "c"},
		{`{"or":[{"not":{"and":[{"record type":{"is":"person"}},{"tag":{"is_empty":false}}]}},{"_id":{"is":"e"}}]}`, "cde"},
		{`{"or":[` + between("date", "2030-05-04", "2030-05-04") + `,` + between("date", "2031-05-03", "2031-05-03") + `]}`, "ce"},
	} {
		t.Run(tt.query, func(t *testing.T) {
			if got := strings.Join(call(t, a).ids(tt.query), ""); got != tt.want {
				t.Errorf("matches %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRelativeQueriesMoveWithTheClock(t *testing.T) {
	a, clk := queryAccount(t)
	query := `{"updated":{"in_the_last":{"unit":"second","quantity":900}}}`
	if got := call(t, a).ids(query); !slices.Equal(got, []string{"a"}) {
		t.Errorf("matches %q, want a", got)
	}
	clk.Advance(time.Hour)
	if got := call(t, a).ids(query); len(got) != 0 {
		t.Errorf("an hour later: matches %q, want nothing", got)
	}
}

func TestRefusedQueries(t *testing.T) {
	a, _ := queryAccount(t)
	c := call(t, a)
	leaf := `{"tag":{"is":"x"}}`
	deep := func(n int) string {
		return strings.Repeat(`{"not":`, n-1) + leaf + strings.Repeat(`}`, n-1)
	}
	wide := func(n int) string {
		return `{"or":[` + strings.Join(slices.Repeat([]string{leaf}, n), ",") + `]}`
	}
	for _, query := range []string{deep(20), wide(11)} {
		if got := c.status("contacts", "query", query); got != http.StatusOK {
			t.Errorf("%s: status = %d, want 200", query, got)
		}
	}
	for _, query := range []string{
		deep(21), wide(12),
		`x`, `{`, `[]`, `null`, `"updated"`, `{}`, `{"tag":{"is":"a"},"email":{"is":"b"}}`, `{"tag":{"is":"a"},"tag":{"is":"b"}}`,
		`{"tag":{"is":"a","is_not":"b"}}`, `{"tag":{}}`, `{"tag":"a"}`, `{"tag":{"is":""}}`, `{"tag":{"is":5}}`, `{"tag":{"in":[]}}`, `{"tag":{"in":["a",""]}}`, `{"tag":{"contain":"a"}}`, `{"tag":{"is_empty":""}}`,
		`{"and":[]}`, `{"and":{}}`, `{"or":null}`, `{"not":[]}`, `{"not":[` + leaf + `,` + leaf + `]}`,
		`{"no such field":{"is":"a"}}`, `{"email":{"gt":"a"}}`, `{"_id":{"is":["a"]}}`, `{"_id":{"in":"a"}}`, `{"_id":{"contain":"a"}}`,
		`{"record type":{"is":"lead"}}`, `{"record type":{"is":["person"]}}`, `{"record type":{"is_not":"person"}}`,
		`{"updated":{"gt":"2031-05-04"}}`, `{"updated":{"is":"2031-05-04"}}`, `{"updated":{"range":"2031-05-04"}}`,
		`{"updated":{"range":{"start_date":"2031-05-04"}}}`,
		`{"updated":{"range":{"start_datetime":"2031-05-04T10:00:00Z"}}}`,
		`{"updated":{"range":{"start_date":"2031-05-04","end_datetime":"2031-05-04T10:00:00Z"}}}`,
		`{"updated":{"range":{"start_date":"2031-05-04","end_date":"2031-05-04","zone":"UTC"}}}`,
		`{"updated":{"range":{"start_date":"2031-05-04T10:00:00Z","end_date":"2031-05-04T11:00:00Z"}}}`,
		`{"updated":{"range":{"start_date":"2031-05-32","end_date":"2031-06-01"}}}`,
		`{"updated":{"range":{"start_datetime":"2031-05-04","end_datetime":"2031-05-05"}}}`,
		`{"updated":{"range":{"start_datetime":"2031-05-04T10:00Z","end_datetime":"2031-05-05T10:00Z"}}}`,
		`{"updated":{"range":{"start_datetime":"2031-05-04T10:00:00UTC","end_datetime":"2031-05-05T10:00:00UTC"}}}`,
		`{"updated":{"range":{"start_datetime":"2031-05-04x10:00:00Z","end_datetime":"2031-05-05x10:00:00Z"}}}`,
		`{"updated":{"range":{"start_datetime":1,"end_datetime":2}}}`,
		`{"updated":{"in_the_last":{"unit":"minute","quantity":5}}}`, `{"updated":{"in_the_last":{"unit":"hour","quantity":5}}}`,
		`{"updated":{"in_the_last":{"unit":"day","quantity":0}}}`, `{"updated":{"in_the_last":{"unit":"day","quantity":1.5}}}`,
		`{"updated":{"in_the_last":{"unit":"day","quantity":"1"}}}`, `{"updated":{"in_the_last":{"unit":"day"}}}`,
	} {
		if got := c.status("contacts/ids", "query", query); got != http.StatusConflict {
			t.Errorf("%s: status = %d, want 409", query, got)
		}
	}
}

func TestDateRangesFollowTheUsersZone(t *testing.T) {
	a, _ := queryAccount(t)
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.UserZone = time.FixedZone("", 3*3600) })
	// c was updated at 22:30 UTC on the 3rd, which is the 4th at +0300.
	if got := strings.Join(call(t, a).ids(`{"updated":{"range":{"start_date":"2031-05-04","end_date":"2031-05-04"}}}`), ""); got != "abcd" {
		t.Errorf("matches %q, want abcd", got)
	}
}

func TestRangeSwitches(t *testing.T) {
	const form = `{"updated":{"range":{"start_datetime":%q,"end_datetime":%q}}}`
	bounds := func(from, to string) string { return fmt.Sprintf(form, from, to) }
	minute := bounds("2031-05-04T09:45:00Z", "2031-05-04T09:59:59Z")
	for _, tt := range []struct {
		name, query string
		set         func(*nimbletest.Behaviour)
		want        string // "409" for a refusal
	}{
		{"exclusive lower", bounds("2031-05-04T09:45:00Z", "2031-05-04T10:00:00Z"), func(b *nimbletest.Behaviour) { b.ExclusiveLower = true }, "a"},
		{"exclusive upper", bounds("2031-05-03T22:30:00Z", "2031-05-04T09:45:00Z"), func(b *nimbletest.Behaviour) { b.ExclusiveUpper = true }, "c"},
		{"whole seconds, upper", minute, func(b *nimbletest.Behaviour) { b.RangeSeconds = true }, "abd"},
		{"whole seconds, upper excluded", minute, func(b *nimbletest.Behaviour) { b.RangeSeconds, b.ExclusiveUpper = true, true }, "bd"},
		{"whole seconds, lower fraction", bounds("2031-05-04T09:59:59.95Z", "2031-05-04T10:00:00Z"), func(b *nimbletest.Behaviour) { b.RangeSeconds = true }, "a"},
		{"whole seconds, lower excluded", bounds("2031-05-04T09:59:59Z", "2031-05-04T10:00:00Z"), func(b *nimbletest.Behaviour) { b.RangeSeconds, b.ExclusiveLower = true, true }, ""},
		{"refused", minute, func(b *nimbletest.Behaviour) { b.Range = nimbletest.RangeRefused }, "409"},
		{"ignored", minute, func(b *nimbletest.Behaviour) { b.Range = nimbletest.RangeIgnored }, "abcde"},
		{"refused for updated only", `{"created":{"in_the_last":{"unit":"year","quantity":90}}}`, func(b *nimbletest.Behaviour) {
			b.Range, b.Relative, b.UpdatedOnly = nimbletest.RangeRefused, nimbletest.RangeRefused, true
		}, "abcde"},
		{"relative refused", `{"updated":{"in_the_last":{"unit":"day","quantity":1}}}`, func(b *nimbletest.Behaviour) { b.Relative = nimbletest.RangeRefused }, "409"},
		{"relative ignored", `{"updated":{"not_in_the_last":{"unit":"day","quantity":1}}}`, func(b *nimbletest.Behaviour) { b.Relative = nimbletest.RangeIgnored }, "abcde"},
		{"no seconds", `{"updated":{"in_the_last":{"unit":"second","quantity":9}}}`, func(b *nimbletest.Behaviour) { b.NoSecondUnit = true }, "409"},
		{"Z accepted", minute, func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeZ }, "bd"},
		{"Z refused", minute, func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeBare }, "409"},
		{"dates only", minute, func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeDate }, "409"},
		{"no dates", `{"updated":{"range":{"start_date":"2031-05-04","end_date":"2031-05-04"}}}`, func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeZ }, "409"},
		{"space refused", bounds("2031-05-04 09:45:00", "2031-05-04 09:45:00"), func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeBare }, "409"},
		{"fraction refused", bounds("2031-05-04T09:45:00.0Z", "2031-05-04T09:45:00Z"), func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeZ }, "409"},
		{"offset refused", bounds("2031-05-04T09:45:00+00:00", "2031-05-04T09:45:00+00:00"), func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeCompact }, "409"},
		{"compact offset refused", bounds("2031-05-04T09:45:00+0000", "2031-05-04T09:45:00+0000"), func(b *nimbletest.Behaviour) { b.RangeForms = nimbletest.RangeT | nimbletest.RangeOffset }, "409"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := queryAccount(t)
			a.SetBehaviour(tt.set)
			c := call(t, a)
			if tt.want == "409" {
				if got := c.status("contacts", "query", tt.query); got != http.StatusConflict {
					t.Errorf("status = %d, want 409", got)
				}
				return
			}
			if got := strings.Join(c.ids(tt.query), ""); got != tt.want {
				t.Errorf("matches %q, want %q", got, tt.want)
			}
		})
	}
}

func TestInventedContactsCanBeSearched(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(150))
	c := call(t, a)
	for _, id := range a.IDs()[:4] {
		got, _ := c.contact(id)
		if mail := got.text("email"); !slices.Contains(c.ids(fmt.Sprintf(`{"email":{"is":%q}}`, mail)), id) {
			t.Errorf("%s is not found by its address %s", id, mail)
		}
	}
	p := c.list("contacts/ids", "keyword", "ÉXAMPLE", "per_page", "1")
	if p.Meta.Total != 150 {
		t.Errorf("keyword finds %d, want all 150, as everybody has an address there", p.Meta.Total)
	}
}

func FuzzQuery(f *testing.F) {
	for _, query := range []string{
		`{"updated":{"range":{"start_datetime":"2031-05-04T09:45:00.1+0300","end_datetime":"2031-05-04 09:45:00"}}}`,
		`{"and":[{"tag":{"is":"x"}},{"not":[{"_id":{"in":["a"]}}]},{"or":[{"names":{"contain":"b"}}]}]}`,
		`{"created":{"not_in_the_last":{"unit":"month","quantity":3}}}`,
		`{"record type":{"is":"person"}}`, `[`, `{"a":1e400}`,
	} {
		f.Add(query)
	}
	a, _ := queryAccount(f)
	f.Fuzz(func(t *testing.T, query string) {
		c := call(t, a)
		if query == "" {
			return
		}
		switch got := c.status("contacts/ids", "query", query); got {
		case http.StatusOK: // What is true of a contact is not true of it in the negative.
			matched := c.ids(query)
			if c.status("contacts/ids", "query", `{"not":`+query+`}`) == http.StatusOK {
				if others := c.ids(`{"not":` + query + `}`); len(matched)+len(others) != a.Len() {
					t.Errorf("%s matches %v, its opposite %v", query, matched, others)
				}
			}
		case http.StatusConflict:
		default:
			t.Errorf("status = %d", got)
		}
	})
}
