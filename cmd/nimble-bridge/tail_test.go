package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/follow"
)

func TestTailShowsWhatHappens(t *testing.T) {
	nimble, server := startNimble(t), startNATS(t, "127.0.0.1:0")
	ada := nimble.Create(nimbletest.Blank(), nimbletest.Field("first name", "Ada"), nimbletest.Field("title", "Countess"))
	environment(t, nimble, "NATS_URL", server.URL())
	live := start(t, "tail")
	live.stderr.await(t, "stream NIMBLE does not exist yet; waiting for a bridge to make it")
	bridge := start(t)
	live.stdout.await(t, `(?m)^\S+Z  snapshot  `+ada+`  Ada  Countess  #1$`)
	updates := start(t, "tail", "--all", "--changed", "fields.title", "--json")
	nimble.Edit(ada, nimbletest.Tags("engine"))
	live.stdout.await(t, `(?m)^\S+Z  updated   `+ada+`  Ada  #2  tags: \(none\) → engine$`)
	nimble.Edit(ada, nimbletest.Field("title", "Analyst"))
	live.stdout.await(t, `(?m)^\S+Z  updated   `+ada+`  Ada  #3  title: Countess → Analyst$`)
	grace := nimble.Create(nimbletest.Blank(), nimbletest.Field("first name", "Grace"))
	live.stdout.await(t, `(?m)^\S+Z  created   `+grace+`  Grace  #1$`)

	line := updates.stdout.await(t, `(?m)^(\{.*\})$`)
	if e, err := event.Decode([]byte(line)); err != nil || e.Data.Revision != 3 {
		t.Errorf("--changed shows %+v, %v, want the third revision", e, err)
	}
	for _, tt := range []struct {
		name, args string
		want       []string // type and contact
	}{
		{"everything", "--all", []string{"snapshot " + ada, "updated " + ada, "updated " + ada, "created " + grace}},
		{"a while ago", "--since 1h", []string{"snapshot " + ada, "updated " + ada, "updated " + ada, "created " + grace}},
		{"types", "--all --type created,snapshot", []string{"snapshot " + ada, "created " + grace}},
		{"a contact", "--all --contact " + grace, []string{"created " + grace}},
		{"contacts and a type", "--all --contact nobody --contact " + ada + " --type created --type updated", []string{"updated " + ada, "updated " + ada}},
		{"another account", "--all --account other", nil},
		{"some events", "--all --events 2", []string{"snapshot " + ada, "updated " + ada}},
	} {
		code, stdout, stderr := runProgram(t.Context(), append(strings.Fields("tail --json --no-follow"), strings.Fields(tt.args)...)...)
		var got []string
		for line := range strings.Lines(stdout) {
			if e, err := event.Decode([]byte(line)); err == nil { // There may be receipts.
				got = append(got, string(e.Verb())+" "+e.Subject)
			}
		}
		if diff := cmp.Diff(tt.want, got); code != 0 || stderr != "" || diff != "" {
			t.Errorf("%s: exit code %d, stderr %q, events (-want +got):\n%s", tt.name, code, stderr, diff)
		}
	}
	for name, r := range map[string]*running{"live": live, "updates": updates, "bridge": bridge} {
		if code := r.finish(t); code != 0 {
			t.Errorf("%s ends with exit code %d, want 0", name, code)
		}
	}
	if n := strings.Count(updates.stdout.String(), "\n"); n != 1 {
		t.Errorf("--changed shows %d events, want 1:\n%s", n, updates.stdout)
	}
}

func TestTailSurvivesRestartsOfTheServer(t *testing.T) {
	t.Parallel()
	nimble := startNimble(t, nimbletest.WithContacts(20))
	options := embedded.Options{Dir: t.TempDir(), Addr: freeAddress(t)}
	startServer := func() *embedded.Server {
		server, err := embedded.Start(options)
		if err != nil {
			t.Fatal(err)
		}
		return server
	}
	server := startServer()
	defer func() { server.Shutdown() }()
	env := variablesFor(t, nimble, "NATS_URL", server.URL())
	bridge := startApart(t, env)
	awaitReadiness(t, bridge.url(t), "")
	r := startApart(t, env, "tail", "--json", "--all")
	r.stdout.await(t, `"type":"com.nimble.contact.snapshot"`)
	ids := nimble.IDs()
	for round := range 2 {
		for i := range 30 {
			nimble.Edit(ids[i%len(ids)], nimbletest.Field("title", fmt.Sprint(round, "-", i)))
		}
		r.stdout.await(t, fmt.Sprintf(`"value":"%d-`, round))
		server.Shutdown()
		r.stderr.await(t, fmt.Sprintf(`(?s)(NATS is away.*){%d}`, round+1))
		server = startServer()
		r.stderr.await(t, fmt.Sprintf(`(?s)(going on where it stopped.*){%d}`, round+1))
		awaitReadiness(t, bridge.url(t), "")
	}
	last := nimble.Create()
	r.stdout.await(t, last)
	if code := bridge.finish(t); code != 0 {
		t.Errorf("the bridge ends with exit code %d", code)
	}

	conn, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if err := follow.Run(t.Context(), js, follow.Config{Stream: "NIMBLE", From: follow.All(), Stop: true}, func(m *follow.Message) error {
		want = append(want, m.Header.Get(event.HeaderID))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	soon(t, "tail has shown everything", func() bool { return strings.Count(r.stdout.String(), "\n") >= len(want) })
	for line := range strings.Lines(r.stdout.String()) {
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		got = append(got, e.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-in the stream +shown):\n%s", diff)
	}
}

func TestTailSaysThatNobodyListens(t *testing.T) {
	setenv(t, map[string]string{"EMBEDDED_NATS_ADDR": freeAddress(t)})
	code, stdout, stderr := runProgram(t.Context(), "tail")
	if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "nimble-bridge: no bridge with an embedded NATS server answers at EMBEDDED_NATS_ADDR") || !strings.Contains(stderr, "hint: start the bridge") {
		t.Errorf("exit code %d, stdout %q, stderr %q; want 1 and what to do", code, stdout, stderr)
	}
	server := startNATS(t, "127.0.0.1:0")
	setenv(t, map[string]string{"NATS_URL": server.URL()})
	code, _, stderr = runProgram(t.Context(), "tail", "--all", "--no-follow")
	want := "nimble-bridge: stream NIMBLE does not exist\nnimble-bridge: hint: start a bridge, which makes it; or set NATS_STREAM to the stream that yours writes\n"
	if code != 1 || stderr != want {
		t.Errorf("exit code %d, stderr %q; want 1 and %q", code, stderr, want)
	}
}

// streamOf makes a stream and stores messages in it.
func streamOf(t *testing.T, url string, messages ...*nats.Msg) (publish func(...*nats.Msg)) {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "NIMBLE", Subjects: []string{"nimble.>"}}); err != nil {
		t.Fatal(err)
	}
	publish = func(messages ...*nats.Msg) {
		t.Helper()
		for _, msg := range messages {
			if _, err := js.PublishMsg(t.Context(), msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(messages...)
	return publish
}

// sample is an event of the event package's own test data.
func sample(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("..", "..", "publisher", "event", "testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, body); err != nil {
		t.Fatal(err)
	}
	return line.Bytes()
}

func TestTailShowsEveryKindOfMessage(t *testing.T) {
	server := startNATS(t, "127.0.0.1:0")
	setenv(t, map[string]string{"NATS_URL": server.URL()})
	multiline := bytes.Replace(sample(t, "created"), []byte(`,"data"`), []byte(",\n\n  \"data\""), 1)
	streamOf(
		t, server.URL(),
		&nats.Msg{Subject: "nimble.acme.contact.created.a1", Data: multiline},
		&nats.Msg{Subject: "nimble.acme.bridge.reconciled", Data: sample(t, "reconciled")},
		&nats.Msg{Subject: "nimble.acme.bridge.rejected", Data: sample(t, "rejected")},
		&nats.Msg{Subject: "nimble.acme.bridge.later", Data: []byte(`{"specversion":"1.0","id":"1","source":"urn:nimble:acme","type":"com.nimble.bridge.later","data":{}}`)},
		&nats.Msg{Subject: "nimble.acme.contact.created.a2", Data: []byte(`no event`)},
		&nats.Msg{Subject: "nimble.other.contact.deleted.a3", Data: sample(t, "deleted")},
		&nats.Msg{Subject: "nimble.acme.contact.updated.a1", Data: sample(t, "updated")},
	)
	const complaint = "nimble-bridge: message 5 on nimble.acme.contact.created.a2 is no event: "
	code, stdout, stderr := runProgram(t.Context(), "tail", "--all", "--no-follow")
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	want := []string{
		`Z  created   \w+  .*#7$`,
		`Z  receipt   .* contacts in Nimble and in the stream`,
		`Z  rejected  `,
		`Z  other     an event of the type com\.nimble\.bridge\.later, which this version does not know$`,
		`Z  deleted   .*  other$`,
		`Z  updated   .* → .*  acme$`,
	}
	if code != 0 || !strings.HasPrefix(stderr, complaint) || len(lines) != len(want) {
		t.Fatalf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
	for i, pattern := range want {
		if !regexp.MustCompile(pattern).MatchString(lines[i]) {
			t.Errorf("line %d is %q, want %s", i, lines[i], pattern)
		}
	}

	code, stdout, stderr = runProgram(t.Context(), "tail", "--all", "--no-follow", "--json")
	lines = strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if code != 0 || !strings.HasPrefix(stderr, complaint) || len(lines) != 6 || lines[0] != string(sample(t, "created")) || lines[5] != string(sample(t, "updated")) {
		t.Errorf("exit code %d, stderr %q, events:\n%s", code, stderr, stdout)
	}
}

// onTerminal is an output that somebody watches.
type onTerminal struct{ *output }

func (onTerminal) isTerminal() bool { return true }

func TestTailOnATerminal(t *testing.T) {
	server := startNATS(t, "127.0.0.1:0")
	setenv(t, map[string]string{"NATS_URL": server.URL(), "NO_COLOR": "1"})
	now := time.Now()
	dated := func(id string, at time.Time) *nats.Msg {
		e := &event.Event{
			Envelope: event.Envelope{ID: id, Source: event.Source("acme"), Type: event.Updated.Type(), Subject: id, Time: at},
			Data: event.Data{Account: "acme", RecordType: "person", Revision: 2, Observed: at, FoundBy: "poll", Summary: event.Summary{Name: id}, Contact: []byte("{}"), Changes: map[string]event.Change{
				"tags": {Before: []byte("[]"), After: []byte(`["x"]`)},
			}},
		}
		return &nats.Msg{Subject: "nimble.acme.contact.updated." + id, Data: e.Encode()}
	}
	before := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	publish := streamOf(t, server.URL(), dated("a", before), dated("b", before.Add(time.Hour)), dated("c", now))
	stdout, stderr := newOutput(), newOutput()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"tail", "--all"}, strings.NewReader(""), onTerminal{stdout}, stderr) }()
	stdout.await(t, `updated   c`)
	publish(dated("d", now))
	stdout.await(t, `updated   d`)
	stop()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d, want 0", got)
	}
	clock := now.Format("15:04:05")
	want := `── Sunday, 1 March 2026 ──
12:00:00  updated   a  #2  a
                      tags          (none) → x
13:00:00  updated   b  #2  b
                      tags          (none) → x
` + now.Format("── Monday, 2 January 2006 ──") + `
` + clock + `  updated   c  #2  c
                      tags          (none) → x
` + clock + `  updated   d  #2  d
                      tags          (none) → x
`
	if diff := cmp.Diff(want, stdout.String()); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	if got := stderr.String(); got != "nimble-bridge: following stream NIMBLE; Ctrl-C ends it\n" {
		t.Errorf("stderr %q", got)
	}
}

// A pipe whose reader has gone ends the program well: what it prints may go through head.
func TestTailEndsWithItsReader(t *testing.T) {
	t.Parallel()
	server := startNATS(t, "127.0.0.1:0")
	created := &nats.Msg{Subject: "nimble.acme.contact.created.a1", Data: sample(t, "created")}
	publish := streamOf(t, server.URL(), created)
	cmd := exec.CommandContext(t.Context(), buildProgram(t, bridgePackage), "tail", "--all")
	cmd.Env = append(os.Environ(), "NATS_URL="+server.URL())
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(pipe).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	publish(created)
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("it ends with %v, stderr %q; want exit code 0 and nothing", err, &stderr)
	}
}

func TestTailSubjects(t *testing.T) {
	for _, tt := range []struct {
		name string
		t    tailing
		want []string
	}{
		{"everything", tailing{}, []string{"n.*.contact.*.*", "n.*.bridge.>"}},
		{"accounts", tailing{accounts: []string{"b", "a", "b"}}, []string{"n.a.contact.*.*", "n.a.bridge.>", "n.b.contact.*.*", "n.b.bridge.>"}},
		{"types", tailing{types: []string{"updated", "created", "rejected"}}, []string{"n.*.contact.created.*", "n.*.contact.updated.*", "n.*.bridge.rejected"}},
		{"notices only", tailing{types: []string{"reconciled"}}, []string{"n.*.bridge.reconciled"}},
		{"contacts", tailing{contacts: []string{"1", "2"}}, []string{"n.*.contact.*.1", "n.*.contact.*.2"}},
		{"changes", tailing{changed: []string{"tags"}, contacts: []string{"1"}}, []string{"n.*.contact.updated.1"}},
	} {
		if got := tt.t.subjects("n"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"90m":                       now.Add(-90 * time.Minute),
		"0":                         now,
		"2d":                        time.Date(2026, 2, 27, 10, 0, 0, 0, time.UTC),
		"2026-02-03":                time.Date(2026, 2, 3, 0, 0, 0, 0, time.Local),
		"2026-02-03T04:05:06+01:00": time.Date(2026, 2, 3, 3, 5, 6, 0, time.UTC),
		"-1h":                       {},
		"yesterday":                 {},
		"d":                         {},
		"":                          {},
	} {
		got, ok := parseSince(text, now)
		if ok != !want.IsZero() || ok && !got.Equal(want) {
			t.Errorf("parseSince(%q) = %v, %v, want %v", text, got, ok, want)
		}
	}
}
