package follow_test

import (
	"context"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/follow"
)

// What is in a stream, and then the end of it. Without Stop it goes on until the context ends.
func ExampleRun() {
	dir, err := os.MkdirTemp("", "follow-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	server, err := embedded.Start(embedded.Options{Dir: dir})
	if err != nil {
		panic(err)
	}
	defer server.Shutdown()
	nc, err := nats.Connect("", nats.InProcessServer(server.InProcess()))
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "NIMBLE", Subjects: []string{"nimble.>"}}); err != nil {
		panic(err)
	}
	for _, subject := range []string{"nimble.acme.contact.created.a1", "nimble.acme.contact.updated.a1", "nimble.acme.contact.deleted.a1"} {
		if _, err := js.Publish(ctx, subject, nil); err != nil {
			panic(err)
		}
	}

	err = follow.Run(ctx, js, follow.Config{
		Stream:   "NIMBLE",
		Subjects: []string{"nimble.*.contact.created.>", "nimble.*.contact.updated.>"},
		From:     follow.All(),
		Stop:     true,
	}, func(m *follow.Message) error {
		fmt.Println(m.Sequence, m.Subject)
		return nil
	})
	if err != nil {
		panic(err)
	}
	// Output:
	// 1 nimble.acme.contact.created.a1
	// 2 nimble.acme.contact.updated.a1
}
