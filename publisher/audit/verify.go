package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
)

// VerifyOptions say what a log is verified against.
type VerifyOptions struct {
	// Dir is the folder of the log. Somebody may be writing to it.
	Dir string
	// Conn is the connection to NATS; nil: the log is verified against itself and the anchors only, and Alone says why, for the report.
	Conn  *publisher.Connection
	Alone string
	// Stream is the event stream; empty: the one that the log names.
	Stream string
	// Durable is the name of the auditor's consumer; empty: "audit-" and the log's own id.
	Durable string
	// Anchors are hashes that the log once ended with, kept elsewhere.
	Anchors []Hash
	// Timeout is how long one answer of the server is waited for. 0 means 5 s.
	Timeout time.Duration
}

// Verify reads a whole log and checks everything that can be checked, see the package comment. What is wrong with the log is in the report; the error is about what kept
// Verify from finding out.
func Verify(ctx context.Context, opts VerifyOptions) (*Report, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	files, err := list(opts.Dir)
	if err != nil {
		return nil, &DirError{Dir: opts.Dir, Err: err}
	}
	if len(files) == 0 {
		return nil, &DirError{Dir: opts.Dir, Err: ErrNoLog}
	}
	// Where the stream lost its end, the log has lines that stood for a while. Which ones is known after reading, so that a log with such a place is read twice.
	var marks []mark
	for {
		v := &verifier{opts: opts, files: files, marks: marks}
		report, err := v.verify(ctx)
		if err != nil {
			return nil, err
		}
		if len(v.found) == len(marks) {
			return report, nil
		}
		marks = v.found
	}
}

// mark is a line after which earlier lines do not stand any more: those with a sequence after to, or, if the stream was made anew, none of them matter.
type mark struct {
	index int
	to    uint64
	anew  bool
}

// verifier reads a log once.
type verifier struct {
	opts  VerifyOptions
	files []file
	// marks are known from an earlier reading, found are those of this one.
	marks, found []mark

	whole, chain, content, order, revisions, receipts, anchors Check

	// name and number are where the current line stands, index counts all lines.
	name   string
	number int
	index  int
	room   []byte

	head     Hash
	position uint64
	header   facts
	// partial says that the log's first files are not there.
	partial bool
	torn    bool

	messages, gaps, rewinds, anews, without, checked, near int
	// lost is how many messages the gaps stand for; holes and missed are the gaps and their messages since the stream was made.
	lost     uint64
	holes    int
	missed   uint64
	contacts map[string]*contact
	alive    map[string]int
	// unsettled has, for each account, the contacts that were erased and that the bridge may still count: an erasure is another program's, and the bridge hears
	// of it later. They are settled with the contact's next event, or with a receipt that does without them.
	unsettled map[string]map[string]struct{}
	// seen is how many contacts there were in all.
	seen int
	// bare has the first line of each contact that lacks its content, though the file keeps contents; the key is the contact's id, empty for notices.
	bare map[string]Fault
	// anchored has where each anchor was found.
	anchored map[Hash]string

	against *comparison
}

// contact is what a log says of a contact so far.
type contact struct {
	revision uint64
	// holes is how many gaps there were before its last line.
	holes int
	alive bool
}

func (v *verifier) verify(ctx context.Context) (*Report, error) {
	v.whole.Name, v.chain.Name, v.content.Name, v.order.Name = "files", "chain", "content", "sequence"
	v.revisions.Name, v.receipts.Name, v.anchors.Name = "revisions", "receipts", "anchors"
	v.bare, v.anchored = make(map[string]Fault), make(map[Hash]string)
	v.forget()
	var err error
	if v.against, err = compare(ctx, v.opts, v.files[0]); err != nil {
		return nil, err
	}
	defer v.against.close()
	// Somebody may be writing: what was acknowledged when the comparison began is in a file by now, and perhaps in a new one.
	if v.files, err = list(v.opts.Dir); err != nil {
		return nil, &DirError{Dir: v.opts.Dir, Err: err}
	}
	for i := range v.files {
		if err := v.file(ctx, i); err != nil {
			return nil, err
		}
	}
	if err := v.against.end(ctx, v); err != nil {
		return nil, err
	}
	v.conclude()
	checks := []Check{v.whole, v.chain, v.content, v.order, v.revisions, v.receipts, v.against.same, v.against.reach, v.anchors}
	for i, c := range checks {
		if c.Result == Fails {
			checks[i].Text = counted(c.Count, "fault")
		}
	}
	return &Report{Checks: checks, Head: v.head, File: v.name, Line: v.number, Sequence: v.position}, nil
}

// fault says that something is wrong with the current line.
func (v *verifier) fault(c *Check, format string, args ...any) {
	c.fault(v.name, v.number, format, args...)
}

// file reads one file.
func (v *verifier) file(ctx context.Context, i int) error {
	f := v.files[i]
	if i > 0 && f.number != v.files[i-1].number+1 {
		v.whole.fault("", 0, "%s missing between %s and %s", missing(v.files[i-1].number+1, f.number-1), v.files[i-1].name, f.name)
	}
	r, err := open(v.opts.Dir, f)
	if damaged, ok := errors.AsType[*DamagedError](err); ok {
		v.whole.fault(damaged.File, 0, "%s", damaged.Reason)
		return nil
	}
	if err != nil {
		return &DirError{Dir: v.opts.Dir, Err: err}
	}
	defer r.close()
	v.name, v.number = r.name, 0
	for ctx.Err() == nil {
		b, whole, err := r.next()
		if errors.Is(err, io.EOF) {
			if v.number == 0 {
				v.whole.fault(r.name, 0, "it is empty")
			}
			return nil
		}
		v.index++
		v.number = r.number
		if err != nil {
			v.fault(&v.whole, "the rest cannot be read: %v", err)
			return nil
		}
		if !whole {
			if v.torn = i == len(v.files)-1; v.torn {
				v.number-- // It is no line yet.
				return nil
			}
			v.fault(&v.chain, "it does not end with a line feed")
		}
		if err := v.line(ctx, f, b); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func missing(from, to int) string {
	if from == to {
		return fmt.Sprintf("file %d is", from)
	}
	return fmt.Sprintf("files %d to %d are", from, to)
}

// line checks one line.
func (v *verifier) line(ctx context.Context, f file, b []byte) error {
	l, err := split(b)
	if err != nil {
		v.fault(&v.chain, "%v", err)
		return nil
	}
	var says *facts
	if says, v.room, err = l.parse(v.room); err != nil {
		v.fault(&v.chain, "%v", err)
		return nil
	}
	if v.index == 1 {
		v.beginning(f, &l)
	}
	if !l.intact() {
		v.fault(&v.chain, "it was changed: its hash is not that of what it says")
	}
	if l.prev != v.head {
		v.fault(&v.chain, "it does not follow the line before: a line was changed, removed, inserted or moved")
	}
	v.head = l.hash
	v.anchor(l.hash)
	kind := says.kind()
	if (v.number == 1) != (kind == fileLine) {
		v.fault(&v.whole, "a file's first line, and no other, names the log")
	}
	switch kind {
	case fileLine:
		v.begins(f, says)
	case messageLine:
		return v.message(ctx, &l, says)
	case gapLine:
		return v.gap(ctx, says.Gap)
	case rewoundLine:
		if says.Rewound.From != v.position || says.Rewound.To >= says.Rewound.From {
			v.fault(&v.order, "the log says that the stream went back from %d to %d, and is at %d", says.Rewound.From, says.Rewound.To, v.position)
		}
		v.rewinds++
		v.position = says.Rewound.To
		v.found = append(v.found, mark{index: v.index, to: says.Rewound.To})
	case anewLine:
		if says.Anew.After != v.position {
			v.fault(&v.order, "the log says that the stream was made anew after %d, and is at %d", says.Anew.After, v.position)
		}
		v.anews++
		v.position, v.header.Created = 0, says.Anew.Created
		v.found = append(v.found, mark{index: v.index, anew: true})
		v.forget()
	case redactedLine:
		v.redacted(says.Redacted.Contact)
	case unknownLine:
	}
	return nil
}

// forget begins a stream.
func (v *verifier) forget() {
	v.contacts, v.alive, v.unsettled = make(map[string]*contact), make(map[string]int), make(map[string]map[string]struct{})
	v.holes, v.missed, v.partial = 0, 0, false
}

// beginning is called with the log's first line. Where earlier files were taken away, an anchor has to say what they ended with.
func (v *verifier) beginning(f file, l *line) {
	v.head = Origin
	if f.number == 1 {
		return
	}
	v.partial = true
	for _, a := range v.opts.Anchors {
		if a == l.prev {
			v.head = a
			v.anchored[a] = "before " + v.name
			return
		}
	}
	v.whole.fault("", 0, "%s missing before %s; if they were moved away on purpose, give the hash that the last of them ended with as an anchor",
		missing(1, f.number-1), f.name)
	v.head = l.prev
}

// anchor looks whether a line is an anchor.
func (v *verifier) anchor(h Hash) {
	for _, a := range v.opts.Anchors {
		if a == h {
			v.anchored[a] = fmt.Sprintf("%s line %d", v.name, v.number)
		}
	}
}

// begins checks the first line of a file.
func (v *verifier) begins(f file, says *facts) {
	before := v.header
	v.header = *says
	switch {
	case says.Format != format:
		v.fault(&v.whole, "it has format %d, and this version knows format %d", says.Format, format)
	case says.File != f.number:
		v.fault(&v.whole, "it says that it is file %d of the log", says.File)
	case v.index == 1:
		v.position = says.First - 1
		if !v.partial && says.First != 1 {
			v.fault(&v.order, "the log begins with sequence %d", says.First)
		}
		return
	case says.Log != before.Log || says.Stream != before.Stream:
		v.fault(&v.whole, "it is of another log")
	case !says.Created.Equal(before.Created):
		v.fault(&v.order, "it is of another stream than the file before, and nothing says that the stream was made anew")
	}
	if says.First != v.position+1 {
		v.fault(&v.order, "it begins with sequence %d, and %d is next", says.First, v.position+1)
		v.position = says.First - 1
	}
}

// message checks a message's line.
func (v *verifier) message(ctx context.Context, l *line, says *facts) error {
	v.messages++
	if says.Sequence != v.position+1 {
		v.fault(&v.order, "it has sequence %d, and %d is next", says.Sequence, v.position+1)
	}
	v.position = says.Sequence
	subject, err := event.ParseSubject(says.Subject)
	isContact := err == nil
	v.contained(l, says, subject.ContactID)
	if v.superseded(says.Sequence) {
		return nil
	}
	switch {
	case isContact:
		v.revision(subject, l, says)
	case isReceipt(says.Subject):
		v.receipt(l, says)
	}
	return v.against.message(ctx, v, l, says, subject)
}

// superseded tells whether the stream has lost, after the current line was written, what is at the given sequence.
func (v *verifier) superseded(sequence uint64) bool {
	for _, m := range v.marks {
		switch {
		case m.index < v.index:
		case m.anew:
			return false
		case sequence > m.to:
			return true
		}
	}
	return false
}

// contained checks a message's content against its hash.
func (v *verifier) contained(l *line, says *facts, id string) {
	switch {
	case l.content != nil:
		if sum := hashOf(l.content); sum.String() != says.SHA256 {
			v.fault(&v.content, "the event is not the one whose hash the line has")
		}
	case !v.header.Content && !isReceipt(says.Subject):
		v.without++
	default:
		v.without++
		if _, ok := v.bare[id]; !ok {
			v.bare[id] = Fault{v.name, v.number, "the event was removed, and no later line says that it was redacted"}
		}
	}
}

// redacted explains why lines of a contact have no content.
func (v *verifier) redacted(id string) {
	delete(v.bare, id)
	delete(v.bare, "")
}

// gap checks a line about messages that were gone.
func (v *verifier) gap(ctx context.Context, g *Gap) error {
	if g.From != v.position+1 || g.To < g.From {
		v.fault(&v.order, "it is about the gap from %d to %d, and %d is next", g.From, g.To, v.position+1)
	}
	v.position = g.To
	if v.superseded(g.To) {
		return nil
	}
	v.gaps++
	v.lost += g.To - g.From + 1
	v.holes++
	v.missed += g.To - g.From + 1
	return v.against.gap(ctx, v, g)
}

// revision checks that a contact's events follow each other.
func (v *verifier) revision(s event.Subject, l *line, says *facts) {
	var revision uint64
	if _, err := fmt.Sscan(says.Headers.Revision, &revision); err != nil || revision == 0 {
		v.fault(&v.revisions, "the event of contact %s has no revision", s.ContactID)
		return
	}
	key := s.Account + "." + s.ContactID
	c := v.contacts[key]
	known := c != nil
	if !known {
		c = &contact{}
		v.contacts[key] = c
		v.seen++
	}
	// Only what gaps have left out, or files that are not here, may have had the revisions between.
	jumps := v.holes > c.holes || !known && v.partial
	if revision != c.revision+1 && (!jumps || revision <= c.revision) {
		v.fault(&v.revisions, "contact %s: revision %d follows %d", s.ContactID, revision, c.revision)
	}
	alive := s.Verb != event.Deleted
	delete(v.unsettled[s.Account], s.ContactID)
	if c.alive && !alive && isErasure(says.Subject, l.content) {
		if v.unsettled[s.Account] == nil {
			v.unsettled[s.Account] = make(map[string]struct{})
		}
		v.unsettled[s.Account][s.ContactID] = struct{}{}
	}
	switch {
	case alive && !c.alive:
		v.alive[s.Account]++
	case !alive && c.alive:
		v.alive[s.Account]--
	}
	c.revision, c.holes, c.alive = revision, v.holes, alive
}

// receipt checks that as many contacts are alive as the bridge counted.
func (v *verifier) receipt(l *line, says *facts) {
	if l.content == nil || v.partial {
		return // What is not there was reported, or nobody knows how many contacts there were at the beginning.
	}
	r, err := event.DecodeReconciled(l.content)
	if err != nil {
		v.fault(&v.receipts, "the receipt cannot be read: %v", err)
		return
	}
	account := strings.TrimPrefix(r.Source, event.Source(""))
	alive, counted := v.alive[account], r.Data.Contacts
	off, explained := uint64(max(alive-counted, counted-alive)), v.missed
	if counted > alive {
		explained += uint64(len(v.unsettled[account]))
	}
	v.checked++
	switch {
	case off == 0:
		clear(v.unsettled[account])
	case off <= explained:
		v.near++
	default:
		v.fault(&v.receipts, "the receipt at sequence %d counts %d contacts of account %s, the log has %d", says.Sequence, counted, account, alive)
	}
}

// conclude says how far each check went.
func (v *verifier) conclude() {
	first, last := v.files[0].name, v.files[len(v.files)-1].name
	v.whole.say("%s of log %s, %s to %s", counted(len(v.files), "file"), v.header.Log, first, last)
	v.chain.say("%s, each with the hash of the one before", counted(v.lines(), "line"))
	if v.torn {
		v.chain.Text += "; one more at the end is being written, or was torn by a crash, and is none yet"
	}
	v.content.say("%s with the content that its hash is of", counted(v.messages-v.without, "event"))
	if v.without > 0 {
		v.content.Text += fmt.Sprintf("; %d without content", v.without)
	}
	bare := slices.SortedFunc(maps.Values(v.bare), func(a, b Fault) int { return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line) })
	for _, f := range bare {
		v.content.fault(f.File, f.Line, "%s", f.Text)
	}
	v.order.say("stream %s up to %d: %s", v.header.Stream, v.position, counted(v.messages, "message"))
	for _, more := range []struct {
		n    int
		text string
	}{
		{v.gaps, fmt.Sprintf("%s noted (%s gone before they were audited)", counted(v.gaps, "gap"), counted(v.lost, "message"))},
		{v.rewinds, fmt.Sprintf("the stream lost its end %s", counted(v.rewinds, "time"))},
		{v.anews, fmt.Sprintf("the stream was made anew %s", counted(v.anews, "time"))},
	} {
		if more.n > 0 {
			v.order.Text += "; " + more.text
		}
	}
	v.revisions.say("%s, no revision missing", counted(v.seen, "contact"))
	switch {
	case v.partial:
		v.receipts.skip("the log's beginning is not here, so that contacts cannot be counted")
	case v.checked == 0:
		v.receipts.skip("there is none in the log")
	default:
		v.receipts.say("%s of reconciliations with as many contacts as the log has", counted(v.checked, "receipt"))
		if v.near > 0 {
			v.receipts.Text += fmt.Sprintf("; %d of them but for what gaps have left out or an erasure had just removed", v.near)
		}
	}
	if len(v.opts.Anchors) == 0 {
		v.anchors.skip("none given: that nothing was cut off at the end is known only as far as the stream reaches")
		return
	}
	var places []string
	for _, a := range v.opts.Anchors {
		if place, ok := v.anchored[a]; ok {
			places = append(places, fmt.Sprintf("%s… at %s", a[:8], place))
			continue
		}
		v.anchors.fault("", 0, "no line has the hash %s: the log was cut off or rewritten", a)
	}
	v.anchors.say("%s", strings.Join(places, ", "))
}

// lines is how many whole lines there are.
func (v *verifier) lines() int {
	if v.torn {
		return v.index - 1
	}
	return v.index
}
