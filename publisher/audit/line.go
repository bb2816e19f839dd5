package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"

	"nimble-bridge/publisher/event"
)

// Hash is a SHA-256 in 64 lower-case hexadecimal digits.
type Hash [2 * sha256.Size]byte

// String returns the digits.
func (h Hash) String() string { return string(h[:]) }

// Origin is what the first line of a log has as the hash before it.
var Origin = Hash(bytes.Repeat([]byte{'0'}, 2*sha256.Size))

// ParseHash reads a hash as [Hash.String] writes it.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != len(h) || !isHex([]byte(s)) {
		return Hash{}, fmt.Errorf("%q is no hash, want 64 digits from 0-9 and a-f", s)
	}
	copy(h[:], s)
	return h, nil
}

func hashOf(b []byte) (h Hash) {
	sum := sha256.Sum256(b)
	hex.Encode(h[:], sum[:])
	return h
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// What stands between the parts of a line, see the package comment.
const (
	prevMember  = `,"prev":"`
	hashMember  = `,"hash":"`
	eventMember = `,"event":`
)

// seal completes the line that began at dst[at:] with its facts: the hash before it, its own, and the content, if that is kept.
func seal(dst []byte, at int, prev Hash, content []byte) ([]byte, Hash) {
	dst = append(dst, prevMember...)
	dst = append(dst, prev[:]...)
	dst = append(dst, '"')
	own := hashOf(dst[at:])
	dst = append(dst, hashMember...)
	dst = append(dst, own[:]...)
	dst = append(dst, '"')
	if content != nil {
		dst = append(dst, eventMember...)
		dst = append(dst, content...)
	}
	return append(dst, '}', '\n'), own
}

// line is a line taken apart. The slices are parts of it.
type line struct {
	// facts is everything up to the chain: "{" and the members of the line's kind.
	facts []byte
	// prev is the hash of the line before, hash the line's own as it stands there, and sealed what it has to be the hash of.
	prev, hash Hash
	sealed     []byte
	// content is the value of the member "event"; nil if there is none.
	content []byte
}

var errNoLine = errors.New("it is not of the form that this log's lines have")

// split takes a line apart, without its line feed. It does not look into the facts or the content, nor does it check a hash.
func split(b []byte) (line, error) {
	var l line
	i := bytes.Index(b, []byte(prevMember))
	if i < 1 || b[0] != '{' {
		return line{}, errNoLine
	}
	l.facts = b[:i]
	rest := b[i+len(prevMember):]
	take := func(h *Hash) bool {
		if len(rest) <= len(h) || rest[len(h)] != '"' || !isHex(rest[:len(h)]) {
			return false
		}
		copy(h[:], rest)
		rest = rest[len(h)+1:]
		return true
	}
	if !take(&l.prev) {
		return line{}, errNoLine
	}
	l.sealed = b[:len(b)-len(rest)]
	rest, found := bytes.CutPrefix(rest, []byte(hashMember))
	if !found || !take(&l.hash) {
		return line{}, errNoLine
	}
	rest, found = bytes.CutSuffix(rest, []byte{'}'})
	if !found {
		return line{}, errNoLine
	}
	if len(rest) > 0 {
		if l.content, found = bytes.CutPrefix(rest, []byte(eventMember)); !found || len(l.content) == 0 {
			return line{}, errNoLine
		}
	}
	return l, nil
}

// intact tells whether the line's own hash is right.
func (l *line) intact() bool { return hashOf(l.sealed) == l.hash }

// facts is what the facts of a line say. Each kind of line has its own first member, by which the kind is known.
type facts struct {
	// A message of the stream.
	Sequence uint64    `json:"seq"`
	Stored   time.Time `json:"stored"`
	Subject  string    `json:"subject"`
	Headers  struct {
		ID       string `json:"Nats-Msg-Id"`
		Revision string `json:"Nimble-Revision"`
	} `json:"headers"`
	SHA256 string `json:"sha256"`

	// The first line of a file.
	File    int       `json:"file"`
	Format  int       `json:"format"`
	Log     string    `json:"log"`
	Stream  string    `json:"stream"`
	Created time.Time `json:"created"`
	First   uint64    `json:"first"`
	Content bool      `json:"content"`

	// Remarks, and when they were made.
	Gap      *Gap      `json:"gap"`
	Rewound  *rewound  `json:"rewound"`
	Anew     *anew     `json:"anew"`
	Redacted *redact   `json:"redacted"`
	Noted    time.Time `json:"noted"`
}

// Reasons for a gap.
const (
	// BeforeFirst: the stream begins later. An age or size limit, or a purge, removed the messages before they were audited.
	BeforeFirst = "before_first"
	// Deleted: the messages were removed from within the stream, as the erasure of a contact does.
	Deleted = "deleted"
)

// Gap is a range of sequences of which the stream had no message left when the auditor came to them.
type Gap struct {
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Reason string `json:"reason"`
}

// rewound says that the stream lost its end, and that other messages have the sequences after To now.
type rewound struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// anew says that the stream was deleted and made again, so that its sequences begin again.
type anew struct {
	Created time.Time `json:"created"`
	After   uint64    `json:"after"`
}

// redact says that the content of a contact's lines before this one was removed on purpose.
type redact struct {
	Contact string `json:"contact"`
}

// kind is what a line is about.
type kind int

const (
	unknownLine kind = iota
	messageLine
	fileLine
	gapLine
	rewoundLine
	anewLine
	redactedLine
)

func (f *facts) kind() kind {
	switch {
	case f.Sequence > 0:
		return messageLine
	case f.File > 0:
		return fileLine
	case f.Gap != nil:
		return gapLine
	case f.Rewound != nil:
		return rewoundLine
	case f.Anew != nil:
		return anewLine
	case f.Redacted != nil:
		return redactedLine
	}
	return unknownLine
}

// parse reads the facts. The room is used for that and returned for the next.
func (l *line) parse(room []byte) (*facts, []byte, error) {
	room = append(append(room[:0], l.facts...), '}')
	f := &facts{}
	if err := json.Unmarshal(room, f); err != nil {
		return nil, room, errNoLine // The error of the JSON library might quote what the log holds.
	}
	if f.kind() == unknownLine {
		return nil, room, errors.New("it is of no kind that this version knows")
	}
	return f, room, nil
}

// message is a message of the stream.
type message struct {
	Sequence uint64
	Stored   time.Time
	Subject  string
	Header   nats.Header
	Data     []byte
}

// contentOf is a message's body as one line of JSON: itself, with line breaks between its tokens made spaces, if it is a JSON object, and
// otherwise a string with its base64. The room is used if needed and returned for the next.
func contentOf(body, room []byte) (content, left []byte) {
	v := jsontext.Value(body)
	if v.Kind() != '{' || !utf8.Valid(body) || !v.IsValid(jsontext.AllowDuplicateNames(true)) {
		room = append(room[:0], '"')
		room = base64.StdEncoding.AppendEncode(room, body)
		room = append(room, '"')
		return room, room
	}
	if bytes.IndexByte(body, '\n') < 0 && bytes.IndexByte(body, '\r') < 0 {
		return body, room
	}
	// Within strings JSON has line breaks only as escapes.
	room = append(room[:0], body...)
	for i, c := range room {
		if c == '\n' || c == '\r' {
			room[i] = ' '
		}
	}
	return room, room
}

// appendFacts appends the facts of a message, whose content is given.
func (m *message) appendFacts(dst, content []byte) []byte {
	dst = strconv.AppendUint(append(dst, `{"seq":`...), m.Sequence, 10)
	dst = appendTime(append(dst, `,"stored":`...), m.Stored)
	dst = appendString(append(dst, `,"subject":`...), m.Subject)
	dst = append(dst, `,"headers":{`...)
	var few [12]string
	names := few[:0]
	for name := range m.Header {
		if kept(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(appendString(dst, name), ':'), strings.Join(m.Header[name], ", "))
	}
	sum := hashOf(content)
	dst = append(append(append(dst, `},"sha256":"`...), sum[:]...), '"')
	return dst
}

// kept tells whether a header says something about the event. The others speak to the server, or say the same on every message.
func kept(name string) bool {
	return name == event.HeaderID || name == event.HeaderOperation || strings.HasPrefix(name, "Nimble-")
}

// isReceipt tells a receipt, which is about no person, from everything else that a stream may hold.
func isReceipt(subject string) bool { return strings.HasSuffix(subject, ".bridge.reconciled") }

// impersonal tells whether a message is about no person, so that it is kept where events are not: a receipt, or the event that an erasure leaves.
func impersonal(subject string, body []byte) bool {
	return isReceipt(subject) || isErasure(subject, body)
}

// isErasure tells whether a message is the deleted event that the erasure of a contact leaves, with nothing of the contact but its id.
func isErasure(subject string, body []byte) bool {
	if s, err := event.ParseSubject(subject); err != nil || s.Verb != event.Deleted {
		return false
	}
	e, err := event.Decode(body)
	return err == nil && e.Data.Erased
}

// header is the first line of a file.
type header struct {
	file    int
	log     string
	stream  string
	created time.Time
	first   uint64
	content bool
}

// format is the version of the form of the lines.
const format = 1

func (h *header) appendFacts(dst []byte) []byte {
	dst = appendString(fmt.Appendf(dst, `{"file":%d,"format":%d,"log":`, h.file, format), h.log)
	dst = appendString(append(dst, `,"stream":`...), h.stream)
	dst = appendTime(append(dst, `,"created":`...), h.created)
	return fmt.Appendf(dst, `,"first":%d,"content":%t`, h.first, h.content)
}

func (g Gap) appendFacts(dst []byte) []byte {
	return appendString(fmt.Appendf(dst, `{"gap":{"from":%d,"to":%d,"reason":`, g.From, g.To), g.Reason)
}

func (r rewound) appendFacts(dst []byte) []byte {
	return fmt.Appendf(dst, `{"rewound":{"from":%d,"to":%d`, r.From, r.To)
}

func (a anew) appendFacts(dst []byte) []byte {
	return fmt.Appendf(appendTime(append(dst, `{"anew":{"created":`...), a.Created), `,"after":%d`, a.After)
}

func (r redact) appendFacts(dst []byte) []byte {
	return appendString(append(dst, `{"redacted":{"contact":`...), r.Contact)
}

// appendNoted closes a remark's object and appends when it was made.
func appendNoted(dst []byte, at time.Time) []byte {
	return appendTime(append(dst, `},"noted":`...), at)
}

// appendString quotes s. Bytes that are no UTF-8 are replaced, which the error that is dropped here would say.
func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}
