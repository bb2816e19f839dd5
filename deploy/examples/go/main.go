// Command go is a small service on contact events: it keeps a copy of the contacts in memory, as they are at present first and then with each change, and says what it does.
//
//	go run ./deploy/examples/go --nats nats://127.0.0.1:4222
//
// A service of one's own needs the modules that this file imports, and a database where this one has a map.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"maps"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

func main() {
	url := flag.String("nats", nats.DefaultURL, "NATS servers, comma separated")
	durable := flag.String("durable", "example-go", "name under which NATS remembers how far this service has come")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *url, *durable); err != nil {
		log.Print(err)
	}
}

func run(ctx context.Context, url, durable string) error {
	nc, err := nats.Connect(url, nats.Name(durable), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	c := copyOfContacts{contacts: make(map[string]contact)}
	cfg := consumer.Config{Durable: durable}
	// The copy is in memory and gone with the process, so each start begins with the present state. A service with a database leaves Forget out.
	if err := consumer.Forget(ctx, js, cfg); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	if err := consumer.Bootstrap(ctx, js, cfg, c.handle); err != nil {
		return err
	}
	log.Printf("%d contacts at first", c.len())
	return consumer.Run(ctx, js, cfg, c.handle)
}

type contact struct {
	revision uint64
	summary  event.Summary
}

// copyOfContacts is kept by several handlers at once, of different contacts.
type copyOfContacts struct {
	mu       sync.Mutex
	contacts map[string]contact
}

func (c *copyOfContacts) handle(_ context.Context, d *consumer.Delivery) error {
	e, data := d.Event, &d.Event.Data
	c.mu.Lock()
	defer c.mu.Unlock()
	if data.Revision <= c.contacts[e.Subject].revision {
		return nil // Done already: at least once means perhaps twice.
	}
	if e.Verb() == event.Deleted {
		// The revision stays, so that nothing older brings the contact back; what was kept of the person goes.
		c.contacts[e.Subject] = contact{revision: data.Revision}
		log.Printf("%s is gone: %s", e.Subject, data.Reason)
		return nil
	}
	c.contacts[e.Subject] = contact{revision: data.Revision, summary: data.Summary}
	log.Printf("%s, revision %d: %s %s", data.Summary.Name, data.Revision, e.Verb(), strings.Join(slices.Sorted(maps.Keys(data.Changes)), ", "))
	if e.Changed("fields.email") {
		log.Printf("  %s now has the address %q", data.Summary.Name, data.Summary.Emails)
	}
	return nil
}

func (c *copyOfContacts) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.contacts)
}
