package nimble_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nimble-bridge/nimble"

	"github.com/google/go-cmp/cmp"
)

// account answers as a small account does: listings in pages, contacts by id. It notes what was asked.
type account struct {
	records  []string // by number
	perPage  int      // when the request does not say
	noMeta   bool
	requests []string
	// missing is the status that a request by id with an unknown id is answered with; 0 leaves the contact out.
	missing int
}

func accountOf(n int) *account {
	a := &account{perPage: 30}
	for i := range n {
		a.records = append(a.records, document(i))
	}
	return a
}

func (a *account) roundTrip(req *http.Request) (*http.Response, error) {
	query := req.URL.Query()
	a.requests = append(a.requests, strings.TrimPrefix(req.URL.Path, "/api/v1")+"?"+query.Encode())
	switch req.URL.Path {
	case "/api/v1/contacts":
		return answer(req, 200, a.list(query, a.records), "Date", "Sun, 04 May 2031 10:00:30 GMT"), nil
	case "/api/v1/contacts/ids":
		var quoted []string
		for i := range a.records {
			quoted = append(quoted, strconv.Quote(id(i)))
		}
		return answer(req, 200, a.list(query, quoted), "Date", "Sun, 04 May 2031 10:00:30 GMT"), nil
	case "/api/v1/contact":
		var found []string
		missing := false
		for wanted := range strings.SplitSeq(query.Get("id"), ",") {
			i := slices.IndexFunc(a.records, func(record string) bool { return strings.Contains(record, `"`+wanted+`"`) })
			if i >= 0 {
				found = append(found, a.records[i])
			}
			missing = missing || i < 0
		}
		if missing && a.missing != 0 {
			return answer(req, a.missing, `{"object_type":"contact"}`), nil
		}
		slices.Reverse(found) // No order is promised.
		return answer(req, 200, `{"resources":[`+strings.Join(found, ",")+`]}`), nil
	}
	return answer(req, 404, "<html>404</html>"), nil
}

func (a *account) list(query url.Values, records []string) string {
	page, _ := strconv.Atoi(query.Get("page"))
	perPage, err := strconv.Atoi(query.Get("per_page"))
	if err != nil {
		perPage = a.perPage
	}
	from, to := min((page-1)*perPage, len(records)), min(page*perPage, len(records))
	body := listing(page, (len(records)+perPage-1)/perPage, perPage, len(records), records[from:to]...)
	if a.noMeta {
		body = strings.Replace(body, `"meta"`, `"data"`, 1)
	}
	return body
}

func TestMyself(t *testing.T) {
	client := newClient(t, always(200, `{"user_id":"u1","company_id":"c1","email":"ines@okafor.example","name":"Ines \u00d6kafor","company_size":null}`))
	got, err := client.Myself(t.Context())
	want := nimble.Myself{UserID: "u1", CompanyID: "c1", Email: "ines@okafor.example", Name: "Ines Ökafor"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Myself: %v (-want +got):\n%s", err, diff)
	}
	for _, body := range []string{`{}`, `{"user_id":null}`, `{"status":"ok"}`, `[]`, `null`, `<html>`, `{"user_id":"u`} {
		if got, err := newClient(t, always(200, body)).Myself(t.Context()); err == nil || !nimble.Retryable(err) {
			t.Errorf("Myself from %s = %+v, %v, want an error worth a retry", body, got, err)
		}
	}
}

func TestContactsPage(t *testing.T) {
	a := accountOf(34)
	page, err := newClient(t, a.roundTrip).ContactsPage(t.Context(), nimble.ListOptions{Page: 4, PerPage: 10, Sort: "created:asc"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(nimble.Meta{Page: 4, Pages: 4, PerPage: 10, Total: 34}, page.Meta); diff != "" {
		t.Errorf("meta (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{id(30), id(31), id(32), id(33)}, ids(page.Contacts)); diff != "" {
		t.Errorf("contacts (-want +got):\n%s", diff)
	}
	if want := time.Date(2031, 5, 4, 10, 0, 30, 0, time.UTC); page.Date != want {
		t.Errorf("Date = %v, want %v", page.Date, want)
	}
	if diff := cmp.Diff([]string{"/contacts?page=4&per_page=10&sort=created%3Aasc"}, a.requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestPageWithoutDate(t *testing.T) {
	for _, date := range []string{"", "yesterday"} {
		page, err := newClient(t, always(200, emptyPage, "Date", date)).ContactsPage(t.Context(), nimble.ListOptions{})
		if err != nil || !page.Date.IsZero() {
			t.Errorf("with Date %q: %v, %v, want a zero Date", date, page.Date, err)
		}
	}
}

func TestContactsReadsAllPages(t *testing.T) {
	for _, noMeta := range []bool{false, true} {
		for _, tt := range []struct{ contacts, page, perPage, want, requests int }{
			{0, 0, 10, 0, 1},
			{9, 0, 10, 9, 1},
			{34, 0, 10, 34, 4},
			{34, 3, 10, 14, 2},
			{34, 9, 10, 0, 1},
			{250, 0, 0, 250, 3},
		} {
			t.Run(fmt.Sprintf("%+v without meta %v", tt, noMeta), func(t *testing.T) {
				a := accountOf(tt.contacts)
				a.noMeta = noMeta
				var got []string
				for contact, err := range newClient(t, a.roundTrip).Contacts(t.Context(), nimble.ListOptions{Page: tt.page, PerPage: tt.perPage}) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, contact.ID)
				}
				if len(got) != tt.want || len(slices.Compact(slices.Clone(got))) != tt.want {
					t.Errorf("got %d contacts, want %d, each once", len(got), tt.want)
				}
				if len(a.requests) != tt.requests {
					t.Errorf("%d requests, want %d: %q", len(a.requests), tt.requests, a.requests)
				}
			})
		}
	}
}

func TestContactsOfFullLastPageWithoutMeta(t *testing.T) {
	a := accountOf(20)
	a.noMeta = true
	n := 0
	for _, err := range newClient(t, a.roundTrip).Contacts(t.Context(), nimble.ListOptions{PerPage: 10}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 20 || len(a.requests) != 3 {
		t.Errorf("%d contacts in %d requests, want 20 in 3", n, len(a.requests))
	}
}

// TestContactsHasAnEnd meets a server that answers every page number with the same page, and does not say how many there are.
func TestContactsHasAnEnd(t *testing.T) {
	requests := 0
	client := newClient(t, func(req *http.Request) (*http.Response, error) {
		requests++
		return answer(req, 200, `{"resources":[{"id":"a1"},{"id":"a2"}]}`), nil
	})
	for _, err := range client.Contacts(t.Context(), nimble.ListOptions{PerPage: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		if requests > 2 {
			t.Fatal("still asking")
		}
	}
}

func TestContactsRequestsPagesAsTheLoopReachesThem(t *testing.T) {
	a := accountOf(30)
	n := 0
	for _, err := range newClient(t, a.roundTrip).Contacts(t.Context(), nimble.ListOptions{PerPage: 10}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 10 {
			break
		}
	}
	if len(a.requests) != 1 {
		t.Errorf("%d requests for the first page", len(a.requests))
	}
}

func TestContactsGoesOnAfterMalformedRecordOnly(t *testing.T) {
	a := accountOf(5)
	a.records[1] = `{"id":"bad","x":1,"x":2}`
	a.records[3] = `17`
	client := newClient(t, a.roundTrip)
	var got []string
	for contact, err := range client.Contacts(t.Context(), nimble.ListOptions{PerPage: 3}) {
		if record, ok := errors.AsType[*nimble.RecordError](err); ok {
			got = append(got, "malformed "+record.ID)
			continue
		}
		got = append(got, contact.ID)
	}
	if diff := cmp.Diff([]string{id(0), id(2), "malformed bad", id(4), "malformed "}, got); diff != "" {
		t.Errorf("contacts (-want +got):\n%s", diff)
	}

	var errs []error
	for _, err := range newClient(t, always(500, "")).Contacts(t.Context(), nimble.ListOptions{}) {
		errs = append(errs, err)
	}
	if len(errs) != 1 || !nimble.Retryable(errs[0]) {
		t.Errorf("errors %v, want one", errs)
	}
}

func TestContactIDsPage(t *testing.T) {
	client := newClient(t, always(200, `{"meta":{"page":1,"total":"4"},"resources":["a1",null,"\u0061\u0032","a.3",{"id":"a4"},"a5"]}`, "Date", "Sun, 04 May 2031 10:00:30 GMT"))
	got, err := client.ContactIDsPage(t.Context(), nimble.ListOptions{})
	want := &nimble.IDPage{
		Meta: nimble.Meta{Page: 1, Total: 4}, IDs: []string{"a1", "a2", "a5"}, Malformed: 3,
		Date: time.Date(2031, 5, 4, 10, 0, 30, 0, time.UTC),
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("ContactIDsPage: %v (-want +got):\n%s", err, diff)
	}
}

func TestCount(t *testing.T) {
	a := accountOf(34)
	got, err := newClient(t, a.roundTrip).Count(t.Context(), nimble.RecordTypeIs("person"))
	if want := (nimble.Count{Total: 34, Date: time.Date(2031, 5, 4, 10, 0, 30, 0, time.UTC)}); err != nil || got != want {
		t.Errorf("Count = %+v, %v, want %+v", got, err, want)
	}
	if diff := cmp.Diff([]string{"/contacts/ids?page=1&per_page=1&query=%7B%22record+type%22%3A%7B%22is%22%3A%22person%22%7D%7D"}, a.requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	for _, body := range []string{`{"resources":[]}`, `{"meta":{},"resources":[]}`, `{"meta":{"total":null},"resources":[]}`, `{"meta":{"total":-1},"resources":[]}`} {
		if got, err := newClient(t, always(200, body)).Count(t.Context(), nimble.Query{}); err == nil {
			t.Errorf("Count from %s = %+v, want an error", body, got)
		}
	}
}

func TestContactsByID(t *testing.T) {
	for _, missing := range []int{0, 404, 403} {
		t.Run(fmt.Sprintf("missing ids give %d", missing), func(t *testing.T) {
			a := accountOf(70)
			a.missing = missing
			var wanted, want []string
			for n := 69; n >= 0; n-- {
				wanted, want = append(wanted, id(n)), append(want, id(n))
				if n%20 == 0 {
					wanted = append(wanted, fmt.Sprintf("missing-%d", n), id(n))
				}
			}
			got, err := newClient(t, a.roundTrip).ContactsByID(t.Context(), wanted...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ids(got)); diff != "" {
				t.Errorf("contacts (-want +got):\n%s", diff)
			}
			if missing == 0 && len(a.requests) != 3 {
				t.Errorf("%d requests for 78 ids, want 3", len(a.requests))
			}
			for _, request := range a.requests {
				if n := strings.Count(request, "%2C") + 1; n > 30 {
					t.Errorf("%d ids in one request", n)
				}
			}
		})
	}
}

func TestContactsByIDOfNone(t *testing.T) {
	a := accountOf(1)
	got, err := newClient(t, a.roundTrip).ContactsByID(t.Context())
	if err != nil || len(got) != 0 || len(a.requests) != 0 {
		t.Errorf("got %v, %v after %d requests", got, err, len(a.requests))
	}
}

func TestContactsByIDTellsMalformedFromMissing(t *testing.T) {
	a := accountOf(3)
	a.records[1] = `{"id":"bad","x":1,"x":2}`
	got, err := newClient(t, a.roundTrip).ContactsByID(t.Context(), id(0), "bad", "gone", id(2))
	if diff := cmp.Diff([]string{id(0), id(2)}, ids(got)); diff != "" {
		t.Errorf("contacts (-want +got):\n%s", diff)
	}
	if record, ok := errors.AsType[*nimble.RecordError](err); !ok || record.ID != "bad" {
		t.Errorf("got %v, want a RecordError about bad", err)
	}
}

func TestContactsByIDFailsAsAWhole(t *testing.T) {
	for _, rt := range []roundTrip{always(500, ""), always(401, ""), always(404, "<html>"), always(403, "<html>"), always(200, `{"resources":null}`)} {
		got, err := newClient(t, rt).ContactsByID(t.Context(), "a1", "a2")
		if err == nil || got != nil {
			t.Errorf("got %v, %v, want only an error", got, err)
		}
	}
}

func TestUnusableIDsAreNotAskedFor(t *testing.T) {
	client := newClient(t, func(req *http.Request) (*http.Response, error) {
		t.Errorf("%s was requested", req.URL)
		return answer(req, 200, `{"resources":[]}`), nil
	})
	for _, id := range []string{"", "a,b", "a b", "*", "a/b", strings.Repeat("a", 65)} {
		if _, err := client.ContactByID(t.Context(), id); err == nil || errors.Is(err, nimble.ErrNotFound) {
			t.Errorf("ContactByID(%q): %v", id, err)
		}
		if _, err := client.ContactsByID(t.Context(), "a1", id); err == nil {
			t.Errorf("ContactsByID(%q) is accepted", id)
		}
	}
}

func TestContactByID(t *testing.T) {
	got, err := newClient(t, accountOf(3).roundTrip).ContactByID(t.Context(), id(1))
	if err != nil || string(got.Raw) != document(1) {
		t.Errorf("got %s, %v", got.Raw, err)
	}
}

// TestContactByIDTellsWhyThereIsNone is about what must and what must not pass for a deletion.
func TestContactByIDTellsWhyThereIsNone(t *testing.T) {
	tests := []struct {
		name      string
		rt        roundTrip
		notFound  bool
		forbidden bool
	}{
		{"empty resources", always(200, `{"resources":[]}`), true, false},
		{"404 of Nimble", always(404, `{"object_type":"contact","object_id":"a1"}`), true, false},
		{"404 with an empty object", always(404, `{}`), true, false},
		{"403 about the contact", always(403, `{"message":"no right to this object"}`), false, true},

		{"404 of a proxy", always(404, `<html><title>404 Not Found</title>`), false, false},
		{"404 without a body", always(404, ``), false, false},
		{"404 with half a body", always(404, `{"object_`), false, false},
		{"403 of a proxy", always(403, `<html><title>403 Forbidden</title>`), false, false},
		{"403 about the key", always(403, `{"message":"Can't authenticate request"}`), false, false},
		{"403 about the user", always(403, `{"message":"email_verification_required"}`), false, false},
		{"resources null", always(200, `{"resources":null}`), false, false},
		{"no resources", always(200, `{}`), false, false},
		{"another contact", always(200, `{"resources":[{"id":"a2"}]}`), false, false},
		{"a record without an id", always(200, `{"resources":[{}]}`), false, false},
		{"410", always(410, `{}`), false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newClient(t, tt.rt).ContactByID(t.Context(), "a1")
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if got := errors.Is(err, nimble.ErrNotFound); got != tt.notFound {
				t.Errorf("not found: %v, want %v: %v", got, tt.notFound, err)
			}
			if got := errors.Is(err, nimble.ErrForbidden); got != tt.forbidden {
				t.Errorf("forbidden: %v, want %v: %v", got, tt.forbidden, err)
			}
		})
	}
}

func TestClientIsSafeForConcurrentUse(t *testing.T) {
	body := gzipped(t, listing(1, 1, 100, 2, document(1), document(2)))
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte(body))
	})
	client := dial(t, srv.URL, nimble.WithRetry(nimble.RetryPolicy{}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				page, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
				if err != nil || len(page.Contacts) != 2 || string(page.Contacts[1].Raw) != document(2) {
					t.Errorf("got %+v, %v", page, err)
				}
			}
		})
	}
	wg.Wait()
}
