package nimble_test

import (
	"errors"
	"strings"
	"testing"

	"nimble-bridge/nimble"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The ways to ask for something, by the endpoint's name.
var calls = map[string]func(*testing.T, *nimble.Client) error{
	"contacts": func(t *testing.T, c *nimble.Client) error {
		_, err := c.ContactsPage(t.Context(), nimble.ListOptions{})
		return err
	},
	"ids": func(t *testing.T, c *nimble.Client) error {
		_, err := c.ContactIDsPage(t.Context(), nimble.ListOptions{})
		return err
	},
	"count": func(t *testing.T, c *nimble.Client) error {
		_, err := c.Count(t.Context(), nimble.Query{})
		return err
	},
	"contact": func(t *testing.T, c *nimble.Client) error {
		_, err := c.ContactByID(t.Context(), "a1")
		return err
	},
	"contacts by id": func(t *testing.T, c *nimble.Client) error {
		_, err := c.ContactsByID(t.Context(), "a1", "a2")
		return err
	},
	"myself": func(t *testing.T, c *nimble.Client) error {
		_, err := c.Myself(t.Context())
		return err
	},
}

func TestCredentialsErrors(t *testing.T) {
	tests := []struct {
		name    string
		status  int
		body    string
		message string
		// byID tells whether the answer to a read by id is about the credentials, too.
		byID bool
	}{
		{"401 of OAuth", 401, `{"error":"invalid_token","error_description":"The token expired"}`, "The token expired", true},
		{"401 without words", 401, ``, "", true},
		{"401 in HTML", 401, `<html>Unauthorized</html>`, "", true},
		{"402 with a message", 402, `{"message":"Quota exceeded","code":108}`, "Quota exceeded", true},
		{"402 of the new kind", 402, `{"payment_type":"subscription","required_spec":{},"extra_usage":{}}`, "", true},
		{"403 for a bad token", 403, `{"message":"Can't authenticate request"}`, "Can't authenticate request", true},
		{"403 for an unverified user", 403, `{"message":"email_verification_required"}`, "email_verification_required", true},
		{"403 for another reason", 403, `{"message":"You have no right to do this"}`, "You have no right to do this", false},
		{"403 in HTML", 403, `<html>Forbidden</html>`, "", false},
	}
	for _, tt := range tests {
		for endpoint, call := range calls {
			if !tt.byID && strings.HasPrefix(endpoint, "contact") && endpoint != "contacts" {
				continue
			}
			t.Run(tt.name+", "+endpoint, func(t *testing.T) {
				err := call(t, newClient(t, always(tt.status, tt.body)))
				refused, ok := errors.AsType[*nimble.CredentialsError](err)
				if !ok {
					t.Fatalf("got %v, want a CredentialsError", err)
				}
				if refused.Status != tt.status || refused.Message != tt.message {
					t.Errorf("status %d, message %q, want %d, %q", refused.Status, refused.Message, tt.status, tt.message)
				}
				if nimble.Retryable(err) || errors.Is(err, nimble.ErrForbidden) {
					t.Errorf("%v passes for something else", err)
				}
			})
		}
	}
}

func TestValidationErrors(t *testing.T) {
	tests := []struct {
		name, body string
		message    string
		problems   map[string][]string
	}{
		{
			"lists of problems", `{"message":"Validation errors","code":245,"errors":{"sort":[{"message":"order missing","field_id":"f1"},{"message":"no such field"}],"page":[{"message":"too high"}]}}`,
			"Validation errors",
			map[string][]string{"sort": {"order missing", "no such field"}, "page": {"too high"}},
		},
		{
			"one problem each", `{"message":"validation_error","errors":{"/query":{"message":"not JSON"}},"human_readable_error":"The query is not JSON."}`,
			"The query is not JSON.",
			map[string][]string{"/query": {"not JSON"}},
		},
		{
			"texts", `{"message":"bad","errors":{"sort":"order missing","page":["too high","too low"]}}`,
			"bad",
			map[string][]string{"sort": {"order missing"}, "page": {"too high", "too low"}},
		},
		{"a list", `{"errors":[{"message":"bad"},"worse",17]}`, "", map[string][]string{"": {"bad", "worse"}}},
		{"null", `{"message":null,"errors":null}`, "", nil},
		{"repeated names", `{"message":"first","message":"bad"}`, "bad", nil},
		{"HTML", `<html>Conflict</html>`, "", nil},
		{"nothing", ``, "", nil},
		{"half an object", `{"message":"bad","errors":{"so`, "", nil},
		{"a message of several lines", "{\"message\":\"bad\\r\\n\\u001b[31mquery \\u2028 here\"}", "bad [31mquery here", nil},
		{"an endless message", `{"message":"` + strings.Repeat("ä", 1000) + `"}`, strings.Repeat("ä", 150) + "…", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newClient(t, always(409, tt.body)).ContactsPage(t.Context(), nimble.ListOptions{Sort: "updated", Page: 2})
			want := &nimble.ValidationError{
				Request: nimble.Request{Method: "GET", URL: "https://nimble.example/api/v1/contacts?page=2&sort=updated", Endpoint: "contacts"},
				Status:  409, Message: tt.message, Problems: tt.problems,
			}
			got, ok := errors.AsType[*nimble.ValidationError](err)
			if !ok {
				t.Fatalf("got %v, want a ValidationError", err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProblemsOfAValidationErrorAreBounded(t *testing.T) {
	var b strings.Builder
	for range 1000 {
		b.WriteString(`,{"message":"bad"}`)
	}
	_, err := newClient(t, always(409, `{"errors":{"a":[`+b.String()[1:]+`]}}`)).ContactsPage(t.Context(), nimble.ListOptions{})
	if refused, ok := errors.AsType[*nimble.ValidationError](err); !ok || len(refused.Problems["a"]) != 20 {
		t.Errorf("got %v", err)
	}
}

func TestErrorTexts(t *testing.T) {
	tests := []struct {
		name     string
		rt       roundTrip
		endpoint string
		want     string
	}{
		{
			"credentials", always(403, `{"message":"Can't authenticate request"}`), "myself",
			"myself: GET https://nimble.example/api/v1/myself: API key refused: 403 Forbidden: Can't authenticate request",
		},
		{
			"subscription", always(402, ``), "contacts",
			"contacts page 1: GET https://nimble.example/api/v1/contacts: the account's subscription does not cover this: 402 Payment Required",
		},
		{
			"throttled", always(429, ``), "ids",
			"contact ids page 1: GET https://nimble.example/api/v1/contacts/ids: 429 Too Many Requests",
		},
		{
			"validation", always(409, `{"message":"Bad sort","errors":{"sort":{"message":"no order"},"page":{"message":"too high"}}}`), "contacts",
			"contacts page 1: GET https://nimble.example/api/v1/contacts?page=1: request refused: 409 Conflict: Bad sort; page: too high; sort: no order",
		},
		{
			"problem without a name", always(409, `{"errors":["Bad sort"]}`), "contacts",
			"contacts page 1: GET https://nimble.example/api/v1/contacts?page=1: request refused: 409 Conflict; Bad sort",
		},
		{
			"server", always(500, `{"message":"oops","code":107}`), "count",
			"count of contacts: GET https://nimble.example/api/v1/contacts/ids: 500 Internal Server Error: oops",
		},
		{
			"proxy", always(502, `<html><h1>Bad gateway</h1>`), "count",
			"count of contacts: GET https://nimble.example/api/v1/contacts/ids: 502 Bad Gateway",
		},
		{
			"unknown status", always(599, ``), "contacts",
			"contacts page 1: GET https://nimble.example/api/v1/contacts: 599",
		},
		{
			"wrong path", always(404, `<html>`), "contacts",
			"contacts page 1: GET https://nimble.example/api/v1/contacts: 404 Not Found",
		},
		{
			"HTML", always(200, `<html>`, "Content-Type", "text/html"), "contacts",
			`contacts page 1: GET https://nimble.example/api/v1/contacts: unexpected answer of type "text/html": an HTML or XML document`,
		},
		{
			"half an answer", always(200, `{"meta":`), "contacts",
			"contacts page 1: GET https://nimble.example/api/v1/contacts: answer ends early, after 8 bytes",
		},
		{
			"not found", always(404, `{"object_type":"contact","object_id":"a1"}`), "contact",
			"contact a1: GET https://nimble.example/api/v1/contact: contact not found: 404 Not Found",
		},
		{"not there", always(200, `{"resources":[]}`), "contact", "contact a1: contact not found"},
		{
			"forbidden", always(403, `{"message":"no right"}`), "contact",
			"contact a1: GET https://nimble.example/api/v1/contact: contact forbidden: 403 Forbidden: no right",
		},
		{
			"malformed", always(200, `{"resources":[{"id":"a1","x":1,"x":2}]}`), "contact",
			"contact a1: malformed record a1: invalid UTF-8 or a repeated name",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := calls[tt.endpoint](t, newClient(t, tt.rt))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNoErrorTellsTheKey has servers that repeat the key wherever they can.
func TestNoErrorTellsTheKey(t *testing.T) {
	leaks := `{"message":"token ` + testKey + ` is bad","human_readable_error":"` + testKey + `","errors":{"` + testKey + `":["` + testKey + `"]}}`
	cut := `{"message":"` + strings.Repeat("x", 300-len(testKey)/2) + testKey + `"}`
	var transports []roundTrip
	for _, status := range []int{301, 400, 401, 402, 403, 404, 406, 408, 409, 418, 422, 429, 500, 503} {
		transports = append(transports, always(status, leaks, "Location", "https://"+testKey+"@elsewhere.example/?"+testKey))
	}
	transports = append(transports, always(409, cut), always(500, `{"error":"`+testKey+`"}`),
		always(200, testKey), always(200, `<html>`+testKey), always(200, `{"`+testKey), always(200, `{"a":`+testKey+`}`, "Content-Type", "text/"+testKey),
		always(200, `{"resources":["`+testKey+`"]}`), always(200, `{"resources":[{"id":"`+testKey+`?"}]}`))
	for i, rt := range transports {
		for endpoint, call := range calls {
			if err := call(t, newClient(t, rt)); err != nil && strings.Contains(err.Error(), testKey[:len(testKey)/2]) {
				t.Errorf("transport %d, %s: %v", i, endpoint, err)
			}
		}
	}
}

func TestListingThatIsNotThereIsNoMissingContact(t *testing.T) {
	for _, endpoint := range []string{"contacts", "ids", "count", "myself"} {
		err := calls[endpoint](t, newClient(t, always(404, `{}`)))
		if status, ok := errors.AsType[*nimble.StatusError](err); !ok || status.Status != 404 || errors.Is(err, nimble.ErrNotFound) {
			t.Errorf("%s: got %v", endpoint, err)
		}
	}
}
