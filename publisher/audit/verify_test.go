package audit_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher/audit"
	"nimble-bridge/publisher/event"
)

// forger is somebody with an editor.
type forger struct {
	t   *testing.T
	dir string
}

// path is where a file of the log is.
func (f forger) path(file int) string { return filepath.Join(f.dir, names(f.t, f.dir)[file]) }

// edit changes the lines of a file.
func (f forger) edit(file int, change func(lines []string) []string) {
	f.t.Helper()
	path := f.path(file)
	if err := os.WriteFile(path, []byte(strings.Join(change(linesOf(f.t, path)), "")), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// replace puts a text in the place of another in one line, counted from 1.
func (f forger) replace(file, line int, from, to string) {
	f.t.Helper()
	f.edit(file, func(lines []string) []string {
		if !strings.Contains(lines[line-1], from) {
			f.t.Fatalf("line %d does not have %q: %s", line, from, lines[line-1])
		}
		lines[line-1] = strings.Replace(lines[line-1], from, to, 1)
		return lines
	})
}

// hashed is a SHA-256 in hexadecimal.
func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

const sealLength = len(`,"hash":""`) + 64

// resealed is a line with the hash before it and its own made right.
func resealed(line, prev string) (string, string) {
	i := strings.Index(line, `,"prev":"`)
	facts, rest := line[:i], line[i+len(`,"prev":""`)+64+sealLength:]
	sealed := facts + `,"prev":"` + prev + `"`
	own := hashed(sealed)
	return sealed + `,"hash":"` + own + `"` + rest, own
}

// member is the value of a member of 64 digits.
func member(line, name string) string {
	_, rest, _ := strings.Cut(line, `,"`+name+`":"`)
	return rest[:64]
}

// reseal makes the chain right again, from a line on, in all files. It is what somebody does who knows how the log is made.
func (f forger) reseal(file, line int) {
	f.t.Helper()
	prev := ""
	for i := file; i < len(names(f.t, f.dir)); i++ {
		f.edit(i, func(lines []string) []string {
			for j := range lines {
				if i == file && j < line-1 {
					prev = member(lines[j], "hash")
					continue
				}
				lines[j], prev = resealed(lines[j], prev)
			}
			return lines
		})
	}
}

// TestTampering changes a log in every way that comes to mind. The log has 23 messages in four files or so of about seven lines.
func TestTampering(t *testing.T) {
	s := newSite(t)
	s.live()
	original := folder(t)
	s.audited(original, func(c *audit.Config) { c.MaxFileSize = 7500 })
	whole := s.verify(original)
	holds(t, whole)
	if n := len(names(t, original)); n < 4 || n > 6 {
		t.Fatalf("the log has %d files", n)
	}
	last := len(names(t, original)) - 1
	tests := []struct {
		name   string
		tamper func(f forger)
		// check is the one that fails, and fault what it says first, with the number of the file in the place of its name.
		check, fault string
		// beside: only the stream shows it.
		beside bool
	}{
		{"a byte of an event", func(f forger) { f.replace(1, 3, "Tomasz c", "Thomas c") }, "content", "2 line 3: the event is not the one", false},
		{"a digit beyond what a float holds", func(f forger) { f.replace(1, 3, "9007199254740993", "9007199254740992") }, "content", "2 line 3: the event is not the one", false},
		{"a space", func(f forger) { f.replace(1, 3, `{"id": "`, `{"id":  "`) }, "content", "2 line 3: the event is not the one", false},
		{"a byte of the facts", func(f forger) { f.replace(1, 3, `"subject":"nimble.acme`, `"subject":"nimble.acne`) }, "chain", "2 line 3: it was changed", false},
		{"a byte of a file's first line", func(f forger) { f.replace(1, 1, `"content":true`, `"content":false`) }, "chain", "2 line 1: it was changed", false},
		{"a hash", func(f forger) {
			f.edit(1, func(l []string) []string {
				l[2] = strings.Replace(l[2], member(l[2], "hash"), hashed("x"), 1)
				return l
			})
		}, "chain", "2 line 3: it was changed", false},
		{"an event and its hash", func(f forger) {
			f.edit(1, func(l []string) []string {
				_, content, _ := strings.Cut(l[2], `","event":`)
				content = strings.TrimSuffix(content, "}\n")
				forged := strings.Replace(content, "Tomasz", "Thomas", 1)
				l[2] = strings.Replace(strings.Replace(l[2], content, forged, 1), hashed(content), hashed(forged), 1)
				return l
			})
		}, "chain", "2 line 3: it was changed", false},
		{"a line with its own hash made right", func(f forger) {
			f.replace(1, 3, `"Nimble-Revision":"1"`, `"Nimble-Revision":"9"`)
			f.edit(1, func(l []string) []string {
				l[2], _ = resealed(l[2], member(l[2], "prev"))
				return l
			})
		}, "chain", "2 line 4: it does not follow the line before", false},
		{"the last line with its own hash made right", func(f forger) {
			f.edit(last, func(l []string) []string {
				end := len(l) - 1
				l[end], _ = resealed(strings.Replace(l[end], `"headers":{`, `"headers":{"Nimble-Type":"x",`, 1), member(l[end], "prev"))
				return l
			})
		}, "stream", "it is not what the stream has at sequence 23", true},
		{"a removed line", func(f forger) {
			f.edit(1, func(l []string) []string { return append(l[:2:2], l[3:]...) })
		}, "chain", "2 line 3: it does not follow the line before", false},
		{"a removed line, and the chain made right", func(f forger) {
			f.edit(1, func(l []string) []string { return append(l[:2:2], l[3:]...) })
			f.reseal(1, 3)
		}, "sequence", "2 line 3: it has sequence 10, and 9 is next", false},
		{"a line twice", func(f forger) {
			f.edit(1, func(l []string) []string { return append(l[:3:3], l[2:]...) })
		}, "chain", "2 line 4: it does not follow the line before", false},
		{"two lines exchanged", func(f forger) {
			f.edit(1, func(l []string) []string {
				l[2], l[3] = l[3], l[2]
				return l
			})
		}, "chain", "2 line 3: it does not follow the line before", false},
		{"two files exchanged", func(f forger) {
			a, b := f.path(1), f.path(2)
			first, second := linesOf(t, a), linesOf(t, b)
			f.edit(1, func([]string) []string { return second })
			f.edit(2, func([]string) []string { return first })
		}, "files", "2 line 1: it says that it is file 3 of the log", false},
		{"a removed file", func(f forger) { _ = os.Remove(f.path(1)) }, "files", "file 2 is missing between", false},
		{"two removed files", func(f forger) { _, _ = os.Remove(f.path(2)), os.Remove(f.path(1)) }, "files", "files 2 to 3 are missing between", false},
		{"the first file removed", func(f forger) { _ = os.Remove(f.path(0)) }, "files", "file 1 is missing before", false},
		{"a file emptied", func(f forger) { f.edit(1, func([]string) []string { return nil }) }, "files", "2: it is empty", false},
		{"garbage", func(f forger) {
			f.edit(1, func(l []string) []string { return append(l[:3:3], append([]string{"?\n", "{}\n"}, l[3:]...)...) })
		}, "chain", "2 line 4: it is not of the form", false},
		{"an invented line", func(f forger) {
			f.edit(1, func(l []string) []string {
				return append(l[:3:3], append([]string{l[2][:7] + "99" + l[2][7:]}, l[3:]...)...)
			})
		}, "chain", "2 line 4: it was changed", false},
		{"the end of a file in the middle", func(f forger) {
			f.edit(1, func(l []string) []string { return l[:4] })
		}, "chain", "3 line 1: it does not follow the line before", false},
		{"half a line in the middle", func(f forger) {
			f.edit(1, func(l []string) []string {
				l[len(l)-1] = l[len(l)-1][:200]
				return l
			})
		}, "chain", "it does not end with a line feed", false},
		{"the last lines", func(f forger) {
			f.edit(last, func(l []string) []string { return l[:2] })
		}, "end", "the end was cut off", true},
		{"the last file", func(f forger) { _ = os.Remove(f.path(last)) }, "end", "the end was cut off", true},
		{"an event removed from its line", func(f forger) {
			f.edit(1, func(l []string) []string {
				head, _, _ := strings.Cut(l[2], `,"event":`)
				l[2] = head + "}\n"
				return l
			})
		}, "content", "2 line 3: the event was removed, and no later line says that it was redacted", false},
		{"everything rewritten from a line on", func(f forger) {
			f.replace(1, 3, `"Nimble-Type":"snapshot"`, `"Nimble-Type":"created"`)
			f.reseal(1, 3)
		}, "stream", "2 line 3: it is not what the stream has at sequence 9", true},
		{"an event left out, the rest renumbered", func(f forger) {
			f.edit(last, func(l []string) []string {
				end := len(l) - 1
				l[end] = strings.Replace(l[end], `{"seq":23`, `{"seq":22`, 1)
				return append(l[:end-1:end-1], l[end])
			})
			f.reseal(last, 2)
		}, "receipts", "the receipt at sequence 22 counts 8 contacts of account acme, the log has 9", false},
		{"an event passed off as gone", func(f forger) {
			f.edit(1, func(l []string) []string {
				_, chain, _ := strings.Cut(l[2], `,"prev":`)
				chain, _, _ = strings.Cut(chain, `,"event":`)
				l[2] = `{"gap":{"from":9,"to":9,"reason":"deleted"},"noted":"2026-03-01T00:00:00Z","prev":` + chain + "}\n"
				return l
			})
			f.reseal(1, 3)
		}, "stream", "2 line 3: the log lacks message 9 of the stream", true},
		{"a contact's event left out", func(f forger) {
			f.edit(1, func(l []string) []string {
				l[2] = strings.Replace(l[2], `"Nimble-Revision":"1"`, `"Nimble-Revision":"3"`, 1)
				return l
			})
			f.reseal(1, 3)
		}, "revisions", "2 line 3: contact c8: revision 3 follows 0", false},
	}
	numbers := strings.NewReplacer(func() (pairs []string) {
		for i, name := range names(t, original) {
			pairs = append(pairs, name, fmt.Sprint(i+1))
		}
		return pairs
	}()...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t)
			if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
				t.Fatal(err)
			}
			tt.tamper(forger{t, dir})
			r := s.verify(dir)
			c := check(t, r, tt.check)
			if r.Holds() || c.Result != audit.Fails {
				t.Fatalf("check %q does not fail:\n%s", tt.check, text(r))
			}
			if got := numbers.Replace(c.Faults[0].String()); !strings.Contains(got, tt.fault) {
				t.Errorf("%s: %s, want %s", tt.check, got, tt.fault)
			}
			if beside := alone(t, dir); beside.Holds() != tt.beside {
				t.Errorf("without the stream:\n%s", text(beside))
			}
			// Whoever kept the last hash needs no stream.
			if anchored := alone(t, dir, whole.Head); anchored.Holds() {
				t.Errorf("with an anchor, without the stream:\n%s", text(anchored))
			}
		})
	}
}

// TestVerifyWhileEventsComeIn verifies again and again while the stream and the log grow: neither is ever seen at the same moment as the other.
func TestVerifyWhileEventsComeIn(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	a := s.audit(dir, func(c *audit.Config) { c.MaxFileSize, c.Compress = 4_000, true })
	a.reaches(23)
	stop, published := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				published <- nil
				return
			default:
			}
			if _, err := s.js.PublishMsg(context.Background(), eventOf(event.Created, fmt.Sprint("new", i), 1)); err != nil {
				published <- err
				return
			}
		}
	}()
	for range 15 {
		holds(t, s.verify(dir))
	}
	close(stop)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	a.reaches(s.last())
	if err := a.ends(); err != nil {
		t.Fatal(err)
	}
	holds(t, s.verify(dir))
}

// TestLogBeyondTheStream holds a log against a stream that does not reach as far.
func TestLogBeyondTheStream(t *testing.T) {
	s := newSite(t)
	s.live()
	loss := s.save()
	s.happens(event.Created, "x")
	s.receipt(0)
	dir := folder(t)
	s.audited(dir)
	loss()
	c := check(t, s.verify(dir), "stream")
	if c.Count != 2 || !strings.Contains(c.Faults[0].String(), "line 25: the stream ends with sequence 23 and has no message 24") {
		t.Errorf("got %+v, want both messages beyond the stream", c)
	}
}

func TestAnchors(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	small := func(c *audit.Config) { c.MaxFileSize = 7500 }
	s.audited(dir, small)
	then := alone(t, dir).Head
	s.live()
	s.audited(dir, small)
	r := s.verify(dir, then)
	holds(t, r)
	has(t, r, "anchors", then.String()[:8]+"… at "+names(t, dir)[3]+" line")
	unknown, err := audit.ParseHash(strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	if c := check(t, alone(t, dir, then, unknown), "anchors"); c.Result != audit.Fails || c.Count != 1 {
		t.Errorf("with an unknown anchor: %+v", c)
	}
	// Old files may be moved away, if somebody knows what they ended with.
	var end string
	for range 2 {
		path := filepath.Join(dir, names(t, dir)[0])
		lines := linesOf(t, path)
		end = member(lines[len(lines)-1], "hash")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.verify(dir); r.Holds() {
		t.Errorf("without its first files the log holds:\n%s", text(r))
	}
	moved, err := audit.ParseHash(end)
	if err != nil {
		t.Fatal(err)
	}
	r = s.verify(dir, moved, then)
	holds(t, r)
	if c := check(t, r, "receipts"); c.Result != audit.Skipped {
		t.Errorf("receipts, with the beginning elsewhere: %+v", c)
	}
	s.live()
	s.audited(dir, small)
	holds(t, s.verify(dir, moved))
}

func TestParseHash(t *testing.T) {
	for _, s := range []string{"", "ab", strings.Repeat("A", 64), strings.Repeat("a", 65), strings.Repeat("g", 64)} {
		if h, err := audit.ParseHash(s); err == nil {
			t.Errorf("%q is %s, want an error", s, h)
		}
	}
}

func TestReceipts(t *testing.T) {
	for more, want := range map[int]string{0: "", 1: "counts 9 contacts of account acme, the log has 8", -1: "counts 7 contacts"} {
		s := newSite(t)
		s.live()
		s.receipt(more)
		dir := folder(t)
		s.audited(dir)
		c := check(t, s.verify(dir), "receipts")
		if want == "" && c.Result != audit.Holds || want != "" && (c.Count != 1 || !strings.Contains(c.Faults[0].Text, want)) {
			t.Errorf("a receipt for %+d contacts: %+v", more, c)
		}
	}
}

// TestReceiptsAndErasures lets a contact be erased behind the back of the bridge, which counts it for a while.
func TestReceiptsAndErasures(t *testing.T) {
	for _, content := range []bool{true, false} {
		t.Run(fmt.Sprint("content=", content), func(t *testing.T) {
			s := newSite(t)
			s.live()
			s.erase("c5")
			s.receipt(1)
			s.receipt(1)
			s.receipt(0) // Now the bridge knows.
			dir := folder(t)
			mode := func(c *audit.Config) { c.WithoutContent = !content }
			s.audited(dir, mode)
			r := s.verify(dir)
			holds(t, r)
			has(t, r, "receipts", "4 receipts of reconciliations with as many contacts as the log has; 2 of them but for")
			s.receipt(1)
			s.erase("c6")
			s.receipt(2)
			s.receipt(-1)
			s.receipt(0)
			s.erase("c7")
			s.happens(event.Created, "c7")
			s.receipt(1)
			s.audited(dir, mode)
			c := check(t, s.verify(dir), "receipts")
			var got []string
			for _, f := range c.Faults {
				got = append(got, f.Text)
			}
			want := `the receipt at sequence 28 counts 8 contacts of account acme, the log has 7
the receipt at sequence 30 counts 8 contacts of account acme, the log has 6
the receipt at sequence 31 counts 5 contacts of account acme, the log has 6
the receipt at sequence 35 counts 7 contacts of account acme, the log has 6`
			if strings.Join(got, "\n") != want {
				t.Errorf("faults\n%s\nwant\n%s", strings.Join(got, "\n"), want)
			}
		})
	}
}

func TestRevisions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		event *nats.Msg
		want  string
	}{
		{"a gap", eventOf(event.Updated, "c1", 4), "line 25: contact c1: revision 4 follows 2"},
		{"again", eventOf(event.Deleted, "c1", 2), "line 25: contact c1: revision 2 follows 2"},
		{"a new contact's second", eventOf(event.Created, "x", 2), "line 25: contact x: revision 2 follows 0"},
		{"none", &nats.Msg{Subject: "nimble.acme.contact.updated.c1", Data: []byte("{}")}, "line 25: the event of contact c1 has no revision"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.live()
			s.publish(tt.event)
			dir := folder(t)
			s.audited(dir)
			c := check(t, s.verify(dir), "revisions")
			if c.Count != 1 || !strings.HasSuffix(c.Faults[0].String(), tt.want) {
				t.Errorf("got %+v, want %s", c, tt.want)
			}
		})
	}
}

func TestWithoutContent(t *testing.T) {
	s := newSite(t)
	s.live()
	dir := folder(t)
	s.audited(dir, func(c *audit.Config) { c.WithoutContent = true })
	r := s.verify(dir)
	holds(t, r)
	has(t, r, "content", "1 event with the content that its hash is of; 22 without content")
	has(t, r, "stream", "23 messages the same")
	has(t, r, "receipts", "1 receipt")
	log, err := os.ReadFile(filepath.Join(dir, r.File))
	if err != nil {
		t.Fatal(err)
	}
	for _, personal := range []string{"Tomasz", "brandt.example", "quoted"} {
		if strings.Contains(string(log), personal) {
			t.Errorf("the log has %q in it", personal)
		}
	}
	// Another mode begins another file.
	s.live()
	s.audited(dir)
	r = s.verify(dir)
	holds(t, r)
	has(t, r, "files", "2 files")
	has(t, r, "content", "24 events with the content that its hash is of; 22 without content")
	f := forger{t, dir}
	f.edit(1, func(l []string) []string {
		head, _, _ := strings.Cut(l[2], `,"event":`)
		l[2] = head + "}\n"
		return l
	})
	if r := s.verify(dir); check(t, r, "content").Count != 1 {
		t.Errorf("with an event removed:\n%s", text(r))
	}
}

func TestRedact(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprint("compress=", compress), func(t *testing.T) {
			s := newSite(t)
			s.live()
			notice := &event.Rejected{
				Envelope: event.Envelope{ID: "1", Source: event.Source("acme"), Type: event.RejectedType, Subject: "c5"},
				Data:     event.RejectedData{Reason: "no created", ContactID: "c5", Record: []byte(`{"id":"c5","name":"Tomasz c5"}`)},
			}
			s.publish(&nats.Msg{Subject: event.RejectedSubject("nimble", "acme"), Header: nats.Header{event.HeaderID: {"1"}}, Data: notice.Encode()})
			s.happens(event.Deleted, "c5")
			dir := folder(t)
			small := func(c *audit.Config) { c.MaxFileSize, c.Compress = 7500, compress }
			a := s.audit(dir, small)
			a.reaches(25)
			if compress {
				eventually(t, "the first file is compressed", func() bool { return strings.HasSuffix(names(t, dir)[0], ".gz") })
			}
			if err := a.ends(); err != nil {
				t.Fatal(err)
			}
			before := alone(t, dir).Head
			removed, err := audit.Redact(t.Context(), dir, []string{"c5", "c3"}, zap.NewNop())
			if err != nil || removed != 7 { // Three events of each, and the notice.
				t.Errorf("Redact = %d, %v, want 7", removed, err)
			}
			r := s.verify(dir, before)
			holds(t, r)
			has(t, r, "content", "18 events with the content that its hash is of; 7 without content")
			for _, personal := range []string{"Tomasz c5", "c5@brandt.example", "Tomasz c3"} {
				if where := grep(t, dir, personal); where != "" {
					t.Errorf("%s still has %q", where, personal)
				}
			}
			if grep(t, dir, "Tomasz c6") == "" {
				t.Error("another contact's event is gone")
			}
			// The auditor goes on, and what is erased in the stream meanwhile is no fault.
			s.purge(jetstream.WithPurgeSubject("nimble.*.contact.*.c5"), jetstream.WithPurgeSequence(25))
			s.happens(event.Updated, "c6")
			s.audited(dir, small)
			holds(t, s.verify(dir, before))
			// Once more is nothing more.
			if removed, err := audit.Redact(t.Context(), dir, []string{"c5"}, zap.NewNop()); err != nil || removed != 0 {
				t.Errorf("Redact = %d, %v, want 0", removed, err)
			}
			holds(t, s.verify(dir, before))
		})
	}
}

// grep returns the file of a log that has a text, plain or compressed.
func grep(t *testing.T, dir, text string) string {
	t.Helper()
	for _, name := range names(t, dir) {
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		if strings.HasSuffix(name, ".gz") {
			content, err = exec.CommandContext(t.Context(), "gzip", "-dc", path).Output()
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), text) {
			return name
		}
	}
	return ""
}

func TestRedactNeedsALog(t *testing.T) {
	if _, err := audit.Redact(t.Context(), t.TempDir(), []string{"c1"}, zap.NewNop()); !errors.Is(err, audit.ErrNoLog) {
		t.Errorf("got %v, want ErrNoLog", err)
	}
}

// TestOtherTools lets a script verify a log that shares nothing with this package but the description.
func TestOtherTools(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 here to run testdata/verify.py with")
	}
	s := newSite(t)
	s.live()
	s.publish(&nats.Msg{Subject: `nimble.acme.contact.created.","hash":"`, Data: []byte("{\"a\":\n1}")})
	dir := folder(t)
	a := s.audit(dir, func(c *audit.Config) { c.MaxFileSize, c.Compress = 7500, true })
	a.reaches(24)
	eventually(t, "the first file is compressed", func() bool { return strings.HasSuffix(names(t, dir)[0], ".gz") })
	if err := a.ends(); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Redact(t.Context(), dir, []string{"c5"}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	verify := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), python, "testdata/verify.py", dir).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	r := alone(t, dir)
	if got, err := verify(); err != nil || !strings.HasSuffix(got, "lines, the last has hash "+r.Head.String()) {
		t.Errorf("verify.py: %v, %s; want the last hash to be %s", err, got, r.Head)
	}
	last := len(names(t, dir)) - 1
	forger{t, dir}.replace(last, 2, `"seq":`, `"seq": `)
	if got, err := verify(); err == nil || !strings.Contains(got, "line 2 is not right") {
		t.Errorf("verify.py of a changed log: %v, %s", err, got)
	}
}
