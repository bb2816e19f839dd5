package publisher_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/event"
)

// TestLastEventRemovedUnderARunningBridge lets the age limit, or an operator, take contacts' last events out of the stream while a bridge polls. What is edited then is
// published once and follows what is gone, nothing else is published, and a bridge that is started later agrees. What ever stood in the stream is held against the
// account, as a consumer has it that was there all the time.
func TestLastEventRemovedUnderARunningBridge(t *testing.T) {
	purge := func(opts func(w *solo) []jetstream.StreamPurgeOpt) func(w *solo) {
		return func(w *solo) {
			w.must(w.stream().Purge(w.ctx, opts(w)...))
		}
	}
	tests := map[string]func(w *solo){
		"age limit": func(w *solo) {
			cfg := w.stream().CachedInfo().Config
			cfg.MaxAge, cfg.Duplicates = 100*time.Millisecond, 100*time.Millisecond
			_, err := w.js.UpdateStream(w.ctx, cfg)
			w.must(err)
			eventually(w.test, "the age limit", func() bool { return w.stream().CachedInfo().State.Msgs == 0 })
			cfg.MaxAge = 0
			_, err = w.js.UpdateStream(w.ctx, cfg)
			w.must(err)
		},
		"purge": purge(func(*solo) []jetstream.StreamPurgeOpt { return nil }),
		"purge of a contact": purge(func(w *solo) []jetstream.StreamPurgeOpt {
			return []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(event.ContactSubjects("nimble", w.name, w.edited))}
		}),
		"purge of the subject of the last event, an earlier one staying": purge(func(w *solo) []jetstream.StreamPurgeOpt {
			return []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject("nimble." + w.name + ".contact.updated." + w.edited)}
		}),
		"purge that keeps some": purge(func(*solo) []jetstream.StreamPurgeOpt {
			return []jetstream.StreamPurgeOpt{jetstream.WithPurgeKeep(5)}
		}),
		"the last message of all removed": func(w *solo) {
			w.must(w.stream().DeleteMsg(w.ctx, w.stream().CachedInfo().State.LastSeq))
		},
	}
	s := startModelServer(t)
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarted at once %t", name, restarted), func(t *testing.T) {
				w := newSolo(t, s)
				w.edit(w.edited, "first", 1) // So that the contact has two events.
				w.read()
				tests[name](w)
				if restarted {
					w.drop(0)
				}
				w.publishes(0)
				w.edit(w.edited, "second", 1)
				w.edit(w.edited, "third", 1)
				for _, id := range w.account.IDs()[3:8] { // Several go as a batch.
					w.account.Edit(id, nimbletest.Field("title", "with others"))
				}
				w.publishes(5)
				w.account.Delete(w.account.IDs()[9])
				w.publishes(1)
				w.drop(0)
				w.publishes(0)
				w.edit(w.edited, "fourth", 1)
				w.publishes(0)
				w.agrees()
			})
		}
	}
}
