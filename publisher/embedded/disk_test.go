package embedded_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/embedded/smalldisk"
)

// publish stores a message; the server does not answer when it cannot.
func publish(t *testing.T, js jetstream.JetStream, size int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := js.Publish(ctx, "s", make([]byte, size), jetstream.WithRetryAttempts(0))
	return err
}

// TestAStreamThatTakesNothingMore fills the disk under a stream. The server has JetStream still, and the stream is lost to it until it is started again.
func TestAStreamThatTakesNothingMore(t *testing.T) {
	for name, whole := range map[string]bool{"the whole disk is full": true, "there is room elsewhere": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			small := dir
			if !whole {
				small = filepath.Join(dir, "jetstream", "$G", "streams", "S", "msgs")
			}
			disk := smalldisk.Under(t, small, 24<<20)
			srv := start(t, embedded.Options{Dir: dir})
			js := client(t, srv)
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
				t.Fatal(err)
			}
			if err := publish(t, js, 1000); err != nil {
				t.Fatal(err)
			}
			if err := srv.Check(); err != nil {
				t.Fatalf("before the disk is full: %v", err)
			}
			disk.Fill(t, 64<<10)
			if err := publish(t, js, 100_000); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("publishing on a full disk: %v, want no answer", err)
			}
			select {
			case <-srv.Failed():
			case <-time.After(time.Minute):
				t.Fatal("nobody is told of the failure")
			}
			stopped, ok := errors.AsType[*embedded.StoppedError](srv.Check())
			if !ok || !stopped.NoSpace || stopped.Full() != whole || !strings.Contains(stopped.Error(), dir) {
				t.Errorf("the server says %v of the full disk", srv.Check())
			}
			disk.Clear(t)
			if err := publish(t, js, 1000); err == nil {
				t.Error("the stream takes messages again without a restart")
			}
			stopped, ok = errors.AsType[*embedded.StoppedError](srv.Check())
			if !ok || stopped.Full() {
				t.Errorf("the server says %v once there is room, want that it needs a restart", srv.Check())
			}
			if err := srv.Restart(); err != nil {
				t.Fatal(err)
			}
			if err := srv.Check(); err != nil {
				t.Errorf("after the restart: %v", err)
			}
			if err := publish(t, client(t, srv), 100_000); err != nil {
				t.Errorf("after the restart: %v", err)
			}
		})
	}
}

// TestFullDiskThatStopsNothing has the server fail at what it lays aside for an atomic batch. It needs no restart, only room.
func TestFullDiskThatStopsNothing(t *testing.T) {
	dir := t.TempDir()
	disk := smalldisk.Under(t, dir, 24<<20)
	srv := start(t, embedded.Options{Dir: dir})
	js := client(t, srv)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, AllowAtomicPublish: true}); err != nil {
		t.Fatal(err)
	}
	disk.Fill(t, 64<<10)
	for i, id := range []string{"1", "2"} {
		msg := &nats.Msg{Subject: "s", Data: make([]byte, 100_000), Header: nats.Header{"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {id}}}
		if i == 1 {
			msg.Header.Set("Nats-Batch-Commit", "1")
		}
		if err := js.Conn().PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-srv.Failed():
	case <-time.After(time.Minute):
		t.Fatal("nobody is told of the failure")
	}
	stopped, ok := errors.AsType[*embedded.StoppedError](srv.Check())
	if !ok || !stopped.Full() || stopped.Err != nil {
		t.Errorf("the server says %v, want that the disk is full and no more", srv.Check())
	}
	disk.Clear(t)
	if err := srv.Check(); err != nil {
		t.Errorf("once there is room: %v", err)
	}
	if err := publish(t, js, 100_000); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// TestFullDiskAtTheStart has no room for the first stream.
func TestFullDiskAtTheStart(t *testing.T) {
	dir := t.TempDir()
	disk := smalldisk.Under(t, dir, 24<<20)
	srv := start(t, embedded.Options{Dir: dir})
	js := client(t, srv)
	disk.Fill(t, 0)
	cfg := jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}
	if _, err := js.CreateStream(t.Context(), cfg); err == nil {
		t.Fatal("a stream was made on a full disk")
	}
	if stopped, ok := errors.AsType[*embedded.StoppedError](srv.Check()); !ok || !stopped.Full() {
		t.Errorf("the server says %v, want that the disk is full", srv.Check())
	}
	disk.Clear(t)
	if err := srv.Check(); err != nil {
		t.Errorf("once there is room: %v", err)
	}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}
