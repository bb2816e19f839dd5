package hook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/hook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const contact = `{"id":"6f10","record_type":"person","owner_id":"u1","is_important":true,"watchers":["u2"],"privacy":null,
	"fields":{"first name":[{"value":"Tomasz"}],"lead status":[{"value":"Qualified"}],"email":[{"value":"t@brandt.example"}]},"tags":[{"tag":"hot"},{"tag":"supplier"}]}`

// delivery is an updated event, on its way.
func delivery() *consumer.Delivery {
	e := &event.Event{
		Envelope: event.Envelope{ID: "4c1f", Source: event.Source("acme"), Type: event.Updated.Type(), Subject: "6f10", Time: time.Date(2026, 3, 1, 10, 15, 0, 0, time.UTC)},
		Data: event.Data{
			Account: "acme", RecordType: "person", Revision: 7, Observed: time.Date(2026, 3, 1, 10, 15, 12, 0, time.UTC), FoundBy: "poll",
			Summary: event.Summary{Name: "Tomasz Brandt", Company: "Brandt Marine", Emails: []string{"t@brandt.example"}, Tags: []string{"hot", "supplier"}},
			Contact: jsontext.Value(contact),
			Changes: map[string]event.Change{
				"tags":         {Before: jsontext.Value(`[{"tag":"supplier"},{"tag":"cold"}]`), After: jsontext.Value(`[{"tag":"supplier"},{"tag":"hot"}]`)},
				"fields.email": {After: jsontext.Value(`[{"value":"t@brandt.example"}]`)},
			},
		},
	}
	return &consumer.Delivery{Event: e, Body: e.Encode(), Subject: "nimble.acme.contact.updated.6f10", Sequence: 42, Stored: e.Data.Observed, Try: 2, Deliveries: 1}
}

func TestCondition(t *testing.T) {
	tests := []struct {
		expression string
		want       bool
	}{
		{`summary.tags contains "hot"`, true},
		{`summary.tags contains "ho"`, false},
		{`"hot" in summary.tags`, true},
		{`not (summary.tags contains "cold")`, true},
		{`summary.name contains "Brandt"`, true},
		{`summary.name startsWith "Tomasz" && summary.company == "Brandt Marine"`, true},
		{`summary.phones == [] or len(summary.phones) > 0`, true},
		{`any(summary.emails, # endsWith "@brandt.example")`, true},
		{`type == "updated"`, true},
		{`type in ["created", "deleted"]`, false},
		{`revision > 6 and record_type == "person" and account == "acme" and contact_id == "6f10"`, true},
		{`found_by == "poll" and reason == "" and not restored and not erased and not truncated`, true},
		{`time.Year() == 2026 and observed > time`, true},
		{`changed("tags")`, true},
		{`changed("fields")`, true},
		{`changed("fields.phone", "owner_id")`, false},
		{`changes["tags"].added contains "hot"`, true},
		{`changes.tags.removed contains "cold"`, true},
		{`changes.tags.added contains "supplier"`, false},
		{`changes["fields.email"].before == [] and changes["fields.email"].after contains "t@brandt.example"`, true},
		{`changes["owner_id"].added contains "x"`, false},
		{`"owner_id" in changes`, false},
		{`fields["lead status"] contains "Qualified"`, true},
		{`fields["no such field"] contains "x"`, false},
		{`contact.owner_id == "u1"`, true},
		{`contact.is_important`, true},
		{`"u2" in contact.watchers`, true},
		{`contact.privacy?.type == "private"`, false},
		{`contact.nothing == nil`, true},
	}
	for _, tt := range tests {
		t.Run(tt.expression, func(t *testing.T) {
			c, err := hook.Compile(tt.expression)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Holds(delivery().Event); err != nil || got != tt.want {
				t.Errorf("Holds = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestConditionThatDoesNotCompile(t *testing.T) {
	tests := []struct{ expression, want string }{
		{`summary.tag contains "hot"`, "summary has no field tag"},
		{`tags contains "hot"`, "unknown name tags"},
		{`revision contains "7"`, "mismatched types uint64 and string"},
		{`summary.name`, "expected bool, but got string"},
		{`summary.tags == "hot"`, "mismatched types []string and string"},
		{`type == "updated" and`, "unexpected token"},
		{``, "unexpected token"},
		{`changed(7)`, "cannot use int"},
	}
	for _, tt := range tests {
		if _, err := hook.Compile(tt.expression); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hook.") {
			t.Errorf("Compile(%q): %v, want %q in it", tt.expression, err, tt.want)
		}
	}
}

func TestConditionThatMakesNoSenseForAnEvent(t *testing.T) {
	for _, expression := range []string{`contact.privacy.type == "private"`, `summary.tags[9] == "x"`, `contact.owner_id`, `contact.owner_id > 3`, `int(contact.owner_id) > 3`} {
		c, err := hook.Compile(expression)
		if err != nil {
			t.Fatal(err)
		}
		handled := false
		err = c.Filter(func(context.Context, *consumer.Delivery) error {
			handled = true
			return nil
		})(t.Context(), delivery())
		if err == nil || handled {
			t.Errorf("%s: error %v, handled %v; want an error and no handling", expression, err, handled)
		}
		if !strings.Contains(err.Error(), expression) {
			t.Errorf("%s: error %q does not repeat it", expression, err)
		}
		if strings.Contains(err.Error(), "u1") {
			t.Errorf("%s: error %q has the contact's data in it", expression, err)
		}
	}
}

func TestFilterOfCondition(t *testing.T) {
	handled := 0
	count := func(context.Context, *consumer.Delivery) error {
		handled++
		return nil
	}
	hot, err := hook.Compile(`summary.tags contains "hot"`)
	if err != nil {
		t.Fatal(err)
	}
	cold, err := hook.Compile(`summary.tags contains "cold"`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*hook.Condition{hot, cold, nil} {
		if err := c.Filter(count)(t.Context(), delivery()); err != nil {
			t.Error(err)
		}
	}
	if handled != 2 {
		t.Errorf("%d events handled, want those of the first and the last", handled)
	}
}

func TestParseSecrets(t *testing.T) {
	valid := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for _, s := range []string{valid, strings.TrimPrefix(valid, "whsec_"), valid + "\n" + valid, valid + ", " + hook.NewSecret(), hook.NewSecret()} {
		if _, err := hook.ParseSecrets(s); err != nil {
			t.Errorf("ParseSecrets(%q): %v", s, err)
		}
	}
	tests := []struct{ given, want string }{
		{"", "there is none in it"},
		{"whsec_short", "no base64"},
		{"whsec_c2hvcnQ=", "5 bytes"},
		{valid + " whsec_c2hvcnQ=", "secret 2 of 2"},
		{strings.Repeat("A", 100), "75 bytes"},
	}
	for _, tt := range tests {
		if _, err := hook.ParseSecrets(tt.given); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "c2hv") {
			t.Errorf("ParseSecrets(%q): %v, want %q in it", tt.given, err, tt.want)
		}
	}
	secret, err := hook.ParseSecret(valid)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %+v %#v %s", secret, secret, secret, []hook.Secret{secret}); strings.Contains(got, "MfKQ") || strings.Contains(got, "0x31") {
		t.Errorf("a secret prints as %q", got)
	}
}

// receiver is an HTTP server that answers as it is told, and keeps what it got.
type receiver struct {
	*httptest.Server
	requests []*http.Request
	bodies   [][]byte
}

func newReceiver(t *testing.T, answer http.HandlerFunc) (*receiver, *hook.Endpoint) {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.requests, r.bodies = append(r.requests, req), append(r.bodies, body)
		answer(w, req)
	}))
	transport := hook.NewTransport()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		r.Close()
	})
	u, err := url.Parse(r.URL + "/hooks?token=sesame")
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "hush")
	return r, &hook.Endpoint{URL: u, Transport: transport, UserAgent: "nimble-bridge/test", Timeout: 10 * time.Second}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// The official library is the judge of what is sent, with the old secret and with the new one.
func TestSignaturesWhileSecretsAreChanged(t *testing.T) {
	r, endpoint := newReceiver(t, status(http.StatusNoContent))
	texts := []string{hook.NewSecret(), hook.NewSecret(), hook.NewSecret()}
	var now atomic.Value
	endpoint.Secrets = func() ([]hook.Secret, error) { return hook.ParseSecrets(now.Load().(string)) }
	steps := []struct {
		secrets string
		verify  []bool // By each of the three.
	}{
		{texts[0], []bool{true, false, false}},
		{texts[1] + " " + texts[0], []bool{true, true, false}},
		{texts[1], []bool{false, true, false}},
	}
	for i, step := range steps {
		now.Store(step.secrets)
		d := delivery()
		if err := endpoint.Call(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		req, body := r.requests[i], r.bodies[i]
		if !bytes.Equal(body, d.Body) {
			t.Errorf("step %d: the body is not the event as it is stored", i)
		}
		for j, want := range step.verify {
			judge, err := standardwebhooks.NewWebhook(texts[j])
			if err != nil {
				t.Fatal(err)
			}
			if err := judge.Verify(body, req.Header); (err == nil) != want {
				t.Errorf("step %d: the holder of secret %d says %v, want it to accept: %v", i, j, err, want)
			}
			if err := judge.Verify(append(body, ' '), req.Header); err == nil {
				t.Errorf("step %d: a changed body passes", i)
			}
		}
		if got := req.Header.Get("webhook-id"); got != d.Event.ID {
			t.Errorf("webhook-id is %q, want the event's id", got)
		}
		if got := req.Header.Get("Content-Type") + " " + req.Header.Get("User-Agent"); got != event.ContentType+" nimble-bridge/test" {
			t.Errorf("content type and user agent are %q", got)
		}
	}
	now.Store("nonsense")
	if err := endpoint.Call(t.Context(), delivery()); err == nil || len(r.requests) != 3 {
		t.Errorf("with a broken secret: error %v, %d requests; want an error and nothing sent", err, len(r.requests))
	}
}

func TestAnswers(t *testing.T) {
	for _, code := range []int{200, 201, 202, 204, 299} {
		_, endpoint := newReceiver(t, status(code))
		if err := endpoint.Call(t.Context(), delivery()); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
	for _, code := range []int{302, 400, 401, 404, 408, 429, 500, 503} {
		_, endpoint := newReceiver(t, status(code))
		err := endpoint.Call(t.Context(), delivery())
		failed, ok := errors.AsType[*hook.StatusError](err)
		if !ok || failed.Status != code {
			t.Errorf("%d: %v, want a StatusError", code, err)
			continue
		}
		for _, secret := range []string{"sesame", "hush", "me:"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%d: error %q has %q in it", code, err, secret)
			}
		}
	}
	_, endpoint := newReceiver(t, status(http.StatusGone))
	if _, ok := errors.AsType[*hook.GoneError](endpoint.Call(t.Context(), delivery())); !ok {
		t.Error("410 gives no GoneError")
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere, _ := newReceiver(t, status(http.StatusOK))
	for _, code := range []int{301, 302, 303, 307, 308} {
		_, endpoint := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL+"/other?token=sesame")
			w.WriteHeader(code)
		})
		err := endpoint.Call(t.Context(), delivery())
		if err == nil || !strings.Contains(err.Error(), "redirect to "+elsewhere.URL+"/other,") || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%d: %v, want where it leads", code, err)
		}
	}
	if len(elsewhere.requests) > 0 {
		t.Errorf("%d requests went elsewhere", len(elsewhere.requests))
	}
}

func TestReceiverThatDoesNotAnswer(t *testing.T) {
	release := make(chan struct{})
	_, endpoint := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	endpoint.Timeout = 20 * time.Millisecond
	err := endpoint.Call(t.Context(), delivery())
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("Call: %v, want a timeout", err)
	}
}

func TestAnswerWithoutEnd(t *testing.T) {
	_, endpoint := newReceiver(t, func(w http.ResponseWriter, req *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 4096)
		for req.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if err := endpoint.Call(t.Context(), delivery()); err != nil {
		t.Errorf("Call: %v, want success after a part of the answer", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	tests := []struct {
		text string
		want time.Duration
	}{
		{"", 0},
		{"0", 0},
		{"90", 90 * time.Second},
		{"-5", 0},
		{"soon", 0},
		{"Sun, 01 Mar 2026 10:02:00 GMT", 2 * time.Minute},
		{"Sun, 01 Mar 2026 09:00:00 GMT", 0},
		{"99999999999999999999", 0},
	}
	for _, tt := range tests {
		if got := hook.ParseRetryAfter(tt.text, now); got != tt.want {
			t.Errorf("retryAfter(%q) = %s, want %s", tt.text, got, tt.want)
		}
	}
	_, endpoint := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if failed, ok := errors.AsType[*hook.StatusError](endpoint.Call(t.Context(), delivery())); !ok || failed.RetryAfter != 7*time.Second {
		t.Errorf("429 with Retry-After: 7 gives %+v", failed)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "7", "Sun, 01 Mar 2026 10:02:00 GMT", "99999999999999999999", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := hook.ParseRetryAfter(s, time.Unix(0, 0)); got < 0 {
			t.Errorf("retryAfter(%q) = %s", s, got)
		}
	})
}

func FuzzParseSecrets(f *testing.F) {
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, x")
	f.Fuzz(func(t *testing.T, s string) {
		secrets, err := hook.ParseSecrets(s)
		if (err == nil) != (len(secrets) > 0) {
			t.Errorf("ParseSecrets(%q): %d secrets, %v", s, len(secrets), err)
		}
	})
}

func shell(script string, arguments ...string) *hook.Command {
	return &hook.Command{Name: "/bin/sh", Args: append([]string{"-c", script, "sh"}, arguments...), Env: []string{"PATH=" + os.Getenv("PATH"), "OWN=kept"}, Timeout: 20 * time.Second}
}

func TestCommandGetsTheEvent(t *testing.T) {
	var out bytes.Buffer
	c := shell(`printf '%s\n' "$1"; env | grep -e NIMBLE_ -e OWN | sort; cat`, "argument with space")
	c.Stdout = &out
	d := delivery()
	d.Event.Data.Summary.Name = "Tom\x00asz Brandt"
	if err := c.Call(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	want := `argument with space
NIMBLE_ATTEMPT=2
NIMBLE_CHANGED=fields.email,tags
NIMBLE_CONTACT_ID=6f10
NIMBLE_CONTACT_NAME=Tomasz Brandt
NIMBLE_EVENT_ACCOUNT=acme
NIMBLE_EVENT_ID=4c1f
NIMBLE_EVENT_SEQUENCE=42
NIMBLE_EVENT_SUBJECT=nimble.acme.contact.updated.6f10
NIMBLE_EVENT_TIME=2026-03-01T10:15:00Z
NIMBLE_EVENT_TYPE=updated
NIMBLE_RECORD_TYPE=person
NIMBLE_REDELIVERED=true
NIMBLE_REVISION=7
OWN=kept
` + string(d.Body)
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("what the command saw (-want +got):\n%s", diff)
	}
}

func TestCommandResults(t *testing.T) {
	large := delivery()
	large.Body = bytes.Repeat([]byte("x"), 1<<20)
	if err := shell("exit 0").Call(t.Context(), large); err != nil {
		t.Errorf("a command that does not read its input: %v", err)
	}
	if err := shell("exit 3").Call(t.Context(), delivery()); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("exit 3: %v", err)
	}
	if err := shell("kill -9 $$").Call(t.Context(), delivery()); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("killed: %v", err)
	}
	missing := &hook.Command{Name: filepath.Join(t.TempDir(), "absent")}
	if err := missing.Call(t.Context(), delivery()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a command that does not exist: %v", err)
	}
}

// A command that takes too long is ended together with what it has started.
func TestCommandThatTakesTooLong(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	c := shell(`sh -c 'trap "" TERM; echo $$ > "$1"; while :; do sleep 1; done' sh "$1" & wait`, pidFile)
	c.Timeout = 500 * time.Millisecond
	err := c.Call(t.Context(), delivery())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call: %v, want a timeout", err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatal("what the command started is still running")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// alive tells whether a process runs, and is no zombie that nobody has waited for.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return !slices.Contains([]string{"Z", "X"}, fields[0])
}

func ExampleCompile() {
	c, err := hook.Compile(`summary.tags contains "hot" and changed("tags")`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Holds(delivery().Event))
	_, err = hook.Compile(`summary.tag contains "hot"`)
	fmt.Println(err)
	// Output:
	// true <nil>
	// summary has no field tag (1:9)
	//  | summary.tag contains "hot"
	//  | ........^
}
