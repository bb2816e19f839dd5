package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
)

// Config says what is audited, and where the log is.
type Config struct {
	// Dir is the folder of the log. It is made if it does not exist.
	Dir string
	// Stream is the event stream.
	Stream string
	// Durable is the name of the consumer; empty: "audit-" and the log's own id.
	Durable string
	// MaxFileSize is the size in bytes at which a file is closed and the next one begun. 0 means [DefaultMaxFileSize].
	MaxFileSize int64
	// Compress has closed files compressed.
	Compress bool
	// WithoutContent keeps what contacts contain out of the log, and only its hash in it.
	WithoutContent bool
	// Timeout is how long one answer of the server is waited for. 0 means 5 s.
	Timeout time.Duration
}

const (
	defaultTimeout = 5 * time.Second
	// longestPause is between attempts to go on after a failure.
	longestPause = 5 * time.Second

	// A batch is what is synced and acknowledged together: all that is there, up to these limits.
	maxBatch      = 4096
	maxBatchBytes = 8 << 20
	// pullBytes bounds what the server sends ahead, though a message of any size has to fit.
	pullBytes = 16 << 20
	// heartbeat is how often the server shows that it is there while it has nothing to send.
	heartbeat = 5 * time.Second
	// report is how often the log says how far the audit is.
	report = time.Minute
)

// Run writes the log until ctx ends, and returns nil then, with everything it has taken from the stream on the disk. A NATS server that is away, a stream that is not there
// yet, or a missing permission are waited for. It returns a [*DirError], [*WriteError], [*DamagedError] or [*StreamError] when the log cannot be continued.
func Run(ctx context.Context, conn *publisher.Connection, cfg Config, log *zap.Logger) error {
	if cfg.MaxFileSize <= 0 {
		cfg.MaxFileSize = DefaultMaxFileSize
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	js, err := jetstream.New(conn.NATS())
	if err != nil {
		return fmt.Errorf("JetStream: %w", err)
	}
	w, err := openWriter(writerOptions{
		dir: cfg.Dir, stream: cfg.Stream, maxFileSize: cfg.MaxFileSize, compress: cfg.Compress, content: !cfg.WithoutContent,
	}, log)
	if err != nil {
		return err
	}
	defer w.close()
	if cfg.Durable == "" {
		cfg.Durable = w.durable()
	}
	a := &auditor{conn: conn, js: js, cfg: cfg, w: w, log: log.With(zap.String("stream", cfg.Stream)), reported: time.Now()}
	defer func() {
		a.log.Info("audit stopped", zap.Uint64("seq", w.certain.position), zap.Stringer("hash", w.certain.head))
	}()
	return a.run(ctx)
}

// auditor copies a stream to a log.
type auditor struct {
	conn *publisher.Connection
	js   jetstream.JetStream
	cfg  Config
	w    *writer
	log  *zap.Logger

	// written counts the messages since the last report.
	written  int
	reported time.Time
}

// run holds one session after the other until ctx ends or the log cannot be continued.
func (a *auditor) run(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(longestPause), backoff.WithMaxElapsedTime(0),
	)
	var trouble troubles
	for {
		before := a.w.head
		err := a.session(ctx)
		if a.w.failed != nil {
			return a.w.failed
		}
		if ctx.Err() != nil {
			return nil
		}
		if hopeless(err) {
			return err
		}
		if a.w.head != before {
			pauses.Reset()
			trouble = troubles{}
		}
		pause := pauses.NextBackOff()
		trouble.log(a.log, err, pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// hopeless tells the errors that trying again cannot mend.
func hopeless(err error) bool {
	_, dir := errors.AsType[*DirError](err)
	_, damaged := errors.AsType[*DamagedError](err)
	return dir || damaged
}

// troubles tells a failure that goes on from a new one.
type troubles struct {
	text string
	said time.Time
}

// log says what the trouble is when it begins, and seldom while it lasts.
func (t *troubles) log(log *zap.Logger, err error, retry time.Duration) {
	const seldom = 5 * time.Minute
	if errors.Is(err, errReconnected) || t.text == err.Error() && time.Since(t.said) < seldom {
		log.Debug("audit interrupted", zap.Error(err), zap.Duration("retry_in", retry))
		return
	}
	t.text, t.said = err.Error(), time.Now()
	log.Warn("audit interrupted; it goes on by itself", zap.Error(err), zap.Duration("retry_in", retry))
}

// errReconnected ends a session whose connection was interrupted, since the stream may not be what it was.
var errReconnected = errors.New("the connection to NATS was interrupted")

// session holds one session, for as long as the connection lasts. The error is the reason why it is over.
func (a *auditor) session(ctx context.Context) error {
	if err := a.conn.WaitConnected(ctx, a.cfg.Timeout); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	nc := a.conn.NATS()
	changed := nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-changed:
			stop(errReconnected) // What was asked for will not be answered.
		case <-ctx.Done():
		}
	})
	defer watching.Wait()
	defer nc.RemoveStatusListener(changed)
	defer stop(nil)
	err := a.follow(ctx, stop)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// follow finds out how the log and the stream relate, and then writes what the log lacks and what comes, until ctx ends or something is not as it should be. Each
// time the consumer begins anew behind what is in the log, so nothing rests on what the server remembers of acknowledgements.
func (a *auditor) follow(ctx context.Context, stop context.CancelCauseFunc) error {
	stream, err := a.place(ctx)
	if err != nil {
		return err
	}
	if err := a.w.commit(); err != nil {
		return err
	}
	consumer, err := a.consumer(ctx)
	if err != nil {
		return err
	}
	a.log.Info("auditing", zap.String("dir", a.cfg.Dir), zap.String("durable", a.cfg.Durable), zap.Uint64("from_seq", a.w.position+1))

	in := newInbox()
	consuming, err := consumer.Consume(in.put,
		jetstream.PullMaxMessagesWithBytesLimit(maxBatch, max(pullBytes, 2*int(a.conn.NATS().MaxPayload()))), jetstream.PullHeartbeat(heartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { stop(a.interrupted(err)) }))
	if err != nil {
		return fmt.Errorf("consumer %s: %w", a.cfg.Durable, err)
	}
	defer func() {
		in.close()
		consuming.Stop()
		<-consuming.Closed()
	}()
	take := &taker{auditor: a, stream: stream, number: 1}
	var batch []jetstream.Msg
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.filled:
		}
		batch = in.take(batch)
		if err := take.batch(ctx, batch); err != nil {
			return err
		}
		clear(batch) // The messages are large.
	}
}

// interrupted says why a consumer sends nothing more.
func (a *auditor) interrupted(err error) error {
	if errors.Is(err, jetstream.ErrConsumerDeleted) {
		return fmt.Errorf("consumer %s: %w: the stream was deleted, or another auditor works with a copy of this log or with the same --durable", a.cfg.Durable, err)
	}
	return fmt.Errorf("consumer %s: %w", a.cfg.Durable, err)
}

// taker writes what a consumer delivers.
type taker struct {
	*auditor
	stream jetstream.Stream
	// number is what the consumer numbers its next message with. A message that was delivered and did not arrive shows in it.
	number uint64
}

// batch writes messages, makes sure that they are on the disk, and acknowledges them.
func (t *taker) batch(ctx context.Context, batch []jetstream.Msg) (err error) {
	taken := 0
	for ; taken < len(batch); taken++ {
		if err = t.take(ctx, batch[taken]); err != nil {
			break // What was taken before is good.
		}
	}
	if failed := t.w.commit(); failed != nil {
		return failed
	}
	if taken == 0 {
		return err
	}
	t.tell(taken)
	// An acknowledgement stands for everything before. Should it get lost, the next one will do.
	if acked := batch[taken-1].Ack(); acked != nil && err == nil {
		err = fmt.Errorf("acknowledging: %w", acked)
	}
	return err
}

// tell logs how far the audit is.
func (t *taker) tell(messages int) {
	t.written += messages
	t.log.Debug("batch written", zap.Int("messages", messages), zap.Uint64("seq", t.w.position))
	if now := time.Now(); now.Sub(t.reported) >= report {
		t.log.Info("messages written to the audit log", zap.Int("messages", t.written), zap.Uint64("seq", t.w.position), zap.String("file", t.w.name))
		t.written, t.reported = 0, now
	}
}

// errOrder ends a session that was delivered something else than the next message.
var errOrder = errors.New("messages did not come in order")

// take writes one message, or passes it over if the log has it.
func (t *taker) take(ctx context.Context, msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return fmt.Errorf("message on %s: %w", msg.Subject(), err)
	}
	sequence := meta.Sequence.Stream
	if meta.Sequence.Consumer != t.number {
		return fmt.Errorf("%w: the consumer's message %d came as number %d", errOrder, t.number, meta.Sequence.Consumer)
	}
	t.number++
	switch {
	case sequence <= t.w.position && meta.NumDelivered > 1:
		return nil // Delivered again, since it took long; it is in the log.
	case sequence <= t.w.position:
		return fmt.Errorf("%w: sequence %d after %d", errOrder, sequence, t.w.position)
	case sequence > t.w.position+1:
		if err := t.missing(ctx, t.stream, sequence); err != nil {
			return err
		}
	}
	return t.w.message(&message{Sequence: sequence, Stored: meta.Timestamp, Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data()})
}

// consumer makes the durable consumer, behind what the log has. One that is there may have delivered something else.
func (a *auditor) consumer(ctx context.Context) (jetstream.Consumer, error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	err := a.js.DeleteConsumer(limited, a.cfg.Stream, a.cfg.Durable)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("consumer %s: %w", a.cfg.Durable, a.conn.Explain(err, began))
	}
	consumer, err := a.js.CreateConsumer(limited, a.cfg.Stream, jetstream.ConsumerConfig{
		Durable:       a.cfg.Durable,
		Description:   "Audit log of nimble-bridge",
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   a.w.position + 1,
		AckPolicy:     jetstream.AckAllPolicy,
		AckWait:       time.Minute,
		MaxAckPending: 4 * maxBatch,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", a.cfg.Durable, a.conn.Explain(err, began))
	}
	return consumer, nil
}
