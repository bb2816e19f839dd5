// Package publisher appends changes to a NATS JetStream stream as events, once each and in order per contact, and reads back
// from it what is known of every contact. Start with [Connect] and [Open]; a [Publisher] is a [poller.Ledger].
//
// # What is stored where
//
// The event stream is the only thing that is written per change: one CloudEvents message (see package event) on
//
//	<prefix>.<account>.contact.<verb>.<contact id>
//
// The bucket, a key-value bucket with the latest event of each contact under <account>.<contact id>, is kept by NATS itself,
// which sources it from the stream. A second, small bucket, [StateBucket], has what cannot be derived: how far an account has been read.
//
// # What an append proves
//
// Every message carries the sequence of the contact's previous event (0 for none), and the server refuses it unless that is still the contact's last one,
// whatever its verb. So a late message of a dead process, a second bridge, or the same message sent twice cannot be stored out of place.
// When [Publisher.Append] returns nil, each change is stored exactly once and follows the one before it. Several changes travel as one atomic batch:
// all of them are stored, or none.
//
// A refusal or a missing answer says nothing yet: the contact's last message, read from the stream's leader, does. The event's id is
// deterministic, so finding our own id there means that an earlier attempt was stored. Nothing is there that was not before: append again, with the
// same headers. Something else is there: another writer came first, and the error wraps [poller.ErrConflict].
//
// # What loading proves
//
// [Publisher.Load] reads the bucket and then whatever the stream has beyond it, since the bucket may lag: together they are exact at whatever point the
// last process died. Power loss on a server that does not sync every write can take the end of the stream and leave the bucket ahead of it.
// Load notices, since sequences and event ids no longer agree, appends the lost events again from the bucket, with the
// same ids and revisions, and has NATS source the bucket again from there.
//
// # Errors
//
// An error that a person has to act on names the object and what to do about it: [*UnreachableError], [*ServerTooOldError], [*MissingError],
// [*UnfitError], [*PermissionError], [*StreamFullError]. Everything else is tried again, with growing pauses, until the context ends or [Config.Patience] runs out.
package publisher
