package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"nimble-bridge/publisher/audit"
	"nimble-bridge/publisher/event"
)

func TestLogHoldsTheStream(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := filepath.Join(t.TempDir(), "new", "log")
	s.audited(dir)
	r := s.verify(dir)
	holds(t, r)
	for name, want := range map[string]string{
		"chain":     "24 lines, each with the hash of the one before",
		"content":   "23 events with the content that its hash is of",
		"sequence":  "stream NIMBLE up to 23: 23 messages",
		"revisions": "10 contacts, no revision missing",
		"receipts":  "1 receipt of reconciliations with as many contacts as the log has",
		"stream":    "23 messages the same in stream NIMBLE and log",
		"end":       "the log reaches the end of the stream, sequence 23",
	} {
		if got := check(t, r, name).Text; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if r.Sequence != 23 || r.Line != 24 || r.File != names(t, dir)[0] {
		t.Errorf("the report ends at sequence %d, %s line %d", r.Sequence, r.File, r.Line)
	}
	// Nobody else reads the files.
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, r.File): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
}

// TestEventsStandAsTheyWere holds what is in the lines against the bodies in the stream, byte for byte where they fit on a line.
func TestEventsStandAsTheyWere(t *testing.T) {
	s := newSite(t)
	bodies := []struct{ name, body, want string }{
		{"an event", string(eventOf(event.Created, "a", 1).Data), string(eventOf(event.Created, "a", 1).Data)},
		{"doubtful JSON", `{"a":1.00,"a":2e400, "b":9007199254740993}`, `{"a":1.00,"a":2e400, "b":9007199254740993}`},
		{"line breaks", "{\"a\":\r\n [1,\n2]}\n", `{"a":   [1, 2]} `},
		{"no JSON", "hello \"world\"\n", `"aGVsbG8gIndvcmxkIgo="`},
		{"no UTF-8", "{\"a\":\"\xff\"}", `"eyJhIjoi/yJ9"`},
		{"no object", `[1]`, `"WzFd"`},
		{"nothing", "", `""`},
		{"a trap", `{"x":",\"prev\":\"","hash":"y","event":{}}`, `{"x":",\"prev\":\"","hash":"y","event":{}}`},
	}
	for _, b := range bodies {
		s.publish(&nats.Msg{
			Subject: `nimble.acme.contact.created.","prev":"`, Data: []byte(b.body),
			Header: nats.Header{"Nimble-Type": {`","prev":"`, "two"}, "hash": {"x"}, "Nats-Expected-Stream": {"NIMBLE"}},
		})
	}
	dir := folder(t)
	s.audited(dir)
	r := s.verify(dir)
	if c := check(t, r, "stream"); c.Result != audit.Holds || !strings.HasPrefix(c.Text, "8 messages") {
		t.Errorf("the log is not the stream:\n%s", text(r))
	}
	for i, l := range linesOf(t, filepath.Join(dir, r.File))[1:] {
		if !strings.Contains(l, `"headers":{"Nimble-Type":"\",\"prev\":\", two"},`) {
			t.Errorf("%s: headers of %s", bodies[i].name, l)
		}
		_, got, _ := strings.Cut(l, `","event":`)
		if got = strings.TrimSuffix(strings.TrimSuffix(got, "\n"), "}"); got != bodies[i].want {
			t.Errorf("%s: %s, want %s", bodies[i].name, got, bodies[i].want)
		}
	}
}

func TestResumes(t *testing.T) {
	s := newSite(t)
	dir := folder(t)
	for range 4 {
		s.live()
		s.audited(dir)
	}
	r := s.verify(dir)
	holds(t, r)
	if r.Sequence != 4*23 || r.Line != 1+4*23 || len(names(t, dir)) != 1 {
		t.Errorf("the log ends at sequence %d, line %d of %v", r.Sequence, r.Line, names(t, dir))
	}
}

// TestFileIsTheTruth takes lines from the end that were acknowledged, as a restored backup does.
func TestFileIsTheTruth(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	s.audited(dir)
	before := s.verify(dir)
	path := filepath.Join(dir, before.File)
	lines := linesOf(t, path)
	for _, kept := range []int{20, 1} {
		if err := os.WriteFile(path, []byte(strings.Join(lines[:kept], "")), 0o600); err != nil {
			t.Fatal(err)
		}
		s.audited(dir)
		r := s.verify(dir)
		holds(t, r)
		if r.Head != before.Head {
			t.Errorf("with %d lines kept the log ends with hash %s, want %s as before", kept, r.Head, before.Head)
		}
	}
}

func TestTornEnd(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	s.audited(dir)
	before := s.verify(dir)
	path := filepath.Join(dir, before.File)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := linesOf(t, path)
	last := len(whole) - len(lines[len(lines)-1])
	for _, torn := range []string{
		string(whole[:last+1]), string(whole[:last+500]), string(whole[:len(whole)-1]), // Cut anywhere.
		string(whole[:last]) + string(make([]byte, 4096)), // The size was written, and the content was not.
		string(whole[:100]), string(whole[:len(lines[0])-1]), "", // Not even the first line.
	} {
		if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		a := s.audited(dir)
		r := s.verify(dir)
		holds(t, r)
		if began := len(torn) >= len(lines[0]); began && r.Head != before.Head {
			t.Errorf("cut to %d bytes, the log ends with hash %s, want %s as before", len(torn), r.Head, before.Head)
		} else if began && a.logs.FilterMessageSnippet("torn line").Len() != 1 {
			t.Errorf("cut to %d bytes, the log does not say that something was taken back", len(torn))
		}
	}
}

func TestVerifyWhileALineIsWritten(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	s.audited(dir)
	path := filepath.Join(dir, names(t, dir)[0])
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"seq":24,`); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	r := s.verify(dir)
	holds(t, r)
	if c := check(t, r, "chain"); !strings.HasPrefix(c.Text, "24 lines") || !strings.Contains(c.Text, "one more at the end") {
		t.Errorf("the report says %q", c.Text)
	}
}

func TestOneWriter(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	a := s.audit(dir)
	a.reaches(23)
	conn := s.connect()
	defer conn.Close()
	err := audit.Run(t.Context(), conn, audit.Config{Dir: dir, Stream: "NIMBLE"}, zap.NewNop())
	if _, ok := errors.AsType[*audit.DirError](err); !ok || !errors.Is(err, audit.ErrLocked) || !strings.Contains(err.Error(), "stop the other auditor") {
		t.Errorf("a second auditor: %v, want that the directory is taken", err)
	}
	if _, err := audit.Redact(t.Context(), dir, []string{"c1"}, zap.NewNop()); !errors.Is(err, audit.ErrLocked) {
		t.Errorf("redacting meanwhile: %v, want that the directory is taken", err)
	}
	if err := a.ends(); err != nil {
		t.Errorf("the first auditor ended with %v", err)
	}
}

func TestOneStream(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	s.audited(dir)
	conn := s.connect()
	defer conn.Close()
	err := audit.Run(t.Context(), conn, audit.Config{Dir: dir, Stream: "OTHER"}, zap.NewNop())
	if _, ok := errors.AsType[*audit.StreamError](err); !ok {
		t.Errorf("auditing another stream: %v, want a StreamError", err)
	}
	_, err = audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Conn: conn, Stream: "OTHER"})
	if _, ok := errors.AsType[*audit.StreamError](err); !ok {
		t.Errorf("verifying against another stream: %v, want a StreamError", err)
	}
}

func TestDirectoryThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	conn := s.connect()
	defer conn.Close()
	err := audit.Run(t.Context(), conn, audit.Config{Dir: filepath.Join(file, "log"), Stream: "NIMBLE"}, zap.NewNop())
	if _, ok := errors.AsType[*audit.DirError](err); !ok {
		t.Errorf("got %v, want a DirError", err)
	}
	for _, dir := range []string{filepath.Join(dir, "absent"), dir} {
		if _, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir}); err == nil {
			t.Errorf("verifying %s, where no log is, gives no error", dir)
		}
	}
}

// TestDamagedEnd refuses to continue a chain that is broken already.
func TestDamagedEnd(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	s.audited(dir)
	path := filepath.Join(dir, names(t, dir)[0])
	lines := linesOf(t, path)
	lines[9] = strings.Replace(lines[9], "contact.snapshot", "contact.Snapshot", 1)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := s.connect()
	defer conn.Close()
	err := audit.Run(t.Context(), conn, audit.Config{Dir: dir, Stream: "NIMBLE"}, zap.NewNop())
	if damaged, ok := errors.AsType[*audit.DamagedError](err); !ok || damaged.Line != 10 {
		t.Fatalf("got %v, want line 10 damaged", err)
	}
	// The way out that the error names.
	if err := os.Rename(path, filepath.Join(t.TempDir(), "evidence")); err != nil {
		t.Fatal(err)
	}
	s.audited(dir)
	holds(t, s.verify(dir))
}

func TestFilesBySize(t *testing.T) {
	s := newSite(t)
	dir := folder(t)
	small := func(c *audit.Config) { c.MaxFileSize = 5000 }
	for range 3 {
		s.live()
		s.audited(dir, small)
	}
	r := s.verify(dir)
	holds(t, r)
	files := names(t, dir)
	if len(files) < 10 || !slices.IsSorted(files) || r.File != files[len(files)-1] {
		t.Errorf("files %v, the last line in %s", files, r.File)
	}
	if r.Sequence != 3*23 {
		t.Errorf("the log ends at sequence %d, want %d", r.Sequence, 3*23)
	}
	for _, name := range files[:len(files)-1] {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < 5000 || info.Size() > 7000 {
			t.Errorf("%s has %d bytes, want 5000 and the rest of a line", name, info.Size())
		}
	}
}

func TestCompressed(t *testing.T) {
	s := newSite(t)
	dir := folder(t)
	for range 3 {
		s.live()
		a := s.audit(dir, func(c *audit.Config) { c.MaxFileSize, c.Compress = 5000, true })
		a.reaches(s.last())
		eventually(t, "all files but the last are compressed", func() bool {
			files := names(t, dir)
			last := len(files) - 1
			return strings.HasSuffix(files[last], ".jsonl") && !slices.ContainsFunc(files[:last], func(n string) bool { return !strings.HasSuffix(n, ".jsonl.gz") })
		})
		holds(t, s.verify(dir)) // With the auditor running.
		if err := a.ends(); err != nil {
			t.Fatal(err)
		}
	}
	// A crash between compressing and removing leaves both; one before that an unfinished one.
	files := names(t, dir)
	last := filepath.Join(dir, files[len(files)-1])
	for _, leftover := range []string{last + ".gz", filepath.Join(dir, strings.TrimSuffix(files[0], ".gz")+".gz.tmp")} {
		if err := os.WriteFile(leftover, []byte("not whole"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	holds(t, s.verify(dir))
	s.live()
	s.audited(dir)
	holds(t, s.verify(dir))
	if _, err := os.Stat(last + ".gz"); err == nil {
		t.Error("the leftover of a crash is still there")
	}
}

// TestNothingIsAcknowledgedBeforeItIsThere looks, whenever the consumer's floor moves, whether the files have everything up to there.
func TestNothingIsAcknowledgedBeforeItIsThere(t *testing.T) {
	s := newSite(t)
	dir := folder(t)
	a := s.audit(dir, func(c *audit.Config) { c.MaxFileSize = 20000 })
	for i := range 300 {
		s.happens(event.Created, fmt.Sprint("k", i))
		if i%7 != 0 {
			continue
		}
		floor := s.acknowledged("audit-test")
		if floor == 0 {
			continue
		}
		if r := alone(t, dir); r.Sequence < floor {
			t.Fatalf("%d is acknowledged, and the log has %d", floor, r.Sequence)
		}
	}
	a.reaches(300)
	if err := a.ends(); err != nil {
		t.Fatal(err)
	}
	holds(t, s.verify(dir))
}

func TestStopsAtOnce(t *testing.T) {
	s := newSite(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	conn := s.connect()
	defer conn.Close()
	if err := audit.Run(ctx, conn, audit.Config{Dir: t.TempDir(), Stream: "NIMBLE"}, zap.NewNop()); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
