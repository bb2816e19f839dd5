package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

var update = flag.Bool("update", false, "write the configuration table into the README")

// setenv replaces everything in the environment that the program looks at.
func setenv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, name := range variables() {
		t.Setenv(name, "") // So that it is restored.
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

func TestDefaults(t *testing.T) {
	setenv(t, map[string]string{"NIMBLE_API_KEY": "k"})
	got, err := readConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := &config{
		APIKey: "k", BaseURL: "https://app.nimble.com", RateLimit: 5, Timeout: 30 * time.Second, PerPage: 100,
		Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Replicas: 1, MaxBytes: -1, Manage: true,
		EmbeddedDir: "nimble-bridge-data", EmbeddedAddr: "127.0.0.1:4222",
		Interval: 10 * time.Second, Overlap: 2 * time.Minute, Reconcile: 15 * time.Minute, DeleteLimit: deleteLimit{20, 0.05},
		HTTPAddr: "127.0.0.1:8080", LogLevel: logLevel(zap.InfoLevel), LogFormat: "auto",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(deleteLimit{})); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestEmptyVariableIsTheDefault(t *testing.T) {
	env := map[string]string{}
	for _, name := range variables() {
		env[name] = ""
	}
	env["NIMBLE_API_KEY"] = "k"
	setenv(t, env)
	got, err := readConfig()
	if err != nil {
		t.Fatal(err)
	}
	if got.Interval != 10*time.Second || got.Stream != "NIMBLE" || !got.Manage {
		t.Errorf("got %+v, want the defaults", got)
	}
	if got.HTTPAddr != "" {
		t.Errorf("HTTP_ADDR = %q, want nothing: there, empty has a meaning", got.HTTPAddr)
	}
}

func TestValues(t *testing.T) {
	tests := []struct {
		name, value string
		got         func(*config) any
		want        any
	}{
		{"NATS_URL", "nats://a:1, tls://b", func(c *config) any { return c.NATSURL }, natsURLs{"nats://a:1", "tls://b"}},
		{"NATS_URL", "localhost:4222", func(c *config) any { return c.NATSURL }, natsURLs{"nats://localhost:4222"}},
		{"DELETE_LIMIT", "5%", func(c *config) any { return c.DeleteLimit }, deleteLimit{share: 0.05}},
		{"DELETE_LIMIT", "0", func(c *config) any { return c.DeleteLimit }, deleteLimit{}},
		{"DELETE_LIMIT", "2.5%, 7", func(c *config) any { return c.DeleteLimit }, deleteLimit{7, 0.025}},
		{"RECONCILE_INTERVAL", "0", func(c *config) any { return c.Reconcile }, time.Duration(0)},
		{"NATS_SUBJECT_PREFIX", "crm.nimble", func(c *config) any { return c.Prefix }, "crm.nimble"},
		{"LOG_LEVEL", "WARN", func(c *config) any { return c.LogLevel }, logLevel(zap.WarnLevel)},
		{"HTTP_ADDR", ":9090", func(c *config) any { return c.HTTPAddr }, ":9090"},
		{"EMBEDDED_NATS_ADDR", "[::1]:0", func(c *config) any { return c.EmbeddedAddr }, "[::1]:0"},
		{"NATS_MANAGE", "0", func(c *config) any { return c.Manage }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			setenv(t, map[string]string{"NIMBLE_API_KEY": "k", tt.name: tt.value})
			c, err := readConfig()
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.got(c); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
		})
	}
}

func TestSecretFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(" first\n")
	setenv(t, map[string]string{"NIMBLE_API_KEY_FILE": path})
	c, err := readConfig()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.key(); got != "first" || err != nil {
		t.Errorf("key() = %q, %v, want %q", got, err, "first")
	}
	write("second")
	if got, err := c.key(); got != "second" || err != nil {
		t.Errorf("key() after the file changed = %q, %v, want %q", got, err, "second")
	}
	write("")
	if got, err := c.key(); err == nil {
		t.Errorf("key() of an empty file = %q, want an error", got)
	}
}

func TestMisspelt(t *testing.T) {
	got := misspelt([]string{
		"NIMBLE_APIKEY=k", "NIMBLE_COLOUR=red", "NATS_URLS=x", "POL_INTERVAL=1s", "NIMBLE_API_KEY=k", "PATH=/bin", "LOG=1", "HOME=/",
		"NATS_SERVICE_HOST=10.0.0.1", "NATS_PORT=tcp://10.0.0.1:4222", "NATS_PORT_4222_TCP=x", "NIMBLE_BRIDGE_SERVICE_PORT_HTTP=8080", "HTTP_PROXY=x",
	})
	want := map[string]string{"NIMBLE_APIKEY": "NIMBLE_API_KEY", "NIMBLE_COLOUR": "", "NATS_URLS": "NATS_URL", "POL_INTERVAL": "POLL_INTERVAL"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("misspelt (-want +got):\n%s", diff)
	}
}

// TestReadmeTable holds the README's table of variables against the struct. Run it with -update to write the table.
func TestReadmeTable(t *testing.T) {
	var table strings.Builder
	table.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for field := range reflect.TypeFor[config]().Fields() {
		value := field.Tag.Get("default")
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", field.Tag.Get("envconfig"), value, field.Tag.Get("desc"))
	}
	const path = "../../README.md"
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- variables -->\n", "<!-- /variables -->\n"
	before, rest, ok1 := bytes.Cut(readme, []byte(begin))
	got, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok1 || !ok2 {
		t.Fatalf("the README has no %q … %q", begin, end)
	}
	if *update {
		content := string(before) + begin + table.String() + end + string(after)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table.String(), string(got)); diff != "" {
		t.Errorf("README's table of variables (-struct +README); go test -run Readme -update writes it:\n%s", diff)
	}
}
