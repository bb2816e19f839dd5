package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/event"
)

// auditKills is how often the auditor is killed while events come in. Twenty take about half a minute:
//
//	go test ./cmd/nimble-bridge -run TestAuditorKilled -audit.kills=20 -v
var auditKills = flag.Int("audit.kills", 3, "kills of the auditor in TestAuditorKilled")

// history is an event stream with somebody who publishes to it.
type history struct {
	t  *testing.T
	js jetstream.JetStream
	// revisions has the last revision of each contact.
	revisions map[string]uint64
}

func newHistory(t *testing.T, url string) *history {
	t.Helper()
	nc, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "NIMBLE", Subjects: []string{"nimble.*.contact.*.*", "nimble.*.bridge.*"}})
		return err
	})
	return &history{t: t, js: js, revisions: make(map[string]uint64)}
}

// event is the next event of a contact.
func (h *history) event(id string) *nats.Msg {
	h.revisions[id]++
	revision, verb := h.revisions[id], event.Updated
	if revision == 1 {
		verb = event.Created
	}
	e := &event.Event{
		Envelope: event.Envelope{ID: fmt.Sprint(id, "-", revision), Source: event.Source("acme"), Type: verb.Type(), Subject: id, Time: time.Now()},
		Data: event.Data{
			Account: "acme", RecordType: "person", Revision: revision, Observed: time.Now(), FoundBy: "poll",
			Summary: event.Summary{Name: "Tomasz Brandt"}, Contact: []byte(`{"id":"` + id + `","text":"` + strings.Repeat("x", 500) + `"}`),
		},
	}
	headers := event.Headers{ID: e.ID, Verb: verb, Revision: revision}
	subject := event.Subject{Prefix: "nimble", Account: "acme", Verb: verb, ContactID: id}
	return &nats.Msg{Subject: subject.String(), Header: nats.Header(headers.Map()), Data: e.Encode()}
}

// publish stores events of some contacts.
func (h *history) publish(events int) {
	h.t.Helper()
	if err := h.store(events); err != nil {
		h.t.Fatal(err)
	}
}

// store is publish for other goroutines than the test's.
func (h *history) store(events int) error {
	for range events {
		if _, err := h.js.PublishMsgAsync(h.event(fmt.Sprint("c", rand.IntN(100))), jetstream.WithStallWait(10*time.Second)); err != nil {
			return err
		}
	}
	select {
	case <-h.js.PublishAsyncComplete():
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("the events are not stored")
	}
}

// state is how far the stream reaches.
func (h *history) state() jetstream.StreamState {
	h.t.Helper()
	stream, err := h.js.Stream(h.t.Context(), "NIMBLE")
	if err != nil {
		h.t.Fatal(err)
	}
	return stream.CachedInfo().State
}

// audited waits until an auditor has acknowledged everything.
func (h *history) audited() {
	h.t.Helper()
	within(h.t, 30*time.Second, func(ctx context.Context) error {
		stream, err := h.js.Stream(ctx, "NIMBLE")
		if err != nil {
			return err
		}
		last := stream.CachedInfo().State.LastSeq
		acknowledged := false
		for info := range stream.ListConsumers(ctx).Info() { // It has to be read to the end.
			acknowledged = acknowledged || strings.HasPrefix(info.Name, "audit-") && info.AckFloor.Stream >= last
		}
		if !acknowledged {
			return fmt.Errorf("no auditor has acknowledged %d", last)
		}
		return nil
	})
}

// sequences counts how often each sequence stands in a folder, with nothing of the package that wrote it.
func sequences(t *testing.T, dir string) map[uint64]int {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "audit-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[uint64]int)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(string(content)) {
			if !strings.HasSuffix(text, "\n") {
				break // It was torn.
			}
			var line struct {
				Seq uint64 `json:"seq"`
			}
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if line.Seq > 0 {
				count[line.Seq]++
			}
		}
	}
	return count
}

// TestAuditorKilled kills the auditor at random moments while events come in as fast as the server takes them.
func TestAuditorKilled(t *testing.T) {
	t.Parallel()
	path := buildProgram(t, bridgePackage)
	// A server that syncs seldom takes more events in the same time.
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	launch(t, buildProgram(t, serverPackage), nil, "-js", "-sd", t.TempDir(), "-a", "127.0.0.1", "-p", port)
	h := newHistory(t, "nats://"+addr)
	dir := filepath.Join(t.TempDir(), "log")
	env := []string{"NATS_URL=nats://" + addr, "LOG_FORMAT=json"}
	start := func() *process { return launch(t, path, env, "audit", "--dir", dir, "--max-file-size", "4MiB") }
	stop, published := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				published <- nil
				return
			default:
			}
			if err := h.store(1000); err != nil {
				published <- err
				return
			}
		}
	}()
	torn := 0
	for range *auditKills {
		auditor := start()
		wait(t, time.Duration(100+rand.IntN(900))*time.Millisecond)
		auditor.kill()
		if len(tail(t, dir)) > 0 {
			torn++
		}
	}
	close(stop)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	auditor := start()
	h.audited()
	if code := auditor.stop(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	state := h.state()
	count := sequences(t, dir)
	for sequence := uint64(1); sequence <= state.LastSeq; sequence++ {
		if count[sequence] != 1 {
			t.Fatalf("sequence %d stands %d times in the log", sequence, count[sequence])
		}
	}
	if len(count) != int(state.LastSeq) {
		t.Errorf("the log has %d sequences, the stream %d", len(count), state.LastSeq)
	}
	verifier := launch(t, path, env, "audit", "--dir", dir, "--verify")
	if err := verifier.cmd.Wait(); err != nil {
		t.Errorf("the log does not verify: %v", err)
	}
	out, err := os.ReadFile(verifier.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills, %d of them tore a line, %d events\n%s", *auditKills, torn, state.LastSeq, out)
}

// tail is what follows the last line feed of a log's last file.
func tail(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "audit-*.jsonl"))
	if err != nil || len(paths) == 0 {
		return ""
	}
	content, err := os.ReadFile(paths[len(paths)-1])
	if err != nil {
		t.Fatal(err)
	}
	return string(content[strings.LastIndexByte(string(content), '\n')+1:])
}

// TestAuditorOnAFullDisk limits the size of files, so that a write stops in the middle, as it does on a full disk.
func TestAuditorOnAFullDisk(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("this system has no limit on the size of files")
	}
	path := buildProgram(t, bridgePackage)
	server := startNATS(t, "127.0.0.1:0")
	h := newHistory(t, server.URL())
	h.publish(500)
	dir := filepath.Join(t.TempDir(), "log")
	env := []string{"NATS_URL=" + server.URL(), "LOG_FORMAT=json"}
	full := launch(t, "/bin/sh", env, "-c", `ulimit -f 100 && exec "$@"`, "sh", path, "audit", "--dir", dir)
	_ = full.cmd.Wait()
	out, err := os.ReadFile(full.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	if code := full.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), "cannot be written") || !strings.Contains(string(out), "file too large") {
		t.Errorf("exit code %d, output %s; want 1 and the reason", code, out)
	}
	for info := range must(h.js.Stream(t.Context(), "NIMBLE")).ListConsumers(t.Context()).Info() {
		if kept := len(sequences(t, dir)); uint64(kept) < info.AckFloor.Stream {
			t.Errorf("%d events are in the log, and %d acknowledged", kept, info.AckFloor.Stream)
		}
	}
	again := launch(t, path, env, "audit", "--dir", dir)
	h.audited()
	if code := again.stop(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	if count := sequences(t, dir); len(count) != 500 {
		t.Errorf("the log has %d sequences, want 500", len(count))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestAuditCommand goes through what an operator does: write, verify, tamper, redact.
func TestAuditCommand(t *testing.T) {
	server := startNATS(t, "127.0.0.1:0")
	h := newHistory(t, server.URL())
	h.publish(50)
	setenv(t, map[string]string{"EMBEDDED_NATS_ADDR": strings.TrimPrefix(server.URL(), "nats://")}) // As beside a bridge with an embedded server.
	dir := filepath.Join(t.TempDir(), "log")
	write := func(flags ...string) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan string, 1)
		go func() {
			code, stdout, stderr := runProgram(ctx, append([]string{"audit", "--dir", dir}, flags...)...)
			ended <- fmt.Sprint(code, " ", stdout, stderr)
		}()
		h.audited()
		stop()
		if got := <-ended; !strings.HasPrefix(got, "0 ") {
			t.Errorf("the auditor ended with %s", got)
		}
	}
	write("--max-file-size", "20KiB", "--compress")
	verify := func(wantCode int, flags ...string) string {
		t.Helper()
		code, stdout, stderr := runProgram(t.Context(), append([]string{"audit", "--dir", dir, "--verify"}, flags...)...)
		if code != wantCode {
			t.Errorf("verifying with %v: exit code %d, want %d\n%s%s", flags, code, wantCode, stdout, stderr)
		}
		return stdout + stderr
	}
	out := verify(0)
	for _, want := range []string{"✓ chain         5", "✓ stream        50 messages", "✓ end           the log reaches the end", "– receipts      there is none", "– anchors       none given", "The log ends with hash "} {
		if !strings.Contains(out, want) {
			t.Errorf("verification prints\n%s\nwant %q in it", out, want)
		}
	}
	_, hash, _ := strings.Cut(out, "ends with hash ")
	hash = hash[:64]

	h.publish(10)
	write("--without-content")
	if out := verify(0, "--anchor", hash); !strings.Contains(out, "✓ anchors       "+hash[:8]) || !strings.Contains(out, "50 events with the content that its hash is of; 10 without") {
		t.Errorf("with an anchor it prints\n%s", out)
	}
	if out := verify(1, "--anchor", strings.Repeat("0", 63)+"1"); !strings.Contains(out, "✗ anchors       1 fault") {
		t.Errorf("with another anchor it prints\n%s", out)
	}
	if out := verify(0, "--offline"); !strings.Contains(out, "– stream        not compared: --offline") {
		t.Errorf("offline it prints\n%s", out)
	}
	var document verification
	if out := verify(0, "--json"); json.Unmarshal([]byte(out), &document) != nil || !document.Holds || document.Sequence != 60 || len(document.Checks) != 9 {
		t.Errorf("as JSON it prints\n%s", out)
	}

	code, stdout, stderr := runProgram(t.Context(), "audit", "--dir", dir, "--redact", "c1", "--redact", "c2")
	if code != 0 || !strings.Contains(stdout, "events have lost their content") {
		t.Errorf("redacting: exit code %d\n%s%s", code, stdout, stderr)
	}
	verify(0, "--anchor", hash)

	// NATS away: a reason to fail only for who names a server.
	t.Setenv("EMBEDDED_NATS_ADDR", freeAddress(t))
	if out := verify(0); !strings.Contains(out, "not compared: no bridge with an embedded NATS server answers at") {
		t.Errorf("without a server it prints\n%s", out)
	}
	t.Setenv("NATS_URL", "nats://"+freeAddress(t))
	if out := verify(1); !strings.Contains(out, "✓ chain") || !strings.Contains(out, "NATS is not reachable at") || !strings.Contains(out, "hint: the log holds by itself") {
		t.Errorf("without its server it prints\n%s", out)
	}
	t.Setenv("NATS_URL", server.URL())

	paths, err := filepath.Glob(filepath.Join(dir, "audit-*.jsonl"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	content, err := os.ReadFile(paths[len(paths)-1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths[len(paths)-1], []byte(strings.Replace(string(content), `"Nimble-Revision":"`, `"Nimble-Revision":"1`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out = verify(1)
	if want := "    " + filepath.Base(paths[len(paths)-1]) + " line "; !strings.Contains(out, "✗ chain         1 fault") || !strings.Contains(out, want) ||
		!strings.HasSuffix(out, "nimble-bridge: audit log "+dir+" does not hold\n") {
		t.Errorf("of a changed log it prints\n%s", out)
	}
}

// TestAuditOfABridge audits a bridge at work, whose receipts have to agree with what the log has.
func TestAuditOfABridge(t *testing.T) {
	nimble := startNimble(t, nimbletest.WithContacts(60))
	server := startNATS(t, "127.0.0.1:0")
	environment(t, nimble, "NATS_URL", server.URL(), "RECONCILE_INTERVAL", "200ms", "POLL_OVERLAP", "200ms")
	dir := filepath.Join(t.TempDir(), "log")
	auditor := start(t, "audit", "--dir", dir)
	bridge := start(t, "run")
	auditor.stderr.await(t, `"msg":"auditing"`)
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	h := &history{t: t, js: must(jetstream.New(nc))}
	subjects := func(filter string) int {
		info, err := must(h.js.Stream(t.Context(), "NIMBLE")).Info(t.Context(), jetstream.WithSubjectFilter(filter))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, count := range info.State.Subjects {
			n += int(count)
		}
		return n
	}
	comes := func(filter string, n int) {
		t.Helper()
		within(t, patience, func(context.Context) error {
			if got := subjects(filter); got < n {
				return fmt.Errorf("%d messages on %s, want %d", got, filter, n)
			}
			return nil
		})
	}
	comes("nimble.acme.contact.snapshot.*", 60)
	comes("nimble.acme.bridge.reconciled", 1)
	nimble.Create()
	nimble.Edit(nimble.IDs()[0], nimbletest.Field("title", "CFO"))
	nimble.Delete(nimble.IDs()[1])
	comes("nimble.acme.contact.deleted.*", 1)
	comes("nimble.acme.bridge.reconciled", subjects("nimble.acme.bridge.reconciled")+1)
	if code := bridge.finish(t); code != 0 {
		t.Errorf("the bridge ended with exit code %d", code)
	}
	h.audited()
	if code := auditor.finish(t); code != 0 {
		t.Errorf("the auditor ended with exit code %d", code)
	}
	code, stdout, stderr := runProgram(t.Context(), "audit", "--dir", dir, "--verify")
	if code != 0 || !strings.Contains(stdout, "✓ receipts") || !strings.Contains(stdout, "✓ end           the log reaches the end") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestWrongUsageOfAudit(t *testing.T) {
	const hint = "nimble-bridge: hint: \"nimble-bridge audit --help\" says how it is used\n"
	setenv(t, nil)
	for args, want := range map[string]string{
		"":                                      "--dir is not set, want the folder of the log",
		"--dir d --offline":                     "--offline goes with --verify only",
		"--dir d --anchor x":                    "--anchor goes with --verify only",
		"--dir d --verify --compress":           "--compress goes with writing only",
		"--dir d --verify --redact a":           "--verify and --redact are two things to do, one after the other",
		"--dir d --redact a --durable x":        "--durable goes with writing and --verify only",
		"--dir d --redact a.b":                  `--redact is "a.b", want a contact's id`,
		"--dir d --durable a.b":                 `--durable is "a.b", want a name of letters, digits, - and _`,
		"--dir d --verify --anchor abc":         `--anchor: "abc" is no hash, want 64 digits from 0-9 and a-f`,
		"--dir d --max-file-size 0":             `invalid argument "0" for "--max-file-size" flag: want a size above 0 such as 64MiB`,
		"--dir d --max-file-size 90000000TiB":   `invalid argument "90000000TiB" for "--max-file-size" flag: want a size above 0 such as 64MiB`,
		"--dir d --max-file-size 9999999999GiB": `invalid argument "9999999999GiB" for "--max-file-size" flag: want a size above 0 such as 64MiB`,
	} {
		code, stdout, stderr := runProgram(t.Context(), append([]string{"audit"}, strings.Fields(args)...)...)
		if code != 2 || stdout != "" {
			t.Errorf("audit %s: exit code %d, stdout %q; want 2 and nothing", args, code, stdout)
		}
		if diff := cmp.Diff("nimble-bridge: "+want+"\n"+hint, stderr); diff != "" {
			t.Errorf("audit %s: stderr (-want +got):\n%s", args, diff)
		}
	}
}

func TestByteSize(t *testing.T) {
	for given, want := range map[string]byteSize{"1": 1, "1500": 1500, "4KiB": 4096, "64MiB": 64 << 20, "2GiB": 2 << 30, "1024KiB": 1 << 20} {
		var got byteSize
		if err := got.Set(given); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", given, got, err, want)
		}
		var again byteSize
		if err := again.Set(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s, which is %d, %v", given, got.String(), again, err)
		}
	}
}

// TestAuditNeedsALog names what is not there.
func TestAuditNeedsALog(t *testing.T) {
	setenv(t, nil)
	dir := t.TempDir()
	for _, args := range [][]string{{"--verify", "--offline"}, {"--redact", "c1"}} {
		code, _, stderr := runProgram(t.Context(), append([]string{"audit", "--dir", dir}, args...)...)
		if want := "nimble-bridge: audit log " + dir + " cannot be used: there is no audit log in it; give the directory that an auditor writes to\n"; code != 1 || stderr != want {
			t.Errorf("%v: exit code %d, %s; want 1 and %s", args, code, stderr, want)
		}
	}
}
