// Package event is the contact event as a Go type: what the bridge publishes and what a consumer reads.
//
// # Reading events
//
// Every message on <prefix>.<account>.contact.<verb>.<contact id> is one CloudEvents 1.0 event in structured JSON mode. [Decode] reads its
// body:
//
//	ev, err := event.Decode(msg.Data())
//	...
//	fmt.Println(ev.Verb(), ev.Data.Summary.Name, ev.Data.Revision)
//
// [Parse] reads the bridge's own notices as well, on <prefix>.<account>.bridge.reconciled and <prefix>.<account>.bridge.rejected, and
// holds the headers against the body. Who only has to choose between messages needs no body: [ParseHeaders] tells verb, revision, fingerprint, times and changed keys, and
// [ParseSubject] takes the subject apart.
//
// # What changed, and what is there
//
// [Event.Changed] and [Headers.Changed] ask for keys, such as "fields.email", "fields" or "tags". A [Change] has both sides as Nimble wrote them, and tells
// the values in them and what was added and removed. Data.Summary has what most need of a contact; [Data.Fields] is the whole field map, with addresses and
// employments taken apart.
//
// # What passes through untouched
//
// The contact, and both sides of each change, are [jsontext.Value]: exactly the bytes Nimble sent. Nothing is reordered, renamed
// or reformatted on the way, and reading is lenient about duplicate names and invalid UTF-8 inside them.
//
// # What identifies an event
//
// An event's id ([ContactEventID]) depends only on the account, the contact, its revision and what changed, so the same change found
// twice has the same id, and a consumer that keeps the ids it has seen, or just each contact's last revision, does nothing twice.
//
// The package depends neither on NATS nor on the rest of the bridge. The events' JSON Schemas are in [nimble-bridge/publisher/event/schema].
package event
