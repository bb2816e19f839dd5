package publisher_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
)

func TestEraseLeavesNothingOfThePerson(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	appendAll(t, p, changeOf(poller.Updated, "a1", 2, 1))
	for _, id := range []string{"a1", "b2"} {
		if err := p.Reject(t.Context(), []poller.Rejection{{ContactID: id, Reason: "no object", Record: []byte(`"Ines of ` + id + `"`), Observed: epoch}}); err != nil {
			t.Fatal(err)
		}
	}
	running := open(t, srv) // A bridge that knows the contact from before.
	before := load(t, running)

	got, err := open(t, srv).Erase(t.Context(), "a1", poller.NotFound)
	if err != nil {
		t.Fatal(err)
	}
	if want := (publisher.Erasure{Sequence: 6, Revision: 3, Removed: 3}); got != want {
		t.Errorf("erasure %+v, want %+v", got, want)
	}
	for _, stream := range []string{"NIMBLE", "KV_nimble-contacts"} {
		for _, m := range messages(t, p.JetStream(), stream) {
			text := string(m.Data)
			if strings.Contains(text, "a1") && strings.Contains(text, "Ines") {
				t.Errorf("stream %s still has %s: %s", stream, m.Subject, text)
			}
		}
	}
	left := messages(t, p.JetStream(), "NIMBLE")
	ev, err := event.Decode(left[len(left)-1].Data)
	if err != nil {
		t.Fatal(err)
	}
	if d := ev.Data; ev.Verb() != event.Deleted || !d.Erased || d.Reason != "not_found" || d.Revision != 3 || string(d.Contact) != `{"id":"a1","record_type":"person"}` || d.Summary.Name != "" {
		t.Errorf("what is left: %s", left[len(left)-1].Data)
	}
	kv, err := p.JetStream().KeyValue(t.Context(), "nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	if history, err := kv.History(t.Context(), "acme.a1"); err != nil || len(history) != 1 || history[0].Operation() != jetstream.KeyValueDelete {
		t.Errorf("the key: %v, %v, want it deleted", history, err)
	}
	if len(left) != 3 { // The other contact's event and notice, and what is left of this one.
		t.Errorf("%d messages, want 3", len(left))
	}

	// Once more does nothing more.
	again, err := open(t, srv).Erase(t.Context(), "a1", "")
	if err != nil || again.Sequence != 6 || again.Removed != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	// The running bridge finds out, and goes on.
	k := before["a1"]
	if _, err := running.Append(t.Context(), []poller.Change{changeOf(poller.Updated, "a1", k.Revision+1, k.Sequence)}); !errors.Is(err, poller.ErrConflict) {
		t.Errorf("an append after what was erased: %v, want a conflict", err)
	}
	after := load(t, running)["a1"]
	if diff := cmp.Diff([]any{uint64(3), uint64(6), true}, []any{after.Revision, after.Sequence, after.Deleted}); diff != "" {
		t.Error(diff)
	}
	c := changeOf(poller.Created, "a1", 4, 6)
	c.Restored = true
	appendAll(t, running, c)
}

func TestEraseFinishesWhatWasInterrupted(t *testing.T) {
	srv := startServer(t)
	p := open(t, srv)
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0))
	if _, err := p.Erase(t.Context(), "a1", ""); err != nil {
		t.Fatal(err)
	}
	// As if the process had died before the removal: something earlier is still there.
	srv2 := startServer(t)
	q := open(t, srv2)
	appendAll(t, q, changeOf(poller.Snapshot, "a1", 1, 0))
	left := messages(t, p.JetStream(), "NIMBLE")[0]
	msg := left.Header
	msg.Del("Nats-Expected-Last-Subject-Sequence")
	msg.Del("Nats-Expected-Last-Subject-Sequence-Subject")
	if _, err := q.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: left.Subject, Header: msg, Data: left.Data}); err != nil {
		t.Fatal(err)
	}
	got, err := q.Erase(t.Context(), "a1", "")
	if err != nil || got.Removed != 1 || got.Revision != 2 {
		t.Errorf("erasure %+v, %v, want the snapshot removed", got, err)
	}
	if n := len(messages(t, q.JetStream(), "NIMBLE")); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestEraseOfAStranger(t *testing.T) {
	p := open(t, startServer(t))
	_, err := p.Erase(t.Context(), "nobody", poller.NotFound)
	if known, ok := errors.AsType[*publisher.NothingKnownError](err); !ok || known.ContactID != "nobody" {
		t.Errorf("error %v, want that nothing is known", err)
	}
	if _, err := p.Erase(t.Context(), "a.*", poller.NotFound); err == nil {
		t.Error("an id with wildcards was taken")
	}
}

func TestReceiptIsStored(t *testing.T) {
	p := open(t, startServer(t))
	r := poller.Receipt{At: epoch, Contacts: 25000, Differences: 3, Requests: 41, Method: poller.ByCount, Since: epoch.Add(-15 * 60e9)}
	for range 2 { // As after a lost answer.
		if err := p.Receipt(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	all := messages(t, p.JetStream(), "NIMBLE")
	if len(all) != 1 || all[0].Subject != "nimble.acme.bridge.reconciled" {
		t.Fatalf("messages %v, want one receipt", all)
	}
	got, err := event.DecodeReconciled(all[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	want := event.ReconciledData{Contacts: 25000, DifferencesFound: 3, Requests: 41, Method: "count", Since: r.Since}
	if diff := cmp.Diff(want, got.Data); diff != "" || !got.Time.Equal(epoch) {
		t.Error(diff, got.Time)
	}
}
