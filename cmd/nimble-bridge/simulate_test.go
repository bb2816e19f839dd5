package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"nimble-bridge/nimble"
)

func TestSimulateServesAnAccount(t *testing.T) {
	setenv(t, nil)
	r := start(t, "simulate", "--addr", "127.0.0.1:0", "--contacts", "120", "--key", "sesame", "--edits", "50")
	url := r.stdout.await(t, `account with 120 contacts answers at (http://\S+)`)
	r.stdout.await(t, "NIMBLE_API_KEY=sesame")
	if code, _ := get(t, url+"/api/v1/myself"); code != http.StatusForbidden {
		t.Errorf("without a key it answers %d, want 403", code)
	}
	c, err := nimble.NewClient(url, "sesame", nimble.WithRateLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	n, err := c.Count(t.Context(), nimble.Query{})
	if err != nil || n.Total < 120 {
		t.Errorf("Count = %d, %v, want 120 or more", n.Total, err)
	}
	soon(t, "somebody adds a contact", func() bool {
		now, err := c.Count(t.Context(), nimble.Query{})
		return err == nil && now.Total > n.Total
	})
	if code := r.finish(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// What a test of a consumer does, from outside: change the account over HTTP, and see the change through the API.
func TestSimulateIsChangedOverHTTP(t *testing.T) {
	setenv(t, nil)
	r := start(t, "simulate", "--addr", "127.0.0.1:0", "--contacts", "10")
	url := r.stdout.await(t, `answers at (http://\S+)`)
	act := func(method, path, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url+"/admin/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s %s, %v", method, path, resp.Status, text, err)
		}
		return string(text)
	}
	c, err := nimble.NewClient(url, "test-key", nimble.WithRateLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	count := func(want int) {
		t.Helper()
		if n, err := c.Count(t.Context(), nimble.Query{}); err != nil || n.Total != want {
			t.Errorf("Count = %d, %v, want %d", n.Total, err, want)
		}
	}

	made := act("POST", "contacts", `{"fields": {"first name": "Ada", "last name": "Lovelace"}, "tags": ["new"]}`)
	if !strings.Contains(made, `"done": "created Ada Lovelace"`) {
		t.Errorf("created: %s", made)
	}
	count(11)
	act("POST", "vanish", `{"share": "100%"}`)
	count(0)
	act("POST", "restore", `{"all": true}`)
	count(11)
	act("POST", "delete", `{"tagged": "new"}`)
	count(10)
	act("PATCH", "behaviour", `{"total_error": "+7"}`)
	count(17)
	if log := act("GET", "requests", ""); !strings.Contains(log, `"total": 5,`) {
		t.Errorf("requests: %s, want 5 of them: those to the interface itself do not count", log)
	}

	r.stdout.await(t, `in a browser at `+url+`/admin/`)
	if code, page := get(t, url); code != http.StatusOK || !strings.Contains(page, "<title>Simulated Nimble account</title>") {
		t.Errorf("the address itself answers %d %.100s, want the page", code, page)
	}

	r = start(t, "simulate", "--addr", "127.0.0.1:0", "--admin=false")
	if code, _ := get(t, r.stdout.await(t, `answers at (http://\S+)`)+"/admin/status"); code != http.StatusNotFound {
		t.Errorf("with --admin=false it answers %d, want 404", code)
	}
}

func TestSimulateAddressTaken(t *testing.T) {
	setenv(t, nil)
	r := start(t, "simulate", "--addr", "127.0.0.1:0")
	addr := strings.TrimPrefix(r.stdout.await(t, `answers at (http://\S+)`), "http://")
	code, _, stderr := runProgram(t.Context(), "simulate", "--addr", addr)
	want := "nimble-bridge: simulated account: listen tcp " + addr + ": bind: address already in use\n" +
		"nimble-bridge: hint: choose another address with --addr, or port 0 for a free one\n"
	if code != 1 || stderr != want {
		t.Errorf("exit code %d, stderr %q; want 1 and %q", code, stderr, want)
	}
}
