// Package embedded runs a NATS server with JetStream inside the process, so that the bridge works without any server being set up.
//
// [Start] returns a server that is ready, and [Server.Shutdown] one that has stopped and written everything. In between, the bridge itself connects
// without a socket, through [Server.Conn] or [Server.InProcess], and others through the listen address, if one was given: a server
// without one can be reached by nobody else.
//
// Every acknowledged write is on disk: the server syncs before it acknowledges, so that an event survives a power failure too. It installs
// no signal handlers; the process it runs in decides when it ends.
package embedded
