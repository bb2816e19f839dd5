package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
)

// The pauses between attempts grow from the first to the last of these.
const (
	firstPause   = 10 * time.Millisecond
	longestPause = 2 * time.Second
)

// newBackOff returns growing pauses that end with the context or with [Config.Patience].
func (p *Publisher) newBackOff(ctx context.Context) backoff.BackOff {
	return backoff.WithContext(backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstPause),
		backoff.WithMaxInterval(longestPause),
		backoff.WithMaxElapsedTime(p.cfg.Patience),
	), ctx)
}

// errImpatient is returned where there is no other reason for having waited in vain.
var errImpatient = errors.New("it did not catch up in time")

// wait pauses before another attempt. When there is to be none it returns the reason for the last one, with the context's if that has ended.
func wait(ctx context.Context, pauses backoff.BackOff, reason error) error {
	if reason == nil {
		reason = errImpatient
	}
	pause := pauses.NextBackOff()
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ctx.Err(), reason)
	}
	if pause == backoff.Stop {
		return reason
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w (%w)", ctx.Err(), reason)
	}
}

// patiently tries until the operation succeeds or fails for good.
func patiently[T any](ctx context.Context, p *Publisher, try func() (T, error)) (T, error) {
	for pauses := p.newBackOff(ctx); ; {
		v, err := try()
		if err == nil || !transient(err) {
			return v, err
		}
		if err := wait(ctx, pauses, err); err != nil {
			return v, err
		}
	}
}

// transient tells whether trying the same again may help: no answer, no leader at present, no connection.
func transient(err error) bool {
	if unanswered(err) || errors.Is(err, errInterrupted) || errors.Is(err, nats.ErrNoResponders) {
		return true
	}
	if _, ok := errors.AsType[*UnreachableError](err); ok {
		return true
	}
	switch apiCode(err) {
	case codeNotAvailable, codeNotLeader, codeOffline:
		return true
	}
	return false
}
