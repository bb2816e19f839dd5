package nimbletest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nimble-bridge/nimble/nimbletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is an account's clock that a test moves by hand.
type clock struct{ now atomic.Int64 }

// newClock begins at a moment with a fraction, on a day that no zone has to itself.
func newClock() *clock {
	c := &clock{}
	c.now.Store(time.Date(2031, 5, 4, 10, 0, 0, 250_000_000, time.UTC).UnixMicro())
	return c
}

func (c *clock) Now() time.Time          { return time.UnixMicro(c.now.Load()) }
func (c *clock) Advance(d time.Duration) { c.now.Add(d.Microseconds()) }

// contact is the part of a contact that the tests look at.
type contact struct {
	ID         string `json:"id"`
	RecordType string `json:"record_type"`
	Created    string `json:"created"`
	Updated    string `json:"updated"`
	Creator    string
	Updater    *string
	Owner      *string                     `json:"owner_id"`
	Important  *bool                       `json:"is_important"`
	Fields     map[string][]map[string]any `json:"fields"`
	Tags       []tag                       `json:"tags"`
	Tags2      []string                    `json:"tags2"`
	Raw        map[string]json.RawMessage  `json:"-"`
}

// tag is a tag in either of the shapes that the account writes.
type tag struct{ Tag, ID string }

func (g *tag) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		return json.Unmarshal(raw, &g.Tag)
	}
	type object tag
	return json.Unmarshal(raw, (*object)(g))
}

func (c *contact) text(field string) string {
	if values := c.Fields[field]; len(values) > 0 {
		text, _ := values[0]["value"].(string)
		return text
	}
	return ""
}

func parseContact(t testing.TB, raw []byte) contact {
	t.Helper()
	var c contact
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatalf("contact %s: %v", raw, err)
	}
	if err := json.Unmarshal(raw, &c.Raw); err != nil {
		t.Fatal(err)
	}
	return c
}

// page is a listing's answer.
type page struct {
	Meta struct {
		Page, Pages, Total int
		PerPage            int `json:"per_page"`
	}
	Resources []json.RawMessage
}

// caller asks an account over its transport.
type caller struct {
	t testing.TB
	http.Client
	key string
}

func call(t testing.TB, a *nimbletest.Account) *caller {
	return &caller{t: t, Client: http.Client{Transport: a.Transport()}, key: "test-key"}
}

// raw sends a request and gives the answer and its body.
func (c *caller) raw(path string, params ...string) (answer, []byte) {
	c.t.Helper()
	got, err := c.try(path, params...)
	if err != nil {
		c.t.Fatal(err)
	}
	return got, []byte(got.Body)
}

func (c *caller) try(path string, params ...string) (answer, error) {
	values := url.Values{}
	for i := 0; i < len(params); i += 2 {
		values.Add(params[i], params[i+1])
	}
	target := "http://nimble.test/api/v1/" + path
	if len(values) > 0 {
		target += "?" + values.Encode()
	}
	return fetchAs(c.t.Context(), &c.Client, c.key, target)
}

// answer is a response that was read to its end, or as far as it came.
type answer struct {
	StatusCode    int
	Status        string
	Header        http.Header
	ContentLength int64
	Uncompressed  bool
	Body          string
}

// fetch sends a request with the usual key and reads all of the answer.
func fetch(ctx context.Context, c *http.Client, target string) (answer, error) {
	return fetchAs(ctx, c, "test-key", target)
}

func fetchAs(ctx context.Context, c *http.Client, key, target string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Status, resp.Header, resp.ContentLength, resp.Uncompressed, string(body)}, err
}

// list sends a request that must succeed.
func (c *caller) list(path string, params ...string) page {
	c.t.Helper()
	resp, body := c.raw(path, params...)
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s %q: %s: %s", path, params, resp.Status, body)
	}
	var p page
	if err := json.Unmarshal(body, &p); err != nil {
		c.t.Fatalf("%s: %v in %s", path, err, body)
	}
	return p
}

// ids gives the ids that match a query, sorted, and checks them against the full listing and the total.
func (c *caller) ids(query string) []string {
	c.t.Helper()
	params := []string{"per_page", "200"}
	if query != "" {
		params = append(params, "query", query)
	}
	p := c.list("contacts/ids", params...)
	ids := make([]string, len(p.Resources))
	for i, raw := range p.Resources {
		if err := json.Unmarshal(raw, &ids[i]); err != nil {
			c.t.Fatal(err)
		}
	}
	if p.Meta.Total != len(ids) {
		c.t.Fatalf("query %s: total = %d with %d ids", query, p.Meta.Total, len(ids))
	}
	full := c.list("contacts", params...)
	for i, raw := range full.Resources {
		if got := parseContact(c.t, raw).ID; got != ids[i] {
			c.t.Fatalf("query %s: row %d is %s, but id %d is %s", query, i, got, i, ids[i])
		}
	}
	slices.Sort(ids)
	return ids
}

// contact reads one contact by id; ok is false when the account gives none.
func (c *caller) contact(id string) (contact, bool) {
	c.t.Helper()
	p := c.list("contact/" + id)
	if len(p.Resources) == 0 {
		return contact{}, false
	}
	return parseContact(c.t, p.Resources[0]), true
}

// status gives the status of an answer.
func (c *caller) status(path string, params ...string) int {
	c.t.Helper()
	resp, _ := c.raw(path, params...)
	return resp.StatusCode
}

// document makes a contact of the test's own.
func document(id, updated, rest string) string {
	return fmt.Sprintf(`{"id":%q,"record_type":"person","created":%q,"updated":%q%s}`, id, updated, updated, rest)
}
