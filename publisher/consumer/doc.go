// Package consumer handles the contact events of a nimble-bridge in a Go service: durably, each contact's events in order, with retries and dead letters.
//
//	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
//	js, err := jetstream.New(nc)
//	...
//	err = consumer.Run(ctx, js, consumer.Config{Durable: "crm-sync"}, func(ctx context.Context, d *consumer.Delivery) error {
//		return crm.Upsert(ctx, d.Event.Subject, d.Event.Data.Summary)
//	})
//
// [Run] returns when ctx ends. Started again with the same Durable, in the same or another process, it goes on where it was. Which events it gets, and how patiently they are
// tried, is in [Config]. Who needs the present state first, and then every change, calls [Bootstrap] before Run.
//
// # What it promises
//
// At least once. An event is acknowledged after the handler has returned nil, and never before. After a crash between the two it is handled again, with
// [Delivery.Redelivered] true.
//
// In order per contact. Revision n+1 begins when revision n is finished and the server has confirmed that; while n is tried again, n+1 waits. That holds over crashes
// of the process, lost connections and restarts of the server, though the server gives out again in no particular order what was in work: an event begins only when no earlier
// one of its contact can be outstanding. So a handler may see 1, 2, 2, 3, and never 1, 3, 2. Only if process and server die together, the server before it has noted the last
// acknowledgements, some events are handled once more from an earlier one on, in order again.
//
// Side by side between contacts. Up to [Config.Concurrency] events of different contacts are handled at once. A contact whose event fails holds up nobody else, as long as fewer than
// [Config.MaxPending] events wait in all.
//
// Nothing is dropped. An event that fails [Config.MaxTries] times, or that the handler calls [Permanent], is stored as a dead letter before it is acknowledged, and the next one of its contact
// begins. While the letter cannot be stored the event is kept, and only its contact waits. What is no contact event becomes a letter at once. See
// [Letters] for how to look at them and have them handled again.
//
// # Several processes
//
// Processes with the same Durable share it, and one at a time gets events; the server chooses and remembers which (a pinned client, in the words of NATS). After a clean stop another one takes
// over at once, after a crash within [Config.AckWait] or three seconds, whichever is longer. More throughput comes from Concurrency, or from several durables with a [Filter] each.
//
// Order holds across processes too. A process that stood still for a while (stopped, starved, put to sleep, or cut off from NATS) may hold events that another one has handled meanwhile, with later
// ones of the same contact. It begins none of them. An event begins only while it is certain that the server has given it to nobody else: the delivery cannot be older than the request that
// it answers, and each sign of life that the server has confirmed counts from when it was sent. Where those times are too long ago, the server is asked whether this process still has
// its turn; if not, the event is dropped, and comes again to whoever it belongs to.
//
// What remains is a handler that had begun before its process stood still for longer than AckWait. Nobody can call it back: when the process goes on it finishes, and what it does then comes after what its
// successor has done, with the same event and perhaps with later ones. The same is true of any work that goes on after a lease has run out, in any system; only the place where the effect is
// stored can refuse it. A handler that compares revisions there, in the same transaction, makes it harmless. A machine whose clocks stand still while the server's go on, such as a
// virtual machine that is frozen and resumed without being told the time, does not notice how long it was away, and may begin what it holds in the first moments.
//
// # What a handler owes
//
// It may be called again for what it has done, so doing it twice has to be harmless. The safe way is to keep the revision with whatever is kept of a contact, and to
// pass over an event whose revision is not higher. It may take as long as it likes: the server hears that the event is in work. It should return soon after its context
// has ended.
//
// Tries are counted by the process that makes them. A restart begins them anew, so that nothing is given up because of restarts.
//
// # The present state, and then every change
//
// The bucket has the latest event of each contact, and the stream all of them, for as long as it keeps them. Neither alone is enough: the bucket has no history, the stream may have dropped its
// beginning, and what happens while one is read must not be lost on the way to the other. [Bootstrap] does the following, which works in any language:
//
//  1. If the durable exists, the state was read before: go on with step 6.
//  2. Look up the last entry of the bucket (the last message of the stream KV_<bucket> on $KV.<bucket>.>), and note its sequence there and, from the header Nats-Stream-Source,
//     "<stream> <sequence> …", its sequence S in the event stream. In an empty bucket S is 0.
//  3. Read the bucket, not key by key but as a stream, with an ordered consumer on KV_<bucket>, until a message has come that is not before the noted one, says that none are pending, and is the
//     last by what the stream says of itself: an entry that is just being replaced is not counted as pending for a moment. If nothing comes any more, the count is right.
//     Store each contact unless a revision at least as high is stored. An entry with the header KV-Operation: DEL is a deleted contact: note it as such, with its revision.
//  4. If the event stream begins after S+1, it may have dropped events since step 2. If the bucket's last entry is another one than then, go back to step 2.
//  5. Create the durable on the event stream with the start sequence S+1 (and look at step 4 once more). If the stream's event at S has another id than the bucket's noted entry, or there is none because the stream ends before S, the
//     stream has lost its end in a power failure: start at its beginning instead.
//  6. Consume. Pass over an event whose revision is not higher than what is stored of its contact; take any other.
//
// Why nothing is missed: NATS fills the bucket from the stream in order, so at step 2 it has the effect of every event up to S, and each contact that it had then is read in step 3, at that revision or
// a later one. Everything after S comes from the stream. Why nothing is taken twice: what the bucket had beyond S comes from the stream again, and is known by its revision. A bucket that
// is late, which happens to clusters after the loss of a node, only makes S smaller. For a contact that is stored, the next event that is not passed over has the next
// revision; if it has a higher one, the stream has dropped some before they were consumed: the contact in it is right all the same, but a deletion may have been among what was
// dropped of other contacts. A consumer that was away for longer than the stream keeps events calls [Forget], reads the state again, and removes what was not in it.
//
// # What is written
//
// [Run] creates the durable on the event stream, the stream of dead letters ([Config.DeadLetters]) if it does not exist, and a second durable there. It needs to publish below that name and
// to use the JetStream API for both streams. It wants nats-server 2.12.1 or newer, as the bridge does.
package consumer
