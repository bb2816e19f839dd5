package main

import (
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
