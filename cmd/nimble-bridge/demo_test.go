package main

import (
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"nimble-bridge/nimble/nimbletest"
)

func TestDemoEndsByItself(t *testing.T) {
	t.Parallel()
	env := map[string]string{"NIMBLE_API_KEY": "real-key", "NIMBLE_BASE_URL": "https://127.0.0.1:1", "NATS_URL": "nats://127.0.0.1:1"} // None of its business.
	code, stdout, stderr := runApart(t, env, "demo", "--events", "7", "--contacts", "5", "--seed", "1", "--nats-addr", "127.0.0.1:0")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q; want 0 and nothing", code, stderr)
	}
	if got := len(regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  snapshot  `).FindAllString(stdout, -1)); got != 5 {
		t.Errorf("%d snapshots, want 5", got)
	}
	if !strings.Contains(stdout, "  updated   ") || !strings.Contains(stdout, "  created   ") {
		t.Error("no update or no new contact is shown")
	}
	if got := len(regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  `).FindAllString(stdout, -1)); got != 7 {
		t.Errorf("%d events, want 7", got)
	}
	for _, want := range []string{"A simulated Nimble account with 5 contacts", "nats --server nats://127.0.0.1:", "subscribe 'nimble.>'"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if strings.Contains(stdout, "\x1b") {
		t.Error("colours where no terminal is")
	}
	if t.Failed() {
		t.Log(stdout)
	}
}

func TestDemoEndsAfterATime(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := runApart(t, nil, "demo", "--for", "1s", "--nats-addr", "127.0.0.1:0")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "  snapshot  ") {
		t.Errorf("exit code %d, stderr %q, stdout\n%s\nwant 0, nothing and snapshots", code, stderr, stdout)
	}
}

func TestDemoTakesAnotherPort(t *testing.T) {
	// Whether or not something else has the usual port already, now it is taken.
	if usual, err := net.Listen("tcp", "127.0.0.1:4222"); err == nil {
		defer usual.Close()
	}
	setenv(t, nil)
	code, stdout, stderr := runProgram(t.Context(), "demo", "--events", "1")
	if code != 0 || stderr != "" || strings.Contains(stdout, "nats://127.0.0.1:4222 ") {
		t.Errorf("exit code %d, stderr %q, stdout\n%s\nwant 0, nothing and another port", code, stderr, stdout)
	}
}

func TestEachEditIsAChange(t *testing.T) {
	account := nimbletest.New(nimbletest.WithContacts(10))
	someone := newEditor(account, 7)
	state := func() map[string]string {
		all := make(map[string]string)
		for _, id := range account.IDs() {
			raw, _ := account.Contact(id)
			var content struct {
				Fields any `json:"fields"`
				Tags   any `json:"tags"`
				Star   any `json:"is_important"`
			}
			if err := json.Unmarshal(raw, &content); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(content, json.Deterministic(true))
			if err != nil {
				t.Fatal(err)
			}
			all[id] = string(text)
		}
		return all
	}
	before := state()
	for range 300 {
		what := someone.edit()
		after := state()
		changed := 0
		for id, text := range after {
			if before[id] != text {
				changed++
			}
		}
		if changed != 1 || len(after) < len(before) {
			t.Fatalf("%q changed %d contacts, want one", what, changed)
		}
		before = after
	}
}
