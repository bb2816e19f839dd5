package main

import (
	"net"
	"strings"
	"testing"

	"nimble-bridge/nimble/nimbletest"
)

func TestHealthcheck(t *testing.T) {
	nimble, server := startNimble(t, nimbletest.WithContacts(3)), startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL())
	r := start(t)
	url := r.url(t)
	awaitReadiness(t, url, "")
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, addr string, wantCode int, want string, args ...string) {
		t.Helper()
		setenv(t, map[string]string{"HTTP_ADDR": addr}) // And nothing else, as beside a bridge in its container.
		code, stdout, stderr := runProgram(t.Context(), append([]string{"healthcheck"}, args...)...)
		if code != wantCode || !strings.Contains(stdout+stderr, want) {
			t.Errorf("exit code %d, stdout %q, stderr %q; want %d and %q", code, stdout, stderr, wantCode, want)
		}
	}
	t.Run("alive", func(t *testing.T) { check(t, "127.0.0.1:"+port, 0, `"healthy": true`) })
	t.Run("alive, listening everywhere", func(t *testing.T) { check(t, "0.0.0.0:"+port, 0, `"healthy": true`) })
	t.Run("alive, listening everywhere without saying so", func(t *testing.T) { check(t, ":"+port, 0, `"healthy": true`) })
	t.Run("ready", func(t *testing.T) { check(t, "127.0.0.1:"+port, 0, `"ready": true`, "--ready") })

	nimble.RefuseKey(true)
	awaitReadiness(t, url, keyRefused)
	t.Run("not ready", func(t *testing.T) { check(t, "127.0.0.1:"+port, 1, "/readyz answers 503: {", "--ready") })
	t.Run("not ready names the reason", func(t *testing.T) { check(t, "127.0.0.1:"+port, 1, `"reason": "key_refused"`, "--ready") })
	t.Run("not ready is alive", func(t *testing.T) { check(t, "127.0.0.1:"+port, 0, `"healthy": true`) })

	r.finish(t)
	t.Run("gone", func(t *testing.T) { check(t, "127.0.0.1:"+port, 1, "the bridge does not answer") })
	t.Run("turned off", func(t *testing.T) { check(t, "", 2, "HTTP_ADDR is empty") })
	t.Run("no address", func(t *testing.T) { check(t, "8080", 2, `HTTP_ADDR is "8080"`) })
	t.Run("no use", func(t *testing.T) { check(t, "127.0.0.1:"+port, 2, "takes no argument", "now") })
}
