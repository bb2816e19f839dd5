package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

func TestAppendRefusesWhatDoesNotFollow(t *testing.T) {
	srv := startServer(t)
	p, other := open(t, srv), open(t, srv)
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	appendAll(t, other, changeOf(poller.Deleted, "a1", 2, 1))

	tests := map[string][]poller.Change{
		"a single change":           {changeOf(poller.Updated, "a1", 2, 1)},
		"a contact known as new":    {changeOf(poller.Snapshot, "a1", 1, 0)},
		"one of several in a batch": {changeOf(poller.Created, "c3", 1, 0), changeOf(poller.Updated, "a1", 2, 1), changeOf(poller.Updated, "b2", 2, 2)},
	}
	for name, changes := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := p.Append(t.Context(), changes)
			if !errors.Is(err, poller.ErrConflict) {
				t.Fatalf("error %v, want a conflict", err)
			}
			if conflict, ok := errors.AsType[*publisher.ConflictError](err); !ok || conflict.ContactID != "a1" || conflict.Found != 3 {
				t.Errorf("error %v", err)
			}
			if got := len(messages(t, p.JetStream(), "NIMBLE")); got != 3 {
				t.Errorf("%d messages in the stream, want 3", got)
			}
		})
	}
}

func TestAppendTakesItsOwnEventForStored(t *testing.T) {
	srv := startServer(t)
	p, earlier := open(t, srv), open(t, srv)
	changes := []poller.Change{changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0), changeOf(poller.Snapshot, "c3", 1, 0)}
	appendAll(t, earlier, changes[2], changes[0])

	if got := appendAll(t, p, changes[0]); !slices.Equal(got, []uint64{2}) {
		t.Errorf("a single change that is stored already: %v, want [2]", got)
	}
	if got := appendAll(t, p, changes...); !slices.Equal(got, []uint64{2, 3, 1}) {
		t.Errorf("a batch that is stored in part: %v, want [2 3 1]", got)
	}
	if got := appendAll(t, open(t, srv), changes...); !slices.Equal(got, []uint64{2, 3, 1}) {
		t.Errorf("a batch that is stored: %v, want [2 3 1]", got)
	}
	if got := len(messages(t, p.JetStream(), "NIMBLE")); got != 3 {
		t.Errorf("%d messages in the stream, want 3", got)
	}
}

func TestLostAcknowledgementIsSettledByReading(t *testing.T) {
	for _, n := range []int{1, 5} {
		t.Run(fmt.Sprintf("changes=%d", n), func(t *testing.T) {
			t.Parallel() // It waits for an answer that does not come.
			srv := startServer(t)
			l := &line{to: srv.InProcess()}
			var retried atomic.Int32
			published := 0
			p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: l}), func(c *publisher.Config) {
				c.AckTimeout = time.Second
				c.Hooks = publisher.Hooks{
					Published: func(poller.Kind, time.Duration) { published++ },
					Retried: func() {
						retried.Add(1)
						l.cut() // The line is good again, once the client has found out that it was not.
					},
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			appendAll(t, p, changeOf(poller.Snapshot, "x", 1, 0))
			var changes []poller.Change
			var want []uint64
			for i := range n {
				changes = append(changes, changeOf(poller.Snapshot, fmt.Sprint("c", i), 1, 0))
				want = append(want, uint64(i+2))
			}
			l.mute()
			if got := appendAll(t, p, changes...); !slices.Equal(got, want) {
				t.Errorf("sequences %v, want %v", got, want)
			}
			if retried.Load() == 0 || published != n+1 {
				t.Errorf("%d retries and %d published, want 1 or more and %d", retried.Load(), published, n+1)
			}
			if got := len(messages(t, open(t, srv).JetStream(), "NIMBLE")); got != n+1 {
				t.Errorf("%d messages in the stream, want %d", got, n+1)
			}
		})
	}
}

func TestLostConnectionEndsTheWaitForAnAnswer(t *testing.T) {
	srv := startServer(t)
	l := &line{to: srv.InProcess()}
	p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: l}), func(c *publisher.Config) { c.AckTimeout = time.Hour })
	if err != nil {
		t.Fatal(err)
	}
	l.mute()
	type result struct {
		sequences []uint64
		err       error
	}
	done := make(chan result, 1)
	go func() {
		sequences, err := p.Append(t.Context(), []poller.Change{changeOf(poller.Snapshot, "a1", 1, 0)})
		done <- result{sequences, err}
	}()
	js := open(t, srv).JetStream()
	eventually(t, "the event", func() bool { return len(messages(t, js, "NIMBLE")) == 1 })
	l.cut()
	if r := <-done; r.err != nil || !slices.Equal(r.sequences, []uint64{1}) {
		t.Errorf("%v, %v", r.sequences, r.err)
	}
}

func TestAppendWaitsForARestartingServer(t *testing.T) {
	dir := t.TempDir()
	srv := serverIn(t, dir, "")
	l := &line{to: srv.InProcess()}
	p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: l}))
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0))
	l.connectTo(nil)
	srv.Shutdown()
	done := make(chan error, 1)
	go func() {
		_, err := p.Append(t.Context(), []poller.Change{changeOf(poller.Updated, "a1", 2, 1), changeOf(poller.Snapshot, "b2", 1, 0)})
		done <- err
	}()
	srv = serverIn(t, dir, "")
	l.connectTo(srv.InProcess())
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := load(t, open(t, srv)); got["a1"].Revision != 2 || got["b2"].Revision != 1 {
		t.Errorf("known afterwards: %v", got)
	}
}

func TestFrozenServerIsGivenUp(t *testing.T) {
	t.Parallel() // It waits for what cannot be written.
	srv := startServer(t)
	l := &line{to: srv.InProcess()}
	p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: l, WriteTimeout: 300 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, p, changeOf(poller.Snapshot, "x", 1, 0))
	var changes []poller.Change
	for i := range 500 { // More than the client keeps before it writes.
		changes = append(changes, changeOf(poller.Snapshot, fmt.Sprint("c", i), 1, 0))
	}
	l.clog() // But not the connections that follow.
	if got := appendAll(t, p, changes...); len(got) != len(changes) {
		t.Errorf("%d sequences", len(got))
	}
	if got := len(messages(t, open(t, srv).JetStream(), "NIMBLE")); got != 501 {
		t.Errorf("%d messages in the stream, want 501", got)
	}
}

func TestAppendEndsWithItsContext(t *testing.T) {
	srv := startServer(t)
	l := &line{to: srv.InProcess()}
	p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: l}))
	if err != nil {
		t.Fatal(err)
	}
	l.connectTo(nil)
	l.cut()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Append(ctx, []poller.Change{changeOf(poller.Snapshot, "a1", 1, 0)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
	if err := p.Load(ctx, func(poller.Known) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load: error %v, want the context's", err)
	}
	if _, err := p.Progress(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Progress: error %v, want the context's", err)
	}
}

func TestAppendFollowsWhatALimitHasLeft(t *testing.T) {
	remove := map[string]func(t *testing.T, s jetstream.Stream){
		"purged": func(t *testing.T, s jetstream.Stream) {
			if err := s.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"removed one by one": func(t *testing.T, s jetstream.Stream) {
			for seq := range uint64(2) {
				if err := s.DeleteMsg(t.Context(), seq+1); err != nil {
					t.Fatal(err)
				}
			}
		},
		"aged": func(t *testing.T, s jetstream.Stream) {
			eventually(t, "the age limit", func() bool {
				info, err := s.Info(t.Context())
				return err == nil && info.State.Msgs == 0
			})
		},
	}
	for name, remove := range remove {
		t.Run(name, func(t *testing.T) {
			p := open(t, startServer(t), func(c *publisher.Config) {
				if name == "aged" {
					c.MaxAge = time.Second
				}
			})
			appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
			s, err := p.JetStream().Stream(t.Context(), "NIMBLE")
			if err != nil {
				t.Fatal(err)
			}
			remove(t, s)
			if got := appendAll(t, p, changeOf(poller.Updated, "a1", 2, 1)); !slices.Equal(got, []uint64{3}) {
				t.Errorf("alone: %v, want [3]", got)
			}
			if got := appendAll(t, p, changeOf(poller.Snapshot, "c3", 1, 0), changeOf(poller.Updated, "b2", 2, 2)); !slices.Equal(got, []uint64{4, 5}) {
				t.Errorf("in a batch: %v, want [4 5]", got)
			}
		})
	}
}

func TestAppendNoticesThatTheStreamLostItsEnd(t *testing.T) {
	dir := t.TempDir()
	changes := []poller.Change{changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0), changeOf(poller.Updated, "a1", 2, 1)}
	srv := powerLoss(t, dir, "NIMBLE",
		func(srv *embedded.Server) { appendAll(t, open(t, srv), changes[:2]...) },
		func(srv *embedded.Server) { appendAll(t, open(t, srv), changes[2]) })
	p := open(t, srv)
	// It did not load, so it believes what it knew before.
	if _, err := p.Append(t.Context(), []poller.Change{changeOf(poller.Updated, "a1", 3, 3)}); !errors.Is(err, poller.ErrConflict) {
		t.Errorf("an update of a lost event: %v, want a conflict", err)
	}
	appendAll(t, open(t, srv), changeOf(poller.Snapshot, "c3", 1, 0))
	if _, err := p.Append(t.Context(), []poller.Change{changeOf(poller.Updated, "a1", 3, 3)}); !errors.Is(err, poller.ErrConflict) {
		t.Errorf("an update of an event whose sequence has another one now: %v, want a conflict", err)
	}
}

func TestAppendNoticesThatTheStreamWasMadeAnew(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	bucketHas(t, p.JetStream(), 2)
	if err := p.JetStream().DeleteStream(t.Context(), "NIMBLE"); err != nil {
		t.Fatal(err)
	}
	open(t, srv)
	// The change itself is fine, but what else is known is not.
	if _, err := p.Append(t.Context(), []poller.Change{changeOf(poller.Snapshot, "c3", 1, 0)}); !errors.Is(err, poller.ErrConflict) {
		t.Errorf("error %v, want a conflict", err)
	}
	got := load(t, p)
	if len(got) != 3 {
		t.Errorf("known afterwards: %v", got)
	}
	for id, k := range got {
		appendAll(t, p, changeOf(poller.Updated, id, k.Revision+1, k.Sequence))
	}
}

func TestFullStreamIsNamed(t *testing.T) {
	p := open(t, startServer(t), func(c *publisher.Config) { c.MaxBytes = 4096 })
	var changes []poller.Change
	for i := range 20 {
		changes = append(changes, changeOf(poller.Snapshot, fmt.Sprint("c", i), 1, 0))
	}
	for _, batch := range [][]poller.Change{changes, changes[:1], changes[1:2], changes[2:3], changes[3:4]} {
		_, err := p.Append(t.Context(), batch)
		if err == nil {
			continue // Some fit.
		}
		full, ok := errors.AsType[*publisher.StreamFullError](err)
		if !ok || full.Stream != "NIMBLE" || !strings.Contains(err.Error(), "NATS_STREAM_MAX_BYTES") {
			t.Fatalf("error %v", err)
		}
		if len(batch) == 1 {
			return
		}
	}
	t.Error("the stream is never full")
}

func TestMissingStreamIsNamed(t *testing.T) {
	p := open(t, startServer(t))
	if err := p.JetStream().DeleteStream(t.Context(), "NIMBLE"); err != nil {
		t.Fatal(err)
	}
	for _, changes := range [][]poller.Change{
		{changeOf(poller.Snapshot, "a1", 1, 0)},
		{changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0)},
	} {
		_, err := p.Append(t.Context(), changes)
		if missing, ok := errors.AsType[*publisher.MissingError](err); !ok || missing.Object != "stream NIMBLE" {
			t.Errorf("%d changes: error %v", len(changes), err)
		}
	}
	if err := p.Load(t.Context(), func(poller.Known) {}); err == nil {
		t.Error("a missing stream loads as an empty one")
	}
}

func TestMissingPermissionIsNamed(t *testing.T) {
	srv := rawServer(t, func(o *natsserver.Options) {
		allowed := &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{"nimble.acme.contact.>"}}}
		o.Users = []*natsserver.User{{Username: "bridge", Password: "secret", Permissions: allowed}}
	})
	p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: srv, User: "bridge", Password: "secret"}), func(c *publisher.Config) {
		c.AckTimeout = 300 * time.Millisecond
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, changes := range [][]poller.Change{
		{changeOf(poller.Snapshot, "a1", 1, 0)},
		{changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0)},
	} {
		_, err = p.Append(t.Context(), changes)
		if _, ok := errors.AsType[*publisher.PermissionError](err); !ok || !strings.Contains(err.Error(), "nimble.acme.contact.snapshot.") {
			t.Errorf("%d changes: error %v", len(changes), err)
		}
	}
}

func TestContactLargerThanAMessageIsTruncated(t *testing.T) {
	p := open(t, startServer(t))
	c := changeOf(poller.Updated, "a1", 1, 0)
	long := strings.Repeat("x", 800_000)
	c.Contact.Raw = jsontext.Value(fmt.Sprintf(`{"id":"a1","record_type":"person","created":"2026-03-01T10:15:00","fields":{"first name":[{"value":"Ines"}],"note":[{"value":%q}]}}`, long+long))
	c.Changes = map[string]poller.Difference{
		"fields.note": {Before: jsontext.Value(`"` + long + `"`), After: jsontext.Value(`"` + long + `"`)},
		"tags":        {Before: jsontext.Value(`[]`), After: jsontext.Value(`["a"]`)},
	}
	appendAll(t, p, c)
	got := messages(t, p.JetStream(), "NIMBLE")
	ev, err := event.Decode(got[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if !ev.Data.Truncated || string(ev.Data.Contact) != `{"id":"a1","record_type":"person","created":"2026-03-01T10:15:00"}` {
		t.Errorf("truncated %v, contact %.200s", ev.Data.Truncated, ev.Data.Contact)
	}
	if ev.Data.Summary.Name != "Ines" || len(ev.Data.Changes) != 2 || ev.Data.Changes["fields.note"].After != nil {
		t.Errorf("summary %v, %d changes", ev.Data.Summary, len(ev.Data.Changes))
	}
}

func TestAppendFitsTheServersBatches(t *testing.T) {
	tests := map[string]struct {
		limit, changes int
	}{
		"more than a batch":       {limit: 0, changes: 2500},
		"a server with a limit":   {limit: 30, changes: 100},
		"a server without a need": {limit: 1000, changes: 1000},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv := rawServer(t, func(o *natsserver.Options) { o.JetStreamLimits.MaxBatchSize = tt.limit })
			p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: srv}))
			if err != nil {
				t.Fatal(err)
			}
			var changes []poller.Change
			for i := range tt.changes {
				changes = append(changes, changeOf(poller.Snapshot, fmt.Sprint("c", i), 1, 0))
			}
			sequences := appendAll(t, p, changes...)
			for i, seq := range sequences {
				if seq != uint64(i+1) {
					t.Fatalf("change %d is at %d", i, seq)
				}
			}
			if got := load(t, p); len(got) != tt.changes {
				t.Errorf("%d contacts known, want %d", len(got), tt.changes)
			}
		})
	}
}

func TestTwoWritersOfTheSameChangesStoreThemOnce(t *testing.T) {
	srv := startServer(t)
	a, b := open(t, srv), open(t, srv)
	const rounds, contacts = 30, 20
	previous := make([]uint64, contacts)
	for revision := uint64(1); revision <= rounds; revision++ {
		var changes []poller.Change
		for i := range contacts {
			kind := poller.Updated
			if revision == 1 {
				kind = poller.Snapshot
			}
			changes = append(changes, changeOf(kind, fmt.Sprint("c", i), revision, previous[i]))
		}
		type result struct {
			sequences []uint64
			err       error
		}
		results := make(chan result)
		for i, p := range []*publisher.Publisher{a, b} {
			go func() {
				mine := slices.Clone(changes)
				if i == 1 {
					slices.Reverse(mine)
				}
				sequences, err := p.Append(t.Context(), mine)
				if i == 1 {
					slices.Reverse(sequences)
				}
				results <- result{sequences, err}
			}()
		}
		x, y := <-results, <-results
		if err := errors.Join(x.err, y.err); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(x.sequences, y.sequences) {
			t.Fatalf("revision %d: %v and %v", revision, x.sequences, y.sequences)
		}
		previous = x.sequences
	}
	if got := len(messages(t, a.JetStream(), "NIMBLE")); got != rounds*contacts {
		t.Errorf("%d messages, want %d", got, rounds*contacts)
	}
}

func TestAppendRefusesIDsThatAreNoTokens(t *testing.T) {
	p := open(t, startServer(t))
	for _, id := range []string{"", "a.b", "a*", ">", "a b", "é"} {
		c := changeOf(poller.Snapshot, "a1", 1, 0)
		c.Contact.ID = id
		if _, err := p.Append(t.Context(), []poller.Change{c}); err == nil {
			t.Errorf("id %q accepted", id)
		}
	}
}

// TestNoDirectGets watches for reads that any replica may answer, however late it is. In a cluster they are stale now and then; all that the publisher relies on it
// reads through leaders.
func TestNoDirectGets(t *testing.T) {
	srv := startServer(t)
	spy, err := srv.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Close()
	direct, err := spy.SubscribeSync("$JS.API.DIRECT.GET.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	p, other := open(t, srv), open(t, srv)
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	if _, err := other.Append(t.Context(), []poller.Change{changeOf(poller.Created, "a1", 1, 0)}); !errors.Is(err, poller.ErrConflict) {
		t.Errorf("error %v, want a conflict", err)
	}
	for _, k := range load(t, p) {
		if _, err := p.Last(t.Context(), k); err != nil {
			t.Error(err)
		}
	}
	if err := p.SaveProgress(t.Context(), poller.Progress{FirstMet: epoch}); err != nil {
		t.Fatal(err)
	}
	if err := p.Reject(t.Context(), []poller.Rejection{{Reason: "odd", Record: jsontext.Value(`1`), Observed: epoch}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	lease, err := p.Lease(ctx, "me", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Run(ctx, func(context.Context) error {
		stop()
		return nil
	}, nil); err != nil {
		t.Error(err)
	}
	if _, err := p.Leader(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := p.BucketBehind(t.Context()); err != nil {
		t.Error(err)
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := direct.Pending(); n > 0 || err != nil {
		msg, _ := direct.NextMsg(time.Second)
		t.Errorf("%d direct gets, the first on %s, %v", n, msg.Subject, err)
	}
}
