package consumer_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

// frozen is a server behind connections that can stand still in both directions, as those of a process do that is not running. What the server sends meanwhile is not lost:
// it lies where the process finds it when it goes on.
type frozen struct {
	server nats.InProcessConnProvider

	mu    sync.Mutex
	moved *sync.Cond
	still bool
}

func newFrozen(server nats.InProcessConnProvider) *frozen {
	f := &frozen{server: server}
	f.moved = sync.NewCond(&f.mu)
	return f
}

func (f *frozen) set(still bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.still = still
	f.moved.Broadcast()
}

func (f *frozen) InProcessConn() (net.Conn, error) {
	conn, err := f.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	c := &frozenConn{Conn: conn, of: f}
	go c.fill()
	return c, nil
}

type frozenConn struct {
	net.Conn
	of *frozen
	// come is what the server has sent and nobody has read, and end why there will be no more. Both are guarded by of.mu.
	come bytes.Buffer
	end  error
}

func (c *frozenConn) fill() {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Conn.Read(buf)
		c.of.mu.Lock()
		c.come.Write(buf[:n])
		c.end = err
		c.of.moved.Broadcast()
		c.of.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *frozenConn) Read(p []byte) (int, error) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	for c.end == nil && (c.of.still || c.come.Len() == 0) {
		c.of.moved.Wait()
	}
	if c.come.Len() == 0 {
		return 0, c.end
	}
	return c.come.Read(p)
}

func (c *frozenConn) Write(p []byte) (int, error) {
	c.of.mu.Lock()
	for c.of.still && c.end == nil {
		c.of.moved.Wait()
	}
	c.of.mu.Unlock()
	return c.Conn.Write(p)
}

// SetWriteDeadline is for a client that would rather lose the connection than wait for it.
func (*frozenConn) SetWriteDeadline(time.Time) error { return nil }

// signs is who counts the signs of life that reach the server.
type signs struct {
	t   *testing.T
	mu  sync.Mutex
	got map[string]int // by sequence in the stream
}

func (w *world) watchSigns(t *testing.T, durable string) *signs {
	t.Helper()
	s := &signs{t: t, got: make(map[string]int)}
	sub, err := w.js.Conn().Subscribe("$JS.ACK.>", func(msg *nats.Msg) {
		// $JS.ACK.<stream>.<durable>.<deliveries>.<stream sequence>.…, with two more tokens in front of the stream in newer servers.
		if tokens := strings.Split(msg.Subject, "."); string(msg.Data) == "+WPI" && tokens[len(tokens)-7] == stream && tokens[len(tokens)-6] == durable {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.got[tokens[len(tokens)-4]]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := w.js.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *signs) count(sequence uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[fmt.Sprint(sequence)]
}

// awaitMore waits until n more have come of an event.
func (s *signs) awaitMore(sequence uint64, n int) {
	s.t.Helper()
	before := s.count(sequence)
	eventually(s.t, "signs of life", func() bool { return s.count(sequence) >= before+n })
}

// delivered is how many deliveries the server has made.
func (w *world) delivered(durable string) uint64 {
	w.t.Helper()
	c, err := w.js.Consumer(w.t.Context(), stream, durable)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.CachedInfo().Delivered.Consumer
}

// A process stands still while events lie unread in its connection, and another one handles them and later ones. When it goes on, it is too late for them: also when it has been in touch
// with the server again before it comes to them, because it was busy with another contact.
func TestEventThatLayUnreadForTooLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	signs := w.watchSigns(t, "test")
	cfg := quick(func(c *consumer.Config) { c.Concurrency = 1 })
	var d diary
	busy, goOn := make(chan struct{}), make(chan struct{})
	gate := newFrozen(w)
	defer gate.set(false)
	first := consume(t, w.connectTo(gate), cfg, func(_ context.Context, m *consumer.Delivery) error {
		if m.Event.Subject == "slow" {
			close(busy)
			<-goOn
			return nil
		}
		d.note(m)
		return nil
	})
	w.publish("a", event.Created)
	eventually(t, "the first one is active", func() bool { return d.len() == 1 })
	w.idle("test") // An acknowledgement on its way when the connection stands still would be as good as none.
	slow := w.publish("slow", event.Created)
	<-busy

	// The connection has to stand still while the server is being asked for events, which it is most of the time.
	unread := false
	for !unread {
		gate.set(true)
		had := w.delivered("test")
		w.publish("a", event.Updated, "tags")
		for deadline := time.After(cfg.AckWait); !unread && deadline != nil; {
			select {
			case <-time.After(10 * time.Millisecond):
				unread = w.delivered("test") > had
			case <-deadline:
				deadline = nil
			}
		}
		if !unread {
			gate.set(false)
			eventually(t, "the event is received", func() bool { return w.delivered("test") > had })
		}
	}
	second := consume(t, w.connect(), cfg, func(_ context.Context, m *consumer.Delivery) error {
		if m.Event.Subject != "slow" { // It may come here, while it is in work there: that cannot be helped.
			d.note(m)
		}
		return nil
	})
	w.publish("a", event.Updated, "tags")
	eventually(t, "the second one handles all", func() bool { return d.len() >= int(w.revisions["a"]) })
	w.idle("test")

	gate.set(false)
	signs.awaitMore(slow, 2) // With the second one the first is known to have been heard.
	close(goOn)
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	w.publish("a", event.Updated, "tags")
	last := w.revisions["a"]
	eventually(t, "the first one has its place again", func() bool { return slices.Contains(d.of("a"), last) })
	var want []uint64
	for revision := range last {
		want = append(want, revision+1)
	}
	if diff := cmp.Diff(want, d.of("a")); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
	w.idle("test")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
}

// Signs of life come so late that the server has given the events out again, but to the same process: it handles each once all the same.
func TestSignsOfLifeThatComeLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var d diary
	busy, goOn := make(chan struct{}), make(chan struct{})
	gate := newFrozen(w)
	defer gate.set(false)
	consume(t, w.connectTo(gate), quick(), func(_ context.Context, m *consumer.Delivery) error {
		d.note(m)
		if m.Event.Data.Revision == 1 {
			close(busy)
			<-goOn
		}
		return nil
	})
	w.publish("a", event.Created)
	<-busy
	w.publish("a", event.Updated, "tags")
	eventually(t, "both are delivered", func() bool { return w.delivered("test") == 2 })
	signs := w.watchSigns(t, "test")
	for w.delivered("test") < 4 {
		gate.set(true)
		<-time.After(quick().AckWait * 3 / 2)
		gate.set(false)
		signs.awaitMore(1, 2)
	}
	close(goOn)
	w.idle("test")
	if diff := cmp.Diff([]uint64{1, 2}, d.of("a")); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
}

// A process stands still in the middle of a handler, and another one handles the event once more, and the next. Nobody can stop the handler that has begun; but its late signs of
// life and its acknowledgement change nothing, and nothing else begins there out of turn.
func TestHandlerThatStandsStill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var first, second diary
	busy, goOn := make(chan struct{}), make(chan struct{})
	gate := newFrozen(w)
	defer gate.set(false)
	consume(t, w.connectTo(gate), quick(), func(_ context.Context, m *consumer.Delivery) error {
		first.note(m)
		if m.Event.Data.Revision == 2 {
			close(busy)
			<-goOn
			return errBusy // Not even another try is made of it here.
		}
		return nil
	})
	w.publish("a", event.Created)
	eventually(t, "the first one is active", func() bool { return first.len() == 1 })
	w.idle("test")
	w.publish("a", event.Updated, "tags")
	<-busy
	signs := w.watchSigns(t, "test")
	gate.set(true)
	stays := consume(t, w.connect(), quick(), func(_ context.Context, m *consumer.Delivery) error {
		second.note(m)
		return nil
	})
	w.publish("a", event.Updated, "tags")
	eventually(t, "the second one handles both", func() bool { return second.len() >= 2 })
	w.idle("test")
	gate.set(false)
	signs.awaitMore(2, 2)
	close(goOn)
	if err := stays.stop(); err != nil {
		t.Fatal(err)
	}
	w.publish("a", event.Updated, "tags")
	eventually(t, "the first one has its place again", func() bool { return first.len() >= 3 })
	w.idle("test")
	if diff := cmp.Diff([]uint64{1, 2, 4}, first.of("a")); diff != "" {
		t.Errorf("handled by the first one (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{2, 3}, second.of("a")); diff != "" {
		t.Errorf("handled by the second one (-want +got):\n%s", diff)
	}
}

// otherProcess is the environment variable that makes this program a consumer of the server at its value.
const otherProcess = "CONSUMER_TEST_URL"

// beOtherProcess consumes, and says what it does: a line "contact revision" when it begins with an event. Events of the contact "slow" take until a line comes in.
func beOtherProcess() int {
	nc, err := nats.Connect(os.Getenv(otherProcess), nats.MaxReconnects(-1))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	lines := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel() // The test is over, or has died.
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- struct{}{}
		}
	}()
	err = consumer.Run(ctx, js, quick(func(c *consumer.Config) { c.Concurrency = 1 }), func(ctx context.Context, m *consumer.Delivery) error {
		fmt.Println(m.Event.Subject, m.Event.Data.Revision)
		if m.Event.Subject == "slow" {
			select {
			case <-lines:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is another process that consumes.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser

	mu   sync.Mutex
	said []string
}

func startProcess(t *testing.T, url string, d *diary) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0])}
	p.cmd.Env = append(os.Environ(), otherProcess+"="+url)
	p.cmd.Stderr = t.Output()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e entry
			if _, err := fmt.Sscan(lines.Text(), &e.contact, &e.revision); err != nil {
				t.Errorf("the other process says %q", lines.Text())
				continue
			}
			p.mu.Lock()
			p.said = append(p.said, lines.Text())
			p.mu.Unlock()
			if e.contact != "slow" {
				d.mu.Lock()
				d.entries = append(d.entries, e)
				d.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-read
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) has(line string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.said, line)
}
