package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// From is where following begins. The zero value is [Now].
type From struct {
	old      bool // with messages that exist already
	time     time.Time
	sequence uint64
}

// Now begins with the first message that is stored after the stream was found; in a stream that did not exist, with its first.
func Now() From { return From{} }

// All begins with the oldest message there is.
func All() From { return From{old: true, sequence: 1} }

// Since begins with the first message that was stored at that time or later.
func Since(t time.Time) From { return From{old: true, time: t} }

// After begins behind a sequence of the stream.
func After(sequence uint64) From { return From{old: true, sequence: sequence + 1} }

// Config says what to follow.
type Config struct {
	// Stream is the stream's name.
	Stream string
	// Subjects are the subjects to hand over, with wildcards; no two of them may overlap. None: all.
	Subjects []string
	From     From
	// Stop ends the run when there is nothing left to read. A stream that does not exist is an error then.
	Stop bool
	// Notice, if not nil, is told what happens beside the messages. It is called by Run's goroutine, as the handler is.
	Notice func(Notice)
}

// Message is one message of the stream.
type Message struct {
	Subject string
	Header  nats.Header
	Data    []byte
	// Sequence is its place in the stream, Time when it was stored.
	Sequence uint64
	Time     time.Time
	// Pending is how many of the messages that were asked for come after it at present.
	Pending uint64
}

// Notice is what happens beside the messages.
type Notice struct {
	What What
	// Sequence is the next one to be read, of Begun and Resumed; of Removed, the first that still exists.
	Sequence uint64
	// Err is why reading was interrupted.
	Err error
}

// What can happen beside the messages.
type What string

// What can happen.
const (
	// Absent: the stream does not exist, and is waited for.
	Absent What = "absent"
	// Begun: reading begins.
	Begun What = "begun"
	// Interrupted: reading is not possible at present. Resumed follows.
	Interrupted What = "interrupted"
	// Resumed: reading goes on behind the last message.
	Resumed What = "resumed"
	// Replaced: the stream was made anew, or its server lost the end of it. It is read from where it differs.
	Replaced What = "replaced"
	// Removed: messages that might have been asked for were removed before they could be read.
	Removed What = "removed"
)

// Timing of the consumer. A missing heartbeat is how a silent server is noticed; a lost connection is noticed at once.
const (
	heartbeat = 5 * time.Second
	forgotten = 30 * time.Second // after which the server drops a consumer that nobody asks
	buffered  = 100              // messages on their way at a time, which may be as large as a message can be
)

// Run follows the stream until ctx ends, and then returns nil, as it does at the end of the stream for [Config.Stop]. An error of the handler ends it and is returned as it is. So is whatever keeps
// the first attempt to read from success, while the connection is up: afterwards Run tries again for as long as it takes.
func Run(ctx context.Context, js jetstream.JetStream, cfg Config, handle func(*Message) error) error {
	f := &follower{cfg: cfg, js: js, handle: handle, next: cfg.From.sequence}
	pause := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(200*time.Millisecond), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
	for {
		read := f.read
		err := f.session(ctx)
		stop, stopped := errors.AsType[*end](err)
		switch {
		case stopped:
			return stop.error
		case ctx.Err() != nil:
			return nil
		case js.Conn().IsClosed():
			return nats.ErrConnectionClosed
		case errors.Is(err, jetstream.ErrStreamNotFound) && cfg.Stop:
			return err
		case errors.Is(err, jetstream.ErrStreamNotFound):
			f.absent()
		case !f.begun && !f.missing && !errors.Is(err, errLost) && js.Conn().IsConnected():
			return err
		default:
			f.interrupted(err)
		}
		if f.read > read {
			pause.Reset()
		}
		if !f.connected(ctx) || !wait(ctx, pause.NextBackOff()) {
			return nil
		}
	}
}

// follower is one run.
type follower struct {
	cfg    Config
	js     jetstream.JetStream
	handle func(*Message) error

	// next is the sequence to be read next; 0 while only From says where that is.
	next uint64
	// created is when the stream was made that next is about.
	created time.Time
	read    uint64 // messages
	// begun says that a consumer was made once; away that there is none now and somebody was told; missing that the stream is what is missing.
	begun, away, missing bool
}

// end ends the run.
type end struct{ error }

func (e *end) Unwrap() error { return e.error }

func (f *follower) tell(what What, sequence uint64, err error) {
	if f.cfg.Notice != nil {
		f.cfg.Notice(Notice{what, sequence, err})
	}
}

// absent says once that there is no stream.
func (f *follower) absent() {
	if !f.missing {
		f.tell(Absent, 0, nil)
	}
	f.missing = true
	if !f.begun && !f.cfg.From.old {
		f.next = 1 // Whatever will be in it is new.
	}
}

// interrupted says once that reading is not possible.
func (f *follower) interrupted(err error) {
	if !f.away {
		f.tell(Interrupted, 0, err)
	}
	f.away = true
}

// errLost says that the connection went away.
var errLost = errors.New("the connection is lost")

// session reads from one consumer until something ends it.
func (f *follower) session(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	changed := f.js.Conn().StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer f.js.Conn().RemoveStatusListener(changed)
	watching := make(chan struct{})
	defer func() { stop(nil); <-watching }()
	go func() {
		defer close(watching)
		select {
		case <-changed:
			stop(errLost)
		case <-ctx.Done():
		}
	}()
	err := errLost
	if f.js.Conn().IsConnected() {
		err = f.consume(ctx)
	}
	if lost := context.Cause(ctx); errors.Is(lost, errLost) && !isEnd(err) {
		return lost
	}
	return err
}

func isEnd(err error) bool {
	_, ok := errors.AsType[*end](err)
	return ok
}

// consume makes a consumer and reads from it.
func (f *follower) consume(ctx context.Context) error {
	if err := f.place(ctx); err != nil {
		return err
	}
	consumer, err := f.js.CreateConsumer(ctx, f.cfg.Stream, f.consumer())
	if err != nil {
		return fmt.Errorf("consumer of stream %s: %w", f.cfg.Stream, err)
	}
	switch {
	case !f.begun:
		f.tell(Begun, f.next, nil)
	case f.away || f.missing:
		f.tell(Resumed, f.next, nil)
	}
	f.begun, f.away, f.missing = true, false, false
	if f.cfg.Stop && consumer.CachedInfo().NumPending == 0 {
		return &end{}
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(buffered), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return fmt.Errorf("stream %s: %w", f.cfg.Stream, err)
	}
	defer messages.Stop()
	for count := uint64(1); ; count++ {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("stream %s: %w", f.cfg.Stream, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("stream %s: %w", f.cfg.Stream, err)
		}
		if meta.Sequence.Consumer != count {
			return fmt.Errorf("stream %s: message %d of the consumer came as number %d", f.cfg.Stream, meta.Sequence.Consumer, count)
		}
		if ctx.Err() != nil {
			return ctx.Err() // What comes now comes again.
		}
		err = f.handle(&Message{
			Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data(),
			Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Pending: meta.NumPending,
		})
		if err != nil {
			return &end{err}
		}
		f.next = meta.Sequence.Stream + 1
		f.read++
		if f.cfg.Stop && meta.NumPending == 0 {
			return &end{}
		}
	}
}

// place finds out where in the stream to read, and whether it is still the same stream.
func (f *follower) place(ctx context.Context) error {
	info, err := f.info(ctx)
	if err != nil {
		return err
	}
	switch {
	case f.next == 0 && !f.cfg.From.old:
		f.next = info.State.LastSeq + 1
	case !f.created.IsZero() && !info.Created.Equal(f.created):
		f.next = 1
		f.tell(Replaced, f.next, nil)
	case !f.created.IsZero() && f.next > info.State.LastSeq+1:
		// A replica that has just become the leader may not have put everything in place yet. Only what stays lost is.
		for range 3 {
			if !wait(ctx, time.Second) {
				return ctx.Err()
			}
			if info, err = f.info(ctx); err != nil {
				return err
			}
		}
		if f.next > info.State.LastSeq+1 {
			f.next = info.State.LastSeq + 1
			f.tell(Replaced, f.next, nil)
		}
	case f.begun && f.next > 1 && f.next < info.State.FirstSeq:
		f.next = info.State.FirstSeq
		f.tell(Removed, f.next, nil)
	}
	f.created = info.Created
	return nil
}

func (f *follower) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	stream, err := f.js.Stream(ctx, f.cfg.Stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", f.cfg.Stream, err)
	}
	return stream.CachedInfo(), nil
}

// consumer is the shape of a consumer from the present place on. It is kept in memory by one server, and lost without harm.
func (f *follower) consumer() jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: forgotten, MemoryStorage: true, Replicas: 1,
	}
	if len(f.cfg.Subjects) == 1 {
		c.FilterSubject = f.cfg.Subjects[0]
	} else {
		c.FilterSubjects = f.cfg.Subjects
	}
	if f.next > 0 {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.next
	} else {
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.cfg.From.time
	}
	return c
}

// connected waits for a server at the other end of the connection. It returns false when ctx ends or the connection is closed for good.
func (f *follower) connected(ctx context.Context) bool {
	conn := f.js.Conn()
	changed := conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer conn.RemoveStatusListener(changed)
	for !conn.IsConnected() {
		if conn.IsClosed() {
			return true // The next session says so.
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// wait lets d pass; it returns false when ctx ends before.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
