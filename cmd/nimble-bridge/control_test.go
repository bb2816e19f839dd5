package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// command runs a command of the program and expects the exit code and what is written.
func command(t *testing.T, code int, want string, args ...string) (stdout string) {
	t.Helper()
	got, stdout, stderr := runProgram(t.Context(), args...)
	if got != code || !strings.Contains(stdout+stderr, want) {
		t.Errorf("%v: exit code %d, want %d and %q in\n%s%s", args, got, code, want, stdout, stderr)
	}
	return stdout
}

// startSteered starts a bridge on a server of its own that has finished its snapshot.
func startSteered(t *testing.T, nimble *nimbletest.Server, pairs ...string) (r *running, natsURL string) {
	t.Helper()
	server := startNATS(t, "127.0.0.1:0")
	environment(t, nimble, append([]string{"NATS_URL", server.URL()}, pairs...)...)
	r = start(t)
	r.stderr.await(t, "snapshot finished")
	awaitReadiness(t, r.url(t), "")
	return r, server.URL()
}

func TestStatusShowsTheBridgeFromAnywhere(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(30))
	r, natsURL := startSteered(t, nimble)
	setenv(t, map[string]string{"NATS_URL": natsURL}) // Neither a key nor an account: from another machine.
	stdout := command(t, 0, "contacts       30", "status")
	for _, want := range []string{"account        acme", "state          polling, ready", "leader         ", "watermark      ", "last poll      ", "reconciled     ", "held deletions none", "events         30 snapshot", "stream NIMBLE"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	members := func(text string) []string {
		var document map[string]any
		if err := json.Unmarshal([]byte(text), &document); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		return slices.Sorted(maps.Keys(document))
	}
	_, overHTTP := get(t, r.url(t)+"/status")
	if overNATS := members(command(t, 0, `"account": "acme"`, "status", "--json")); !slices.Equal(overNATS, members(overHTTP)) {
		t.Errorf("status --json has %v, /status %v", overNATS, members(overHTTP))
	}
}

func TestPauseOutlivesTheBridge(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(30))
	r, natsURL := startSteered(t, nimble)
	command(t, 0, "acme: paused; 30 contacts", "pause")
	awaitReadiness(t, r.url(t), paused)
	command(t, 1, "hint: \"nimble-bridge resume\"", "poll-now")
	if code, _ := get(t, r.url(t)+"/healthz"); code != 200 {
		t.Errorf("/healthz answers %d while paused, want 200", code)
	}
	if code := r.finish(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	id := nimble.Create()
	r = start(t)
	awaitReadiness(t, r.url(t), paused)
	command(t, 0, "paused, not ready: paused", "status")
	before := storedEvents(t, natsURL)
	if before != 30 {
		t.Errorf("%d events stored while paused, want 30", before)
	}
	command(t, 0, "acme: polling again", "resume")
	awaitReadiness(t, r.url(t), "")
	command(t, 0, "acme: polled; 31 contacts", "poll-now")
	command(t, 0, "its last event shows what Nimble shows now", "explain", id)
}

func TestPollNowDoesNotWaitForTheInterval(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(5))
	_, natsURL := startSteered(t, nimble, "POLL_INTERVAL", "1h")
	nimble.Create()
	command(t, 0, "acme: polled; 6 contacts", "poll-now")
	if n := storedEvents(t, natsURL); n != 6 {
		t.Errorf("%d events stored, want 6", n)
	}
	nimble.Inject(-1, nimbletest.Fault{Status: 403, Body: `{"message":"Can't authenticate request"}`})
	command(t, 1, "API key refused", "poll-now")
}

func TestExplain(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(5))
	startSteered(t, nimble, "POLL_INTERVAL", "1h")
	ids := nimble.IDs()
	nimble.Edit(ids[0], nimbletest.Field("title", "Harbour Master"))
	nimble.Touch(ids[1])
	unseen := nimble.Create()
	nimble.Delete(ids[2])
	tests := []struct{ id, want string }{
		{ids[3], "its last event shows what Nimble shows now"},
		{ids[0], "differing  fields.title\n"},
		{ids[1], "nothing changed that counts as content"},
		{unseen, "it has no event yet"},
		{ids[2], "Nimble     not found\n"},
		{"6f10a0c2d4e5b6a7c8d9e0f1", "it has no event, and Nimble gives no such contact"},
	}
	for _, tt := range tests {
		if stdout := command(t, 0, tt.want, "explain", tt.id); strings.Contains(stdout, "Harbour") {
			t.Errorf("explain shows content:\n%s", stdout)
		}
	}
	var e poller.Explanation
	if err := json.Unmarshal([]byte(command(t, 0, `"verdict": `, "explain", ids[0], "--json")), &e); err != nil || e.Known == nil || e.Known.Revision != 1 || e.Now != "present" {
		t.Errorf("explain --json: %+v, %v", e, err)
	}
	command(t, 2, "takes the id of one contact", "explain")
	command(t, 2, "takes the id of one contact", "explain", "a.b")
}

func TestResync(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(120))
	_, natsURL := startSteered(t, nimble)
	messages := subscribe(t, natsURL)
	ids := nimble.IDs()
	command(t, 0, "acme: 2 snapshots published", "resync", "--contact", ids[0]+","+ids[1])
	for range 2 {
		if _, e := receive(t, messages); e.Verb() != event.Snapshot || e.Data.Revision != 2 || e.Data.FoundBy != "resync" {
			t.Errorf("%s revision %d found by %s", e.Verb(), e.Data.Revision, e.Data.FoundBy)
		}
	}
	command(t, 1, "Nimble does not give 6f10a0c2d4e5b6a7c8d9e0f1", "resync", "--contact", "6f10a0c2d4e5b6a7c8d9e0f1", "--contact", ids[2])
	if _, e := receive(t, messages); e.Subject != ids[2] {
		t.Errorf("event of %s, want %s", e.Subject, ids[2])
	}
	command(t, 0, "all contacts are being published again", "resync", "--all")
	for range 120 {
		receive(t, messages)
	}
	command(t, 2, "either --contact ID… or --all", "resync")
	command(t, 2, "either --contact ID… or --all", "resync", "--all", "--contact", ids[0])
	command(t, 2, "want the id of a contact", "resync", "--contact", "a.*")
}

// person is somebody at a terminal.
type person struct{ *strings.Reader }

func (person) isTerminal() bool { return true }

func TestConfirmDeletions(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(60))
	r, natsURL := startSteered(t, nimble, "DELETE_LIMIT", "2", "RECONCILE_INTERVAL", "200ms", "POLL_INTERVAL", "100ms")
	command(t, 0, "no deletion is held back", "confirm-deletions")
	ids := nimble.IDs()
	nimble.Delete(ids[:5]...)
	awaitReadiness(t, r.url(t), deletionsHeld)
	js := jetStreamAt(t, natsURL)
	bucket, err := js.KeyValue(t.Context(), "nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	var entry jetstream.KeyValueEntry
	for _, id := range slices.Backward(ids[:5]) {
		soon(t, "the bucket has contact "+id, func() bool { // NATS fills it, in its own time.
			entry, err = bucket.Get(t.Context(), "acme."+id)
			return err == nil
		})
	}
	e, err := event.Decode(entry.Value())
	if err != nil {
		t.Fatal(err)
	}
	stdout := command(t, 2, "--yes releases them without asking", "confirm-deletions")
	for _, id := range ids[:5] {
		if !strings.Contains(stdout, "  "+id+"  ") {
			t.Errorf("%s is not listed:\n%s", id, stdout)
		}
	}
	if !strings.Contains(stdout, ids[0]+"  "+who(e)+"\n") {
		t.Errorf("%s is not named %q:\n%s", ids[0], who(e), stdout)
	}
	command(t, 0, "5, since ", "status")

	answer := func(text string) (int, string) {
		out := newOutput()
		code := run(t.Context(), []string{"confirm-deletions"}, person{strings.NewReader(text)}, out, out)
		return code, out.String()
	}
	for _, no := range []string{"n\n", "\n", ""} {
		if code, out := answer(no); code != 1 || !strings.Contains(out, "Publish these 5 deletions? [y/N]") || !strings.Contains(out, "nothing was released") {
			t.Errorf("answered %q: exit code %d\n%s", no, code, out)
		}
	}
	if storedEvents(t, natsURL) != 60 {
		t.Error("something was published before it was confirmed")
	}
	nimble.Restore(ids[4]) // Between the listing and the deletion.
	if code, out := answer("y\n"); code != 0 || !strings.Contains(out, "are released") {
		t.Errorf("answered y: exit code %d\n%s", code, out)
	}
	awaitReadiness(t, r.url(t), "")
	soon(t, "four contacts are deleted", func() bool {
		code, body := get(t, r.url(t)+"/metrics")
		return code == 200 && strings.Contains(body, `nimble_bridge_events_total{account="acme",type="deleted"} 4`)
	})
	if _, err := bucket.Get(t.Context(), "acme."+ids[4]); err != nil {
		t.Errorf("the contact that came back: %v", err)
	}
}

func TestOnlyTheLeaderObeys(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(10))
	first, natsURL := startSteered(t, nimble)
	second := start(t)
	second.stderr.await(t, "standing by")
	soon(t, "both are seen", func() bool {
		_, stdout, _ := runProgram(t.Context(), "status")
		return strings.Count(stdout, "beside it ") == 1 && strings.Contains(stdout, "polling, ready")
	})
	conn, err := nats.Connect(natsURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	roles := func() (roles []string) {
		inbox, err := conn.SubscribeSync(conn.NewRespInbox())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.PublishRequest("$SRV.INFO.nimble-bridge", inbox.Subject, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			msg, err := inbox.NextMsg(patience)
			if err != nil {
				t.Fatal(err)
			}
			var info micro.Info
			if err := json.Unmarshal(msg.Data, &info); err != nil {
				t.Fatal(err)
			}
			roles = append(roles, fmt.Sprintf("%s of %s with %d endpoints", info.Metadata["role"], info.Metadata["account"], len(info.Endpoints)))
		}
		slices.Sort(roles)
		return roles
	}
	want := []string{"leader of acme with 7 endpoints", "standby of acme with 1 endpoints"}
	if got := roles(); !slices.Equal(got, want) {
		t.Errorf("services: %v, want %v", got, want)
	}
	command(t, 0, "acme: polled", "poll-now")
	if strings.Contains(second.stderr.String(), `"command"`) {
		t.Error("the standby obeyed")
	}
	if code := first.finish(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	command(t, 0, "acme: polled", "poll-now") // Also while leadership changes hands.
	second.stderr.await(t, `"command":"poll-now"`)
	if stdout := command(t, 0, "polling, ready", "status"); strings.Contains(stdout, "beside it ") {
		t.Errorf("the one that has ended is still there:\n%s", stdout)
	}
}

func TestCommandsSayWhyNobodyObeys(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(3)), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL(), "NIMBLE_ACCOUNT", "")
	command(t, 1, "no bridge answers at nats://", "pause")
	command(t, 1, "no bridge answers at nats://", "status")
	environment(t, nimble, "NATS_URL", "nats://127.0.0.1:1")
	command(t, 1, "NATS is not reachable at nats://127.0.0.1:1", "pause")
	environment(t, nimble, "EMBEDDED_NATS_ADDR", freeAddress(t))
	command(t, 1, "no bridge with an embedded NATS server answers", "pause")
	environment(t, nimble, "NATS_URL", "http://x")
	command(t, 2, "NATS_URL is ", "pause")

	// One that cannot lead yet says what it waits for.
	environment(t, nimble, "NATS_URL", server.URL(), "NATS_MANAGE", "false")
	r := start(t)
	awaitReadiness(t, r.url(t), streamUnfit)
	command(t, 1, "no bridge of account acme leads at present", "poll-now")
	command(t, 1, "stream_unfit: stream NIMBLE does not exist", "poll-now")
	command(t, 0, "leader         none known", "status")
	setenv(t, map[string]string{"NATS_URL": server.URL(), "NIMBLE_ACCOUNT": "other"})
	command(t, 1, "no bridge of account other answers", "pause")

	// Several accounts.
	environment(t, nimble, "NATS_URL", server.URL(), "NIMBLE_ACCOUNT", "beta")
	b := start(t)
	b.stderr.await(t, "snapshot finished")
	setenv(t, map[string]string{"NATS_URL": server.URL()})
	command(t, 1, "bridges of 2 accounts answer: acme, beta", "pause")
	setenv(t, map[string]string{"NATS_URL": server.URL(), "NIMBLE_ACCOUNT": "beta"})
	command(t, 0, "beta: polled", "poll-now")
}

func TestCommandsNameAMissingPermission(t *testing.T) {
	guarded := rawNATS(t, func(o *natsserver.Options) {
		o.Users = []*natsserver.User{{Username: "me", Password: "hush", Permissions: &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{"nimble-bridge.>", "$SRV.>"}}}}}
	})
	setenv(t, map[string]string{"NATS_URL": guarded.ClientURL(), "NATS_USER": "me", "NATS_PASSWORD": "hush", "NIMBLE_ACCOUNT": "acme"})
	began := time.Now()
	command(t, 1, `Permissions Violation for Publish to "nimble-bridge.acme.pause"`, "pause")
	setenv(t, map[string]string{"NATS_URL": guarded.ClientURL(), "NATS_USER": "me", "NATS_PASSWORD": "hush"})
	command(t, 1, `Permissions Violation for Publish to "$SRV.PING.nimble-bridge"`, "pause")
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v to find out", took)
	}
}

func TestStatusFallsBackToHTTP(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(3))
	addr := freeAddress(t)
	r, _ := startSteered(t, nimble, "HTTP_ADDR", addr)
	setenv(t, map[string]string{"NATS_URL": "nats://127.0.0.1:1", "HTTP_ADDR": addr})
	command(t, 0, "this is what the bridge at HTTP_ADDR says", "status")
	command(t, 0, "contacts       3", "status")
	setenv(t, map[string]string{"NATS_URL": "nats://127.0.0.1:1", "HTTP_ADDR": addr, "NIMBLE_ACCOUNT": "other"})
	command(t, 1, "NATS is not reachable", "status")
	_ = r
}

func TestServiceRefusesWhatMakesNoSense(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(3))
	_, natsURL := startSteered(t, nimble)
	conn, err := nats.Connect(natsURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, tt := range []struct{ endpoint, body string }{
		{endpointExplain, `{"id":"a.b"}`},
		{endpointExplain, `{}`},
		{endpointExplain, `not JSON`},
		{endpointResync, `{}`},
		{endpointResync, `{"all":true,"contacts":["a"]}`},
		{endpointResync, `{"contacts":["*"]}`},
		{endpointDeletions, `{"really":true}`},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		msg, err := conn.RequestWithContext(ctx, endpointSubject("acme", tt.endpoint), []byte(tt.body))
		cancel()
		if err != nil || msg.Header.Get(micro.ErrorCodeHeader) != codeWrong {
			t.Errorf("%s %s: %v, %v; want %s", tt.endpoint, tt.body, msg, err, codeWrong)
		}
	}
}
