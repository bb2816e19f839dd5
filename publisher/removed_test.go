package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/streamtest"
)

// TestLastEventRemovedUnderARunningBridge lets the age limit, or an operator, take contacts' last events out of the stream while a bridge polls. What is edited then is
// published once and follows what is gone, nothing else is published, and a bridge that is started later agrees. What ever stood in the stream is held against the
// account, as a consumer has it that was there all the time.
func TestLastEventRemovedUnderARunningBridge(t *testing.T) {
	purge := func(opts func(w *removal) []jetstream.StreamPurgeOpt) func(w *removal) {
		return func(w *removal) {
			w.must(w.stream().Purge(w.ctx, opts(w)...))
		}
	}
	tests := map[string]func(w *removal){
		"age limit": func(w *removal) {
			cfg := w.stream().CachedInfo().Config
			cfg.MaxAge, cfg.Duplicates = 100*time.Millisecond, 100*time.Millisecond
			_, err := w.js.UpdateStream(w.ctx, cfg)
			w.must(err)
			eventually(w.test, "the age limit", func() bool { return w.stream().CachedInfo().State.Msgs == 0 })
			cfg.MaxAge = 0
			_, err = w.js.UpdateStream(w.ctx, cfg)
			w.must(err)
		},
		"purge": purge(func(*removal) []jetstream.StreamPurgeOpt { return nil }),
		"purge of a contact": purge(func(w *removal) []jetstream.StreamPurgeOpt {
			return []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(event.ContactSubjects("nimble", w.name, w.edited))}
		}),
		"purge of the subject of the last event, an earlier one staying": purge(func(w *removal) []jetstream.StreamPurgeOpt {
			return []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject("nimble." + w.name + ".contact.updated." + w.edited)}
		}),
		"purge that keeps some": purge(func(*removal) []jetstream.StreamPurgeOpt {
			return []jetstream.StreamPurgeOpt{jetstream.WithPurgeKeep(5)}
		}),
		"the last message of all removed": func(w *removal) {
			w.must(w.stream().DeleteMsg(w.ctx, w.stream().CachedInfo().State.LastSeq))
		},
	}
	s := startModelServer(t)
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarted at once %t", name, restarted), func(t *testing.T) {
				w := newRemoval(t, s)
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

// removal is a bridge whose events are taken away.
type removal struct {
	*world
	test     *testing.T
	ctx      context.Context
	js       jetstream.JetStream
	edited   string
	messages map[uint64]streamtest.Message // Whatever was ever stored.
}

func newRemoval(t *testing.T, s *modelServer) *removal {
	t.Helper()
	w := &world{t: t, s: s, how: setting{Contacts: 20, Rung: "keyed"}, name: fmt.Sprintf("a%d", modelRun.Add(1)), initial: make(map[string]bool), had: make(map[string]bool)}
	w.clock.Store(int64(-5 * time.Minute))
	w.account = nimbletest.New(nimbletest.WithContacts(w.how.Contacts), nimbletest.WithClock(w.now))
	w.account.SetBehaviour(w.how.apply)
	r := &removal{world: w, test: t, ctx: t.Context(), edited: w.account.IDs()[17], messages: make(map[uint64]streamtest.Message)}
	nc := s.connect(t)
	var err error
	if r.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.drop(0)
		nc.Close()
		s.empty(t)
	})
	r.publishes(20)
	return r
}

func (r *removal) must(err error) {
	r.test.Helper()
	if err != nil {
		r.test.Fatal(err)
	}
}

func (r *removal) stream() jetstream.Stream {
	r.test.Helper()
	s, err := r.js.Stream(r.ctx, "NIMBLE")
	r.must(err)
	return s
}

// edit changes a contact and expects so many events.
func (r *removal) edit(id, title string, events int) {
	r.test.Helper()
	r.account.Edit(id, nimbletest.Field("title", title))
	r.publishes(events)
}

// publishes polls and reconciles, and expects so many events that were not there before.
func (r *removal) publishes(want int) {
	r.test.Helper()
	before := len(r.messages)
	r.must(r.bridge(0).p.Poll(r.ctx))
	_, err := r.bridge(0).p.Reconcile(r.ctx)
	r.must(err)
	r.read()
	if got := len(r.messages) - before; got != want {
		r.test.Errorf("%d events published, want %d", got, want)
	}
}

// read takes down what the stream has.
func (r *removal) read() {
	r.test.Helper()
	messages, err := streamtest.Read(r.ctx, r.js, "NIMBLE", "nimble", r.name)
	r.must(err)
	for _, m := range messages {
		r.messages[m.Sequence] = m
	}
}

// agrees holds all that was ever stored against the account.
func (r *removal) agrees() {
	r.test.Helper()
	var all []streamtest.Message
	for _, sequence := range slices.Sorted(maps.Keys(r.messages)) {
		all = append(all, r.messages[sequence])
	}
	contacts := make(map[string]jsontext.Value)
	for _, id := range r.account.IDs() {
		contacts[id], _ = r.account.Contact(id)
	}
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	r.must(errors.Join(streamtest.CheckHistory(all), streamtest.CheckLatest(all, contacts), streamtest.CheckBucket(ctx, r.js, "nimble-contacts", r.name, all)))
}
