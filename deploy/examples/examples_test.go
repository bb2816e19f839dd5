// Package examples_test runs the example consumers against a real stream: a simulated account, the bridge, and a NATS server on a port.
//
// An example runs where its runtime and its libraries are, and is skipped with the reason elsewhere. `npm ci && npm run build` in typescript, or
// pip install -r requirements.txt for python, brings them; -typescript names a built copy somewhere else.
package examples_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
)

var typescript = flag.String("typescript", "typescript", "folder with the built TypeScript example")

// An example is a consumer in some language.
type example struct {
	name string
	// main prints events, harness handles them as the tests want; both take the durable's name last.
	main, harness []string
	missing       string
}

func examples(t *testing.T) []example {
	t.Helper()
	ts, err := filepath.Abs(*typescript)
	if err != nil {
		t.Fatal(err)
	}
	node := example{
		name: "typescript", main: []string{"node", filepath.Join(ts, "dist/main.js"), "--durable"},
		harness: []string{"node", "testdata/harness.mjs", filepath.Join(ts, "dist/consumer.js")},
	}
	if err := exec.CommandContext(t.Context(), "node", "--version").Run(); err != nil {
		node.missing = fmt.Sprintf("node does not run: %v", err)
	} else if _, err := os.Stat(filepath.Join(ts, "dist/main.js")); err != nil {
		node.missing = fmt.Sprintf("not built, see \"npm ci && npm run build\": %v", err)
	}
	state := filepath.Join(t.TempDir(), "state.sqlite3")
	python := example{
		name: "python", main: []string{"python3", "python/consumer.py", "--state", state, "--durable"},
		harness: []string{"python3", "testdata/harness.py", state},
	}
	if out, err := exec.CommandContext(t.Context(), "python3", "-c", "import nats").CombinedOutput(); err != nil {
		python.missing = fmt.Sprintf("no nats-py: %v: %s", err, lastLine(out))
	}
	return []example{node, python}
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// TestPythonCompiles at least reads the example that most machines lack the library for.
func TestPythonCompiles(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skipf("python3 is not here: %v", err)
	}
	for _, file := range []string{"python/consumer.py", "testdata/harness.py"} {
		out, err := exec.CommandContext(t.Context(), "python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1], encoding='utf-8').read())", file).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// world is a bridge on a simulated account.
type world struct {
	t       *testing.T
	account *nimbletest.Account
	poller  *poller.Poller
	js      jetstream.JetStream
	url     string
}

func newWorld(t *testing.T, contacts int) *world {
	t.Helper()
	srv, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Addr: "127.0.0.1:0", MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	w := &world{t: t, account: nimbletest.New(nimbletest.WithContacts(contacts)), url: srv.URL()}
	conn, err := publisher.Connect(t.Context(), publisher.ConnectConfig{InProcess: srv.InProcess(), Name: "test"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ledger, err := publisher.Open(context.Background(), conn, publisher.Config{
		Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Manage: true,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithTransport(w.account.Transport()), nimble.WithRateLimit(1e6))
	if err != nil {
		t.Fatal(err)
	}
	if w.poller, err = poller.New(client, ledger, poller.Config{ConfirmAfter: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(w.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if w.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) poll() {
	w.t.Helper()
	if err := w.poller.Poll(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) reconcile() {
	w.t.Helper()
	if _, err := w.poller.Reconcile(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// events are the contact events of the stream.
func (w *world) events() []*event.Event {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), "NIMBLE")
	if err != nil {
		w.t.Fatal(err)
	}
	var all []*event.Event
	for seq := range s.CachedInfo().State.LastSeq {
		m, err := s.GetMsg(w.t.Context(), seq+1)
		if err != nil {
			w.t.Fatal(err)
		}
		e, err := event.Decode(m.Data)
		if errors.Is(err, event.ErrType) {
			continue // A receipt.
		}
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// start runs a program that consumes. Its output is read by the tests when it has ended.
func (w *world) start(args []string, env ...string) *program {
	w.t.Helper()
	p := &program{cmd: exec.CommandContext(w.t.Context(), args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), "NATS_URL="+w.url), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// run waits for the end of a program and returns what it printed.
func (w *world) run(args []string, env ...string) (lines []string, p *program) {
	w.t.Helper()
	p = w.start(args, env...)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		w.t.Fatalf("%s does not end\n%s\n%s", args[0], p.stdout.String(), p.stderr.String())
	}
	text := strings.TrimSuffix(p.stdout.String(), "\n")
	if text == "" {
		return nil, p
	}
	return strings.Split(text, "\n"), p
}

type program struct {
	cmd            *exec.Cmd
	stdout, stderr buffer
	done           chan struct{}
	err            error
}

// buffer can be read while a program writes to it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func eachExample(t *testing.T, test func(t *testing.T, x example)) {
	for _, x := range examples(t) {
		t.Run(x.name, func(t *testing.T) {
			if x.missing != "" {
				t.Skip(x.missing)
			}
			test(t, x)
		})
	}
}

func TestExamplePrintsWhatChanged(t *testing.T) {
	eachExample(t, func(t *testing.T, x example) {
		w := newWorld(t, 0)
		id := w.account.Create(nimbletest.Field("first name", "Tomasz"), nimbletest.Field("last name", "Brandt"),
			nimbletest.Field("email", "t.brandt@brandt.example"), nimbletest.Tags("supplier"))
		w.poll()
		w.account.Edit(id, nimbletest.Field("email", "tomasz@brandt.example"), nimbletest.Tags("supplier", "hot"))
		w.poll()
		got, p := w.run(append(x.main, "one", "--events", "2"))
		want := []string{
			"snapshot  Tomasz Brandt  #1",
			"updated   Tomasz Brandt  #2",
			"          fields.email: t.brandt@brandt.example → tomasz@brandt.example",
			"          tags: supplier → supplier, hot",
		}
		if diff := cmp.Diff(want, got); p.err != nil || diff != "" {
			t.Fatalf("%v\n%s\n%s", p.err, diff, p.stderr.String())
		}

		// It goes on where it was, and a deletion and a return come as such.
		w.account.Delete(id)
		w.reconcile()
		w.account.Restore(id)
		w.poll()
		w.reconcile()
		got, p = w.run(append(x.main, "one", "--events", "2"))
		if diff := cmp.Diff([]string{"deleted   Tomasz Brandt  #3  not_found", "created   Tomasz Brandt  #4  restored"}, got); p.err != nil || diff != "" {
			t.Fatalf("%v\n%s\n%s", p.err, diff, p.stderr.String())
		}
	})
}

// The harness fails as it is told: contact B twice at first, contact C always, and at contact D its process dies once.
func TestExampleRetriesGivesUpAndSurvives(t *testing.T) {
	eachExample(t, func(t *testing.T, x example) {
		w := newWorld(t, 0)
		var ids []string
		for _, name := range []string{"A", "B", "C", "D", "E"} {
			ids = append(ids, w.account.Create(nimbletest.Field("first name", name), nimbletest.RemoveField("last name")))
			w.poll()
		}
		w.account.Edit(ids[1], nimbletest.Tags("later"))
		w.poll()
		env := []string{"FAIL=C", "FAIL_TWICE=B", "DIE_ONCE=D", "DIED=" + filepath.Join(t.TempDir(), "died"), "EVENTS=5"}
		args := append(x.harness, "two")
		first, p := w.run(args, env...)
		if p.err == nil {
			t.Errorf("the harness did not die: %q", first)
		}
		// The event that it died with comes again when the server has missed its acknowledgement for a second.
		second, p := w.run(args, env...)
		if p.err != nil {
			t.Fatalf("%v\n%s", p.err, p.stderr.String())
		}
		want := []string{"A 1", "fails B 1", "fails B 1", "B 1", "fails C 1", "fails C 1", "fails C 1", "dies D 1", "D 1", "E 1", "B 2"}
		if diff := cmp.Diff(want, append(first, second...)); diff != "" {
			t.Error(diff)
		}
		s, err := w.js.Stream(t.Context(), "nimble-dead")
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; n != 1 {
			t.Errorf("%d dead letters", n)
		}
		m, err := s.GetLastMsgForSubject(t.Context(), "nimble-dead.two.letter.acme."+ids[2])
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Decode(m.Data)
		if err != nil || e.Subject != ids[2] || m.Header.Get(consumer.DeadTries) != "3" || m.Header.Get(consumer.DeadError) != "as told" ||
			m.Header.Get(consumer.DeadReason) != string(consumer.Exhausted) || m.Header.Get(consumer.DeadSubject) != "nimble.acme.contact.created."+ids[2] ||
			m.Header.Get("Nimble-Type") != "created" || m.Header.Get("Nats-Msg-Id") != "two:"+e.ID {
			t.Errorf("dead letter %v, %v, of contact %v", err, m.Header, e)
		}

		// Everything again, under another name of the durable and with the same memory: nothing is done twice.
		if err := w.js.DeleteConsumer(t.Context(), "NIMBLE", "two"); err != nil {
			t.Fatal(err)
		}
		third := w.start(args, "EVENTS=100", "FAIL=", "FAIL_TWICE=", "DIE_ONCE=")
		w.idle("two", 6)
		_ = third.cmd.Process.Signal(syscall.SIGTERM)
		<-third.done
		// C was never done, so it is now.
		if got := third.stdout.String(); got != "C 1\n" || strings.Count(third.stderr.String(), "is done already") != 5 {
			t.Errorf("handled again: %q\n%s", got, third.stderr.String())
		}
	})
}

// idle waits until a durable has acknowledged the stream up to a sequence.
func (w *world) idle(durable string, sequence uint64) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := w.js.Consumer(w.t.Context(), "NIMBLE", durable)
		if err == nil && c.CachedInfo().AckFloor.Stream >= sequence {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("durable %s does not come to %d: %v", durable, sequence, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A consumer that begins with the bucket while contacts change ends with the latest event of each, and has missed and doubled none on the way.
func TestExampleBootstrapsWhileContactsChange(t *testing.T) {
	eachExample(t, func(t *testing.T, x example) {
		w := newWorld(t, 60)
		w.poll()
		edit := func(n int) {
			ids := w.account.IDs()
			w.account.Edit(ids[n*7%len(ids)], nimbletest.Tags(fmt.Sprint("t", n)))
			w.poll()
		}
		for n := range 20 {
			edit(n)
		}
		p := w.start(append(x.harness, "boot"), "BOOTSTRAP=1", "EVENTS=1000000")
		for n := range 40 {
			edit(100 + n)
			time.Sleep(10 * time.Millisecond)
		}
		all := w.events()
		w.idle("boot", uint64(len(all)))
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		<-p.done

		latest := make(map[string]uint64)
		for _, e := range all {
			latest[e.Data.Summary.Name+" "+e.Subject] = e.Data.Revision
		}
		last := make(map[string]uint64)
		handled := 0
		for line := range strings.Lines(p.stdout.String()) {
			fields := strings.Fields(line)
			var revision uint64
			if _, err := fmt.Sscan(fields[len(fields)-1], &revision); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			contact := strings.Join(fields[:len(fields)-1], " ")
			if before, seen := last[contact]; seen && revision != before+1 {
				t.Errorf("contact %s: revision %d follows %d", contact, revision, before)
			}
			last[contact] = revision
			handled++
		}
		want := make(map[string]uint64)
		for contact, revision := range latest {
			want[strings.Join(strings.Fields(contact), " ")] = revision
		}
		if diff := cmp.Diff(want, last); diff != "" {
			t.Errorf("%s\n%s", diff, p.stderr.String())
		}
		if handled >= len(all) {
			t.Errorf("handled %d events, with the whole history it would be %d", handled, len(all))
		}
	})
}
