package audit

import (
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// inbox collects what a consumer delivers while the last batch is on its way to the disk. All of it becomes the next batch, so the slower the disk, the
// larger the batches.
type inbox struct {
	mu       sync.Mutex
	room     *sync.Cond
	messages []jetstream.Msg
	size     int
	closed   bool
	// filled has a value when there is something to take.
	filled chan struct{}
}

func newInbox() *inbox {
	i := &inbox{filled: make(chan struct{}, 1)}
	i.room = sync.NewCond(&i.mu)
	return i
}

// put adds a message. It waits while a batch is full.
func (i *inbox) put(msg jetstream.Msg) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for !i.closed && (len(i.messages) >= maxBatch || i.size >= maxBatchBytes) {
		i.room.Wait()
	}
	if i.closed {
		return
	}
	i.messages = append(i.messages, msg)
	i.size += len(msg.Data())
	select {
	case i.filled <- struct{}{}:
	default:
	}
}

// take returns everything that has come, and takes a slice for what comes next.
func (i *inbox) take(next []jetstream.Msg) []jetstream.Msg {
	i.mu.Lock()
	defer i.mu.Unlock()
	taken := i.messages
	i.messages, i.size = next[:0], 0
	i.room.Broadcast()
	return taken
}

// close ends the waiting of who puts. What comes later is dropped.
func (i *inbox) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	i.room.Broadcast()
}
