package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

func TestMain(m *testing.M) {
	// The server does not wait for what sets up a stream's source; it ends by itself, after a time-out.
	// And one that is shut down in the middle of an atomic batch leaves the goroutines of the batch's staging store behind.
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction(server+".(*stream).trySetupSourceConsumer.func3"),
		goleak.IgnoreAnyFunction(server+".(*msgBlock).flushLoop"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
	)
}

// startServer starts an embedded server that ends with the test.
func startServer(t testing.TB) *embedded.Server {
	t.Helper()
	return serverIn(t, t.TempDir(), "")
}

func serverIn(t testing.TB, dir, addr string) *embedded.Server {
	t.Helper()
	srv, err := embedded.Start(embedded.Options{Dir: dir, Addr: addr, MaxStore: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	return srv
}

func connect(t testing.TB, cfg publisher.ConnectConfig) *publisher.Connection {
	t.Helper()
	cfg.Name, cfg.ReconnectWait = "test", 20*time.Millisecond
	conn, err := publisher.Connect(context.Background(), cfg, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func quiet(t testing.TB) *zap.Logger {
	if testing.Verbose() {
		return zaptest.NewLogger(t)
	}
	return zap.NewNop()
}

func config() publisher.Config {
	return publisher.Config{Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Manage: true}
}

// open opens a publisher on an embedded server, changed as given.
func open(t testing.TB, srv *embedded.Server, change ...func(*publisher.Config)) *publisher.Publisher {
	t.Helper()
	p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()}), change...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryOpen(t testing.TB, conn *publisher.Connection, change ...func(*publisher.Config)) (*publisher.Publisher, error) {
	t.Helper()
	cfg := config()
	for _, c := range change {
		c(&cfg)
	}
	return publisher.Open(context.Background(), conn, cfg, quiet(t))
}

var epoch = time.Date(2026, 3, 1, 10, 15, 0, 123456000, time.UTC)

// changeOf is a change of a contact whose content is told by version, and follows the given sequence.
func changeOf(kind poller.Kind, id string, revision, previous uint64) poller.Change {
	updated := epoch.Add(time.Duration(revision) * time.Minute)
	raw := fmt.Sprintf(`{"id":%q,"record_type":"person","created":"2026-03-01T10:15:00.123456","updated":%q,"fields":{"first name":[{"value":"Ines %d","modifier":""}]},"tags":[]}`,
		id, updated.Format("2006-01-02T15:04:05.000000"), revision)
	c := poller.Change{
		Kind:     kind,
		Contact:  nimble.Contact{ID: id, RecordType: "person", Created: epoch, Updated: updated, Raw: jsontext.Value(raw)},
		Revision: revision, Previous: previous,
		Observed: updated.Add(12 * time.Second), FoundBy: poller.FoundByPoll,
	}
	var err error
	if c.Fingerprint, err = poller.FingerprintOf(c.Contact.Raw); err != nil {
		panic(err)
	}
	switch kind {
	case poller.Updated:
		c.Changes = map[string]poller.Difference{"fields.first name": {Before: jsontext.Value(`[{"value":"Ines"}]`), After: nil}}
	case poller.Deleted:
		c.Reason = poller.NotFound
	case poller.Snapshot, poller.Created:
	}
	return c
}

// known is what a change makes known once it is stored.
func known(c poller.Change, sequence uint64) poller.Known {
	return poller.Known{
		ID: c.Contact.ID, Fingerprint: c.Fingerprint, Revision: c.Revision, Sequence: sequence,
		Created: c.Contact.Created, Updated: c.Contact.Updated, Deleted: c.Kind == poller.Deleted,
	}
}

func appendAll(t testing.TB, p *publisher.Publisher, changes ...poller.Change) []uint64 {
	t.Helper()
	sequences, err := p.Append(t.Context(), changes)
	if err != nil {
		t.Fatal(err)
	}
	return sequences
}

// load loads what is known of every contact, and expects a reader to know the same.
func load(t testing.TB, p *publisher.Publisher) map[string]poller.Known {
	t.Helper()
	before := read(t, p)
	all := loadOnly(t, p)
	// What was lost and appended again has other sequences since.
	if diff := cmp.Diff(all, before, cmpopts.IgnoreFields(poller.Known{}, "Sequence")); diff != "" {
		t.Errorf("a reader knows other things (-publisher +reader):\n%s", diff)
	}
	return all
}

func loadOnly(t testing.TB, p *publisher.Publisher) map[string]poller.Known {
	t.Helper()
	all := make(map[string]poller.Known)
	err := p.Load(t.Context(), func(k poller.Known) {
		if _, twice := all[k.ID]; twice {
			t.Errorf("contact %s told twice", k.ID)
		}
		all[k.ID] = k
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// read reads what is known of every contact, without writing.
func read(t testing.TB, p *publisher.Publisher) map[string]poller.Known {
	t.Helper()
	r, err := publisher.ReaderOf(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]poller.Known)
	if err := r.Load(t.Context(), func(k poller.Known) { all[k.ID] = k }); err != nil {
		t.Fatal(err)
	}
	return all
}

// messages reads the whole stream.
func messages(t testing.TB, js jetstream.JetStream, stream string) []*jetstream.RawStreamMsg {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	state := s.CachedInfo().State
	var all []*jetstream.RawStreamMsg
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			continue // Removed.
		}
		all = append(all, m)
	}
	return all
}

func TestAppendStoresEachChangeAsOneEvent(t *testing.T) {
	p := open(t, startServer(t))
	created := changeOf(poller.Created, "a1", 1, 0)
	if diff := cmp.Diff([]uint64{1, 2}, appendAll(t, p, created, changeOf(poller.Snapshot, "b2", 1, 0))); diff != "" {
		t.Error(diff)
	}
	updated := changeOf(poller.Updated, "a1", 2, 1)
	if diff := cmp.Diff([]uint64{3}, appendAll(t, p, updated)); diff != "" {
		t.Error(diff)
	}
	got := messages(t, p.JetStream(), "NIMBLE")
	if len(got) != 3 {
		t.Fatalf("%d messages, want 3", len(got))
	}
	m := got[2]
	if m.Subject != "nimble.acme.contact.updated.a1" {
		t.Errorf("subject %s", m.Subject)
	}
	ev, err := event.Decode(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	if ev.Data.Revision != 2 || ev.Subject != "a1" || !ev.Time.Equal(updated.Contact.Updated) || string(ev.Data.Contact) != string(updated.Contact.Raw) {
		t.Errorf("event %+v", ev)
	}
	h, err := event.ParseHeaders(m.Header)
	if err != nil {
		t.Fatal(err)
	}
	want := event.Headers{
		ID: ev.ID, Verb: event.Updated, Revision: 2, Fingerprint: updated.Fingerprint.String(),
		Created: updated.Contact.Created, Updated: updated.Contact.Updated, ChangedKeys: []string{"fields.first name"},
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
	if got := m.Header.Get("Nimble-Changed"); got != "fields.first%20name" {
		t.Errorf("Nimble-Changed %q", got)
	}
}

func TestLoadTellsEveryContactsLastEvent(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	if got := load(t, p); len(got) != 0 {
		t.Errorf("an empty stream tells %v", got)
	}
	want := make(map[string]poller.Known)
	var changes []poller.Change
	for i := range 50 {
		changes = append(changes, changeOf(poller.Snapshot, "c"+strconv.Itoa(i), 1, 0))
	}
	sequences := appendAll(t, p, changes...)
	for i, c := range changes {
		want[c.Contact.ID] = known(c, sequences[i])
	}
	for i := 0; i < 50; i += 7 {
		c := changeOf(poller.Updated, "c"+strconv.Itoa(i), 2, sequences[i])
		if i%2 == 1 {
			c = changeOf(poller.Deleted, "c"+strconv.Itoa(i), 2, sequences[i])
		}
		want[c.Contact.ID] = known(c, appendAll(t, p, c)[0])
	}
	if diff := cmp.Diff(want, load(t, p)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, load(t, open(t, srv))); diff != "" {
		t.Error("a second publisher:", diff)
	}
}

func TestBucketIsReadByTheKeyValueAPI(t *testing.T) {
	p := open(t, startServer(t))
	js := p.JetStream()
	kv, err := js.KeyValue(t.Context(), "nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := kv.WatchAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Stop() }()
	if first := <-watcher.Updates(); first != nil {
		t.Fatalf("an empty bucket has %v", first)
	}
	expect := func(key string, op jetstream.KeyValueOp) {
		t.Helper()
		select {
		case e := <-watcher.Updates():
			if e.Key() != key || e.Operation() != op {
				t.Errorf("watched %s %v, want %s %v", e.Key(), e.Operation(), key, op)
			}
		case <-time.After(patience):
			t.Fatalf("watcher did not see %s %v", key, op)
		}
	}
	appendAll(t, p, changeOf(poller.Created, "a1", 1, 0), changeOf(poller.Created, "b2", 1, 0))
	expect("acme.a1", jetstream.KeyValuePut)
	expect("acme.b2", jetstream.KeyValuePut)
	appendAll(t, p, changeOf(poller.Deleted, "b2", 2, 2))
	expect("acme.b2", jetstream.KeyValueDelete)
	entry, err := kv.Get(t.Context(), "acme.a1")
	if err != nil {
		t.Fatal(err)
	}
	if ev, err := event.Decode(entry.Value()); err != nil || ev.Subject != "a1" || ev.Verb() != event.Created {
		t.Errorf("entry %s: %v", entry.Value(), err)
	}
	if _, err := kv.Get(t.Context(), "acme.b2"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("a deleted contact's key: %v", err)
	}
	keys, err := kv.Keys(t.Context())
	if err != nil || !slices.Equal(keys, []string{"acme.a1"}) {
		t.Errorf("keys %v, %v", keys, err)
	}
	lister, err := kv.ListKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key := range lister.Keys() {
		if key != "acme.a1" {
			t.Errorf("listed %s", key)
		}
	}
	history, err := kv.History(t.Context(), "acme.b2")
	if err != nil || len(history) != 1 {
		t.Errorf("history %v, %v", history, err)
	}
	status, err := kv.Status(t.Context())
	if err != nil || status.Bucket() != "nimble-contacts" || status.Values() != 2 {
		t.Errorf("status %v, %v", status, err)
	}
	var names []string
	for name := range js.KeyValueStoreNames(t.Context()).Name() {
		names = append(names, name)
	}
	if !slices.Contains(names, "nimble-contacts") {
		t.Errorf("buckets listed: %v", names)
	}
	// Nobody but NATS writes there.
	if _, err := kv.Put(t.Context(), "acme.a1", []byte("x")); err == nil {
		t.Error("anybody may write to the bucket")
	}
}
