package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

func (p *program) runCommand() *cobra.Command {
	var d dryRun
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the bridge until SIGINT or SIGTERM (what happens without a command)",
		Long: `run polls the account and publishes what changes, until SIGINT or SIGTERM, on which it finishes what it is
publishing (a second signal ends it at once).

With --dry-run it reads the account and what is published of it, once, prints the events that it would publish now, and ends. It
writes nothing: no stream, no event, no mark. It can run beside the bridge, and before the streams exist.`,
		Example: `  nimble-bridge run
  nimble-bridge run --dry-run
  nimble-bridge run --dry-run --reconcile --json | jq -r .subject   # with the deletions that a comparison of everything finds`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !d.wanted {
				if d.asJSON || d.reconcile {
					return &usageError{errors.New("--json and --reconcile belong to --dry-run")}
				}
				return p.runBridge(cmd, args)
			}
			cfg, err := readConfig()
			if err != nil {
				return err
			}
			return p.dryRun(cmd.Context(), cfg, d)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&d.wanted, "dry-run", false, "print what would be published now, and write nothing")
	flags.BoolVar(&d.reconcile, "reconcile", false, "with --dry-run: compare the whole account as well, which finds deletions")
	flags.BoolVar(&d.asJSON, "json", false, "with --dry-run: print one event a line, as it would be stored")
	return cmd
}

// runBridge is the command run.
func (p *program) runBridge(cmd *cobra.Command, _ []string) error {
	cfg, err := readConfig()
	if err != nil {
		return err
	}
	screen := newScreen(p.stderr)
	log := newLogger(screen, cfg.LogFormat, cfg.LogLevel)
	meant := misspelt(os.Environ())
	for _, name := range slices.Sorted(maps.Keys(meant)) {
		log.Warn("an environment variable looks like one of the bridge's and is none", zap.String("variable", name), zap.String("meant", meant[name]))
	}
	if cfg.plainHTTP() {
		log.Warn("the API key travels unencrypted to NIMBLE_BASE_URL")
	}
	return newBridge(cfg, log, screen).run(cmd.Context())
}

// bridge is one running bridge, and what can be seen of it from outside.
type bridge struct {
	cfg     *config
	log     *zap.Logger
	screen  *screen
	metrics *metrics
	began   time.Time
	// retry is how failed requests to Nimble are repeated.
	retry nimble.RetryPolicy
	// slow bounds the wait between attempts at what only somebody else can mend.
	slow time.Duration
	// checkUp is how often the stream and the buckets are looked after.
	checkUp time.Duration
	// drain is how long the end of the last poll may take.
	drain time.Duration

	memory memory

	mu sync.Mutex
	// waiting is what keeps the bridge from polling; its reason is empty once it polls.
	waiting readiness
	account string
	// name is how this bridge is known to others, leader the name of the one that polls; empty while that is not known.
	name, leader string
	poller       *poller.Poller
	nats         *natsSide
	stream       *publisher.Publisher
	claim        *publisher.Lease
	// unfit is what is wrong with the stream or the buckets since the last check-up.
	unfit      error
	unfitSince time.Time
	// trouble is the failure of the last request to Nimble, if it failed, and since when they fail.
	trouble      error
	troubleSince time.Time
	// moved is the last sign of life.
	moved time.Time
	// pollTook is how long the last complete poll took.
	pollTook time.Duration
}

func newBridge(cfg *config, log *zap.Logger, screen *screen) *bridge {
	now := time.Now()
	return &bridge{
		cfg: cfg, log: log, screen: screen, metrics: newMetrics(), began: now, moved: now, slow: 30 * time.Second, checkUp: 10 * time.Second, drain: drainTimeout,
		waiting: readiness{Reason: starting, Message: "starting", Since: now.UTC()},
	}
}

const (
	// drainTimeout is less than the 10 seconds that container runtimes grant between SIGTERM and SIGKILL.
	drainTimeout = 8 * time.Second
	// troubleAfter is how long requests to Nimble may fail before the bridge stops calling itself ready: the odd one always fails.
	troubleAfter = 15 * time.Second
)

// run polls until ctx ends. Each step needs what the one before has made; what it waits for can be seen over HTTP meanwhile.
func (b *bridge) run(ctx context.Context) (err error) {
	build := thisBuild()
	b.log.Info("starting", zap.String("version", build.Version), zap.String("commit", build.Commit), zap.String("nimble", b.cfg.BaseURL),
		zap.Duration("poll_interval", b.cfg.Interval), zap.Float64("rate_limit", b.cfg.RateLimit))

	// What runs beside the polling outlives ctx, so that the end of the last poll can still be watched; and its end is the end of the bridge.
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	beside, end := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer func() {
		end()
		background.Wait()
		if failed, ok := errors.AsType[*serveError](context.Cause(ctx)); ok && err == nil {
			err = failed
		}
	}()
	if err := b.listen(beside, &background, fail); err != nil {
		return err
	}

	side, err := b.connect(ctx)
	if err != nil {
		return stopped(ctx, err)
	}
	defer side.close()
	b.set(func() { b.nats, b.name = side, bridgeName(side) })

	client, err := nimble.NewClient(b.cfg.BaseURL, "", nimble.WithKeySource(b.cfg.key), nimble.WithRateLimit(b.cfg.RateLimit),
		nimble.WithTimeout(b.cfg.Timeout), nimble.WithRetry(b.retry), nimble.WithUserAgent("nimble-bridge/"+build.Version), nimble.WithObserver(b.requested))
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()

	account, err := b.findAccount(ctx, client)
	if err != nil {
		return stopped(ctx, err)
	}
	commands := &control{b: b, nc: side.conn.NATS(), account: account}
	defer commands.stop()
	commands.serve(beside, nil)
	stream, err := b.open(ctx, side, account)
	if err != nil {
		return stopped(ctx, err)
	}
	abandoned, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	p, err := b.newPoller(connected{client, side}, ledger{stream, b.metrics, abandoned})
	if err != nil {
		return err
	}
	b.metrics.account(account, p.Status, stream.BucketBehind, b.leads)
	b.set(func() { b.poller, b.stream, b.waiting = p, stream, readiness{} })
	background.Go(func() {
		progress{log: b.log, screen: b.screen, rate: b.cfg.RateLimit, status: p.Status, count: func(ctx context.Context) (int, error) {
			n, err := client.Count(ctx, nimble.Query{})
			return n.Total, err
		}}.run(beside)
	})
	checks, endChecks := context.WithCancel(ctx)
	background.Go(func() { b.lookAfter(checks, side, stream) })
	defer endChecks()
	background.Go(func() {
		silence{log: b.log, interval: b.cfg.Interval, elsewhere: b.standsBy, status: p.Status, usual: b.usualPoll}.run(beside)
	})
	lease, err := b.lease(ctx, stream)
	if err != nil {
		return stopped(ctx, err)
	}
	lead := func(leading context.Context) error {
		commands.serve(leading, p)
		defer commands.serve(beside, nil)
		return p.Run(leading)
	}
	return b.poll(ctx, lead, lease, side, abandon)
}

// bridgeName is how other bridges and people tell this one from others. With the embedded server there is one process in a directory at a time, and it goes by one name, so
// that a bridge which was killed takes over from itself; elsewhere every process has a name of its own.
func bridgeName(side *natsSide) string {
	host, err := os.Hostname()
	if err != nil {
		host = "bridge"
	}
	if side.server != nil {
		return host + "-embedded"
	}
	return host + "-" + nuid.Next()
}

// lease returns the right to poll the account, to be held in this process's name.
func (b *bridge) lease(ctx context.Context, stream *publisher.Publisher) (*publisher.Lease, error) {
	var lease *publisher.Lease
	err := b.await(ctx, "lease", func(ctx context.Context) (err error) {
		lease, err = stream.Lease(ctx, b.name, 0)
		return err
	})
	b.set(func() { b.claim = lease })
	return lease, err
}

// stopped turns the error of something that was interrupted because the bridge is to stop into none.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serveError says that the HTTP server ended by itself.
type serveError struct{ error }

func (e *serveError) Unwrap() error { return e.error }

// listen answers over HTTP, if that is wanted, until ctx ends. Should it end earlier, it calls fail.
func (b *bridge) listen(ctx context.Context, background *sync.WaitGroup, fail func(error)) error {
	if b.cfg.HTTPAddr == "" {
		return nil
	}
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", b.cfg.HTTPAddr)
	if err != nil {
		return &hintedError{
			fmt.Errorf("HTTP_ADDR is %q, where health and metrics cannot be served: %w", b.cfg.HTTPAddr, errors.Unwrap(err)),
			"set HTTP_ADDR to another host:port, or to nothing to do without",
		}
	}
	b.log.Info("serving health, metrics and status", zap.String("url", "http://"+listener.Addr().String()))
	background.Go(func() {
		if err := serve(ctx, listener, newHandler(b, b.metrics.registry)); err != nil {
			fail(&serveError{fmt.Errorf("http: %w", err)})
		}
	})
	return nil
}

// findAccount returns the token that names the account. Where Nimble has to be asked for it, it asks until there is an answer.
func (b *bridge) findAccount(ctx context.Context, client *nimble.Client) (string, error) {
	if b.cfg.Account != "" {
		b.set(func() { b.account = b.cfg.Account })
		return b.cfg.Account, nil
	}
	var account string
	err := b.await(ctx, "account", func(ctx context.Context) error {
		me, err := client.Myself(ctx)
		if err != nil {
			return err
		}
		account = me.CompanyID
		b.log.Info("key accepted", zap.String("account", account), zap.String("user_id", me.UserID))
		return nil
	})
	if err != nil {
		return "", err
	}
	if !word.MatchString(account) {
		return "", &hintedError{fmt.Errorf("Nimble gives the account the company_id %q, which cannot stand in a subject", account), "set NIMBLE_ACCOUNT to a name of letters, digits, - and _"} //nolint:staticcheck // A name begins the message.
	}
	b.set(func() { b.account = account })
	return account, nil
}

// open opens the stream, and keeps trying where somebody else has to mend something.
func (b *bridge) open(ctx context.Context, side *natsSide, account string) (*publisher.Publisher, error) {
	var stream *publisher.Publisher
	err := b.await(ctx, "stream", func(ctx context.Context) (err error) {
		stream, err = side.open(ctx, b.cfg, account, b.metrics.retried, b.log)
		return err
	})
	return stream, err
}

// polling says how an account is polled.
func (c *config) polling(log *zap.Logger) poller.Config {
	settings := poller.Config{
		Interval: c.Interval, Overlap: c.Overlap, PerPage: c.PerPage, Log: log,
		ReconcileInterval: c.Reconcile, DeleteLimit: &poller.DeleteLimit{Count: c.DeleteLimit.count, Share: c.DeleteLimit.share},
	}
	// For the poller, zero is the default.
	if c.Overlap == 0 {
		settings.Overlap = -1
	}
	if c.Reconcile == 0 {
		settings.ReconcileInterval = -1
	}
	return settings
}

func (b *bridge) newPoller(source poller.Source, ledger poller.Ledger) (*poller.Poller, error) {
	settings := b.cfg.polling(b.log)
	settings.Known = b.fitMemory
	settings.Published = func(changes []poller.Change) {
		b.alive()
		b.metrics.published(changes)
	}
	settings.Polled = func(r poller.PollResult) {
		b.alive()
		if r.Err == nil {
			b.set(func() { b.pollTook = r.Duration })
		}
		b.metrics.polled(r)
	}
	settings.Reconciled = func(r poller.ReconcileResult) {
		b.alive()
		b.metrics.reconciled(r)
	}
	return poller.New(source, ledger, settings)
}

// fitMemory bounds the memory of the process by the size of the account.
func (b *bridge) fitMemory(contacts int) {
	b.mu.Lock()
	side := b.nats
	b.mu.Unlock()
	b.memory.fit(contacts, side != nil && side.server != nil)
}

// poll leads whenever it may until ctx ends, and then lets that finish, for a while.
func (b *bridge) poll(ctx context.Context, lead func(context.Context) error, lease *publisher.Lease, side *natsSide, abandon func()) error {
	done := make(chan error, 1)
	go func() {
		done <- lease.Run(ctx, func(ctx context.Context) error {
			b.set(func() { b.leader = b.name })
			defer b.set(func() { b.leader = "" })
			return lead(ctx)
		}, b.standBy)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	b.wait(readiness{Reason: stopping, Message: "finishing what is being published"})
	b.log.Info("stopping; finishing what is being published")
	patience := b.drain
	if side.away() != nil {
		patience /= 4 // It may be a reconnection; it is hardly worth the same wait.
	}
	giveUp := time.AfterFunc(patience, func() {
		b.log.Warn("stopping without the acknowledgement of the last events; the next start finds out what was stored", zap.Duration("waited", patience))
		abandon()
	})
	defer giveUp.Stop()
	err := <-done
	b.log.Info("stopped", zap.Duration("up", time.Since(b.began).Round(time.Second)))
	return err
}

// standBy notes who leads instead.
func (b *bridge) standBy(leader string) {
	b.mu.Lock()
	before := b.leader
	b.leader, b.moved = leader, time.Now()
	b.mu.Unlock()
	if before != leader {
		b.log.Info("another bridge polls this account; standing by", zap.String("leader", leader))
	}
}

// standsBy tells whether another bridge polls.
func (b *bridge) standsBy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leader != "" && b.leader != b.name
}

// leads tells whether this bridge polls, and not another.
func (b *bridge) leads() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.name != "" && b.leader == b.name
}

// await tries until it succeeds, fails for good or ctx ends. Between two attempts it waits, longer each time, in the state that the error means.
func (b *bridge) await(ctx context.Context, what string, try func(context.Context) error) error {
	pace := backoff.NewExponentialBackOff(backoff.WithInitialInterval(min(time.Second, b.slow)), backoff.WithMaxInterval(b.slow), backoff.WithMaxElapsedTime(0))
	b.mu.Lock()
	before := b.waiting
	b.mu.Unlock()
	for attempt := 1; ; attempt++ {
		err := try(ctx)
		b.alive()
		if err == nil {
			b.set(func() { b.waiting = before }) // What was waited for is there.
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		reason, waits := b.reasonOf(err)
		if !waits {
			return err
		}
		b.wait(readiness{Reason: reason, Message: err.Error()})
		wait := pace.NextBackOff()
		switch reason {
		case keyRefused: // No hammering.
			wait = max(wait, min(5*time.Second, b.slow))
		case natsUnreachable: // The connection tries by itself, and the attempt waits for it.
			wait = 0
		}
		if attempt&(attempt-1) == 0 { // 1, 2, 4, 8 …
			b.log.Error("not ready", zap.String("waiting_for", what), zap.String("reason", string(reason)), zap.Error(err), zap.Duration("retry_in", wait.Round(time.Millisecond)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// reasonOf tells what an error keeps the bridge from, and whether waiting makes sense.
func (b *bridge) reasonOf(err error) (r reason, waits bool) {
	if r, ok := reasonOfNimble(err); ok {
		return r, true
	}
	return reasonOfNATS(err)
}

// wait notes what the bridge waits for.
func (b *bridge) wait(r readiness) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.Since = time.Now().UTC()
	if r.Reason == b.waiting.Reason {
		r.Since = b.waiting.Since
	}
	b.waiting = r
}

// usualPoll is how long a poll takes.
func (b *bridge) usualPoll() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pollTook
}

// alive notes a sign of life.
func (b *bridge) alive() { b.set(func() { b.moved = time.Now() }) }

// set changes what others look at.
func (b *bridge) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// stalled returns for how long nothing has moved, if that is longer than anything the bridge does takes.
func (b *bridge) stalled() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.poller != nil && b.poller.Status().State == poller.Paused {
		return 0
	}
	quiet := time.Since(b.moved)
	usual := 10*time.Minute + b.cfg.Interval + b.cfg.Timeout + time.Duration(float64(time.Second)/b.cfg.RateLimit)
	if quiet > usual {
		return quiet
	}
	return 0
}

// requested sees each request to Nimble: for the metrics, and for failures that the client still hopes to overcome.
func (b *bridge) requested(r nimble.RequestInfo) {
	b.metrics.requested(r)
	b.log.Debug("request", zap.String("endpoint", r.Endpoint), zap.Int("status", r.Status), zap.Int("attempt", r.Attempt), zap.Duration("duration", r.Duration), zap.Error(r.Err))
	b.mu.Lock()
	b.moved = time.Now()
	before := b.trouble
	switch {
	case r.Err == nil:
		b.trouble = nil
	case nimble.Retryable(r.Err):
		b.trouble = r.Err
		if before == nil {
			b.troubleSince = time.Now()
		}
	}
	after, since := b.trouble, b.troubleSince
	b.mu.Unlock()
	switch {
	case before == nil && after != nil:
		b.log.Warn("request to Nimble failed; trying again", zap.String("endpoint", r.Endpoint), zap.Error(r.Err))
	case before != nil && after == nil:
		b.log.Info("Nimble answers again", zap.Duration("after", time.Since(since).Round(time.Millisecond)))
	}
}

// readiness tells whether the bridge does its job at this moment.
func (b *bridge) readiness() readiness {
	b.mu.Lock()
	waiting, p, trouble, since, side, stream, claim := b.waiting, b.poller, b.trouble, b.troubleSince, b.nats, b.stream, b.claim
	unfit, unfitSince := b.unfit, b.unfitSince
	standby := b.leader != "" && b.leader != b.name
	b.mu.Unlock()
	unready := func(r reason, err error, since time.Time) readiness {
		return readiness{Reason: r, Message: err.Error(), Since: since.UTC()}
	}
	if trouble != nil && (waiting.Reason == starting || time.Since(since) > troubleAfter) {
		r, _ := reasonOfNimble(trouble)
		return unready(r, trouble, since)
	}
	if waiting.Reason != "" {
		return waiting
	}
	status := p.Status()
	if err := side.away(); err != nil {
		r, _ := reasonOfNATS(err)
		return unready(r, err, status.LastSuccess)
	}
	if unfit != nil {
		r, _ := reasonOfNATS(unfit)
		return unready(r, unfit, unfitSince)
	}
	if since, err := stream.Trouble(); err != nil {
		r, _ := reasonOfNATS(err)
		return unready(r, err, since)
	}
	if claim != nil {
		if err := claim.Err(); err != nil { // Nobody knows who polls.
			r, _ := reasonOfNATS(err)
			return unready(r, fmt.Errorf("leader lease: %w", err), status.LastSuccess)
		}
	}
	switch {
	case standby:
		return readiness{Ready: true}
	case status.Err != nil:
		r, _ := b.reasonOf(status.Err)
		return unready(r, status.Err, status.LastSuccess)
	case status.State == poller.Paused:
		return readiness{Reason: paused, Message: "polling was paused by a person; `nimble-bridge resume` ends that", Since: status.LastSuccess.UTC()}
	case status.State == poller.Starting:
		return readiness{Reason: starting, Message: "loading what is known of the contacts", Since: b.began.UTC()}
	case status.Held > 0:
		return readiness{
			Reason: deletionsHeld, Since: status.HeldSince,
			Message: fmt.Sprintf("%d of %d contacts are gone, more than DELETE_LIMIT lets pass; all else is published: see that they are meant to be gone, then run `nimble-bridge confirm-deletions`", status.Held, status.Contacts),
		}
	}
	return readiness{Ready: true}
}

// plainHTTP tells whether the key would cross a network in the open.
func (c *config) plainHTTP() bool {
	return loopback.FindString(c.BaseURL) == "" && !https.MatchString(c.BaseURL)
}

var (
	https    = regexp.MustCompile(`(?i)^https://`)
	loopback = regexp.MustCompile(`(?i)^http://(localhost|127\.|\[::1\])`)
)
