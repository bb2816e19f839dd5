package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/event"
)

// comparison holds a log against the stream that it is of, while the log is read. Without a stream it looks at nothing.
type comparison struct {
	auditor auditor
	stream  jetstream.Stream
	created time.Time
	// first is the stream's first sequence when the comparison began, state how far the stream reaches by what was asked last: both it and the log may grow.
	first uint64
	state jetstream.StreamState
	// floor is the sequence up to which the auditor has acknowledged; consumed says whether its consumer was found.
	floor    uint64
	consumed bool
	reader   *reader

	same, reach Check
	// next is the stream's next message; nil before it is read, and at the end.
	next *message
	// begins is the first sequence that the log should have.
	begins uint64
	// equal counts the messages that are the same on both sides, older those that the stream no longer reaches back to, absent those that are gone from within it.
	equal, older, absent int
	// gone has the last absent event of each contact, deleted the sequence of each contact's last deletion.
	gone    map[string]goneEvent
	deleted map[string]uint64
	// room and facts are reused from one message to the next.
	room, facts []byte
}

// goneEvent is an event that the log has and the stream has not.
type goneEvent struct {
	sequence uint64
	at       Fault
}

// compare begins a comparison.
func compare(ctx context.Context, opts VerifyOptions, first file) (*comparison, error) {
	c := &comparison{gone: make(map[string]goneEvent), deleted: make(map[string]uint64)}
	c.same.Name, c.reach.Name = "stream", "end"
	if opts.Conn == nil {
		c.same.skip("not compared: %s", cmp.Or(opts.Alone, "there is no connection to NATS"))
		c.reach.skip("not compared, so that lines cut off at the end would not be noticed")
		return c, nil
	}
	js, err := jetstream.New(opts.Conn.NATS())
	if err != nil {
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	head, err := firstLine(opts.Dir, first)
	if err != nil {
		return nil, err
	}
	if opts.Stream == "" {
		opts.Stream = head.Stream
	}
	if head.Stream != opts.Stream {
		return nil, &StreamError{Dir: opts.Dir, Has: head.Stream, Offered: opts.Stream}
	}
	if opts.Durable == "" {
		opts.Durable = "audit-" + head.Log
	}
	c.auditor = auditor{conn: opts.Conn, js: js, cfg: Config{Stream: opts.Stream, Durable: opts.Durable, Timeout: opts.Timeout}}
	// The floor is asked for before the log is read, so that what it says must be there by then.
	if err := c.acknowledged(ctx); err != nil {
		return nil, err
	}
	if err := c.look(ctx); err != nil {
		return nil, err
	}
	c.first = c.state.FirstSeq
	if err := c.read(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// firstLine reads the first line of a log, which names it.
func firstLine(dir string, f file) (*facts, error) {
	r, err := open(dir, f)
	if err != nil {
		return nil, err
	}
	defer r.close()
	b, _, err := r.next()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	l, err := split(b)
	if err != nil {
		return nil, &DamagedError{Dir: dir, File: r.name, Line: 1, Reason: err.Error()}
	}
	says, _, err := l.parse(nil)
	if err != nil || says.kind() != fileLine {
		return nil, &DamagedError{Dir: dir, File: r.name, Line: 1, Reason: "it does not name the log"}
	}
	return says, nil
}

// acknowledged asks how far the auditor's consumer is.
func (c *comparison) acknowledged(ctx context.Context) error {
	a := &c.auditor
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	consumer, err := a.js.Consumer(limited, a.cfg.Stream, a.cfg.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("consumer %s: %w", a.cfg.Durable, a.conn.Explain(err, began))
	}
	c.consumed, c.floor = true, consumer.CachedInfo().AckFloor.Stream
	return nil
}

// look asks how far the stream reaches.
func (c *comparison) look(ctx context.Context) error {
	stream, state, err := c.auditor.open(ctx)
	if err != nil {
		return err
	}
	created := stream.CachedInfo().Created
	if c.stream != nil && !created.Equal(c.created) {
		return fmt.Errorf("stream %s was made anew while the log was compared with it; verify again", c.auditor.cfg.Stream)
	}
	c.stream, c.state, c.created = stream, *state, created
	return nil
}

// off tells whether there is nothing to compare with: no NATS, or a line of a stream that is no more.
func (c *comparison) off(v *verifier) bool {
	return c.stream == nil || !v.header.Created.Equal(c.created)
}

// message compares a message that the log has.
func (c *comparison) message(ctx context.Context, v *verifier, l *line, says *facts, subject event.Subject) error {
	if c.off(v) {
		return nil
	}
	key := subject.Account + "." + subject.ContactID
	if subject.Verb == event.Deleted {
		c.deleted[key] = says.Sequence
	}
	if says.Sequence < c.first {
		c.older++
		return nil
	}
	if err := c.advance(ctx, v, says.Sequence); err != nil {
		return err
	}
	if c.next == nil || c.next.Sequence != says.Sequence {
		if says.Sequence > c.state.LastSeq {
			v.fault(&c.same, "the stream ends with sequence %d and has no message %d", c.state.LastSeq, says.Sequence)
			return nil
		}
		c.absent++
		if subject.ContactID != "" {
			text := fmt.Sprintf("the stream has no message %d, and contact %s was not deleted or erased since", says.Sequence, subject.ContactID)
			c.gone[key] = goneEvent{says.Sequence, Fault{v.name, v.number, text}}
		}
		return nil
	}
	var content []byte
	content, c.room = contentOf(c.next.Data, c.room)
	c.facts = c.next.appendFacts(c.facts[:0], content)
	c.next = nil
	if string(c.facts) != string(l.facts) {
		v.fault(&c.same, "it is not what the stream has at sequence %d", says.Sequence)
		return nil
	}
	c.equal++
	return nil
}

// gap checks that the stream has nothing where the log has nothing.
func (c *comparison) gap(ctx context.Context, v *verifier, g *Gap) error {
	if c.off(v) {
		return nil
	}
	return c.advance(ctx, v, g.To+1)
}

// advance reads the stream up to a sequence. What comes before, the log should have had.
func (c *comparison) advance(ctx context.Context, v *verifier, to uint64) error {
	if c.begins == 0 {
		// What a log with a beginning elsewhere does not have is no fault.
		if c.begins = 1; v.partial {
			c.begins = v.header.First
		}
	}
	for {
		if err := c.peek(ctx, to); err != nil {
			return err
		}
		if c.next == nil || c.next.Sequence >= to {
			return nil
		}
		if c.next.Sequence >= c.begins {
			v.fault(&c.same, "the log lacks message %d of the stream, which should be before this line", c.next.Sequence)
		}
		c.next = nil
	}
}

// peek reads the stream's next message, if there is one. What is known of the stream's end is asked for again where somebody wants to know of a sequence after it.
func (c *comparison) peek(ctx context.Context, to uint64) error {
	r := c.reader
	if c.next != nil {
		return nil
	}
	if to > r.last && r.seen >= r.last {
		if err := c.look(ctx); err != nil {
			return err
		}
		r.last = max(r.last, c.state.LastSeq)
	}
	if r.seen >= r.last {
		return nil
	}
	// A message that came when it was the last one says nothing of what has come since; and what lies up to the end may be deleted.
	if r.pending == 0 {
		m, err := c.auditor.get(ctx, c.stream, r.seen+1, jetstream.WithGetMsgSubject(">"))
		if err != nil {
			return err
		}
		if m == nil || m.Sequence > r.last {
			r.seen = r.last
			return nil
		}
	}
	var err error
	c.next, err = r.read(ctx)
	return err
}

// end concludes the comparison once the log is read.
func (c *comparison) end(ctx context.Context, v *verifier) error {
	switch {
	case c.stream == nil:
		return nil
	case c.off(v):
		c.same.fault("", 0, "the stream was made anew at %s, and the log has nothing of it yet: let the auditor run", c.created.UTC().Format(time.RFC3339))
		c.reach.skip("the stream was made anew")
		return nil
	}
	if err := c.advance(ctx, v, v.position+1); err != nil {
		return err
	}
	// Meanwhile an age limit may have removed some more.
	last := c.state.LastSeq
	if err := c.look(ctx); err != nil {
		return err
	}
	gone := slices.SortedFunc(maps.Keys(c.gone), func(a, b string) int { return cmp.Compare(c.gone[a].sequence, c.gone[b].sequence) })
	for _, key := range gone {
		if e := c.gone[key]; e.sequence >= c.state.FirstSeq && c.deleted[key] < e.sequence {
			c.same.fault(e.at.File, e.at.Line, "%s", e.at.Text)
		}
	}
	c.same.say("%s the same in stream %s and log", counted(c.equal, "message"), c.auditor.cfg.Stream)
	if c.older > 0 {
		c.same.Text += fmt.Sprintf("; %d older than the stream reaches back", c.older)
	}
	if c.absent > 0 {
		c.same.Text += fmt.Sprintf("; %d deleted from the stream since, as erasures do", c.absent)
	}
	switch {
	case c.consumed && c.floor > v.position:
		c.reach.fault(v.name, v.number, "the log ends with sequence %d, and the auditor acknowledged up to %d: the end was cut off", v.position, c.floor)
	case c.next == nil:
		c.reach.say("the log reaches the end of the stream, sequence %d", v.position)
	case c.consumed:
		c.reach.say("the log reaches sequence %d, up to which the auditor acknowledged %d; the stream goes on to %d", v.position, c.floor, last)
	default:
		c.reach.skip("the log reaches sequence %d, the stream %d, and the server has no consumer %s: an end that was cut off looks the same as one that is not written yet",
			v.position, last, c.auditor.cfg.Durable)
	}
	return nil
}

func (c *comparison) close() {
	if c.reader != nil {
		c.reader.release()
		c.reader.iterator.Stop()
	}
}

// reader reads a stream from a sequence to its end.
type reader struct {
	iterator jetstream.MessagesContext
	stream   string
	// last is how far to read, seen how far it was read, pending how many messages were left then.
	last, seen, pending uint64
	// release ends the watch over the context.
	release func() bool
}

// patience is how long the next message may take while there is one.
const patience = 30 * time.Second

// read begins to read the stream, up to where it ends now.
func (c *comparison) read(ctx context.Context) error {
	a := &c.auditor
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	consumer, err := c.stream.OrderedConsumer(limited, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(c.state.FirstSeq, 1),
	})
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", a.cfg.Stream, a.conn.Explain(err, began))
	}
	c.reader = &reader{stream: a.cfg.Stream, last: c.state.LastSeq, seen: max(c.state.FirstSeq, 1) - 1, pending: consumer.CachedInfo().NumPending}
	if c.reader.iterator, err = consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(maxBatch, max(pullBytes, 2*int(a.conn.NATS().MaxPayload())))); err != nil {
		return fmt.Errorf("reading stream %s: %w", a.cfg.Stream, err)
	}
	c.reader.release = context.AfterFunc(ctx, c.reader.iterator.Stop)
	return nil
}

// read returns the next message, which has to be there.
func (r *reader) read(ctx context.Context) (*message, error) {
	msg, err := r.iterator.Next(jetstream.NextMaxWait(patience))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, nats.ErrTimeout) {
		return nil, fmt.Errorf("reading stream %s: nothing came after sequence %d within %v, perhaps since messages were deleted meanwhile; verify again", r.stream, r.seen, patience)
	}
	if err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", r.stream, err)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", r.stream, err)
	}
	r.seen, r.pending = meta.Sequence.Stream, meta.NumPending
	return &message{Sequence: meta.Sequence.Stream, Stored: meta.Timestamp, Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data()}, nil
}
