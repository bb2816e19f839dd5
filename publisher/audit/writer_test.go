package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// The tests of this file look at what only a bad disk or the calendar brings about, and need no server.

func testWriter(t testing.TB, dir string) *writer {
	t.Helper()
	w, err := openWriter(writerOptions{dir: dir, stream: "NIMBLE", maxFileSize: DefaultMaxFileSize, content: true}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if w.empty() {
		w.header.created = time.Unix(0, 0)
	}
	t.Cleanup(w.close)
	return w
}

// testMessage is the message with a sequence.
func testMessage(sequence uint64, stored time.Time) *message {
	return &message{
		Sequence: sequence, Stored: stored, Subject: "nimble.acme.contact.created.c" + fmt.Sprint(sequence),
		Header: nats.Header{"Nimble-Revision": {"1"}}, Data: fmt.Appendf(nil, `{"number":%d}`, sequence),
	}
}

// whole fails unless a log verifies and ends with a sequence.
func whole(t testing.TB, dir string, sequence uint64) *Report {
	t.Helper()
	r, err := Verify(t.Context(), VerifyOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Holds() || r.Sequence != sequence {
		t.Fatalf("the log ends with sequence %d, want %d, and its checks are %+v", r.Sequence, sequence, r.Checks)
	}
	return r
}

func TestFilesByDay(t *testing.T) {
	dir := t.TempDir()
	w := testWriter(t, dir)
	midnight := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i, at := range []time.Duration{-time.Hour, -1, 0, 5 * time.Hour, -1, 24 * time.Hour, 24*time.Hour - 1, 240 * time.Hour} {
		if err := w.message(testMessage(uint64(i+1), midnight.Add(at))); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // Some days begin within a batch, some with one, and some after a restart.
			if err := w.commit(); err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 {
			if err := w.commit(); err != nil {
				t.Fatal(err)
			}
			w.close()
			w = testWriter(t, dir)
		}
	}
	if err := w.commit(); err != nil {
		t.Fatal(err)
	}
	whole(t, dir, 8)
	files, err := list(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(f.name, " ", bytes.Count(content, []byte{'\n'})-1))
	}
	want := []string{"audit-00000001-20260228.jsonl 2", "audit-00000002-20260301.jsonl 3", "audit-00000003-20260302.jsonl 2", "audit-00000004-20260311.jsonl 1"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("files and messages\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// small is a disk with little room.
type small struct {
	*os.File
	room *int
	// unsynced makes Sync fail, once there is no room.
	unsynced bool
}

func (s small) Write(b []byte) (int, error) {
	if len(b) <= *s.room || s.unsynced {
		*s.room -= len(b)
		return s.File.Write(b)
	}
	n, _ := s.File.Write(b[:*s.room])
	*s.room = 0
	return n, syscall.ENOSPC
}

func (s small) Sync() error {
	if s.unsynced && *s.room < 0 {
		return syscall.EIO
	}
	return s.File.Sync()
}

// TestDiskFull lets the disk fill up at every point of a batch, and goes on once there is room.
func TestDiskFull(t *testing.T) {
	for room := 0; room < 3000; room += 97 {
		dir := t.TempDir()
		w := testWriter(t, dir)
		left := room
		w.create = func(path string) (sink, error) {
			f, err := createFile(path)
			return small{File: f.(*os.File), room: &left, unsynced: room%2 == 1}, err
		}
		w.opts.maxFileSize = 1000
		committed := uint64(0)
		var err error
		for sequence := uint64(1); err == nil; sequence++ {
			if err = w.message(testMessage(sequence, time.Unix(1e9, 0))); err != nil || sequence%3 != 0 {
				continue
			}
			if err = w.commit(); err == nil {
				committed = sequence
			}
		}
		failed, ok := errors.AsType[*WriteError](err)
		if !ok || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) || !strings.Contains(failed.Error(), "nothing was acknowledged") {
			t.Fatalf("with room for %d bytes: %v, want a WriteError", room, err)
		}
		// Nothing more is believed to be written.
		if again := w.commit(); !errors.Is(again, err) {
			t.Errorf("commit after that: %v, want the same error", again)
		}
		w.close()
		w = testWriter(t, dir)
		if w.position < committed {
			t.Fatalf("with room for %d bytes: the log has %d, and %d was committed", room, w.position, committed)
		}
		for sequence := w.position + 1; sequence <= committed+5; sequence++ {
			if err := w.message(testMessage(sequence, time.Unix(1e9, 0))); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.commit(); err != nil {
			t.Fatal(err)
		}
		w.close()
		whole(t, dir, max(committed+5, w.position))
	}
}

// TestCutAnywhere cuts a log's last file at many places, each line's last bytes among them, and goes on from there.
func TestCutAnywhere(t *testing.T) {
	original := t.TempDir()
	w := testWriter(t, original)
	for sequence := uint64(1); sequence <= 3; sequence++ {
		if err := w.message(testMessage(sequence, time.Unix(1e9, 0))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.commit(); err != nil {
		t.Fatal(err)
	}
	w.close()
	content, err := os.ReadFile(filepath.Join(original, w.name))
	if err != nil {
		t.Fatal(err)
	}
	want := whole(t, original, 3).Head
	dir := t.TempDir()
	first := bytes.IndexByte(content, '\n')
	for cut := range len(content) {
		if cut%13 != 0 && !bytes.ContainsRune(content[max(0, cut-2):min(len(content), cut+2)], '\n') {
			continue // Each place costs a few syncs.
		}
		if err := os.WriteFile(filepath.Join(dir, w.name), content[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again := testWriter(t, dir)
		if got, kept := int(again.position), max(0, bytes.Count(content[:cut], []byte{'\n'})-1); got != kept {
			t.Fatalf("cut at %d the log has %d messages, want %d", cut, got, kept)
		}
		for sequence := again.position + 1; sequence <= 3; sequence++ {
			if err := again.message(testMessage(sequence, time.Unix(1e9, 0))); err != nil {
				t.Fatal(err)
			}
		}
		if err := again.commit(); err != nil {
			t.Fatal(err)
		}
		again.close()
		if cut > first && again.head != want {
			t.Fatalf("cut at %d the log ends with hash %s, want %s", cut, again.head, want)
		}
		if cut%5 == 0 {
			whole(t, dir, 3)
		}
	}
}

// FuzzSplit takes what cannot be a line apart without harm, and puts what can be one together again.
func FuzzSplit(f *testing.F) {
	m := testMessage(17, time.Unix(1e9, 5))
	content, _ := contentOf(m.Data, nil)
	sealed, _ := seal(m.appendFacts(nil, content), 0, Origin, content)
	bare, _ := seal(Gap{From: 1, To: 2, Reason: Deleted}.appendFacts(nil), 0, Origin, nil)
	head := header{file: 1, log: "0123456789abcdef", stream: "NIMBLE", created: time.Unix(1, 2), first: 1, content: true}
	for _, b := range [][]byte{sealed, bare, appendNoted(nil, time.Unix(1, 0)), head.appendFacts(nil), []byte(`{}`), []byte(`{"seq":1,"prev":"`)} {
		f.Add(bytes.TrimSuffix(b, []byte{'\n'}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := split(b)
		if err != nil {
			return
		}
		again := append(append(append(bytes.Clone(l.sealed), hashMember...), l.hash[:]...), '"')
		if l.content != nil {
			again = append(append(again, eventMember...), l.content...)
		}
		if again = append(again, '}'); !bytes.Equal(again, b) {
			t.Fatalf("%q\nbecame\n%q", b, again)
		}
		if !bytes.HasPrefix(b, l.facts) {
			t.Errorf("%q does not begin with its facts, %q", b, l.facts)
		}
		says, _, err := l.parse(nil)
		if err == nil && says.kind() == unknownLine {
			t.Errorf("%q is of no kind", b)
		}
		// A line that is sealed anew is intact, and reads the same.
		sealed, _ := seal(bytes.Clone(l.facts), 0, l.prev, l.content)
		fresh, err := split(bytes.TrimSuffix(sealed, []byte{'\n'}))
		if err != nil || !fresh.intact() || !bytes.Equal(fresh.facts, l.facts) || !bytes.Equal(fresh.content, l.content) {
			t.Errorf("%q, sealed: %q, %v", b, sealed, err)
		}
	})
}

// FuzzMessage writes messages of any kind, and takes them for what they were.
func FuzzMessage(f *testing.F) {
	f.Add("nimble.acme.contact.created.a", "Nimble-Type", "created", []byte(`{"a":1}`))
	f.Add(`","prev":"`, `Nimble-","hash":"`, "\xff\r\n", []byte("{\n}"))
	f.Add("", "Nimble-", "", []byte{0})
	f.Fuzz(func(t *testing.T, subject, name, value string, body []byte) {
		m := &message{Sequence: 1, Stored: time.Unix(1e9, 7), Subject: subject, Header: nats.Header{name: {value}, "Nimble-Revision": {"3"}}, Data: body}
		content, _ := contentOf(m.Data, nil)
		facts := m.appendFacts(nil, content)
		sealed, own := seal(bytes.Clone(facts), 0, Origin, content)
		if bytes.Count(sealed, []byte{'\n'}) != 1 {
			t.Fatalf("%q is more than one line", sealed)
		}
		l, err := split(bytes.TrimSuffix(sealed, []byte{'\n'}))
		if err != nil || !l.intact() || l.hash != own || l.prev != Origin || !bytes.Equal(l.content, content) || !bytes.Equal(l.facts, facts) {
			t.Fatalf("%q: %+v, %v", sealed, l, err)
		}
		says, _, err := l.parse(nil)
		if err != nil || says.Sequence != 1 || !says.Stored.Equal(m.Stored) || says.SHA256 != hashOf(content).String() {
			t.Errorf("%q says %+v, %v", sealed, says, err)
		}
	})
}

// BenchmarkMessage encodes messages without a disk.
func BenchmarkMessage(b *testing.B) {
	m := testMessage(1, time.Unix(1e9, 0))
	m.Data = []byte(`{"contact":"` + strings.Repeat("x", 2500) + `"}`)
	w := testWriter(b, b.TempDir())
	w.opts.maxFileSize = 1 << 60
	if err := w.message(m); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(m.Data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := w.message(m); err != nil {
			b.Fatal(err)
		}
		w.buf = w.buf[:0]
	}
}

// BenchmarkCommit writes messages to the disk, in batches of different sizes.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			m := testMessage(1, time.Unix(1e9, 0))
			m.Data = []byte(`{"contact":"` + strings.Repeat("x", 2500) + `"}`)
			w := testWriter(b, b.TempDir())
			b.ReportAllocs()
			events := 0
			for b.Loop() {
				for range size {
					m.Sequence++
					if err := w.message(m); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.commit(); err != nil {
					b.Fatal(err)
				}
				events += size
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
