package publisher_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/streamtest"
)

// The model test runs the real poller and publisher between the simulated account and a real server, through schedules of edits, index lag,
// faults, crashes, restarts and second bridges, and holds the stream against the account: nothing lost, nothing twice, in order, and every event
// true. Run more schedules, and see what they were made of, with
//
//	go test ./publisher -run TestModel -rapid.checks=10000 -timeout 2h -v

// modelSchedules bounds the schedules of an ordinary run.
var modelSchedules = flag.Int("model.schedules", 60, "schedules of the model test, unless -rapid.checks is given")

const (
	modelOverlap = 20 * time.Second
	modelPerPage = 10
)

// A modelStep is one entry of a schedule. What N and B mean depends on What.
type modelStep struct {
	What string
	N    int // Which contact, how many, how long.
	B    int // Which bridge.
}

func (s modelStep) String() string { return fmt.Sprintf("%s(%d,%d)", s.What, s.N, s.B) }

// setting is how the account's API behaves throughout a schedule.
type setting struct {
	Contacts int
	Rung     string
	Lag      int // Seconds, at most; differs from contact to contact.
	Bounds   int
	Stamps   int
	// PollOnly is an account in which nothing goes, and that nobody reconciles: polls alone have to find everything.
	PollOnly bool
}

var (
	edits  = []string{"edit", "edit", "edit", "tag", "touch", "create", "create", "import", "delete", "delete", "hide", "bring back", "rename", "future"}
	clocks = []string{"advance", "advance", "advance"}
	polls  = []string{
		"poll", "poll", "poll", "poll", "poll both", "poll and crash", "publish and crash", "poll while editing", "poll while editing",
		"poll and cut", "poll through a NATS restart", "reconcile", "reconcile and crash",
	}
	// notPolled are the steps that polls alone do not see, and reconciling.
	notPolled = []string{"delete", "hide", "bring back", "reconcile", "reconcile and crash"}
	faults    = []string{"fault", "restart bridge", "restart NATS", "lose progress"}
)

func drawStep(t *rapid.T) modelStep {
	group := rapid.SampledFrom([][]string{edits, edits, clocks, polls, polls, faults}).Draw(t, "group")
	return modelStep{
		What: rapid.SampledFrom(group).Draw(t, "what"),
		N:    rapid.IntRange(0, 40).Draw(t, "n"),
		B:    rapid.IntRange(0, 1).Draw(t, "bridge"),
	}
}

func drawSetting(t *rapid.T) setting {
	return setting{
		Contacts: rapid.IntRange(0, 45).Draw(t, "contacts"),
		Rung:     rapid.SampledFrom([]string{"keyed", "keyed", "keyed", "window", "relative", "created", "full"}).Draw(t, "rung"),
		Lag:      rapid.IntRange(0, int(modelOverlap/time.Second)/2).Draw(t, "lag"),
		Bounds:   rapid.IntRange(0, 7).Draw(t, "bounds"),
		Stamps:   rapid.IntRange(0, 2).Draw(t, "stamps"),
		PollOnly: rapid.Bool().Draw(t, "poll only"),
	}
}

// tally counts what the schedules had in them.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *tally) add(had map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, yes := range had {
		if yes {
			c.n[what]++
		}
	}
}

func TestModel(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		_ = f.Value.Set(fmt.Sprint(*modelSchedules))
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	s := startModelServer(t)
	counts := &tally{n: make(map[string]int)}
	rapid.Check(t, func(t *rapid.T) {
		how := drawSetting(t)
		schedule := rapid.SliceOfN(rapid.Custom(drawStep), 8, 40).Draw(t, "schedule")
		runModel(t, s, how, schedule, counts)
	})
	for _, what := range slices.Sorted(maps.Keys(counts.n)) {
		t.Logf("%6d schedules with: %s", counts.n[what], what)
	}
}

// TestModelRegressions replays what the model test has found, each as the schedule it came with.
func TestModelRegressions(t *testing.T) {
	tests := []struct {
		name     string
		how      setting
		schedule []modelStep
	}{
		{
			"progress lost in the middle of a snapshot made old contacts new",
			setting{Contacts: 23, Rung: "keyed", Lag: 1},
			[]modelStep{{"delete", 30, 1}, {"publish and crash", 18, 1}, {"create", 4, 1}, {"lose progress", 6, 0}, {"poll", 22, 0}, {"create", 36, 0}},
		},
		{
			"an import at the head of an unsorted listing passed for sorted",
			setting{Contacts: 1, Rung: "window", Lag: 1, Bounds: 3, Stamps: 2},
			[]modelStep{{"import", 28, 0}, {"advance", 6, 1}, {"create", 40, 1}, {"poll", 5, 1}, {"poll", 22, 0}, {"edit", 26, 0}},
		},
		{
			"a contact that came back took the place of one that went, and no count told until all was listed",
			setting{Contacts: 45, Rung: "keyed", Lag: 1, Stamps: 2},
			[]modelStep{{"create", 34, 1}, {"delete", 3, 1}, {"delete", 1, 0}, {"poll", 40, 0}, {"reconcile", 26, 0}, {"rename", 31, 0}, {"bring back", 40, 0}, {"advance", 13, 0}, {"delete", 1, 1}, {"poll", 40, 1}, {"advance", 19, 1}, {"advance", 4, 1}, {"poll", 23, 1}, {"tag", 19, 1}, {"poll", 33, 1}, {"edit", 4, 1}, {"bring back", 4, 1}, {"poll through a NATS restart", 4, 1}, {"import", 20, 1}, {"poll", 2, 0}, {"future", 8, 0}, {"bring back", 7, 0}, {"poll and cut", 5, 0}, {"poll through a NATS restart", 27, 1}},
		},
	}
	s := startModelServer(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { runModel(t, s, tt.how, tt.schedule, &tally{n: make(map[string]int)}) })
	}
}

// fataler is what a schedule fails with: a test or a drawn one.
type fataler interface {
	Fatalf(format string, args ...any)
	Helper()
}

// world is the account, the server and the bridges of one schedule.
type world struct {
	t       fataler
	s       *modelServer
	how     setting
	account *nimbletest.Account
	name    string
	clock   atomic.Int64 // What the account's clock is ahead of the real one.
	bridges [2]*bridge
	initial map[string]bool
	had     map[string]bool
	edits   int
	gone    []string // In the order in which they went.
}

// bridge is one process: a connection, a publisher, a poller. A crash drops it.
type bridge struct {
	conn *publisher.Connection
	p    *poller.Poller
	trap *trap
}

var modelRun atomic.Int64

func runModel(t fataler, s *modelServer, how setting, schedule []modelStep, counts *tally) {
	w := &world{t: t, s: s, how: how, name: fmt.Sprintf("a%d", modelRun.Add(1)), initial: make(map[string]bool), had: make(map[string]bool)}
	w.clock.Store(int64(-5 * time.Minute))
	w.account = nimbletest.New(nimbletest.WithContacts(how.Contacts), nimbletest.WithClock(w.now))
	w.account.SetBehaviour(how.apply)
	for _, id := range w.account.IDs() {
		w.initial[id] = true
	}
	defer func() {
		for i := range w.bridges {
			w.drop(i)
		}
		s.empty(t)
	}()
	for _, step := range schedule {
		w.do(step)
	}
	w.settle()
	w.check()
	w.had["rung "+how.Rung] = true
	w.had["polls alone"] = how.PollOnly
	counts.add(w.had)
}

// now is the time on the account's clock.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

// apply makes the account's API behave.
func (how setting) apply(b *nimbletest.Behaviour) {
	switch how.Rung {
	case "window":
		b.UpdatedSort = nimbletest.SortIgnored
	case "relative":
		b.Range = nimbletest.RangeRefused
	case "created":
		b.Range, b.Relative, b.UpdatedOnly = nimbletest.RangeRefused, nimbletest.RangeRefused, true
	case "full":
		b.Range, b.UpdatedSort, b.CreatedSort = nimbletest.RangeIgnored, nimbletest.SortIgnored, nimbletest.SortRefused
	}
	b.LagOf = func(id string) time.Duration {
		return time.Duration(how.Lag) * time.Second * time.Duration(id[len(id)-1]%4) / 3
	}
	b.ExclusiveLower, b.ExclusiveUpper, b.RangeSeconds = how.Bounds&1 != 0, how.Bounds&2 != 0, how.Bounds&4 != 0
	b.Timestamps = []nimbletest.TimestampForm{nimbletest.TimestampMicros, nimbletest.TimestampSeconds, nimbletest.TimestampRFC3339}[how.Stamps]
}

func (w *world) do(s modelStep) {
	if w.how.PollOnly && slices.Contains(notPolled, s.What) {
		return
	}
	switch s.What {
	case "edit":
		w.edit(s.N)
	case "tag":
		if id, ok := w.pick(s.N); ok {
			w.account.Edit(id, nimbletest.Tags(fmt.Sprint("t", s.N), "x"))
		}
	case "touch":
		if id, ok := w.pick(s.N); ok {
			w.account.Touch(id)
		}
	case "create":
		w.account.Create()
	case "import":
		w.account.Import(s.N)
	case "delete":
		if id, ok := w.pick(s.N); ok {
			w.account.Delete(id)
			w.gone = append(w.gone, id)
		}
	case "hide":
		if id, ok := w.pick(s.N); ok {
			w.account.Hide(id)
			w.gone = append(w.gone, id)
		}
	case "bring back":
		if len(w.gone) > 0 {
			id := w.gone[s.N%len(w.gone)]
			w.account.Restore(id)
			w.account.Show(id)
		}
	case "future": // A record dated in the future, as a wrong clock makes them.
		// Relative ranges do not show the future; there it takes a full compare.
		if id, ok := w.pick(s.N); ok && w.how.Rung != "relative" {
			w.edit(s.N)
			created, _ := w.account.Times(id)
			w.account.SetTimes(id, created, w.now().Add(time.Duration(1+s.N)*time.Hour))
		}
	case "rename":
		w.account.CountDown()
	case "advance":
		w.advance(time.Duration(s.N) * 300 * time.Millisecond)
	case "fault":
		w.had["an API fault"] = true
		w.account.Inject(1+s.N%3, []nimbletest.Fault{
			{Status: 500}, {Status: 429}, {Truncate: true}, {Reset: true}, {Status: 502, HTML: true}, {HTML: true}, {Status: 403},
		}[s.N%7])
	case "restart bridge":
		w.had["a bridge restart"] = true
		w.drop(s.B)
	case "restart NATS":
		w.had["a NATS restart"] = true
		w.s.restart(w.t)
	case "lose progress":
		w.had["progress lost"] = true
		w.loseProgress()
	case "poll":
		w.poll(s.B, crashNever)
	case "reconcile", "reconcile and crash":
		w.had["a reconciliation"] = true
		b := w.bridge(s.B)
		b.trap.arm(crashNever)
		if s.What == "reconcile and crash" {
			b.trap.arm(s.N)
		}
		if _, err := b.p.Reconcile(context.Background()); errors.Is(err, errCrash) {
			w.had["a crash"] = true
			w.drop(s.B)
		}
	case "poll both":
		w.had["two bridges"] = true
		var both sync.WaitGroup
		for i := range w.bridges {
			b := w.bridge(i)
			both.Go(func() { _ = b.p.Poll(context.Background()) })
		}
		both.Wait()
	case "poll and crash":
		w.poll(s.B, s.N)
	case "publish and crash": // Between the publication and its acknowledgement.
		w.edit(s.N)
		w.advance(time.Duration(w.how.Lag) * time.Second)
		b := w.bridge(s.B)
		b.trap.afterAppend = true
		w.poll(s.B, crashNever)
	case "poll while editing":
		left := 1 + s.N%10
		w.account.OnRequest(func(int, *http.Request) {
			if left > 0 {
				left--
				w.edit(s.N*7 + left*3)
			}
		})
		w.poll(s.B, crashNever)
		w.account.OnRequest(nil)
	case "poll and cut":
		w.had["a connection cut while publishing"] = true
		b := w.bridge(s.B)
		b.trap.cut = func() {
			go func() {
				time.Sleep(time.Duration(s.N) * 50 * time.Microsecond)
				b.conn.Close()
			}()
		}
		_ = b.p.Poll(context.Background())
		w.drop(s.B)
	case "poll through a NATS restart":
		w.had["a NATS restart"] = true
		b := w.bridge(s.B)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		var restart sync.WaitGroup
		b.trap.cut = func() {
			restart.Go(func() {
				time.Sleep(time.Duration(s.N) * 50 * time.Microsecond)
				w.s.restart(w.t)
			})
		}
		_ = b.p.Poll(ctx)
		cancel()
		restart.Wait()
		w.drop(s.B)
	default:
		w.t.Fatalf("unknown step %s", s)
	}
}

// crashNever is a number of calls that no poll makes.
const crashNever = 1 << 30

func (w *world) poll(i, crashAfter int) {
	b := w.bridge(i)
	b.trap.arm(crashAfter)
	err := b.p.Poll(context.Background())
	if errors.Is(err, errCrash) {
		w.had["a crash"] = true
		if b.trap.unacknowledged {
			w.had["a crash between publish and acknowledgement"] = true
		}
		w.drop(i)
	}
	if w.bridges[1-i] != nil {
		w.had["two bridges"] = true
	}
}

func (w *world) pick(n int) (string, bool) {
	ids := w.account.IDs()
	if len(ids) == 0 {
		return "", false
	}
	return ids[n%len(ids)], true
}

func (w *world) edit(n int) {
	if id, ok := w.pick(n); ok {
		w.edits++
		w.account.Edit(id, nimbletest.Field("title", fmt.Sprint("edit ", w.edits)))
	}
}

func (w *world) advance(d time.Duration) {
	// The clocks have to stay within minutes of each other, as clocks do.
	if next := w.clock.Load() + int64(d); next < int64(8*time.Minute) {
		w.clock.Store(next)
	}
}

// bridge returns a bridge, started if it does not run.
func (w *world) bridge(i int) *bridge {
	w.t.Helper()
	if w.bridges[i] != nil {
		return w.bridges[i]
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := publisher.Connect(ctx, publisher.ConnectConfig{InProcess: w.s, Name: "model", ReconnectWait: 5 * time.Millisecond}, zap.NewNop())
	if err != nil {
		w.t.Fatalf("connect: %v", err)
	}
	stream, err := publisher.Open(ctx, conn, w.config(), zap.NewNop())
	for ; noAnswer(err) && ctx.Err() == nil; stream, err = publisher.Open(ctx, conn, w.config(), zap.NewNop()) {
		time.Sleep(20 * time.Millisecond) // As the program does, while a server that was restarted is not there yet.
	}
	if err != nil {
		conn.Close()
		w.t.Fatalf("open: %v", err)
	}
	client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithTransport(w.account.Transport()),
		nimble.WithRateLimit(1e9), nimble.WithoutRetry())
	if err != nil {
		w.t.Fatalf("client: %v", err)
	}
	interval := time.Duration(0) // The default.
	if w.how.PollOnly {
		interval = -1
	}
	trap := &trap{Ledger: stream, Source: client, left: crashNever}
	p, err := poller.New(trap, trap, poller.Config{
		ReconcileInterval: interval, Overlap: modelOverlap, PerPage: modelPerPage, Batch: 25, ConfirmAfter: time.Millisecond, DeleteLimit: &poller.DeleteLimit{Count: 1000, Share: 1},
	})
	if err != nil {
		w.t.Fatalf("poller: %v", err)
	}
	w.bridges[i] = &bridge{conn: conn, p: p, trap: trap}
	return w.bridges[i]
}

// noAnswer tells a server that is slow, or not there at present, from one that refuses.
func noAnswer(err error) bool {
	_, unreachable := errors.AsType[*publisher.UnreachableError](err)
	return unreachable || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}

func (w *world) config() publisher.Config {
	return publisher.Config{Account: w.name, Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Replicas: 1, MaxBytes: -1, Manage: true, AckTimeout: 300 * time.Millisecond}
}

// drop ends a bridge as a crash would: nothing is saved, nothing is waited for.
func (w *world) drop(i int) {
	if b := w.bridges[i]; b != nil {
		b.conn.Close()
		w.bridges[i] = nil
	}
}

func (w *world) loseProgress() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc := w.s.connect(w.t)
	defer nc.Close()
	js, _ := jetstream.New(nc)
	kv, err := js.KeyValue(ctx, publisher.StateBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return
	}
	if err != nil {
		w.t.Fatalf("state bucket: %v", err)
	}
	for i := range w.bridges {
		w.drop(i) // A bridge that runs would save it again.
	}
	keys, err := kv.ListKeys(ctx)
	if err != nil {
		w.t.Fatalf("state bucket: %v", err)
	}
	for key := range keys.Keys() {
		if strings.HasPrefix(key, w.name+".") {
			if err := kv.Delete(ctx, key); err != nil {
				w.t.Fatalf("state bucket: %v", err)
			}
		}
	}
}

// settle lets everything come to rest: no faults, the index up to date, and a fresh bridge that polls until nothing is left to find.
func (w *world) settle() {
	w.account.ClearFaults()
	for i := range w.bridges {
		w.drop(i) // Who takes the lease loads what others have published; one that believes in an old lease cannot see what it never knew of go.
	}
	w.clock.Store(max(w.clock.Load(), 0))
	// Where as many contacts came without an edit as went, no count tells: then it takes until the part that each reconciliation lists has come round.
	enough := 2
	if contacts := w.account.Len(); !w.how.PollOnly && contacts > 5*modelPerPage {
		enough += contacts/modelPerPage + 2
	}
	for complete, tries := 0, 0; complete < enough; tries++ {
		if complete < 2 {
			w.clock.Add(int64(modelOverlap/2) + int64(2*time.Second))
		}
		if tries == enough+6 {
			w.t.Fatalf("polls do not complete: %v", w.bridge(0).p.Status().Err)
		}
		b := w.bridge(0)
		b.trap.arm(crashNever)
		b.trap.afterAppend = false // Set, and nothing was there to be published.
		if err := b.p.Poll(context.Background()); err != nil {
			continue
		}
		if w.how.PollOnly {
			complete++
			continue
		}
		switch _, err := b.p.Reconcile(context.Background()); {
		case errors.Is(err, poller.ErrConflict): // The other one had led, and this one loads what is known again.
			continue
		case err != nil:
			w.t.Fatalf("reconciliation does not complete: %v", err)
		}
		complete++
	}
}

// check holds the stream against the account and the bucket against the stream.
func (w *world) check() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc := w.s.connect(w.t)
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		w.t.Fatalf("jetstream: %v", err)
	}
	messages, err := streamtest.Read(ctx, js, "NIMBLE", "nimble", w.name)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	contacts := make(map[string]jsontext.Value)
	for _, id := range w.account.IDs() {
		contacts[id], _ = w.account.Contact(id)
	}
	if err := errors.Join(streamtest.CheckHistory(messages), streamtest.CheckSchemas(messages), streamtest.CheckLatest(messages, contacts)); err != nil {
		w.t.Fatalf("%v", err)
	}
	for id, m := range streamtest.Last(messages) {
		if _, exists := contacts[id]; !exists && m.Event.Verb() != event.Deleted && len(contacts) > 0 {
			w.t.Fatalf("contact %s is gone, and its last event is %s", id, m.Event.Verb())
		}
	}
	for _, m := range messages {
		if w.initial[m.Event.Subject] && m.Event.Verb() == event.Created && !m.Event.Data.Restored {
			w.t.Fatalf("message %d: contact %s, which existed before the account was met, is called created", m.Sequence, m.Event.Subject)
		}
	}
	if err := streamtest.CheckBucket(ctx, js, "nimble-contacts", w.name, messages); err != nil {
		w.t.Fatalf("%v", err)
	}
}

// errCrash is how a bridge dies in the middle of something.
var errCrash = errors.New("crashed")

// trap stands between the poller and its two sides, and lets the bridge die before or after a call.
type trap struct {
	poller.Ledger
	poller.Source
	// mu guards the rest: pages are fetched while changes are appended.
	mu   sync.Mutex
	left int
	// unacknowledged says that the crash came after a publication and before its answer.
	unacknowledged bool
	// afterAppend lets the bridge die right after the next publication.
	afterAppend bool
	// cut, if set, is called once before something is appended.
	cut func()
}

func (c *trap) arm(after int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.unacknowledged = after, false
}

// passes is called at each point where a bridge may die.
func (c *trap) passes() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left <= 0 {
		return errCrash
	}
	c.left--
	return nil
}

func (c *trap) ContactsPage(ctx context.Context, opts nimble.ListOptions) (*nimble.Page, error) {
	if err := c.passes(); err != nil {
		return nil, err
	}
	page, err := c.Source.ContactsPage(ctx, opts)
	return page, errors.Join(err, c.passes())
}

func (c *trap) Append(ctx context.Context, changes []poller.Change) ([]uint64, error) {
	if err := c.passes(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	cut := c.cut
	c.cut = nil
	c.mu.Unlock()
	if cut != nil {
		cut()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
	}
	sequences, err := c.Ledger.Append(ctx, changes)
	died := c.passes()
	c.mu.Lock()
	defer c.mu.Unlock()
	if died != nil || c.afterAppend {
		c.unacknowledged, c.afterAppend = true, false
		return nil, errCrash
	}
	return sequences, err
}

func (c *trap) Last(ctx context.Context, k poller.Known) (jsontext.Value, error) {
	if err := c.passes(); err != nil {
		return nil, err
	}
	return c.Ledger.Last(ctx, k)
}

func (c *trap) SaveProgress(ctx context.Context, p poller.Progress) error {
	if err := c.passes(); err != nil {
		return err
	}
	return errors.Join(c.Ledger.SaveProgress(ctx, p), c.passes())
}

// modelServer is the server of all schedules; some of them restart it.
type modelServer struct {
	dir string
	mu  sync.Mutex
	srv *natsserver.Server
}

func startModelServer(t *testing.T) *modelServer {
	s := &modelServer{dir: t.TempDir()}
	s.start(t)
	t.Cleanup(func() {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
	})
	return s
}

func (s *modelServer) start(t fataler) {
	// No sync: killing the process is what schedules do, not pulling the plug, and thousands of them have to run.
	srv, err := natsserver.NewServer(&natsserver.Options{ServerName: "model", DontListen: true, JetStream: true, StoreDir: s.dir, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatalf("server: %v", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatalf("the server is not ready after %s", patience)
	}
	s.srv = srv
}

func (s *modelServer) restart(t fataler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.start(t)
}

// InProcessConn connects to the server that runs at the moment.
func (s *modelServer) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv.InProcessConn()
}

func (s *modelServer) connect(t fataler) *nats.Conn {
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return nc
}

// empty removes what a schedule has stored.
func (s *modelServer) empty(t fataler) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc := s.connect(t)
	defer nc.Close()
	js, _ := jetstream.New(nc)
	for _, name := range []string{"NIMBLE", "KV_nimble-contacts", "KV_" + publisher.StateBucket} {
		stream, err := js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err == nil {
			err = stream.Purge(ctx)
		}
		if err != nil {
			t.Fatalf("purge %s: %v", name, err)
		}
	}
}
