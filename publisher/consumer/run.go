package consumer

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// ErrNotFinished is wrapped by the error of [Run] when handlers went on although their context had ended. What they do from then on is theirs alone.
var ErrNotFinished = errors.New("handlers have not returned in time")

// Run hands each event that cfg chooses to handle, until ctx ends; then it returns nil, once the handlers that were at work have returned. Any other end is an error: the
// configuration makes no sense, the stream does not exist, the durable was deleted, the connection was closed, or the handler said [Stop].
//
// A server that is away is waited for. Connect with [nats.MaxReconnects](-1), so that the connection never gives up either.
func Run(ctx context.Context, js jetstream.JetStream, cfg Config, handle Handler) error {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return err
	}
	r := &runner{
		cfg: cfg, js: js, nc: js.Conn(), handle: handle, log: cfg.Log.With(zap.String("durable", cfg.Durable)),
		lanes: make(map[string]*lane), slots: make(chan struct{}, cfg.Concurrency),
		stopping: make(chan struct{}), failed: make(chan error, 1), round: make(chan struct{}), now: make(chan struct{}, 1),
		loud: rate.NewLimiter(rate.Every(time.Second), 5),
	}
	sources, err := r.setUp(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("consumer %s: %w", cfg.Durable, err)
	}
	if err := r.run(ctx, sources); err != nil {
		return fmt.Errorf("consumer %s: %w", cfg.Durable, err)
	}
	return nil
}

// runner is one Run.
type runner struct {
	cfg    Config
	js     jetstream.JetStream
	nc     *nats.Conn
	handle Handler
	log    *zap.Logger
	// loud bounds how often failing handlers are logged as warnings.
	loud *rate.Limiter

	// stream is the event stream.
	stream jetstream.Stream

	// slots has room for each handler at work.
	slots chan struct{}
	// stopping is closed when nothing new is to begin. failed gets the reason, if it is one.
	stopping chan struct{}
	failed   chan error
	// hard is the context of the handlers, and of settling what they did.
	hard context.Context //nolint:containedctx // It is the one context for all of a run.
	work sync.WaitGroup

	mu    sync.Mutex
	lanes map[string]*lane
	// link ends when the connection is lost, and is another one then.
	link context.Context //nolint:containedctx // It ends what waits for an answer that will not come.
	// round is closed, and replaced, when the server has been told, or could not be told, that everything held here is in work.
	round chan struct{}
	// now gets a token when somebody waits for a round.
	now chan struct{}

	// settling is held for reading while an event is being acknowledged, and for writing while nothing may be.
	settling sync.RWMutex
}

// setUp finds the streams and creates or updates the durables. It tries again for as long as there is no answer.
func (r *runner) setUp(ctx context.Context) ([]*source, error) {
	pauses := newPauses()
	said := ""
	for {
		sources, err := r.trySetUp(ctx)
		if err == nil || !unanswered(err) || r.nc.IsClosed() {
			return sources, err
		}
		if text := err.Error(); text != said {
			said = text
			r.log.Warn("waiting for NATS", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// newPauses returns the pauses between attempts to reach the server.
func newPauses() backoff.BackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
}

func (r *runner) trySetUp(ctx context.Context) ([]*source, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var err error
	if r.stream, err = r.js.Stream(ctx, r.cfg.Stream); err != nil {
		return nil, fmt.Errorf("stream %s: %w", r.cfg.Stream, err)
	}
	if err := r.ensureDeadLetters(ctx); err != nil {
		return nil, err
	}
	events, err := r.ensureDurable(ctx, r.cfg.Stream, r.cfg.eventsDurable)
	if err != nil {
		return nil, err
	}
	again, err := r.ensureDurable(ctx, r.cfg.DeadLetters, r.cfg.againDurable)
	if err != nil {
		return nil, err
	}
	sources := []*source{r.newSource(r.cfg.Stream, events, true), r.newSource(r.cfg.DeadLetters, again, false)}
	for _, s := range sources {
		if err := r.takeOver(ctx, s); err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// takeOver ends the turn of a process that does not ask for events any more, because it has died: otherwise the server would wait for it.
func (r *runner) takeOver(ctx context.Context, s *source) error {
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return fmt.Errorf("durable %s on stream %s: %w", r.cfg.Durable, s.stream, err)
	}
	if info.NumWaiting > 0 || len(info.PriorityGroups) == 0 || info.PriorityGroups[0].PinnedClientID == "" {
		return nil
	}
	return r.unpin(ctx, s)
}

func (r *runner) unpin(ctx context.Context, s *source) error {
	stream, err := r.js.Stream(ctx, s.stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", s.stream, err)
	}
	if err := stream.UnpinConsumer(ctx, r.cfg.Durable, group); err != nil {
		return fmt.Errorf("durable %s on stream %s: %w", r.cfg.Durable, s.stream, err)
	}
	return nil
}

// ensureDurable creates or updates the durable on a stream. Several processes may do so at once.
func (r *runner) ensureDurable(ctx context.Context, stream string, shape func(is jetstream.ConsumerConfig, exists bool) jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	for {
		is, err := r.js.Consumer(ctx, stream, r.cfg.Durable)
		switch {
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			created, err := r.js.CreateConsumer(ctx, stream, shape(jetstream.ConsumerConfig{}, false))
			if errors.Is(err, jetstream.ErrConsumerExists) {
				continue // Another process was faster, with another configuration.
			}
			if err != nil {
				return nil, fmt.Errorf("durable %s on stream %s cannot be created: %w", r.cfg.Durable, stream, err)
			}
			r.log.Info("durable created", zap.String("stream", stream))
			return created, nil
		case err != nil:
			return nil, fmt.Errorf("durable %s on stream %s: %w", r.cfg.Durable, stream, err)
		}
		have := is.CachedInfo().Config
		if want := shape(have, true); !reflect.DeepEqual(have, want) {
			if is, err = r.js.UpdateConsumer(ctx, stream, want); err != nil {
				return nil, fmt.Errorf("durable %s on stream %s exists and cannot be made to fit: %w", r.cfg.Durable, stream, err)
			}
			r.log.Info("durable updated", zap.String("stream", stream))
		}
		return is, nil
	}
}

// answerTimeout is how long one answer of the server is waited for.
const answerTimeout = 5 * time.Second

// unanswered tells whether an error says only that there was no answer.
func unanswered(err error) bool {
	for _, known := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrReconnectBufExceeded,
		nats.ErrConnectionReconnecting, nats.ErrStaleConnection, nats.ErrNoServers,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	if refused, ok := errors.AsType[*jetstream.APIError](err); ok {
		// Not available, no leader at present, or an offline stream.
		return slices.Contains([]jetstream.ErrorCode{10008, 10009, 10194}, refused.ErrorCode)
	}
	return false
}

// run consumes until ctx ends or something fails, and winds down.
func (r *runner) run(ctx context.Context, sources []*source) error {
	hard, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	r.hard = hard
	unlink := r.watchLink(sources)
	defer unlink()

	var receiving sync.WaitGroup
	for _, s := range sources {
		receiving.Go(r.newReceiver(s).receive)
	}
	keeping := make(chan struct{})
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		r.keep(sources, keeping)
	}()

	var err error
	select {
	case <-ctx.Done():
	case err = <-r.failed:
	}
	r.halt()
	receiving.Wait()
	unfinished := r.windDown(giveUp)
	close(keeping)
	<-kept
	r.giveBack(context.WithoutCancel(ctx), sources)
	return errors.Join(err, unfinished)
}

// watchLink keeps r.link, and tells the sources of every change, until the returned function is called.
func (r *runner) watchLink(sources []*source) (stop func()) {
	changed := r.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	lose := r.newLink()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer func() { lose() }()
		for {
			select {
			case <-quit:
				return
			case status, ok := <-changed:
				if !ok {
					return
				}
				if status != nats.CONNECTED {
					lose()
					lose = r.newLink()
				}
				for _, s := range sources {
					nudge(s.relinked)
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		r.nc.RemoveStatusListener(changed)
	}
}

func (r *runner) newLink() (lose context.CancelFunc) {
	link, lose := context.WithCancel(r.hard)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.link = link
	return lose
}

// halt lets nothing new begin.
func (r *runner) halt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.halted() {
		close(r.stopping)
	}
}

func (r *runner) halted() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// fail ends the run.
func (r *runner) fail(err error) {
	select {
	case r.failed <- err:
	default: // Another reason came first.
	}
}

// complaint is told what goes wrong while consuming; most of it mends itself.
func (r *runner) complaint(s *source, err error) {
	switch {
	case errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, jetstream.ErrConsumerNotFound):
		r.fail(fmt.Errorf("the durable on stream %s was deleted: %w", s.stream, err))
	case errors.Is(err, jetstream.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionClosed):
		r.fail(err)
	case errors.Is(err, jetstream.ErrBadRequest):
		r.fail(fmt.Errorf("stream %s: %w", s.stream, err))
	case errors.Is(err, jetstream.ErrPinIDMismatch), errors.Is(err, errUnanswered), errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrConsumerLeadershipChanged), errors.Is(err, jetstream.ErrServerShutdown):
		r.log.Debug("consuming was interrupted", zap.String("stream", s.stream), zap.Error(err))
		r.lookAfter(s)
	default:
		r.log.Warn("consuming was interrupted", zap.String("stream", s.stream), zap.Error(err))
	}
}

// lookAfter makes sure that the durable still exists: its absence shows itself as nothing but silence.
func (r *runner) lookAfter(s *source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halted() || !s.looking.TryLock() {
		return
	}
	r.work.Go(func() {
		defer s.looking.Unlock()
		ctx, cancel := context.WithTimeout(r.hard, answerTimeout)
		defer cancel()
		if _, err := s.consumer.Info(ctx); errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			r.fail(fmt.Errorf("the durable on stream %s was deleted: %w", s.stream, err))
		}
	})
}

// windDown waits for the handlers, ends their context when [Config.Grace] is over, and leaves them to themselves a little later.
func (r *runner) windDown(giveUp context.CancelFunc) error {
	done := make(chan struct{})
	go func() {
		r.work.Wait()
		close(done)
	}()
	grace := time.NewTimer(r.cfg.Grace)
	defer grace.Stop()
	select {
	case <-done:
		return nil
	case <-grace.C:
	}
	giveUp()
	grace.Reset(min(r.cfg.Grace, time.Second))
	select {
	case <-done:
		return nil
	case <-grace.C:
		return ErrNotFinished
	}
}

// giveBack lets whoever comes next have at once what is held here, and the place of the one who gets events.
func (r *runner) giveBack(ctx context.Context, sources []*source) {
	if !r.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for _, s := range sources {
		r.mu.Lock()
		rest := make([]*held, 0, len(s.held))
		for _, h := range s.held {
			if h.state == waiting && r.left(h.sure) > 0 { // Others may have it in work already.
				rest = append(rest, h)
			}
		}
		pin, late := s.pin, s.late
		r.mu.Unlock()
		slices.SortFunc(rest, bySequence)
		for _, h := range rest {
			_ = r.nc.Publish(h.msg.Reply, givenBack) // What is not given back comes back by itself, later.
		}
		for _, msg := range late {
			if r.left(r.sureFrom(msg.asked)) > 0 {
				_ = r.nc.Publish(msg.Reply, givenBack)
			}
		}
		if pin == "" {
			continue
		}
		if info, err := s.consumer.Info(ctx); err == nil && len(info.PriorityGroups) == 1 && info.PriorityGroups[0].PinnedClientID == pin {
			_ = r.unpin(ctx, s) // Otherwise it ends by itself.
		}
	}
	_ = r.nc.FlushWithContext(ctx)
}
