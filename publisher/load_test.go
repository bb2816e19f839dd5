package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

// stopSourcing makes the bucket stand still, as a cluster's does for a while after it lost a node.
func stopSourcing(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	s, err := js.Stream(t.Context(), "KV_nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Sources = nil
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// sourceAnew makes NATS source the bucket from the beginning of the stream that is there now. It would do so by itself once it notices that the stream it
// sourced is another one, but that takes it up to a minute; a source in another spelling is new to it, and it begins with that at once.
func sourceAnew(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	cfg := streamConfig(t, js, "KV_nimble-contacts")
	cfg.Sources[0].SubjectTransforms[0].Destination = "$KV.nimble-contacts.$1.$3"
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// bucketHas waits until the bucket has so many entries.
func bucketHas(t testing.TB, js jetstream.JetStream, entries uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d entries in the bucket", entries), func() bool {
		s, err := js.Stream(t.Context(), "KV_nimble-contacts")
		return err == nil && s.CachedInfo().State.Msgs == entries
	})
}

func TestBucketBehindTheStream(t *testing.T) {
	p := open(t, startServer(t))
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0), changeOf(poller.Snapshot, "c3", 1, 0))
	bucketHas(t, p.JetStream(), 3)
	stopSourcing(t, p.JetStream())
	updated, deleted, created := changeOf(poller.Updated, "a1", 2, 1), changeOf(poller.Deleted, "b2", 2, 2), changeOf(poller.Created, "d4", 1, 0)
	appendAll(t, p, updated, deleted, created)

	want := map[string]poller.Known{
		"a1": known(updated, 4), "b2": known(deleted, 5), "c3": known(changeOf(poller.Snapshot, "c3", 1, 0), 3), "d4": known(created, 6),
	}
	if diff := cmp.Diff(want, load(t, p)); diff != "" {
		t.Error(diff)
	}
	if behind, err := p.BucketBehind(t.Context()); err != nil || behind != 3 {
		t.Errorf("the bucket is %d behind, %v; want 3", behind, err)
	}
}

func TestLoadKeepsAccountsApart(t *testing.T) {
	srv := startServer(t)
	acme := open(t, srv)
	other := open(t, srv, func(c *publisher.Config) { c.Account = "other" })
	appendAll(t, acme, changeOf(poller.Snapshot, "a1", 1, 0))
	appendAll(t, other, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	if got := load(t, acme); len(got) != 1 || got["a1"].Sequence != 1 {
		t.Errorf("acme: %v", got)
	}
	if got := load(t, other); len(got) != 2 || got["a1"].Sequence != 2 {
		t.Errorf("other: %v", got)
	}
}

func TestBucketDeleted(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	want := make(map[string]poller.Known)
	for i := range 20 {
		c := changeOf(poller.Snapshot, "c"+strconv.Itoa(i), 1, 0)
		want[c.Contact.ID] = known(c, appendAll(t, p, c)[0])
	}
	if err := p.JetStream().DeleteKeyValue(t.Context(), "nimble-contacts"); err != nil {
		t.Fatal(err)
	}
	p = open(t, srv)
	if diff := cmp.Diff(want, load(t, p)); diff != "" {
		t.Error(diff)
	}
	bucketHas(t, p.JetStream(), 20)
}

func TestLoadRemembersWhatALimitRemoved(t *testing.T) {
	retried := 0
	p := open(t, startServer(t), func(c *publisher.Config) { c.Hooks.Retried = func() { retried++ } })
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	bucketHas(t, p.JetStream(), 2)
	s, err := p.JetStream().Stream(t.Context(), "NIMBLE")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := load(t, p)
	if len(got) != 2 {
		t.Fatalf("known: %v", got)
	}
	// What is gone is known to be gone, so a batch is not refused.
	if sequences := appendAll(t, p, changeOf(poller.Updated, "a1", 2, got["a1"].Sequence), changeOf(poller.Updated, "b2", 2, got["b2"].Sequence)); !slices.Equal(sequences, []uint64{3, 4}) {
		t.Errorf("sequences %v", sequences)
	}
	if retried > 0 {
		t.Error("the batch was refused all the same")
	}
}

func TestBucketAheadOfTheStream(t *testing.T) {
	t.Run("managed", func(t *testing.T) { testLostEvents(t, true) })
	t.Run("unmanaged", func(t *testing.T) { testLostEvents(t, false) })
}

func testLostEvents(t *testing.T, manage bool) {
	managed := func(c *publisher.Config) { c.Manage = manage }
	const contacts = 12
	name := func(i int) string { return "c" + strconv.Itoa(i) }
	sequences := make(map[string]uint64)
	lost := make(map[string]poller.Change)
	srv := powerLoss(t, t.TempDir(), "NIMBLE", func(srv *embedded.Server) {
		p := open(t, srv)
		var changes []poller.Change
		for i := range contacts {
			changes = append(changes, changeOf(poller.Snapshot, name(i), 1, 0))
		}
		for i, seq := range appendAll(t, p, changes...) {
			sequences[name(i)] = seq
		}
		bucketHas(t, p.JetStream(), contacts)
	}, func(srv *embedded.Server) {
		p := open(t, srv)
		load(t, p)
		// Each of these is in the bucket when the stream loses it; the first ones in two revisions, of which the bucket has only the second.
		for i := range 4 {
			sequences[name(i)] = appendAll(t, p, changeOf(poller.Updated, name(i), 2, sequences[name(i)]))[0]
		}
		for i := range 2 {
			lost[name(i)] = changeOf(poller.Updated, name(i), 3, sequences[name(i)])
			sequences[name(i)] = appendAll(t, p, lost[name(i)])[0]
		}
		for i := 2; i < 4; i++ {
			lost[name(i)] = changeOf(poller.Updated, name(i), 2, 0)
		}
		lost["new"] = changeOf(poller.Created, "new", 1, 0)
		appendAll(t, p, lost["new"])
		eventually(t, "the bucket", func() bool {
			behind, err := p.BucketBehind(t.Context())
			return err == nil && behind == 0
		})
	})

	p := open(t, srv, managed)
	before := len(messages(t, p.JetStream(), "NIMBLE"))
	if before != contacts {
		t.Fatalf("the stream has %d events after the power loss, want %d", before, contacts)
	}
	got := load(t, p)
	if len(got) != contacts+1 {
		t.Errorf("%d contacts known, want %d", len(got), contacts+1)
	}
	all := messages(t, p.JetStream(), "NIMBLE")
	if len(all) != before+len(lost) {
		t.Errorf("%d events appended again, want %d", len(all)-before, len(lost))
	}
	for id, c := range lost {
		k := got[id]
		if diff := cmp.Diff(known(c, k.Sequence), k); diff != "" {
			t.Errorf("contact %s: %s", id, diff)
		}
		i := slices.IndexFunc(all, func(m *jetstream.RawStreamMsg) bool { return m.Sequence == k.Sequence })
		if i < 0 {
			t.Errorf("contact %s: no event at %d", id, k.Sequence)
			continue
		}
		ev, err := event.Decode(all[i].Data)
		if err != nil || ev.Subject != id || ev.Data.Revision != c.Revision || ev.ID != all[i].Header.Get(event.HeaderID) {
			t.Errorf("contact %s: event %v, %v", id, ev, err)
		}
		if want := event.ContactEventID("acme", id, c.Revision, event.Verb(c.Kind), c.Fingerprint.String()); ev.ID != want {
			t.Errorf("contact %s: id %s, want %s", id, ev.ID, want)
		}
	}

	if manage {
		// The next event gets a sequence that NATS has passed already, and would not source by itself.
		k := got["c9"]
		c := changeOf(poller.Updated, "c9", k.Revision+1, k.Sequence)
		got["c9"] = known(c, appendAll(t, p, c)[0])
		all = append(all, nil)
		eventually(t, "the bucket entry", func() bool {
			ev, err := lastInBucket(t.Context(), p.JetStream(), "acme.c9")
			return err == nil && ev.Data.Revision == c.Revision
		})
	}

	// The bridge goes on, and its state is exact at every further start.
	for round := range uint64(3) {
		for i := range contacts {
			k := got[name(i)]
			c := changeOf(poller.Updated, name(i), k.Revision+1, k.Sequence)
			got[name(i)] = known(c, appendAll(t, p, c)[0])
		}
		p = open(t, srv, managed)
		if diff := cmp.Diff(got, load(t, p)); diff != "" {
			t.Fatalf("start %d: %s", round, diff)
		}
	}
	if again := len(messages(t, p.JetStream(), "NIMBLE")); again != len(all)+3*contacts {
		t.Errorf("%d events, want %d", again, len(all)+3*contacts)
	}
	if !manage {
		return // Nobody may make NATS source the bucket again then.
	}
	// And NATS has been made to source what it would have passed over.
	for id, k := range got {
		eventually(t, "the bucket entry of "+id, func() bool {
			ev, err := lastInBucket(t.Context(), p.JetStream(), "acme."+id)
			return err == nil && ev.Data.Revision == k.Revision
		})
	}
}

// lastInBucket reads an entry as any client does.
func lastInBucket(ctx context.Context, js jetstream.JetStream, key string) (*event.Event, error) {
	kv, err := js.KeyValue(ctx, "nimble-contacts")
	if err != nil {
		return nil, err
	}
	e, err := kv.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return event.Decode(e.Value())
}

func TestRecreatedStreamIsFilledFromTheBucket(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	want := make(map[string]poller.Known)
	for i := range 10 {
		c := changeOf(poller.Snapshot, "c"+strconv.Itoa(i), 1, 0)
		want[c.Contact.ID] = known(c, appendAll(t, p, c)[0])
	}
	c := changeOf(poller.Updated, "c0", 2, 1)
	want["c0"] = known(c, appendAll(t, p, c)[0])
	eventually(t, "the bucket", func() bool {
		behind, err := p.BucketBehind(t.Context())
		return err == nil && behind == 0
	})
	if err := p.JetStream().DeleteStream(t.Context(), "NIMBLE"); err != nil {
		t.Fatal(err)
	}
	p = open(t, srv)
	got := load(t, p)
	ignoreSequence := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Sequence" }, cmp.Ignore())
	if diff := cmp.Diff(want, got, ignoreSequence); diff != "" {
		t.Error(diff)
	}
	if n := len(messages(t, p.JetStream(), "NIMBLE")); n != 10 {
		t.Errorf("%d events in the new stream, want each contact's last", n)
	}
	for id, k := range got {
		c := changeOf(poller.Updated, id, k.Revision+1, k.Sequence)
		got[id] = known(c, appendAll(t, p, c)[0])
	}
	if diff := cmp.Diff(got, load(t, open(t, srv))); diff != "" {
		t.Error(diff)
	}
}

func TestLoadNoticesABucketOfTwoPasts(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	js := p.JetStream()
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	bucketHas(t, js, 2)
	if err := js.DeleteStream(t.Context(), "NIMBLE"); err != nil {
		t.Fatal(err)
	}
	// This one has not loaded, so it does not notice, and what it appends makes the bucket's newest entry agree with the stream.
	appendAll(t, open(t, srv), changeOf(poller.Snapshot, "c3", 1, 0))
	sourceAnew(t, js)
	bucketHas(t, js, 3)
	p = open(t, srv)
	if err := p.Load(t.Context(), func(poller.Known) {}); !errors.Is(err, poller.ErrConflict) {
		t.Errorf("the first time: error %v, want a conflict", err)
	}
	got := load(t, p)
	if len(got) != 3 {
		t.Errorf("known then: %v", got)
	}
	for id, k := range got {
		appendAll(t, p, changeOf(poller.Updated, id, k.Revision+1, k.Sequence))
	}
}

func TestLoadBelievesTheStreamWhereTheBucketHasForeignEntries(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	c := changeOf(poller.Snapshot, "a1", 1, 0)
	appendAll(t, p, c, changeOf(poller.Snapshot, "b2", 1, 0))
	bucketHas(t, p.JetStream(), 2)
	js := p.JetStream()
	s, err := js.Stream(t.Context(), "KV_nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Subjects = []string{"$KV.nimble-contacts.>"}
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "$KV.nimble-contacts.acme.a1", []byte("scribble")); err != nil {
		t.Fatal(err)
	}
	later := changeOf(poller.Updated, "b2", 2, 2)
	appendAll(t, p, later)
	eventually(t, "the bucket", func() bool {
		behind, err := p.BucketBehind(t.Context())
		return err == nil && behind == 0
	})
	if diff := cmp.Diff(map[string]poller.Known{"a1": known(c, 1), "b2": known(later, 3)}, load(t, p)); diff != "" {
		t.Error(diff)
	}
}

func TestLoadIsCompleteWhenItsConsumersAreLost(t *testing.T) {
	p := open(t, startServer(t), func(c *publisher.Config) { c.AckTimeout = 300 * time.Millisecond })
	const contacts = 8_000
	for i := 0; i < contacts; i += 1000 {
		var changes []poller.Change
		for j := range 1000 {
			changes = append(changes, changeOf(poller.Snapshot, "c"+strconv.Itoa(i+j), 1, 0))
		}
		appendAll(t, p, changes...)
	}
	js := p.JetStream()
	ctx, cancel := context.WithCancel(t.Context())
	var deleted atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && deleted.Load() < 10 {
			for _, stream := range []string{"KV_nimble-contacts", "NIMBLE"} {
				s, err := js.Stream(ctx, stream)
				if err != nil {
					continue
				}
				for name := range s.ConsumerNames(ctx).Name() {
					if js.DeleteConsumer(ctx, stream, name) == nil {
						deleted.Add(1)
					}
				}
			}
		}
	}()
	for began := time.Now(); deleted.Load() == 0 && time.Since(began) < patience; {
		if got := len(load(t, p)); got != contacts {
			t.Errorf("%d contacts known, want %d", got, contacts)
		}
	}
	cancel()
	<-done
	if deleted.Load() == 0 {
		t.Error("no consumer was lost")
	}
}

func TestLoadAsksForNoMoreThanThereIs(t *testing.T) {
	p := open(t, startServer(t))
	const contacts = 10_000 // Several batches.
	for i := 0; i < contacts; i += 1000 {
		var changes []poller.Change
		for j := range 1000 {
			changes = append(changes, changeOf(poller.Snapshot, "c"+strconv.Itoa(i+j), 1, 0))
		}
		appendAll(t, p, changes...)
	}
	bucketHas(t, p.JetStream(), contacts)
	nc := p.JetStream().Conn()
	created, err := nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.CREATED.KV_nimble-contacts.>")
	if err != nil {
		t.Fatal(err)
	}
	requests, err := nc.SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.KV_nimble-contacts.>")
	if err != nil {
		t.Fatal(err)
	}
	const loads = 5
	for range loads {
		if got := len(loadOnly(t, p)); got != contacts {
			t.Errorf("%d contacts known, want %d", got, contacts)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := created.Pending(); err != nil || n != loads {
		t.Errorf("%d loads used %d consumers, %v; more than one each means that consumers were given up", loads, n, err)
	}
	// Requests that are open side by side pile up in the server, which slows it down, and then refuses them.
	asked, largest := 0, 0
	for n, _, _ := requests.Pending(); n > 0; n-- {
		msg, err := requests.NextMsg(time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var request struct {
			Batch int `json:"batch"`
		}
		if err := json.Unmarshal(msg.Data, &request); err != nil {
			t.Fatal(err)
		}
		asked, largest = asked+request.Batch, max(largest, request.Batch)
	}
	if asked < loads*contacts || asked >= loads*(contacts+largest) {
		t.Errorf("asked for %d messages in batches of %d to read %d", asked, largest, loads*contacts)
	}
}

func TestLastReturnsTheDocumentOfTheLastEvent(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	c := changeOf(poller.Snapshot, "a1", 1, 0)
	appendAll(t, p, c)
	k := load(t, p)["a1"]
	is := func(want jsontext.Value, k poller.Known) {
		t.Helper()
		got, err := p.Last(t.Context(), k)
		if err != nil || string(got) != string(want) {
			t.Errorf("Last: %s, %v; want %s", got, err, want)
		}
	}
	is(c.Contact.Raw, k)

	bucketHas(t, p.JetStream(), 1)
	s, err := p.JetStream().Stream(t.Context(), "NIMBLE")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(c.Contact.Raw, k) // From the bucket now.

	k.Revision, k.Sequence = 2, 2
	if _, err := p.Last(t.Context(), k); !errors.Is(err, poller.ErrNotRecorded) {
		t.Errorf("Last of an event that is nowhere: %v", err)
	}
}

func TestProgressIsKept(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	if got, err := p.Progress(t.Context()); err != nil || got != (poller.Progress{}) {
		t.Errorf("nothing saved: %v, %v", got, err)
	}
	met := poller.Progress{FirstMet: epoch}
	settled := poller.Progress{FirstMet: epoch, SnapshotFinished: epoch.Add(time.Minute), Settled: epoch.Add(time.Hour)}
	for _, want := range []poller.Progress{met, settled, settled} {
		if err := p.SaveProgress(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if got, err := open(t, srv).Progress(t.Context()); err != nil || !cmp.Equal(got, want) {
			t.Errorf("saved %v, got %v, %v", want, got, err)
		}
	}
	other := open(t, srv, func(c *publisher.Config) { c.Account = "other" })
	if got, err := other.Progress(t.Context()); err != nil || got != (poller.Progress{}) {
		t.Errorf("another account: %v, %v", got, err)
	}
	// Another bridge that met the account first is not overruled.
	if err := p.SaveProgress(t.Context(), poller.Progress{FirstMet: epoch.Add(time.Second)}); !errors.Is(err, poller.ErrConflict) {
		t.Errorf("a second first meeting: %v, want a conflict", err)
	}
}

// What is saved is read by versions that know more of it, or less.
func TestProgressOfOtherVersionsIsRead(t *testing.T) {
	p := open(t, startServer(t))
	state, err := p.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		saved string
		want  poller.Progress
	}{
		"older": {`{"first_met":"2026-03-01T10:00:00Z"}`, poller.Progress{FirstMet: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)}},
		"newer": {`{"first_met":"2026-03-01T10:00:00Z","held":3,"of_tomorrow":{"a":[1]}}`, poller.Progress{FirstMet: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), Held: 3}},
	} {
		if _, err := state.Put(t.Context(), "acme.progress", []byte(tt.saved)); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Progress(t.Context()); err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, tt.want)
		}
	}
}

func TestRecordIsRejectedOnce(t *testing.T) {
	srv := startServer(t)
	p, q := open(t, srv), open(t, srv)
	odd := poller.Rejection{ContactID: "a1", Reason: "no usable id", Record: jsontext.Value(`{"id":"a1"}`), Observed: epoch}
	odder := poller.Rejection{Reason: "not a JSON object", Record: jsontext.Value("\xff{"), Observed: epoch}
	// The server forgets message ids after a while.
	short := streamConfig(t, p.JetStream(), "NIMBLE")
	short.Duplicates = 100 * time.Millisecond
	if _, err := p.JetStream().UpdateStream(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*publisher.Publisher{p, q, p, open(t, srv, func(c *publisher.Config) { c.Manage = false })} {
		<-time.After(250 * time.Millisecond)
		if err := p.Reject(t.Context(), []poller.Rejection{odd, odd, odder}); err != nil {
			t.Fatal(err)
		}
	}
	got := messages(t, p.JetStream(), "NIMBLE")
	if len(got) != 2 {
		t.Fatalf("%d notices, want 2", len(got))
	}
	first, err := event.DecodeRejected(got[0].Data)
	if err != nil || first.Data.ContactID != "a1" || string(first.Data.Record) != `{"id":"a1"}` || got[0].Subject != "nimble.acme.bridge.rejected" {
		t.Errorf("notice %v, %v", first, err)
	}
	second, err := event.DecodeRejected(got[1].Data)
	if err != nil || string(second.Data.Record) != "\"\ufffd{\"" {
		t.Errorf("notice %s, %v", got[1].Data, err)
	}
	if got := load(t, p); len(got) != 0 {
		t.Errorf("rejected records are known as contacts: %v", got)
	}
}

// TestRemovedEventsStayRemovedWhenTheStreamHasLostItsEnd has an operator remove a contact's last event, and then a power failure take what came after it. What was lost is
// appended again; what was removed is not, although the bucket has both.
func TestRemovedEventsStayRemovedWhenTheStreamHasLostItsEnd(t *testing.T) {
	const contacts = 12
	gone := changeOf(poller.Updated, "c11", 2, contacts)
	lost := changeOf(poller.Updated, "c0", 2, 1)
	srv := powerLoss(t, t.TempDir(), "NIMBLE", func(srv *embedded.Server) {
		p := open(t, srv)
		for i := range contacts {
			appendAll(t, p, changeOf(poller.Snapshot, "c"+strconv.Itoa(i), 1, 0))
		}
		appendAll(t, p, gone, changeOf(poller.Updated, "c1", 2, 2))
		eventually(t, "the bucket", func() bool {
			behind, err := p.BucketBehind(t.Context())
			return err == nil && behind == 0
		})
		s, err := p.JetStream().Stream(t.Context(), "NIMBLE")
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range []uint64{contacts + 1, contacts + 2} { // Its other event stays.
			if err := s.DeleteMsg(t.Context(), seq); err != nil {
				t.Fatal(err)
			}
		}
	}, func(srv *embedded.Server) {
		p := open(t, srv)
		load(t, p)
		appendAll(t, p, lost)
		eventually(t, "the bucket", func() bool {
			behind, err := p.BucketBehind(t.Context())
			return err == nil && behind == 0
		})
	})
	for round := range 3 {
		p := open(t, srv)
		got := load(t, p)
		for _, c := range []poller.Change{gone, lost} {
			if diff := cmp.Diff(known(c, got[c.Contact.ID].Sequence), got[c.Contact.ID]); diff != "" {
				t.Errorf("start %d, contact %s: %s", round, c.Contact.ID, diff)
			}
		}
		if n := len(messages(t, p.JetStream(), "NIMBLE")); n != contacts+1 {
			t.Errorf("start %d: %d events, want those that stayed and the lost one", round, n)
		}
	}
}
