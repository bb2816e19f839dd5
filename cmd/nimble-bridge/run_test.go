package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

// patience is how long a test waits for what takes milliseconds on a machine that has time.
const patience = 4 * time.Minute

// output is what a running program has written so far.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func newOutput() *output { return &output{grown: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.grown)
	o.grown = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until the output matches, and returns the first group.
func (o *output) await(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for timeout := time.After(patience); ; {
		o.mu.Lock()
		grown, text := o.grown, o.text.String()
		o.mu.Unlock()
		if found := re.FindStringSubmatch(text); found != nil {
			return found[len(found)-1]
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("the program never wrote %s, but:\n%s", pattern, text)
		}
	}
}

// running is a program under test.
type running struct {
	stdout, stderr *output
	stop           context.CancelFunc
	code           chan int
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &running{stdout: newOutput(), stderr: newOutput(), stop: stop, code: make(chan int, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.code <- run(ctx, args, strings.NewReader(""), r.stdout, r.stderr)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		if t.Failed() {
			t.Logf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
		}
	})
	return r
}

// url is where the bridge serves HTTP.
func (r *running) url(t *testing.T) string {
	t.Helper()
	return r.stderr.await(t, `"msg":"serving health, metrics and status","url":"([^"]+)"`)
}

// finish stops the program as SIGTERM would and returns the exit code.
func (r *running) finish(t *testing.T) int {
	t.Helper()
	r.stop()
	select {
	case code := <-r.code:
		return code
	case <-time.After(patience):
		t.Fatal("the program does not end")
		return -1
	}
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// soon asks until the answer is yes.
func soon(t *testing.T, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); !ask(); {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("never: %s", what)
		}
	}
}

// awaitReadiness waits until /readyz gives the reason, or, for none, is ready.
func awaitReadiness(t *testing.T, url string, want reason) readiness {
	t.Helper()
	var got readiness
	soon(t, fmt.Sprintf("/readyz with the reason %q", want), func() bool {
		got = readinessOf(t, url)
		return got.Ready == (want == "") && got.Reason == want
	})
	return got
}

// readinessOf asks a bridge's /readyz.
func readinessOf(t *testing.T, url string) (got readiness) {
	t.Helper()
	code, body := get(t, url+"/readyz")
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("/readyz answers %q: %v", body, err)
	}
	if (code == http.StatusOK) != got.Ready || !got.Ready && code != http.StatusServiceUnavailable {
		t.Fatalf("/readyz answers %d and %s", code, body)
	}
	return got
}

func startNATS(t *testing.T, addr string) *embedded.Server {
	t.Helper()
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	return server
}

func startNimble(t *testing.T, opts ...nimbletest.Option) *nimbletest.Server {
	t.Helper()
	server := nimbletest.NewServer(opts...)
	t.Cleanup(server.Close)
	return server
}

// environment is a configuration for tests; the pairs replace or add.
func environment(t *testing.T, nimble *nimbletest.Server, pairs ...string) {
	t.Helper()
	setenv(t, variablesFor(t, nimble, pairs...))
}

// variablesFor are those of a bridge in a hurry; pairs adds to them or replaces them.
func variablesFor(t *testing.T, nimble *nimbletest.Server, pairs ...string) map[string]string {
	t.Helper()
	env := map[string]string{
		"NIMBLE_API_KEY": "test-key", "NIMBLE_BASE_URL": nimble.URL, "NIMBLE_ACCOUNT": "acme", "NIMBLE_RATE_LIMIT": "1000",
		"POLL_INTERVAL": "50ms", "HTTP_ADDR": "127.0.0.1:0", "EMBEDDED_NATS_DIR": t.TempDir(), "EMBEDDED_NATS_ADDR": "127.0.0.1:0",
	}
	for i := 0; i < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return env
}

// subscribe receives events as a consumer does that knows nothing but NATS.
func subscribe(t *testing.T, url string) <-chan *nats.Msg {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	messages := make(chan *nats.Msg, 10_000)
	if _, err := conn.ChanSubscribe("nimble.>", messages); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return messages
}

func receive(t *testing.T, messages <-chan *nats.Msg) (*nats.Msg, *event.Event) {
	t.Helper()
	select {
	case msg := <-messages:
		e, err := event.Decode(msg.Data)
		if err != nil {
			t.Fatalf("message on %s: %v", msg.Subject, err)
		}
		return msg, e
	case <-time.After(patience):
		t.Fatal("no event comes")
		return nil, nil
	}
}

// storedEvents returns the number of messages in the stream.
func storedEvents(t *testing.T, url string) uint64 {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "NIMBLE")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("nimble.*.contact.>")) // Not the receipts of reconciliations.
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for _, events := range info.State.Subjects {
		n += events
	}
	return n
}

func TestRunPublishesWhatChanges(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(250)), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL())
	messages := subscribe(t, server.URL())
	r := start(t)
	seen := map[string]bool{}
	for range 250 {
		msg, e := receive(t, messages)
		if e.Verb() != event.Snapshot || e.Data.Revision != 1 || e.Data.FoundBy != "snapshot" || msg.Subject != "nimble.acme.contact.snapshot."+e.Subject {
			t.Fatalf("%s: %s revision %d found by %s, want the first snapshot", msg.Subject, e.Verb(), e.Data.Revision, e.Data.FoundBy)
		}
		seen[e.Subject] = true
	}
	if len(seen) != 250 {
		t.Errorf("%d contacts in the snapshot, want 250", len(seen))
	}
	url := r.url(t)
	awaitReadiness(t, url, "")

	id := nimble.Create(nimbletest.Tags("supplier"))
	if msg, e := receive(t, messages); msg.Subject != "nimble.acme.contact.created."+id || e.Data.Revision != 1 {
		t.Errorf("after a contact was added: %s revision %d", msg.Subject, e.Data.Revision)
	}
	nimble.Edit(id, nimbletest.Tags("supplier", "VIP"), nimbletest.Key("relationship_score", "17"))
	msg, e := receive(t, messages)
	if msg.Subject != "nimble.acme.contact.updated."+id || e.Data.Revision != 2 || msg.Header.Get(event.HeaderChanged) != "tags" {
		t.Errorf("after a tag was added: %s revision %d, changed %q", msg.Subject, e.Data.Revision, msg.Header.Get(event.HeaderChanged))
	}
	if before := string(e.Data.Changes["tags"].Before); !strings.Contains(before, "supplier") || strings.Contains(before, "VIP") {
		t.Errorf("tags before: %s", before)
	}

	t.Run("status", func(t *testing.T) {
		var s status
		code, body := get(t, url+"/status")
		if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
			t.Fatalf("/status answers %d, %v: %s", code, err, body)
		}
		if s.Account != "acme" || s.Contacts != 251 || s.Events["snapshot"] != 250 || s.Events["created"] != 1 || !s.NATS.Connected || s.NATS.Embedded || s.NATS.Stream != "NIMBLE" || s.Watermark.IsZero() {
			t.Errorf("/status answers %s", body)
		}
		if s.UnknownKeys["relationship_score"] == 0 || len(s.UnknownKeys) != 1 {
			t.Errorf("/status has the unknown keys %v, want relationship_score", s.UnknownKeys)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		_, body := get(t, url+"/metrics")
		for _, want := range []string{
			`nimble_bridge_events_total{account="acme",type="snapshot"} 250`,
			`nimble_bridge_events_total{account="acme",type="created"} 1`,
			`nimble_bridge_polls_total{account="acme",result="success"} `,
			`nimble_bridge_polls_total{account="acme",result="failure"} 0`,
			`nimble_bridge_poll_duration_seconds_count{account="acme"} `,
			`nimble_bridge_api_requests_total{code="200",endpoint="contacts"} `,
			`nimble_bridge_api_request_duration_seconds_count{endpoint="contacts"} `,
			`nimble_bridge_watermark_timestamp_seconds{account="acme"} `,
			`nimble_bridge_last_success_timestamp_seconds{account="acme"} `,
			`nimble_bridge_event_delay_seconds_count{account="acme"} 2`,
			`nimble_bridge_contacts{account="acme"} 251`,
			`nimble_bridge_bucket_behind_events{account="acme"} `,
			`nimble_bridge_publish_retries_total{account="acme"} 0`,
			`nimble_bridge_leader{account="acme"} 1`,
			`nimble_bridge_deletions_held{account="acme"} 0`,
			`nimble_bridge_reconcile_requests_total{account="acme"} `,
		} {
			if !strings.Contains(body, "\n"+want) {
				t.Errorf("/metrics has no line that begins with %s", want)
			}
		}
	})
	t.Run("health", func(t *testing.T) {
		if code, body := get(t, url+"/healthz"); code != http.StatusOK {
			t.Errorf("/healthz answers %d: %s", code, body)
		}
	})
	if code := r.finish(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if strings.Contains(r.stderr.String(), "test-key") {
		t.Error("the log holds the API key")
	}
}

func TestRunWithTheEmbeddedServerGoesOnWhereItStopped(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(30))
	environment(t, nimble, "NIMBLE_ACCOUNT", "")
	const natsURL = `"msg":"embedded NATS server runs","url":"([^"]+)"`
	r := start(t, "run")
	soon(t, "30 events are stored", func() bool {
		return strings.Contains(r.stderr.String(), "snapshot finished") && storedEvents(t, r.stderr.await(t, natsURL)) >= 30
	})
	account := r.stderr.await(t, `"msg":"key accepted","account":"([0-9a-f]{24})"`)
	if code := r.finish(t); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}

	id := nimble.IDs()[0]
	nimble.Edit(id, nimbletest.Field("title", "Harbour Master"))
	r = start(t, "run")
	awaitReadiness(t, r.url(t), "")
	if got := storedEvents(t, r.stderr.await(t, natsURL)); got != 31 {
		t.Errorf("%d events are stored after the restart, want 31", got)
	}
	if !strings.Contains(r.stderr.String(), `"contacts":30`) {
		t.Error("the second start does not know the 30 contacts")
	}
	if again := r.stderr.await(t, `"msg":"key accepted","account":"([0-9a-f]{24})"`); again != account {
		t.Errorf("account %s, then %s", account, again)
	}
}

func TestNothingIsWaitedForOnceItIsThere(t *testing.T) {
	log := newOutput()
	b := newBridge(demoConfig("http://127.0.0.1:1", "nats://127.0.0.1:1"), newLogger(log, "json", logLevel(zap.InfoLevel)), newScreen(log))
	b.slow = time.Millisecond
	attempts := 0
	err := b.await(t.Context(), "something", func(context.Context) error {
		if attempts++; attempts < 3 {
			return &publisher.MissingError{Object: "stream NIMBLE"}
		}
		if got := b.readiness(); got.Reason != streamUnfit {
			t.Errorf("while it is waited for: %+v, want %s", got, streamUnfit)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.readiness(); got.Reason != starting {
		t.Errorf("afterwards: %+v, want %s, as before", got, starting)
	}
	if err := b.await(t.Context(), "server", func(context.Context) error { return &publisher.ServerTooOldError{Version: "2.11.0"} }); err == nil {
		t.Error("a server that is too old is waited for")
	}
}

func TestNATSIsWaitedFor(t *testing.T) {
	t.Parallel()
	nimble := startNimble(t, nimbletest.WithContacts(3))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_ = free.Close()
	r := startApart(t, variablesFor(t, nimble, "NATS_URL", "nats://"+addr))
	got := awaitReadiness(t, r.url(t), natsUnreachable)
	if !strings.Contains(got.Message, addr) {
		t.Errorf("message %q, want the address in it", got.Message)
	}
	if n := len(nimble.Requests()); n != 0 {
		t.Errorf("%d requests to Nimble without anywhere to publish, want none", n)
	}
	server := startNATS(t, addr)
	awaitReadiness(t, r.url(t), "")
	r.stderr.await(t, "snapshot finished")

	server.Shutdown()
	awaitReadiness(t, r.url(t), natsUnreachable)
	if code := r.finish(t); code != 0 {
		t.Errorf("exit code %d, want 0 although NATS is away", code)
	}
}

func TestNimbleIsNotReadWhileNATSIsAway(t *testing.T) {
	server := startNimble(t, nimbletest.WithContacts(3))
	conn, err := publisher.Connect(t.Context(), publisher.ConnectConfig{URLs: []string{"nats://127.0.0.1:1"}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := nimble.NewClient(server.URL, "test-key")
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	_, err = connected{c, &natsSide{conn: conn}}.ContactsPage(t.Context(), nimble.ListOptions{})
	if reason, waits := reasonOfNATS(err); reason != natsUnreachable || !waits {
		t.Errorf("ContactsPage fails with %v, which means %s, waits %v; want %s, true", err, reason, waits, natsUnreachable)
	}
	if n := len(server.Requests()); n != 0 {
		t.Errorf("%d requests to Nimble, want none", n)
	}
}

// TestStoppedInTheMiddleOfTheSnapshot stops the program while it publishes. What was under way is acknowledged before it ends, and the next start goes on from there.
func TestStoppedInTheMiddleOfTheSnapshot(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(1000)), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL(), "NIMBLE_RATE_LIMIT", "5")
	r := start(t)
	r.stderr.await(t, "account met for the first time")
	soon(t, "contacts are published", func() bool { return storedEvents(t, server.URL()) > 0 })
	if code := r.finish(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if log := r.stderr.String(); !strings.Contains(log, `"msg":"stopped"`) || strings.Contains(log, "snapshot finished") {
		t.Error("the log does not say that the bridge stopped, in the middle of the snapshot")
	}
	stored := storedEvents(t, server.URL())
	if stored == 0 || stored >= 1000 {
		t.Fatalf("%d events are stored, want some of 1000", stored)
	}
	environment(t, nimble, "NATS_URL", server.URL())
	r = start(t)
	r.stderr.await(t, "snapshot finished")
	within(t, patience, agree(server.URL(), nimble.Account))
	if !strings.Contains(r.stderr.String(), fmt.Sprintf(`"msg":"known contacts loaded","contacts":%d,`, stored)) {
		t.Errorf("the second start does not begin with the %d contacts that are stored", stored)
	}
	if got := storedEvents(t, server.URL()); got > 1001 { // A receipt may have come.
		t.Errorf("%d events are stored of 1000 contacts", got)
	}
}

func TestStoppingDoesNotWaitForNATSForEver(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(300))
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	shutdown := sync.OnceFunc(server.Shutdown)
	defer shutdown()
	log := newOutput()
	cfg := demoConfig(nimble.URL, server.URL())
	b := newBridge(cfg, newLogger(log, "json", logLevel(zap.InfoLevel)), newScreen(log))
	b.drain = 200 * time.Millisecond
	// The server goes just before the second page comes, so that its contacts are found and cannot be stored.
	nimble.OnRequest(func(int, *http.Request) {
		if strings.Contains(log.String(), "account met") {
			shutdown()
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- b.run(ctx) }()
	log.await(t, "NATS disconnected")
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("run returns %v, want nil", err)
		}
	case <-time.After(patience):
		t.Fatal("the bridge does not end")
	}
}

func TestNimbleIsWaitedFor(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(3)), startNATS(t, "127.0.0.1:0")
	nimble.Inject(-1, nimbletest.Fault{Status: 503})
	environment(t, nimble, "NATS_URL", server.URL(), "NIMBLE_ACCOUNT", "")
	r := start(t)
	awaitReadiness(t, r.url(t), nimbleFails)
	nimble.ClearFaults()
	awaitReadiness(t, r.url(t), "")
	r.stderr.await(t, "Nimble answers again")
}

// TestAnUnfitStreamIsWaitedFor starts where streams are missing that the bridge may not create, and goes on where one has the wrong shape, until somebody has seen to both.
func TestAnUnfitStreamIsWaitedFor(t *testing.T) {
	t.Parallel()
	nimble, server := startNimble(t, nimbletest.WithContacts(3)), startNATS(t, "127.0.0.1:0")
	r := startApart(t, variablesFor(t, nimble, "NATS_URL", server.URL(), "NATS_MANAGE", "false"))
	got := awaitReadiness(t, r.url(t), streamUnfit)
	if !strings.Contains(got.Message, "NIMBLE") || !strings.Contains(got.Message, "NATS_MANAGE") {
		t.Errorf("message %q, want the stream's name and what to do", got.Message)
	}
	conn, err := publisher.Connect(t.Context(), publisher.ConnectConfig{URLs: []string{server.URL()}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := publisher.Open(t.Context(), conn, publisher.Config{Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Manage: true}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	batches := func(allowed bool) {
		t.Helper()
		s, err := stream.JetStream().Stream(t.Context(), "NIMBLE")
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.AllowAtomicPublish = allowed
		if _, err := stream.JetStream().UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	batches(false)
	soon(t, "/readyz says what is wrong with the stream's shape", func() bool {
		got := awaitReadiness(t, r.url(t), streamUnfit)
		return strings.Contains(got.Message, "stream NIMBLE") && strings.Contains(got.Message, "allow_atomic is false") && strings.Contains(got.Message, "NATS_MANAGE")
	})
	if n := storedEvents(t, server.URL()); n != 0 {
		t.Errorf("%d events in a stream that does not fit", n)
	}
	batches(true)
	awaitReadiness(t, r.url(t), "")
	within(t, patience, agree(server.URL(), nimble.Account))
	if code := r.finish(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestWhatOnlyANewStartMendsEndsTheProgram(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	notDir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, variable, value, want string }{
		{
			"HTTP address taken", "HTTP_ADDR", addr,
			"nimble-bridge: HTTP_ADDR is \"" + addr + "\", where health and metrics cannot be served: bind: address already in use\n" +
				"nimble-bridge: hint: set HTTP_ADDR to another host:port, or to nothing to do without\n",
		},
		{
			"address of the embedded server taken", "EMBEDDED_NATS_ADDR", addr,
			"nimble-bridge: embedded NATS cannot listen on " + addr + ": the port is taken; set EMBEDDED_NATS_ADDR to another one, or NATS_URL to use the server that is there\n",
		},
		{
			"directory of the embedded server is none", "EMBEDDED_NATS_DIR", notDir,
			"nimble-bridge: embedded NATS cannot store in " + notDir + ": mkdir " + notDir + ": not a directory; set EMBEDDED_NATS_DIR to a directory that this user may write to\n",
		},
	}
	nimble := startNimble(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, nimble, "LOG_LEVEL", "error", tt.variable, tt.value)
			code, stdout, stderr := runProgram(t.Context())
			if code != 1 || stdout != "" || stderr != tt.want {
				t.Errorf("exit code %d, stdout %q, stderr\n%s\nwant 1, nothing and\n%s", code, stdout, stderr, tt.want)
			}
		})
	}
}

func TestMisspeltVariableIsLogged(t *testing.T) {
	nimble := startNimble(t)
	environment(t, nimble, "POLL_INTERVALL", "1s")
	r := start(t)
	r.stderr.await(t, `"level":"warn".*"variable":"POLL_INTERVALL","meant":"POLL_INTERVAL"`)
}

func TestRefusedAttemptsToPublishAreCounted(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(3)), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL())
	messages := subscribe(t, server.URL())
	r := start(t)
	r.stderr.await(t, `"msg":"snapshot finished"`)
	msg, e := receive(t, messages)

	// Somebody else writes an event of the contact, which the bridge learns from the refusal of its own.
	conn, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	foreign := &nats.Msg{Subject: msg.Subject, Data: msg.Data, Header: nats.Header{}}
	for _, name := range []string{event.HeaderType, event.HeaderFingerprint, event.HeaderCreated, event.HeaderUpdated} {
		foreign.Header.Set(name, msg.Header.Get(name))
	}
	foreign.Header.Set(event.HeaderID, "of-somebody-else")
	foreign.Header.Set(event.HeaderRevision, "2")
	if _, err := conn.RequestMsg(foreign, patience); err != nil {
		t.Fatal(err)
	}
	nimble.Edit(e.Subject, nimbletest.Tags("edited after somebody else wrote"))
	url := r.url(t)
	counted := regexp.MustCompile(`\nnimble_bridge_publish_retries_total\{account="acme"\} [1-9]`)
	soon(t, "a refused attempt is counted", func() bool {
		_, body := get(t, url+"/metrics")
		return counted.MatchString(body)
	})
}
