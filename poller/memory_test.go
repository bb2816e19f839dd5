package poller_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/poller"
)

// memory is a ledger in memory. It stands in for the one on JetStream where time is simulated, since sockets and servers do not live in
// a testing/synctest bubble; it keeps the same promises.
type memory struct {
	mu       sync.Mutex
	events   []poller.Change
	last     map[string]int // Contact id to index in events.
	rejected []poller.Rejection
	receipts []poller.Receipt
	progress poller.Progress
	saved    []poller.Progress
	// fail, if set, is asked before each append; with after, the events are stored and the error returned all the same.
	fail func(n int) (err error, after bool)
}

func newMemory() *memory { return &memory{last: make(map[string]int)} }

func (m *memory) Load(_ context.Context, known func(poller.Known)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, i := range m.last {
		c := m.events[i]
		known(poller.Known{
			ID: id, Fingerprint: c.Fingerprint, Revision: c.Revision, Sequence: uint64(i + 1),
			Created: c.Contact.Created, Updated: c.Contact.Updated, Deleted: c.Kind == poller.Deleted,
		})
	}
	return nil
}

func (m *memory) Append(_ context.Context, changes []poller.Change) ([]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var failure error
	if m.fail != nil {
		err, after := m.fail(len(m.events))
		if err != nil && !after {
			return nil, err
		}
		failure = err
	}
	for _, c := range changes {
		if i, ok := m.last[c.Contact.ID]; ok && c.Previous != uint64(i+1) || !ok && c.Previous != 0 {
			return nil, fmt.Errorf("contact %s after %d: %w", c.Contact.ID, c.Previous, poller.ErrConflict)
		}
	}
	sequences := make([]uint64, len(changes))
	for i, c := range changes {
		c.Contact.Raw = c.Contact.Raw.Clone()
		m.events = append(m.events, c)
		m.last[c.Contact.ID] = len(m.events) - 1
		sequences[i] = uint64(len(m.events))
	}
	return sequences, failure
}

func (m *memory) Last(_ context.Context, k poller.Known) (jsontext.Value, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.last[k.ID]
	if !ok || uint64(i+1) != k.Sequence {
		return nil, fmt.Errorf("contact %s at %d: %w", k.ID, k.Sequence, poller.ErrNotRecorded)
	}
	return m.events[i].Contact.Raw, nil
}

func (m *memory) Reject(_ context.Context, rejected []poller.Rejection) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rejected = append(m.rejected, rejected...)
	return nil
}

func (m *memory) Receipt(_ context.Context, r poller.Receipt) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.receipts = append(m.receipts, r)
	return nil
}

func (m *memory) Progress(context.Context) (poller.Progress, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.progress, nil
}

func (m *memory) SaveProgress(_ context.Context, p poller.Progress) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress = p
	m.saved = append(m.saved, p)
	return nil
}

// of returns the events of one contact.
func (m *memory) of(id string) []poller.Change {
	m.mu.Lock()
	defer m.mu.Unlock()
	var changes []poller.Change
	for _, c := range m.events {
		if c.Contact.ID == id {
			changes = append(changes, c)
		}
	}
	return changes
}

// has tells whether a contact has an event.
func (m *memory) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.last[id]
	return ok
}

// count returns how many events of a kind there are.
func (m *memory) count(kind poller.Kind) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.events {
		if c.Kind == kind {
			n++
		}
	}
	return n
}
