package nimbletest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nimble-bridge/nimble/nimbletest"
)

func TestPaths(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(5))
	c := call(t, a)
	id := a.IDs()[0]
	for path, want := range map[string]int{
		"contacts": 200, "contacts/": 200, "contacts/list": 200, "contacts/ids": 200, "contacts/ids/": 200, "myself": 200,
		"contact/" + id: 200, "contact/" + id + "/": 404, "contact?id=" + id: 200, "contact": 409, "contact/": 409,
		"contacts/fields": 404, "deals": 404, "../v2/contacts": 404,
	} {
		resp, body := c.raw(path)
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
		if html := strings.Contains(string(body), "<html>"); html != (want == 404) {
			t.Errorf("%s: body %s", path, body)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://nimble.test/api/v1/contact", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s, want 405", resp.Status)
	}
}

func TestBadParametersAreConflicts(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(5))
	c := call(t, a)
	for _, tt := range []struct {
		query string
		want  int
	}{
		{"", 200},
		{"updated_since=2030-01-01&whatever=x", 200},
		{"page=1&per_page=200", 200},
		{"per_page=201", 409},
		{"per_page=0", 409},
		{"per_page=ten", 409},
		{"page=0", 409},
		{"page=-1", 409},
		{"page=99999999999", 409},
		{"page=2147483647&per_page=200", 200},
		{"sort=updated:asc&per_page=100", 200},
		{"sort=updated:asc&per_page=101", 409},
		{"sort=updated", 409},
		{"sort=updated:up", 409},
		{"sort=updated:asc,created:asc", 409},
		{"sort=email:asc", 409},
		{"sort=last+name:desc", 200},
		{"record_type=person", 200},
		{"record_type=all", 200},
		{"record_type=people", 409},
		{"record_type=people&query=" + `{"tag":{"is":"x"}}`, 200},
		{"keyword=x", 200},
		{"keyword=x&query=" + `{"tag":{"is":"x"}}`, 409},
		{"tags=0", 200},
		{"tags=false", 200},
		{"tags=maybe", 409},
		{"contexts=last_contacted_data,leads_data", 200},
		{"contexts=weather", 409},
		{"query=" + `{"tag":`, 409},
	} {
		for _, path := range []string{"contacts", "contacts/ids"} {
			if got := c.status(path + "?" + strings.ReplaceAll(tt.query, `"`, "%22")); got != tt.want {
				t.Errorf("%s?%s: status = %d, want %d", path, tt.query, got, tt.want)
			}
		}
	}
}

func TestRecordTypeCountsOnlyWithoutQuery(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(100))
	c := call(t, a)
	if got := c.list("contacts", "record_type", "company").Meta.Total; got != 15 {
		t.Errorf("companies = %d, want 15", got)
	}
	if got := c.list("contacts", "record_type", "person", "sort", "created:asc").Meta.Total; got != 85 {
		t.Errorf("persons = %d, want 85", got)
	}
	if got := c.list("contacts", "record_type", "company", "sort", "created:asc").Meta.Total; got != 15 {
		t.Errorf("companies after persons = %d, want 15", got)
	}
	if got := c.list("contacts", "record_type", "person", "query", `{"record type":{"is":"company"}}`).Meta.Total; got != 15 {
		t.Errorf("companies by query = %d, want 15", got)
	}
}

func TestTextSort(t *testing.T) {
	a, _ := queryAccount(t)
	var got []string
	for _, raw := range call(t, a).list("contacts/ids", "sort", "first name:desc", "query", `{"record type":{"is":"person"}}`).Resources {
		got = append(got, strings.Trim(string(raw), `"`))
	}
	if want := []string{"a", "e", "c", "b"}; !slices.Equal(got, want) {
		t.Errorf("by first name: %v, want %v", got, want)
	}
}

func TestContactByIDs(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(40))
	c := call(t, a)
	ids := a.IDs()
	for _, path := range []string{"contact?id=%s", "contact/%s"} {
		list := []string{ids[4], "ffffffffffffffffffffffff", ids[1], ids[4], "no-id"}
		p := c.list(fmt.Sprintf(path, strings.Join(list, ",")))
		var got []string
		for _, raw := range p.Resources {
			got = append(got, parseContact(t, raw).ID)
		}
		if want := []string{ids[4], ids[1]}; !slices.Equal(got, want) {
			t.Errorf("%s: ids = %v, want %v", path, got, want)
		}
		if got := c.status(fmt.Sprintf(path, strings.Join(ids[:30], ","))); got != 200 {
			t.Errorf("%s with 30 ids: status = %d", path, got)
		}
		if got := c.status(fmt.Sprintf(path, strings.Join(ids[:31], ","))); got != 409 {
			t.Errorf("%s with 31 ids: status = %d, want 409", path, got)
		}
	}
	_, body := c.raw("contact/"+ids[0], "meta", "1")
	if !strings.HasSuffix(string(body), `],"contacts_meta":{}}`) || strings.Contains(string(body), `"per_page"`) {
		t.Errorf("body = %s", body)
	}
}

func TestSelection(t *testing.T) {
	a := nimbletest.New()
	id := a.Create(nimbletest.Field("a, b", "x"), nimbletest.Tags("t"))
	c := call(t, a)
	got := parseContact(t, c.list("contacts", "fields", `last name,a\, b,updated`).Resources[0])
	var keys []string
	for key := range got.Raw {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if want := []string{"fields", "id", "updated"}; !slices.Equal(keys, want) || len(got.Fields) != 2 || got.text("a, b") != "x" {
		t.Errorf("keys = %v, fields = %v", keys, got.Fields)
	}
	got = parseContact(t, c.list("contact/"+id, "tags", "false", "contexts", "leads_data").Resources[0])
	if got.Raw["tags"] != nil || string(got.Raw["contexts"]) != `[{"context_key":"leads_data","context":null}]` {
		t.Errorf("tags, contexts = %s, %s", got.Raw["tags"], got.Raw["contexts"])
	}
}

func TestMyself(t *testing.T) {
	a := nimbletest.New(nimbletest.WithCompanyID("6e0000000000000000000001"))
	_, body := call(t, a).raw("myself")
	var got map[string]string
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"user_id": "6e00000000000000000000a1", "company_id": "6e0000000000000000000001", "email": "me@account.example", "name": "Ines Okafor", "company_size": "5"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("myself (-want +got):\n%s", diff)
	}
}

func TestKeys(t *testing.T) {
	a := nimbletest.New(nimbletest.WithKey("first"))
	for _, tt := range []struct {
		header, value, query string
		want                 int
	}{
		{"Authorization", "Bearer first", "", 200},
		{"X-Nimble-Token", "first", "", 200},
		{"X-Other", "", "?access_token=first", 200},
		{"Authorization", "Bearer second", "", 403},
		{"Authorization", "Bearer", "", 403},
		{"Authorization", "Basic first", "", 403},
		{"X-Other", "", "", 403},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://nimble.test/api/v1/myself"+tt.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(tt.header, tt.value)
		resp, err := a.Transport().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: %s%s: status = %d, want %d", tt.header, tt.value, tt.query, resp.StatusCode, tt.want)
		}
	}
	c := call(t, a)
	c.key = "first"
	a.RefuseKey(true)
	if _, body := c.raw("contacts"); string(body) != `{"message":"Can't authenticate request"}` {
		t.Errorf("refused key: %s", body)
	}
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.BadKeyStatus = 401 })
	if resp, body := c.raw("contacts"); resp.StatusCode != 401 || !strings.Contains(string(body), `"error":"invalid_token"`) {
		t.Errorf("refused key: %s %s", resp.Status, body)
	}
	a.RefuseKey(false)
	a.RotateKey("second")
	if got := c.status("contacts"); got != 401 {
		t.Errorf("old key: status = %d", got)
	}
	c.key = "second"
	if got := c.status("contacts"); got != 200 {
		t.Errorf("new key: status = %d", got)
	}
}

func TestErrorBodies(t *testing.T) {
	a := nimbletest.New()
	c := call(t, a)
	check := func(want string) {
		t.Helper()
		if _, body := c.raw("contacts", "page", "x"); string(body) != want {
			t.Errorf("body = %s, want %s", body, want)
		}
	}
	check(`{"message":"Validation error","errors":{"page":{"message":"page: must be a positive integer"}},"human_readable_error":"page: must be a positive integer","code":245,"extra":{}}`)
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.ErrorShape = nimbletest.ErrorsOld })
	check(`{"message":"Validation error","code":245,"errors":{"page":[{"message":"page: must be a positive integer","field_id":null}]}}`)
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.HTMLErrors = true })
	if resp, body := c.raw("contacts", "page", "x"); resp.StatusCode != 409 || !strings.HasPrefix(string(body), "<html>") {
		t.Errorf("HTML error: %s %s", resp.Status, body)
	}
}

func TestTimestampForms(t *testing.T) {
	at := time.Date(2031, 5, 4, 10, 7, 41, 553012000, time.UTC)
	whole := time.Date(2031, 5, 4, 10, 7, 41, 0, time.UTC)
	for form, want := range map[nimbletest.TimestampForm][2]string{
		nimbletest.TimestampMicros:  {"2031-05-04T10:07:41.553012", "2031-05-04T10:07:41"},
		nimbletest.TimestampSeconds: {"2031-05-04T10:07:41", "2031-05-04T10:07:41"},
		nimbletest.TimestampOffset:  {"2031-05-04T13:07:41+0300", "2031-05-04T13:07:41+0300"},
		nimbletest.TimestampRFC3339: {"2031-05-04T13:07:41.553012+03:00", "2031-05-04T13:07:41.000000+03:00"},
		nimbletest.TimestampZ:       {"2031-05-04T10:07:41.553012Z", "2031-05-04T10:07:41Z"},
		nimbletest.TimestampSpace:   {"2031-05-04 10:07:41.553012", "2031-05-04 10:07:41"},
	} {
		a := nimbletest.New(nimbletest.WithClock(func() time.Time { return at }))
		a.SetBehaviour(func(b *nimbletest.Behaviour) {
			b.Timestamps = form
			b.UserZone = time.FixedZone("", 3*3600)
		})
		id := a.Create()
		a.SetTimes(id, time.Time{}, whole)
		a.EditSilently(id, nimbletest.Star(true)) // Edited documents are written the same way.
		got, _ := call(t, a).contact(id)
		if got.Created != want[0] || got.Updated != want[1] {
			t.Errorf("form %d: created, updated = %s, %s, want %s", form, got.Created, got.Updated, want)
		}
	}
}

func TestSwitches(t *testing.T) {
	// Each switch is shown by one request and what comes of it.
	show := func(c *caller, query string) string {
		path, rest, _ := strings.Cut(query, "?")
		resp, body := c.raw(path + "?" + rest)
		var p page
		_ = json.Unmarshal(body, &p)
		return fmt.Sprintf("%d page %d/%d per %d total %d rows %d", resp.StatusCode, p.Meta.Page, p.Meta.Pages, p.Meta.PerPage, p.Meta.Total, len(p.Resources))
	}
	for _, tt := range []struct {
		name, query, plain, switched string
		set                          func(*nimbletest.Behaviour)
	}{
		{"updated sort refused", "contacts?sort=updated:asc", "200 page 1/2 per 30 total 50 rows 30", "409 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortRefused }},
		{"created sort refused", "contacts?sort=created:desc", "200 page 1/2 per 30 total 50 rows 30", "409 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.CreatedSort = nimbletest.SortRefused }},
		{"per_page capped", "contacts?per_page=500", "409 page 0/0 per 0 total 0 rows 0", "200 page 1/1 per 200 total 50 rows 50", func(b *nimbletest.Behaviour) { b.PerPageCap = true }},
		{"per_page capped lower", "contacts?per_page=100", "200 page 1/1 per 100 total 50 rows 50", "200 page 1/3 per 20 total 50 rows 20", func(b *nimbletest.Behaviour) { b.PerPageMax, b.PerPageCap = 20, true }},
		{"per_page capped when sorted", "contacts?per_page=150&sort=created:asc", "409 page 0/0 per 0 total 0 rows 0", "200 page 1/1 per 100 total 50 rows 50", func(b *nimbletest.Behaviour) { b.PerPageCap = true }},
		{"past the end refused", "contacts?page=3", "200 page 3/2 per 30 total 50 rows 0", "409 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.PastEnd = nimbletest.PastEndRefused }},
		{"past the end fails", "contacts/ids?page=3", "200 page 3/2 per 30 total 50 rows 0", "500 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.PastEnd = nimbletest.PastEndFails }},
		{"total capped", "contacts/ids?per_page=1", "200 page 1/50 per 1 total 50 rows 1", "200 page 1/40 per 1 total 40 rows 1", func(b *nimbletest.Behaviour) { b.TotalCap = 40 }},
		{"depth capped", "contacts/ids?page=5&per_page=10", "200 page 5/5 per 10 total 50 rows 10", "409 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.DepthCap = 40 }},
		{"depth capped, failing", "contacts/ids?page=5&per_page=10", "200 page 5/5 per 10 total 50 rows 10", "500 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.DepthCap, b.DepthStatus = 40, 500 }},
		{"noisy total", "contacts/ids?per_page=10", "200 page 1/5 per 10 total 50 rows 10", "200 page 1/6 per 10 total 53 rows 10", func(b *nimbletest.Behaviour) { b.TotalNoise = func(n int) int { return n + 3 } }},
		{"duplicate rows", "contacts/ids?per_page=10&page=2", "200 page 2/5 per 10 total 50 rows 10", "200 page 2/5 per 10 total 50 rows 11", func(b *nimbletest.Behaviour) { b.DuplicateRows = true }},
		{"duplicate rows, past the end", "contacts/ids?per_page=10&page=6", "200 page 6/5 per 10 total 50 rows 0", "200 page 6/5 per 10 total 50 rows 0", func(b *nimbletest.Behaviour) { b.DuplicateRows = true }},
		{"long address", "contacts/ids?page=1&x=0123456789", "200 page 1/2 per 30 total 50 rows 30", "414 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.URLCap = 30 }},
		{"missing", "contact/ffffffffffffffffffffffff", "200 page 0/0 per 0 total 0 rows 0", "404 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.MissingStatus = 404 }},
		{"missing among others", "contact/ffffffffffffffffffffffff,eeeeeeeeeeeeeeeeeeeeeeee", "200 page 0/0 per 0 total 0 rows 0", "200 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.MissingStatus = 404 }},
		{"hidden", "contact/HIDDEN", "200 page 0/0 per 0 total 0 rows 0", "403 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.HiddenStatus = 403 }},
		{"hidden as missing", "contact/HIDDEN", "200 page 0/0 per 0 total 0 rows 0", "404 page 0/0 per 0 total 0 rows 0", func(b *nimbletest.Behaviour) { b.HiddenStatus = 404 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := nimbletest.New(nimbletest.WithContacts(51))
			hidden := a.IDs()[9]
			a.Hide(hidden)
			query := strings.Replace(tt.query, "HIDDEN", hidden, 1)
			if got := show(call(t, a), query); got != tt.plain {
				t.Errorf("without the switch: %s, want %s", got, tt.plain)
			}
			a.SetBehaviour(tt.set)
			if got := show(call(t, a), query); got != tt.switched {
				t.Errorf("with the switch: %s, want %s", got, tt.switched)
			}
		})
	}
}

func TestIgnoredSortIsTheAccountsOwnOrder(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(50))
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.UpdatedSort = nimbletest.SortIgnored })
	c := call(t, a)
	if diff := cmp.Diff(c.list("contacts/ids").Resources, c.list("contacts/ids", "sort", "updated:asc").Resources); diff != "" {
		t.Errorf("ignored sort sorts:\n%s", diff)
	}
}

func TestDuplicateRowsRepeatTheRowBefore(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(50))
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.DuplicateRows = true })
	c := call(t, a)
	first := c.list("contacts/ids", "per_page", "10", "sort", "updated:asc").Resources
	second := c.list("contacts/ids", "per_page", "10", "sort", "updated:asc", "page", "2").Resources
	if string(first[9]) != string(second[0]) {
		t.Errorf("page 2 begins with %s, page 1 ends with %s", second[0], first[9])
	}
}

func TestWireTypes(t *testing.T) {
	a := nimbletest.New()
	invented, edited := a.Create(), a.Create(nimbletest.Tags("a", "b"))
	c := call(t, a)
	if got, _ := c.contact(invented); string(got.Raw["stages_info"]) != "{}" {
		t.Errorf("stages_info = %s", got.Raw["stages_info"])
	}
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.TagsAsStrings, b.StagesAsList = true, true })
	for _, id := range []string{invented, edited} {
		got, _ := c.contact(id)
		if string(got.Raw["stages_info"]) != "[]" || string(got.Raw["tags"]) != string(got.Raw["tags2"]) {
			t.Errorf("stages_info, tags = %s, %s", got.Raw["stages_info"], got.Raw["tags"])
		}
	}
}

func TestDateHeader(t *testing.T) {
	clk := newClock()
	a := nimbletest.New(nimbletest.WithClock(clk.Now))
	c := call(t, a)
	date := func() string { resp, _ := c.raw("myself"); return resp.Header.Get("Date") }
	if got, want := date(), "Sun, 04 May 2031 10:00:00 GMT"; got != want {
		t.Errorf("Date = %q, want %q", got, want)
	}
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.DateSkew = -time.Minute })
	if got, want := date(), "Sun, 04 May 2031 09:59:00 GMT"; got != want {
		t.Errorf("Date = %q, want %q", got, want)
	}
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.NoDate = true })
	if got := date(); got != "" {
		t.Errorf("Date = %q, want none", got)
	}
}

func TestRequests(t *testing.T) {
	clk := newClock()
	a := nimbletest.New(nimbletest.WithClock(clk.Now))
	c := call(t, a)
	c.raw("contacts", "page", "x")
	c.raw("myself")
	got := a.Requests()
	if len(got) != 2 || got[0].Path != "/api/v1/contacts" || got[0].Query.Get("page") != "x" || got[0].Status != 409 || got[1].Status != 200 || got[0].Method != "GET" || !got[0].Time.Equal(clk.Now()) {
		t.Errorf("requests = %+v", got)
	}
	a.ResetRequests()
	if got := a.Requests(); len(got) != 0 {
		t.Errorf("requests after the reset = %+v", got)
	}
}
