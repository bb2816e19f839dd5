package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/streamtest"
)

// The tests of this file let go wrong, around the program as it runs for its users, what can go wrong, and see it mended.

// runningBridge is a bridge that runs as a process of its own, so that these tests can wait side by side.
type runningBridge struct {
	*process
	url string
}

// launchBridge starts a bridge; more adds to its environment or replaces it.
func launchBridge(t *testing.T, account *nimbletest.Server, more ...string) *runningBridge {
	t.Helper()
	p := launch(t, buildProgram(t, bridgePackage), bridgeEnv(account, "127.0.0.1:0", more...))
	return &runningBridge{p, p.writes(t, `"msg":"serving health, metrics and status","url":"([^"]+)"`)}
}

// output is what the process has written so far.
func (p *process) output(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writes waits until the process has written what matches, and returns the last group.
func (p *process) writes(t *testing.T, pattern string) (group string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	soon(t, "the program writes "+pattern, func() bool {
		found := re.FindStringSubmatch(p.output(t))
		if found == nil {
			return false
		}
		group = found[len(found)-1]
		return true
	})
	return group
}

// TestTheKeyIsRotated takes a key back while the bridge polls with it, and puts the new one into the key's file.
func TestTheKeyIsRotated(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]string{"account found by the key": "", "account given": "acme"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account, server := startNimble(t, nimbletest.WithContacts(3)), startNATS(t, "127.0.0.1:0")
			file := filepath.Join(t.TempDir(), "key")
			write := func(key string) {
				t.Helper()
				if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("secret-1")
			account.RotateKey("secret-0")
			b := launchBridge(t, account, "NIMBLE_API_KEY=", "NIMBLE_API_KEY_FILE="+file, "NIMBLE_ACCOUNT="+given, "NATS_URL="+server.URL())
			refused := func() {
				t.Helper()
				got := awaitReadiness(t, b.url, keyRefused)
				if !strings.Contains(got.Message, "API key refused: 403") {
					t.Errorf("message %q, want that the key is refused", got.Message)
				}
				if code, _ := get(t, b.url+"/healthz"); code != http.StatusOK {
					t.Errorf("/healthz answers %d while the bridge waits, want 200", code)
				}
				before := len(account.Requests())
				wait(t, 1500*time.Millisecond) // Thirty polls long.
				if n := len(account.Requests()) - before; n > 1 {
					t.Errorf("%d requests in one and a half seconds with a key that is refused: hammering", n)
				}
			}
			refused()
			account.RotateKey("secret-1")
			awaitReadiness(t, b.url, "")
			account.RotateKey("secret-2")
			refused()
			account.Create()
			write("secret-2")
			awaitReadiness(t, b.url, "")
			soon(t, "the contact added meanwhile is published", func() bool { return storedEvents(t, server.URL()) == 4 })
			log := b.output(t)
			if !strings.Contains(log, `"level":"error"`) {
				t.Error("the log has no error, but a person had to act")
			}
			if strings.Contains(log, "secret-") {
				t.Error("the log holds an API key")
			}
		})
	}
}

// natsServer is a server in the test's process that bridges reach over the network, and that can be restarted with other options.
type natsServer struct {
	*natsserver.Server
	t   *testing.T
	dir string
	// port stays the same.
	port int
}

func startServer(t *testing.T, dir string, change func(*natsserver.Options)) *natsServer {
	t.Helper()
	s := &natsServer{t: t, dir: dir, port: natsserver.RANDOM_PORT}
	s.start(change)
	s.port = s.Addr().(*net.TCPAddr).Port
	return s
}

func (s *natsServer) start(change func(*natsserver.Options)) {
	s.t.Helper()
	opts := &natsserver.Options{Host: "127.0.0.1", Port: s.port, JetStream: true, StoreDir: s.dir, NoSigs: true, NoLog: true}
	if change != nil {
		change(opts)
	}
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		s.t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		s.t.Fatal("the server is not ready")
	}
	s.Server = srv
	s.t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
}

// restart ends the server and starts it again with other options.
func (s *natsServer) restart(change func(*natsserver.Options)) {
	s.t.Helper()
	s.Shutdown()
	s.WaitForShutdown()
	s.start(change)
}

func (s *natsServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// stream changes a stream's configuration, as an operator does.
func (s *natsServer) stream(name string, change func(*jetstream.StreamConfig)) {
	s.t.Helper()
	s.jetStream(func(js jetstream.JetStream) error {
		stream, err := js.Stream(s.t.Context(), name)
		if err != nil {
			return err
		}
		cfg := stream.CachedInfo().Config
		change(&cfg)
		_, err = js.UpdateStream(s.t.Context(), cfg)
		return err
	})
}

func (s *natsServer) jetStream(do func(jetstream.JetStream) error) {
	s.t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(s.Server))
	if err != nil {
		s.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err == nil {
		err = do(js)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestNATSPasswordIsRotated restarts the server with another password, and then puts that into the file.
func TestNATSPasswordIsRotated(t *testing.T) {
	t.Parallel()
	account := startNimble(t, nimbletest.WithContacts(3))
	password := func(secret string) func(*natsserver.Options) {
		return func(o *natsserver.Options) {
			o.Users = []*natsserver.User{{Username: "operator", Password: "operators"}, {Username: "bridge", Password: secret}}
			o.NoAuthUser = "operator"
		}
	}
	server := startServer(t, t.TempDir(), password("hush-1"))
	file := secretFile(t, "password", []byte("hush-1"))
	b := launchBridge(t, account, "NATS_URL="+server.url(), "NATS_USER=bridge", "NATS_PASSWORD_FILE="+file)
	awaitReadiness(t, b.url, "")
	server.restart(password("hush-2"))
	if got := awaitReadiness(t, b.url, natsRefuses); !strings.Contains(strings.ToLower(got.Message), "authorization") {
		t.Errorf("message %q, want that the server refuses the password", got.Message)
	}
	account.Create()
	rewrite(t, file, []byte("hush-2\n"))
	awaitReadiness(t, b.url, "")
	soon(t, "the contact added meanwhile is published", func() bool {
		var n uint64
		server.jetStream(func(js jetstream.JetStream) error {
			stream, err := js.Stream(t.Context(), "NIMBLE")
			if err == nil {
				n = stream.CachedInfo().State.Msgs
			}
			return err
		})
		return n == 4
	})
	if strings.Contains(b.output(t), "hush") {
		t.Error("the log holds the password")
	}
}

// TestFullStream lets the stream reach its limit, and raises that.
func TestFullStream(t *testing.T) {
	t.Parallel()
	account, server := startNimble(t, nimbletest.WithContacts(150)), startServer(t, t.TempDir(), nil)
	b := launchBridge(t, account, "NATS_URL="+server.url(), "NATS_STREAM_MAX_BYTES=100000")
	got := awaitReadiness(t, b.url, streamFull)
	if !strings.Contains(got.Message, "NIMBLE") || !strings.Contains(got.Message, "NATS_STREAM_MAX_BYTES") {
		t.Errorf("message %q, want the stream's name and what to do", got.Message)
	}
	server.stream("NIMBLE", func(c *jetstream.StreamConfig) { c.MaxBytes = -1 })
	within(t, patience, agree(server.url(), account.Account))
	awaitReadiness(t, b.url, "")
}

// TestFullServer lets the server reach the limit of what all streams may take up, and raises that.
func TestFullServer(t *testing.T) {
	t.Parallel()
	account := startNimble(t, nimbletest.WithContacts(150))
	server := startServer(t, t.TempDir(), func(o *natsserver.Options) { o.JetStreamMaxStore = 200_000 })
	b := launchBridge(t, account, "NATS_URL="+server.url())
	got := awaitReadiness(t, b.url, streamFull)
	if !strings.Contains(got.Message, "give the server more room") {
		t.Errorf("message %q, want what to do", got.Message)
	}
	server.restart(func(o *natsserver.Options) { o.JetStreamMaxStore = 1 << 30 })
	within(t, patience, agree(server.url(), account.Account))
	awaitReadiness(t, b.url, "")
}

// TestStreamsAreDeleted deletes, under a running bridge, each stream that it works with.
func TestStreamsAreDeleted(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"NIMBLE", "KV_nimble-contacts", "KV_nimble-bridge"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account, server := startNimble(t, nimbletest.WithContacts(30)), startServer(t, t.TempDir(), nil)
			b := launchBridge(t, account, "NATS_URL="+server.url())
			awaitReadiness(t, b.url, "")
			within(t, patience, agree(server.url(), account.Account))
			server.jetStream(func(js jetstream.JetStream) error { return js.DeleteStream(t.Context(), name) })
			account.Edit(account.IDs()[0], nimbletest.Field("title", "meanwhile"))
			account.Create()
			b.writes(t, `it is set up again","stream":"`+name+`"`)
			account.Edit(account.IDs()[1], nimbletest.Field("title", "afterwards"))
			within(t, patience, func(ctx context.Context) error {
				return shows(ctx, server.url(), account.Account)
			})
			awaitReadiness(t, b.url, "")
		})
	}
}

// shows holds each contact's last event against the account, in the stream and in the bucket. Of a stream that was made anew, which begins with what
// the bucket had, there is no history to check.
func shows(ctx context.Context, url string, account *nimbletest.Account) error {
	nc, err := nats.Connect(url, nats.Timeout(2*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	messages, err := streamtest.Read(ctx, js, "NIMBLE", "nimble", "acme")
	if err != nil {
		return err
	}
	contacts := make(map[string]jsontext.Value)
	for _, id := range account.IDs() {
		contacts[id], _ = account.Contact(id)
	}
	for _, m := range messages {
		if m.Event.Verb() == event.Snapshot && m.Event.Data.Revision > 1 {
			return fmt.Errorf("contact %s was forgotten and met again", m.Event.Subject)
		}
	}
	if err := streamtest.CheckLatest(messages, contacts); err != nil {
		return err
	}
	return streamtest.CheckBucket(ctx, js, "nimble-contacts", "acme", messages)
}

// TestStreamIsDeletedThatTheBridgeMayNotCreate wants a person to act, and says so.
func TestStreamIsDeletedThatTheBridgeMayNotCreate(t *testing.T) {
	t.Parallel()
	account, server := startNimble(t, nimbletest.WithContacts(30)), startServer(t, t.TempDir(), nil)
	first := launchBridge(t, account, "NATS_URL="+server.url())
	awaitReadiness(t, first.url, "")
	first.stop(t)
	b := launchBridge(t, account, "NATS_URL="+server.url(), "NATS_MANAGE=false")
	awaitReadiness(t, b.url, "")
	var bucket jetstream.StreamConfig
	server.jetStream(func(js jetstream.JetStream) error {
		stream, err := js.Stream(t.Context(), "KV_nimble-contacts")
		if err != nil {
			return err
		}
		bucket = stream.CachedInfo().Config
		return js.DeleteStream(t.Context(), bucket.Name)
	})
	if got := awaitReadiness(t, b.url, streamUnfit); !strings.Contains(got.Message, "bucket nimble-contacts") || !strings.Contains(got.Message, "NATS_MANAGE") {
		t.Errorf("message %q, want the bucket's name and what to do", got.Message)
	}
	server.jetStream(func(js jetstream.JetStream) error {
		_, err := js.CreateStream(t.Context(), bucket)
		return err
	})
	awaitReadiness(t, b.url, "")
	within(t, patience, agree(server.url(), account.Account))
}

// TestPermissionIsTakenAway takes a permission from the bridge's user while it polls, and gives it back.
func TestPermissionIsTakenAway(t *testing.T) {
	t.Parallel()
	for name, subject := range map[string]string{"to publish": "nimble.acme.contact.>", "to lead": "$KV.nimble-bridge.acme.leader", "to look": "$JS.API.STREAM.INFO.NIMBLE"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account := startNimble(t, nimbletest.WithContacts(3))
			users := func(denied *natsserver.Permissions) func(*natsserver.Options) {
				return func(o *natsserver.Options) {
					o.Users = []*natsserver.User{{Username: "operator", Password: "hush"}, {Username: "bridge", Password: "hush", Permissions: denied}}
					o.NoAuthUser = "operator"
				}
			}
			server := startServer(t, t.TempDir(), users(nil))
			b := launchBridge(t, account, "NATS_URL="+server.url(), "NATS_USER=bridge", "NATS_PASSWORD=hush")
			awaitReadiness(t, b.url, "")
			server.restart(users(&natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{subject}}}))
			account.Create()
			if got := awaitReadiness(t, b.url, natsRefuses); !strings.Contains(got.Message, strings.TrimSuffix(subject, ">")) {
				t.Errorf("message %q, want the subject %s", got.Message, subject)
			}
			server.restart(users(nil))
			awaitReadiness(t, b.url, "")
			within(t, patience, agree(server.url(), account.Account))
		})
	}
}

// TestContactLargerThanMaxPayload has one contact that fits no message among others that do.
func TestContactLargerThanMaxPayload(t *testing.T) {
	t.Parallel()
	account := startNimble(t, nimbletest.WithContacts(30))
	server := startServer(t, t.TempDir(), func(o *natsserver.Options) { o.MaxPayload = 64 << 10 })
	large := account.IDs()[7]
	account.Edit(large, nimbletest.Field("description", strings.Repeat("x", 100<<10)))
	b := launchBridge(t, account, "NATS_URL="+server.url())
	awaitReadiness(t, b.url, "")
	truncated := func(revision uint64) func() bool {
		return func() bool {
			var last *event.Event
			server.jetStream(func(js jetstream.JetStream) error {
				messages, err := streamtest.Read(t.Context(), js, "NIMBLE", "nimble", "acme")
				if len(messages) > 0 {
					last = streamtest.Last(messages)[large].Event
				}
				return err
			})
			return last != nil && last.Data.Revision == revision && last.Data.Truncated && last.Data.Summary.Name != ""
		}
	}
	soon(t, "the large contact is published in part", truncated(1))
	account.Edit(large, nimbletest.Field("description", strings.Repeat("y", 100<<10)))
	id := account.Create()
	soon(t, "its change is published in part", truncated(2))
	soon(t, "and holds nobody up", func() bool { return strings.Contains(subjects(t, server), "contact.created."+id) })
}

// subjects lists the subjects of all events.
func subjects(t *testing.T, server *natsServer) (list string) {
	t.Helper()
	server.jetStream(func(js jetstream.JetStream) error {
		messages, err := streamtest.Read(t.Context(), js, "NIMBLE", "nimble", "acme")
		for _, m := range messages {
			list += m.Subject.String() + "\n"
		}
		return err
	})
	return list
}

// TestLeaderCutOffFromNATS cuts the bridge that polls off from NATS, in two ways. It stops polling, the other takes over, and the first stands by once it is back.
func TestLeaderCutOffFromNATS(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]proxyState{"connections end": closed, "nothing arrives": silent} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account, server := startNimble(t, nimbletest.WithContacts(50)), startServer(t, t.TempDir(), nil)
			network := startProxy(t, strings.TrimPrefix(server.url(), "nats://"), nil)
			// The two come to Nimble under different names, so that their requests can be told apart.
			var ofFirst atomic.Int64
			account.OnRequest(func(_ int, r *http.Request) {
				if strings.HasPrefix(r.Host, "localhost") {
					ofFirst.Add(1)
				}
			})
			first := launchBridge(t, account, "NATS_URL=nats://"+network.addr(), "NIMBLE_BASE_URL="+strings.Replace(account.URL, "127.0.0.1", "localhost", 1))
			awaitReadiness(t, first.url, "")
			second := launchBridge(t, account, "NATS_URL="+server.url())
			awaitReadiness(t, second.url, "")
			leads := func(b *runningBridge) func(context.Context) error {
				return func(ctx context.Context) error {
					self, leader, err := leaderOf(ctx, strings.TrimPrefix(b.url, "http://"))
					if err == nil && self != leader {
						err = fmt.Errorf("%q is led by %q", self, leader)
					}
					return err
				}
			}
			within(t, patience, leads(first))
			stopEditing := edit(account.Account, 20*time.Millisecond)
			defer func() { stopEditing() }()
			network.set(how)
			within(t, patience, leads(second))
			before := ofFirst.Load()
			if got := awaitUnready(t, first.url); got.Reason != natsUnreachable && got.Reason != natsFails {
				t.Errorf("the first is not ready for the reason %q: %s", got.Reason, got.Message)
			}
			wait(t, time.Second) // Twenty polls long.
			if n := ofFirst.Load() - before; n > 1 {
				t.Errorf("%d requests to Nimble by a leader that was cut off, since another leads", n)
			}
			network.set(passing)
			awaitReadiness(t, first.url, "")
			if err := leads(second)(t.Context()); err != nil {
				t.Errorf("the second gave way: %v", err)
			}
			stopEditing()
			stopEditing = func() int { return 0 }
			within(t, patience, agree(server.url(), account.Account))
		})
	}
}

// awaitUnready waits until /readyz gives any reason.
func awaitUnready(t *testing.T, url string) (got readiness) {
	t.Helper()
	soon(t, "/readyz with a reason", func() bool {
		_, body := get(t, url+"/readyz")
		got = readiness{}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("/readyz answers %q: %v", body, err)
		}
		return !got.Ready
	})
	return got
}

// TestLeaderThatSlept stops the process that polls for longer than its lease lasts, in the middle of things, and lets it go on beside the one that took over: both
// believe that they lead.
func TestLeaderThatSlept(t *testing.T) {
	t.Parallel()
	account, server := startNimble(t, nimbletest.WithContacts(50)), startServer(t, t.TempDir(), nil)
	var bridges [2]*runningBridge
	for i := range bridges {
		bridges[i] = launchBridge(t, account, "NATS_URL="+server.url())
		awaitReadiness(t, bridges[i].url, "")
	}
	stopEditing := edit(account.Account, 5*time.Millisecond)
	for i, asleep := range []int{0, 1} {
		p := bridges[asleep].cmd.Process
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		within(t, patience, func(ctx context.Context) error {
			self, leader, err := leaderOf(ctx, strings.TrimPrefix(bridges[1-asleep].url, "http://"))
			if err == nil && self != leader {
				err = fmt.Errorf("round %d: %q is led by %q", i, self, leader)
			}
			return err
		})
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		awaitReadiness(t, bridges[asleep].url, "")
	}
	edits := stopEditing()
	within(t, patience, agree(server.url(), account.Account))
	t.Logf("%d edits", edits)
}

// TestA409IsLoggedWithItsRequest lets Nimble refuse every listing as a bad request, which is either a fault of the bridge or a new API.
func TestA409IsLoggedWithItsRequest(t *testing.T) {
	t.Parallel()
	account, server := startNimble(t, nimbletest.WithContacts(3)), startServer(t, t.TempDir(), nil)
	account.Inject(-1, nimbletest.Fault{Status: http.StatusConflict, Endpoint: nimbletest.EndpointContacts, Body: `{"message":"sort is not what it was","code":245}`})
	b := launchBridge(t, account, "NATS_URL="+server.url())
	if got := awaitReadiness(t, b.url, nimbleFails); !strings.Contains(got.Message, "409") || !strings.Contains(got.Message, "sort is not what it was") {
		t.Errorf("message %q, want the refusal", got.Message)
	}
	b.writes(t, `GET \S+/api/v1/contacts\?\S*sort=updated:asc.*409 Conflict`)
	if strings.Contains(b.output(t), "test-key") {
		t.Error("the log holds the API key")
	}
	account.ClearFaults()
	awaitReadiness(t, b.url, "")
	within(t, patience, agree(server.url(), account.Account))
}

// TestOldServer has a server that announces a version which lacks what the bridge needs.
func TestOldServer(t *testing.T) {
	t.Parallel()
	account, server := startNimble(t, nimbletest.WithContacts(3)), startServer(t, t.TempDir(), nil)
	old := startProxy(t, strings.TrimPrefix(server.url(), "nats://"), func(said []byte) []byte {
		return bytes.ReplaceAll(said, []byte(`"version":"`+natsserver.VERSION+`"`), []byte(`"version":"2.12.0"`))
	})
	b := launch(t, buildProgram(t, bridgePackage), bridgeEnv(account, "", "NATS_URL=nats://"+old.addr()))
	if code := b.ends(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if got := b.output(t); !strings.Contains(got, "nimble-bridge: NATS server 2.12.0 is too old") || !strings.Contains(got, publisher.MinimumServer) {
		t.Errorf("it writes\n%s", got)
	}
}
