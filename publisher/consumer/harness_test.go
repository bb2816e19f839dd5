package consumer_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(otherProcess) != "" {
		os.Exit(beOtherProcess())
	}
	if err := flag.Set("test.parallel", "8"); err != nil { // They wait for servers' clocks most of the time.
		panic(err)
	}
	// What the server leaves behind is not ours.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*stream).trySetupSourceConsumer.func3"))
}

const (
	account = "acme"
	stream  = "NIMBLE"
	prefix  = "nimble"
	bucket  = "nimble-contacts"
	dead    = "nimble-dead"
)

// world is a server with the bridge's stream and bucket, that can be restarted.
type world struct {
	t   testing.TB
	dir string
	// addr is where other processes connect, if there are any.
	addr string
	js   jetstream.JetStream

	mu  sync.Mutex
	srv *embedded.Server
	// conns are the connections made through this world.
	conns []net.Conn // Those of fragile.

	revisions map[string]uint64
}

func newWorld(t testing.TB) *world { return newWorldAt(t, "") }

// newWorldAt is a world for other processes too, unless addr is empty.
func newWorldAt(t testing.TB, addr string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), addr: addr, revisions: make(map[string]uint64)}
	w.start()
	t.Cleanup(w.stop)
	conn, err := publisher.Connect(t.Context(), publisher.ConnectConfig{InProcess: w, Name: "test"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := publisher.Open(t.Context(), conn, publisher.Config{Account: account, Stream: stream, Prefix: prefix, Bucket: bucket, Manage: true}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	w.js = w.connectTo(w)
	return w
}

func (w *world) start() {
	w.t.Helper()
	srv, err := embedded.Start(embedded.Options{Dir: w.dir, Addr: w.addr})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.srv = srv
}

func (w *world) stop() {
	w.mu.Lock()
	srv := w.srv
	w.srv = nil
	w.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
	}
}

// InProcessConn implements [nats.InProcessConnProvider] with whatever server runs at present.
func (w *world) InProcessConn() (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.srv == nil {
		return nil, net.ErrClosed
	}
	return w.srv.InProcess().InProcessConn()
}

// fragile is the world for those whose connections are cut.
type fragile struct{ *world }

func (f fragile) InProcessConn() (net.Conn, error) {
	conn, err := f.world.InProcessConn()
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.conns = append(f.conns, conn)
	}
	return conn, err
}

// cut ends every fragile connection; the clients come back.
func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// connect returns a client of its own, as another process has one.
func (w *world) connect() jetstream.JetStream { return w.connectTo(fragile{w}) }

func (w *world) connectTo(server nats.InProcessConnProvider) jetstream.JetStream {
	w.t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(server), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		w.t.Fatal(err)
	}
	return js
}

// publish stores the contact's next event as the bridge does, and returns its sequence.
func (w *world) publish(contact string, verb event.Verb, changed ...string) uint64 {
	w.t.Helper()
	w.revisions[contact]++
	revision := w.revisions[contact]
	fingerprint := fmt.Sprintf("1:%032x", revision)
	h := event.Headers{
		ID: event.ContactEventID(account, contact, revision, verb, fingerprint), Verb: verb, Revision: revision, Fingerprint: fingerprint, ChangedKeys: changed,
	}
	e := &event.Event{
		Envelope: event.Envelope{ID: h.ID, Source: event.Source(account), Type: verb.Type(), Subject: contact, Time: time.Now()},
		Data: event.Data{
			Account: account, RecordType: "person", Revision: revision, Observed: time.Now(), FoundBy: "poll",
			Summary: event.Summary{Name: "Contact " + contact},
			Contact: jsontext.Value(`{"id":` + strconv.Quote(contact) + `}`),
		},
	}
	for _, key := range changed {
		if e.Data.Changes == nil {
			e.Data.Changes = make(map[string]event.Change)
		}
		e.Data.Changes[key] = event.Change{After: jsontext.Value(`"x"`)}
	}
	msg := &nats.Msg{
		Subject: event.Subject{Prefix: prefix, Account: account, Verb: verb, ContactID: contact}.String(),
		Header:  nats.Header(h.Map()), Data: e.Encode(),
	}
	// As the bridge's own messages have it, which a letter must not repeat.
	msg.Header.Set("Nats-Expected-Last-Subject-Sequence-Subject", event.ContactSubjects(prefix, account, contact))
	msg.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(w.lastOf(contact), 10))
	return w.send(msg)
}

func (w *world) lastOf(contact string) uint64 {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), stream)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(w.t.Context(), event.ContactSubjects(prefix, account, contact))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return m.Sequence
}

func (w *world) send(msg *nats.Msg) uint64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second) // The library's own 5s are short for a busy machine.
	defer cancel()
	ack, err := w.js.PublishMsg(ctx, msg)
	if err != nil {
		w.t.Fatal(err)
	}
	return ack.Sequence
}

// letters returns the dead letters.
func (w *world) letters() []*jetstream.RawStreamMsg {
	w.t.Helper()
	return w.messages(dead)
}

func (w *world) messages(name string) []*jetstream.RawStreamMsg {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	var found []*jetstream.RawStreamMsg
	for next := uint64(1); ; {
		m, err := s.GetMsg(w.t.Context(), next, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return found
		}
		if err != nil {
			w.t.Fatal(err)
		}
		found, next = append(found, m), m.Sequence+1
	}
}

// outstanding is how many events the server waits for.
func (w *world) outstanding(durable string) (pending uint64, unacknowledged int) {
	w.t.Helper()
	c, err := w.js.Consumer(w.t.Context(), stream, durable)
	if err != nil {
		return 0, -1
	}
	return c.CachedInfo().NumPending, c.CachedInfo().NumAckPending
}

// run is a consumer that runs in the background.
type run struct {
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// consume runs a consumer until stop is called, or the test ends.
func consume(t testing.TB, js jetstream.JetStream, cfg consumer.Config, handle consumer.Handler) *run {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{t: t, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = consumer.Run(ctx, js, cfg, handle)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

func (r *run) stop() error {
	r.t.Helper()
	r.cancel()
	return r.wait()
}

func (r *run) wait() error {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		r.t.Fatal("Run does not return")
	}
	return r.err
}

// crash makes a consumer vanish as a killed process does: its connection goes, with everything it holds.
func crash(js jetstream.JetStream) { js.Conn().Close() }

// diary notes what is handled.
type diary struct {
	mu      sync.Mutex
	entries []entry
}

type entry struct {
	contact     string
	revision    uint64
	try         int
	redelivered bool
}

func (d *diary) note(m *consumer.Delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry{m.Event.Subject, m.Event.Data.Revision, m.Try, m.Redelivered()})
}

func (d *diary) all() []entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries)
}

// of returns the revisions handled of a contact, in order.
func (d *diary) of(contact string) []uint64 {
	var revisions []uint64
	for _, e := range d.all() {
		if e.contact == contact {
			revisions = append(revisions, e.revision)
		}
	}
	return revisions
}

func (d *diary) len() int { return len(d.all()) }

// checkOrder checks that of each contact every revision up to the last was handled, and that nothing was handled after a later revision.
func (d *diary) checkOrder(want map[string]uint64) error {
	var wrong []error
	for contact, last := range want {
		highest := uint64(0)
		for _, revision := range d.of(contact) {
			if revision != highest && revision != highest+1 {
				wrong = append(wrong, fmt.Errorf("contact %s: revision %d was handled after %d", contact, revision, highest))
			}
			highest = max(highest, revision)
		}
		if highest != last {
			wrong = append(wrong, fmt.Errorf("contact %s: handled up to revision %d, want %d", contact, highest, last))
		}
	}
	return errors.Join(wrong...)
}

// eventually waits for a condition.
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

// idle waits until the server waits for nothing.
func (w *world) idle(durable string) {
	w.t.Helper()
	calm := 0 // The server counts a message neither here nor there while it moves it, and none of a durable that is just being made.
	eventually(w.t, "everything is acknowledged", func() bool {
		c, err := w.js.Consumer(w.t.Context(), stream, durable)
		if err != nil || c.CachedInfo().NumWaiting == 0 || c.CachedInfo().NumPending > 0 || c.CachedInfo().NumAckPending > 0 {
			calm = 0
			return false
		}
		calm++
		return calm > 3
	})
}

// quick is a configuration for tests.
func quick(change ...func(*consumer.Config)) consumer.Config {
	log := zap.NewNop()
	if testing.Verbose() {
		log, _ = zap.NewDevelopment()
	}
	cfg := consumer.Config{Log: log, Durable: "test", FirstRetry: 5 * time.Millisecond, LongestRetry: 20 * time.Millisecond, AckWait: time.Second}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}
