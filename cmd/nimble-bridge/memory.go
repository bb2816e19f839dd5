package main

import (
	"os"
	"runtime/debug"
	"sync"
)

// memory keeps the process small, whatever the account's size, by having Go's collector look sooner. It would let as much again lie around as is in use, and of a
// million contacts that is a lot; since the table of what is known has no pointers in it, looking often costs hardly anything. Who sets GOGC or GOMEMLIMIT decides instead.
type memory struct {
	mu      sync.Mutex
	limit   int64
	percent int
}

const (
	// With the server in the process a soft limit holds, which grows with the account: the server caches what it wrote and read in the last seconds.
	baseLimit       = 80 << 20
	limitPerContact = 700 // What is known of a contact, and the server's index of its subjects, with room to spare.
	limitStep       = 4 << 20

	// Without it, garbage may take this much, beside a large account.
	garbage         = 48 << 20
	tablePerContact = 150
	least, step     = 10, 5
)

// fit adapts to an account of that many contacts.
func (m *memory) fit(contacts int, embedded bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if limit := int64(baseLimit + contacts*limitPerContact); embedded && limit-m.limit >= limitStep && os.Getenv("GOMEMLIMIT") == "" {
		m.limit = limit
		debug.SetMemoryLimit(limit)
	}
	if m.percent == 0 {
		m.percent = 100
	}
	if percent := percentFor(contacts); !embedded && (percent <= m.percent-step || percent >= m.percent+step) && os.Getenv("GOGC") == "" {
		m.percent = percent
		debug.SetGCPercent(percent)
	}
}

// percentFor is how much garbage may lie around, in percent of what is in use.
func percentFor(contacts int) int {
	return min(max(100*garbage/(contacts*tablePerContact+1), least), 100)
}
