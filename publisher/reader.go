package publisher

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"nimble-bridge/poller"
)

// Reader reads back what a [Publisher] has stored, and writes nothing. What does not exist holds nothing, to it.
type Reader struct {
	p *Publisher
	// events, bucket and state tell which of the streams exist.
	events, bucket, state bool
}

// OpenReader returns a reader of what a publisher with the same configuration stores. It does not care for the shape of the streams.
func OpenReader(ctx context.Context, conn *Connection, cfg Config, log *zap.Logger) (*Reader, error) {
	p, err := prepare(ctx, conn, cfg, log)
	if err != nil {
		return nil, err
	}
	r := &Reader{p: p}
	for _, s := range []struct {
		object
		exists *bool
	}{{p.eventObject(), &r.events}, {p.bucketObject(), &r.bucket}, {stateObject, &r.state}} {
		_, err := p.infoOf(ctx, s.object)
		_, missing := errors.AsType[*MissingError](err)
		if err != nil && !missing {
			return nil, err
		}
		*s.exists = !missing
	}
	return r, nil
}

// Load is [Publisher.Load] for reading only: events that the bucket has and the stream has lost are known, and not appended again.
func (r *Reader) Load(ctx context.Context, known func(poller.Known)) error {
	entries := make(map[string]entry)
	trusted := r.bucket
	if r.bucket {
		err := r.p.scan(ctx, r.p.bucketStream, r.p.keys(), 1, func(m *nats.Msg, _ uint64) error {
			contact := lastToken(m.Subject)
			if e, ok := entryOf(contact, m.Header, sourceOf(m.Header)); ok {
				entries[contact] = e
			} else {
				trusted = false // Somebody else wrote it; the stream has the contact's event.
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if r.events {
		from, err := r.firstToRead(ctx, trusted, entries)
		if err != nil {
			return err
		}
		events := make(map[string]entry)
		if err := r.p.scanEvents(ctx, from, events); err != nil {
			return err
		}
		for contact, e := range entries {
			if s, ok := events[contact]; ok && s.known.Revision < e.known.Revision {
				delete(events, contact) // Lost at the end of the stream, as the bucket shows.
			}
		}
		maps.Copy(entries, events)
	}
	for _, e := range entries {
		known(e.known)
	}
	return nil
}

// firstToRead is the sequence from which on the stream has to be read itself.
func (r *Reader) firstToRead(ctx context.Context, trusted bool, entries map[string]entry) (uint64, error) {
	reach, err := patiently(ctx, r.p, func() (extent, error) { return r.p.extentOf(ctx, r.p.cfg.Stream) })
	if err != nil || !trusted {
		return reach.First, err
	}
	from, err := r.p.firstDoubt(ctx, reach, entries)
	if err != nil || !r.state {
		return from, err
	}
	doubt, err := r.p.doubtFrom(ctx)
	if doubt > 0 {
		from = min(from, doubt)
	}
	return from, err
}

// Last is [Publisher.Last].
func (r *Reader) Last(ctx context.Context, k poller.Known) (jsontext.Value, error) {
	if !r.events {
		return nil, fmt.Errorf("contact %s: %w", k.ID, poller.ErrNotRecorded)
	}
	return r.p.Last(ctx, k)
}

// Progress is [Publisher.Progress].
func (r *Reader) Progress(ctx context.Context) (poller.Progress, error) {
	if !r.state && !r.events {
		return poller.Progress{}, nil
	}
	if !r.state {
		return r.p.firstProgress(ctx)
	}
	progress, err := r.p.Progress(ctx)
	if _, missing := errors.AsType[*MissingError](err); missing && !r.events {
		return poller.Progress{}, nil // Nothing was saved, and no event tells either.
	}
	return progress, err
}
