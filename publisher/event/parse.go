package event

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Message is what one of the bridge's messages says: an [*Event], a [*Reconciled] or a [*Rejected].
type Message interface {
	// envelope is there for the three of them alone.
	envelope() *Envelope
}

func (e *Envelope) envelope() *Envelope { return e }

// Parse reads any message of the bridge, as a client library of NATS hands it over: a [nats.Header] is such a map. Without headers, as in a
// value of the key-value bucket, the body speaks for itself; otherwise both have to be about the same event.
//
// The error wraps [ErrType] for an event of a type that this package does not know. Such an event is from a later bridge, and no fault of the message: pass over it.
//
// [nats.Header]: https://pkg.go.dev/github.com/nats-io/nats.go#Header
func Parse(headers map[string][]string, body []byte) (Message, error) {
	m, err := parse(body)
	if err != nil {
		return nil, err
	}
	if id := headers[HeaderID]; len(id) > 0 && id[0] != m.envelope().ID {
		return nil, fmt.Errorf("event: %s header %q for the event %q", HeaderID, id[0], m.envelope().ID)
	}
	return m, nil
}

// parse tries the types by how often they come. One that does not fit is given up at the event's type, which stands near its beginning.
func parse(body []byte) (Message, error) {
	if e, err := Decode(body); !errors.Is(err, ErrType) {
		return message(e, err)
	}
	if r, err := DecodeReconciled(body); !errors.Is(err, ErrType) {
		return message(r, err)
	}
	r, err := DecodeRejected(body)
	return message(r, err)
}

// message makes no message out of a nil pointer.
func message[M Message](m M, err error) (Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Changed tells whether an updated event changed one of the given keys, such as "fields.email" or "tags". A key covers what is below it: "fields" is any field.
// Events with other verbs change nothing.
func (e *Event) Changed(keys ...string) bool {
	for key := range e.Data.Changes {
		if covered(keys, key) {
			return true
		}
	}
	return false
}

// Changed tells what [Event.Changed] does without the body. Where there was no room for all keys, every key that is not there counts as changed: the body knows.
func (h *Headers) Changed(keys ...string) bool {
	return h.ChangedCut && len(keys) > 0 || slices.ContainsFunc(h.ChangedKeys, func(key string) bool { return covered(keys, key) })
}

// covered tells whether one of the wanted keys is key, or one above it.
func covered(wanted []string, key string) bool {
	return slices.ContainsFunc(wanted, func(w string) bool {
		rest, ok := strings.CutPrefix(key, w)
		return ok && (rest == "" || rest[0] == '.' && w != "")
	})
}
