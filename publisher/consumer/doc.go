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
// tried, is in [Config].
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
// begins. While the letter cannot be stored the event is kept, and only its contact waits. What is no contact event becomes a letter at once.
//
// # Several processes
//
// Processes with the same Durable share it, and one at a time gets events; the server chooses and remembers which (a pinned client, in the words of NATS). After a clean stop another one takes
// over at once, after a crash within [Config.AckWait]. So order holds across processes too. One case remains: a process that is cut off from NATS finishes the
// handlers it has begun, which may overlap with those of its successor; it begins no others. More throughput comes from
// Concurrency, or from several durables with a [Filter] each.
//
// # What a handler owes
//
// It may be called again for what it has done, so doing it twice has to be harmless. The safe way is to keep the revision with whatever is kept of a contact, and to
// pass over an event whose revision is not higher. It may take as long as it likes: the server hears that the event is in work. It should return soon after its context
// has ended.
//
// Tries are counted by the process that makes them. A restart begins them anew, so that nothing is given up because of restarts.
//
// # What is written
//
// [Run] creates the durable on the event stream, the stream of dead letters ([Config.DeadLetters]) if it does not exist, and a second durable there. It needs to publish below that name and
// to use the JetStream API for both streams. It wants nats-server 2.12.1 or newer, as the bridge does.
package consumer
