package publisher_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

func TestCheckUpSetsUpAgainWhatPeopleBroke(t *testing.T) {
	srv := startServer(t)
	managed, unmanaged := open(t, srv), open(t, srv, func(c *publisher.Config) { c.Manage = false })
	js := managed.JetStream()
	appendAll(t, managed, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	bucketHas(t, js, 2)
	remove := func(name string) {
		t.Helper()
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	change := func(name string, change func(*jetstream.StreamConfig)) {
		t.Helper()
		cfg := streamConfig(t, js, name)
		change(&cfg)
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name    string
		spoil   func()
		missing bool
	}{
		{"the bucket is deleted", func() { remove("KV_nimble-contacts") }, true},
		{"the state is deleted", func() { remove("KV_nimble-bridge") }, true},
		{"the stream is deleted", func() { remove("NIMBLE") }, true},
		{"the stream takes no batches", func() { change("NIMBLE", func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false }) }, false},
		{"the bucket has no source", func() { change("KV_nimble-contacts", func(c *jetstream.StreamConfig) { c.Sources = nil }) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := unmanaged.CheckUp(t.Context()); err != nil {
				t.Fatalf("before: %v", err)
			}
			tt.spoil()
			err := unmanaged.CheckUp(t.Context())
			_, missing := errors.AsType[*publisher.MissingError](err)
			_, unfit := errors.AsType[*publisher.UnfitError](err)
			if missing != tt.missing || unfit == tt.missing {
				t.Errorf("unmanaged: error %v", err)
			}
			if err := managed.CheckUp(t.Context()); err != nil {
				t.Errorf("managed: %v", err)
			}
			if err := unmanaged.CheckUp(t.Context()); err != nil {
				t.Errorf("after: %v", err)
			}
			bucketHas(t, js, 2)
		})
	}
	// All the same everything is there, and goes on.
	p := open(t, srv)
	for id, k := range load(t, p) {
		appendAll(t, p, changeOf(poller.Updated, id, k.Revision+1, k.Sequence))
	}
	if got := len(messages(t, js, "NIMBLE")); got != 4 {
		t.Errorf("%d events in the stream, want the last one of each contact and its update", got)
	}
}

func TestCheckUpLeavesAloneWhatFits(t *testing.T) {
	p := open(t, startServer(t))
	js := p.JetStream()
	cfg := streamConfig(t, js, "NIMBLE")
	cfg.MaxBytes, cfg.Description = 1<<30, "larger, since it was full"
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cfg, streamConfig(t, js, "NIMBLE")); diff != "" {
		t.Error(diff)
	}
}
