package publisher

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// Config says where events go.
type Config struct {
	// Account is the account's token in subjects and keys.
	Account string
	// Stream is the event stream's name, Prefix what its subjects start with, Bucket the name of the bucket with each contact's latest event.
	Stream, Prefix, Bucket string
	// Replicas is how many servers keep the stream and the buckets; 0 means 1. What has more already keeps them.
	Replicas int
	// MaxAge and MaxBytes limit the event stream; 0 (and for MaxBytes anything below) means no limit.
	MaxAge   time.Duration
	MaxBytes int64
	// Manage lets [Open] create and update the stream and the buckets. Otherwise they have to exist and to fit.
	Manage bool
	// AckTimeout is how long one answer of the server is waited for. Defaults to 5 s.
	AckTimeout time.Duration
	// Patience is how long one operation is tried again and again. Defaults to a minute.
	Patience time.Duration
	Hooks    Hooks
}

// Hooks are told what happens. Any of them may be nil. They are called from the goroutine that uses the publisher, one at a time, and have to return soon.
type Hooks struct {
	// Published is called for each change that is stored, with the time from when it happened, by Nimble's clock, to the acknowledgement. For
	// [poller.Snapshot], where that is the age of the contact's last edit, it says nothing about the bridge.
	Published func(kind poller.Kind, delay time.Duration)
	// Retried is called whenever something is published again because it was refused or not answered.
	Retried func()
}

const (
	defaultAckTimeout = 5 * time.Second
	defaultPatience   = time.Minute
)

// Publisher appends one account's changes to the event stream, and knows what was appended. It is a [poller.Ledger], and like every one of
// those it serves one call at a time, except that a second [Publisher.Append] and [Publisher.SaveProgress] may be called beside an Append, and [Publisher.BucketBehind],
// [Publisher.CheckUp], [Publisher.MendBucket] and [Publisher.Trouble] at any time.
type Publisher struct {
	conn *Connection
	nc   *nats.Conn
	js   jetstream.JetStream
	cfg  Config
	log  *zap.Logger

	bucketStream string
	// maxMsgSize is the stream's own limit for a message, 0 for none.
	maxMsgSize int
	// maxBatch is how many messages an atomic batch may have.
	maxBatch atomic.Int32
	// appending is held while messages are appended.
	appending sync.Mutex
	// first and lastSeen are the stream's first sequence, as far as it is known, and the highest one that was seen in use; loadedTo is the one that the last Load knew
	// all events to, or would have if the bucket was whole.
	first, lastSeen, loadedTo uint64
	// trouble is what keeps an append waiting.
	trouble trouble
	// sourcing is what is known of how far the bucket can be relied on.
	sourcing sourcing
	// rejected has the ids of the rejection notices in the stream, and rejectedAt the sequence of the last one.
	rejected   map[string]struct{}
	rejectedAt uint64
}

var _ poller.Ledger = (*Publisher)(nil)

// Open connects a publisher to the stream and the buckets, which it creates, updates or verifies, and does not return before they are as they have to
// be. It fails with an [*UnreachableError] when there is no connection within [Config.AckTimeout].
func Open(ctx context.Context, conn *Connection, cfg Config, log *zap.Logger) (*Publisher, error) {
	p, err := prepare(ctx, conn, cfg, log)
	if err != nil {
		return nil, err
	}
	if err := p.checkServer(ctx); err != nil {
		return nil, err
	}
	if err := p.setUp(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// prepare returns a publisher on a connection that is up, before it has looked at anything.
func prepare(ctx context.Context, conn *Connection, cfg Config, log *zap.Logger) (*Publisher, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.AckTimeout <= 0 {
		cfg.AckTimeout = defaultAckTimeout
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	p := &Publisher{
		conn: conn, nc: conn.NATS(), cfg: cfg, log: log,
		bucketStream: kvStream(cfg.Bucket),
	}
	p.maxBatch.Store(maxBatch)
	var err error
	if p.js, err = jetstream.New(p.nc); err != nil {
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	if err := conn.WaitConnected(ctx, cfg.AckTimeout); err != nil {
		return nil, err
	}
	return p, nil
}

// streamName is what NATS takes as the name of a stream or bucket.
var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// check reports everything that is wrong at once.
func (c *Config) check() error {
	var errs []error
	subject := event.Subject{Prefix: c.Prefix, Account: c.Account, Verb: event.Snapshot, ContactID: "x"}
	errs = append(errs, subject.Check())
	if !streamName.MatchString(c.Stream) {
		errs = append(errs, fmt.Errorf("stream name %q has other characters than letters, digits, - and _", c.Stream))
	}
	if !streamName.MatchString(c.Bucket) {
		errs = append(errs, fmt.Errorf("bucket name %q has other characters than letters, digits, - and _", c.Bucket))
	}
	if c.Bucket == StateBucket {
		errs = append(errs, fmt.Errorf("bucket name %q is taken for the bridge's own state", c.Bucket))
	}
	if c.Stream == kvStream(c.Bucket) || c.Stream == kvStream(StateBucket) {
		errs = append(errs, fmt.Errorf("stream name %q is that of a bucket", c.Stream))
	}
	if strings.HasPrefix(c.Prefix, "$") || strings.HasPrefix(c.Prefix, "_INBOX") {
		errs = append(errs, fmt.Errorf("prefix %q is NATS's own", c.Prefix))
	}
	return errors.Join(errs...)
}

// JetStream is the client the publisher works with.
func (p *Publisher) JetStream() jetstream.JetStream { return p.js }

// State is the bucket [StateBucket], whose keys may have a time to live.
func (p *Publisher) State(ctx context.Context) (jetstream.KeyValue, error) {
	limited, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
	defer cancel()
	began := time.Now()
	kv, err := p.js.KeyValue(limited, StateBucket)
	if err != nil {
		return nil, p.meaning(p.conn.explain(err, began), stateObject.title)
	}
	return kv, nil
}

// meaning gives an error the type that says what to do about it, where there is one.
func (p *Publisher) meaning(err error, object string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound), apiCode(err) == jetstream.JSErrCodeStreamNotFound:
		return &MissingError{Object: object, Managed: p.cfg.Manage}
	case apiCode(err) == jetstream.JSErrCodeJetStreamNotEnabled, apiCode(err) == jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return &NoJetStreamError{Err: err}
	case apiCode(err) == codeAtomicDisabled:
		return &UnfitError{
			Object: object, Misfits: []Misfit{{Property: "allow_atomic", Is: "false", Needed: "true"}},
			Fix: "change it with `nats stream edit`, or restart with NATS_MANAGE=true",
		}
	case apiCode(err) == codeSealed:
		return &UnfitError{
			Object: object, Misfits: []Misfit{{Property: "sealed", Is: "true", Needed: "false"}},
			Fix: "move it away, and have it created anew",
		}
	case full(err):
		return &StreamFullError{Stream: p.cfg.Stream, Err: err}
	}
	return err
}

// BucketBehind returns how far the bucket is behind the stream, in sequences of the stream: 0 when every contact event is in it, otherwise at most
// this many are not. It compares sequences, because what the server itself reports as lag is 0 while a cluster's sourcing stands still.
func (p *Publisher) BucketBehind(ctx context.Context) (uint64, error) {
	reached, last, err := p.bucketReach(ctx)
	return last - min(reached, last), err
}

// bucketReach returns the sequence of the event that the bucket got last, and that of the stream's last event, if that is later.
func (p *Publisher) bucketReach(ctx context.Context) (reached, last uint64, err error) {
	bucket, err := p.extentOf(ctx, p.bucketStream)
	if err != nil {
		return 0, 0, err
	}
	if bucket.Last > 0 {
		m, err := p.at(ctx, p.bucketStream, bucket.Last)
		if err == nil && m == nil {
			m, err = p.last(ctx, p.bucketStream, "$KV."+p.cfg.Bucket+".>")
		}
		if err != nil {
			return 0, 0, err
		}
		if m != nil {
			reached = sourceOf(m.Header)
		}
	}
	last, err = p.lastEvent(ctx, reached)
	return reached, last, err
}

// lastEvent returns the sequence of the stream's last contact event, or after if there is none behind that. It goes back from the end, past receipts and notices: to find the last of
// all subjects that a wildcard matches, the server would look at each of them, which takes a third of a second for a million contacts.
func (p *Publisher) lastEvent(ctx context.Context, after uint64) (uint64, error) {
	stream, err := p.extentOf(ctx, p.cfg.Stream)
	if err != nil {
		return 0, err
	}
	const steps = 16
	sequence := stream.Last
	for range steps {
		if sequence <= after {
			return after, nil
		}
		m, err := p.at(ctx, p.cfg.Stream, sequence)
		if err != nil {
			return 0, err
		}
		if m != nil {
			if _, err := event.ParseSubject(m.Subject); err == nil {
				return sequence, nil
			}
		}
		sequence--
	}
	m, err := p.last(ctx, p.cfg.Stream, p.contactSubjects())
	return m.sequence(), err
}
