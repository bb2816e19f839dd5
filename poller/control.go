package poller

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// ErrNotRunning is returned by the methods that steer a poller while [Poller.Run] is not running: another bridge may lead.
var ErrNotRunning = errors.New("the poller is not running")

// order is something to be done by Run's goroutine, which alone knows what the poller knows.
type order struct {
	ctx  context.Context
	do   func(ctx context.Context) error
	done chan error
}

// do has Run's goroutine call f, between two requests at the latest, and returns its error.
func (p *Poller) do(ctx context.Context, f func(ctx context.Context) error) error {
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if running == nil {
		return ErrNotRunning
	}
	o := order{ctx, f, make(chan error, 1)}
	select {
	case p.orders <- o:
	case <-running:
		return ErrNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-running:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done: // Done, and then ended.
		return err
	default:
		return ErrNotRunning
	}
}

// obey carries out an order.
func (p *Poller) obey(ctx context.Context, o order) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.ctx, cancel)()
	if p.table == nil {
		if err := p.load(ctx); err != nil {
			o.done <- err
			return
		}
	}
	o.done <- o.do(ctx)
}

// pace is when the next poll is due, and when the account's total was asked for last.
type pace struct {
	next, counted    time.Time
	failing, refused *backoff.ExponentialBackOff
	// polled are told of the next poll's outcome.
	polled []chan error
}

func newPace() *pace {
	return &pace{
		failing: backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(15*time.Second), backoff.WithMaxElapsedTime(0)),
		refused: backoff.NewExponentialBackOff(backoff.WithInitialInterval(5*time.Second), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0)),
	}
}

// Run polls until ctx ends and then returns nil; a publication under way is finished first. Failures do not end it: it waits, longer each time, and tries again. Beside the
// polls, and without delaying them, it reconciles.
func (p *Poller) Run(ctx context.Context) error {
	ended := make(chan struct{})
	p.mu.Lock()
	p.running = ended
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.running = nil
		p.mu.Unlock()
		close(ended)
	}()
	p.table = nil // Somebody else may have led since the last run.
	p.pace = newPace()
	defer func() { p.pace = nil }()
	p.reconcileAt = time.Now().Add(p.cfg.ReconcileInterval)
	for ctx.Err() == nil {
		if err := p.breathe(ctx); err != nil {
			if errors.Is(err, errPaused) {
				p.awaitOrder(ctx)
			}
			continue
		}
		if p.reconcileDue() {
			_, _ = p.Reconcile(ctx) // It logs and reports what went wrong, and is due again.
			continue
		}
		if p.resyncDue() {
			p.resyncOn(ctx)
			continue
		}
		until := p.pace.next
		if p.cfg.ReconcileInterval > 0 && p.reconcileAt.Before(until) && p.failures == 0 {
			until = later(p.reconcileAt, time.Now())
		}
		_ = p.idle(ctx, time.Until(until))
	}
	p.saveProgress(ctx, true)
	return nil
}

// reconcileDue tells whether it is time to reconcile, and makes sense.
func (p *Poller) reconcileDue() bool {
	due := p.reconcileAsked || p.cfg.ReconcileInterval > 0 && !time.Now().Before(p.reconcileAt)
	return due && p.table != nil && p.failures == 0 && !p.progress.SnapshotFinished.IsZero()
}

// breathe is called before each request that is not a poll's own: it polls if a poll is due, and carries out orders. It returns an error when what is known was loaded
// again, or polling is paused, which ends what it interrupts. Without Run it does nothing.
func (p *Poller) breathe(ctx context.Context) error {
	if p.pace == nil || p.polling {
		return ctx.Err()
	}
	table := p.table
	for ctx.Err() == nil {
		select {
		case o := <-p.orders:
			p.obey(ctx, o)
			continue
		default:
		}
		if p.table != nil && p.progress.Paused {
			return errPaused
		}
		if time.Now().Before(p.pace.next) {
			break
		}
		p.turn(ctx)
	}
	if table != nil && p.table != table {
		return errReloaded
	}
	return ctx.Err()
}

// idle waits as rest does, and no longer when an order asks for something to be done now.
func (p *Poller) idle(ctx context.Context, d time.Duration) error { return p.wait(ctx, d, true) }

// rest waits, polling and carrying out orders meanwhile.
func (p *Poller) rest(ctx context.Context, d time.Duration) error { return p.wait(ctx, d, false) }

func (p *Poller) wait(ctx context.Context, d time.Duration, wakes bool) error {
	end := time.Now().Add(d)
	for {
		now := time.Now()
		wait := end.Sub(now)
		var orders chan order
		if p.pace != nil {
			wait, orders = min(wait, p.pace.next.Sub(now)), p.orders
		}
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case o := <-orders:
				p.obey(ctx, o)
				if wakes {
					end = time.Now()
				}
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
		if err := p.breathe(ctx); err != nil {
			return err
		}
		if !time.Now().Before(end) {
			return nil
		}
	}
}

// awaitOrder waits, while polling is paused, for an order that may end that.
func (p *Poller) awaitOrder(ctx context.Context) {
	select {
	case o := <-p.orders:
		p.obey(ctx, o)
	case <-ctx.Done():
	}
}

// turn polls once and decides when the next poll is due.
func (p *Poller) turn(ctx context.Context) {
	outer, began := p.pass, time.Now()
	polled := p.pace.polled
	p.pace.polled = nil
	err := p.Poll(ctx)
	p.pass = outer
	for _, told := range polled {
		told <- err
	}
	if ctx.Err() != nil || errors.Is(err, errPaused) {
		return
	}
	wait := max(0, p.cfg.Interval-time.Since(began))
	if err == nil {
		p.pace.failing.Reset()
		p.pace.refused.Reset()
	} else {
		if _, ok := errors.AsType[*nimble.CredentialsError](err); ok {
			wait = p.pace.refused.NextBackOff()
		} else {
			wait = p.pace.failing.NextBackOff()
		}
		p.logFailure(err, wait)
	}
	p.pace.next = time.Now().Add(wait)
}

// PollNow polls at once and returns the poll's error. While the poller is paused it returns an error that says so.
func (p *Poller) PollNow(ctx context.Context) error {
	told := make(chan error, 1)
	err := p.do(ctx, func(context.Context) error {
		if p.progress.Paused {
			return ErrPaused
		}
		p.pace.next = time.Now()
		p.pace.polled = append(p.pace.polled, told)
		return nil
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if running == nil {
		return ErrNotRunning
	}
	select {
	case err := <-told:
		return err
	case <-running:
		return ErrNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ErrPaused is returned by [Poller.PollNow] while a person has paused the poller.
var ErrPaused = errors.New("polling is paused; resume it first")

// Pause stops polling and reconciling until [Poller.Resume], also beyond the end of the process. What is being published is finished first.
func (p *Poller) Pause(ctx context.Context) error { return p.setPaused(ctx, true) }

// Resume ends a pause and polls at once.
func (p *Poller) Resume(ctx context.Context) error { return p.setPaused(ctx, false) }

func (p *Poller) setPaused(ctx context.Context, paused bool) error {
	return p.do(ctx, func(ctx context.Context) error {
		if p.progress.Paused == paused {
			return nil
		}
		p.progress.Paused = paused
		if err := p.save(ctx); err != nil {
			p.progress.Paused = !paused
			return err
		}
		p.log.Info("polling paused or resumed by a person", zap.Bool("paused", paused))
		if !paused {
			p.pace.next = time.Now()
		}
		p.report()
		return nil
	})
}

// ReconcileSoon has a reconciliation begin at once, beside the polls.
func (p *Poller) ReconcileSoon(ctx context.Context) error {
	return p.do(ctx, func(context.Context) error {
		p.reconcileAsked = true
		return nil
	})
}
