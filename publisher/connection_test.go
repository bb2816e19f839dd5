package publisher_test

import (
	"errors"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
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
