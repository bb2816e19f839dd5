package consumer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

// outsider is another program on the same durable, that does with it what it likes.
type outsider struct {
	t   *testing.T
	nc  *nats.Conn
	sub *nats.Subscription
}

// take receives the next n messages of a durable, as a process does that gets events.
func (w *world) take(t *testing.T, durable string, n int) (*outsider, []*nats.Msg) {
	t.Helper()
	nc := w.connect().Conn()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	request, _ := json.Marshal(map[string]any{"batch": n, "expires": 30 * time.Second, "group": "one"})
	if err := nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+stream+"."+durable, sub.Subject, request); err != nil {
		t.Fatal(err)
	}
	var msgs []*nats.Msg
	for range n {
		msg, err := sub.NextMsg(20 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if status := msg.Header.Get("Status"); status != "" {
			t.Fatalf("status %s %s", status, msg.Header.Get("Description"))
		}
		msgs = append(msgs, msg)
	}
	return &outsider{t, nc, sub}, msgs
}

func (o *outsider) reply(msg *nats.Msg, body string) {
	o.t.Helper()
	if err := errors.Join(o.nc.Publish(msg.Reply, []byte(body)), o.nc.Flush()); err != nil {
		o.t.Fatal(err)
	}
}

// makeDurable creates the durable and handles nothing.
func (w *world) makeDurable(cfg consumer.Config) {
	w.t.Helper()
	r := consume(w.t, w.connect(), cfg, func(context.Context, *consumer.Delivery) error { return errBusy })
	eventually(w.t, "the durable exists", func() bool {
		_, unacknowledged := w.outstanding(cfg.Durable)
		return unacknowledged >= 0
	})
	if err := r.stop(); err != nil {
		w.t.Fatal(err)
	}
}

// The process that died had shown a later sign of life for a contact's first event than for its second, so that the server gives out the second one first.
func TestOrderWhenTheServerGivesLaterEventsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := quick(func(c *consumer.Config) { c.AckWait = 2 * time.Second })
	w.makeDurable(cfg)
	for range 3 {
		w.publish("a", event.Updated, "tags")
		w.publish("b", event.Updated, "tags")
	}
	dead, msgs := w.take(t, "test", 6)
	dead.reply(msgs[3], "+ACK") // b's second is finished, its first is not.
	<-time.After(time.Second)
	dead.reply(msgs[0], "+WPI")
	dead.reply(msgs[1], "+WPI")
	dead.nc.Close()
	w.publish("c", event.Created)

	var d diary
	consume(t, w.js, cfg, func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		return nil
	})
	w.idle("test")
	want := map[string]string{"a": "[1 2 3]", "b": "[1 3]", "c": "[1]"}
	for contact, revisions := range want {
		if got := fmt.Sprint(d.of(contact)); got != revisions {
			t.Errorf("contact %s: handled %s, want %s", contact, got, revisions)
		}
	}
	if first := d.all()[0]; first.contact != "c" {
		t.Errorf("contact %s came first, want c, which nothing can be outstanding of", first.contact)
	}
}

func TestLostConnectionWithEventsInIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var d diary
	consume(t, w.connect(), quick(), func(_ context.Context, m *consumer.Delivery) error {
		if rand.IntN(3) == 0 {
			return errBusy
		}
		d.note(m)
		return nil
	})
	for i := range 200 {
		w.publish(fmt.Sprint("c", i%10), event.Updated, "tags")
		if i%50 == 49 {
			w.cut()
		}
	}
	w.idle("test")
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
}

func TestServerRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var d diary
	consume(t, w.connect(), quick(), func(_ context.Context, m *consumer.Delivery) error {
		if rand.IntN(3) == 0 {
			return errBusy
		}
		d.note(m)
		return nil
	})
	for range 3 {
		for i := range 60 {
			w.publish(fmt.Sprint("c", i%10), event.Updated, "tags")
		}
		w.stop()
		w.start()
		eventually(t, "the test is connected again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := w.js.Stream(ctx, stream)
			return err == nil
		})
	}
	w.idle("test")
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
}

func TestTwoProcessesOneOfWhichDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var d diary
	handle := func(_ context.Context, m *consumer.Delivery) error {
		if rand.IntN(3) == 0 {
			return errBusy
		}
		d.note(m)
		return nil
	}
	first, second := w.connect(), w.connect()
	dies := consume(t, first, quick(), handle)
	w.publish("c0", event.Created)
	eventually(t, "the first one is active", func() bool { return d.len() == 1 })
	stays := consume(t, second, quick(), handle)
	for i := range 100 {
		w.publish(fmt.Sprint("c", i%10), event.Updated, "tags")
		if i == 50 {
			crash(first)
			_ = dies.wait()
		}
	}
	w.idle("test")
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
	// A clean stop hands over at once.
	third := consume(t, w.connect(), quick(), handle)
	if err := stays.stop(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.publish("c0", event.Updated, "tags")
	w.idle("test")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("taking over after a clean stop took %s, want no waiting for a time limit", took)
	}
	if err := third.stop(); err != nil {
		t.Fatal(err)
	}
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
}

// The answer to an acknowledgement is lost.
func TestAcknowledgementWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	w.publish("a", event.Updated, "tags")
	var d diary
	consume(t, w.connect(), quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		if m.Event.Data.Revision == 1 {
			w.cut()
		}
		return nil
	})
	eventually(t, "both are handled", func() bool { return d.len() >= 2 })
	w.idle("test")
	if diff := cmp.Diff([]uint64{1, 2}, d.of("a")); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
}

func TestBlockedContactLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mended atomic.Bool
	var d diary
	consume(t, w.js, quick(func(c *consumer.Config) { c.MaxPending, c.Concurrency, c.MaxTries = 10, 2, 1_000_000 }), func(_ context.Context, m *consumer.Delivery) error {
		if m.Event.Subject == "bad" && !mended.Load() {
			return errBusy
		}
		d.note(m)
		return nil
	})
	for range 9 {
		w.publish("bad", event.Updated, "tags")
	}
	for i := range 30 {
		w.publish(fmt.Sprint("c", i%3), event.Updated, "tags")
	}
	eventually(t, "the others are handled", func() bool { return d.len() == 30 })
	// One more of the blocked contact, and there is no room left.
	w.publish("bad", event.Updated, "tags")
	w.publish("c0", event.Updated, "tags")
	eventually(t, "no room is left", func() bool {
		pending, unacknowledged := w.outstanding("test")
		return pending == 1 && unacknowledged == 10
	})
	mended.Store(true)
	w.idle("test")
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
}

func TestDeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sequence := w.publish("bad", event.Updated, "fields.email", "tags")
	w.publish("bad", event.Updated, "tags")
	w.publish("worse", event.Created)
	var d diary
	var tries atomic.Int32
	consume(t, w.js, quick(func(c *consumer.Config) { c.MaxTries = 3 }), func(_ context.Context, m *consumer.Delivery) error {
		switch {
		case m.Event.Subject == "worse":
			return consumer.Permanent(errors.New("no such thing"))
		case m.Event.Data.Revision == 1:
			tries.Add(1)
			return fmt.Errorf("try %d:\n%w", m.Try, errBusy)
		}
		d.note(m)
		return nil
	})
	w.idle("test")
	if tries.Load() != 3 {
		t.Errorf("%d tries, want 3", tries.Load())
	}
	if diff := cmp.Diff([]uint64{2}, d.of("bad")); diff != "" {
		t.Errorf("handled after the letter (-want +got):\n%s", diff)
	}
	letters := w.letters()
	if len(letters) != 2 {
		t.Fatalf("%d dead letters, want 2", len(letters))
	}
	if strings.HasSuffix(letters[0].Subject, "worse") {
		letters[0], letters[1] = letters[1], letters[0]
	}
	s, err := w.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	original, err := s.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	l := letters[0]
	if want := "nimble-dead.test.letter.acme.bad"; l.Subject != want || string(l.Data) != string(original.Data) {
		t.Errorf("letter on %s with %d bytes, want %s with the event's", l.Subject, len(l.Data), want)
	}
	for name, want := range map[string]string{
		consumer.DeadConsumer: "test", consumer.DeadStream: stream, consumer.DeadSequence: fmt.Sprint(sequence),
		consumer.DeadSubject: original.Subject, consumer.DeadStored: original.Time.Format(time.RFC3339Nano),
		consumer.DeadReason: string(consumer.Exhausted), consumer.DeadError: "try 3: busy", consumer.DeadTries: "3",
		"Nimble-Changed": "fields.email,tags", "Nimble-Type": "updated", "Content-Type": event.ContentType,
		"Nimble-Dead-Original-Nats-Msg-Id": original.Header.Get("Nats-Msg-Id"),
	} {
		if got := l.Header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	l = letters[1]
	if got := l.Header.Get(consumer.DeadReason) + " " + l.Header.Get(consumer.DeadTries); got != "refused 1" {
		t.Errorf("the second letter is %s, want refused 1", got)
	}
}

func TestDeadLetterOfWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.send(&nats.Msg{Subject: "nimble.acme.contact.updated.a", Data: []byte("{}")})
	w.publish("a", event.Created)
	var d diary
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		return nil
	})
	w.idle("test")
	letters := w.letters()
	if len(letters) != 1 || letters[0].Header.Get(consumer.DeadReason) != string(consumer.Unreadable) || string(letters[0].Data) != "{}" {
		t.Errorf("letters %v, want one that is unreadable", letters)
	}
	if d.len() != 1 {
		t.Errorf("%d events handled, want 1", d.len())
	}
}

// An event as large as the server takes leaves no room for what a letter says.
func TestDeadLetterThatWouldBeTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sequence := w.publish("a", event.Created)
	s, err := w.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	padding := strings.Repeat(" ", int(w.js.Conn().MaxPayload())-len(m.Data)-200)
	w.send(&nats.Msg{Subject: m.Subject, Header: nats.Header{"Nats-Msg-Id": {"large"}}, Data: append(m.Data, padding...)})
	consume(t, w.js, quick(), func(context.Context, *consumer.Delivery) error { return consumer.Permanent(errBusy) })
	w.idle("test")
	letters := w.letters()
	if len(letters) != 1 || letters[0].Header.Get(consumer.DeadBody) != "omitted" || len(letters[0].Data) != 0 {
		t.Errorf("%d letters, want one without the body", len(letters))
	}
}

func TestEventIsKeptWhileItsLetterCannotBeStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeDurable(quick())
	setLimit := func(n int64) {
		s, err := w.js.Stream(t.Context(), dead)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.MaxMsgs = n
		if _, err := w.js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.js.Publish(t.Context(), dead+".x", nil); err != nil {
		t.Fatal(err)
	}
	setLimit(1)
	w.publish("bad", event.Created)
	w.publish("bad", event.Updated, "tags")
	w.publish("good", event.Created)
	var d diary
	var gaveUp atomic.Bool
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		if m.Event.Subject == "bad" && m.Event.Data.Revision == 1 {
			gaveUp.Store(true)
			return consumer.Permanent(errBusy)
		}
		d.note(m)
		return nil
	})
	eventually(t, "the good contact is handled", func() bool { return gaveUp.Load() && len(d.of("good")) == 1 })
	if got := d.of("bad"); got != nil {
		t.Errorf("revisions %v were handled behind an event that is nowhere", got)
	}
	setLimit(-1)
	w.idle("test")
	if len(w.letters()) != 2 || len(d.of("bad")) != 1 {
		t.Errorf("%d letters and %v handled, want the letter and then the next revision", len(w.letters())-1, d.of("bad"))
	}
}

// Crashes of the consumer at random moments, with a handler that fails at times.
func TestCrashesAtRandomMoments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var d diary
	for i := range 300 {
		w.publish(fmt.Sprint("c", i%15), event.Updated, "tags")
	}
	for range 2 {
		js := w.connect()
		left := 20 + rand.IntN(40)
		ctx, cancel := context.WithCancel(t.Context())
		var handled atomic.Int32
		r := consume(t, js, quick(), func(_ context.Context, m *consumer.Delivery) error {
			if ctx.Err() != nil {
				return errBusy // A dead process does nothing.
			}
			if rand.IntN(4) == 0 {
				return errBusy
			}
			d.note(m)
			if int(handled.Add(1)) == left {
				cancel()
				crash(js)
			}
			return nil
		})
		_ = r.wait()
	}
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		return nil
	})
	w.idle("test")
	if err := d.checkOrder(w.revisions); err != nil {
		t.Error(err)
	}
}
