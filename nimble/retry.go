package nimble

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// RetryPolicy says how a failed request is repeated. The waits grow by half each time, and each is drawn at random from half of it to
// one and a half, so that clients that failed together do not come back together.
type RetryPolicy struct {
	// Initial is the first wait. Defaults to 500 ms.
	Initial time.Duration
	// Max is where the waits stop growing. A longer Retry-After is still honoured. Defaults to 30 s.
	Max time.Duration
	// MaxElapsed bounds the whole call: no attempt begins after it. When the next one would, the call returns the last
	// error at once. Defaults to 2 minutes.
	MaxElapsed time.Duration
}

// maxRetryAfter caps what a Retry-After header can ask for: a server's slip must not silence the client for a year.
const maxRetryAfter = time.Hour

func (p RetryPolicy) withDefaults() RetryPolicy {
	if p.Initial == 0 {
		p.Initial = 500 * time.Millisecond
	}
	if p.Max == 0 {
		p.Max = 30 * time.Second
	}
	if p.MaxElapsed == 0 {
		p.MaxElapsed = 2 * time.Minute
	}
	return p
}

// run calls operation until it succeeds, fails for good, or the policy or the context gives up. A nil policy calls it once.
func (p *RetryPolicy) run(ctx context.Context, operation func() error) error {
	if p == nil {
		return operation()
	}
	pace := newPace(*p)
	err := backoff.Retry(func() error {
		pace.last = operation()
		if pace.last != nil && !Retryable(pace.last) {
			return backoff.Permanent(pace.last)
		}
		return pace.last
	}, backoff.WithContext(pace, ctx))
	if err != nil && ctx.Err() != nil && !errors.Is(pace.last, ctx.Err()) {
		// The context ended during a wait. What the wait was for is worth telling, but the error must not pass for it.
		return fmt.Errorf("%w while waiting to retry after: %s", ended(ctx), pace.last.Error())
	}
	return err
}

// pace draws the waits between attempts. It is exponential, but never less than what the server asked for.
type pace struct {
	*backoff.ExponentialBackOff
	last error
}

func newPace(p RetryPolicy) *pace {
	return &pace{ExponentialBackOff: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(p.Initial),
		backoff.WithMaxInterval(p.Max),
		backoff.WithMaxElapsedTime(p.MaxElapsed),
	)}
}

// NextBackOff implements [backoff.BackOff].
func (p *pace) NextBackOff() time.Duration {
	next := p.ExponentialBackOff.NextBackOff()
	asked := RetryAfter(p.last)
	if next == backoff.Stop || asked <= next {
		return next
	}
	if p.GetElapsedTime()+asked > p.MaxElapsedTime {
		return backoff.Stop // The caller learns how long from the error, and waits better than a blocked call.
	}
	return asked
}

// RetryAfter returns the wait that the server asked for with its answer, at most an hour; 0 if it did not ask.
func RetryAfter(err error) time.Duration {
	if limited, ok := errors.AsType[*RateLimitError](err); ok {
		return limited.RetryAfter
	}
	if fault, ok := errors.AsType[*ServerError](err); ok {
		return fault.RetryAfter
	}
	return 0
}

// Retryable tells whether the same request may succeed later without anybody changing anything: after throttling, server
// faults, damaged answers and failures of the network, but not after refusals, nor when the caller's context has ended.
func Retryable(err error) bool {
	if transport, ok := errors.AsType[*TransportError](err); ok {
		return !transport.permanent()
	}
	return isType[*RateLimitError](err) || isType[*ServerError](err) || isType[*NotJSONError](err) || isType[*TruncatedError](err)
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// parseRetryAfter reads a Retry-After header: seconds, or an HTTP date, which is compared with the server's own clock when that is known, so
// that a difference between the clocks does not matter. What it cannot read is 0; the result is capped.
func parseRetryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date := parseDate(h); !date.IsZero() {
		now = date
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
