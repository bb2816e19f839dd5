package publisher_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

// tear takes contacts out of the bucket behind NATS's back, which goes on believing that it has sourced them, as it does after a full disk.
func tear(t *testing.T, js jetstream.JetStream, contacts ...string) {
	t.Helper()
	s, err := js.Stream(t.Context(), "KV_nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	for _, contact := range contacts {
		if err := s.Purge(t.Context(), jetstream.WithPurgeSubject("$KV.nimble-contacts.acme."+contact)); err != nil {
			t.Fatal(err)
		}
	}
}

// revisions is what the bucket shows of contacts: their revisions, 0 where it has no entry.
func revisions(t *testing.T, js jetstream.JetStream, contacts ...string) map[string]uint64 {
	t.Helper()
	shown := make(map[string]uint64)
	for _, contact := range contacts {
		e, err := lastInBucket(t.Context(), js, "acme."+contact)
		switch {
		case err == nil:
			shown[contact] = e.Data.Revision
		case errors.Is(err, jetstream.ErrKeyNotFound):
			shown[contact] = 0
		default:
			t.Fatal(err)
		}
	}
	return shown
}

// mended waits until the bucket is whole.
func mended(t *testing.T, p *publisher.Publisher) {
	t.Helper()
	eventually(t, "the bucket is whole", func() bool {
		whole, err := p.MendBucket(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return whole
	})
}

// followed waits until the bucket has come as far as the stream.
func followed(t *testing.T, p *publisher.Publisher) {
	t.Helper()
	eventually(t, "the bucket", func() bool {
		behind, err := p.BucketBehind(t.Context())
		return err == nil && behind == 0
	})
}

// TestMendBucketFillsWhatTheBucketLacks loses an entry in the middle, which nobody sees by comparing how far stream and bucket have come.
func TestMendBucketFillsWhatTheBucketLacks(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	js := p.JetStream()
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0), changeOf(poller.Snapshot, "c3", 1, 0), changeOf(poller.Snapshot, "d4", 1, 0))
	appendAll(t, p, changeOf(poller.Updated, "c3", 2, 3))
	appendAll(t, p, changeOf(poller.Updated, "d4", 2, 4))
	followed(t, p)
	// What NATS recognised as a duplicate would be missing when it is sourced again: d4's second event, but not its first one.
	appendAll(t, p, changeOf(poller.Updated, "a1", 2, 1))
	followed(t, p)
	tear(t, js, "b2", "c3")
	if whole, err := p.MendBucket(t.Context(), false); err != nil || !whole {
		t.Errorf("without doubt: %t, %v; want that nobody looks closely", whole, err)
	}
	if whole, err := p.MendBucket(t.Context(), true); err != nil || whole {
		t.Errorf("a torn bucket counts as whole: %t, %v", whole, err)
	}
	mended(t, p)
	want := map[string]uint64{"a1": 2, "b2": 1, "c3": 2, "d4": 2}
	if diff := cmp.Diff(want, revisions(t, js, "a1", "b2", "c3", "d4")); diff != "" {
		t.Error(diff)
	}
	if got := load(t, open(t, srv)); len(got) != 4 {
		t.Errorf("known at the next start: %v", got)
	}
	if whole, err := p.MendBucket(t.Context(), true); err != nil || !whole {
		t.Errorf("a whole bucket is doubted for long: %t, %v", whole, err)
	}
}

// TestMendBucketThatStandsStill loses the last entries. NATS, which believes that it has sourced them, does nothing about it.
func TestMendBucketThatStandsStill(t *testing.T) {
	p := open(t, startServer(t))
	js := p.JetStream()
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0), changeOf(poller.Snapshot, "c3", 1, 0))
	followed(t, p)
	mended(t, p)
	tear(t, js, "b2", "c3")
	if whole, err := p.MendBucket(t.Context(), false); err != nil || whole {
		t.Errorf("behind the stream: %t, %v; want that it is given time", whole, err)
	}
	before := streamConfig(t, js, "KV_nimble-contacts").Sources[0].SubjectTransforms[0].Destination
	mended(t, p)
	if diff := cmp.Diff(map[string]uint64{"a1": 1, "b2": 1, "c3": 1}, revisions(t, js, "a1", "b2", "c3")); diff != "" {
		t.Error(diff)
	}
	if after := streamConfig(t, js, "KV_nimble-contacts").Sources[0].SubjectTransforms[0].Destination; after == before {
		t.Error("the bucket is whole, and was not sourced again: it was not torn")
	}
}

// TestMendBucketGivesUp may not change the bucket's stream.
func TestMendBucketGivesUp(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	followed(t, p)
	tear(t, p.JetStream(), "a1")
	p = open(t, srv, func(c *publisher.Config) { c.Manage = false })
	if whole, err := p.MendBucket(t.Context(), true); err != nil || whole {
		t.Errorf("a torn bucket: %t, %v", whole, err)
	}
	if whole, err := p.MendBucket(t.Context(), false); err != nil || !whole {
		t.Errorf("later: %t, %v; want that it is let be", whole, err)
	}
	if got := revisions(t, p.JetStream(), "a1"); got["a1"] != 0 {
		t.Errorf("the bucket shows %v", got)
	}
}

// TestATornBucketIsNotBelievedTwice starts on a bucket that lacks events, or shows the ones before them. What is built on that is refused, and the stream is believed then.
func TestATornBucketIsNotBelievedTwice(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	js := p.JetStream()
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	appendAll(t, p, changeOf(poller.Updated, "a1", 2, 1))
	appendAll(t, p, changeOf(poller.Snapshot, "c3", 1, 0))
	followed(t, p)
	tear(t, js, "a1")

	p = open(t, srv)
	if got := load(t, p); len(got) != 2 {
		t.Fatalf("known from the torn bucket: %v", got)
	}
	if _, err := p.Append(t.Context(), []poller.Change{changeOf(poller.Created, "a1", 1, 0)}); !errors.Is(err, poller.ErrConflict) {
		t.Fatalf("a contact that the bucket lacks is new: %v, want a conflict", err)
	}
	got := load(t, p)
	if k := got["a1"]; len(got) != 3 || k.Revision != 2 || k.Sequence != 3 {
		t.Fatalf("known then: %v", got)
	}
	appendAll(t, p, changeOf(poller.Updated, "a1", 3, 3))
	eventually(t, "the bucket has all", func() bool {
		return cmp.Equal(map[string]uint64{"a1": 3, "b2": 1, "c3": 1}, revisions(t, js, "a1", "b2", "c3"))
	})
	if n := len(messages(t, js, "NIMBLE")); n != 5 {
		t.Errorf("%d events, want 5", n)
	}
	if diff := cmp.Diff([]string{"a1", "b2", "c3"}, slices.Sorted(maps.Keys(load(t, open(t, srv))))); diff != "" {
		t.Error(diff)
	}
}

// TestTroubleIsKnownBeforePatienceEnds has a server that stops answering.
func TestTroubleIsKnownBeforePatienceEnds(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	srv := startServer(t)
	l := &line{to: srv.InProcess()}
	conn := connect(t, publisher.ConnectConfig{InProcess: l, ReconnectWait: 10 * time.Millisecond})
	p, err := tryOpen(t, conn, func(c *publisher.Config) { c.AckTimeout = 500 * time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0))
	if _, err := p.Trouble(); err != nil {
		t.Errorf("trouble while all goes well: %v", err)
	}
	l.mute()
	began, done := time.Now(), make(chan error, 1)
	go func() {
		_, err := p.Append(context.WithoutCancel(t.Context()), []poller.Change{changeOf(poller.Snapshot, "b2", 1, 0)})
		done <- err
	}()
	eventually(t, "the trouble is known", func() bool {
		since, err := p.Trouble()
		if err == nil {
			return false
		}
		if _, ok := errors.AsType[*publisher.UnansweredError](err); !ok || since.Before(began) || time.Since(since) < time.Second {
			t.Errorf("trouble %v since %v, want no answer since %v", err, since, began)
		}
		return true
	})
	l.cut()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := p.Trouble(); err != nil {
		t.Errorf("trouble after it is over: %v", err)
	}
}
