package consumer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

// Bootstrap hands the latest event of every contact to state, and creates the durable so that [Run] goes on from there: what is in neither is stored later. If the durable
// exists, all of this was done before, and Bootstrap returns at once. So a service calls it before Run, at every start:
//
//	err := consumer.Bootstrap(ctx, js, cfg, store)
//	...
//	err = consumer.Run(ctx, js, cfg, store)
//
// Deleted contacts are handed over too, as their deleted events. Some events come twice, once from the bucket and once from the stream, and some contacts more than once: store must
// keep the revision with each contact and pass over an event whose revision is not higher. See the package documentation for why that is enough.
//
// Of [Config.Filter] only Contacts and Accounts apply; [Config.From] does not. Contacts are handed over side by side, up to [Config.Concurrency] at a time, one contact's events
// in order. An error of state is tried again as Run does it, but ends Bootstrap when the tries are used up; nothing is created then, and the next call begins anew.
func Bootstrap(ctx context.Context, js jetstream.JetStream, cfg Config, state Handler) error {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return err
	}
	b := &bootstrap{cfg: cfg, js: js, state: state, log: cfg.Log.With(zap.String("durable", cfg.Durable)), seed: maphash.MakeSeed()}
	pauses := newPauses()
	for {
		err := b.run(ctx)
		if err == nil {
			return nil
		}
		if _, refused := errors.AsType[*stateError](err); refused || !unanswered(err) || js.Conn().IsClosed() || ctx.Err() != nil {
			return fmt.Errorf("consumer %s: %w", cfg.Durable, err)
		}
		b.log.Warn("waiting for NATS", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// stateError is what the handler said, and none of the server's faults.
type stateError struct{ error }

func (e *stateError) Unwrap() error { return e.error }

// Forget deletes the durable, so that [Bootstrap] begins anew, and [Run] where [Config.From] says. It is for a consumer that was away for longer than the stream keeps events.
// Its dead letters stay.
func Forget(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return err
	}
	if err := js.DeleteConsumer(ctx, cfg.Stream, cfg.Durable); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("consumer %s: durable on stream %s: %w", cfg.Durable, cfg.Stream, err)
	}
	return nil
}

type bootstrap struct {
	cfg            Config
	js             jetstream.JetStream
	state          Handler
	log            *zap.Logger
	seed           maphash.Seed
	events, bucket jetstream.Stream
}

func (b *bootstrap) run(ctx context.Context) (err error) {
	if b.events, err = b.js.Stream(ctx, b.cfg.Stream); err != nil {
		return fmt.Errorf("stream %s: %w", b.cfg.Stream, err)
	}
	if b.bucket, err = b.js.Stream(ctx, "KV_"+b.cfg.Bucket); err != nil {
		return fmt.Errorf("bucket %s: %w", b.cfg.Bucket, err)
	}
	for {
		_, err := b.events.Consumer(ctx, b.cfg.Durable)
		if err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("durable on stream %s: %w", b.cfg.Stream, err)
		}
		// The end of the bucket is looked up before the bucket is read: what is sourced meanwhile lies beyond it, and comes from the stream.
		end, err := b.end(ctx)
		if err != nil {
			return err
		}
		contacts, err := b.read(ctx, end)
		if err != nil {
			return err
		}
		whole, err := b.create(ctx, end)
		if err != nil {
			return err
		}
		if whole {
			b.log.Info("present state read", zap.Int("events", contacts), zap.Uint64("from_seq", end.source+1))
			return nil
		}
		b.log.Info("the stream has dropped events while the present state was read; reading it again", zap.Uint64("from_seq", end.source+1))
	}
}

// place is a message's sequence in the bucket's stream, and in the event stream that it was sourced from. It is zero for an empty bucket.
type place struct {
	sequence, source uint64
	id               string
}

// end is where the bucket ends. It may be some time ago that it did: a replica that lags behind can answer.
func (b *bootstrap) end(ctx context.Context) (place, error) {
	m, err := b.bucket.GetLastMsgForSubject(ctx, b.keys())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return place{}, nil
	}
	if err != nil {
		return place{}, fmt.Errorf("bucket %s: %w", b.cfg.Bucket, err)
	}
	source, ok := sourceOf(m.Header)
	if !ok {
		return place{}, fmt.Errorf("bucket %s: its last entry, on %s, was not put there by NATS from the event stream; remove it", b.cfg.Bucket, m.Subject)
	}
	return place{m.Sequence, source, m.Header.Get(event.HeaderID)}, nil
}

func (b *bootstrap) keys() string { return "$KV." + b.cfg.Bucket + ".*.*" }

// sourceOf reads the header that NATS puts on a message it has sourced, "<stream> <sequence> …".
func sourceOf(h nats.Header) (uint64, bool) {
	_, rest, _ := strings.Cut(h.Get("Nats-Stream-Source"), " ")
	text, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// read hands over what the bucket has.
func (b *bootstrap) read(ctx context.Context, end place) (int, error) {
	if end.sequence == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := make([]chan *Delivery, b.cfg.Concurrency)
	var working sync.WaitGroup
	for i := range workers {
		workers[i] = make(chan *Delivery, 16)
		working.Go(func() {
			for d := range workers[i] {
				if ctx.Err() != nil {
					continue
				}
				if err := b.hand(ctx, d); err != nil {
					cancel(err)
				}
			}
		})
	}
	count := 0
	err := b.scan(ctx, end, func(msg jetstream.Msg) error {
		d, err := b.delivery(msg)
		if err != nil || d == nil {
			return err
		}
		count++
		select {
		case workers[maphash.String(b.seed, d.Event.Data.Account+"."+d.Event.Subject)%uint64(len(workers))] <- d:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	for _, w := range workers {
		close(w)
	}
	working.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return count, cause
	}
	return count, err
}

// scan visits the bucket's entries in order, at least up to the end, and on from there until none is left: an entry that is replaced meanwhile moves to the
// end, so that every contact that was there at the beginning has been seen only then.
func (b *bootstrap) scan(ctx context.Context, end place, visit func(jetstream.Msg) error) error {
	fail := func(err error) error { return fmt.Errorf("bucket %s: %w", b.cfg.Bucket, err) }
	oc, err := b.bucket.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{b.keys()}})
	if err != nil {
		return fail(err)
	}
	messages, err := oc.Messages()
	if err != nil {
		return fail(err)
	}
	defer messages.Stop()
	reached, idle := uint64(0), 0
	for {
		limited, cancel := context.WithTimeout(ctx, glance)
		msg, err := messages.Next(jetstream.NextContext(limited))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && idle < mostGlances {
			// What was pending may have been removed.
			idle++
			if info, err := oc.Info(ctx); err == nil && info.NumPending == 0 && reached >= end.sequence {
				return nil
			}
			continue
		}
		if err != nil {
			return fail(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fail(err)
		}
		if err := visit(msg); err != nil {
			return err
		}
		if reached, idle = meta.Sequence.Stream, 0; reached < end.sequence || meta.NumPending > 0 {
			continue
		}
		// An entry that is just being replaced is not counted for a moment, neither where it was nor where it will be. So that nothing is pending is believed only where the bucket ends.
		info, err := b.bucket.Info(ctx)
		if err != nil {
			return fail(err)
		}
		if info.State.LastSeq <= reached {
			return nil
		}
	}
}

// A scan that gets nothing looks around after a glance, and gives up after so many.
const (
	glance      = time.Second
	mostGlances = 60
)

// delivery reads an entry; it is nil for one that the filter leaves out.
func (b *bootstrap) delivery(msg jetstream.Msg) (*Delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	source, ok := sourceOf(msg.Headers())
	if !ok {
		b.log.Warn("bucket entry that NATS has not put there from the event stream", zap.String("bucket", b.cfg.Bucket), zap.Uint64("seq", meta.Sequence.Stream))
		return nil, nil
	}
	e, err := event.Decode(msg.Data())
	if err != nil {
		return nil, fmt.Errorf("bucket %s, sequence %d: %w", b.cfg.Bucket, meta.Sequence.Stream, err)
	}
	subject := event.Subject{Prefix: b.cfg.Prefix, Account: e.Data.Account, Verb: e.Verb(), ContactID: e.Subject}
	if !fits(b.cfg.Filter.Contacts, subject.ContactID) || !fits(b.cfg.Filter.Accounts, subject.Account) {
		return nil, nil
	}
	return &Delivery{
		Event: e, Body: msg.Data(), Header: headersOf(msg.Headers()), Subject: subject.String(), Sequence: source, Stored: meta.Timestamp, Deliveries: 1,
	}, nil
}

// hand gives one event to the handler, again and again if need be.
func (b *bootstrap) hand(ctx context.Context, d *Delivery) error {
	pauses := b.cfg.newBackOff()
	for d.Try = 1; ; d.Try++ {
		attempt := *d
		err := b.state(ctx, &attempt)
		how := markOf(err)
		switch {
		case err == nil:
			return nil
		case how.stop, how.permanent, d.Try >= b.cfg.MaxTries, ctx.Err() != nil:
			return &stateError{fmt.Errorf("contact %s, revision %d: %w", d.Event.Subject, d.Event.Data.Revision, err)}
		}
		pause := max(pauses.NextBackOff(), min(how.after, longestAfter))
		b.log.Warn("contact not taken; it is tried again", zap.String("contact_id", d.Event.Subject), zap.Int("attempt", d.Try), zap.Duration("retry_in", pause), zap.Error(err))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// create makes the durable begin after the end that the bucket had when it was read. It is false, with no durable left, when the stream may have dropped events after
// that end which the bucket has got since: then the bucket has to be read again.
func (b *bootstrap) create(ctx context.Context, end place) (bool, error) {
	if ok, err := b.whole(ctx, end); !ok || err != nil {
		return false, err
	}
	from, err := b.from(ctx, end)
	if err != nil {
		return false, err
	}
	cfg := b.cfg
	cfg.From = from
	if _, err := b.js.CreateConsumer(ctx, b.cfg.Stream, cfg.eventsDurable(jetstream.ConsumerConfig{}, false)); err != nil {
		return false, fmt.Errorf("durable on stream %s: %w", b.cfg.Stream, err)
	}
	ok, err := b.whole(ctx, end)
	if !ok || err != nil {
		return false, errors.Join(err, Forget(context.WithoutCancel(ctx), b.js, b.cfg))
	}
	return true, nil
}

// whole tells whether nothing is missing between the end that was read and what the stream has.
func (b *bootstrap) whole(ctx context.Context, end place) (bool, error) {
	info, err := b.events.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("stream %s: %w", b.cfg.Stream, err)
	}
	if info.State.FirstSeq <= end.source+1 {
		return true, nil
	}
	// What was dropped may have been no contact events: the bucket says so if it has got nothing since.
	now, err := b.end(ctx)
	return now == end, err
}

// from is where the durable begins: after the event that the bucket ended with. If the stream has another event there, or none yet, it has lost its end in a power failure; then its
// sequences say nothing, and it is handed over as a whole.
func (b *bootstrap) from(ctx context.Context, end place) (From, error) {
	if end.source == 0 {
		return All(), nil
	}
	info, err := b.events.Info(ctx)
	if err != nil {
		return From{}, fmt.Errorf("stream %s: %w", b.cfg.Stream, err)
	}
	if end.source < info.State.FirstSeq {
		return Sequence(end.source + 1), nil // Dropped, and so was everything before it.
	}
	m, err := b.events.GetMsg(ctx, end.source)
	switch {
	case err != nil && !errors.Is(err, jetstream.ErrMsgNotFound):
		return From{}, fmt.Errorf("stream %s: %w", b.cfg.Stream, err)
	case err == nil && m.Header.Get(event.HeaderID) == end.id:
		return Sequence(end.source + 1), nil
	case err != nil && end.source <= info.State.LastSeq:
		return Sequence(end.source + 1), nil // Removed from the middle, as an erasure does.
	}
	b.log.Warn("the bucket is ahead of the stream; the stream is handed over from its beginning", zap.Uint64("seq", end.source))
	return All(), nil
}
