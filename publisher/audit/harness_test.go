package audit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"nimble-bridge/publisher"
	"nimble-bridge/publisher/audit"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// site is a NATS server with an event stream, and somebody who publishes to it.
type site struct {
	t      testing.TB
	dir    string
	server *embedded.Server
	// addr is where the server listens; empty: nowhere. dial is how auditors connect, if not to that server.
	addr string
	dial publisher.ConnectConfig
	js   jetstream.JetStream
	nc   *nats.Conn
	// revisions has each contact's last revision, alive those that are not deleted.
	revisions map[string]uint64
	alive     map[string]bool
}

// newSite starts a server with an empty stream.
func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), revisions: make(map[string]uint64), alive: make(map[string]bool)}
	s.start()
	s.stream(func(*jetstream.StreamConfig) {})
	t.Cleanup(s.stop)
	return s
}

func (s *site) start() {
	s.t.Helper()
	var err error
	if s.server, err = embedded.Start(embedded.Options{Dir: s.dir, Addr: s.addr}); err != nil {
		s.t.Fatal(err)
	}
	if s.nc, err = s.server.Conn(); err != nil {
		s.t.Fatal(err)
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) stop() {
	s.nc.Close()
	s.server.Shutdown()
}

// stream makes the stream.
func (s *site) stream(change func(*jetstream.StreamConfig)) {
	s.t.Helper()
	cfg := jetstream.StreamConfig{Name: "NIMBLE", Subjects: []string{"nimble.*.contact.*.*", "nimble.*.bridge.*"}}
	change(&cfg)
	if _, err := s.js.CreateStream(s.t.Context(), cfg); err != nil {
		s.t.Fatal(err)
	}
}

// connect returns a connection as the program has it.
func (s *site) connect() *publisher.Connection {
	s.t.Helper()
	to := s.dial
	switch {
	case to.InProcess != nil:
	case s.addr != "":
		to.URLs = []string{s.server.URL()}
	default:
		to.InProcess = s.server.InProcess()
	}
	to.ReconnectWait = 20 * time.Millisecond
	conn, err := publisher.Connect(s.t.Context(), to, zap.NewNop())
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// publish stores a message and returns its sequence.
func (s *site) publish(msg *nats.Msg) uint64 {
	s.t.Helper()
	ack, err := s.js.PublishMsg(s.t.Context(), msg)
	if err != nil {
		s.t.Fatal(err)
	}
	return ack.Sequence
}

// happens stores the next event of a contact.
func (s *site) happens(verb event.Verb, id string) uint64 {
	s.t.Helper()
	return s.publish(s.event(verb, id))
}

func (s *site) event(verb event.Verb, id string) *nats.Msg {
	s.revisions[id]++
	s.alive[id] = verb != event.Deleted
	return eventOf(verb, id, s.revisions[id])
}

// eventOf makes an event's message.
func eventOf(verb event.Verb, id string, revision uint64) *nats.Msg {
	at := time.Date(2026, 3, 1, 10, 15, 0, 0, time.UTC).Add(time.Duration(revision) * time.Minute)
	e := &event.Event{
		Envelope: event.Envelope{
			ID: event.ContactEventID("acme", id, revision, verb, "1:00"), Source: event.Source("acme"), Type: verb.Type(), Subject: id, Time: at,
		},
		Data: event.Data{
			Account: "acme", RecordType: "person", Revision: revision, Observed: at, FoundBy: "poll",
			Summary: event.Summary{Name: "Tomasz " + id, Emails: []string{id + "@brandt.example"}},
			Contact: fmt.Appendf(nil, `{"id": "%s", "note": "revision %d, \"quoted\", 9007199254740993"}`, id, revision),
		},
	}
	h := event.Headers{ID: e.ID, Verb: verb, Revision: revision, Fingerprint: "1:00", Created: at, Updated: at}
	if verb == event.Updated {
		h.ChangedKeys = []string{"note"}
		e.Data.Changes = map[string]event.Change{"note": {After: []byte(`"x"`)}}
	}
	subject := event.Subject{Prefix: "nimble", Account: "acme", Verb: verb, ContactID: id}
	return &nats.Msg{Subject: subject.String(), Header: nats.Header(h.Map()), Data: e.Encode()}
}

// erase stores the event that an erasure leaves.
func (s *site) erase(id string) uint64 {
	s.t.Helper()
	m := s.event(event.Deleted, id)
	e, err := event.Decode(m.Data)
	if err != nil {
		s.t.Fatal(err)
	}
	e.Data.Erased, e.Data.Reason, e.Data.Summary, e.Data.Contact = true, "erased", event.Summary{}, []byte(`{"id":"`+id+`"}`)
	m.Data = e.Encode()
	return s.publish(m)
}

// receipt stores a receipt for the contacts that are alive, and some more.
func (s *site) receipt(more int) uint64 {
	s.t.Helper()
	n := more
	for _, alive := range s.alive {
		if alive {
			n++
		}
	}
	at := time.Now()
	r := &event.Reconciled{
		Envelope: event.Envelope{ID: event.ReconciledEventID("acme", at), Source: event.Source("acme"), Type: event.ReconciledType, Time: at},
		Data:     event.ReconciledData{Contacts: n, Requests: 2, Method: "count"},
	}
	return s.publish(&nats.Msg{Subject: event.ReconciledSubject("nimble", "acme"), Header: nats.Header{event.HeaderID: {r.ID}}, Data: r.Encode()})
}

// live stores a short history: ten contacts, an edit of each, two deletions and a receipt; 23 messages.
func (s *site) live() {
	s.t.Helper()
	for i := range 10 {
		s.happens(event.Snapshot, fmt.Sprint("c", i))
	}
	for i := range 10 {
		s.happens(event.Updated, fmt.Sprint("c", i))
	}
	s.happens(event.Deleted, "c3")
	s.happens(event.Deleted, "c4")
	s.receipt(0)
}

// auditing is an auditor that runs.
type auditing struct {
	t    testing.TB
	site *site
	cfg  audit.Config
	conn *publisher.Connection
	stop context.CancelFunc
	done chan error
	logs *observer.ObservedLogs
}

// audit starts an auditor.
func (s *site) audit(dir string, change ...func(*audit.Config)) *auditing {
	s.t.Helper()
	cfg := audit.Config{Dir: dir, Stream: "NIMBLE", Durable: "audit-test"}
	for _, c := range change {
		c(&cfg)
	}
	ctx, stop := context.WithCancel(context.Background())
	core, logs := observer.New(zap.InfoLevel)
	a := &auditing{t: s.t, site: s, cfg: cfg, conn: s.connect(), stop: stop, done: make(chan error, 1), logs: logs}
	go func() {
		a.done <- audit.Run(ctx, a.conn, cfg, zap.New(core))
		a.conn.Close()
	}()
	s.t.Cleanup(stop)
	return a
}

// reaches waits until the auditor has acknowledged a sequence.
func (a *auditing) reaches(sequence uint64) {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("sequence %d is acknowledged", sequence), func() bool {
		select {
		case err := <-a.done:
			a.t.Fatalf("the auditor has ended: %v", err)
		default:
		}
		// Before the auditor has made its consumer, there may be an earlier one.
		return a.logs.FilterMessage("auditing").Len() > 0 && a.site.acknowledged(a.cfg.Durable) >= sequence
	})
}

// acknowledged is how far a durable consumer is.
func (s *site) acknowledged(durable string) uint64 {
	consumer, err := s.js.Consumer(s.t.Context(), "NIMBLE", durable)
	if err != nil {
		return 0
	}
	return consumer.CachedInfo().AckFloor.Stream
}

// last is the stream's last sequence.
func (s *site) last() uint64 {
	s.t.Helper()
	stream, err := s.js.Stream(s.t.Context(), "NIMBLE")
	if err != nil {
		s.t.Fatal(err)
	}
	return stream.CachedInfo().State.LastSeq
}

// ends stops the auditor and returns how it ended.
func (a *auditing) ends() error {
	a.t.Helper()
	a.stop()
	select {
	case err := <-a.done:
		return err
	case <-time.After(20 * time.Second):
		a.t.Fatal("the auditor does not end")
		return nil
	}
}

// audited runs an auditor until it has everything.
func (s *site) audited(dir string, change ...func(*audit.Config)) *auditing {
	s.t.Helper()
	a := s.audit(dir, change...)
	a.reaches(s.last())
	if err := a.ends(); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// verify verifies a log against itself and the stream.
func (s *site) verify(dir string, anchors ...audit.Hash) *audit.Report {
	s.t.Helper()
	conn := s.connect()
	defer conn.Close()
	report, err := audit.Verify(s.t.Context(), audit.VerifyOptions{Dir: dir, Conn: conn, Durable: "audit-test", Anchors: anchors})
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

// alone verifies a log against itself.
func alone(t testing.TB, dir string, anchors ...audit.Hash) *audit.Report {
	t.Helper()
	report, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Anchors: anchors})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// folder returns the path of a folder for a log.
func folder(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "log")
}

// text is a report for people.
func text(r *audit.Report) string {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%d %s: %s\n", c.Result, c.Name, c.Text)
		for _, f := range c.Faults {
			fmt.Fprintf(&b, "    %s\n", f)
		}
	}
	return b.String()
}

// holds fails unless everything about a log holds.
func holds(t testing.TB, r *audit.Report) {
	t.Helper()
	if !r.Holds() {
		t.Errorf("the log does not hold:\n%s", text(r))
	}
}

// check returns one check of a report.
func check(t testing.TB, r *audit.Report, name string) audit.Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no check %q", name)
	return audit.Check{}
}

// names returns the names of a log's files.
func names(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "audit-*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}

// linesOf reads a file's lines.
func linesOf(t testing.TB, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(content), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}
