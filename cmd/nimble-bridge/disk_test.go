package main

import (
	"context"
	"flag"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/embedded/smalldisk"
)

var diskStores = flag.Bool("disk.stores", false, "in TestFullDisk, fill what is under each thing that a server writes as well")

// TestFullDisk fills the disk under a server while the bridge publishes to it, and makes room again: the whole disk, or only what is under one of the things that a server
// writes, since what the server does depends on which of them meets the end first. A server of its own is then started again by its operator, the embedded one sees to itself.
func TestFullDisk(t *testing.T) {
	stores := map[string]string{
		"the whole disk":           "",
		"under the stream":         "NIMBLE/msgs",
		"under its atomic batches": "NIMBLE/batches",
		"under the bucket":         "KV_nimble-contacts/msgs",
		"under the state":          "KV_nimble-bridge/msgs",
	}
	for name, store := range stores {
		if store != "" && !*diskStores {
			continue
		}
		t.Run("of the embedded server, "+name, func(t *testing.T) { t.Parallel(); testFullDisk(t, store, true) })
		t.Run("of a server, "+name, func(t *testing.T) { t.Parallel(); testFullDisk(t, store, false) })
	}
}

func testFullDisk(t *testing.T, store string, embedded bool) {
	const contacts, edited = 300, 250
	account := startNimble(t, nimbletest.WithContacts(contacts))
	dir, addr := filepath.Join(t.TempDir(), "nats"), freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	url := "nats://" + addr
	where := "NATS_URL=" + url
	if embedded {
		where = "EMBEDDED_NATS_DIR=" + dir
	}
	var server *process
	startServer := func() {
		if !embedded {
			server = launch(t, buildProgram(t, serverPackage), nil, "-js", "-sd", dir, "-a", "127.0.0.1", "-p", port)
		}
	}
	startBridge := func() *runningBridge { return launchBridge(t, account, where, "EMBEDDED_NATS_ADDR="+addr) }

	startServer()
	b := startBridge()
	within(t, patience, agree(url, account.Account))
	b.stop(t)
	if !embedded {
		server.stop(t)
	}
	small := dir
	if store != "" {
		small = filepath.Join(dir, "jetstream", "$G", "streams", store)
	}
	disk := smalldisk.Under(t, small, 24<<20)
	startServer()
	b = startBridge()
	awaitReadiness(t, b.url, "")

	left := 40 << 10 // So that some events fit, and the rest does not.
	if store == "KV_nimble-bridge/msgs" {
		left = 0 // What is written there is small.
	}
	disk.Fill(t, left)
	began := time.Now()
	for _, id := range account.IDs()[:edited] {
		account.Edit(id, nimbletest.Field("title", "edited"))
	}
	var got readiness
	soon(t, "/readyz tells of it", func() bool {
		got = readinessOf(t, b.url)
		return got.Reason == streamFull || got.Reason == natsFails && (!embedded || store != "")
	})
	reported := time.Since(began)
	if embedded && store == "" && !strings.Contains(got.Message, "the disk of EMBEDDED_NATS_DIR, which is "+dir+", is full") {
		t.Errorf("/readyz answers %q; want that the disk with %s is full", got.Message, dir)
	}
	if !embedded && !strings.Contains(got.Message, "its log tells whether a full disk made it stop") {
		t.Errorf("/readyz answers %q; want where to look", got.Message)
	}
	soon(t, "the log tells of it", func() bool {
		return regexp.MustCompile(`"level":"(error|warn)".*(full|no space left)`).MatchString(b.output(t))
	})
	account.Create() // What happens meanwhile waits in Nimble.

	disk.Clear(t)
	began = time.Now()
	if !embedded {
		server.stop(t)
		startServer()
	}
	within(t, patience, func(ctx context.Context) error {
		// Whoever reads when the embedded server is restarted waits in vain.
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return agree(url, account.Account)(limited)
	})
	agreed := time.Since(began)
	awaitReadiness(t, b.url, "")
	t.Logf("reported after %v as %s; all published and in the bucket %v after there was room, ready after %v", reported.Round(time.Millisecond), got.Reason,
		agreed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if code := b.stop(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
}
