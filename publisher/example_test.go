package publisher_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/embedded"
)

// A change is appended, and known again after a restart.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	srv, err := embedded.Start(embedded.Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Shutdown()

	conn, err := publisher.Connect(ctx, publisher.ConnectConfig{InProcess: srv.InProcess(), Name: "example"}, zap.NewNop())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	p, err := publisher.Open(ctx, conn, publisher.Config{
		Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Manage: true,
	}, zap.NewNop())
	if err != nil {
		fmt.Println(err)
		return
	}

	contact, err := nimble.ParseContact(jsontext.Value(`{"id":"5049fb849b85f669e40000dc","record_type":"person","fields":{"first name":[{"value":"Tomasz"}]}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fingerprint, err := poller.FingerprintOf(contact.Raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	sequences, err := p.Append(ctx, []poller.Change{{
		Kind: poller.Created, Contact: contact, Fingerprint: fingerprint, Revision: 1, Observed: time.Now(), FoundBy: poller.FoundByPoll,
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("stored at", sequences)

	err = p.Load(ctx, func(k poller.Known) { fmt.Println("known:", k.ID, "revision", k.Revision, "at", k.Sequence) })
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// stored at [1]
	// known: 5049fb849b85f669e40000dc revision 1 at 1
}
