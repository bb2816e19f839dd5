package poller

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble/jsonwalk"
)

// content is what counts in a contact: its significant keys, each with the value in a normal form, in which
// two values are equal byte for byte exactly if no person would call one of them a change of the other.
//
// The normal form is JSON without white space, strings and numbers as RFC 8785 writes them, members in byte
// order, and
//   - null, "", [] and {} are no value, and so is a key without one; the API uses them interchangeably;
//   - lists are multisets, tags are a set of texts: the API promises no order;
//   - of each value object in the field map, only value, modifier, is_primary and extra_value count;
//   - the JSON that addresses and employments carry inside a string counts parsed;
//   - of notice and reminder, only what a person writes counts, not copies of users or countdowns.
type content struct {
	entries []entry
	raw     jsontext.Value
	normal  []byte
}

// entry is one significant key of a contact.
type entry struct {
	// key is "fields.<name>" or a plain top-level key.
	key string
	// raw is the value as Nimble wrote it, in content.raw, and normal its normal form, in content.normal.
	raw, normal span
}

// span is a piece of a text. It is small because many are put in order.
type span struct{ start, end int32 }

func spanOf(start, end int) span { return span{int32(start), int32(end)} } //nolint:gosec // No document comes near 2 GB.

func (c *content) rawOf(e entry) jsontext.Value { return c.raw[e.raw.start:e.raw.end] }
func (c *content) normalOf(e entry) []byte      { return c.normal[e.normal.start:e.normal.end] }

// significance says how a top-level key of a contact is read.
type significance uint8

const (
	unknownKey significance = iota
	volatileKey
	plainKey
	fieldsKey
	tagsKey
	privacyKey
	noticeKey
	reminderKey
)

// significanceOf knows every key that a contact is known to have. What is not significant is the record's identity, moves
// with the clock, copies another record, or depends on who asks.
func significanceOf(key []byte) significance {
	switch string(key) {
	case "record_type", "owner_id", "is_important", "stages_info":
		return plainKey
	case "fields":
		return fieldsKey
	case "tags":
		return tagsKey
	case "privacy":
		return privacyKey
	case "notice":
		return noticeKey
	case "reminder":
		return reminderKey
	case "id", "object_type", "created", "updated", "creator", "creator_id", "updater", "reminders", "tags2", "avatar_url", "children", "employers_info",
		"last_contacted", "company_last_contacted", "last_contacted_user", "lc", "contexts", "is_editable", "files":
		return volatileKey
	}
	return unknownKey
}

// significantNotice and significantReminder are the members that a person sets.
var (
	significantNotice   = []string{"text", "color"}
	significantReminder = []string{"period", "active"}
)

// holdsJSON tells the fields whose values are JSON objects encoded as strings.
func holdsJSON(field []byte) bool {
	return string(field) == "address" || string(field) == "contact employment"
}

// reader takes contacts apart. It is reused from contact to contact, so that examining an unchanged one costs no
// allocation; the content it returns is valid until the next call of read.
type reader struct {
	doc jsonwalk.Cursor
	// inner reads JSON inside a string of the document, which is in text.
	inner jsonwalk.Cursor
	text  []byte

	out     content
	spans   []span
	scratch []byte
	name    []byte
	// keys holds one string for each key ever seen: a handful of field names stands in a million contacts.
	keys map[string]string
	// unknown is called for each top-level key that is in no document of the API. The key is valid until it returns.
	unknown func(key []byte)
}

func newReader(unknown func(key []byte)) *reader {
	return &reader{keys: make(map[string]string), unknown: unknown}
}

// lenient accepts what Go's stricter defaults refuse but other JSON parsers let pass: the record is Nimble's, not ours.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// checked returns the significant content of a document that nobody has checked.
func checked(raw jsontext.Value) (*content, error) {
	if !raw.IsValid(lenient...) {
		return nil, errNoContact
	}
	return newReader(nil).read(raw)
}

var errNoContact = errors.New("contact document: not a JSON object")

// read returns the significant content of a contact document, which has to be JSON. The error is for what is no object.
func (r *reader) read(raw jsontext.Value) (*content, error) {
	r.doc.Reset(raw)
	r.out.raw, r.out.entries, r.out.normal, r.spans = raw, r.out.entries[:0], r.out.normal[:0], r.spans[:0]
	if r.doc.Kind() != '{' {
		return nil, errNoContact
	}
	for r.doc.Open(); r.doc.More(); {
		r.member(r.doc.Name())
	}
	if err := r.doc.End(); err != nil {
		return nil, errNoContact
	}
	slices.SortStableFunc(r.out.entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return &r.out, nil
}

// member reads a member of the contact.
func (r *reader) member(name []byte) {
	switch how := significanceOf(name); how {
	case fieldsKey:
		r.fields()
	case volatileKey:
		r.doc.Skip()
	case unknownKey:
		if r.unknown != nil {
			r.unknown(name)
		}
		r.doc.Skip()
	default:
		key := r.intern("", name)
		began := r.mark()
		r.entry(key, began, r.significant(how))
	}
}

// significant reads the value of a key that is neither of the volatile ones nor the field map.
func (r *reader) significant(how significance) bool {
	switch how {
	case tagsKey:
		return r.tags()
	case privacyKey:
		return r.privacy()
	case noticeKey:
		return r.object(&r.doc, significantNotice)
	case reminderKey:
		return r.object(&r.doc, significantReminder)
	default:
		return r.value(&r.doc)
	}
}

// mark is where a value begins in the document, and its normal form in content.normal.
type mark struct{ raw, normal int }

func (r *reader) mark() mark {
	r.doc.Kind() // Passes over the space before the value.
	return mark{r.doc.Offset(), len(r.out.normal)}
}

// entry notes under its key what was read since the mark, unless it turned out to be no value.
func (r *reader) entry(key string, b mark, some bool) {
	if some {
		r.out.entries = append(r.out.entries, entry{key: key, raw: spanOf(b.raw, r.doc.Offset()), normal: spanOf(b.normal, len(r.out.normal))})
	}
}

// fields reads the field map, an entry for each name.
func (r *reader) fields() {
	if r.doc.Kind() != '{' {
		r.doc.Skip() // null, or an empty list where other languages write an empty map.
		return
	}
	for r.doc.Open(); r.doc.More(); {
		name := r.doc.Name()
		parsed, key := holdsJSON(name), r.intern("fields.", name)
		began, list := r.mark(), r.enter(&r.doc)
		for list.more(r) {
			list.keep(r, r.fieldValue(parsed))
		}
		r.entry(key, began, list.leave(r))
	}
}

// fieldValue reads one value of a field: an object with value and modifier, or, should the API change, the bare value.
func (r *reader) fieldValue(parsed bool) bool {
	if r.doc.Kind() != '{' {
		return r.fieldText(parsed)
	}
	start, base, some := len(r.out.normal), len(r.spans), false
	for r.doc.Open(); r.doc.More(); {
		at, keep := len(r.out.normal), false
		switch string(r.doc.Name()) {
		case "value":
			r.out.normal = append(r.out.normal, `"value":`...)
			keep = r.fieldText(parsed)
			some = some || keep
		case "extra_value":
			r.out.normal = append(r.out.normal, `"extra_value":`...)
			keep = r.value(&r.doc)
			some = some || keep
		case "modifier":
			r.out.normal = append(r.out.normal, `"modifier":`...)
			keep = r.value(&r.doc)
		case "is_primary":
			r.out.normal = append(r.out.normal, `"is_primary":true`...)
			keep = r.doc.Kind() == 't'
			r.doc.Skip()
		default:
			r.doc.Skip()
		}
		r.keep(keep, at)
	}
	if !some { // A modifier or a flag of nothing is nothing.
		r.drop(start, base)
		return false
	}
	r.arrange(start, base, '{', '}')
	return true
}

// fieldText reads the value inside a field's value object. Nimble's documents call it a string always, so a number or a boolean is
// taken as its text.
func (r *reader) fieldText(parsed bool) bool {
	switch r.doc.Kind() {
	case '0', 't', 'f':
		r.out.normal = append(append(append(r.out.normal, '"'), r.doc.Value()...), '"')
		return true
	case '"':
		quoted := r.doc.Value()
		if parsed {
			if some, ok := r.encoded(quoted); ok {
				return some
			}
		}
		return r.string(quoted)
	default:
		return r.value(&r.doc)
	}
}

// encoded reads a JSON object that stands inside a JSON string. ok is false, and nothing is written, when it is none: then the string
// counts as it is.
func (r *reader) encoded(quoted jsontext.Value) (some, ok bool) {
	text, err := jsontext.AppendUnquote(r.text[:0], quoted)
	r.text = text
	r.inner.Reset(text)
	if err != nil || r.inner.Kind() != '{' || !jsontext.Value(text).IsValid(lenient...) {
		return false, false
	}
	return r.value(&r.inner), true
}

// tags reads tags as the set of their texts; they come as strings or as objects with the text under "tag".
func (r *reader) tags() bool {
	list := r.enter(&r.doc)
	for list.more(r) {
		if r.doc.Kind() != '{' {
			list.keep(r, r.value(&r.doc))
			continue
		}
		some := false
		for r.doc.Open(); r.doc.More(); {
			if string(r.doc.Name()) != "tag" || some {
				r.doc.Skip()
				continue
			}
			some = r.value(&r.doc)
		}
		list.keep(r, some)
	}
	return list.leave(r)
}

// privacy reads who may see and edit the contact. null means everyone; an object with empty lists means the owner
// alone, so that emptiness counts here.
func (r *reader) privacy() bool {
	if r.doc.Kind() != '{' {
		return r.value(&r.doc)
	}
	start, base := len(r.out.normal), len(r.spans)
	for r.doc.Open(); r.doc.More(); {
		at := len(r.out.normal)
		r.memberName(r.doc.Name())
		restricts := r.doc.Kind() == '{'
		some := r.value(&r.doc)
		if restricts && !some {
			r.out.normal = append(r.out.normal, "{}"...)
		}
		r.keep(some || restricts, at)
	}
	return r.close(start, base)
}

// value reads any JSON value and tells whether it is one, in the sense that null, "", [] and {} are not.
func (r *reader) value(c *jsonwalk.Cursor) bool {
	switch c.Kind() {
	case '{':
		return r.object(c, nil)
	case '[':
		list := r.enter(c)
		for list.more(r) {
			list.keep(r, r.value(c))
		}
		return list.leave(r)
	case '"':
		return r.string(c.Value())
	case '0':
		number := c.Value().Clone()
		_ = number.Canonicalize() // It is a number.
		r.out.normal = append(r.out.normal, number...)
		return true
	case 't', 'f':
		r.out.normal = append(r.out.normal, c.Value()...)
		return true
	default:
		c.Skip()
		return false
	}
}

// object reads an object, only the given members of it if any are given.
func (r *reader) object(c *jsonwalk.Cursor, only []string) bool {
	if c.Kind() != '{' {
		return r.value(c)
	}
	start, base := len(r.out.normal), len(r.spans)
	for c.Open(); c.More(); {
		name := c.Name()
		if only != nil && !slices.Contains(only, string(name)) {
			c.Skip()
			continue
		}
		at := len(r.out.normal)
		r.memberName(name)
		r.keep(r.value(c), at)
	}
	return r.close(start, base)
}

// close puts the members of an object in order, unless there are none.
func (r *reader) close(start, base int) bool {
	if len(r.spans) == base {
		r.drop(start, base)
		return false
	}
	r.arrange(start, base, '{', '}')
	return true
}

// list is a list that is being read as a multiset. A value that is no list counts as a list of one.
type list struct {
	c           *jsonwalk.Cursor
	start, base int
	// at is where the normal form of the element being read begins.
	at     int
	single bool
	ended  bool
}

func (r *reader) enter(c *jsonwalk.Cursor) list {
	l := list{c: c, start: len(r.out.normal), base: len(r.spans), single: c.Kind() != '['}
	if !l.single {
		c.Open()
	}
	return l
}

// more tells whether there is another element to read.
func (l *list) more(r *reader) bool {
	l.at = len(r.out.normal)
	if l.single {
		more := !l.ended
		l.ended = true
		return more
	}
	return l.c.More()
}

// keep notes the element that was read, if it is a value.
func (l *list) keep(r *reader, some bool) { r.keep(some, l.at) }

// leave puts the elements in order, and tells whether there are any.
func (l *list) leave(r *reader) bool {
	if len(r.spans) == l.base {
		r.drop(l.start, l.base)
		return false
	}
	r.arrange(l.start, l.base, '[', ']')
	return true
}

// string appends a JSON string in its shortest form, and nothing for an empty one.
func (r *reader) string(quoted jsontext.Value) bool {
	if len(quoted) == len(`""`) {
		return false
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		r.out.normal = append(r.out.normal, quoted...)
		return true
	}
	text, _ := jsontext.AppendUnquote(r.scratch[:0], quoted) // An error speaks of invalid UTF-8, which is replaced.
	r.out.normal, _ = jsontext.AppendQuote(r.out.normal, text)
	r.scratch = text
	return true
}

func (r *reader) memberName(name []byte) {
	r.out.normal, _ = jsontext.AppendQuote(r.out.normal, name)
	r.out.normal = append(r.out.normal, ':')
}

// keep notes what was appended since at as one piece of the list or object being read, or takes it back.
func (r *reader) keep(keep bool, at int) {
	if !keep {
		r.out.normal = r.out.normal[:at]
		return
	}
	r.spans = append(r.spans, spanOf(at, len(r.out.normal)))
}

// drop takes back everything since the start of a list or object.
func (r *reader) drop(start, base int) {
	r.out.normal, r.spans = r.out.normal[:start], r.spans[:base]
}

// arrange puts the pieces since base in order and between the brackets. Equal pieces of a set of strings are one; of anything else they stay.
func (r *reader) arrange(start, base int, open, shut byte) {
	pieces := r.spans[base:]
	r.spans = r.spans[:base]
	if len(pieces) == 1 {
		r.out.normal = append(slices.Insert(r.out.normal, start, open), shut)
		return
	}
	slices.SortStableFunc(pieces, func(a, b span) int {
		return bytes.Compare(r.out.normal[a.start:a.end], r.out.normal[b.start:b.end])
	})
	r.scratch = append(r.scratch[:0], open)
	for i, p := range pieces {
		piece := r.out.normal[p.start:p.end]
		if i > 0 {
			before := pieces[i-1]
			if open == '[' && piece[0] == '"' && bytes.Equal(piece, r.out.normal[before.start:before.end]) {
				continue
			}
			r.scratch = append(r.scratch, ',')
		}
		r.scratch = append(r.scratch, piece...)
	}
	r.scratch = append(r.scratch, shut)
	r.out.normal = append(r.out.normal[:start], r.scratch...)
}

// intern returns prefix+name as a string that is allocated once.
func (r *reader) intern(prefix string, name []byte) string {
	r.name = append(append(r.name[:0], prefix...), name...)
	if key, ok := r.keys[string(r.name)]; ok {
		return key
	}
	key := string(r.name)
	// Names are users' texts: bounded, so that an account with endless names costs no endless memory.
	if len(r.keys) < maxInternedKeys {
		r.keys[key] = key
	}
	return key
}

const maxInternedKeys = 4096

// String shows the content as one JSON object, as it is hashed.
func (c *content) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range c.entries {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(e.key))
		b.WriteByte(':')
		b.Write(c.normalOf(e))
	}
	b.WriteByte('}')
	return b.String()
}
