package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/publisher/dirlock"
)

// DefaultMaxFileSize is the size at which a file is closed, unless told otherwise.
const DefaultMaxFileSize = 64 << 20

// writerOptions say how a log is written.
type writerOptions struct {
	dir string
	// stream is the stream's name; empty: that of the log.
	stream      string
	maxFileSize int64
	compress    bool
	content     bool
}

// sink is an open file.
type sink interface {
	io.Writer
	Sync() error
	Close() error
}

// writer is the end of a log, where lines are added. Nothing is in the log for certain before commit returns nil. After an error the writer is of no use any more,
// since nobody knows what the disk has taken; opening the log again finds out.
type writer struct {
	opts writerOptions
	log  *zap.Logger
	lock *dirlock.Lock
	// create makes a new file.
	create func(path string) (sink, error)

	// out is the last file; nil when the next line begins a new one.
	out    sink
	header header
	name   string
	// day is the UTC day of the messages in the file, in days since 1970.
	day   int64
	size  int64
	lines int
	// buf has the lines that are not written yet, room is reused from one line to the next.
	buf, room []byte

	head Hash
	// position is the last sequence of the stream that the log speaks of.
	position uint64
	// certain is what of that is on the disk.
	certain struct {
		head     Hash
		position uint64
	}
	// last is the last message in the file, by which the stream is recognised.
	last   known
	failed error

	compressing sync.WaitGroup
	turn        sync.Mutex
	quit        context.CancelFunc
	quitting    context.Context
}

// known is a message as the log has it: its sequence, and the hash of its facts.
type known struct {
	sequence uint64
	facts    Hash
}

// openWriter opens a log, or begins one. It takes back what a crash has left half-written, and verifies the last file, which is to be continued.
func openWriter(opts writerOptions, log *zap.Logger) (w *writer, err error) {
	if err := os.MkdirAll(opts.dir, dirMode); err != nil {
		return nil, &DirError{Dir: opts.dir, Err: err}
	}
	if info, err := os.Stat(opts.dir); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("the audit log's directory is open to other users; it holds personal data", zap.String("dir", opts.dir), zap.Stringer("mode", info.Mode().Perm()))
	}
	lock, err := dirlock.Take(opts.dir)
	if err != nil {
		return nil, &DirError{Dir: opts.dir, Err: err}
	}
	w = &writer{opts: opts, log: log, lock: lock, create: createFile, head: Origin}
	w.quitting, w.quit = context.WithCancel(context.Background())
	if err := w.recover(); err != nil {
		w.close()
		return nil, err
	}
	w.certain.head, w.certain.position = w.head, w.position
	w.compressClosed()
	return w, nil
}

func createFile(path string) (sink, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, fileMode)
}

// recover finds the end of the log.
func (w *writer) recover() error {
	if err := w.tidy(); err != nil {
		return &DirError{Dir: w.opts.dir, Err: err}
	}
	files, err := list(w.opts.dir)
	if err != nil {
		return &DirError{Dir: w.opts.dir, Err: err}
	}
	for ; len(files) > 0; files = files[:len(files)-1] {
		last := files[len(files)-1]
		began, err := w.resume(last)
		if err != nil {
			return err
		}
		if began {
			return nil
		}
		// The crash came before the file's first line was there.
		if err := os.Remove(filepath.Join(w.opts.dir, last.name)); err != nil {
			return &WriteError{Dir: w.opts.dir, File: last.name, Err: err}
		}
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // It never fails.
	w.header.log, w.header.stream = hex.EncodeToString(id[:]), w.opts.stream
	return nil
}

// tidy removes what a crash has left half-made.
func (w *writer) tidy() error {
	entries, err := os.ReadDir(w.opts.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		plain, zipped := strings.CutSuffix(e.Name(), gzipSuffix)
		leftover := strings.HasSuffix(e.Name(), tempSuffix)
		if zipped && fileNames.MatchString(plain) {
			// With the plain file still there, the compressed one may differ from it by a redaction.
			_, err := os.Stat(filepath.Join(w.opts.dir, plain))
			leftover = err == nil
		}
		if leftover && strings.HasPrefix(e.Name(), "audit-") {
			if err := os.Remove(filepath.Join(w.opts.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// resume reads the last file and continues it. It returns false if not even its first line is whole.
func (w *writer) resume(f file) (bool, error) {
	r, err := open(w.opts.dir, f)
	if err != nil {
		return false, w.unreadable(f.name, err)
	}
	defer r.close()
	damaged := func(reason string) error {
		return &DamagedError{Dir: w.opts.dir, File: r.name, Line: r.number, Reason: reason}
	}
	torn := 0
	for first := true; ; first = false {
		b, whole, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, w.unreadable(r.name, err)
		}
		if !whole {
			torn = len(b)
			break
		}
		l, err := split(b)
		if err != nil {
			return false, damaged(err.Error())
		}
		if !l.intact() || !first && l.prev != w.head {
			return false, damaged("its hash is not right")
		}
		var says *facts
		if says, w.room, err = l.parse(w.room); err != nil {
			return false, damaged(err.Error())
		}
		if first != (says.kind() == fileLine) {
			return false, damaged("a file's first line, and no other, names the log")
		}
		if first && says.Format != format {
			return false, &DirError{Dir: w.opts.dir, Err: fmt.Errorf("%s has format %d, and this version knows format %d", r.name, says.Format, format)}
		}
		w.head = l.hash
		w.follow(&l, says)
	}
	if r.end == 0 {
		return false, nil
	}
	if w.opts.stream != "" && w.header.stream != w.opts.stream {
		return false, &StreamError{Dir: w.opts.dir, Has: w.header.stream, Offered: w.opts.stream}
	}
	if f.compressed() {
		return true, nil
	}
	w.name, w.size, w.lines = f.name, r.end, r.number
	if torn > 0 {
		w.lines--
	}
	return true, w.reopen(torn)
}

// unreadable gives an error its type.
func (w *writer) unreadable(name string, err error) error {
	if _, ok := errors.AsType[*DamagedError](err); ok {
		return err
	}
	return &DirError{Dir: w.opts.dir, Err: fmt.Errorf("%s: %w", name, err)}
}

// follow keeps track of what a line says.
func (w *writer) follow(l *line, says *facts) {
	switch says.kind() {
	case fileLine:
		w.header = header{file: says.File, log: says.Log, stream: says.Stream, created: says.Created, first: says.First, content: says.Content}
		w.position, w.last, w.day = says.First-1, known{}, 0
	case messageLine:
		w.position, w.last = says.Sequence, known{says.Sequence, hashOf(l.facts)}
		if day := dayOf(says.Stored); w.day == 0 {
			w.day = day
		}
	case gapLine:
		w.position = says.Gap.To
	case rewoundLine:
		w.position, w.last = says.Rewound.To, known{}
	case anewLine:
		w.position, w.last, w.header.created = 0, known{}, says.Anew.Created
	case redactedLine, unknownLine:
	}
}

// reopen opens the last file for writing, without the torn end that a crash may have left. What is in it need not be on the disk yet.
func (w *writer) reopen(torn int) error {
	fail := func(err error) error { return &WriteError{Dir: w.opts.dir, File: w.name, Err: err} }
	path := filepath.Join(w.opts.dir, w.name)
	if torn > 0 {
		if err := os.Truncate(path, w.size); err != nil {
			return fail(err)
		}
		w.log.Info("a torn line at the end of the audit log was taken back", zap.String("file", w.name), zap.Int("line", w.lines+1), zap.Int("bytes", torn))
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, fileMode)
	if err != nil {
		return fail(err)
	}
	w.out = f
	if err := errors.Join(f.Sync(), syncDir(w.opts.dir)); err != nil {
		return fail(err)
	}
	return nil
}

// durable is the name of the log's consumer: it belongs to the log, wherever that is moved.
func (w *writer) durable() string { return "audit-" + w.header.log }

// empty tells whether the log has no line yet.
func (w *writer) empty() bool { return w.head == Origin }

// dayOf numbers the UTC days.
func dayOf(t time.Time) int64 {
	const day = 24 * 60 * 60
	return t.Unix() / day
}

// message adds a message.
func (w *writer) message(m *message) error {
	day := dayOf(m.Stored)
	if err := w.ready(day, m.Stored); err != nil {
		return err
	}
	var content []byte
	content, w.room = contentOf(m.Data, w.room)
	at := len(w.buf)
	w.buf = m.appendFacts(w.buf, content)
	sum := hashOf(w.buf[at:])
	if !w.opts.content && !impersonal(m.Subject, m.Data) {
		content = nil
	}
	w.seal(at, content)
	w.position, w.last = m.Sequence, known{m.Sequence, sum}
	return nil
}

// gap adds that messages are not to be had.
func (w *writer) gap(g Gap) error {
	if err := w.remark(g.appendFacts); err != nil {
		return err
	}
	w.position = g.To
	return nil
}

// rewound adds that the stream has lost what came after a sequence.
func (w *writer) rewound(to uint64) error {
	if err := w.remark(rewound{From: w.position, To: to}.appendFacts); err != nil {
		return err
	}
	w.position, w.last = to, known{}
	return nil
}

// anew adds that the stream was made again.
func (w *writer) anew(created time.Time) error {
	if err := w.remark(anew{Created: created, After: w.position}.appendFacts); err != nil {
		return err
	}
	w.position, w.last, w.header.created = 0, known{}, created
	return nil
}

// remark adds a line that is about no message.
func (w *writer) remark(appendFacts func([]byte) []byte) error {
	now := time.Now()
	if err := w.ready(0, now); err != nil {
		return err
	}
	at := len(w.buf)
	w.buf = appendNoted(appendFacts(w.buf), now)
	w.seal(at, nil)
	return nil
}

func (w *writer) seal(at int, content []byte) {
	w.buf, w.head = seal(w.buf, at, w.head, content)
	w.size += int64(len(w.buf) - at)
	w.lines++
}

// ready sees to it that there is a file for the next line: a new one when the last is large enough, of an earlier day, or of another kind. Day 0 is any.
func (w *writer) ready(day int64, now time.Time) error {
	if w.failed != nil {
		return w.failed
	}
	if w.out != nil && (w.size >= w.opts.maxFileSize || day > w.day && w.day != 0 || w.header.content != w.opts.content) {
		if err := w.finish(); err != nil {
			return err
		}
	}
	if w.out == nil {
		if err := w.begin(now); err != nil {
			return err
		}
		w.compressClosed()
	}
	if w.day == 0 {
		w.day = day
	}
	return nil
}

// begin makes a new file with its first line.
func (w *writer) begin(now time.Time) error {
	w.header.file++
	w.header.first, w.header.content = w.position+1, w.opts.content
	w.name, w.size, w.lines, w.day = fileName(w.header.file, now), 0, 0, 0
	var err error
	if w.out, err = w.create(filepath.Join(w.opts.dir, w.name)); err != nil {
		w.out = nil
		return w.fail(err)
	}
	if err := syncDir(w.opts.dir); err != nil {
		return w.fail(err)
	}
	at := len(w.buf)
	w.buf = w.header.appendFacts(w.buf)
	w.seal(at, nil)
	return nil
}

// commit returns nil when everything that was added is on the disk.
func (w *writer) commit() error {
	switch {
	case w.failed != nil:
		return w.failed
	case len(w.buf) == 0:
		return nil
	}
	if _, err := w.out.Write(w.buf); err != nil {
		return w.fail(err)
	}
	if err := w.out.Sync(); err != nil {
		return w.fail(err)
	}
	w.buf = w.buf[:0]
	w.certain.head, w.certain.position = w.head, w.position
	return nil
}

// finish closes the file.
func (w *writer) finish() error {
	if err := w.commit(); err != nil {
		return err
	}
	if err := w.out.Close(); err != nil {
		return w.fail(err)
	}
	w.out = nil
	w.log.Info("audit file closed", zap.String("file", w.name), zap.Int("lines", w.lines), zap.Uint64("seq", w.position), zap.Stringer("hash", w.head))
	return nil
}

func (w *writer) fail(err error) error {
	if w.failed == nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			err = fmt.Errorf("%s: %w", failed.Op, failed.Err) // The file is named already.
		}
		w.failed = &WriteError{Dir: w.opts.dir, File: w.name, Err: err}
	}
	return w.failed
}

// close gives the log back. What was not committed may be missing from it.
func (w *writer) close() {
	w.quit()
	w.compressing.Wait()
	if w.out != nil {
		_ = w.out.Close() // What counts was synced.
		w.out = nil
	}
	w.lock.Release()
}

// backwards calls visit for each message of the stream as it is now that the log has, the latest first, until it returns false.
func (w *writer) backwards(visit func(known) (bool, error)) error {
	files, err := list(w.opts.dir)
	if err != nil {
		return &DirError{Dir: w.opts.dir, Err: err}
	}
	// Of what was rewound only the beginning still stands.
	stands := w.position
	for _, f := range slices.Backward(files) {
		messages, older, err := w.standing(f, &stands)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(messages) {
			if more, err := visit(m); err != nil || !more {
				return err
			}
		}
		if !older {
			return nil
		}
	}
	return nil
}

// standing returns the messages in a file that are of the stream as it is now and have not been rewound, and whether the files before may have more. It
// lowers stands to what a file before may still hold.
func (w *writer) standing(f file, stands *uint64) (messages []known, older bool, err error) {
	r, err := open(w.opts.dir, f)
	if err != nil {
		return nil, false, w.unreadable(f.name, err)
	}
	defer r.close()
	lowest := *stands
	older = true
	for {
		b, whole, err := r.next()
		if errors.Is(err, io.EOF) || err == nil && !whole {
			break
		}
		if err != nil {
			return nil, false, w.unreadable(f.name, err)
		}
		l, err := split(b)
		if err != nil {
			return nil, false, &DamagedError{Dir: w.opts.dir, File: r.name, Line: r.number, Reason: err.Error()}
		}
		var says *facts
		if says, w.room, err = l.parse(w.room); err != nil {
			return nil, false, &DamagedError{Dir: w.opts.dir, File: r.name, Line: r.number, Reason: err.Error()}
		}
		switch says.kind() {
		case messageLine:
			messages = append(messages, known{says.Sequence, hashOf(l.facts)})
		case rewoundLine:
			messages = slices.DeleteFunc(messages, func(m known) bool { return m.sequence > says.Rewound.To })
			lowest = min(lowest, says.Rewound.To)
		case anewLine:
			messages, older, lowest = nil, false, *stands
		case fileLine:
			older = says.Created.Equal(w.header.created)
		case gapLine, redactedLine, unknownLine:
		}
	}
	messages = slices.DeleteFunc(messages, func(m known) bool { return m.sequence > *stands })
	*stands = lowest
	return messages, older, nil
}
