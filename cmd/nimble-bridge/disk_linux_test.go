package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"nimble-bridge/nimble/nimbletest"
)

// smallDisk mounts a file system of 24 MiB, most of which a file takes up; the returned function removes that file.
func smallDisk(t *testing.T) (dir string, free func()) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no disk that can be filled: mounting one fails with %v; run the test as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 22<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		t.Helper()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk fills the disk under a server, and makes room again. Such a server has to be started anew, unless it is the embedded one.
func TestFullDisk(t *testing.T) {
	for name, embedded := range map[string]bool{"of a server": false, "of the embedded server": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, free := smallDisk(t)
			account := startNimble(t, nimbletest.WithContacts(1000))
			var server *natsServer
			var b *runningBridge
			var url string
			if embedded {
				b = launchBridge(t, account, "EMBEDDED_NATS_DIR="+filepath.Join(dir, "nats"), "EMBEDDED_NATS_ADDR=127.0.0.1:0")
				url = b.writes(t, `"msg":"embedded NATS server runs","url":"([^"]+)"`)
			} else {
				server = startServer(t, filepath.Join(dir, "nats"), func(o *natsserver.Options) { o.JetStreamMaxStore = 1 << 30 })
				url = server.url()
				b = launchBridge(t, account, "NATS_URL="+url)
			}
			want, says := natsFails, "full disk"
			if embedded {
				want, says = streamFull, dir
			}
			soon(t, "/readyz says what to do", func() bool {
				return strings.Contains(awaitReadiness(t, b.url, want).Message, says)
			})
			free()
			if server != nil {
				server.restart(nil)
			}
			within(t, patience, agree(url, account.Account))
			awaitReadiness(t, b.url, "")
		})
	}
}
