//go:build unix

package consumer_test

import (
	"context"
	"io"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

// A whole process is stopped, as a debugger, a full machine or a laptop's lid does, while an event waits in it. Another one handles the event and the next. When the process goes on, the first
// thing that it does may be the sign of life that was due long ago.
func TestProcessThatWasStopped(t *testing.T) {
	t.Parallel()
	w := newWorldAt(t, "127.0.0.1:0")
	signs := w.watchSigns(t, "test")
	var d diary
	first := startProcess(t, w.srv.URL(), &d)
	w.publish("a", event.Created)
	eventually(t, "the process is active", func() bool { return d.len() == 1 })
	w.idle("test")
	slow := w.publish("slow", event.Created)
	eventually(t, "the process is busy", func() bool { return first.has("slow 1") })
	signs.awaitMore(w.publish("a", event.Updated, "tags"), 1) // Now the event is in the process.

	if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second := consume(t, w.connect(), quick(func(c *consumer.Config) { c.Concurrency = 1 }), func(_ context.Context, m *consumer.Delivery) error {
		if m.Event.Subject != "slow" {
			d.note(m)
		}
		return nil
	})
	w.publish("a", event.Updated, "tags")
	eventually(t, "the second one handles both", func() bool { return d.len() >= 3 })
	w.idle("test")

	if err := first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	signs.awaitMore(slow, 2)
	if _, err := io.WriteString(first.in, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	w.publish("a", event.Updated, "tags")
	eventually(t, "the process has its place again", func() bool { return first.has("a 4") })
	if diff := cmp.Diff([]uint64{1, 2, 3, 4}, d.of("a")); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
	w.idle("test")
}
