package publisher

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// trouble is what keeps an append waiting. It has a lock of its own, because others look on.
type trouble struct {
	mu     sync.Mutex
	err    error
	since  time.Time
	logged bool
}

// troubleAfter is how long an append may fail before that is worth a word: a change of leaders takes less.
const troubleAfter = 3 * time.Second

// Trouble returns what has kept an append from being stored for some seconds, and since when; no error while all goes well. An append is tried again for as long as
// [Config.Patience] before its caller hears of it, which is too long for who has to mend the server.
func (p *Publisher) Trouble() (since time.Time, err error) {
	p.trouble.mu.Lock()
	defer p.trouble.mu.Unlock()
	if p.trouble.err == nil || time.Since(p.trouble.since) < troubleAfter {
		return time.Time{}, nil
	}
	return p.trouble.since, p.trouble.err
}

// note remembers why an attempt that began at some time failed.
func (t *trouble) note(log *zap.Logger, err error, began time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.since = began
	}
	t.err = err
	if lasted := time.Since(t.since); !t.logged && lasted >= troubleAfter {
		t.logged = true
		log.Error("events are not stored; trying again", zap.Error(err), zap.Duration("for", lasted.Round(time.Millisecond)))
	}
}

// end says that nothing waits any more. When that is not because it was stored, who called hears the reason.
func (t *trouble) end(log *zap.Logger, stored bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if stored && t.logged {
		log.Info("events are stored again", zap.Duration("after", time.Since(t.since).Round(time.Millisecond)))
	}
	t.err, t.logged = nil, false
}
