package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// DefaultLeaseTTL is how long a lease outlives a holder that died: a standby takes over within this time.
const DefaultLeaseTTL = 6 * time.Second

// Lease decides which of several bridges on one account polls; the others stand by. It is a key with a time to live in the state bucket, renewed by
// compare-and-set every third of that time. A holder that cannot renew gives up before the key can expire, by its own monotonic clock, so
// two leaders at once are rare; they are also harmless, since the server refuses whatever does not follow a contact's last event.
type Lease struct {
	js      jetstream.JetStream
	kv      jetstream.KeyValue
	key     string
	subject string
	holder  string
	ttl     time.Duration
	log     *zap.Logger
}

// NewLease returns the lease on an account, to be held in the name of holder, which is shown to people and has to differ from bridge to
// bridge. The bucket must have been made with limit markers. Nothing happens before [Lease.Run]. A ttl of zero means [DefaultLeaseTTL]; NATS counts them in whole seconds.
func NewLease(js jetstream.JetStream, kv jetstream.KeyValue, account, holder string, ttl time.Duration, log *zap.Logger) *Lease {
	if ttl <= 0 {
		ttl = DefaultLeaseTTL
	}
	key := account + ".leader"
	return &Lease{
		js: js, kv: kv, key: key, subject: "$KV." + kv.Bucket() + "." + key,
		holder: holder, ttl: max(ttl.Round(time.Second), time.Second), log: log,
	}
}

// Run waits for the lease and runs lead while it is held, again and again until ctx ends or lead returns an error, which Run returns. The context
// given to lead ends when the lease is lost; lead must then return soon, with nil. When ctx ends the lease is given back, so that a standby takes over at once.
// standby, if not nil, is called with the present holder whenever another has the lease.
func (l *Lease) Run(ctx context.Context, lead func(ctx context.Context) error, standby func(holder string)) error {
	for ctx.Err() == nil {
		sequence, holder, err := l.acquire(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			l.log.Warn("leader lease not read; trying again", zap.String("key", l.key), zap.Error(err))
			l.wait(ctx, l.ttl/3)
			continue
		case sequence == 0:
			if standby != nil {
				standby(holder)
			}
			l.awaitChange(ctx)
			continue
		}
		l.log.Info("leader lease taken", zap.String("holder", l.holder))
		if err := l.hold(ctx, sequence, lead); err != nil {
			return err
		}
	}
	return nil
}

// acquire tries to take the lease. It returns the sequence of our own entry, or 0 and who holds it.
func (l *Lease) acquire(ctx context.Context) (sequence uint64, holder string, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	last := uint64(0)
	entry, err := l.kv.Get(ctx, l.key)
	switch {
	case err == nil && string(entry.Value()) != l.holder:
		return 0, string(entry.Value()), nil
	case err == nil: // Our own, of a moment ago: taken again.
		last = entry.Revision()
	case errors.Is(err, jetstream.ErrKeyDeleted), errors.Is(err, jetstream.ErrKeyNotFound):
		// A deletion or expiry leaves a marker, which the new entry has to follow; KeyValue does not tell its sequence, the refusal does.
	default:
		return 0, "", err
	}
	for range 2 {
		sequence, err = l.write(ctx, l.holder, last)
		var refused *jetstream.APIError
		if err == nil || !errors.As(err, &refused) || refused.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
			return sequence, "", err
		}
		// Somebody was quicker, or a marker is there. Only a marker may be followed.
		if last, err = l.marker(ctx); err != nil || last == 0 {
			return 0, "", err
		}
	}
	return 0, "", nil
}

// marker returns the sequence of the deletion that is the key's last entry, 0 if it is none.
func (l *Lease) marker(ctx context.Context) (uint64, error) {
	watcher, err := l.kv.Watch(ctx, l.key, jetstream.MetaOnly())
	if err != nil {
		return 0, err
	}
	defer func() { _ = watcher.Stop() }()
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil || entry.Operation() == jetstream.KeyValuePut {
				return 0, nil
			}
			return entry.Revision(), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// write replaces the entry if its sequence is still the given one.
func (l *Lease) write(ctx context.Context, holder string, last uint64) (uint64, error) {
	msg := &nats.Msg{Subject: l.subject, Data: []byte(holder), Header: nats.Header{}}
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	ack, err := l.js.PublishMsg(ctx, msg, jetstream.WithMsgTTL(l.ttl), jetstream.WithExpectLastSequencePerSubject(last), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// hold runs lead and renews the lease beside it.
func (l *Lease) hold(ctx context.Context, sequence uint64, lead func(context.Context) error) error {
	leading, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- lead(leading) }()

	renewed := time.Now()
	ticker := time.NewTicker(l.ttl / 3)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			l.release(ctx, sequence)
			return err
		case <-ticker.C:
		}
		began := time.Now()
		renewal, cancel := context.WithTimeout(ctx, l.ttl/3)
		next, err := l.write(renewal, l.holder, sequence)
		cancel()
		var refused *jetstream.APIError
		switch {
		case err == nil:
			sequence, renewed = next, began
			continue
		case ctx.Err() != nil:
			continue // lead is ending; the lease is released when it has.
		case errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
			// A renewal whose answer was lost moved the sequence too; if the entry is still ours, go on from there.
			if entry, getErr := l.kv.Get(ctx, l.key); getErr == nil && string(entry.Value()) == l.holder {
				sequence = entry.Revision()
				if time.Since(renewed) < 2*l.ttl/3 {
					continue
				}
			}
		case time.Since(renewed) < 2*l.ttl/3-l.ttl/6:
			continue
		}
		l.log.Warn("leader lease lost; standing by", zap.String("key", l.key), zap.Error(err))
		stop()
		return <-done
	}
}

// release gives the lease back, so that nobody has to wait for it to expire.
func (l *Lease) release(ctx context.Context, sequence uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	msg := &nats.Msg{Subject: l.subject, Header: nats.Header{}}
	msg.Header.Set("KV-Operation", "PURGE")
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	if _, err := l.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(sequence), jetstream.WithRetryAttempts(0)); err != nil {
		l.log.Info("leader lease not given back; it expires by itself", zap.Duration("ttl", l.ttl), zap.Error(err))
	}
}

// awaitChange returns when the lease may have become free.
func (l *Lease) awaitChange(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	watcher, err := l.kv.Watch(ctx, l.key, jetstream.UpdatesOnly())
	if err != nil {
		l.wait(ctx, l.ttl/3)
		return
	}
	defer func() { _ = watcher.Stop() }()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok || entry != nil && entry.Operation() != jetstream.KeyValuePut {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (l *Lease) wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Leader returns who holds the lease; empty if nobody does.
func (l *Lease) Leader(ctx context.Context) (string, error) {
	entry, err := l.kv.Get(ctx, l.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyDeleted), errors.Is(err, jetstream.ErrKeyNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("leader lease %s: %w", l.key, err)
	}
	return string(entry.Value()), nil
}
