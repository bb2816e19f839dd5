package publisher_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

func openReader(t *testing.T, conn *publisher.Connection) *publisher.Reader {
	t.Helper()
	r, err := publisher.OpenReader(t.Context(), conn, config(), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReaderOfNothing(t *testing.T) {
	srv := startServer(t)
	conn := connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})
	r := openReader(t, conn)
	if err := r.Load(t.Context(), func(k poller.Known) { t.Errorf("knows %v", k) }); err != nil {
		t.Error(err)
	}
	if progress, err := r.Progress(t.Context()); err != nil || progress != (poller.Progress{}) {
		t.Errorf("progress %+v, %v; want none", progress, err)
	}
	if _, err := r.Last(t.Context(), poller.Known{ID: "a1", Sequence: 1}); !errors.Is(err, poller.ErrNotRecorded) {
		t.Errorf("last event: %v, want ErrNotRecorded", err)
	}
	js, err := jetstream.New(conn.NATS())
	if err != nil {
		t.Fatal(err)
	}
	for name := range js.StreamNames(t.Context()).Name() {
		t.Errorf("reading made stream %s", name)
	}
}

func TestReaderReadsWhatIsThere(t *testing.T) {
	srv := startServer(t)
	conn := connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})
	p := open(t, srv)
	first := changeOf(poller.Snapshot, "a1", 1, 0)
	at := appendAll(t, p, first, changeOf(poller.Snapshot, "a2", 1, 0))
	saved := poller.Progress{FirstMet: epoch, Settled: epoch.Add(time.Hour)}
	if err := p.SaveProgress(t.Context(), saved); err != nil {
		t.Fatal(err)
	}
	js := p.JetStream()
	tests := []struct {
		name string
		// lose is a stream that is gone.
		lose     string
		known    int
		progress func(poller.Progress) bool
	}{
		{"all of it", "", 2, func(got poller.Progress) bool { return got == saved }},
		{"without the state", "KV_nimble-bridge", 2, func(got poller.Progress) bool { return !got.FirstMet.IsZero() && got.Settled.IsZero() }},
		{"without the bucket", "KV_nimble-contacts", 2, func(got poller.Progress) bool { return !got.FirstMet.IsZero() }},
		{"without anything", "NIMBLE", 0, func(got poller.Progress) bool { return got.FirstMet.IsZero() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.lose != "" {
				if err := js.DeleteStream(context.Background(), tt.lose); err != nil {
					t.Fatal(err)
				}
			}
			r := openReader(t, conn)
			known := make(map[string]poller.Known)
			if err := r.Load(t.Context(), func(k poller.Known) { known[k.ID] = k }); err != nil || len(known) != tt.known {
				t.Errorf("knows %v, %v; want %d contacts", known, err, tt.known)
			}
			if progress, err := r.Progress(t.Context()); err != nil || !tt.progress(progress) {
				t.Errorf("progress %+v, %v", progress, err)
			}
			if tt.known == 0 {
				return
			}
			if known["a1"].Sequence != at[0] || known["a1"].Revision != 1 {
				t.Errorf("knows %+v", known["a1"])
			}
			raw, err := r.Last(t.Context(), known["a1"])
			if diff := cmp.Diff(string(first.Contact.Raw), string(raw)); diff != "" || err != nil {
				t.Errorf("last event %v (-want +got):\n%s", err, diff)
			}
		})
	}
}
