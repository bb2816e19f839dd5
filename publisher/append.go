package publisher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

const (
	// maxBatch is how many messages the server takes in an atomic batch, unless it is configured for fewer.
	maxBatch = 1000
	// maxBatchBytes keeps a batch well below what made servers slow.
	maxBatchBytes = 8 << 20
)

// Append stores one event for each change, as [poller.Ledger] demands. Changes that fit one batch are stored together or not at all. Events are encoded while an earlier Append
// waits for its acknowledgement.
//
// On an error, which wraps [poller.ErrConflict] if another writer was there first, some of the changes may be stored.
func (p *Publisher) Append(ctx context.Context, changes []poller.Change) ([]uint64, error) {
	room := takeRoom()
	defer room.giveBack()
	sequences := make([]uint64, 0, len(changes))
	batch, err := p.batch(changes, room)
	if err != nil {
		return nil, err
	}
	p.appending.Lock()
	defer p.appending.Unlock()
	for {
		if err := p.store(ctx, batch); err != nil {
			return nil, err
		}
		now := time.Now()
		for _, o := range batch {
			sequences = append(sequences, o.sequence)
			if p.cfg.Hooks.Published != nil {
				p.cfg.Hooks.Published(o.kind, now.Sub(o.since))
			}
		}
		if changes = changes[len(batch):]; len(changes) == 0 {
			return sequences, nil
		}
		room.clear()
		if batch, err = p.batch(changes, room); err != nil {
			return nil, err
		}
	}
}

// batch encodes as many of the changes as go together, one at least if there is one.
func (p *Publisher) batch(changes []poller.Change, room *room) ([]*outgoing, error) {
	most := int(p.maxBatch.Load())
	batch := make([]*outgoing, 0, min(len(changes), most))
	size := 0
	contacts := make(map[string]struct{}, cap(batch))
	for i := range changes {
		c := &changes[i]
		if _, again := contacts[c.Contact.ID]; again {
			break // The server checks a batch against what was there before, so a contact's second change has to wait for the next.
		}
		o, err := p.message(c, room)
		if err != nil {
			return nil, err
		}
		if size += o.size; len(batch) > 0 && size > maxBatchBytes {
			break
		}
		contacts[c.Contact.ID] = struct{}{}
		if batch = append(batch, o); len(batch) == most {
			break
		}
	}
	return batch, nil
}

// store appends the messages and returns when all of them are durable, or it is clear that they will not be.
func (p *Publisher) store(ctx context.Context, pending []*outgoing) (err error) {
	defer func() { p.trouble.end(p.log, err == nil) }()
	for _, o := range pending {
		o.expect(p.reachable(o.expected))
	}
	for pauses := p.newBackOff(ctx); len(pending) > 0; {
		began := time.Now()
		last, err := p.commit(ctx, pending)
		if err == nil {
			return p.stored(ctx, pending, last)
		}
		err = p.sorted(ctx, p.conn.explain(err, began))
		if final, ok := asFatal(err); ok {
			return final
		}
		if p.cfg.Hooks.Retried != nil {
			p.cfg.Hooks.Retried()
		}
		p.trouble.note(p.log, err, began)
		p.log.Debug("publishing was refused or not answered; reading what is stored", zap.Int("events", len(pending)), zap.Error(err))
		if apiCode(err) == codeBatchTooLarge && len(pending) > 1 {
			return p.storeHalves(ctx, pending)
		}
		left, err := p.settle(ctx, pending, err)
		if err != nil {
			return err
		}
		if len(left.pending) < len(pending) || left.corrected {
			pauses.Reset()
			pending = left.pending
			continue
		}
		if err := wait(ctx, pauses, left.reason); err != nil {
			return fmt.Errorf("%d events not acknowledged: %w", len(pending), p.meaning(err, p.eventObject().title))
		}
	}
	return nil
}

// storeHalves is for a server that takes smaller batches than others.
func (p *Publisher) storeHalves(ctx context.Context, pending []*outgoing) error {
	half := len(pending) / 2
	p.maxBatch.Store(int32(max(half, 1)))
	p.log.Info("the server takes smaller batches", zap.Int("events", half))
	if err := p.store(ctx, pending[:half]); err != nil {
		return err
	}
	return p.store(ctx, pending[half:])
}

// stored notes an acknowledgement. The messages of a batch have consecutive sequences, the last of which is acknowledged.
func (p *Publisher) stored(ctx context.Context, batch []*outgoing, last uint64) error {
	for i, o := range batch {
		o.sequence = last - uint64(len(batch)-1-i)
	}
	if first := batch[0].sequence; first <= p.lastSeen {
		// What was known of other contacts may be gone from the stream.
		return p.distrust(ctx, &ConflictError{ContactID: batch[0].contact, Expected: p.lastSeen + 1, Found: first, Reason: reasonLostEnd})
	}
	p.lastSeen = last
	return nil
}

// Reasons of conflicts that are about more than one contact.
const (
	reasonLostEnd = "the stream has lost its end, or was made anew"
	reasonReused  = "the stream has lost its end, and other events since"
	reasonTorn    = "the stream has had it all along, and the bucket, which the bridge believed at its start, has not"
)

// distrust returns the conflict, after making sure that the next Load believes the stream alone. The bucket may look as if it agreed with the stream, once
// events were appended after the loss.
func (p *Publisher) distrust(ctx context.Context, conflict error) error {
	return errors.Join(conflict, p.saveDoubt(ctx, 1))
}

// ack is the server's answer to a message or a batch.
type ack struct {
	Error    *apiError `json:"error"`
	Stream   string    `json:"stream"`
	Sequence uint64    `json:"seq"`
	// Duplicate says that the message is stored already, at Sequence.
	Duplicate bool   `json:"duplicate"`
	Batch     string `json:"batch"`
	Count     int    `json:"count"`
}

// commit sends the messages, several as one atomic batch, and returns the sequence of the last one. After an error nothing is known.
func (p *Publisher) commit(ctx context.Context, batch []*outgoing) (last uint64, _ error) {
	id := ""
	if len(batch) > 1 {
		id = nuid.Next()
	}
	ids := []string{id}
	for i, o := range batch {
		h := o.msg.Header
		delete(h, headerBatchCommit)
		if id == "" {
			delete(h, headerBatch)
			delete(h, headerBatchSequence)
			break
		}
		h[headerBatch], h[headerBatchSequence] = ids, []string{strconv.Itoa(i + 1)}
		if i == len(batch)-1 {
			h[headerBatchCommit] = []string{"1"}
			break
		}
		if err := p.conn.send(o.msg); err != nil {
			return 0, err
		}
	}
	a, err := p.publish(ctx, batch[len(batch)-1].msg)
	switch {
	case err != nil:
		return 0, err
	case a.Stream != p.cfg.Stream:
		return 0, fatalError{&UnfitError{
			Object:  p.eventObject().title,
			Misfits: []Misfit{{Property: "the stream that stores " + p.contactSubjects(), Is: a.Stream, Needed: p.cfg.Stream}},
			Fix:     "give each stream subjects of its own",
		}}
	case a.Duplicate:
		// Some server versions look at message ids first. Where the message is, reading tells.
		return 0, errDuplicate
	case id != "" && (a.Batch != id || a.Count != len(batch)):
		return 0, fatalError{&ServerTooOldError{Version: p.nc.ConnectedServerVersion()}}
	}
	return a.Sequence, nil
}

// publish sends a message and returns the answer of the stream that has its subject; a refusal is an error.
func (p *Publisher) publish(ctx context.Context, msg *nats.Msg) (ack, error) {
	var a ack
	reply, err := p.conn.request(ctx, msg, p.cfg.AckTimeout)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(reply.Data, &a); err != nil {
		return a, fmt.Errorf("acknowledgement: %w", err)
	}
	if a.Error != nil {
		return a, a.Error.asError()
	}
	return a, nil
}

var errDuplicate = errors.New("the server has this message already")

// fatalError marks what trying again does not help against.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

// asFatal returns the error inside a fatal one.
func asFatal(err error) (error, bool) { //nolint:revive // The error is the value here.
	final, ok := errors.AsType[fatalError](err)
	return final.error, ok
}

// sorted marks the errors that are no question of order or luck as fatal ones.
func (p *Publisher) sorted(ctx context.Context, err error) error {
	if _, ok := errors.AsType[fatalError](err); ok {
		return err
	}
	switch meant := p.meaning(err, p.eventObject().title); {
	case ctx.Err() != nil:
		return fatalError{fmt.Errorf("%w (%w)", ctx.Err(), err)}
	case errors.Is(err, nats.ErrNoResponders):
		// Nobody has these subjects: the stream is gone, or has no leader at present.
		if _, gone := p.extentOf(ctx, p.cfg.Stream); gone != nil && !transient(gone) {
			return fatalError{gone}
		}
		return err
	case errors.Is(err, nats.ErrMaxPayload), apiCode(err) == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fatalError{&TooLargeError{Limit: p.limit(), Err: err}}
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return fatalError{err}
	case meant != err: //nolint:errorlint // Whether meaning has found one.
		return fatalError{meant}
	}
	if _, ok := errors.AsType[*PermissionError](err); ok {
		return fatalError{err}
	}
	return err
}

// outcome is what reading showed of messages whose fate was unknown.
type outcome struct {
	// pending are those that are not stored, ready to be sent again.
	pending []*outgoing
	// corrected says that what they have to follow was corrected, so that there is no reason to pause.
	corrected bool
	// reason is why the last attempt failed.
	reason error
}

// settle finds out, through the stream's leader, which of the messages are stored. reason is the refusal, or the missing answer, that raised the question.
func (p *Publisher) settle(ctx context.Context, batch []*outgoing, reason error) (outcome, error) {
	out := outcome{reason: reason}
	// A refusal names the sequence that the contact's last event has; a read that shows less is not up to date.
	atLeast := uint64(0)
	if len(batch) == 1 {
		atLeast = wrongSequence(reason)
	}
	for i, o := range batch {
		m, err := p.lastOf(ctx, o, atLeast)
		if err != nil {
			return out, err
		}
		corrected, err := p.judge(ctx, o, m)
		if err != nil {
			return out, err
		}
		if o.sequence != 0 {
			p.lastSeen = max(p.lastSeen, o.sequence)
			continue
		}
		out.corrected = out.corrected || corrected
		out.pending = append(out.pending, o)
		if i == 0 && !corrected && len(batch) > 1 && unanswered(reason) {
			// All of a batch is stored, or none.
			out.pending = batch
			return out, nil
		}
	}
	return out, nil
}

// lastOf reads the contact's last message, patiently.
func (p *Publisher) lastOf(ctx context.Context, o *outgoing, atLeast uint64) (*stored, error) {
	for pauses := p.newBackOff(ctx); ; {
		m, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.cfg.Stream, o.filter) })
		if err != nil || m.sequence() >= atLeast {
			return m, err
		}
		if wait(ctx, pauses, nil) != nil {
			return m, ctx.Err() // Removed since, then.
		}
	}
}

// judge compares the contact's last message with what was to be appended: it is stored, it can be appended, perhaps after another sequence than
// expected, or somebody else came first.
func (p *Publisher) judge(ctx context.Context, o *outgoing, m *stored) (corrected bool, err error) {
	conflict := func(reason string) error {
		return &ConflictError{ContactID: o.contact, Expected: o.expected, Found: m.sequence(), Reason: reason}
	}
	switch {
	case m.id() == o.id:
		o.sequence = m.Sequence
		return false, nil
	case m.sequence() == o.expected:
		return false, nil
	case m.sequence() > o.expected && m.sequence() <= p.loadedTo:
		return false, p.distrust(ctx, conflict(reasonTorn))
	case m.sequence() > o.expected:
		return false, conflict("another writer appended to the contact")
	}
	// The event to follow is not there. If a limit or a person removed it, what is there now is to be followed; if the stream has lost its
	// end, other events are missing as well.
	reach, err := patiently(ctx, p, func() (extent, error) { return p.extentOf(ctx, p.cfg.Stream) })
	switch {
	case err != nil:
		return false, err
	case o.expected > reach.Last:
		return false, p.distrust(ctx, conflict(reasonLostEnd))
	case o.expected >= reach.First:
		other, err := patiently(ctx, p, func() (*stored, error) { return p.at(ctx, p.cfg.Stream, o.expected) })
		if err != nil {
			return false, err
		}
		if other != nil {
			return false, p.distrust(ctx, conflict(reasonReused))
		}
	}
	p.first = max(p.first, reach.First)
	o.expect(m.sequence())
	return true, nil
}

// reachable is the sequence to expect for an event that a limit may have removed since: the server then says that there is none.
func (p *Publisher) reachable(previous uint64) uint64 {
	if previous < p.first {
		return 0
	}
	return previous
}

// wrongSequence reads N out of the refusal "wrong last sequence: N"; 0 if it has none.
func wrongSequence(err error) uint64 {
	refused, ok := errors.AsType[*jetstream.APIError](err)
	if !ok || refused.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		return 0
	}
	_, text, _ := strings.Cut(refused.Description, ": ")
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// again makes an outgoing message of one that the bucket has and the stream has lost.
func (p *Publisher) again(m *stored, contact string, after uint64) (*outgoing, error) {
	h, err := event.ParseHeaders(m.Header)
	if err != nil {
		return nil, fmt.Errorf("bucket entry of contact %s: %w", contact, err)
	}
	subject := event.Subject{Prefix: p.cfg.Prefix, Account: p.cfg.Account, Verb: h.Verb, ContactID: contact}
	if err := subject.Check(); err != nil {
		return nil, err
	}
	o := &outgoing{
		msg: &nats.Msg{Subject: subject.String(), Header: maps.Clone(m.Header), Data: m.Data},
		id:  h.ID, contact: contact, kind: poller.Kind(h.Verb),
		filter: event.ContactSubjects(p.cfg.Prefix, p.cfg.Account, contact),
	}
	delete(o.msg.Header, headerSource)
	o.msg.Header[headerExpectedSubject] = []string{o.filter}
	o.expect(after)
	o.size = sizeOf(o.msg)
	return o, nil
}
