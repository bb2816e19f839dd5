package publisher_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
)

func TestFailFastDoesNotWaitForAServer(t *testing.T) {
	guarded := rawServer(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port, o.Username, o.Password = false, "127.0.0.1", natsserver.RANDOM_PORT, "bridge", "hush"
	})
	tests := []struct{ name, url, want string }{
		{"nobody listens", "nats://me:hush@127.0.0.1:1", "NATS is not reachable at nats://127.0.0.1:1: "},
		{"wrong password", "nats://bridge:wrong@" + guarded.Addr().String(), "check NATS_CREDS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := publisher.Connect(t.Context(), publisher.ConnectConfig{URLs: []string{tt.url}, FailFast: true}, zap.NewNop())
			if err == nil {
				conn.Close()
				t.Fatal("connected")
			}
			if _, ok := errors.AsType[*publisher.UnreachableError](err); !ok || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("Connect = %T %v, want an UnreachableError with %q and no password", err, err, tt.want)
			}
		})
	}
}

func TestAskCollectsAllAnswers(t *testing.T) {
	srv := startServer(t)
	conn := connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})
	if _, err := conn.Ask(t.Context(), "who", nil, time.Minute, time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("nobody: %v, want ErrNoResponders", err)
	}
	nc, err := srv.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := nc.Subscribe("who", func(msg *nats.Msg) { _ = msg.Respond([]byte(name + string(msg.Data))) }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Subscribe("mute", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	answers, err := conn.Ask(t.Context(), "who", []byte("!"), time.Minute, time.Second)
	var got []string
	for _, msg := range answers {
		got = append(got, string(msg.Data))
	}
	slices.Sort(got)
	if want := []string{"a!", "b!", "c!"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("answers %v, %v; want %v", got, err, want)
	}
	if msg, err := conn.AskOne(t.Context(), "who", nil, time.Minute); err != nil || len(msg.Data) != 1 {
		t.Errorf("one answer: %v, %v", msg, err)
	}
	if _, err := conn.AskOne(t.Context(), "mute", nil, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("somebody who does not answer: %v, want that time is up", err)
	}
}
