package consumer_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

func openLetters(t *testing.T, w *world) *consumer.Letters {
	t.Helper()
	letters, err := consumer.OpenLetters(t.Context(), w.js, "")
	if err != nil {
		t.Fatal(err)
	}
	return letters
}

func all(t *testing.T, letters *consumer.Letters, durable, contact string) []*consumer.Letter {
	t.Helper()
	var found []*consumer.Letter
	for letter, err := range letters.All(t.Context(), durable, contact) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, letter)
	}
	return found
}

func TestLettersAreListedHandledAgainAndDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("a", event.Created)
	first := w.publish("b", event.Updated, "tags")
	w.publish("a", event.Updated, "tags")
	var mended atomic.Bool
	var d diary
	var requeued atomic.Int32
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		if !mended.Load() {
			return consumer.Permanent(errBusy)
		}
		d.note(m)
		if m.Requeued {
			requeued.Add(1)
		}
		if m.Requeued && m.Event.Subject == "b" && (m.Sequence != first || m.Subject != "nimble.acme.contact.updated.b" || m.Header.Get("Nats-Msg-Id") != m.Event.ID) {
			t.Errorf("the letter came as sequence %d on %s with id %q", m.Sequence, m.Subject, m.Header.Get("Nats-Msg-Id"))
		}
		return nil
	})
	w.idle("test")
	letters := openLetters(t, w)
	if got := []int{len(all(t, letters, "", "")), len(all(t, letters, "test", "a")), len(all(t, letters, "other", "")), len(all(t, letters, "test", "b"))}; !cmp.Equal(got, []int{3, 2, 0, 1}) {
		t.Fatalf("%v letters in all, of a, of another consumer and of b; want 3, 2, 0, 1", got)
	}
	b := all(t, letters, "test", "b")[0]
	if b.Reason != consumer.Refused || b.Tries != 1 || b.Error != "busy" || b.ContactID != "b" || b.Account != account || b.Verb != event.Updated || b.Revision != 1 || b.EventSequence != first {
		t.Errorf("letter %+v", b)
	}
	if got, err := letters.Get(t.Context(), b.Sequence); err != nil || got.ContactID != "b" {
		t.Errorf("Get: %v, %v", got, err)
	}

	// Handled again while nothing has changed, it is given up again.
	if err := letters.Retry(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is a letter again", func() bool {
		again := all(t, letters, "test", "b")
		return len(again) == 1 && again[0].Sequence != b.Sequence
	})
	again := all(t, letters, "test", "b")[0]
	if diff := cmp.Diff([]any{b.Subject, b.Stored, b.EventSequence, string(b.Body)}, []any{again.Subject, again.Stored, again.EventSequence, string(again.Body)}); diff != "" {
		t.Errorf("the letter has become another one (-want +got):\n%s", diff)
	}

	mended.Store(true)
	for _, letter := range all(t, letters, "test", "") {
		if letter.Revision == 1 {
			if err := letters.Retry(t.Context(), letter); err != nil {
				t.Error(err)
			}
		} else if err := letters.Drop(t.Context(), letter); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "two are handled, and nothing is left", func() bool { return requeued.Load() == 2 && len(w.letters()) == 0 })
	if d.len() != 2 || len(d.of("a")) != 1 || len(d.of("b")) != 1 {
		t.Errorf("handled %v, want revision 1 of a and b", d.all())
	}
	if _, err := letters.Get(t.Context(), b.Sequence); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("Get of a letter that is gone: %v", err)
	}
}

// What had no room in the letter is read from the stream.
func TestLetterWithoutABodyIsHandledAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sequence := w.publish("a", event.Created)
	m, err := w.events().GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	w.dropUpTo(sequence)
	padding := strings.Repeat(" ", int(w.js.Conn().MaxPayload())-len(m.Data)-200)
	w.send(&nats.Msg{Subject: m.Subject, Header: nats.Header{"Nats-Msg-Id": {"large"}}, Data: append(m.Data, padding...)})
	var mended atomic.Bool
	var got atomic.Int64
	consume(t, w.js, quick(), func(_ context.Context, m *consumer.Delivery) error {
		if !mended.Load() {
			return consumer.Permanent(errBusy)
		}
		got.Store(int64(len(m.Body)))
		return nil
	})
	w.idle("test")
	mended.Store(true)
	letters := openLetters(t, w)
	for _, letter := range all(t, letters, "", "") {
		if err := letters.Retry(t.Context(), letter); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "it is handled", func() bool { return len(w.letters()) == 0 })
	if want := int64(len(m.Data) + len(padding)); got.Load() != want {
		t.Errorf("the handler got %d bytes, want %d", got.Load(), want)
	}
}

func TestLettersOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := consumer.OpenLetters(t.Context(), w.js, "none"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("OpenLetters: %v, want that there is no such stream", err)
	}
}
