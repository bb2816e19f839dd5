package nimbletest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"nimble-bridge/nimble/nimbletest"
)

// get is the smallest of clients.
func get(client *http.Client, target string, into any) int {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, target, nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer test-key")
	resp, err := client.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	if into != nil {
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			panic(err)
		}
	}
	return resp.StatusCode
}

// total counts what a query matches.
func total(client *http.Client, query string) int {
	var list struct{ Meta struct{ Total int } }
	get(client, "http://nimble.test/api/v1/contacts/ids?per_page=1&query="+url.QueryEscape(query), &list)
	return list.Meta.Total
}

// In-process, without a socket: the way for tests, also in testing/synctest bubbles.
func Example() {
	account := nimbletest.New(nimbletest.WithContacts(1000))
	client := &http.Client{Transport: account.Transport()}

	id := account.Create(nimbletest.Field("first name", "Ada"), nimbletest.Tags("engine"))

	var answer struct {
		Resources []struct {
			ID   string `json:"id"`
			Tags []struct{ Tag string }
		}
	}
	get(client, "http://nimble.test/api/v1/contacts?sort=updated:desc&per_page=1", &answer)
	fmt.Println(answer.Resources[0].ID == id, answer.Resources[0].Tags[0].Tag)
	// Output: true engine
}

// On a loopback port, for programs that want a URL.
func ExampleNewServer() {
	server := nimbletest.NewServer(nimbletest.WithCompanyID("6e0000000000000000000001"))
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	var me struct {
		Company string `json:"company_id"`
	}
	fmt.Println(get(client, server.URL+"/api/v1/myself", &me), me.Company)
	// Output: 200 6e0000000000000000000001
}

// Equal seeds, numbers and clocks give equal accounts.
func ExampleWithSeed() {
	clock := func() time.Time { return time.Date(2031, 5, 4, 10, 0, 0, 0, time.UTC) }
	first := nimbletest.New(nimbletest.WithSeed(42), nimbletest.WithContacts(100), nimbletest.WithClock(clock))
	second := nimbletest.New(nimbletest.WithSeed(42), nimbletest.WithContacts(100), nimbletest.WithClock(clock))

	id := first.IDs()[7]
	one, _ := first.Contact(id)
	other, _ := second.Contact(id)
	fmt.Println(string(one) == string(other))
	// Output: true
}

// A day in the life of an account.
func ExampleAccount_Edit() {
	account := nimbletest.New()
	id := account.Create(nimbletest.Field("first name", "Grace"))
	account.Edit(
		id,
		nimbletest.Field("title", "Rear Admiral"),
		nimbletest.FieldValues("email", nimbletest.Value{Value: "grace@navy.example", Modifier: "work", Primary: true}),
		nimbletest.Star(true),
	)
	account.EditSilently(id, nimbletest.Tags("found only by comparing"))
	account.Touch(id)
	account.Delete(id)
	account.Restore(id)
	for _, entry := range account.Journal() {
		fmt.Println(entry.Op)
	}
	// Output:
	// create
	// edit
	// edit silently
	// touch
	// delete
	// restore
}

// An import gives many contacts the same second, which no reader may jump over.
func ExampleAccount_Import() {
	account := nimbletest.New()
	client := &http.Client{Transport: account.Transport()}
	ids := account.Import(250)
	created, updated := account.Times(ids[0])
	second := created.Format("2006-01-02T15:04:05Z")
	fmt.Println(created.Equal(updated), total(client, `{"updated":{"range":{"start_datetime":"`+second+`","end_datetime":"`+second+`"}}}`))
	// Output: true 250
}

// The index follows the store after a while; reading by id does not wait for it.
func ExampleAccount_SetBehaviour() {
	now := time.Date(2031, 5, 4, 10, 0, 0, 0, time.UTC)
	account := nimbletest.New(nimbletest.WithClock(func() time.Time { return now }))
	client := &http.Client{Transport: account.Transport()}
	account.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = 2 * time.Second })

	id := account.Create()
	var byID struct{ Resources []any }
	get(client, "http://nimble.test/api/v1/contact/"+id, &byID)
	fmt.Println("by id:", len(byID.Resources))
	fmt.Println("listed:", total(client, `{"record type":{"is":"person"}}`))
	now = now.Add(2 * time.Second)
	fmt.Println("listed two seconds later:", total(client, `{"record type":{"is":"person"}}`))
	// Output:
	// by id: 1
	// listed: 0
	// listed two seconds later: 1
}

// Contacts change while somebody reads them page by page.
func ExampleAccount_OnRequest() {
	account := nimbletest.New(nimbletest.WithContacts(50))
	client := &http.Client{Transport: account.Transport()}
	account.OnRequest(func(n int, _ *http.Request) {
		if n == 2 {
			account.Delete(account.IDs()[0])
		}
	})
	for page := 1; page <= 2; page++ {
		var list struct{ Meta struct{ Total int } }
		get(client, fmt.Sprintf("http://nimble.test/api/v1/contacts?page=%d", page), &list)
		fmt.Println("page", page, "of", list.Meta.Total, "contacts")
	}
	// Output:
	// page 1 of 50 contacts
	// page 2 of 49 contacts
}

// The next two listings are throttled.
func ExampleAccount_Inject() {
	account := nimbletest.New()
	client := &http.Client{Transport: account.Transport()}
	account.Inject(2, nimbletest.Fault{Status: http.StatusTooManyRequests, RetryAfter: "30", Endpoint: nimbletest.EndpointContacts})
	for range 3 {
		fmt.Println(get(client, "http://nimble.test/api/v1/contacts", nil))
	}
	// Output:
	// 429
	// 429
	// 200
}

// Documents of one's own, believable or not.
func ExampleAccount_Put() {
	account := nimbletest.New()
	err := account.Put(`{"id":"6f10a0c2d4e5b6a7c8d9e0f1","updated":"2031-05-04T13:07:41+0300","tags":["plain text"],"stages_info":null}`)
	if err != nil {
		fmt.Println(err)
	}
	account.PutRaw("6f10a0c9d4e5b6a7c8d9e0f2", `{"id":["not","a","string"]}`)

	raw, _ := account.Contact("6f10a0c2d4e5b6a7c8d9e0f1")
	fmt.Println(string(raw))
	_, updated := account.Times("6f10a0c2d4e5b6a7c8d9e0f1")
	fmt.Println(updated)
	// Output:
	// {"id":"6f10a0c2d4e5b6a7c8d9e0f1","updated":"2031-05-04T13:07:41+0300","tags":["plain text"],"stages_info":null}
	// 2031-05-04 10:07:41 +0000 UTC
}

// A key is revoked.
func ExampleAccount_RefuseKey() {
	account := nimbletest.New()
	client := &http.Client{Transport: account.Transport()}
	account.RefuseKey(true)
	var failure struct{ Message string }
	fmt.Println(get(client, "http://nimble.test/api/v1/myself", &failure), failure.Message)
	// Output: 403 Can't authenticate request
}

// What was asked of the account, for tests that count requests.
func ExampleAccount_Requests() {
	account := nimbletest.New(nimbletest.WithContacts(5))
	client := &http.Client{Transport: account.Transport()}
	get(client, "http://nimble.test/api/v1/contacts?page=1&per_page=2", nil)
	get(client, "http://nimble.test/api/v1/contacts?page=many", nil)
	for _, r := range account.Requests() {
		fmt.Println(r.Method, strings.TrimPrefix(r.Path, "/api/v1"), r.Query.Get("page"), r.Status)
	}
	// Output:
	// GET /contacts 1 200
	// GET /contacts many 409
}

// An account in a server of one's own.
func ExampleAccount_ServeHTTP() {
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", nimbletest.New(nimbletest.WithContacts(25000)))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	fmt.Fprintln(os.Stdout, "ready")
	// Output: ready
}

// Contacts that are gone can still be looked at, and come back.
func ExampleAccount_Look() {
	account := nimbletest.New(nimbletest.WithContacts(1000))
	account.Hide(account.Pick(500)...) // Half of the account, as after a change of rights.
	account.Create(nimbletest.Blank(), nimbletest.Field("first name", "Ada"), nimbletest.Field("last name", "Lovelace"), nimbletest.Tags("engine"))
	account.Delete(account.Find(nimbletest.Filter{Tag: "engine"}, 1)...)

	gone := []nimbletest.Standing{nimbletest.Hidden, nimbletest.Unlisted, nimbletest.Deleted}
	found, total := account.Look(nimbletest.Filter{Standings: gone}, 0, 10)
	fmt.Println(total, "gone; the last changed is", found[0].Name, "who is", found[0].Standing)
	for _, s := range found[:1] {
		account.Reappear(s.ID)
	}
	fmt.Println(account.Len(), "in sight")
	// Output:
	// 501 gone; the last changed is Ada Lovelace who is deleted
	// 501 in sight
}

// A record that is malformed for a while, as a client finds it in a listing.
func ExampleAccount_Spoil() {
	account := nimbletest.New()
	client := &http.Client{Transport: account.Transport()}
	id := account.Create()
	account.Spoil(id, `{"id": null}`)
	var list struct{ Resources []json.RawMessage }
	get(client, "http://nimble.test/api/v1/contacts", &list)
	fmt.Println(string(list.Resources[0]))
	account.Mend(id)
	get(client, "http://nimble.test/api/v1/contacts", &list)
	fmt.Println(strings.HasPrefix(string(list.Resources[0]), `{"id":"`+id+`"`))
	// Output:
	// {"id": null}
	// true
}
