package streamtest_test

import (
	"fmt"

	"github.com/nats-io/nats.go"

	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/streamtest"
)

// A stream whose second event of a contact is missing.
func ExampleCheckHistory() {
	message := func(sequence, revision uint64, id string) streamtest.Message {
		e := &event.Event{}
		e.ID, e.Type, e.Subject = id, event.Snapshot.Type(), "a1"
		e.Data.Account, e.Data.Revision = "acme", revision
		e.Data.Truncated = true // So that there is no document to hold against the header.
		return streamtest.Message{
			Sequence: sequence, Event: e, Subject: event.Subject{Prefix: "nimble", Account: "acme", Verb: event.Snapshot, ContactID: "a1"},
			Header: nats.Header{"Nats-Msg-Id": {id}, "Nimble-Type": {"snapshot"}, "Nimble-Revision": {fmt.Sprint(revision)}},
		}
	}
	fmt.Println(streamtest.CheckHistory([]streamtest.Message{message(7, 1, "x"), message(9, 3, "y")}))
	// Output:
	// message 9, contact a1: revision 3 follows 1
}
