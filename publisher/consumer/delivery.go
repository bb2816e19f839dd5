package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"nimble-bridge/publisher/event"
)

// Handler does something about an event. Nil means that it is done, and the event is not seen again; an error that it is to be tried again later, unless
// it is marked by [Permanent], [RetryAfter] or [Stop]. A panic counts as an error.
//
// Handlers of different contacts run at the same time. The context ends some time after that of [Run], see [Config.Grace].
type Handler func(ctx context.Context, d *Delivery) error

// Delivery is an event on its way to a handler. It belongs to the handler, but not beyond its return.
type Delivery struct {
	// Event is what the body says.
	Event *event.Event
	// Body is the CloudEvent as it is stored, and Header and Subject what stands on it.
	Body    []byte
	Header  nats.Header
	Subject string
	// Sequence is the event's place in its stream, and Stored when the server put it there.
	Sequence uint64
	Stored   time.Time
	// Try counts the tries this process makes, from 1.
	Try int
	// Deliveries counts how often the server has handed the event out, to whomever, this time included.
	Deliveries uint64
	// Requeued says that the event was a dead letter before, so that later ones of its contact may have been handled.
	Requeued bool
}

// Redelivered says that the event may have been handled before, in whole or in part. Who must not do anything twice compares revisions: what has
// been done for the contact up to a revision need not be done again.
func (d *Delivery) Redelivered() bool { return d.Try > 1 || d.Deliveries > 1 || d.Requeued }

// mark is an error that says how to go on.
type mark struct {
	error
	permanent, stop bool
	after           time.Duration
}

func (m *mark) Unwrap() error { return m.error }

// Permanent marks a handler's error as one that no further try would mend: the event becomes a dead letter at once.
func Permanent(err error) error { return &mark{error: err, permanent: true} }

// RetryAfter marks a handler's error with how long to wait at least before the next try. It does not count for more than an hour.
func RetryAfter(err error, pause time.Duration) error { return &mark{error: err, after: pause} }

// Stop marks a handler's error as the end of it all: [Run] stops and returns it. The event is not finished, and will be the first of its contact next time.
func Stop(err error) error { return &mark{error: err, stop: true} }

// longestAfter bounds what RetryAfter may ask for.
const longestAfter = time.Hour

func markOf(err error) mark {
	if m, ok := errors.AsType[*mark](err); ok {
		return *m
	}
	return mark{}
}
