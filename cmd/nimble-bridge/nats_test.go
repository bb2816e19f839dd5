package main

import (
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestCommandsBesideTheBridgeNeedNoKey(t *testing.T) {
	setenv(t, map[string]string{"NATS_URL": "nats://127.0.0.1:1", "NIMBLE_API_KEY_FILE": "/nowhere/key"})
	if _, err := readClientConfig(); err != nil {
		t.Errorf("without a key: %v", err)
	}
	setenv(t, map[string]string{"NATS_URL": "http://127.0.0.1:1", "POLL_INTERVAL": "ten"})
	_, err := readClientConfig()
	if err == nil || !strings.Contains(err.Error(), "NATS_URL") || !strings.Contains(err.Error(), "POLL_INTERVAL") || strings.Contains(err.Error(), "API_KEY") {
		t.Errorf("with two wrong values: %v, want both named and no key missed", err)
	}
}

func TestDialReachesTheEmbeddedServer(t *testing.T) {
	server := startNATS(t, "127.0.0.1:0")
	addr := strings.TrimPrefix(server.URL(), "nats://")
	_, port, _ := strings.Cut(addr, ":")
	for _, given := range []string{addr, "0.0.0.0:" + port, ":" + port, "[::]:" + port} {
		conn, err := (&config{EmbeddedAddr: given}).dial(t.Context(), "test", zap.NewNop())
		if err != nil {
			t.Errorf("at %s: %v", given, err)
			continue
		}
		conn.Close()
	}
}

func TestDialSaysThatNoBridgeRuns(t *testing.T) {
	ctx := t.Context()
	_, err := (&config{EmbeddedAddr: freeAddress(t)}).dial(ctx, "test", zap.NewNop())
	if err == nil || !strings.Contains(err.Error(), "no bridge with an embedded") {
		t.Errorf("dial = %v, want that no bridge answers", err)
	}
}
