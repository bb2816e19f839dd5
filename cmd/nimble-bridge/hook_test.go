package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/hook"
)

// hookKills is how often the hook is killed while events come in:
//
//	go test ./cmd/nimble-bridge -run TestHookKilled -hook.kills=20 -v
var hookKills = flag.Int("hook.kills", 1, "kills of the hook in TestHookKilled")

// receiver takes webhooks, as a service does that was built with the official library.
type receiver struct {
	*httptest.Server
	t     *testing.T
	judge *standardwebhooks.Webhook
	// answer decides about an event whose signature is right.
	answer func(e *event.Event, w http.ResponseWriter)

	mu sync.Mutex
	// calls has each call, done those that were answered with success, as "<contact> <revision>".
	calls, done []string
}

func newReceiver(t *testing.T, secret string) *receiver {
	t.Helper()
	r := &receiver{t: t}
	if secret != "" {
		var err error
		if r.judge, err = standardwebhooks.NewWebhook(secret); err != nil {
			t.Fatal(err)
		}
	}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // The caller was killed.
	}
	if r.judge != nil {
		if err := r.judge.Verify(body, req.Header); err != nil {
			r.t.Errorf("a call without a valid signature: %v", err)
		}
	}
	e, err := event.Decode(body)
	if err != nil {
		r.t.Error(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name := fmt.Sprint(e.Subject, " ", e.Data.Revision)
	r.calls = append(r.calls, name)
	answer := &httptest.ResponseRecorder{Code: http.StatusNoContent}
	if r.answer != nil {
		r.answer(e, answer)
	}
	if answer.Code < 300 {
		r.done = append(r.done, name)
	}
	w.WriteHeader(answer.Code)
}

func (r *receiver) finished() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

// hookEnv is the environment of a hook beside a server.
func hookEnv(url string, more ...string) map[string]string {
	env := map[string]string{"NATS_URL": url, "LOG_LEVEL": "debug", "LOG_FORMAT": "json"}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	return env
}

var quickly = []string{"--first-retry", "5ms", "--longest-retry", "20ms", "--from", "all"}

// send stores the next event of each contact.
func (h *history) send(contacts ...string) {
	h.t.Helper()
	for _, id := range contacts {
		if _, err := h.js.PublishMsg(h.t.Context(), h.event(id)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func TestHookDeliversAfterFailuresInOrder(t *testing.T) {
	server, secret := startNATS(t, "127.0.0.1:0"), hook.NewSecret()
	r := newReceiver(t, secret)
	failures := 0
	r.answer = func(e *event.Event, w http.ResponseWriter) {
		if e.Subject == "a" && e.Data.Revision == 1 && failures < 3 {
			failures++
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(hook.NewSecret()+"\n"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	setenv(t, hookEnv(server.URL(), "HOOK_SECRET_FILE", file))
	running := start(t, append([]string{"hook", "--url", r.URL + "/hooks?token=sesame", "--durable", "crm"}, quickly...)...)
	running.stderr.await(t, `"msg":"waiting for the stream"`)
	h := newHistory(t, server.URL())
	h.send("a", "a", "b", "a")
	within(t, patience, func(context.Context) error {
		if n := len(r.finished()); n < 4 {
			return fmt.Errorf("%d events delivered", n)
		}
		return nil
	})
	if code := running.finish(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	of := func(calls []string, contact string) []string {
		return slices.DeleteFunc(slices.Clone(calls), func(call string) bool { return !strings.HasPrefix(call, contact) })
	}
	if diff := cmp.Diff([]string{"a 1", "a 1", "a 1", "a 1", "a 2", "a 3"}, of(r.calls, "a")); diff != "" {
		t.Errorf("calls for a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b 1"}, of(r.calls, "b")); diff != "" {
		t.Errorf("calls for b (-want +got):\n%s", diff)
	}
	if log := running.stderr.String(); strings.Contains(log, "sesame") || strings.Contains(log, "Tomasz") || !strings.Contains(log, "503 Service Unavailable") {
		t.Errorf("the log does not name the failure, or what it should not:\n%s", log)
	}
}

// The hook is killed again and again while it calls. Nothing is lost, and each contact's events come in order.
func TestHookKilled(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	path := buildProgram(t, bridgePackage)
	server, secret := startNATS(t, "127.0.0.1:0"), hook.NewSecret()
	r := newReceiver(t, secret)
	r.answer = func(_ *event.Event, w http.ResponseWriter) {
		if rand.IntN(10) == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	h := newHistory(t, server.URL())
	env := []string{"NATS_URL=" + server.URL(), "HOOK_SECRET=" + secret}
	args := append([]string{"hook", "--url", r.URL, "--max-tries", "1000"}, quickly...)
	for range *hookKills {
		before := len(r.finished())
		process := launch(t, path, env, args...)
		h.publish(200)
		within(t, time.Minute, func(context.Context) error {
			if n := len(r.finished()); n < before+100 {
				return fmt.Errorf("%d events delivered", n-before)
			}
			return nil
		})
		process.kill()
	}
	process := launch(t, path, env, args...)
	process.writes(t, `"msg":"hook runs"`) // Everything may have been delivered before, and it is to hear the signal.
	within(t, time.Minute, func(context.Context) error { return inOrder(r.finished(), h.revisions) })
	if code := process.stop(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	done := r.finished()
	events := uint64(0)
	for _, last := range h.revisions {
		events += last
	}
	t.Logf("%d events, %d kills: %d delivered, %d of them twice", events, *hookKills, len(done), len(done)-int(events))
}

// inOrder checks that each contact's revisions were delivered from the first to the last, none after a later one.
func inOrder(done []string, revisions map[string]uint64) error {
	last := make(map[string]uint64)
	var wrong []error
	for _, call := range done {
		var contact string
		var revision uint64
		if _, err := fmt.Sscan(call, &contact, &revision); err != nil {
			return err
		}
		if revision != last[contact] && revision != last[contact]+1 {
			wrong = append(wrong, fmt.Errorf("contact %s: revision %d after %d", contact, revision, last[contact]))
		}
		last[contact] = max(last[contact], revision)
	}
	if diff := cmp.Diff(revisions, last); diff != "" {
		wrong = append(wrong, fmt.Errorf("revisions (-want +got):\n%s", diff))
	}
	return errors.Join(wrong...)
}

func TestHookEndsWhenTheReceiverIsGone(t *testing.T) {
	server, secret := startNATS(t, "127.0.0.1:0"), hook.NewSecret()
	r := newReceiver(t, secret)
	r.answer = func(_ *event.Event, w http.ResponseWriter) { w.WriteHeader(http.StatusGone) }
	newHistory(t, server.URL()).send("a")
	setenv(t, hookEnv(server.URL(), "HOOK_SECRET", secret, "LOG_LEVEL", "error"))
	args := append([]string{"hook", "--url", r.URL + "/hooks", "--durable", "crm"}, quickly...)
	code, _, stderr := runProgram(t.Context(), args...)
	want := "nimble-bridge: POST " + r.URL + "/hooks: 410 Gone: the receiver wants no more events\n" +
		"nimble-bridge: hint: the event is kept: where the receiver takes events again, start the hook again; otherwise delete it with `nats consumer rm NIMBLE crm`\n"
	if diff := cmp.Diff(want, stderr); code != 3 || diff != "" {
		t.Errorf("exit code %d, want 3; stderr (-want +got):\n%s", code, diff)
	}
	if len(r.calls) != 1 {
		t.Errorf("%d calls, want 1", len(r.calls))
	}
	r.answer = nil
	again := start(t, args...)
	within(t, patience, func(context.Context) error {
		if len(r.finished()) == 0 {
			return errors.New("the event is not delivered")
		}
		return nil
	})
	again.finish(t)
}

func TestHookRunsACommandAndItsDeadLetters(t *testing.T) {
	server := startNATS(t, "127.0.0.1:0")
	h := newHistory(t, server.URL())
	h.send("good", "bad", "worse", "good")
	dir := t.TempDir()
	script := `[ -z "$HOOK_SECRET$NATS_URL" ] || exit 9
		[ -f "$1/mended" ] || case $NIMBLE_CONTACT_ID in bad) exit 1 ;; worse) exit 65 ;; esac
		echo "$NIMBLE_CONTACT_ID $NIMBLE_REVISION $NIMBLE_EVENT_TYPE" && cat > "$1/$NIMBLE_CONTACT_ID"`
	setenv(t, hookEnv(server.URL(), "HOOK_SECRET", hook.NewSecret()))
	args := slices.Concat([]string{"hook", "--exec", "--durable", "run", "--max-tries", "2"}, quickly, []string{"--", "sh", "-c", script, "sh", dir})
	running := start(t, args...)
	running.stdout.await(t, `(?s)good 1 created.*good 2 updated`)
	letters := func() string {
		code, stdout, stderr := runProgram(t.Context(), "hook", "dead", "list")
		if code != 0 || stderr != "" {
			t.Errorf("hook dead list: exit code %d, stderr %q", code, stderr)
		}
		return stdout
	}
	within(t, patience, func(context.Context) error {
		if list := letters(); strings.Count(list, "\n") != 3 {
			return errors.New(list)
		}
		return nil
	})
	list := letters()
	for _, want := range []string{`bad +created +1 +2 +exhausted +sh: exit status 1`, `worse +created +1 +1 +refused +sh: exit status 65`} {
		if !matches(want, list) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	_, stdout, _ := runProgram(t.Context(), "hook", "dead", "list", "--json", "--contact", "bad")
	if !strings.HasPrefix(stdout, `{"letter":`) || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"event":{"specversion":"1.0"`) {
		t.Errorf("hook dead list --json prints %s", stdout)
	}

	if code, stdout, stderr := runProgram(t.Context(), "hook", "dead", "drop", "--contact", "worse"); code != 0 || stdout != "1 dead letter removed\n" {
		t.Errorf("hook dead drop: exit code %d, %q %q", code, stdout, stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "mended"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := runProgram(t.Context(), "hook", "dead", "retry", "--durable", "run", "--all"); code != 0 || stdout != "1 dead letter handed to its consumer again\n" {
		t.Errorf("hook dead retry: exit code %d, %q %q", code, stdout, stderr)
	}
	running.stdout.await(t, `bad 1 created`)
	within(t, patience, func(context.Context) error {
		if list := letters(); list != "no dead letters\n" {
			return errors.New(list)
		}
		return nil
	})
	if body, err := os.ReadFile(filepath.Join(dir, "good")); err != nil || !strings.Contains(string(body), `"revision":2`) {
		t.Errorf("the command's input was %q, %v", body, err)
	}
	if code := running.finish(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestHookDeadWithoutLetters(t *testing.T) {
	server := startNATS(t, "127.0.0.1:0")
	setenv(t, hookEnv(server.URL()))
	for args, want := range map[string]string{
		"list": "no dead letters\n", "list --json": "", "retry --all": "0 dead letters handed to their consumers again\n", "drop --contact a": "0 dead letters removed\n",
	} {
		code, stdout, stderr := runProgram(t.Context(), append([]string{"hook", "dead"}, strings.Fields(args)...)...)
		if code != 0 || stdout != want || stderr != "" {
			t.Errorf("hook dead %s: exit code %d, %q %q; want 0 and %q", args, code, stdout, stderr, want)
		}
	}
	if code, _, stderr := runProgram(t.Context(), "hook", "dead", "drop", "7"); code != 1 || stderr == "" {
		t.Errorf("hook dead drop 7: exit code %d, %q; want 1 and why", code, stderr)
	}
}

func TestHookDryRun(t *testing.T) {
	server := startNATS(t, "127.0.0.1:0")
	h := newHistory(t, server.URL())
	h.send("a", "b", "a")
	setenv(t, hookEnv(server.URL()))
	code, stdout, stderr := runProgram(t.Context(), "hook", "--dry-run", "--from", "all", "--url", "https://crm.example/hooks?token=sesame", "--where", `revision == 2 or contact_id == "b" and contact.none.x == 1`)
	want := "created of contact b, revision 1, sequence 2 would become a dead letter: condition revision == 2 or contact_id == \"b\" and contact.none.x == 1: cannot fetch x from <nil>, at character 53\n" +
		"updated of contact a, revision 2, sequence 3: would POST https://crm.example/hooks\n"
	if diff := cmp.Diff(want, stdout); code != 0 || stderr != "" || diff != "" {
		t.Errorf("exit code %d, stderr %q; stdout (-want +got):\n%s", code, stderr, diff)
	}
	code, stdout, _ = runProgram(t.Context(), "hook", "--dry-run", "--from", "1h", "--type", "created", "--contact", "a", "--exec", "--", "true")
	if code != 0 || stdout != "created of contact a, revision 1, sequence 1: would run true\n" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	stream, err := h.js.Stream(t.Context(), "NIMBLE")
	if err != nil {
		t.Fatal(err)
	}
	for info := range stream.ListConsumers(t.Context()).Info() {
		if info.Config.Durable != "" {
			t.Errorf("durable %s is left", info.Name)
		}
	}
	if _, err := h.js.Stream(t.Context(), "nimble-dead"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("a stream for dead letters is left: %v", err)
	}
}

func TestHookDurableIsDerivedFromTheTarget(t *testing.T) {
	name := func(h hooking, args ...string) string {
		h.from, h.concurrency, h.tries, h.first, h.longest, h.timeout = "now", 1, 1, time.Second, time.Second, time.Second
		plan, problems := h.plan(nil, args, time.Now())
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return plan.consumer.Durable
	}
	first := name(hooking{url: "https://crm.example:8443/hooks?token=a"})
	if !strings.HasPrefix(first, "hook-crm-example-8443-") || !word.MatchString(first) {
		t.Errorf("durable %q", first)
	}
	if second := name(hooking{url: "https://crm.example:8443/hooks?token=b", where: "revision > 1"}); second != first {
		t.Errorf("durable %q, want %q: the receiver is the same", second, first)
	}
	if other := name(hooking{url: "https://crm.example:8443/other"}); other == first {
		t.Errorf("two receivers share the durable %q", other)
	}
	one, two := name(hooking{exec: true}, "sh", "-c", "a"), name(hooking{exec: true}, "sh", "-c", "b")
	if !strings.HasPrefix(one, "hook-sh-") || one == two {
		t.Errorf("durables %q and %q", one, two)
	}
	if got := name(hooking{url: "https://crm.example", durable: "crm"}); got != "crm" {
		t.Errorf("durable %q, want crm", got)
	}
}

func TestHookWrongUsage(t *testing.T) {
	setenv(t, nil)
	tests := []struct{ name, args, want string }{
		{"nothing", "", "nimble-bridge: neither --url nor --exec is given, want one of them\n"},
		{"both", "--url https://a --exec -- true", "nimble-bridge: --url and --exec are both given, want one of them\n"},
		{"a command without --exec", "-- true", "nimble-bridge: \"true\" is given after --, which goes with --exec\nnimble-bridge: hint: \"nimble-bridge hook --help\" says how it is used\n"},
		{"no command", "--exec", "nimble-bridge: --exec is given without a command, want it after --\n"},
		{"no such command", "--exec -- no-such-command", "nimble-bridge: the command \"no-such-command\" cannot be run: executable file not found in $PATH\n"},
		{
			"no secret", "--url https://a",
			"nimble-bridge: HOOK_SECRET is not set\nnimble-bridge: hint: set it to the receiver's secret (\"nimble-bridge hook secret\" makes one), or give --unsigned\n",
		},
		{"a URL with a password", "--unsigned --url ftp://me:hush@a", "nimble-bridge: --url is \"…@a\", want one such as https://crm.example/hooks\n"},
		{
			"everything", "--exec --unsigned --type gone --contact a.b --where summary.tag --durable a.b --from soon --concurrency 0 --max-tries 0 --first-retry 2s --longest-retry 1s --timeout 0s -- true",
			`nimble-bridge: --unsigned goes with --url only
nimble-bridge: --type is "gone", want snapshot, created, updated, deleted
nimble-bridge: --contact is "a.b", want letters, digits, - and _
nimble-bridge: --where: summary has no field tag (1:9)
 | summary.tag
 | ........^
nimble-bridge: --durable is "a.b", want a name of letters, digits, - and _
nimble-bridge: --concurrency is 0, want 1 to 1000
nimble-bridge: --max-tries is 0, want 1 or more
nimble-bridge: --longest-retry is 1s, want at least --first-retry, 2s
nimble-bridge: --timeout is 0s, want more than 0
nimble-bridge: --from is "soon", want now, all, a time ago such as 90m or 2d, a day such as 2026-03-01, or a time such as 2026-03-01T10:15:00Z
`,
		},
		{"changed without updated", "--exec --type created --changed tags -- true", "nimble-bridge: --changed is about updates, and --type leaves them out\n"},
		{"dead: nothing named", "dead drop", "nimble-bridge: no letter is named, want numbers, --contact or --all\nnimble-bridge: hint: \"nimble-bridge hook dead drop --help\" says how it is used\n"},
		{"dead: no number", "dead retry x", "nimble-bridge: there is no use for \"x\", want the number of a letter, and that with retry and drop only\nnimble-bridge: hint: \"nimble-bridge hook dead retry --help\" says how it is used\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := runProgram(t.Context(), append([]string{"hook"}, strings.Fields(tt.args)...)...)
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, stdout %q; want 2 and nothing", code, stdout)
			}
			if diff := cmp.Diff(tt.want, stderr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("secrets", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte("whsec_c2hvcnQ=\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		setenv(t, map[string]string{"HOOK_SECRET": "whsec_nonsense", "HOOK_SECRET_FILE": file})
		code, _, stderr := runProgram(t.Context(), "hook", "--url", "https://a")
		want := "nimble-bridge: HOOK_SECRET is not usable, want base64 of 24 to 64 bytes, usually after whsec_\n" +
			"nimble-bridge: HOOK_SECRET_FILE is \"" + file + "\", which cannot be used: secret 1 of 1: it has 5 bytes, and a secret has 24 to 64\n"
		if diff := cmp.Diff(want, stderr); code != 2 || diff != "" {
			t.Errorf("exit code %d, want 2; stderr (-want +got):\n%s", code, diff)
		}
	})
}

func TestHookSecretCommand(t *testing.T) {
	code, stdout, _ := runProgram(t.Context(), "hook", "secret")
	if _, err := hook.ParseSecret(strings.TrimSpace(stdout)); code != 0 || err != nil {
		t.Errorf("exit code %d, %q: %v", code, stdout, err)
	}
}

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }
