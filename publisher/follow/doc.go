// Package follow reads a stream as it grows, for somebody who looks on: a live view, a test, a script.
//
// [Run] hands over each message once, in the order of the stream, from the point that [Config] names until its context ends. It leaves no trace: it
// acknowledges nothing, and the server forgets its consumer half a minute after it went.
//
// # What it promises
//
// As long as it runs, no message is missed and none comes twice, whatever happens to the connection and the server meanwhile: Run remembers the last sequence that it
// handed over and makes itself a new consumer from there. A stream that does not exist yet is waited for. One that was deleted and
// made anew, or that its server lost the end of, is read from where it differs. [Config.Notice] is told of all this.
//
// What an age limit, a purge or an erasure removes from the stream before it was read cannot be handed over.
//
// # What it does not do
//
// It remembers nothing beyond the run: a service that has to go on where it stopped uses [nimble-bridge/publisher/consumer].
//
// # What it needs
//
// Permission to publish to $JS.API.STREAM.INFO.<stream>, $JS.API.CONSUMER.CREATE.<stream>.> and $JS.API.CONSUMER.MSG.NEXT.<stream>.*, and to
// subscribe to the connection's inbox. It writes nothing into any stream.
package follow
