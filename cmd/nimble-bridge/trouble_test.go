package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nimble-bridge/nimble/nimbletest"
)

// The tests of this file let go wrong, around the program as it runs for its users, what can go wrong, and see it mended.

// runningBridge is a bridge that runs as a process of its own, so that these tests can wait side by side.
type runningBridge struct {
	*process
	url string
}

// launchBridge starts a bridge; more adds to its environment or replaces it.
func launchBridge(t *testing.T, account *nimbletest.Server, more ...string) *runningBridge {
	t.Helper()
	p := launch(t, buildProgram(t, bridgePackage), bridgeEnv(account, "127.0.0.1:0", more...))
	return &runningBridge{p, p.writes(t, `"msg":"serving health, metrics and status","url":"([^"]+)"`)}
}

// output is what the process has written so far.
func (p *process) output(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writes waits until the process has written what matches, and returns the last group.
func (p *process) writes(t *testing.T, pattern string) (group string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	soon(t, "the program writes "+pattern, func() bool {
		found := re.FindStringSubmatch(p.output(t))
		if found == nil {
			return false
		}
		group = found[len(found)-1]
		return true
	})
	return group
}

// TestTheKeyIsRotated takes a key back while the bridge polls with it, and puts the new one into the key's file.
func TestTheKeyIsRotated(t *testing.T) {
	for name, given := range map[string]string{"account found by the key": "", "account given": "acme"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account, server := startNimble(t, nimbletest.WithContacts(3)), startNATS(t, "127.0.0.1:0")
			file := filepath.Join(t.TempDir(), "key")
			write := func(key string) {
				t.Helper()
				if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("secret-1")
			account.RotateKey("secret-0")
			b := launchBridge(t, account, "NIMBLE_API_KEY=", "NIMBLE_API_KEY_FILE="+file, "NIMBLE_ACCOUNT="+given, "NATS_URL="+server.URL())
			refused := func() {
				t.Helper()
				got := awaitReadiness(t, b.url, keyRefused)
				if !strings.Contains(got.Message, "API key refused: 403") {
					t.Errorf("message %q, want that the key is refused", got.Message)
				}
				if code, _ := get(t, b.url+"/healthz"); code != http.StatusOK {
					t.Errorf("/healthz answers %d while the bridge waits, want 200", code)
				}
				before := len(account.Requests())
				wait(t, 1500*time.Millisecond) // Thirty polls long.
				if n := len(account.Requests()) - before; n > 1 {
					t.Errorf("%d requests in one and a half seconds with a key that is refused: hammering", n)
				}
			}
			refused()
			account.RotateKey("secret-1")
			awaitReadiness(t, b.url, "")
			account.RotateKey("secret-2")
			refused()
			account.Create()
			write("secret-2")
			awaitReadiness(t, b.url, "")
			soon(t, "the contact added meanwhile is published", func() bool { return storedEvents(t, server.URL()) == 4 })
			log := b.output(t)
			if !strings.Contains(log, `"level":"error"`) {
				t.Error("the log has no error, but a person had to act")
			}
			if strings.Contains(log, "secret-") {
				t.Error("the log holds an API key")
			}
		})
	}
}
