package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

var errBusy = errors.New("busy")

func TestOrderPerContactAndBoundedConcurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 10 {
		for c := range 20 {
			w.publish(fmt.Sprint("c", c), event.Updated, "tags")
		}
	}
	var d diary
	var running, most atomic.Int32
	busy := make(map[string]bool)
	var mu sync.Mutex
	consume(t, w.js, quick(func(c *consumer.Config) { c.Concurrency, c.MaxTries = 4, 100 }), func(_ context.Context, m *consumer.Delivery) error {
		now := running.Add(1)
		defer running.Add(-1)
		for most.Load() < now {
			most.Store(now)
		}
		mu.Lock()
		if busy[m.Event.Subject] {
			t.Errorf("two events of contact %s are handled at once", m.Event.Subject)
		}
		busy[m.Event.Subject] = true
		mu.Unlock()
		defer func() {
			mu.Lock()
			busy[m.Event.Subject] = false
			mu.Unlock()
		}()
		<-time.After(time.Millisecond) // So that others have the time to run beside it.
		if rand.IntN(4) == 0 {
			return errBusy
		}
		d.note(m)
		return nil
	})
	w.idle("test")
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
	if d.len() != 200 {
		t.Errorf("%d events handled, want each of 200 once", d.len())
	}
	if got := most.Load(); got < 2 || got > 4 {
		t.Errorf("at most %d handlers at a time, want 2 to 4", got)
	}
}

func TestRetriedEventHoldsBackItsContactOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("bad", event.Created)
	w.publish("bad", event.Updated, "tags")
	w.publish("good", event.Created)
	var d diary
	var mended atomic.Bool
	var tries atomic.Int32
	consume(t, w.js, quick(func(c *consumer.Config) { c.MaxTries = 1_000_000 }), func(_ context.Context, m *consumer.Delivery) error {
		if m.Event.Subject == "bad" && !mended.Load() {
			tries.Add(1)
			return errBusy
		}
		d.note(m)
		return nil
	})
	eventually(t, "the good contact is handled, and the bad one tried again", func() bool { return d.len() == 1 && tries.Load() > 3 })
	if got := d.of("bad"); got != nil {
		t.Errorf("of the bad contact %v was handled", got)
	}
	mended.Store(true)
	w.idle("test")
	if diff := cmp.Diff([]uint64{1, 2}, d.of("bad")); diff != "" {
		t.Errorf("revisions of the bad contact (-want +got):\n%s", diff)
	}
	if e := d.all()[1]; e.try < 4 || !e.redelivered {
		t.Errorf("the handler is told of try %d, redelivered %v; want more than 3 and true", e.try, e.redelivered)
	}
}

func TestResumesWhereItStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var d diary
	next := make(chan struct{})
	handle := func(ctx context.Context, m *consumer.Delivery) error {
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
		d.note(m)
		return nil
	}
	for i := range 30 {
		w.publish(fmt.Sprint("c", i%7), event.Updated, "tags")
	}
	cfg := quick()
	for range 3 {
		r := consume(t, w.connect(), cfg, handle)
		for range 8 {
			next <- struct{}{}
		}
		r.cancel()
		close(next) // Those at work finish.
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		next = make(chan struct{})
	}
	close(next)
	r := consume(t, w.connect(), cfg, handle)
	w.idle("test")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
	if d.len() != 30 {
		t.Errorf("%d events handled, want each of 30 once: the stops were clean", d.len())
	}
}

// What is not given back on a stop would be missing for an hour.
func TestStopGivesBackWhatHasNotBegun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		w.publish("a", event.Updated, "tags")
		w.publish("b", event.Updated, "tags")
	}
	cfg := quick(func(c *consumer.Config) {
		c.AckWait, c.Concurrency, c.FirstRetry, c.LongestRetry = time.Hour, 1, time.Hour, time.Hour
	})
	var tried atomic.Int32
	r := consume(t, w.connect(), cfg, func(context.Context, *consumer.Delivery) error {
		tried.Add(1)
		return errBusy
	})
	eventually(t, "everything is here", func() bool { _, n := w.outstanding("test"); return n == 6 && tried.Load() == 2 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	var d diary
	consume(t, w.connect(), cfg, func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		return nil
	})
	w.idle("test")
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
}

func TestCrashBetweenHandlingAndAcknowledging(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	w.publish("a", event.Updated, "tags")
	var d diary
	js := w.connect()
	first := consume(t, js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		crash(js)
		return nil
	})
	if err := first.wait(); !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, jetstream.ErrConnectionClosed) {
		t.Errorf("Run without a connection: %v", err)
	}
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		return nil
	})
	w.idle("test")
	want := []entry{{"a", 1, 1, false}, {"a", 1, 1, true}, {"a", 2, 1, d.all()[d.len()-1].redelivered}}
	if diff := cmp.Diff(want, d.all(), cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
}

func TestSlowHandlerKeepsItsEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	w.publish("a", event.Updated, "tags")
	var d diary
	consume(t, w.js, quick(), func(ctx context.Context, m *consumer.Delivery) error {
		if m.Event.Data.Revision == 1 {
			select {
			case <-time.After(2500 * time.Millisecond): // Longer than AckWait, twice.
			case <-ctx.Done():
			}
		}
		d.note(m)
		return nil
	})
	w.idle("test")
	if diff := cmp.Diff([]entry{{"a", 1, 1, false}, {"a", 2, 1, false}}, d.all(), cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
}

func TestHandlersFinishWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	w.publish("b", event.Created)
	began, finish := make(chan struct{}), make(chan struct{})
	var finished atomic.Int32
	r := consume(t, w.js, quick(func(c *consumer.Config) { c.Concurrency = 1 }), func(ctx context.Context, _ *consumer.Delivery) error {
		close(began)
		<-finish
		finished.Add(1)
		return ctx.Err() // Nil: there is time left.
	})
	<-began
	r.cancel()
	select {
	case <-r.done:
		t.Fatal("Run has returned before its handler")
	case <-time.After(50 * time.Millisecond):
	}
	close(finish)
	if err := r.wait(); err != nil || finished.Load() != 1 {
		t.Errorf("Run: %v, %d handlers finished; want nil and 1", err, finished.Load())
	}
	if _, unacknowledged := w.outstanding("test"); unacknowledged != 1 {
		t.Errorf("%d events unacknowledged, want the one that had not begun", unacknowledged)
	}
}

func TestHandlersAreCutShortWhenGraceIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	began := make(chan struct{})
	r := consume(t, w.js, quick(func(c *consumer.Config) { c.Grace = 50 * time.Millisecond }), func(ctx context.Context, _ *consumer.Delivery) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	})
	<-began
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v, want nil: the handler obeyed", err)
	}
	var d diary
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		return nil
	})
	w.idle("test")
	if diff := cmp.Diff([]entry{{"a", 1, 1, true}}, d.all(), cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("handled after a new start (-want +got):\n%s", diff)
	}
}

func TestHandlerThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	began, finish := make(chan struct{}), make(chan struct{})
	r := consume(t, w.js, quick(func(c *consumer.Config) { c.Grace = 20 * time.Millisecond }), func(context.Context, *consumer.Delivery) error {
		close(began)
		<-finish
		return nil
	})
	<-began
	if err := r.stop(); !errors.Is(err, consumer.ErrNotFinished) {
		t.Errorf("Run: %v, want ErrNotFinished", err)
	}
	close(finish)
}

func TestStopEndsTheRunAndKeepsTheEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	w.publish("a", event.Updated, "tags")
	errGone := errors.New("the receiver is gone")
	var calls atomic.Int32
	r := consume(t, w.js, quick(), func(context.Context, *consumer.Delivery) error {
		calls.Add(1)
		return fmt.Errorf("event: %w", consumer.Stop(errGone))
	})
	if err := r.wait(); !errors.Is(err, errGone) {
		t.Errorf("Run: %v, want what the handler said", err)
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls, want 1", calls.Load())
	}
	var d diary
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		return nil
	})
	w.idle("test")
	if diff := cmp.Diff([]uint64{1, 2}, d.of("a")); diff != "" {
		t.Errorf("handled after a new start (-want +got):\n%s", diff)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	var times []time.Time
	r := consume(t, w.js, quick(), func(context.Context, *consumer.Delivery) error {
		if times = append(times, time.Now()); len(times) == 2 {
			return nil
		}
		return fmt.Errorf("later: %w", consumer.RetryAfter(errBusy, 300*time.Millisecond))
	})
	w.idle("test")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if len(times) != 2 || times[1].Sub(times[0]) < 300*time.Millisecond {
		t.Errorf("tried at %v, want twice, 300 ms or more apart", times)
	}
}

func TestPanicCountsAsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	var calls atomic.Int32
	consume(t, w.js, quick(), func(context.Context, *consumer.Delivery) error {
		if calls.Add(1) == 1 {
			panic("unexpected")
		}
		return nil
	})
	w.idle("test")
	if calls.Load() != 2 {
		t.Errorf("%d calls, want 2", calls.Load())
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Snapshot)
	w.publish("a", event.Updated, "fields.email", "fields.phone")
	w.publish("a", event.Updated, "tags")
	w.publish("b", event.Created)
	w.publish("b", event.Updated, "fields.email2")
	w.publish("b", event.Deleted)
	tests := []struct {
		name   string
		filter consumer.Filter
		want   []string
	}{
		{"nothing takes everything", consumer.Filter{}, []string{"a1", "a2", "a3", "b1", "b2", "b3"}},
		{"verbs", consumer.Filter{Verbs: []event.Verb{event.Created, event.Deleted, event.Created}}, []string{"b1", "b3"}},
		{"contacts", consumer.Filter{Contacts: []string{"b"}}, []string{"b1", "b2", "b3"}},
		{"another account", consumer.Filter{Accounts: []string{"other"}}, nil},
		{"changed alone means updated", consumer.Filter{Changed: []string{"tags"}}, []string{"a3"}},
		{"changed leaves other verbs", consumer.Filter{Verbs: []event.Verb{event.Created, event.Updated}, Changed: []string{"fields.email"}}, []string{"a2", "b1"}},
		{"changed covers what is below", consumer.Filter{Changed: []string{"fields"}}, []string{"a2", "b2"}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			durable := fmt.Sprint("filter", i)
			var mu sync.Mutex
			var got []string
			r := consume(t, w.js, quick(func(c *consumer.Config) { c.Durable, c.Filter, c.Concurrency = durable, tt.filter, 1 }), func(_ context.Context, m *consumer.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprint(m.Event.Subject, m.Event.Data.Revision))
				return nil
			})
			w.idle(durable)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			order := cmp.Transformer("sorted", func(s []string) map[string]bool {
				set := make(map[string]bool)
				for _, e := range s {
					set[e] = true
				}
				return set
			})
			if diff := cmp.Diff(tt.want, got, order); diff != "" || len(got) != len(tt.want) {
				t.Errorf("handled (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	w.publish("a", event.Updated, "tags")
	third := w.publish("a", event.Updated, "tags")
	m, err := w.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	last, err := m.GetMsg(t.Context(), third)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		from consumer.From
		want []uint64
	}{
		{"zero", consumer.From{}, []uint64{1, 2, 3, 4}},
		{"all", consumer.All(), []uint64{1, 2, 3, 4}},
		{"now", consumer.Now(), []uint64{4}},
		{"since", consumer.Since(last.Time), []uint64{3, 4}},
		{"sequence", consumer.Sequence(third - 1), []uint64{2, 3, 4}},
	}
	var diaries [5]diary
	for i, tt := range tests {
		durable := fmt.Sprint("from", i)
		consume(t, w.js, quick(func(c *consumer.Config) { c.Durable, c.From = durable, tt.from }), func(_ context.Context, m *consumer.Delivery) error {
			diaries[i].note(m)
			return nil
		})
		w.idle(durable)
	}
	w.publish("a", event.Updated, "tags")
	for i, tt := range tests {
		w.idle(fmt.Sprint("from", i))
		eventually(t, "the last event is handled", func() bool { return diaries[i].len() >= len(tt.want) })
		if diff := cmp.Diff(tt.want, diaries[i].of("a")); diff != "" {
			t.Errorf("%s: handled (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestWrongConfiguration(t *testing.T) {
	err := consumer.Run(t.Context(), nil, consumer.Config{
		Durable: "a.b", Stream: "s s", Concurrency: 5, MaxPending: 2, AckWait: time.Millisecond,
		Filter: consumer.Filter{Verbs: []event.Verb{"gone"}, Changed: []string{"tags"}},
	}, nil)
	for _, want := range []string{`Durable is "a.b"`, `Stream is "s s"`, "MaxPending is 2", "AckWait is 1ms", `Filter.Verbs has "gone"`, "leaves updated out"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want %q in it", err, want)
		}
	}
}

func TestStreamThatDoesNotExist(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := consume(t, w.js, quick(func(c *consumer.Config) { c.Stream = "OTHER" }), nil).wait()
	if !errors.Is(err, jetstream.ErrStreamNotFound) || !strings.Contains(err.Error(), "stream OTHER") {
		t.Errorf("Run: %v, want a stream not found", err)
	}
}

func TestDurableThatIsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	r := consume(t, w.js, quick(), func(context.Context, *consumer.Delivery) error { return nil })
	w.idle("test")
	if err := w.js.DeleteConsumer(t.Context(), stream, "test"); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err == nil || !strings.Contains(err.Error(), "deleted") {
		t.Errorf("Run: %v, want that the durable was deleted", err)
	}
}
