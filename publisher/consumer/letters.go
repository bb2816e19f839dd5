package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/event"
)

// Letters are the dead letters of all consumers that share a stream for them.
type Letters struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	name   string
}

// Letter is an event that was given up.
type Letter struct {
	// Sequence is the letter's place in the stream of dead letters, and At when it was stored there.
	Sequence uint64
	At       time.Time
	// Durable is the consumer that gave up; Reason, Error and Tries say why.
	Durable string
	Reason  Reason
	Error   string
	Tries   int
	// Account and ContactID are empty for what is no contact event.
	Account, ContactID string
	// Verb and Revision are the event's, as far as its headers tell.
	Verb     event.Verb
	Revision uint64
	// Stream, EventSequence, Subject and Stored are where and when the event was stored.
	Stream        string
	EventSequence uint64
	Subject       string
	Stored        time.Time
	// Body is the event's. It is empty if it had no room, see [DeadBody].
	Body []byte
	// Header has everything else.
	Header nats.Header
}

// OpenLetters finds the stream of dead letters; name is [Config.DeadLetters], "" its default. The error wraps [jetstream.ErrStreamNotFound] when no consumer has made it yet.
func OpenLetters(ctx context.Context, js jetstream.JetStream, name string) (*Letters, error) {
	name = cmp.Or(name, defaultDeadLetters)
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s for dead letters: %w", name, err)
	}
	return &Letters{js, stream, name}, nil
}

// All returns the letters of a durable and a contact, the oldest first; an empty name stands for all. It ends with the first error.
func (l *Letters) All(ctx context.Context, durable, contact string) iter.Seq2[*Letter, error] {
	filter := letterSubject(l.name, cmp.Or(durable, "*"), kindLetter, "*", cmp.Or(contact, "*"))
	return func(yield func(*Letter, error) bool) {
		for next := uint64(1); ; {
			m, err := l.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(filter))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("stream %s: %w", l.name, err))
				return
			}
			next = m.Sequence + 1
			if !yield(letterOf(m), nil) {
				return
			}
		}
	}
}

// Get returns one letter. The error wraps [jetstream.ErrMsgNotFound] if there is none.
func (l *Letters) Get(ctx context.Context, sequence uint64) (*Letter, error) {
	m, err := l.stream.GetMsg(ctx, sequence)
	if err == nil && !strings.Contains(m.Subject, "."+kindLetter+".") {
		err = jetstream.ErrMsgNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("letter %d of stream %s: %w", sequence, l.name, err)
	}
	return letterOf(m), nil
}

func letterOf(m *jetstream.RawStreamMsg) *Letter {
	h := m.Header
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(h.Get(name), 10, 64) // A letter that somebody else wrote is shown as far as it goes.
		return n
	}
	stored, _ := time.Parse(time.RFC3339Nano, h.Get(DeadStored))
	letter := &Letter{
		Sequence: m.Sequence, At: m.Time,
		Durable: h.Get(DeadConsumer), Reason: Reason(h.Get(DeadReason)), Error: h.Get(DeadError), Tries: int(number(DeadTries)),
		Verb: event.Verb(h.Get(event.HeaderType)), Revision: number(event.HeaderRevision),
		Stream: h.Get(DeadStream), EventSequence: number(DeadSequence), Subject: h.Get(DeadSubject), Stored: stored,
		Body: m.Data, Header: h,
	}
	if s, err := event.ParseSubject(letter.Subject); err == nil {
		letter.Account, letter.ContactID = s.Account, s.ContactID
	}
	return letter
}

// Retry hands a letter to its consumer again, which handles it when it next runs, with [Delivery.Requeued] true and all tries before it. Later events of the contact may have
// been handled before.
func (l *Letters) Retry(ctx context.Context, letter *Letter) error {
	header := maps.Clone(letter.Header)
	header.Set(event.HeaderID, fmt.Sprintf("again/%d", letter.Sequence)) // Told twice, the server stores it once.
	msg := &nats.Msg{
		Subject: letterSubject(l.name, letter.Durable, kindAgain, cmp.Or(letter.Account, unknown), cmp.Or(letter.ContactID, unknown)),
		Header:  header, Data: letter.Body,
	}
	if _, err := l.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(l.name)); err != nil {
		return fmt.Errorf("letter %d of stream %s: %w", letter.Sequence, l.name, err)
	}
	return l.Drop(ctx, letter)
}

// Drop removes a letter for good.
func (l *Letters) Drop(ctx context.Context, letter *Letter) error {
	// What is in it is about a person, so that it is overwritten.
	if err := l.stream.SecureDeleteMsg(ctx, letter.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("letter %d of stream %s: %w", letter.Sequence, l.name, err)
	}
	return nil
}
