package follow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/follow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what takes milliseconds on a machine that has time.
const patience = 30 * time.Second

// world is a server that can be restarted, and a connection that survives it.
type world struct {
	t   testing.TB
	dir string
	js  jetstream.JetStream

	mu    sync.Mutex
	srv   *embedded.Server
	conns []net.Conn
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.start()
	t.Cleanup(w.stop)
	w.js = w.connect()
	return w
}

func (w *world) start() {
	w.t.Helper()
	srv, err := embedded.Start(embedded.Options{Dir: w.dir})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.srv = srv
}

func (w *world) stop() {
	w.mu.Lock()
	srv := w.srv
	w.srv = nil
	w.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
	}
}

// InProcessConn implements [nats.InProcessConnProvider] with whatever server runs at present.
func (w *world) InProcessConn() (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.srv == nil {
		return nil, net.ErrClosed
	}
	conn, err := w.srv.InProcess().InProcessConn()
	w.conns = append(w.conns, conn)
	return conn, err
}

// cut cuts all connections, and leaves the server alone.
func (w *world) cut() {
	w.mu.Lock()
	conns := w.conns
	w.conns = nil
	w.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

func (w *world) connect() jetstream.JetStream {
	w.t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(w), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		w.t.Fatal(err)
	}
	return js
}

// makeStream makes a stream of the subjects a.>.
func (w *world) makeStream() {
	w.t.Helper()
	w.try("make the stream", func(ctx context.Context) error {
		_, err := w.js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"a.>"}})
		return err
	})
}

// publish stores a message, however often it takes.
func (w *world) publish(subject, body string) {
	w.t.Helper()
	w.try("publish", func(ctx context.Context) error {
		_, err := w.js.Publish(ctx, subject, []byte(body), jetstream.WithMsgID(body))
		return err
	})
}

func (w *world) try(what string, do func(context.Context) error) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// view is a run of Run, and what it has shown.
type view struct {
	t    testing.TB
	end  func() error // stops the run, and gives its error
	done chan error

	mu      sync.Mutex
	bodies  []string
	notices []follow.What
	changed chan struct{}
}

func watch(w *world, cfg follow.Config) *view {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v := &view{t: w.t, done: make(chan error, 1), changed: make(chan struct{})}
	v.end = sync.OnceValue(func() error { cancel(); return <-v.done })
	cfg.Stream = "S"
	cfg.Notice = func(n follow.Notice) { v.note(func() { v.notices = append(v.notices, n.What) }) }
	js := w.connect()
	go func() {
		v.done <- follow.Run(ctx, js, cfg, func(m *follow.Message) error {
			v.note(func() { v.bodies = append(v.bodies, string(m.Data)) })
			return nil
		})
	}()
	w.t.Cleanup(func() { _ = v.end() })
	return v
}

func (v *view) note(add func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	add()
	close(v.changed)
	v.changed = make(chan struct{})
}

// await waits until something has been shown.
func (v *view) await(what string, holds func() bool) {
	v.t.Helper()
	for timeout := time.After(patience); ; {
		v.mu.Lock()
		changed, ok := v.changed, holds()
		v.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case err := <-v.done:
			v.done <- err
			v.t.Fatalf("waiting for %s, it ended with %v", what, err)
		case <-timeout:
			v.mu.Lock()
			defer v.mu.Unlock()
			v.t.Fatalf("waiting for %s, there are %q and %q", what, v.bodies, v.notices)
		}
	}
}

func (v *view) awaitNotice(what follow.What) {
	v.t.Helper()
	v.await(string(what), func() bool { return slices.Contains(v.notices, what) })
}

func (v *view) awaitBodies(want ...string) {
	v.t.Helper()
	v.await(fmt.Sprintf("%d messages", len(want)), func() bool { return len(v.bodies) >= len(want) })
	v.mu.Lock()
	defer v.mu.Unlock()
	if diff := cmp.Diff(want, v.bodies); diff != "" {
		v.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeStream()
	w.publish("a.x", "1")
	w.publish("a.y", "2")
	stream, err := w.js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	second, err := stream.GetMsg(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		from follow.From
		want []string
	}{
		{"the zero value", follow.From{}, []string{"3"}},
		{"now", follow.Now(), []string{"3"}},
		{"all", follow.All(), []string{"1", "2", "3"}},
		{"a time", follow.Since(second.Time), []string{"2", "3"}},
		{"a sequence", follow.After(1), []string{"2", "3"}},
	} {
		v := watch(w, follow.Config{From: tt.from})
		v.awaitNotice(follow.Begun)
		defer v.awaitBodies(tt.want...)
	}
	w.publish("a.z", "3")
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeStream()
	for _, subject := range []string{"a.x", "a.y", "a.z", "a.x"} {
		w.publish(subject, subject+time.Now().String())
	}
	for subjects, want := range map[string]int{"a.x": 2, "a.x,a.z": 3, "a.>": 4, "a.none": 0} {
		n := 0
		err := follow.Run(t.Context(), w.js, follow.Config{Stream: "S", Subjects: strings.Split(subjects, ","), From: follow.All(), Stop: true}, func(m *follow.Message) error {
			n++
			if got := uint64(want - n); m.Pending != got {
				t.Errorf("%s: %d pending behind message %d, want %d", subjects, m.Pending, n, got)
			}
			return nil
		})
		if err != nil || n != want {
			t.Errorf("%s: %d messages, %v, want %d", subjects, n, err, want)
		}
	}
}

func TestStreamThatDoesNotExistYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := follow.Run(t.Context(), w.js, follow.Config{Stream: "S", Stop: true}, func(*follow.Message) error { return nil })
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("Run to the end = %v, want %v", err, jetstream.ErrStreamNotFound)
	}
	v := watch(w, follow.Config{})
	v.awaitNotice(follow.Absent)
	w.makeStream()
	w.publish("a.x", "1")
	v.awaitNotice(follow.Begun)
	w.publish("a.x", "2")
	v.awaitBodies("1", "2")
	if err := v.end(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestServerRestartsAndLostConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeStream()
	v := watch(w, follow.Config{})
	v.awaitNotice(follow.Begun)
	var want []string
	for round := range 6 {
		published := make(chan struct{})
		go func() {
			defer close(published)
			for i := range 200 {
				w.publish("a.x", fmt.Sprintf("%d-%d", round, i))
			}
		}()
		for i := range 200 {
			want = append(want, fmt.Sprintf("%d-%d", round, i))
		}
		v.await("the first of this round", func() bool { return len(v.bodies) > round*200 })
		if round%2 == 0 {
			w.stop()
			w.start()
		} else {
			w.cut()
		}
		<-published
	}
	v.awaitBodies(want...)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.notices, follow.Interrupted) || v.notices[len(v.notices)-1] != follow.Resumed {
		t.Errorf("notices %q, want interruptions that end with a resumption", v.notices)
	}
}

func TestStreamMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeStream()
	v := watch(w, follow.Config{From: follow.All()})
	w.publish("a.x", "1")
	w.publish("a.x", "2")
	v.awaitBodies("1", "2")
	if err := w.js.DeleteStream(t.Context(), "S"); err != nil {
		t.Fatal(err)
	}
	v.awaitNotice(follow.Absent)
	w.makeStream()
	w.publish("a.x", "new")
	v.awaitNotice(follow.Replaced)
	v.awaitBodies("1", "2", "new")
}

func TestServerThatLostTheEndOfTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeStream()
	v := watch(w, follow.Config{From: follow.All()})
	w.publish("a.x", "1")
	w.stop()
	before := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(before, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.publish("a.x", "2")
	w.publish("a.x", "3")
	v.awaitBodies("1", "2", "3")
	w.stop()
	w.dir = before
	w.start()
	v.awaitNotice(follow.Replaced)
	w.publish("a.x", "2, another")
	v.awaitBodies("1", "2", "3", "2, another")
}

func TestRemovedBeforeItWasRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeStream()
	v := watch(w, follow.Config{})
	v.awaitNotice(follow.Begun)
	w.publish("a.x", "1")
	v.awaitBodies("1")
	w.stop()
	v.awaitNotice(follow.Interrupted)

	// What happens while the follower is away: another server on the same directory.
	other := &world{t: t, dir: w.dir}
	other.start()
	other.js = other.connect()
	other.publish("a.x", "2")
	other.publish("a.x", "3")
	stream, err := other.js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	other.stop()

	w.start()
	v.awaitNotice(follow.Removed)
	v.awaitBodies("1", "3")
}

func TestHandlerEndsTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.makeStream()
	w.publish("a.x", "1")
	enough := errors.New("enough")
	err := follow.Run(t.Context(), w.js, follow.Config{Stream: "S", From: follow.All()}, func(*follow.Message) error { return enough })
	if err != enough { //nolint:errorlint // It is to come back as it is.
		t.Errorf("Run = %v, want the handler's error", err)
	}
	w.js.Conn().Close()
	err = follow.Run(t.Context(), w.js, follow.Config{Stream: "S"}, func(*follow.Message) error { return nil })
	if !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Run on a closed connection = %v, want %v", err, nats.ErrConnectionClosed)
	}
}

// startGuarded starts a server whose user may do what is given and nothing else.
func startGuarded(t *testing.T, publish ...string) (user *nats.Conn, admin jetstream.JetStream) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		Users: []*server.User{
			{Username: "admin", Password: "p"},
			{Username: "user", Password: "p", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_VIEW.>"}},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	connect := func(name string) *nats.Conn {
		nc, err := nats.Connect(srv.ClientURL(), nats.UserInfo(name, "p"), nats.CustomInboxPrefix("_INBOX_VIEW"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	admin, err = jetstream.New(connect("admin"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"a.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Publish(t.Context(), "a.x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	return connect("user"), admin
}

func TestPermissionsOfTheDocumentationAreEnough(t *testing.T) {
	t.Parallel()
	user, _ := startGuarded(t, "$JS.API.STREAM.INFO.S", "$JS.API.CONSUMER.CREATE.S.>", "$JS.API.CONSUMER.MSG.NEXT.S.*")
	user.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("the server refused: %v", err) })
	js, err := jetstream.New(user)
	if err != nil {
		t.Fatal(err)
	}
	for _, subjects := range [][]string{nil, {"a.>"}, {"a.x", "a.y"}} {
		n := 0
		err := follow.Run(t.Context(), js, follow.Config{Stream: "S", Subjects: subjects, From: follow.All(), Stop: true}, func(*follow.Message) error { n++; return nil })
		if err != nil || n != 1 {
			t.Errorf("subjects %q: %d messages, %v, want 1", subjects, n, err)
		}
	}
	if err := user.Drain(); err != nil { // What was refused has been told when this is over.
		t.Fatal(err)
	}
	for !user.IsClosed() {
		time.Sleep(time.Millisecond)
	}
}

func TestWhatKeepsItFromBeginningIsReturned(t *testing.T) {
	t.Parallel()
	user, _ := startGuarded(t, "$JS.API.STREAM.INFO.S")
	js, err := jetstream.New(user, jetstream.WithDefaultTimeout(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	err = follow.Run(t.Context(), js, follow.Config{Stream: "S"}, func(*follow.Message) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "consumer of stream S") {
		t.Errorf("Run = %v, want that the consumer could not be made", err)
	}
}
