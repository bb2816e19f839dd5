package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

// A service that hears of new contacts and changed addresses.
func ExampleRun() {
	js, stop := exampleStream()
	defer stop()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cfg := consumer.Config{
		Durable: "newsletter",
		Filter:  consumer.Filter{Verbs: []event.Verb{event.Created, event.Updated}, Changed: []string{"fields.email"}},
	}
	err := consumer.Run(ctx, js, cfg, func(_ context.Context, d *consumer.Delivery) error {
		data := d.Event.Data
		fmt.Printf("%s %s, revision %d: %s\n", d.Event.Subject, d.Event.Verb(), data.Revision, data.Summary.Name)
		cancel() // A service would go on; the example has seen enough.
		return nil
	})
	fmt.Println(err)
	// Output:
	// 5049fb849b85f669e40000dc created, revision 1: Tomasz Brandt
	// <nil>
}

// A service that keeps a copy of the contacts: first as they are, then each change.
func ExampleBootstrap() {
	js, stop := exampleStream()
	defer stop()

	revisions := make(map[string]uint64) // In a database, beside the contacts.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := func(_ context.Context, d *consumer.Delivery) error {
		id, data := d.Event.Subject, d.Event.Data
		if data.Revision <= revisions[id] {
			return nil // Known already.
		}
		revisions[id] = data.Revision
		if d.Event.Verb() == event.Deleted {
			fmt.Println("remove", id)
			return nil
		}
		fmt.Printf("store %s: %s, revision %d\n", id, data.Summary.Name, data.Revision)
		return nil
	}
	cfg := consumer.Config{Durable: "copy", Concurrency: 1} // More than one at a time needs a database, or a lock.
	if err := consumer.Bootstrap(ctx, js, cfg, store); err != nil {
		fmt.Println(err)
		return
	}
	cancel() // A service would go on.
	if err := consumer.Run(ctx, js, cfg, store); err != nil {
		fmt.Println(err)
	}
	// Output:
	// store 5049fb849b85f669e40000dc: Tomasz Brandt, revision 1
}

// What a handler's errors mean.
func ExamplePermanent() {
	js, stop := exampleStream()
	defer stop()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	errUnknown := errors.New("the ledger has no such customer")
	err := consumer.Run(ctx, js, consumer.Config{Durable: "ledger"}, func(_ context.Context, d *consumer.Delivery) error {
		defer cancel()
		return fmt.Errorf("contact %s: %w", d.Event.Subject, consumer.Permanent(errUnknown)) // A dead letter, at once.
	})
	fmt.Println(err)
	// Output:
	// <nil>
}

// exampleStream is a stream with one event in it, as a bridge leaves it.
func exampleStream() (js jetstream.JetStream, stop func()) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	must(err)
	srv, err := embedded.Start(embedded.Options{Dir: dir})
	must(err)
	conn, err := publisher.Connect(ctx, publisher.ConnectConfig{InProcess: srv.InProcess(), Name: "example"}, zap.NewNop())
	must(err)
	p, err := publisher.Open(ctx, conn, publisher.Config{Account: account, Stream: stream, Prefix: prefix, Bucket: bucket, Manage: true}, zap.NewNop())
	must(err)
	contact, err := nimble.ParseContact([]byte(`{"id":"5049fb849b85f669e40000dc","record_type":"person",
		"fields":{"first name":[{"value":"Tomasz"}],"last name":[{"value":"Brandt"}]}}`))
	must(err)
	fingerprint, err := poller.FingerprintOf(contact.Raw)
	must(err)
	_, err = p.Append(ctx, []poller.Change{{Kind: poller.Created, Contact: contact, Fingerprint: fingerprint, Revision: 1, FoundBy: poller.FoundByPoll}})
	must(err)
	for behind := uint64(1); behind > 0; { // The server fills the bucket a moment later.
		behind, err = p.BucketBehind(ctx)
		must(err)
	}
	return p.JetStream(), func() {
		conn.Close()
		srv.Shutdown()
		_ = os.RemoveAll(dir)
	}
}
