package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/streamtest"
)

// outside is a simulated account and a bridge, each a process of its own, seen through their HTTP interfaces and NATS only.
type outside struct {
	admin, http, nats string
	env               []string
}

func startOutside(t *testing.T, contacts int, more ...string) *outside {
	t.Helper()
	program := buildProgram(t, bridgePackage)
	sim := launch(t, program, nil, "simulate", "--addr", "127.0.0.1:0", "--contacts", fmt.Sprint(contacts))
	o := &outside{http: freeAddress(t), nats: freeAddress(t)}
	within(t, patience, func(context.Context) error {
		text, err := os.ReadFile(sim.log.Name())
		found := regexp.MustCompile(`answers at (http://\S+)`).FindStringSubmatch(string(text))
		if len(found) < 2 {
			return fmt.Errorf("simulate has said no address yet (%w)", err)
		}
		o.admin = found[1]
		return nil
	})
	o.env = append([]string{
		"NIMBLE_API_KEY=test-key", "NIMBLE_BASE_URL=" + o.admin, "NIMBLE_ACCOUNT=acme", "NIMBLE_RATE_LIMIT=10000", "EMBEDDED_NATS_DIR=" + t.TempDir(),
		"EMBEDDED_NATS_ADDR=" + o.nats, "POLL_INTERVAL=200ms", "POLL_OVERLAP=3s", "RECONCILE_INTERVAL=1s", "HTTP_ADDR=" + o.http, "NATS_URL=",
	}, more...)
	launch(t, program, o.env, "run")
	within(t, patience, func(ctx context.Context) error {
		last, err := o.last(ctx)
		if err == nil && len(last) < contacts {
			err = fmt.Errorf("%d contacts have an event, of %d", len(last), contacts)
		}
		return err
	})
	return o
}

// do asks the admin interface for something and returns the ids that it says it is about.
func (o *outside) do(t *testing.T, method, path, body string) []string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, o.admin+"/admin/"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		IDs   []string `json:"ids"`
		Error string   `json:"error"`
	}
	if err := json.UnmarshalRead(resp.Body, &answer); err != nil || resp.StatusCode >= 400 {
		t.Fatalf("%s %s: %s %s, %v", method, path, resp.Status, answer.Error, err)
	}
	return answer.IDs
}

// last returns the last event of each contact.
func (o *outside) last(ctx context.Context) (map[string]*event.Event, error) {
	nc, err := nats.Connect("nats://" + o.nats)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	messages, err := streamtest.Read(ctx, js, "NIMBLE", "nimble", "acme")
	if err != nil {
		return nil, err
	}
	last := make(map[string]*event.Event)
	for id, m := range streamtest.Last(messages) {
		last[id] = m.Event
	}
	return last, nil
}

// become waits until the last event of each of the contacts is as wanted.
func (o *outside) become(t *testing.T, ids []string, want func(e *event.Event) bool) {
	t.Helper()
	within(t, patience, func(ctx context.Context) error {
		last, err := o.last(ctx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if e := last[id]; e == nil || !want(e) {
				return fmt.Errorf("contact %s: last event %+v", id, e)
			}
		}
		return nil
	})
}

// command runs the program as an operator would.
func (o *outside) command(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), buildProgram(t, bridgePackage), args...)
	cmd.Env = append(os.Environ(), o.env...)
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func isVerb(verb event.Verb) func(*event.Event) bool {
	return func(e *event.Event) bool { return e.Verb() == verb }
}

func TestDeletionsFromOutside(t *testing.T) {
	t.Parallel()
	o := startOutside(t, 300)
	deleted := o.do(t, http.MethodPost, "delete", `{"count": 2}`)
	hidden := o.do(t, http.MethodPost, "hide", `{"count": 1, "by_id": "403"}`)
	o.become(t, deleted, func(e *event.Event) bool {
		return e.Verb() == event.Deleted && e.Data.Reason == "not_found" && e.Data.FoundBy == "reconcile" && e.Data.Summary.Name != ""
	})
	o.become(t, hidden, func(e *event.Event) bool { return e.Verb() == event.Deleted && e.Data.Reason == "forbidden" })
	o.do(t, http.MethodPost, "restore", fmt.Sprintf(`{"ids": [%q, %q]}`, deleted[0], hidden[0]))
	o.become(t, []string{deleted[0], hidden[0]}, func(e *event.Event) bool {
		return e.Verb() == event.Created && e.Data.Restored && e.Data.Revision == 3
	})

	// A person who asks to be forgotten.
	present := hidden[0]
	if code, out := o.command(t, "erase", "--contact", present); code != 1 || !strings.Contains(out, "--even-if-present") {
		t.Errorf("erase of a contact that is there: exit %d\n%s", code, out)
	}
	if code, out := o.command(t, "erase", "--contact", deleted[1]); code != 0 {
		t.Errorf("erase: exit %d\n%s", code, out)
	}
	o.become(t, deleted[1:], func(e *event.Event) bool { return e.Data.Erased && e.Data.Revision == 3 && e.Data.Summary.Name == "" })
	if code, out := o.command(t, "erase", "--contact", "0123456789abcdef01234567"); code != 1 || !strings.Contains(out, "nothing is stored") {
		t.Errorf("erase of a stranger: exit %d\n%s", code, out)
	}
}

func TestVanishingAccountFromOutside(t *testing.T) {
	t.Parallel()
	o := startOutside(t, 300)
	gone := o.do(t, http.MethodPost, "vanish", `{"share": "50%"}`)
	if len(gone) < 150 {
		t.Fatalf("%d contacts vanished, want half", len(gone))
	}
	within(t, patience, func(context.Context) error {
		code, body := get(t, "http://"+o.http+"/readyz")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, `"deletions_held"`) {
			return fmt.Errorf("readyz: %d %s", code, body)
		}
		return nil
	})
	fresh := o.do(t, http.MethodPost, "contacts", `{"record_type": "person", "invent": true}`)
	o.become(t, fresh, isVerb(event.Created)) // All else flows.
	o.become(t, gone, isVerb(event.Snapshot)) // And nothing is called deleted.
	_, metrics := get(t, "http://"+o.http+"/metrics")
	if want := fmt.Sprintf(`nimble_bridge_deletions_held{account="acme"} %d`, len(gone)); !strings.Contains(metrics, want) {
		t.Errorf("metrics do not say %s", want)
	}
	o.do(t, http.MethodPost, "restore", fmt.Sprintf(`{"ids": ["%s"]}`, strings.Join(gone[50:], `", "`)))
	o.do(t, http.MethodPost, "restore", fmt.Sprintf(`{"ids": ["%s"]}`, strings.Join(gone[:10], `", "`)))
	within(t, patience, func(context.Context) error { // 40 are left, and more than DELETE_LIMIT, which is 20 here.
		if _, metrics := get(t, "http://"+o.http+"/metrics"); !strings.Contains(metrics, `nimble_bridge_deletions_held{account="acme"} 40`) {
			return errors.New("40 deletions are not what is held")
		}
		return nil
	})
	code, out := o.command(t, "confirm-deletions", "--yes")
	if code != 0 || !strings.Contains(out, gone[10]) {
		t.Errorf("confirm-deletions: exit %d\n%s", code, out)
	}
	o.become(t, gone[10:50], isVerb(event.Deleted))
	within(t, patience, ready(o.http))
	gone = slices.Concat(gone[:10], gone[50:])
	o.become(t, gone, func(e *event.Event) bool { return e.Verb() == event.Snapshot && e.Data.Revision == 1 })
}
