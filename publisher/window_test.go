package publisher_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nimble-bridge/poller"
)

// TestRestartLaterThanTheDuplicateWindow appends the same again when the server has long forgotten the ids of the messages, as a bridge does that was killed before it got the
// acknowledgement and is started the next day.
func TestRestartLaterThanTheDuplicateWindow(t *testing.T) {
	srv := startServer(t)
	p, again := open(t, srv), open(t, srv)
	js := p.JetStream()
	stream, err := js.Stream(t.Context(), "NIMBLE")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.Duplicates = 100 * time.Millisecond // The least that NATS takes.
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	changes := []poller.Change{changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0), changeOf(poller.Created, "c3", 1, 0)}
	want := appendAll(t, p, changes...)
	stored := time.Now()
	eventually(t, "the duplicate window to pass", func() bool { return time.Since(stored) > 3*cfg.Duplicates })

	for _, part := range [][]poller.Change{changes, changes[:1]} { // As a batch, and as a single message.
		if diff := cmp.Diff(want[:len(part)], appendAll(t, again, part...)); diff != "" {
			t.Errorf("sequences of %d events appended again (-first +again):\n%s", len(part), diff)
		}
	}
	if n := len(messages(t, js, "NIMBLE")); n != len(changes) {
		t.Errorf("the stream has %d messages, want %d", n, len(changes))
	}
}
