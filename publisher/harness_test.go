package publisher_test

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"nimble-bridge/publisher/embedded"
)

// line is a connection to a server that can be restarted, and that can lose answers.
type line struct {
	mu    sync.Mutex
	to    nats.InProcessConnProvider
	conns []*lossy
}

// connectTo switches to another server.
func (l *line) connectTo(to nats.InProcessConnProvider) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
}

func (l *line) InProcessConn() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return nil, net.ErrClosed
	}
	conn, err := l.to.InProcessConn()
	if err != nil {
		return nil, err
	}
	c := &lossy{Conn: conn}
	l.conns = append(l.conns, c)
	return c, nil
}

// mute drops everything that the server says from now on, until cut.
func (l *line) mute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.mu.Lock()
		c.muted = true
		c.mu.Unlock()
	}
}

// cut ends all connections. The client comes back with new ones that lose nothing.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// clog lets nothing be written any more, as a frozen server does once its buffers are full.
func (l *line) clog() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.mu.Lock()
		c.clogged = true
		c.mu.Unlock()
	}
}

type lossy struct {
	net.Conn
	mu             sync.Mutex
	muted, clogged bool
	deadline       time.Time
}

func (c *lossy) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *lossy) Write(b []byte) (int, error) {
	c.mu.Lock()
	clogged, deadline := c.clogged, c.deadline
	c.mu.Unlock()
	if !clogged {
		return c.Conn.Write(b)
	}
	time.Sleep(time.Until(deadline))
	return 0, os.ErrDeadlineExceeded
}

func (c *lossy) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		c.mu.Lock()
		muted := c.muted
		c.mu.Unlock()
		if !muted || err != nil {
			return n, err
		}
	}
}

// patience is how long a test waits for what takes milliseconds on a machine that has time. It is longer than a server goes without trying again to set up
// what a stream sources: 30 s after a request that nobody heard, and some more.
const patience = 2 * time.Minute

// eventually waits until a condition holds that the server brings about by itself.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// rawServer starts a NATS server with options that the embedded one does not have.
func rawServer(t testing.TB, change func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	opts := &natsserver.Options{DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true}
	change(opts)
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("server not ready")
	}
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return srv
}

// streamDir is where an embedded server keeps a stream.
func streamDir(dir, stream string) string {
	return filepath.Join(dir, "jetstream", "$G", "streams", stream)
}

// powerLoss runs a server in dir up to a first point and from there to a second, takes the event stream back to how it was at the first one, as a power
// failure takes back what was not synced, and starts the server again. The bucket stays as it was at the second point.
func powerLoss(t testing.TB, dir, stream string, first, second func(*embedded.Server)) *embedded.Server {
	t.Helper()
	srv := serverIn(t, dir, "")
	first(srv)
	srv.Shutdown()
	saved := filepath.Join(t.TempDir(), "saved")
	if err := os.CopyFS(saved, os.DirFS(streamDir(dir, stream))); err != nil {
		t.Fatal(err)
	}
	srv = serverIn(t, dir, "")
	second(srv)
	srv.Shutdown()
	if err := os.RemoveAll(streamDir(dir, stream)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(streamDir(dir, stream), os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	return serverIn(t, dir, "")
}
