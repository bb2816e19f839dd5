package nimble_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"nimble-bridge/nimble"

	"go.uber.org/goleak"
)

const testKey = "k3y-of-the-test"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTrip is a transport that answers in-process, so that tests with it run in a bubble of simulated time.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer makes a response; header has alternating names and values.
func answer(req *http.Request, status int, body string, header ...string) *http.Response {
	resp := &http.Response{
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       req,
	}
	for i := 0; i+1 < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	return resp
}

// newClient returns a client that is not held up by a rate limit and answers from the given transport, without retries unless
// an option brings them back.
func newClient(t testing.TB, rt roundTrip, opts ...nimble.Option) *nimble.Client {
	t.Helper()
	opts = append([]nimble.Option{nimble.WithTransport(rt), nimble.WithRateLimit(1e6), nimble.WithoutRetry()}, opts...)
	client, err := nimble.NewClient("https://nimble.example", testKey, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// always answers every request alike.
func always(status int, body string, header ...string) roundTrip {
	return func(req *http.Request) (*http.Response, error) { return answer(req, status, body, header...), nil }
}

// id makes the n-th of a row of ids as Nimble makes them.
func id(n int) string { return fmt.Sprintf("6f10a0c2d4e5b6a7%08x", n) }

// document is a contact as Nimble sends it, of about the usual size.
func document(n int) string {
	return `{"id": "` + id(n) + `", "object_type": "contact", "record_type": "person",
 "created": "2029-01-17T16:11:46.120934", "updated": "2031-05-04T10:07:41.553012",
 "creator": "Ines Okafor", "creator_id": "6e00000000000000000000a1", "updater": null, "owner_id": null,
 "fields": {
   "first name": [{"value": "Tomasz", "modifier": "", "label": "first name", "is_primary": false}],
   "last name":  [{"value": "Brandt", "modifier": "", "label": "last name", "is_primary": false}],
   "email": [{"value": "tomasz@brandt.example", "modifier": "work", "label": "email", "is_primary": true}],
   "address": [{"value": "{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\", \"country\": \"Poland\"}",
                "modifier": "work", "label": "address", "is_primary": false}],
   "contact employment": [{"value": "{\"company_name\": \"Brandt Marine\", \"title\": \"CFO\", \"is_present\": true}",
                "modifier": "", "label": "contact employment", "is_primary": true, "extra_value": "6f10a0c9d4e5b6a7c8d9e0f2"}]},
 "tags": [{"tag": "supplier", "id": "6e00000000000000000000c0/supplier"}], "tags2": ["supplier"],
 "children": [], "employers_info": [], "privacy": {"read": null, "edit": null}, "is_editable": true, "is_important": null,
 "avatar_url": "https://app.nimble.com/api/avatars/person_default",
 "last_contacted": {"tstamp": null, "type": null, "object_id": null, "user_id": null, "deletion_tstamp": null},
 "company_last_contacted": {"in": null, "out": null}, "last_contacted_user": null, "lc": null,
 "reminder": null, "reminders": null, "notice": null, "stages_info": {}, "files": null, "contexts": []}`
}

// listing is the body of a page with the given resources.
func listing(page, pages, perPage, total int, resources ...string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"meta": {"page": %d, "pages": %d, "per_page": %d, "total": %d}, "resources": [`, page, pages, perPage, total)
	b.WriteString(strings.Join(resources, ", "))
	b.WriteString("]}")
	return b.String()
}

func ids(contacts []nimble.Contact) []string {
	got := []string{}
	for _, c := range contacts {
		got = append(got, c.ID)
	}
	return got
}
