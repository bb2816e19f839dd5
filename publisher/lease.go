package publisher

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// DefaultLeaseTTL is how long a lease outlives a holder that died: a standby takes over within this time.
const DefaultLeaseTTL = 4 * time.Second

// keyLeader is the lease's key in the state bucket.
const keyLeader = "leader"

// Lease decides which of several bridges on one account polls; the others stand by. It is a key with a time to live in the state bucket, renewed by
// compare-and-set every third of that time. A holder that cannot renew gives up after two thirds of it, by its own monotonic clock and before the key expires, so
// two leaders at once are rare; they are also harmless, since the server refuses whatever does not follow a contact's last event.
type Lease struct {
	p      *Publisher
	kv     jetstream.KeyValue
	holder string
	ttl    time.Duration

	mu  sync.Mutex
	err error
}

// Lease returns the lease on the publisher's account, to be held in the name of holder, which is shown to people and has to differ from bridge to
// bridge; who comes with the name of the present holder takes over from itself. Nothing happens before [Lease.Run]. A ttl of 0 means [DefaultLeaseTTL]; NATS
// counts them in whole seconds.
func (p *Publisher) Lease(ctx context.Context, holder string, ttl time.Duration) (*Lease, error) {
	kv, err := p.State(ctx)
	if err != nil {
		return nil, err
	}
	if ttl <= 0 {
		ttl = DefaultLeaseTTL
	}
	return &Lease{p: p, kv: kv, holder: holder, ttl: max(ttl.Round(time.Second), time.Second)}, nil
}

// Run waits for the lease and runs lead while it is held, again and again until ctx ends or lead returns an error, which Run returns. The context
// given to lead ends when the lease is lost; lead must then return soon, with nil. When ctx ends the lease is given back, so that a standby takes over at once.
// standby, if not nil, is called with the present holder whenever another has the lease.
func (l *Lease) Run(ctx context.Context, lead func(ctx context.Context) error, standby func(holder string)) error {
	for ctx.Err() == nil {
		sequence, holder, err := l.acquire(ctx)
		l.note(err)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			l.p.log.Warn("leader lease neither taken nor seen with another; trying again", zap.String("key", l.key()), zap.Error(err))
			l.wait(ctx, l.ttl/3)
			continue
		case sequence == 0:
			if standby != nil {
				standby(holder)
			}
			l.awaitChange(ctx)
			continue
		}
		l.p.log.Info("leader lease taken", zap.String("holder", l.holder))
		if err := l.hold(ctx, sequence, lead); err != nil {
			return err
		}
	}
	return nil
}

// Err is what keeps [Lease.Run] from finding out who leads; nil while that is known. Run goes on trying.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Lease) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// acquire tries to take the lease. It returns the sequence of our own entry, or 0 and who holds it.
func (l *Lease) acquire(ctx context.Context) (sequence uint64, holder string, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	last, data, err := l.p.readState(ctx, keyLeader)
	if err != nil {
		return 0, "", err
	}
	if holder := string(data); holder != "" && holder != l.holder {
		return 0, holder, nil
	}
	sequence, err = l.write(ctx, l.holder, last)
	if refusedForOrder(err) { // Somebody was quicker.
		return 0, "", nil
	}
	return sequence, "", err
}

// write replaces the entry if its sequence is still the given one.
func (l *Lease) write(ctx context.Context, holder string, last uint64) (uint64, error) {
	msg := &nats.Msg{Subject: l.subject(), Data: []byte(holder), Header: nats.Header{}}
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	began := time.Now()
	ack, err := l.p.js.PublishMsg(ctx, msg, jetstream.WithMsgTTL(l.ttl), jetstream.WithExpectLastSequencePerSubject(last), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, l.p.meaning(l.p.conn.explain(err, began), stateObject.title)
	}
	return ack.Sequence, nil
}

func (l *Lease) key() string     { return l.p.stateKey(keyLeader) }
func (l *Lease) subject() string { return "$KV." + StateBucket + "." + l.key() }

// hold runs lead and renews the lease beside it.
func (l *Lease) hold(ctx context.Context, sequence uint64, lead func(context.Context) error) error {
	leading, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- lead(leading) }()

	until := time.Now().Add(2 * l.ttl / 3)
	timer := time.NewTimer(l.ttl / 3)
	defer timer.Stop()
	for {
		select {
		case err := <-done:
			l.release(ctx, sequence)
			return err
		case <-timer.C:
		}
		began := time.Now()
		next, err := l.renew(ctx, sequence, until)
		switch {
		case err == nil:
			sequence, until = next, began.Add(2*l.ttl/3)
			timer.Reset(l.ttl / 3)
		case time.Now().Before(until) && !refusedForOrder(err):
			timer.Reset(l.ttl / 12)
		case ctx.Err() != nil:
			timer.Reset(l.ttl) // The end has begun: lead returns, and the lease is given back.
		default:
			l.p.log.Warn("leader lease lost; standing by", zap.String("key", l.key()), zap.Error(err))
			if !refusedForOrder(err) {
				l.note(err) // Nobody can know who leads; leading may take a while to end.
			}
			stop()
			return <-done
		}
	}
}

// renew writes the entry again. A refusal is looked into: it may follow from a renewal of our own whose answer was lost.
func (l *Lease) renew(ctx context.Context, sequence uint64, until time.Time) (uint64, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	next, err := l.write(ctx, l.holder, sequence)
	if !refusedForOrder(err) {
		return next, err
	}
	last, data, readErr := l.p.readState(ctx, keyLeader)
	if readErr != nil || string(data) != l.holder {
		return 0, err
	}
	return l.write(ctx, l.holder, last)
}

// release gives the lease back, so that nobody has to wait for it to expire.
func (l *Lease) release(ctx context.Context, sequence uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	msg := &nats.Msg{Subject: l.subject(), Header: nats.Header{}}
	msg.Header.Set("KV-Operation", "PURGE")
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	if _, err := l.p.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(sequence), jetstream.WithRetryAttempts(0)); err != nil {
		l.p.log.Info("leader lease not given back; it expires by itself", zap.Duration("ttl", l.ttl), zap.Error(err))
	}
}

// awaitChange returns when the lease may have become free.
func (l *Lease) awaitChange(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	watcher, err := l.kv.Watch(ctx, l.key(), jetstream.UpdatesOnly())
	if err != nil {
		l.wait(ctx, l.ttl/3)
		return
	}
	defer func() { _ = watcher.Stop() }()
	if _, holder, err := l.p.readState(ctx, keyLeader); err != nil || len(holder) == 0 {
		return // It became free before the watch began.
	}
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

// Leader returns who holds the lease on the publisher's account; empty if nobody does.
func (p *Publisher) Leader(ctx context.Context) (string, error) {
	_, data, err := p.readState(ctx, keyLeader)
	return string(data), err
}
