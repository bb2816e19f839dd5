package consumer_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

var bootstrapRuns = flag.Int("bootstrap.runs", 12, "how often TestBootstrapUnderEdits bootstraps")

// shop is what a downstream service keeps: each contact with the revision it is at. It follows the recipe, and notes where the events let it down.
type shop struct {
	mu       sync.Mutex
	contacts map[string]kept
	// repeats counts the events that were passed over.
	repeats int
	wrong   []error
}

type kept struct {
	revision uint64
	deleted  bool
}

// take is the handler for the present state and for what follows.
func (s *shop) take(d *consumer.Delivery, state bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, revision := d.Event.Subject, d.Event.Data.Revision
	is, known := s.contacts[id]
	switch {
	case revision <= is.revision:
		s.repeats++
		return
	case !state && revision != is.revision+1:
		s.wrong = append(s.wrong, fmt.Errorf("contact %s, known %v: revision %d follows %d", id, known, revision, is.revision))
	}
	s.contacts[id] = kept{revision, d.Event.Verb() == event.Deleted}
}

func (s *shop) content() map[string]kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.contacts)
}

// edits plays the bridge: contacts are created, updated, deleted and come back.
type edits struct {
	w     *world
	truth map[string]kept
}

func (e *edits) one(contact string) {
	verb := event.Created
	switch is := e.truth[contact]; {
	case is.revision == 0 || is.deleted:
	case rand.IntN(5) == 0:
		verb = event.Deleted
	default:
		verb = event.Updated
	}
	var changed []string
	if verb == event.Updated {
		changed = []string{"tags"}
	}
	e.w.publish(contact, verb, changed...)
	e.truth[contact] = kept{e.w.revisions[contact], verb == event.Deleted}
}

// bucketEnd is the sequence of the event stream up to which the bucket has been sourced.
func (w *world) bucketEnd() uint64 {
	s, err := w.js.Stream(w.t.Context(), "KV_"+bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(w.t.Context(), "$KV."+bucket+".*.*")
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0
	}
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.Fields(m.Header.Get("Nats-Stream-Source"))[1], 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) events() jetstream.Stream {
	s, err := w.js.Stream(w.t.Context(), stream)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// sourced waits until the bucket has everything.
func (w *world) sourced() {
	eventually(w.t, "the bucket has everything", func() bool { return w.bucketEnd() == w.lastSequence() })
}

func (w *world) lastSequence() uint64 { return w.events().CachedInfo().State.LastSeq }

// dropUpTo removes events as an age limit does.
func (w *world) dropUpTo(sequence uint64) {
	if err := w.events().Purge(w.t.Context(), jetstream.WithPurgeSequence(sequence+1)); err != nil {
		w.t.Error(err)
	}
}

// stall ends the sourcing of the bucket, which therefore stays as it is until it is resumed.
func (w *world) stall() (resume func()) {
	change := func(sources []*jetstream.StreamSource) []*jetstream.StreamSource {
		s, err := w.js.Stream(w.t.Context(), "KV_"+bucket)
		if err != nil {
			w.t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		before := cfg.Sources
		cfg.Sources = sources
		if _, err := w.js.UpdateStream(w.t.Context(), cfg); err != nil {
			w.t.Fatal(err)
		}
		return before
	}
	sources := change(nil)
	return func() {
		sources[0].OptStartSeq = w.bucketEnd() + 1
		change(sources)
	}
}

// TestBootstrapUnderEdits bootstraps a service again and again while contacts are created, changed, deleted and come back. In some runs the bucket stands still, in some the
// stream drops what the bucket has, and in some the service dies on the way. The service must never miss an event and never take one twice.
func TestBootstrapUnderEdits(t *testing.T) {
	t.Parallel()
	var repeats, drops, stalls, deaths int
	for done := 0; done < *bootstrapRuns; {
		// Small worlds, so that the runs do not get slower.
		w := newWorld(t)
		e := &edits{w: w, truth: make(map[string]kept)}
		for range min(25, *bootstrapRuns-done) {
			done++
			r := bootstrapRun(t, e, fmt.Sprint("run", done))
			repeats, drops, stalls, deaths = repeats+r.repeats, drops+r.drops, stalls+r.stalls, deaths+r.deaths
			if t.Failed() {
				t.Fatalf("in run %d", done)
			}
		}
		w.js.Conn().Close()
		w.stop()
	}
	t.Logf("%d runs: %d events came twice and were recognised, the stream dropped events %d times, the bucket stood still %d times, the service died %d times",
		*bootstrapRuns, repeats, drops, stalls, deaths)
}

type outcome struct{ repeats, drops, stalls, deaths int }

func bootstrapRun(t *testing.T, e *edits, durable string) (out outcome) {
	w := e.w
	contacts := make([]string, 12)
	for i := range contacts {
		contacts[i] = fmt.Sprint("c", i)
	}
	anyone := func() string { return contacts[rand.IntN(len(contacts))] }
	for range rand.IntN(25) {
		e.one(anyone())
	}
	resume := func() {}
	stalled := rand.IntN(3) == 0
	if stalled {
		w.sourced()
		resume = w.stall()
		out.stalls++
		for range rand.IntN(10) {
			e.one(anyone())
		}
	}

	// Somebody edits for as long as the service is bootstrapped and a little longer.
	quit, quitted := make(chan struct{}), make(chan struct{})
	var editing sync.Mutex // So that nothing is published between the bucket's end and the drop.
	go func() {
		defer close(quitted)
		for {
			select {
			case <-quit:
				return
			default:
				editing.Lock()
				e.one(anyone())
				editing.Unlock()
			}
		}
	}()

	s := &shop{contacts: make(map[string]kept)}
	dropping := !stalled && rand.IntN(2) == 0
	var dropped, died sync.Once
	state := func(_ context.Context, d *consumer.Delivery) error {
		if dropping && rand.IntN(4) == 0 {
			dropped.Do(func() {
				editing.Lock()
				defer editing.Unlock()
				w.sourced()
				w.dropUpTo(w.lastSequence())
				out.drops++
			})
		}
		dies := false
		if rand.IntN(20) == 0 {
			died.Do(func() { dies = true })
		}
		if dies {
			out.deaths++
			return consumer.Permanent(errBusy)
		}
		s.take(d, true)
		return nil
	}
	cfg := quick(func(c *consumer.Config) { c.Durable, c.Concurrency = durable, 4 })
	for range 2 {
		err := consumer.Bootstrap(t.Context(), w.js, cfg, state)
		if err == nil {
			break
		}
		if !errors.Is(err, errBusy) {
			t.Error(err)
		}
	}
	r := consume(t, w.js, cfg, func(_ context.Context, d *consumer.Delivery) error {
		s.take(d, false)
		return nil
	})
	for range rand.IntN(10) {
		editing.Lock()
		e.one(anyone())
		editing.Unlock()
	}
	close(quit)
	<-quitted
	w.idle(durable)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if err := consumer.Forget(t.Context(), w.js, cfg); err != nil {
		t.Error(err)
	}
	resume()
	for _, err := range s.wrong {
		t.Error(err)
	}
	if diff := cmp.Diff(e.truth, s.content(), cmp.AllowUnexported(kept{})); diff != "" {
		t.Errorf("what the service has (-want +got):\n%s", diff)
	}
	out.repeats = s.repeats
	return out
}

func TestBootstrapHappensOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Snapshot)
	w.publish("b", event.Snapshot)
	w.publish("b", event.Deleted)
	w.sourced()
	var mu sync.Mutex
	var got []string
	take := func(_ context.Context, d *consumer.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%s %d %s at %d", d.Subject, d.Event.Data.Revision, d.Event.Verb(), d.Sequence))
		return nil
	}
	for range 2 {
		if err := consumer.Bootstrap(t.Context(), w.js, quick(), take); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"nimble.acme.contact.deleted.b 2 deleted at 3", "nimble.acme.contact.snapshot.a 1 snapshot at 1"}, got); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	got = nil
	w.publish("a", event.Updated, "tags")
	consume(t, w.js, quick(), take)
	w.idle("test")
	if diff := cmp.Diff([]string{"nimble.acme.contact.updated.a 2 updated at 4"}, got); diff != "" {
		t.Errorf("what follows (-want +got):\n%s", diff)
	}
}

// The stream was cut short behind the bucket's back, as a power failure does it, and has got other events since.
func TestBootstrapWhenTheBucketIsAheadOfTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Snapshot)
	w.publish("a", event.Updated, "tags")
	w.sourced()
	w.stall()
	s := w.events()
	cfg := s.CachedInfo().Config
	if err := w.js.DeleteStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	if _, err := w.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	w.revisions["a"] = 0
	w.publish("a", event.Snapshot)
	w.publish("b", event.Snapshot)
	w.publish("a", event.Updated, "tags")
	w.publish("a", event.Updated, "tags")
	shop := &shop{contacts: make(map[string]kept)}
	if err := consumer.Bootstrap(t.Context(), w.js, quick(), func(_ context.Context, d *consumer.Delivery) error {
		shop.take(d, true)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	consume(t, w.js, quick(), func(_ context.Context, d *consumer.Delivery) error {
		shop.take(d, false)
		return nil
	})
	w.idle("test")
	if diff := cmp.Diff(map[string]kept{"a": {revision: 3}, "b": {revision: 1}}, shop.content(), cmp.AllowUnexported(kept{})); diff != "" || len(shop.wrong) > 0 {
		t.Errorf("what the service has (-want +got):\n%s%v", diff, shop.wrong)
	}
}

func TestBootstrapEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Snapshot)
	w.sourced()
	ctx, cancel := context.WithCancel(t.Context())
	err := consumer.Bootstrap(ctx, w.js, quick(), func(context.Context, *consumer.Delivery) error {
		cancel()
		return errBusy
	})
	if !errors.Is(err, context.Canceled) && !errors.Is(err, errBusy) {
		t.Errorf("Bootstrap: %v, want that it was interrupted", err)
	}
	if _, n := w.outstanding("test"); n != -1 {
		t.Error("the durable exists, though the state was not taken")
	}
}
