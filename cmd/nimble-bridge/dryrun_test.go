package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/event"
)

// dry runs run --dry-run and returns the events, by type.
func dry(t *testing.T, args ...string) map[event.Verb][]*event.Event {
	t.Helper()
	code, stdout, stderr := runProgram(t.Context(), append([]string{"run", "--dry-run", "--json"}, args...)...)
	if code != 0 || !strings.HasSuffix(stderr, "would be published; nothing was written\n") {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	events := make(map[event.Verb][]*event.Event)
	for line := range strings.Lines(stdout) {
		e, err := event.Decode([]byte(strings.TrimSuffix(line, "\n")))
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		events[e.Verb()] = append(events[e.Verb()], e)
	}
	return events
}

func TestDryRunBeforeTheFirstRunMakesNothing(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(130))
	dir := filepath.Join(t.TempDir(), "data")
	for _, tt := range []struct {
		name string
		env  []string
	}{{"with a server", []string{"NATS_URL", startNATS(t, "127.0.0.1:0").URL()}}, {"with the embedded server to be", []string{"EMBEDDED_NATS_DIR", dir}}} {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, nimble, tt.env...)
			events := dry(t)
			if n := len(events[event.Snapshot]); n != 130 || len(events) != 1 {
				t.Errorf("%d snapshots among %d types, want 130 alone", n, len(events))
			}
		})
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the dry run made the embedded server's directory")
	}
}

// stored describes all streams, to the message.
func stored(t *testing.T, js jetstream.JetStream) map[string]jetstream.StreamState {
	t.Helper()
	found := make(map[string]jetstream.StreamState)
	for _, name := range streamNames(t, js) {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		state := stream.CachedInfo().State
		state.Consumers = 0 // A consumer that was read with goes by itself.
		found[name] = state
	}
	return found
}

func TestDryRunPrintsWhatABridgeWouldPublish(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(130)), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL())
	r := start(t)
	r.stderr.await(t, "snapshot finished")
	js := jetStreamAt(t, server.URL())
	soon(t, "the bucket has all contacts", func() bool { return stored(t, js)["KV_nimble-contacts"].Msgs == 130 })
	if code := r.finish(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	before := stored(t, js)
	ids := nimble.IDs()
	nimble.Edit(ids[3], nimbletest.Field("title", "Harbour Master"))
	created := nimble.Create()
	nimble.Delete(ids[5])

	events := dry(t)
	if len(events[event.Updated]) != 1 || len(events[event.Created]) != 1 || len(events) != 2 {
		t.Fatalf("events %v, want one updated and one created", events)
	}
	if e := events[event.Updated][0]; e.Subject != ids[3] || e.Data.Revision != 2 || len(e.Data.Changes) != 1 {
		t.Errorf("updated %+v", e)
	}
	if e := events[event.Created][0]; e.Subject != created || e.Data.Revision != 1 {
		t.Errorf("created %+v", e)
	}
	events = dry(t, "--reconcile")
	if len(events[event.Deleted]) != 1 || len(events[event.Updated]) != 1 || events[event.Deleted][0].Subject != ids[5] {
		t.Errorf("events %v, want one deleted besides", events)
	}
	code, stdout, stderr := runProgram(t.Context(), "run", "--dry-run")
	if code != 0 || !strings.Contains(stdout, "updated") || !strings.Contains(stdout, "→ Harbour Master") {
		t.Errorf("exit code %d, for people:\n%s", code, stdout)
	}
	if !strings.Contains(stderr, "2 events (1 created, 1 updated) would be published") {
		t.Errorf("stderr %q", stderr)
	}
	after := stored(t, js)
	for name, state := range before {
		if after[name].LastSeq != state.LastSeq || after[name].Msgs != state.Msgs {
			t.Errorf("stream %s changed from %+v to %+v", name, state, after[name])
		}
	}
	if len(after) != len(before) {
		t.Errorf("streams %v, then %v", before, after)
	}
}

func TestDryRunBesideTheEmbeddedServerAndAfterIt(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(40))
	dir, temp := t.TempDir(), t.TempDir()
	environment(t, nimble, "EMBEDDED_NATS_DIR", dir, "EMBEDDED_NATS_ADDR", freeAddress(t), "POLL_INTERVAL", "1h")
	t.Setenv("TMPDIR", temp)
	r := start(t)
	r.stderr.await(t, "snapshot finished")
	awaitReadiness(t, r.url(t), "")
	nimble.Edit(nimble.IDs()[0], nimbletest.Field("title", "Harbour Master"))
	if events := dry(t); len(events[event.Updated]) != 1 || len(events) != 1 {
		t.Errorf("beside the bridge: %v, want one updated", events)
	}
	if code := r.finish(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	before := dirState(t, dir)
	if events := dry(t); len(events[event.Updated]) != 1 || len(events) != 1 {
		t.Errorf("after the bridge: %v, want one updated", events)
	}
	if after := dirState(t, dir); after != before {
		t.Errorf("the directory changed from\n%s\nto\n%s", before, after)
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// dirState lists all files with their sizes and times.
func dirState(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			b.WriteString(path + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDryRunOfAnAccountThatChangesMeanwhile(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(250))
	environment(t, nimble)
	pages := 0
	ids := nimble.IDs()
	nimble.OnRequest(func(int, *http.Request) {
		if pages++; pages == 2 {
			nimble.Edit(ids[0], nimbletest.Field("title", "Harbour Master"))
		}
	})
	events := dry(t)
	seen := len(events[event.Snapshot]) + len(events[event.Updated])
	if len(events[event.Snapshot]) != 250 || seen != 251 || len(events[event.Updated]) != 1 || events[event.Updated][0].Data.Revision != 2 {
		t.Errorf("%d snapshots and %d updates, want 250 and the one that came meanwhile", len(events[event.Snapshot]), len(events[event.Updated]))
	}
}

func TestDryRunFails(t *testing.T) {
	nimble := startNimble(t)
	tests := []struct {
		name string
		env  []string
		args []string
		code int
		want string
	}{
		{"the key is refused", []string{"NIMBLE_API_KEY", "wrong-key"}, nil, 1, "API key refused"},
		{"NATS is away", []string{"NATS_URL", "nats://127.0.0.1:1"}, nil, 1, "NATS is not reachable"},
		{"flags without the other", nil, []string{"run", "--json"}, 2, "belong to --dry-run"},
		{"no configuration", []string{"NIMBLE_API_KEY", ""}, nil, 2, "NIMBLE_API_KEY is not set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, nimble, tt.env...)
			if tt.args == nil {
				tt.args = []string{"run", "--dry-run"}
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			code, stdout, stderr := runProgram(ctx, tt.args...)
			if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d and %q", code, stdout, stderr, tt.code, tt.want)
			}
		})
	}
}
