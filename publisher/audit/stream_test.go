package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
	"nimble-bridge/publisher/audit"
	"nimble-bridge/publisher/event"
)

// has fails unless a check's text says something.
func has(t *testing.T, r *audit.Report, name, text string) {
	t.Helper()
	if c := check(t, r, name); !strings.Contains(c.Text, text) {
		t.Errorf("%s: %q, want %q in it", name, c.Text, text)
	}
}

// remarks returns the lines of a log that are about no message, without chain and time.
func remarks(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, name := range names(t, dir) {
		for _, l := range linesOf(t, filepath.Join(dir, name)) {
			if !strings.HasPrefix(l, `{"seq":`) && !strings.HasPrefix(l, `{"file":`) {
				remark, _, _ := strings.Cut(l, `,"noted":`)
				found = append(found, remark)
			}
		}
	}
	return found
}

func (s *site) handle() jetstream.Stream {
	s.t.Helper()
	stream, err := s.js.Stream(s.t.Context(), "NIMBLE")
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

func (s *site) purge(opts ...jetstream.StreamPurgeOpt) {
	s.t.Helper()
	if err := s.handle().Purge(s.t.Context(), opts...); err != nil {
		s.t.Fatal(err)
	}
}

func TestGapBeforeTheFirst(t *testing.T) {
	s := newSite(t)
	dir := folder(t)
	s.live()
	s.purge(jetstream.WithPurgeSequence(13)) // As an age limit does, before anything was audited.
	a := s.audited(dir)
	r := s.verify(dir)
	holds(t, r)
	has(t, r, "sequence", "11 messages; 1 gap noted (12 messages gone before they were audited)")
	has(t, r, "receipts", "1 of them but for what gaps have left out")
	s.live()
	s.live()
	s.purge(jetstream.WithPurgeSequence(50)) // And while the auditor is away.
	b := s.audited(dir)
	r = s.verify(dir)
	holds(t, r)
	has(t, r, "sequence", "2 gaps noted (38 messages gone")
	s.purge()
	c := s.audited(dir) // Which has nothing to say.
	s.live()
	s.audited(dir)
	r = s.verify(dir)
	holds(t, r)
	has(t, r, "sequence", "stream NIMBLE up to 92: 54 messages; 2 gaps noted (38 messages gone")
	for i, logs := range []int{1, 1, 0} {
		if got := []*auditing{a, b, c}[i].logs.FilterLevelExact(zap.ErrorLevel).Len(); got != logs {
			t.Errorf("auditor %d logged %d errors, want %d", i, got, logs)
		}
	}
	if got, want := strings.Join(remarks(t, dir), "\n"), `{"gap":{"from":1,"to":12,"reason":"before_first"}
{"gap":{"from":24,"to":49,"reason":"before_first"}`; got != want {
		t.Errorf("remarks\n%s\nwant\n%s", got, want)
	}
}

func TestGapWithin(t *testing.T) {
	s := newSite(t)
	dir := folder(t)
	s.live()
	// Erased before it was audited: the deleted event stays.
	s.purge(jetstream.WithPurgeSubject("nimble.*.contact.*.c3"), jetstream.WithPurgeSequence(20))
	a := s.audited(dir)
	r := s.verify(dir)
	holds(t, r)
	has(t, r, "sequence", "2 gaps noted (2 messages gone")
	if a.logs.FilterLevelExact(zap.ErrorLevel).Len() != 0 || a.logs.FilterLevelExact(zap.WarnLevel).Len() != 2 {
		t.Errorf("the auditor logged %v, want a warning for each gap", a.logs.All())
	}
	// Erased after it was audited: the log has more than the stream.
	s.happens(event.Deleted, "c5")
	s.purge(jetstream.WithPurgeSubject("nimble.*.contact.*.c5"), jetstream.WithPurgeSequence(24))
	s.audited(dir)
	r = s.verify(dir)
	holds(t, r)
	has(t, r, "stream", "2 deleted from the stream since")
	// Taken from the stream without a trace in it.
	s.purge(jetstream.WithPurgeSubject("nimble.*.contact.*.c6"))
	r = s.verify(dir)
	c := check(t, r, "stream")
	if c.Result != audit.Fails || c.Count != 1 || !strings.Contains(c.Faults[0].Text, "the stream has no message 17, and contact c6 was not deleted") {
		t.Errorf("with events taken from the stream:\n%s", text(r))
	}
}

// TestGapWhileAuditing lets the end of the stream go before it is audited, and something come after.
func TestGapWhileAuditing(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	a := s.audit(dir)
	a.reaches(23)
	batch := []*nats.Msg{s.event(event.Created, "x1"), s.event(event.Created, "x2"), s.event(event.Created, "x3")}
	// A full batch in one go would be delivered at once, so that the consumer is paused meanwhile.
	if _, err := s.js.PauseConsumer(t.Context(), "NIMBLE", "audit-test", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, m := range batch {
		s.publish(m)
	}
	for _, sequence := range []uint64{24, 25} {
		if err := s.handle().DeleteMsg(t.Context(), sequence); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.js.ResumeConsumer(t.Context(), "NIMBLE", "audit-test"); err != nil {
		t.Fatal(err)
	}
	s.happens(event.Created, "x4") // Which wakes the consumer.
	a.reaches(27)
	if err := a.ends(); err != nil {
		t.Fatal(err)
	}
	holds(t, s.verify(dir))
	if got, want := strings.Join(remarks(t, dir), "\n"), `{"gap":{"from":24,"to":25,"reason":"deleted"}`; got != want {
		t.Errorf("remarks\n%s\nwant\n%s", got, want)
	}
}

func TestStreamMadeAnew(t *testing.T) {
	s := newSite(t)
	dir := folder(t)
	s.live()
	a := s.audit(dir)
	a.reaches(23)
	again := func() {
		if err := s.js.DeleteStream(t.Context(), "NIMBLE"); err != nil {
			t.Fatal(err)
		}
		s.revisions, s.alive = make(map[string]uint64), make(map[string]bool)
		s.stream(func(*jetstream.StreamConfig) {})
		s.live()
		s.live()
	}
	again() // While the auditor is at it.
	eventually(t, "the new stream is audited", func() bool {
		return strings.Contains(check(t, alone(t, dir), "sequence").Text, "up to 46: 69 messages; the stream was made anew 1 time")
	})
	if err := a.ends(); err != nil {
		t.Fatal(err)
	}
	holds(t, s.verify(dir))
	if a.logs.FilterLevelExact(zap.ErrorLevel).Len() != 1 {
		t.Errorf("the auditor logged %v, want one error", a.logs.All())
	}
	again() // And while it is away.
	r := s.verify(dir)
	if c := check(t, r, "stream"); c.Result != audit.Fails || !strings.Contains(c.Faults[0].Text, "made anew") {
		t.Errorf("before the new stream is audited:\n%s", text(r))
	}
	s.audited(dir)
	r = s.verify(dir)
	holds(t, r)
	has(t, r, "sequence", "up to 46: 115 messages; the stream was made anew 2 times")
	has(t, r, "stream", "46 messages the same")
}

// streamDir is where the server keeps the stream.
func (s *site) streamDir() string {
	return filepath.Join(s.dir, "jetstream", "$G", "streams", "NIMBLE")
}

// powerLoss takes the stream back to what it was when save was called, as a power failure does where not everything is synced.
func (s *site) save() (powerLoss func()) {
	s.t.Helper()
	s.stop()
	saved := filepath.Join(s.t.TempDir(), "saved")
	if err := os.CopyFS(saved, os.DirFS(s.streamDir())); err != nil {
		s.t.Fatal(err)
	}
	s.start()
	return func() {
		s.stop()
		if err := os.RemoveAll(s.streamDir()); err != nil {
			s.t.Fatal(err)
		}
		if err := os.CopyFS(s.streamDir(), os.DirFS(saved)); err != nil {
			s.t.Fatal(err)
		}
		s.start()
	}
}

func TestStreamLosesItsEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		// after is how many events come after the loss: fewer or more than were lost.
		after int
		want  string
	}{
		{"nothing comes after", 0, "stream NIMBLE up to 30"},
		{"less comes after", 3, "stream NIMBLE up to 33"},
		{"as much comes after", 16, "stream NIMBLE up to 46"},
		{"more comes after", 30, "stream NIMBLE up to 60"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			dir := folder(t)
			s.live()
			for i := range 7 {
				s.happens(event.Created, fmt.Sprint("d", i))
			}
			small := func(c *audit.Config) { c.MaxFileSize = 9000 } // So that the way back leads over several files.
			s.audited(dir, small)
			loss := s.save()
			for i := range 16 {
				s.happens(event.Created, fmt.Sprint("lost", i))
			}
			s.audited(dir, small)
			loss()
			for i := range tt.after {
				s.happens(event.Created, fmt.Sprint("new", i))
			}
			a := s.audited(dir, small)
			r := s.verify(dir)
			holds(t, r)
			has(t, r, "sequence", tt.want)
			has(t, r, "sequence", "the stream lost its end 1 time")
			has(t, r, "stream", fmt.Sprintf("%d messages the same", 30+tt.after))
			if got := remarks(t, dir); len(got) != 1 || got[0] != `{"rewound":{"from":46,"to":30}` {
				t.Errorf("remarks %v", got)
			}
			if a.logs.FilterLevelExact(zap.ErrorLevel).Len() != 1 {
				t.Errorf("the auditor logged %v, want one error", a.logs.All())
			}
			// And once more, from before the first loss.
			s.live()
			s.audited(dir, small)
			loss()
			s.happens(event.Created, "newer")
			s.audited(dir, small)
			r = s.verify(dir)
			holds(t, r)
			has(t, r, "sequence", "stream NIMBLE up to 31")
			has(t, r, "sequence", "the stream lost its end 2 times")
		})
	}
}

// TestServerComesBack restarts the server, with and without a loss, while the auditor runs.
func TestServerComesBack(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.addr = "127.0.0.1:0"
	s.start()
	s.addr = strings.TrimPrefix(s.server.URL(), "nats://")
	s.live()
	loss := s.save()
	dir := folder(t)
	a := s.audit(dir)
	a.reaches(23)
	s.live()
	a.reaches(46)
	s.stop()
	s.start()
	s.live()
	a.reaches(69)
	loss()
	for i := range 60 {
		s.happens(event.Created, fmt.Sprint("new", i))
	}
	eventually(t, "the audit has what is new", func() bool {
		return strings.Contains(check(t, alone(t, dir), "sequence").Text, "up to 83: 129 messages; the stream lost its end 1 time")
	})
	if err := a.ends(); err != nil {
		t.Fatal(err)
	}
	holds(t, s.verify(dir))
}

// TestWaitsForTheStream starts the auditor before there is anything to audit.
func TestWaitsForTheStream(t *testing.T) {
	s := newSite(t)
	if err := s.js.DeleteStream(t.Context(), "NIMBLE"); err != nil {
		t.Fatal(err)
	}
	dir := folder(t)
	a := s.audit(dir)
	eventually(t, "the auditor says what it waits for", func() bool { return a.logs.FilterLevelExact(zap.WarnLevel).Len() > 0 })
	if got := fmt.Sprint(a.logs.FilterLevelExact(zap.WarnLevel).All()[0].ContextMap()["error"]); !strings.HasPrefix(got, "stream NIMBLE does not exist") {
		t.Errorf("it logged %q", got)
	}
	s.stream(func(*jetstream.StreamConfig) {})
	s.live()
	a.reaches(23)
	if got := a.logs.FilterLevelExact(zap.WarnLevel).Len(); got != 1 {
		t.Errorf("it warned %d times of the same, want once", got)
	}
	if err := a.ends(); err != nil {
		t.Fatal(err)
	}
	holds(t, s.verify(dir))
}

// permissions are what an auditor's user needs, as the package comment and the deployment's configuration have them.
var permissions = &natsserver.Permissions{
	Publish: &natsserver.SubjectPermission{Allow: []string{
		"$JS.API.STREAM.INFO.NIMBLE", "$JS.API.STREAM.MSG.GET.NIMBLE",
		"$JS.API.CONSUMER.CREATE.NIMBLE.>", "$JS.API.CONSUMER.DELETE.NIMBLE.*", "$JS.API.CONSUMER.INFO.NIMBLE.*", "$JS.API.CONSUMER.MSG.NEXT.NIMBLE.*",
		"$JS.ACK.NIMBLE.>",
	}},
	Subscribe: &natsserver.SubjectPermission{Allow: []string{"_INBOX_NIMBLE_BRIDGE.>"}},
}

func TestPermissions(t *testing.T) {
	auditor := &natsserver.User{Username: "audit", Password: "audit", Permissions: permissions}
	opts := &natsserver.Options{
		DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
		Users: []*natsserver.User{{Username: "bridge", Password: "bridge"}, auditor},
	}
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("server not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.UserInfo("bridge", "bridge"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s := &site{t: t, nc: nc, revisions: make(map[string]uint64), alive: make(map[string]bool)}
	if s.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	s.dial = publisher.ConnectConfig{InProcess: srv, User: "audit", Password: "audit"}
	s.stream(func(*jetstream.StreamConfig) {})
	s.live()
	if err := s.handle().DeleteMsg(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	dir := folder(t)
	s.audited(dir)
	s.live()
	s.audited(dir)
	holds(t, s.verify(dir))
	if _, err := s.js.Publish(t.Context(), "nimble.acme.contact.created.x", nil); err != nil {
		t.Fatal(err)
	}
	conn := s.connect()
	defer conn.Close()
	denied := make(chan error, 1)
	conn.NATS().SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err })
	if err := conn.NATS().Publish("nimble.acme.contact.created.y", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-denied:
		if !strings.Contains(err.Error(), "Permissions Violation") {
			t.Errorf("an auditor that publishes gets %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("an auditor may publish")
	}
}

// TestMissingPermission names what is missing.
func TestMissingPermission(t *testing.T) {
	auditor := &natsserver.User{Username: "audit", Password: "audit", Permissions: &natsserver.Permissions{
		Publish:   &natsserver.SubjectPermission{Allow: []string{"$JS.API.STREAM.INFO.NIMBLE"}},
		Subscribe: permissions.Subscribe,
	}}
	srv, err := natsserver.NewServer(&natsserver.Options{
		DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
		Users: []*natsserver.User{{Username: "bridge", Password: "bridge"}, auditor},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}()
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.UserInfo("bridge", "bridge"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s := &site{t: t, nc: nc, revisions: make(map[string]uint64), alive: make(map[string]bool)}
	if s.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	s.dial = publisher.ConnectConfig{InProcess: srv, User: "audit", Password: "audit"}
	s.stream(func(*jetstream.StreamConfig) {})
	a := s.audit(folder(t), func(c *audit.Config) { c.Timeout = time.Second })
	eventually(t, "the auditor warns", func() bool { return a.logs.FilterMessageSnippet("interrupted").Len() > 0 })
	if got := fmt.Sprint(a.logs.FilterMessageSnippet("interrupted").All()[0].ContextMap()["error"]); !strings.Contains(got, "$JS.API.CONSUMER.DELETE.NIMBLE.audit-test") {
		t.Errorf("it logged %q, want the missing permission", got)
	}
	if err := a.ends(); err != nil {
		t.Error(err)
	}
}
