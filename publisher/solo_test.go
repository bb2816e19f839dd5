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
	"nimble-bridge/publisher/streamtest"
)

// solo is one bridge that polls when the test says so, and all that it ever stored, whatever became of that since.
type solo struct {
	*world
	test     *testing.T
	ctx      context.Context
	js       jetstream.JetStream
	edited   string                        // One of the contacts.
	messages map[uint64]streamtest.Message // Whatever was ever stored.
}

func newSolo(t *testing.T, s *modelServer) *solo {
	t.Helper()
	w := &world{t: t, s: s, how: setting{Contacts: 20, Rung: "keyed"}, name: fmt.Sprintf("a%d", modelRun.Add(1)), initial: make(map[string]bool), had: make(map[string]bool)}
	w.clock.Store(int64(-5 * time.Minute))
	w.account = nimbletest.New(nimbletest.WithContacts(w.how.Contacts), nimbletest.WithClock(w.now))
	w.account.SetBehaviour(w.how.apply)
	o := &solo{world: w, test: t, ctx: t.Context(), edited: w.account.IDs()[17], messages: make(map[uint64]streamtest.Message)}
	nc := s.connect(t)
	var err error
	if o.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.drop(0)
		nc.Close()
		s.empty(t)
	})
	o.publishes(20)
	return o
}

func (o *solo) must(err error) {
	o.test.Helper()
	if err != nil {
		o.test.Fatal(err)
	}
}

func (o *solo) stream() jetstream.Stream {
	o.test.Helper()
	s, err := o.js.Stream(o.ctx, "NIMBLE")
	o.must(err)
	return s
}

// edit changes a contact and expects so many events.
func (o *solo) edit(id, title string, events int) {
	o.test.Helper()
	o.account.Edit(id, nimbletest.Field("title", title))
	o.publishes(events)
}

// publishes polls and reconciles, and expects so many events that were not there before.
func (o *solo) publishes(want int) {
	o.test.Helper()
	before := len(o.messages)
	o.must(o.bridge(0).p.Poll(o.ctx))
	_, err := o.bridge(0).p.Reconcile(o.ctx)
	o.must(err)
	o.read()
	if got := len(o.messages) - before; got != want {
		o.test.Errorf("%d events published, want %d", got, want)
	}
}

// read takes down what the stream has.
func (o *solo) read() {
	o.test.Helper()
	messages, err := streamtest.Read(o.ctx, o.js, "NIMBLE", "nimble", o.name)
	o.must(err)
	for _, m := range messages {
		o.messages[m.Sequence] = m
	}
}

// agrees holds all that was ever stored against the account.
func (o *solo) agrees() {
	o.test.Helper()
	var all []streamtest.Message
	for _, sequence := range slices.Sorted(maps.Keys(o.messages)) {
		all = append(all, o.messages[sequence])
	}
	contacts := make(map[string]jsontext.Value)
	for _, id := range o.account.IDs() {
		contacts[id], _ = o.account.Contact(id)
	}
	ctx, cancel := context.WithTimeout(o.ctx, patience)
	defer cancel()
	o.must(errors.Join(streamtest.CheckHistory(all), streamtest.CheckLatest(all, contacts), streamtest.CheckBucket(ctx, o.js, "nimble-contacts", o.name, all)))
}
