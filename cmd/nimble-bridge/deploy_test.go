package main

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

func TestDeployedServerConfiguration(t *testing.T) {
	opts, err := server.ProcessConfigFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !opts.JetStream || !opts.SyncAlways || opts.StoreDir == "" {
		t.Errorf("JetStream %v, sync always %v, store %q; want all three", opts.JetStream, opts.SyncAlways, opts.StoreDir)
	}
}
