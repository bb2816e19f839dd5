package main

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/embedded"
)

// outcomes reads what check --json prints: the outcomes by check, the worst one where a check has several.
func outcomes(t *testing.T, stdout string) (ok bool, found map[string]checked) {
	t.Helper()
	var document struct {
		Passed bool      `json:"passed"`
		Checks []checked `json:"checks"`
	}
	if err := json.Unmarshal([]byte(stdout), &document); err != nil {
		t.Fatalf("check --json prints %q: %v", stdout, err)
	}
	severity := []checkStatus{skipped, passed, warned, failed}
	found = make(map[string]checked)
	for _, o := range document.Checks {
		if before, ok := found[o.Check]; !ok || slices.Index(severity, o.Status) > slices.Index(severity, before.Status) {
			found[o.Check] = o
		}
	}
	return document.Passed, found
}

// expectStatus holds the checks that did not pass against those that were not to.
func expectStatus(t *testing.T, found map[string]checked, want map[string]checkStatus) {
	t.Helper()
	got := make(map[string]checkStatus)
	for name, o := range found {
		if o.Status != passed {
			got[name] = o.Status
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("not passed: %v, want %v\nin %v", got, want, found)
	}
}

// rawNATS starts a NATS server with options that the embedded one does not have.
func rawNATS(t *testing.T, change func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	opts := &natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true}
	change(opts)
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("server not ready")
	}
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return srv
}

func jetStreamAt(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func streamNames(t *testing.T, js jetstream.JetStream) (names []string) {
	t.Helper()
	list := js.StreamNames(t.Context())
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestCheckBeforeTheFirstRun(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(250)), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL(), "NIMBLE_ACCOUNT", "", "NIMBLE_RATE_LIMIT", "50")
	code, stdout, stderr := runProgram(t.Context(), "check")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q; want 0 and nothing\n%s", code, stderr, stdout)
	}
	for _, want := range []string{
		"✓ API key       accepted; it acts as ", "✓ contacts      250; a first snapshot takes 3 requests", "✓ ranges        obeyed", "✓ sorting       obeyed in both directions",
		"✓ timestamps    in UTC", "✓ counts        exact", "✓ clock         within 1s", "✓ NATS server   version ", "✓ JetStream     enabled",
		"✓ permissions   all ", "✓ event stream  stream NIMBLE does not exist yet", "✓ bridge        none has run", "✓ HTTP          ",
	} {
		if !strings.Contains("\n"+stdout, "\n"+want) {
			t.Errorf("no line begins with %q in\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "\x1b") {
		t.Error("colours in a pipe")
	}
	if names := streamNames(t, jetStreamAt(t, server.URL())); len(names) > 0 {
		t.Errorf("the check made streams: %v", names)
	}
}

// coloured is a terminal.
type coloured struct{ *output }

func (coloured) isTerminal() bool { return true }

func TestCheckHasColoursOnATerminal(t *testing.T) {
	nimble, server := startNimble(t), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL(), "TERM", "xterm", "NO_COLOR", "")
	out := coloured{newOutput()}
	if code := run(t.Context(), []string{"check"}, strings.NewReader(""), out, out); code != 0 || !strings.Contains(out.String(), green+"✓"+plain) {
		t.Errorf("exit code %d:\n%q", code, out)
	}
}

func TestCheckBesideARunningBridge(t *testing.T) {
	for _, tt := range []struct {
		name     string
		external bool
	}{{"with the embedded server", false}, {"with a server of its own", true}} {
		t.Run(tt.name, func(t *testing.T) {
			nimble := startNimble(t, nimbletest.WithContacts(30))
			pairs := []string{"EMBEDDED_NATS_ADDR", freeAddress(t), "HTTP_ADDR", freeAddress(t)}
			if tt.external {
				pairs = append(pairs, "NATS_URL", startNATS(t, "127.0.0.1:0").URL())
			}
			environment(t, nimble, pairs...)
			r := start(t)
			awaitReadiness(t, r.url(t), "")
			r.stderr.await(t, "snapshot finished")
			code, stdout, stderr := runProgram(t.Context(), "check", "--json")
			ok, found := outcomes(t, stdout)
			if code != 0 || !ok || stderr != "" {
				t.Errorf("exit code %d, passed %v, stderr %q", code, ok, stderr)
			}
			expectStatus(t, found, map[string]checkStatus{})
			if o := found[checkBridge]; !strings.Contains(o.Detail, "polls this account") {
				t.Errorf("bridge: %+v", o)
			}
			if o := found[checkStream]; !strings.Contains(o.Detail, "stream NIMBLE fits; 3") {
				t.Errorf("stream: %+v", o)
			}
			if o := found[checkHTTP]; !strings.Contains(o.Detail, "running bridge, account acme") {
				t.Errorf("HTTP: %+v", o)
			}
		})
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all := func(status checkStatus, names ...string) map[string]checkStatus {
		m := make(map[string]checkStatus)
		for _, name := range names {
			m[name] = status
		}
		return m
	}
	with := func(m map[string]checkStatus, names ...string) map[string]checkStatus {
		for _, name := range names {
			m[name] = failed
		}
		return m
	}
	server := startNATS(t, "127.0.0.1:0")
	noJetStream := rawNATS(t, func(o *natsserver.Options) { o.JetStream = false })
	guarded := rawNATS(t, func(o *natsserver.Options) {
		o.Users = []*natsserver.User{
			{Username: "quiet", Password: "hush", Permissions: &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{"nimble.*.contact.deleted.*", "nimble.*.contact.check.*"}}}},
			{Username: "deaf", Password: "hush", Permissions: &natsserver.Permissions{Subscribe: &natsserver.SubjectPermission{Deny: []string{"$SRV.>"}}}},
			{Username: "blind", Password: "hush", Permissions: &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{"$JS.API.STREAM.>"}}}},
		}
	})
	unfit := startNATS(t, "127.0.0.1:0")
	if _, err := jetStreamAt(t, unfit.URL()).CreateStream(t.Context(), jetstream.StreamConfig{Name: "NIMBLE", Subjects: []string{"nimble.>"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	drifted := startNATS(t, "127.0.0.1:0")
	if _, err := jetStreamAt(t, drifted.URL()).CreateStream(t.Context(), jetstream.StreamConfig{Name: "NIMBLE", Subjects: []string{"nimble.>"}}); err != nil {
		t.Fatal(err)
	}
	full := startNATS(t, "127.0.0.1:0")
	fullStream := jetStreamAt(t, full.URL())
	if _, err := fullStream.CreateStream(t.Context(), jetstream.StreamConfig{Name: "NIMBLE", Subjects: []string{"nimble.>"}, MaxBytes: 10_000}); err != nil {
		t.Fatal(err)
	}
	if _, err := fullStream.Publish(t.Context(), "nimble.acme.contact.snapshot.x", make([]byte, 9_900)); err != nil {
		t.Fatal(err)
	}
	natsChecks := []string{checkJetStream, checkPermissions, checkStream, checkBucket, checkState, checkBridge}

	tests := []struct {
		name  string
		env   []string
		nimbl func(*nimbletest.Server)
		code  int
		want  map[string]checkStatus
		// reason and fix are in what the check of that name says.
		check, reason, fix string
	}{
		{
			name: "the key is refused", env: []string{"NIMBLE_API_KEY", "wrong-key", "NIMBLE_ACCOUNT", ""}, code: 1,
			want:  map[string]checkStatus{checkKey: failed, checkAccount: skipped, checkContacts: skipped, checkPermissions: skipped},
			check: checkKey, reason: "API key refused: 403", fix: "valid key",
		},
		{
			name: "Nimble is away", env: []string{"NIMBLE_BASE_URL", "http://127.0.0.1:1"}, code: 1,
			want:  map[string]checkStatus{checkKey: failed, checkContacts: skipped},
			check: checkKey, reason: "connection refused", fix: "NIMBLE_BASE_URL",
		},
		{
			name: "the listing fails", code: 1,
			nimbl: func(n *nimbletest.Server) {
				n.Inject(-1, nimbletest.Fault{Endpoint: nimbletest.EndpointContacts, Status: 409})
			},
			want: map[string]checkStatus{checkContacts: failed}, check: checkContacts, reason: "409", fix: "NIMBLE_BASE_URL",
		},
		{
			name: "the API cannot do much", nimbl: func(n *nimbletest.Server) {
				n.SetBehaviour(func(b *nimbletest.Behaviour) { b.UpdatedSort, b.TotalCap = nimbletest.SortIgnored, 50 })
			},
			want:  map[string]checkStatus{checkSorting: warned, checkCounts: warned},
			check: checkCounts, reason: "capped at 50",
		},
		{
			name: "the clock is off", nimbl: func(n *nimbletest.Server) {
				n.SetBehaviour(func(b *nimbletest.Behaviour) { b.DateSkew = -3630e9 }) // Half a minute more, because the answer takes a moment.
			},
			code: 1, want: all(failed, checkClock), check: checkClock, reason: "1h0m", fix: "clock",
		},
		{
			name: "several variables are wrong", env: []string{"NIMBLE_API_KEY", "", "POLL_INTERVAL", "ten"}, code: 2,
			want:  map[string]checkStatus{checkConfig: failed, checkKey: skipped, checkAccount: skipped, checkContacts: skipped},
			check: checkConfig, reason: "NIMBLE_API_KEY is not set",
		},
		{
			name: "a variable of NATS is wrong", env: []string{"NATS_REPLICAS", "six"}, code: 2,
			want:  map[string]checkStatus{checkConfig: failed, checkServer: skipped},
			check: checkConfig, reason: "NATS_REPLICAS is \"six\"",
		},
		{
			name: "a variable is misspelt", env: []string{"NATS_URLS", "x"}, want: all(warned, checkConfig), check: checkConfig, reason: "NATS_URLS looks like", fix: "NATS_URL?",
		},
		{
			name: "NATS is away", env: []string{"NATS_URL", "nats://127.0.0.1:1"}, code: 1,
			want: with(all(skipped, natsChecks...), checkServer), check: checkServer, reason: "not reachable at nats://127.0.0.1:1", fix: "NATS_URL",
		},
		{
			name: "NATS wants a password", env: []string{"NATS_URL", guarded.ClientURL()}, code: 1,
			want: with(all(skipped, natsChecks...), checkServer), check: checkServer, reason: "Authorization Violation", fix: "NATS_USER",
		},
		{
			name: "JetStream is off", env: []string{"NATS_URL", noJetStream.ClientURL()}, code: 1,
			want:  with(all(skipped, checkStream, checkBucket, checkState, checkBridge), checkJetStream),
			check: checkJetStream, reason: "JetStream is not enabled", fix: "-js",
		},
		{
			name: "events of one kind are denied", env: []string{"NATS_URL", guarded.ClientURL(), "NATS_USER", "quiet", "NATS_PASSWORD", "hush"}, code: 1,
			want: all(failed, checkPermissions), check: checkPermissions, reason: "denied: publish to nimble.acme.contact.deleted.*", fix: "grant",
		},
		{
			name: "commands do not reach the bridge", env: []string{"NATS_URL", guarded.ClientURL(), "NATS_USER", "deaf", "NATS_PASSWORD", "hush"},
			want: all(warned, checkPermissions), check: checkPermissions, reason: "denied: subscribe to $SRV.>", fix: "grant",
		},
		{
			name: "streams may not be looked at", env: []string{"NATS_URL", guarded.ClientURL(), "NATS_USER", "blind", "NATS_PASSWORD", "hush"}, code: 1,
			want:  with(all(skipped, checkStream, checkBucket, checkState, checkBridge), checkPermissions),
			check: checkPermissions, reason: "publish to $JS.API.STREAM.INFO.NIMBLE", fix: "grant",
		},
		{
			name: "streams are to be there and are not", env: []string{"NATS_MANAGE", "false"}, code: 1,
			want: all(failed, checkStream, checkBucket, checkState), check: checkStream, reason: "stream NIMBLE does not exist", fix: "NATS_MANAGE=true",
		},
		{
			name: "the stream cannot be made fit", env: []string{"NATS_URL", unfit.URL()}, code: 1,
			want: all(failed, checkStream), check: checkStream, reason: "storage is Memory", fix: "move it away",
		},
		{
			name: "the stream will be made fit", env: []string{"NATS_URL", drifted.URL()},
			want: all(warned, checkStream), check: checkStream, reason: "allow_atomic from false to true",
		},
		{
			name: "the stream is full", env: []string{"NATS_URL", full.URL(), "NATS_STREAM_MAX_BYTES", "10000"}, code: 1,
			want: all(failed, checkStream), check: checkStream, reason: "is full: 1 messages, 9.9", fix: "NATS_STREAM_MAX_BYTES",
		},
		{
			name: "the embedded server's directory is none", env: []string{"NATS_URL", "", "EMBEDDED_NATS_DIR", file}, code: 1,
			want: map[string]checkStatus{checkDirectory: failed, checkServer: skipped}, check: checkDirectory, reason: "not a directory", fix: "EMBEDDED_NATS_DIR",
		},
		{
			name: "the embedded server's address is taken", env: []string{"NATS_URL", "", "EMBEDDED_NATS_ADDR", taken.Addr().String()}, code: 1,
			want: map[string]checkStatus{checkAddress: failed, checkServer: skipped}, check: checkAddress, reason: "the port is taken", fix: "EMBEDDED_NATS_ADDR",
		},
		{
			name: "the address for HTTP is taken", env: []string{"HTTP_ADDR", taken.Addr().String()}, code: 1,
			want: all(failed, checkHTTP), check: checkHTTP, reason: "address already in use", fix: "HTTP_ADDR",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nimble := startNimble(t, nimbletest.WithContacts(120))
			if tt.nimbl != nil {
				tt.nimbl(nimble)
			}
			code, stdout, stderr := runApart(t, variablesFor(t, nimble, append([]string{"NATS_URL", server.URL()}, tt.env...)...), "check", "--json")
			ok, found := outcomes(t, stdout)
			if code != tt.code || ok != (code == 0) {
				t.Errorf("exit code %d, passed %v; want %d", code, ok, tt.code)
			}
			expectStatus(t, found, tt.want)
			got := found[tt.check]
			if !strings.Contains(got.Detail, tt.reason) || !strings.Contains(got.Fix, tt.fix) {
				t.Errorf("%s says %+v, want the reason %q and the fix %q", tt.check, got, tt.reason, tt.fix)
			}
			if (stderr == "") != (code == 0) || code != 0 && !strings.Contains(stderr, "not ready to run: ") {
				t.Errorf("stderr %q", stderr)
			}
			for _, secret := range []string{"test-key", "wrong-key", "hush"} {
				if strings.Contains(stdout+stderr, secret) {
					t.Errorf("a secret is shown: %s%s", stdout, stderr)
				}
			}
		})
	}
}

func TestCheckTellsAnotherServerFromTheEmbeddedOne(t *testing.T) {
	nimble := startNimble(t)
	dir, other := t.TempDir(), t.TempDir()
	addr := freeAddress(t)
	server, err := embedded.Start(embedded.Options{Dir: dir, Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	environment(t, nimble, "EMBEDDED_NATS_DIR", other, "EMBEDDED_NATS_ADDR", addr)
	if code, stdout, _ := runProgram(t.Context(), "check"); code != 1 || !strings.Contains(stdout, "✗ address") || !strings.Contains(stdout, "✓ directory") {
		t.Errorf("another bridge's address: exit code %d\n%s", code, stdout)
	}
	environment(t, nimble, "EMBEDDED_NATS_DIR", dir, "EMBEDDED_NATS_ADDR", freeAddress(t))
	if code, stdout, _ := runProgram(t.Context(), "check"); code != 1 || !strings.Contains(stdout, "✗ directory") || !strings.Contains(stdout, "another process is using it") {
		t.Errorf("another bridge's directory: exit code %d\n%s", code, stdout)
	}
}
