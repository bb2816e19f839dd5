package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

// demonstration is what the flags of demo say.
type demonstration struct {
	length   time.Duration
	events   int
	contacts int
	seed     uint64
	addr     string
}

func (p *program) demoCommand() *cobra.Command {
	var d demonstration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole pipeline, with no account and no server",
		Long: `demo runs the bridge between a simulated Nimble account, in which somebody invented adds,
edits and tags contacts, and a NATS server of its own, and prints the events that a
plain subscriber receives. It ends when interrupted and leaves nothing behind.`,
		Example: `  nimble-bridge demo
  nimble-bridge demo --for 15s --contacts 500
  nimble-bridge demo --events 20 --seed 7     # the same account and the same edits each time`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.check(); err != nil {
				return &usageError{err}
			}
			return p.demo(cmd.Context(), d)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&d.length, "for", 0, "end after this time, such as 15s; 0 goes on until interrupted")
	flags.IntVar(&d.events, "events", 0, "end after this many events; 0 goes on until interrupted")
	flags.IntVar(&d.contacts, "contacts", 8, "contacts that exist at the start")
	flags.Uint64Var(&d.seed, "seed", 0, "what to invent; 0 draws it")
	flags.StringVar(&d.addr, "nats-addr", "", "where the NATS server listens; without it 127.0.0.1:4222, or a free port if that is taken")
	return cmd
}

func (d demonstration) check() error {
	switch {
	case d.length < 0:
		return fmt.Errorf("--for is %s, want 0 or more", d.length)
	case d.events < 0:
		return fmt.Errorf("--events is %d, want 0 or more", d.events)
	case d.contacts < 0 || d.contacts > maxSimulated:
		return fmt.Errorf("--contacts is %d, want 0 to %d", d.contacts, maxSimulated)
	case d.addr != "" && !isAddress(d.addr):
		return fmt.Errorf("--nats-addr is %q, want host:port such as 127.0.0.1:4222", d.addr)
	}
	return nil
}

// demoInterval is short, so that an event follows its edit visibly.
const demoInterval = 500 * time.Millisecond

// demo runs the pipeline until it has shown what was asked for, or ctx ends.
func (p *program) demo(ctx context.Context, d demonstration) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if d.length > 0 {
		time.AfterFunc(d.length, stop)
	}
	seed := cmp.Or(d.seed, uint64(time.Now().UnixNano()))

	dir, err := os.MkdirTemp("", "nimble-bridge-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := startDemoServer(d.addr, dir)
	if err != nil {
		return err
	}
	defer server.Shutdown()
	nimble := nimbletest.NewServer(nimbletest.WithContacts(d.contacts), nimbletest.WithSeed(seed))
	defer nimble.Close()

	p.printf(`A simulated Nimble account with %d contacts, a NATS server and the bridge between them.
Watch the same events in another terminal:

    nats --server %s subscribe 'nimble.>'
    nats --server %[2]s kv watch nimble-contacts

`, nimble.Len(), server.URL())
	var watched error
	var once sync.Once
	watching, err := p.watch(server.URL(), d.events, func(err error) {
		once.Do(func() {
			watched = err
			stop()
		})
	})
	if err != nil {
		return err
	}
	defer watching.Close()

	var busy sync.WaitGroup
	defer busy.Wait()
	defer stop()
	someone := newEditor(nimble.Account, seed)
	busy.Go(func() {
		someone.work(ctx, func() time.Duration { return time.Second + time.Duration(someone.rand.Int64N(int64(time.Second))) }, func(string) {})
	})
	bridge := newBridge(demoConfig(nimble.URL, server.URL()), newLogger(p.stderr, "auto", logLevel(zap.WarnLevel)), newScreen(p.stderr))
	if err := bridge.run(ctx); err != nil {
		return err
	}
	once.Do(func() {}) // Nothing is written after this.
	return watched
}

// startDemoServer takes the usual port if it can, so that the nats command needs no address, and any other if not.
func startDemoServer(addr, dir string) (*embedded.Server, error) {
	server, err := embedded.Start(embedded.Options{Dir: dir, Addr: cmp.Or(addr, "127.0.0.1:4222")})
	if _, taken := errors.AsType[*embedded.AddressError](err); taken && addr == "" {
		return embedded.Start(embedded.Options{Dir: dir, Addr: "127.0.0.1:0"})
	}
	return server, err
}

// demoConfig is the configuration of a bridge as an operator would write it, but for the haste.
func demoConfig(nimbleURL, natsURL string) *config {
	return &config{
		APIKey: "test-key", BaseURL: nimbleURL, Account: "demo", RateLimit: 100, Timeout: 10 * time.Second, PerPage: 100,
		NATSURL: natsURLs{natsURL}, Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Replicas: 1, MaxBytes: -1, Manage: true,
		Interval: demoInterval, Overlap: 10 * time.Second,
	}
}

// watch prints each event that a plain subscriber receives, and calls done after the given number of them, if there is one.
func (p *program) watch(url string, events int, done func(error)) (*nats.Conn, error) {
	conn, err := nats.Connect(url, nats.Name("nimble-bridge demo"))
	if err != nil {
		return nil, fmt.Errorf("demo's subscriber: %w", err)
	}
	v := view{color: wantsColor(p.stdout), zone: time.Local}
	seen := 0
	_, err = conn.Subscribe("nimble.*.contact.>", func(msg *nats.Msg) {
		if events > 0 && seen == events {
			return
		}
		e, err := event.Decode(msg.Data)
		if err != nil {
			done(fmt.Errorf("message on %s: %w", msg.Subject, err))
			return
		}
		p.printf("%s", v.event(e))
		if seen++; seen == events {
			done(nil)
		}
	})
	if err == nil {
		err = conn.Flush() // The server knows the subscription before anything is published.
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("demo's subscriber: %w", err)
	}
	return conn, nil
}
