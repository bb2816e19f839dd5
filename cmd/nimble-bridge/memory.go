package main

import (
	"os"
	"runtime/debug"
	"sync/atomic"
)

// memoryLimit keeps the memory of a process with an embedded server in it small. The server caches what it wrote and read in the last seconds, and Go's collector
// would let as much again lie around before it looks; a soft limit that grows with the account makes it look sooner. Who sets GOMEMLIMIT decides instead.
type memoryLimit struct {
	set atomic.Int64
}

const (
	baseMemory       = 80 << 20
	memoryPerContact = 700 // What is known of a contact, and the server's index of its subjects, with room to spare.
	memoryStep       = 4 << 20
)

// fit sets the limit for an account of that many contacts.
func (m *memoryLimit) fit(contacts int) {
	limit := int64(baseMemory + contacts*memoryPerContact)
	if before := m.set.Load(); limit-before < memoryStep || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	m.set.Store(limit)
	debug.SetMemoryLimit(limit)
}
