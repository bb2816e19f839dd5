package admin_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/nimble/nimbletest/admin"
)

// console is the interface under test.
type console struct {
	t       *testing.T
	handler http.Handler
}

func open(t *testing.T, account *nimbletest.Account) console {
	return console{t, admin.New(account)}
}

// try sends a request as a program does.
func (c console) try(method, path, body string) (status int, text string) {
	c.t.Helper()
	req := httptest.NewRequestWithContext(c.t.Context(), method, "http://127.0.0.1:8090/admin/"+path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	return c.send(req)
}

func (c console) send(req *http.Request) (status int, text string) {
	c.t.Helper()
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, req)
	all, err := io.ReadAll(w.Result().Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return w.Code, string(all)
}

// answer is all that the tests look for in an answer.
type answer struct {
	Done    string
	Count   int
	IDs     []string
	ID      string
	Total   int
	Contact struct {
		ID, Name, Standing string
		RecordType         string `json:"record_type"`
		Contact            json.RawMessage
	}
	Contacts []struct{ ID, Name, Standing string }
}

// do sends a request that must be done.
func (c console) do(method, path, body string) answer {
	c.t.Helper()
	status, text := c.try(method, path, body)
	if status/100 != 2 {
		c.t.Fatalf("%s %s %s: %d %s", method, path, body, status, text)
	}
	var a answer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		c.t.Fatalf("%s: %v in %s", path, err, text)
	}
	return a
}

// shown is a contact as the API shows it.
type shown struct {
	RecordType string `json:"record_type"`
	Updated    string
	Owner      *string `json:"owner_id"`
	Important  *bool   `json:"is_important"`
	Fields     map[string][]struct {
		Value, Modifier string
		Primary         bool   `json:"is_primary"`
		Extra           string `json:"extra_value"`
	}
	Tags2   []string
	Privacy json.RawMessage
	Odd     json.RawMessage
}

func see(t *testing.T, a *nimbletest.Account, id string) shown {
	t.Helper()
	raw, ok := a.Contact(id)
	var s shown
	if !ok {
		t.Fatalf("%s cannot be seen", id)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return s
}

func (s shown) texts(field string) (texts []string) {
	for _, v := range s.Fields[field] {
		texts = append(texts, v.Value)
	}
	return texts
}

func TestCreateTakesWhatIsGiven(t *testing.T) {
	a := nimbletest.New()
	c := open(t, a)
	made := c.do("POST", "contacts", `{"fields": {"first name": "Ada", "last name": "Lovelace", "rating": 5,
		"email": ["ada@engine.example", {"value": "ada@home.example", "modifier": "personal", "is_primary": true}],
		"address": {"street": "1 Way", "city": "Leeds"}, "contact employment": {"value": {"company_name": "Engines"}, "extra_value": "x"}},
		"tags": ["VIP", "press"], "starred": true, "owner_id": "u1", "privacy": "owner", "keys": {"odd": [1]}}`)
	if made.Done != "created Ada Lovelace" || made.Contact.RecordType != "person" || made.ID == "" || !slices.Equal(made.IDs, []string{made.ID}) {
		t.Errorf("created %+v", made)
	}
	s := see(t, a, made.ID)
	want := map[string][]string{
		"first name": {"Ada"}, "last name": {"Lovelace"}, "rating": {"5"}, "email": {"ada@engine.example", "ada@home.example"},
		"address": {`{"street": "1 Way", "city": "Leeds"}`}, "contact employment": {`{"company_name": "Engines"}`},
	}
	got := make(map[string][]string)
	for name := range s.Fields {
		got[name] = s.texts(name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if second := s.Fields["email"][1]; second.Modifier != "personal" || !second.Primary || s.Fields["contact employment"][0].Extra != "x" {
		t.Errorf("values = %+v", s.Fields)
	}
	if !slices.Equal(s.Tags2, []string{"VIP", "press"}) || !*s.Important || *s.Owner != "u1" || string(s.Odd) != "[1]" || !strings.Contains(string(s.Privacy), `"user_ids":[]`) {
		t.Errorf("created %+v", s)
	}

	company := c.do("POST", "contacts", `{"record_type": "company", "fields": {"company name": "Engines"}}`)
	if s := see(t, a, company.ID); s.RecordType != "company" || len(s.Fields) != 1 {
		t.Errorf("created %+v, want a company with its name", s)
	}
	invented := c.do("POST", "contacts", `{}`)
	if s := see(t, a, invented.ID); len(s.Fields) < 4 || s.RecordType != "person" {
		t.Errorf("created %+v, want an invented person", s)
	}
	mixed := c.do("POST", "contacts", `{"invent": true, "fields": {"first name": "Grace"}}`)
	if s := see(t, a, mixed.ID); len(s.Fields) < 4 || s.texts("first name")[0] != "Grace" {
		t.Errorf("created %+v, want an invented person called Grace", s)
	}
}

func TestEdit(t *testing.T) {
	a := nimbletest.New()
	c := open(t, a)
	id := c.do("POST", "contacts", `{"fields": {"first name": "Ada", "email": {"value": "a@x.example", "modifier": "work"}, "phone": "1"}, "tags": ["one"]}`).ID
	before := see(t, a, id)
	if got := c.do("PATCH", "contacts/"+id, `{"fields": {"email": "b@x.example", "phone": null, "title": "CFO"}, "add_tags": ["two"], "starred": true}`); got.Done != "edited Ada" {
		t.Errorf("done = %q", got.Done)
	}
	s := see(t, a, id)
	if s.texts("email")[0] != "b@x.example" || s.Fields["email"][0].Modifier != "work" || s.Fields["phone"] != nil || s.texts("title")[0] != "CFO" {
		t.Errorf("fields = %+v", s.Fields)
	}
	if !slices.Equal(s.Tags2, []string{"one", "two"}) || !*s.Important || s.Updated <= before.Updated {
		t.Errorf("edited %+v, before %+v", s, before)
	}
	c.do("PATCH", "contacts/"+id, `{"fields": {"title": "CEO"}, "tags": [], "owner_id": null, "privacy": {"read": null, "edit": {"user_ids": ["u"], "group_ids": []}}, "silent": true}`)
	now := see(t, a, id)
	if now.texts("title")[0] != "CEO" || len(now.Tags2) != 0 || now.Owner != nil || now.Updated != s.Updated || string(now.Privacy) != `{"read":null,"edit":{"user_ids":["u"],"group_ids":[]}}` {
		t.Errorf("edited silently: %+v", now)
	}
	c.do("POST", "edit", `{"all": true, "fields": {"title": "All"}}`)
	if got := see(t, a, id).texts("title"); got[0] != "All" {
		t.Errorf("title = %q", got)
	}
}

func TestActions(t *testing.T) {
	tests := []struct {
		path, body string
		want       string // what is done; ID, NAME and OTHER stand for those of two contacts
		check      func(a *nimbletest.Account, before, after shown) bool
	}{
		{"tag", `{"id": "ID", "tags": ["x", "y"]}`, "tagged NAME", func(_ *nimbletest.Account, before, after shown) bool {
			return slices.Equal(after.Tags2, append(before.Tags2, "x", "y")) && after.Updated > before.Updated
		}},
		{"untag", `{"ids": ["ID"], "tags": ["old"]}`, "untagged NAME", func(_ *nimbletest.Account, _, after shown) bool { return len(after.Tags2) == 0 }},
		{"star", `{"id": "ID"}`, "starred NAME", func(_ *nimbletest.Account, _, after shown) bool { return *after.Important }},
		{"star", `{"id": "ID", "starred": false}`, "unstarred NAME", func(_ *nimbletest.Account, _, after shown) bool { return !*after.Important }},
		{"touch", `{"id": "ID"}`, "moved updated of NAME", func(_ *nimbletest.Account, before, after shown) bool { return after.Updated > before.Updated }},
		{"times", `{"id": "ID", "updated": "2099-01-01T00:00:00Z"}`, "dated NAME", func(_ *nimbletest.Account, _, after shown) bool { return after.Updated == "2099-01-01T00:00:00" }},
		{"merge", `{"survivor": "ID", "loser": "OTHER"}`, "merged Other 100% into NAME", func(a *nimbletest.Account, _, after shown) bool {
			return a.Len() == 1 && slices.Contains(after.Tags2, "other's")
		}},
		{"import", `{"count": 3}`, "imported 3 contacts", func(a *nimbletest.Account, _, _ shown) bool { return a.Len() == 5 }},
		{"rename-tag", `{"from": "old", "to": "new"}`, "renamed the tag old to new in 1 contact", func(_ *nimbletest.Account, before, after shown) bool {
			return slices.Equal(after.Tags2, []string{"new"}) && after.Updated == before.Updated
		}},
		{"rename-user", `{"from": "A", "to": "B"}`, "renamed the user A to B", func(a *nimbletest.Account, _, _ shown) bool { return a.LastEntries(1)[0].Op == nimbletest.OpRenameUser }},
		{"count-down", `{}`, "let a day pass for reminders", func(a *nimbletest.Account, _, _ shown) bool { return a.LastEntries(1)[0].Op == nimbletest.OpCountDown }},
		{"spoil", `{"id": "ID", "shown": "{}"}`, "spoilt NAME", func(_ *nimbletest.Account, _, after shown) bool { return after.Updated == "" }},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			a := nimbletest.New()
			id := a.Create(nimbletest.Blank(), nimbletest.Field("first name", "Ada"), nimbletest.Tags("old"))
			other := a.Create(nimbletest.Blank(), nimbletest.Field("first name", "Other 100%"), nimbletest.Tags("other's"))
			before := see(t, a, id)
			got := open(t, a).do("POST", tt.path, strings.NewReplacer("ID", id, "OTHER", other).Replace(tt.body))
			if want := strings.ReplaceAll(tt.want, "NAME", "Ada"); got.Done != want {
				t.Errorf("done = %q, want %q", got.Done, want)
			}
			if after := see(t, a, id); !tt.check(a, before, after) {
				t.Errorf("before %+v\nafter %+v", before, after)
			}
		})
	}
}

func TestContactsGoAndComeBack(t *testing.T) {
	for _, tt := range []struct {
		name, path, selection string
		more                  string
		standing              string
		want                  string
		byID                  int
	}{
		{"deleted", "delete", `"share": 0.5`, "", "deleted", "deleted 10 contacts", 200},
		{"hidden", "hide", `"count": 10`, "", "hidden", "hid 10 contacts", 200},
		{"forbidden", "hide", `"count": 10`, `, "by_id": "403"`, "hidden", "hid 10 contacts", 403},
		{"vanished", "vanish", `"share": "50%"`, "", "hidden", "took 10 contacts out of sight", 200},
		{"missing", "vanish", `"share": "50%"`, `, "by_id": "404"`, "hidden", "took 10 contacts out of sight", 404},
		{"lost by the index", "vanish", `"share": "50%"`, `, "by_id": "found"`, "unlisted", "took 10 contacts out of listings, but not by id", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := nimbletest.New(nimbletest.WithContacts(20))
			c := open(t, a)
			gone := c.do("POST", tt.path, "{"+tt.selection+tt.more+"}")
			if gone.Done != tt.want || gone.Count != 10 || len(gone.IDs) != 10 {
				t.Errorf("done = %+v, want %s", gone, tt.want)
			}
			if again := c.do("POST", tt.path, `{"ids": ["`+strings.Join(gone.IDs, `","`)+`"]`+tt.more+`}`); again.Count != 0 {
				t.Errorf("again: %s, want none", again.Done)
			}
			if list := c.do("GET", "contacts?standing=gone&limit=100", ""); list.Total != 10 || list.Contacts[0].Standing != tt.standing {
				t.Errorf("gone are %+v", list)
			}
			client := http.Client{Transport: a.Transport()}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://nimble.test/api/v1/contact/"+gone.IDs[0], nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer test-key")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != tt.byID {
				t.Errorf("by id: %s, want %d", resp.Status, tt.byID)
			}
			if one := c.do("POST", "restore", `{"id": "`+gone.IDs[0]+`"}`); one.Count != 1 {
				t.Errorf("restored %s", one.Done)
			}
			if half := c.do("POST", "restore", `{"count": 4}`); half.Count != 4 {
				t.Errorf("restored %s, want 4", half.Done)
			}
			if rest := c.do("POST", "restore", `{"all": true}`); rest.Count != 5 || a.Len() != 20 {
				t.Errorf("restored %s, now %d; want 5 and 20", rest.Done, a.Len())
			}
			if ids := c.do("GET", "ids", ""); ids.Count != 20 || len(ids.IDs) != 20 {
				t.Errorf("ids = %+v", ids)
			}
		})
	}
}

func TestOneContactByItsPath(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(3))
	c := open(t, a)
	id := a.IDs()[1]
	c.do("DELETE", "contacts/"+id, "")
	if _, ok := a.Contact(id); ok {
		t.Error("the contact is not deleted")
	}
	status, text := c.try("GET", "contacts/"+id, "")
	if status != 200 || !strings.Contains(text, `"standing": "deleted"`) || !strings.Contains(text, `"first name"`) {
		t.Errorf("the deleted contact is shown as %d %s", status, text)
	}
	document := `{"id":"` + id + `","anything":[1]}`
	c.do("PUT", "contacts/"+id, document)
	if raw, _ := a.Contact(id); string(raw) != document {
		t.Errorf("stored %s, want %s", raw, document)
	}
	c.do("POST", "spoil", `{"id": "`+a.IDs()[0]+`", "shown": "{\"id\":"}`)
	if _, text := c.try("GET", "contacts/"+a.IDs()[0], ""); !strings.Contains(text, `"contact": "{\"id\":"`) {
		t.Errorf("the spoilt contact is shown as %s", text)
	}
	if mended := c.do("POST", "mend", `{"all": true}`); mended.Count != 1 {
		t.Errorf("%s, want 1", mended.Done)
	}
}

func TestListing(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(60))
	c := open(t, a)
	id := c.do("POST", "contacts", `{"fields": {"first name": "Xanthippe"}, "tags": ["very rare"]}`).ID
	if list := c.do("GET", "contacts", ""); list.Total != 61 || len(list.Contacts) != 50 || list.Contacts[0].ID != id {
		t.Errorf("listed %d of %d, first %s; want 50 of 61, the newest first", len(list.Contacts), list.Total, list.Contacts[0].ID)
	}
	if list := c.do("GET", "contacts?offset=60&limit=5", ""); len(list.Contacts) != 1 {
		t.Errorf("the last page has %d", len(list.Contacts))
	}
	for _, query := range []string{"search=XANTHI", "tag=very+rare", "search=" + id, "search=very+ra&standing=any", "standing=visible&tag=very%20rare"} {
		if list := c.do("GET", "contacts?"+query, ""); list.Total != 1 || list.Contacts[0].ID != id {
			t.Errorf("%s: %+v", query, list)
		}
	}
	c.do("POST", "delete", `{"tagged": "very rare"}`)
	if list := c.do("GET", "contacts?search=xanthi&standing=deleted", ""); list.Total != 1 || a.Len() != 60 {
		t.Errorf("deleted by tag: %+v, left %d", list, a.Len())
	}
}

func TestRefusals(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(4))
	c := open(t, a)
	id := a.IDs()[0]
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "nowhere", "", 404, "there is no /admin/nowhere here"},
		{"GET", "delete", "", 405, "/admin/delete takes POST, not GET"},
		{"GET", "contacts/x", "", 404, "there is no contact x"},
		{"GET", "contacts?standing=sitting", "", 400, `standing is "sitting", want visible, unlisted, hidden, deleted, gone or any`},
		{"GET", "contacts?limit=-1", "", 400, `limit is "-1", want a number of 0 or more`},
		{"POST", "delete", "", 415, `the Content-Type is "", want application/json (curl --json)`},
		{"POST", "delete", "{", 400, "the body is no JSON"},
		{"POST", "delete", "[]", 400, "the body is not an object"},
		{"POST", "delete", `{"idz": []}`, 400, `there is no member "idz" here`},
		{"POST", "delete", `{}`, 400, `0 ways to say which contacts, want one of id, ids, count, share, tagged, search and "all": true`},
		{"POST", "delete", `{"all": true, "count": 3}`, 400, "2 ways to say which contacts"},
		{"POST", "delete", `{"count": -3}`, 400, "count is -3, want 0 or more"},
		{"POST", "delete", `{"share": 2}`, 400, "share is 2, want a part"},
		{"POST", "delete", `{"share": "half"}`, 400, `share is "half", want a part such as 0.5 or "50%"`},
		{"POST", "delete", `{"ids": ["` + id + `", "x", "y"]}`, 404, `there is no contact "x", "y"`},
		{"POST", "hide", `{"all": true, "by_id": "500"}`, 400, `by_id is "500", want empty, 403 or 404`},
		{"POST", "vanish", `{"all": true, "by_id": "lost"}`, 400, `by_id is "lost", want empty, 403, 404 or found`},
		{"POST", "tag", `{"all": true}`, 400, "there are no tags"},
		{"POST", "edit", `{"all": true}`, 400, "nothing to change"},
		{"POST", "edit", `{"all": true, "fields": {"email": {"text": "x"}}}`, 400, `field "email" has {"text": "x"}, want a text or an object`},
		{"POST", "edit", `{"all": true, "fields": {"email": [[]]}}`, 400, `field "email" has the value [], want a text`},
		{"POST", "edit", `{"all": true, "owner_id": 5}`, 400, "owner_id is 5, want a user's id or null"},
		{"POST", "edit", `{"all": true, "privacy": "nobody"}`, 400, `privacy is "nobody", want "everyone", "owner", or`},
		{"POST", "edit", `{"all": true, "keys": {"id": 1}}`, 400, "the key id cannot be set"},
		{"POST", "times", `{"all": true}`, 400, "neither created nor updated is given"},
		{"POST", "times", `{"all": true, "updated": "soon"}`, 400, "/updated: "},
		{"POST", "contacts", `{"record_type": "robot"}`, 400, `record_type is "robot", want person or company`},
		{"POST", "contacts", `{"fields": {"email": "x"}}`, 400, `fields have no first name or last name, which Nimble requires`},
		{"POST", "merge", `{"survivor": "` + id + `", "loser": "` + id + `"}`, 409, "two contacts"},
		{"POST", "merge", `{"survivor": "` + id + `", "loser": "x"}`, 404, `there is no contact "x"`},
		{"POST", "import", `{"count": 0}`, 400, "count is 0, want 1 to 1000000"},
		{"POST", "rename-tag", `{"from": "x"}`, 400, "from and to are both needed"},
		{"PUT", "contacts/" + id, `{"id": "x"}`, 400, `no object with the id "` + id + `"`},
		{"PUT", "key", `{"key": ""}`, 400, "key is empty"},
		{"PATCH", "behaviour", `{"updated_sort": "sometimes"}`, 400, `/updated_sort: sort is "sometimes", want honoured, refused, ignored`},
		{"PATCH", "behaviour", `{"index_lag": "long"}`, 400, `/index_lag: "long" is no duration such as 1.5s or 2m`},
		{"PATCH", "behaviour", `{"index_lag": "-1s"}`, 400, "index_lag is -1s, want 0 or more"},
		{"PATCH", "behaviour", `{"total_error": "many"}`, 400, `total_error is "many", want`},
		{"PATCH", "behaviour", `{"hidden_status": 500}`, 400, "hidden_status is 500, want 0 or 403 or 404"},
		{"PATCH", "behaviour", `{"total_cap": -1}`, 400, "total_cap is -1, want 0 or more"},
		{"PATCH", "behaviour", `{"user_zone": "Mars/North"}`, 400, `/user_zone: "Mars/North" is no time zone`},
		{"POST", "faults", `{}`, 400, "the fault does nothing"},
		{"POST", "faults", `{"status": 429, "times": 0}`, 400, "times is 0"},
		{"POST", "faults", `{"status": 9}`, 400, "status is 9, want 200 to 599"},
		{"POST", "faults", `{"status": 500, "endpoint": "deals"}`, 400, `endpoint is "deals", want contacts, ids, contact, myself`},
	} {
		status, text := c.try(tt.method, tt.path, tt.body)
		var p struct{ Error string }
		if err := json.Unmarshal([]byte(text), &p); err != nil || status != tt.status || !strings.Contains(p.Error, tt.want) {
			t.Errorf("%s %s %s: %d %s, want %d and %q", tt.method, tt.path, tt.body, status, text, tt.status, tt.want)
		}
	}
	if len(a.Journal()) != 0 {
		t.Errorf("something was done all the same: %v", a.Journal())
	}
}

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	server := httptest.NewServer(admin.New(nimbletest.New(nimbletest.WithContacts(3))))
	defer server.Close()
	for _, tt := range []struct {
		name, method, host string
		header             http.Header
		want               int
	}{
		{"a program", "POST", "", nil, 200},
		{"the page itself", "POST", "", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 200},
		{"the page itself in an old browser", "POST", "", http.Header{"Origin": {server.URL}}, 200},
		{"another site", "POST", "", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}}, 403},
		{"another port", "POST", "", http.Header{"Sec-Fetch-Site": {"same-site"}}, 403},
		{"another site in an old browser", "POST", "", http.Header{"Origin": {"https://evil.example"}}, 403},
		{"another site that only reads", "GET", "", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"a name that was made to lead here", "POST", "evil.example", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 403},
		{"localhost", "POST", "localhost:8090", nil, 200},
		{"a subdomain of localhost", "POST", "nimble.localhost", nil, 200},
		{"the other loopback address", "POST", "[::1]:8090", nil, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target, body := server.URL+"/admin/import", `{"count": 1}`
			if tt.method == "GET" {
				target, body = server.URL+"/admin/contacts", ""
			}
			req, err := http.NewRequestWithContext(t.Context(), tt.method, target, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			maps.Copy(req.Header, tt.header)
			if tt.host != "" {
				req.Host = tt.host
			}
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("%s, want %d", resp.Status, tt.want)
			}
		})
	}
}

func TestBehaviourHasEveryFieldOfTheAccounts(t *testing.T) {
	a := nimbletest.New()
	c := open(t, a)
	_, text := c.try("GET", "behaviour", "")
	var names map[string]any
	if err := json.Unmarshal([]byte(text), &names); err != nil {
		t.Fatal(err)
	}
	functions := map[string]string{"lag_of": "uneven_lag", "total_noise": "total_error"}
	word := regexp.MustCompile(`[A-Z]+[a-z]*`)
	for field := range reflect.TypeFor[nimbletest.Behaviour]().Fields() {
		var parts []string
		for _, part := range word.FindAllString(field.Name, -1) {
			parts = append(parts, strings.ToLower(part))
		}
		name := strings.Join(parts, "_")
		switch name {
		case "urlcap", "htmlerrors":
			name = map[string]string{"urlcap": "url_cap", "htmlerrors": "html_errors"}[name]
		}
		if replaced, ok := functions[name]; ok {
			name = replaced
		}
		if _, ok := names[name]; !ok {
			t.Errorf("there is no %s for %s", name, field.Name)
		}
		delete(names, name)
	}
	if len(names) > 0 {
		t.Errorf("too much: %v", names)
	}
}

func TestBehaviourIsSetAndKept(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(50))
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.Gzip = true })
	c := open(t, a)
	for _, body := range []string{
		`{"index_lag": "1.5s", "uneven_lag": true, "updated_sort": "refused", "range_forms": "z,t", "timestamps": "offset", "user_zone": "+03:00"}`,
		`{"total_cap": 10, "depth_cap": 20, "depth_status": 500, "hidden_status": 404, "date_skew": "-1m", "total_error": "+5"}`,
	} {
		c.do("PATCH", "behaviour", body)
	}
	b := a.Behaviour()
	if b.IndexLag != 1500*time.Millisecond || b.LagOf == nil || b.UpdatedSort != nimbletest.SortRefused || b.RangeForms != nimbletest.RangeZ|nimbletest.RangeT ||
		b.Timestamps != nimbletest.TimestampOffset || b.UserZone.String() != "+03:00" || b.TotalCap != 10 || b.DepthStatus != 500 || b.HiddenStatus != 404 || b.DateSkew != -time.Minute || !b.Gzip {
		t.Errorf("behaviour = %+v", b)
	}
	if lag := b.LagOf("x"); lag < 0 || lag > 1500*time.Millisecond || lag == b.LagOf("y") {
		t.Errorf("lags = %v, %v, want two in 1.5s", lag, b.LagOf("y"))
	}
	_, before := c.try("GET", "behaviour", "")
	c.do("PATCH", "behaviour", `{}`)
	if _, after := c.try("GET", "behaviour", ""); after != before || !strings.Contains(after, `"total_error": "+5"`) {
		t.Errorf("behaviour = %s, want %s", after, before)
	}
	for text, want := range map[string][2]int{"+5": {55, 55}, "-3": {47, 47}, "=1000": {1000, 1000}, "10%": {45, 55}, "": {50, 50}} {
		c.do("PATCH", "behaviour", `{"total_error": "`+text+`"}`)
		noise := a.Behaviour().TotalNoise
		if text == "" {
			if noise != nil {
				t.Error("there is still noise")
			}
			continue
		}
		seen := make(map[int]bool)
		for range 100 {
			got := noise(50)
			seen[got] = true
			if got < want[0] || got > want[1] {
				t.Errorf("%s of 50 = %d, want %d to %d", text, got, want[0], want[1])
			}
		}
		if len(seen) < min(5, want[1]-want[0]+1) {
			t.Errorf("%s of 50 is always one of %v", text, seen)
		}
	}
	c.do("DELETE", "behaviour", "")
	if b := a.Behaviour(); b.LagOf != nil || b.TotalNoise != nil || b.IndexLag != 0 || b.Gzip || b.UpdatedSort != nimbletest.SortHonoured {
		t.Errorf("behaviour = %+v, want the default", b)
	}
}

func TestFaultsKeyAndLog(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(3))
	c := open(t, a)
	client := http.Client{Transport: a.Transport()}
	ask := func(path string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://nimble.test/api/v1/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Nimble-Token", "test-key")
		resp, err := client.Do(req)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	if got := c.do("POST", "faults", `{"endpoint": "ids", "status": 429, "retry_after": "2", "times": 2}`); got.Done != "the next 2 requests to ids suffer the fault" {
		t.Errorf("done = %q", got.Done)
	}
	c.do("POST", "faults", `{"endpoint": "myself", "reset": true, "times": -1}`)
	c.do("POST", "faults", `{"status": 503}`)
	got := []int{ask("contacts/ids"), ask("contacts"), ask("contacts"), ask("contacts/ids"), ask("myself"), ask("myself"), ask("contacts/ids")}
	if want := []int{429, 503, 200, 429, 0, 0, 200}; !slices.Equal(got, want) {
		t.Errorf("answers %v, want %v", got, want)
	}
	if _, text := c.try("GET", "faults", ""); !strings.Contains(text, `"times": -1`) || strings.Contains(text, "429") {
		t.Errorf("faults = %s", text)
	}
	c.do("DELETE", "faults", "")
	c.do("PUT", "key", `{"refused": true}`)
	if got := ask("myself"); got != 403 {
		t.Errorf("with a refused key: %d, want 403", got)
	}
	c.do("PUT", "key", `{"key": "another", "refused": false}`)
	if key, refused := a.Key(); key != "another" || refused {
		t.Errorf("key = %s, %v", key, refused)
	}
	_, text := c.try("GET", "requests?last=1", "")
	var log struct {
		Total    int
		Served   []struct{ Endpoint string }
		Requests []struct {
			Path   string
			Status int
		}
	}
	if err := json.Unmarshal([]byte(text), &log); err != nil || log.Total != 8 || len(log.Served) != 6 || len(log.Requests) != 1 || log.Requests[0].Status != 403 {
		t.Errorf("requests = %+v, %v", log, err)
	}
	_, text = c.try("GET", "status", "")
	for _, want := range []string{`"contacts": 3`, `"requests": 8`, `"key": "another"`, `"visible": 3`, `"default_behaviour": true`} {
		if !strings.Contains(text, want) {
			t.Errorf("status has no %s: %s", want, text)
		}
	}
	c.do("DELETE", "requests", "")
	c.do("POST", "touch", `{"count": 1}`)
	if _, text := c.try("GET", "journal?last=1", ""); !strings.Contains(text, `"op": "touch"`) || len(a.Requests()) != 0 {
		t.Errorf("journal = %s with %d requests, want a touch and none", text, len(a.Requests()))
	}
}
