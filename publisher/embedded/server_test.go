package embedded_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"nimble-bridge/publisher/dirlock"
	"nimble-bridge/publisher/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, opts embedded.Options) *embedded.Server {
	t.Helper()
	srv, err := embedded.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	return srv
}

func client(t *testing.T, srv *embedded.Server) jetstream.JetStream {
	t.Helper()
	nc, err := srv.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestStreamsSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "the", "server")
	srv := start(t, embedded.Options{Dir: dir})
	js := client(t, srv)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("x")); err != nil {
		t.Fatal(err)
	}
	srv.Shutdown()
	srv.Shutdown() // Does nothing more.

	s, err := client(t, start(t, embedded.Options{Dir: dir})).Stream(t.Context(), "S")
	if err != nil || s.CachedInfo().State.Msgs != 1 {
		t.Errorf("after the restart: %v", err)
	}
}

func TestRestartKeepsAddressStreamsAndConnections(t *testing.T) {
	srv := start(t, embedded.Options{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	url := srv.URL()
	back := make(chan string, 2)
	options := func(name string) []nats.Option {
		return []nats.Option{nats.ReconnectWait(10 * time.Millisecond), nats.MaxReconnects(-1), nats.ReconnectHandler(func(*nats.Conn) { back <- name })}
	}
	inside, err := srv.Conn(options("inside")...)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	outside, err := nats.Connect(url, options("outside")...)
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	js, err := jetstream.New(inside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case <-back:
		case <-time.After(time.Minute):
			t.Fatal("a connection does not come back")
		}
	}
	if srv.URL() != url || srv.Check() != nil {
		t.Errorf("at %s, %v, want %s and no complaint", srv.URL(), srv.Check(), url)
	}
	if s, err := js.Stream(t.Context(), "S"); err != nil || s.CachedInfo().State.Msgs != 1 {
		t.Errorf("after the restart: %v", err)
	}
}

func TestOthersConnectOnlyThroughAnAddress(t *testing.T) {
	srv := start(t, embedded.Options{Dir: t.TempDir()})
	if url := srv.URL(); url != "" {
		t.Errorf("listens at %s", url)
	}
	srv = start(t, embedded.Options{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatalf("at %q: %v", srv.URL(), err)
	}
	defer nc.Close()
	if err := nc.Flush(); err != nil {
		t.Error(err)
	}
	if nc.ConnectedServerVersion() != srv.Version() {
		t.Errorf("version %s, want %s", nc.ConnectedServerVersion(), srv.Version())
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	addr := listener.Addr().String()
	dir := t.TempDir()
	_, err = embedded.Start(embedded.Options{Dir: dir, Addr: addr})
	if taken, ok := errors.AsType[*embedded.AddressError](err); !ok || taken.Addr != addr || !strings.Contains(err.Error(), "EMBEDDED_NATS_ADDR") {
		t.Errorf("error %v", err)
	}
	// The directory is free again.
	start(t, embedded.Options{Dir: dir})
}

func TestBadAddressIsNamed(t *testing.T) {
	for _, addr := range []string{"4222", "127.0.0.1:many", "127.0.0.1:70000", "127.0.0.1:-1", "no.such.host.invalid:4222"} {
		srv, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Addr: addr})
		if _, ok := errors.AsType[*embedded.AddressError](err); !ok {
			t.Errorf("%s: error %v", addr, err)
		}
		if err == nil {
			srv.Shutdown()
		}
	}
}

func TestDirectoryIsForOneServer(t *testing.T) {
	dir := t.TempDir()
	srv := start(t, embedded.Options{Dir: dir})
	_, err := embedded.Start(embedded.Options{Dir: dir})
	if locked, ok := errors.AsType[*embedded.DirError](err); !ok || !errors.Is(err, embedded.ErrLocked) || locked.Dir != dir || !strings.Contains(err.Error(), "EMBEDDED_NATS_DIR") {
		t.Errorf("error %v", err)
	}
	srv.Shutdown()
	start(t, embedded.Options{Dir: dir})
}

func TestUnusableDirectoryIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"none": "", "a file": file, "under a file": filepath.Join(file, "dir")} {
		_, err := embedded.Start(embedded.Options{Dir: dir})
		if _, ok := errors.AsType[*embedded.DirError](err); !ok {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestLogIsPassedOn(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	start(t, embedded.Options{Dir: t.TempDir(), Log: zap.New(core)})
	if logs.FilterMessageSnippet("Server is ready").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
	for _, entry := range logs.All() {
		if entry.Level > zapcore.WarnLevel {
			t.Errorf("%s: %s", entry.Level, entry.Message)
		}
	}
}

func ExampleStart() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()

	srv, err := embedded.Start(embedded.Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Shutdown()

	nc, err := srv.Conn()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	fmt.Println(nc.IsConnected())
	// Output: true
}

func TestInspectForeseesWhatStartMeets(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "new", "data")
	free := embedded.Inspect(embedded.Options{Dir: dir, Addr: "127.0.0.1:0"})
	if free.Dir != nil || free.Addr != nil || free.Stored || free.Free <= 0 {
		t.Errorf("an absent directory: %+v", free)
	}
	if _, err := os.Stat(filepath.Dir(dir)); err == nil {
		t.Error("looking made the directory")
	}
	none := embedded.Inspect(embedded.Options{Dir: filepath.Join(file, "data"), Addr: "127.0.0.1:0"})
	if _, ok := errors.AsType[*embedded.DirError](none.Dir); !ok {
		t.Errorf("a directory below a file: %+v", none)
	}

	server, err := embedded.Start(embedded.Options{Dir: dir, Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(server.URL(), "nats://")
	used := embedded.Inspect(embedded.Options{Dir: dir, Addr: addr})
	if _, ok := errors.AsType[*embedded.AddressError](used.Addr); !ok || !errors.Is(used.Dir, dirlock.ErrTaken) {
		t.Errorf("while a server runs: %+v", used)
	}
	server.Shutdown()
	if again := embedded.Inspect(embedded.Options{Dir: dir, Addr: addr}); again.Dir != nil || again.Addr != nil || !again.Stored {
		t.Errorf("after a server ran: %+v", again)
	}
}

func TestInspectSeesADirectoryThatCannotBeWritten(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write anywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if o := embedded.Inspect(embedded.Options{Dir: filepath.Join(dir, "data"), Addr: "127.0.0.1:0"}); !errors.Is(o.Dir, os.ErrPermission) {
		t.Errorf("got %+v, want that permission is missing", o)
	}
}
