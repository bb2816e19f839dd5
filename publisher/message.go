package publisher

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// Headers by which the server checks what a message has to follow, and puts batches together.
const (
	headerExpected        = "Nats-Expected-Last-Subject-Sequence"
	headerExpectedSubject = "Nats-Expected-Last-Subject-Sequence-Subject"
	headerBatch           = "Nats-Batch-Id"
	headerBatchSequence   = "Nats-Batch-Sequence"
	headerBatchCommit     = "Nats-Batch-Commit"
)

// outgoing is an event on its way into the stream.
type outgoing struct {
	msg *nats.Msg
	// id is the event's id, contact the contact's.
	id, contact string
	kind        poller.Kind
	// filter matches everything about the contact.
	filter string
	// expected is the sequence that the contact's last event has to have.
	expected uint64
	// since is when what the event reports happened, as far as is known.
	since time.Time
	size  int
	// sequence is where the event was stored; 0 while it is not known to be.
	sequence uint64
}

// expect makes the server store the message only if the contact's last event is at the given sequence.
func (o *outgoing) expect(sequence uint64) {
	o.expected = sequence
	o.msg.Header[headerExpected] = []string{strconv.FormatUint(sequence, 10)}
}

// verbs are the events' words for the poller's.
var verbs = map[poller.Kind]event.Verb{
	poller.Snapshot: event.Snapshot,
	poller.Created:  event.Created,
	poller.Updated:  event.Updated,
	poller.Deleted:  event.Deleted,
}

// EventOf returns the event that reports a change in an account, as [Publisher.Append] stores it, but for what a message has no room for.
func EventOf(account string, c poller.Change) (*event.Event, error) {
	e, _, err := eventOf(account, &c)
	return e, err
}

// eventOf makes the event that reports a change, and the headers of its message.
func eventOf(account string, c *poller.Change) (*event.Event, event.Headers, error) {
	verb, ok := verbs[c.Kind]
	if !ok {
		return nil, event.Headers{}, fmt.Errorf("contact %s: unknown kind of change %q", c.Contact.ID, string(c.Kind))
	}
	summary, err := event.SummarizeValid(c.Contact.Raw)
	if err != nil {
		return nil, event.Headers{}, fmt.Errorf("contact %s: %w", c.Contact.ID, err)
	}
	fingerprint := c.Fingerprint.String()
	h := event.Headers{
		ID:          event.ContactEventID(account, c.Contact.ID, c.Revision, verb, fingerprint),
		Verb:        verb,
		Revision:    c.Revision,
		Fingerprint: fingerprint,
		Created:     c.Contact.Created,
		Updated:     c.Contact.Updated,
	}
	e := &event.Event{
		Envelope: event.Envelope{
			ID: h.ID, Source: event.Source(account), Type: verb.Type(), Subject: c.Contact.ID, Time: timeOf(c),
		},
		Data: event.Data{
			Account: account, RecordType: c.Contact.RecordType, Revision: c.Revision,
			Observed: c.Observed, FoundBy: string(c.FoundBy), Reason: string(c.Reason),
			Restored: c.Restored, Erased: c.Erased, MergedIntoCandidates: c.MergedInto,
			Summary: summary, Contact: c.Contact.Raw,
		},
	}
	if len(c.Changes) > 0 {
		e.Data.Changes = make(map[string]event.Change, len(c.Changes))
		h.ChangedKeys = make([]string, 0, len(c.Changes))
		for key, d := range c.Changes {
			e.Data.Changes[key] = event.Change{Before: d.Before, After: d.After}
			h.ChangedKeys = append(h.ChangedKeys, key)
		}
	}
	return e, h, nil
}

// timeOf is when what a change reports happened, by Nimble's clock. Where Nimble gives no time, the moment of detection stands in.
func timeOf(c *poller.Change) time.Time {
	at := c.Contact.Updated
	switch c.Kind {
	case poller.Created:
		if at = c.Contact.Created; at.IsZero() {
			at, _ = nimble.IDTime(c.Contact.ID) // Zero if the id does not tell.
		}
	case poller.Deleted:
		at = c.Observed
	case poller.Snapshot, poller.Updated:
	}
	if at.IsZero() {
		return c.Observed
	}
	return at
}

// message encodes a change, into the room.
func (p *Publisher) message(c *poller.Change, room *room) (*outgoing, error) {
	e, h, err := eventOf(p.cfg.Account, c)
	if err != nil {
		return nil, err
	}
	subject := event.Subject{Prefix: p.cfg.Prefix, Account: p.cfg.Account, Verb: h.Verb, ContactID: c.Contact.ID}
	if err := subject.Check(); err != nil {
		return nil, err
	}
	header := room.header()
	h.Put(header)
	o := &outgoing{
		msg: &nats.Msg{Subject: subject.String(), Header: header, Data: room.body(e.SizeHint(), e.Append)},
		id:  h.ID, contact: c.Contact.ID, kind: c.Kind,
		filter: event.ContactSubjects(p.cfg.Prefix, p.cfg.Account, c.Contact.ID),
		since:  e.Time,
	}
	o.msg.Header[headerExpectedSubject] = []string{o.filter}
	o.expect(c.Previous)
	if o.size = sizeOf(o.msg); o.size <= p.limit() {
		return o, nil
	}
	e.Truncate(p.limit() - (o.size - len(o.msg.Data)))
	o.msg.Data = e.Encode()
	if o.size = sizeOf(o.msg); o.size > p.limit() {
		return nil, &TooLargeError{ContactID: o.contact, Size: o.size, Limit: p.limit(), Err: nats.ErrMaxPayload}
	}
	return o, nil
}

// batchRoom is kept free in each message for the headers that make it part of a batch.
const batchRoom = 128

// limit is the largest message, headers included.
func (p *Publisher) limit() int {
	limit := int(p.nc.MaxPayload())
	if p.maxMsgSize > 0 {
		limit = min(limit, p.maxMsgSize)
	}
	return limit
}

// sizeOf is what a message takes of the server's largest payload, and will as part of a batch.
func sizeOf(m *nats.Msg) int {
	size := len("NATS/1.0\r\n\r\n") + len(m.Data) + batchRoom
	for name, values := range m.Header {
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	return size
}
