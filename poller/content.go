package poller

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
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
	normal  []byte
}

// entry is one significant key of a contact.
type entry struct {
	// key is "fields.<name>" or a plain top-level key.
	key string
	// start and end delimit the normal form in content.normal.
	start, end int
	// raw is the value as Nimble wrote it.
	raw jsontext.Value
}

func (c *content) normalOf(e entry) []byte { return c.normal[e.start:e.end] }

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

// topLevel lists every key a contact is known to have. What is not significant is the record's identity, moves
// with the clock, copies another record, or depends on who asks.
var topLevel = map[string]significance{
	"record_type": plainKey, "owner_id": plainKey, "is_important": plainKey, "stages_info": plainKey,
	"fields": fieldsKey, "tags": tagsKey, "privacy": privacyKey, "notice": noticeKey, "reminder": reminderKey,

	"id": volatileKey, "object_type": volatileKey, "created": volatileKey, "updated": volatileKey,
	"creator": volatileKey, "creator_id": volatileKey, "updater": volatileKey, "reminders": volatileKey,
	"tags2": volatileKey, "avatar_url": volatileKey, "children": volatileKey, "employers_info": volatileKey,
	"last_contacted": volatileKey, "company_last_contacted": volatileKey, "last_contacted_user": volatileKey,
	"lc": volatileKey, "contexts": volatileKey, "is_editable": volatileKey, "files": volatileKey,
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

// reader takes contacts apart. It is reused from contact to contact, so that examining an unchanged one costs hardly
// any allocation; the content it returns is valid until the next call of read.
type reader struct {
	src      bytes.Buffer
	dec      jsontext.Decoder
	innerSrc bytes.Buffer
	inner    jsontext.Decoder
	raw      jsontext.Value

	out     content
	spans   []span
	scratch []byte
	name    []byte
	text    []byte
	// keys holds one string for each key ever seen: a handful of field names stands in a million contacts.
	keys map[string]string
	// unknown is called for each top-level key that is in no document of the API. The key is valid until it returns.
	unknown func(key []byte)
}

// span is a piece of the normal form, while the pieces of a list or an object are put in order.
type span struct{ start, end int }

func newReader(unknown func(key []byte)) *reader {
	return &reader{keys: make(map[string]string), unknown: unknown}
}

// lenient accepts what Go's stricter defaults refuse but other JSON parsers let pass: the record is Nimble's, not ours.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// read returns the significant content of a contact document.
func (r *reader) read(raw jsontext.Value) (*content, error) {
	r.raw = raw
	r.src = *bytes.NewBuffer(raw)
	r.dec.Reset(&r.src, lenient...)
	r.out.entries, r.out.normal, r.spans = r.out.entries[:0], r.out.normal[:0], r.spans[:0]
	err := r.members(&r.dec, func(name []byte) error {
		how := topLevel[string(name)]
		switch how {
		case fieldsKey:
			return r.fields()
		case volatileKey:
			return r.dec.SkipValue()
		case unknownKey:
			if r.unknown != nil {
				r.unknown(name)
			}
			return r.dec.SkipValue()
		}
		return r.entry(r.intern("", name), func() (bool, error) {
			switch how {
			case tagsKey:
				return r.tags()
			case privacyKey:
				return r.privacy()
			case noticeKey:
				return r.object(&r.dec, significantNotice)
			case reminderKey:
				return r.object(&r.dec, significantReminder)
			default:
				return r.value(&r.dec)
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("contact document: %w", err)
	}
	slices.SortStableFunc(r.out.entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	return &r.out, nil
}

// entry reads one value with the given function and notes it under the key, unless it turns out to be no value.
func (r *reader) entry(key string, read func() (bool, error)) error {
	r.dec.PeekKind() // Brings InputOffset past nothing but what precedes the value.
	from, start := r.dec.InputOffset(), len(r.out.normal)
	some, err := read()
	if err != nil {
		return err
	}
	if some {
		raw := bytes.TrimLeft(r.raw[from:r.dec.InputOffset()], ": \t\r\n")
		r.out.entries = append(r.out.entries, entry{key: key, start: start, end: len(r.out.normal), raw: raw})
	}
	return nil
}

// fields reads the field map, an entry for each name.
func (r *reader) fields() error {
	if r.dec.PeekKind() != '{' {
		return r.dec.SkipValue() // null, or an empty list where other languages write an empty map.
	}
	return r.members(&r.dec, func(name []byte) error {
		parsed := holdsJSON(name)
		return r.entry(r.intern("fields.", name), func() (bool, error) {
			return r.list(&r.dec, func() (bool, error) { return r.fieldValue(parsed) })
		})
	})
}

// fieldValue reads one value of a field: an object with value and modifier, or, should the API change, the bare value.
func (r *reader) fieldValue(parsed bool) (bool, error) {
	if r.dec.PeekKind() != '{' {
		return r.fieldText(parsed)
	}
	start, base := len(r.out.normal), len(r.spans)
	var some bool
	err := r.members(&r.dec, func(name []byte) error {
		at := len(r.out.normal)
		var keep bool
		var err error
		switch string(name) {
		case "value":
			r.member("value")
			keep, err = r.fieldText(parsed)
			some = some || keep
		case "extra_value":
			r.member("extra_value")
			keep, err = r.value(&r.dec)
			some = some || keep
		case "modifier":
			r.member("modifier")
			keep, err = r.value(&r.dec)
		case "is_primary":
			keep = r.dec.PeekKind() == 't'
			r.member("is_primary")
			r.out.normal = append(r.out.normal, "true"...)
			err = r.dec.SkipValue()
		default:
			return r.dec.SkipValue()
		}
		r.keep(keep, at)
		return err
	})
	if err != nil || !some { // A modifier or a flag of nothing is nothing.
		r.drop(start, base)
		return false, err
	}
	r.arrange(start, base, '{', '}')
	return true, nil
}

// fieldText reads the value inside a field's value object. Nimble's documents call it a string always, so a number or a boolean is
// taken as its text.
func (r *reader) fieldText(parsed bool) (bool, error) {
	switch r.dec.PeekKind() {
	case '0', 't', 'f':
		v, err := r.dec.ReadValue()
		if err != nil {
			return false, err
		}
		r.out.normal = append(append(append(r.out.normal, '"'), v...), '"')
		return true, nil
	case '"':
		v, err := r.dec.ReadValue()
		if err != nil {
			return false, err
		}
		if parsed {
			if some, ok := r.encoded(v); ok {
				return some, nil
			}
		}
		return r.string(v), nil
	default:
		return r.value(&r.dec)
	}
}

// encoded reads a JSON object that stands inside a JSON string. ok is false, and nothing is written, when it is none: then the string
// counts as it is.
func (r *reader) encoded(quoted jsontext.Value) (some, ok bool) {
	text, err := jsontext.AppendUnquote(r.text[:0], quoted)
	r.text = text
	if err != nil || !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return false, false
	}
	start, base := len(r.out.normal), len(r.spans)
	r.innerSrc = *bytes.NewBuffer(text)
	r.inner.Reset(&r.innerSrc, lenient...)
	some, err = r.value(&r.inner)
	if err == nil {
		if _, more := r.inner.ReadToken(); more == nil {
			err = fmt.Errorf("text after the object")
		}
	}
	if err != nil {
		r.drop(start, base)
		return false, false
	}
	return some, true
}

// tags reads tags as the set of their texts; they come as strings or as objects with the text under "tag".
func (r *reader) tags() (bool, error) {
	start, base := len(r.out.normal), len(r.spans)
	some, err := r.list(&r.dec, func() (bool, error) {
		if r.dec.PeekKind() != '{' {
			return r.value(&r.dec)
		}
		var some bool
		err := r.members(&r.dec, func(name []byte) (err error) {
			if string(name) != "tag" || some {
				return r.dec.SkipValue()
			}
			some, err = r.value(&r.dec)
			return err
		})
		return some, err
	})
	if err != nil || !some {
		r.drop(start, base)
	}
	return some, err
}

// privacy reads who may see and edit the contact. null means everyone; an object with empty lists means the owner
// alone, so that emptiness counts here.
func (r *reader) privacy() (bool, error) {
	if r.dec.PeekKind() != '{' {
		return r.value(&r.dec)
	}
	start, base := len(r.out.normal), len(r.spans)
	err := r.members(&r.dec, func(name []byte) error {
		at := len(r.out.normal)
		r.memberName(name)
		if r.dec.PeekKind() != '{' {
			keep, err := r.value(&r.dec)
			r.keep(keep, at)
			return err
		}
		inner := len(r.out.normal)
		some, err := r.object(&r.dec, nil)
		if !some {
			r.out.normal = append(r.out.normal[:inner], "{}"...)
		}
		r.keep(true, at)
		return err
	})
	if err != nil || len(r.spans) == base {
		r.drop(start, base)
		return false, err
	}
	r.arrange(start, base, '{', '}')
	return true, nil
}

// value reads any JSON value and tells whether it is one, in the sense that null, "", [] and {} are not.
func (r *reader) value(dec *jsontext.Decoder) (bool, error) {
	switch dec.PeekKind() {
	case '{':
		return r.object(dec, nil)
	case '[':
		return r.list(dec, func() (bool, error) { return r.value(dec) })
	}
	v, err := dec.ReadValue()
	if err != nil {
		return false, err
	}
	switch v.Kind() {
	case 'n':
		return false, nil
	case '"':
		return r.string(v), nil
	case '0':
		number := v.Clone()
		if err := number.Canonicalize(); err != nil {
			return false, err
		}
		r.out.normal = append(r.out.normal, number...)
	default:
		r.out.normal = append(r.out.normal, v...)
	}
	return true, nil
}

// object reads an object, only the given members of it if any are given.
func (r *reader) object(dec *jsontext.Decoder, only []string) (bool, error) {
	if dec.PeekKind() != '{' {
		return r.value(dec)
	}
	start, base := len(r.out.normal), len(r.spans)
	err := r.members(dec, func(name []byte) error {
		if only != nil && !slices.Contains(only, string(name)) {
			return dec.SkipValue()
		}
		at := len(r.out.normal)
		r.memberName(name)
		keep, err := r.value(dec)
		r.keep(keep, at)
		return err
	})
	if err != nil || len(r.spans) == base {
		r.drop(start, base)
		return false, err
	}
	r.arrange(start, base, '{', '}')
	return true, nil
}

// list reads a list as a multiset. A value that is no list counts as a list of one.
func (r *reader) list(dec *jsontext.Decoder, element func() (bool, error)) (bool, error) {
	start, base := len(r.out.normal), len(r.spans)
	if dec.PeekKind() != '[' {
		at := len(r.out.normal)
		some, err := element()
		if err != nil || !some {
			r.drop(start, base)
			return false, err
		}
		r.keep(true, at)
		r.arrange(start, base, '[', ']')
		return true, nil
	}
	if _, err := dec.ReadToken(); err != nil {
		return false, err
	}
	for dec.PeekKind() != ']' {
		at := len(r.out.normal)
		some, err := element()
		if err != nil {
			return false, err
		}
		r.keep(some, at)
	}
	if _, err := dec.ReadToken(); err != nil {
		return false, err
	}
	if len(r.spans) == base {
		r.drop(start, base)
		return false, nil
	}
	r.arrange(start, base, '[', ']')
	return true, nil
}

// members reads an object, calling member with each name; member must read the value. The name is valid until then.
func (r *reader) members(dec *jsontext.Decoder, member func(name []byte) error) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if token.Kind() != '{' {
		return fmt.Errorf("%v where an object was expected", token.Kind())
	}
	for dec.PeekKind() != '}' {
		quoted, err := dec.ReadValue()
		if err != nil {
			return err
		}
		// Names rarely carry escapes: then the bytes between the quotes are the name.
		name := quoted[1 : len(quoted)-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			if name, err = jsontext.AppendUnquote(nil, quoted); err != nil {
				return err
			}
		}
		if err := member(name); err != nil {
			return err
		}
	}
	_, err = dec.ReadToken()
	return err
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

func (r *reader) member(name string) {
	r.out.normal = append(r.out.normal, '"')
	r.out.normal = append(r.out.normal, name...)
	r.out.normal = append(r.out.normal, '"', ':')
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
	r.spans = append(r.spans, span{at, len(r.out.normal)})
}

// drop takes back everything since the start of a list or object.
func (r *reader) drop(start, base int) {
	r.out.normal, r.spans = r.out.normal[:start], r.spans[:base]
}

// arrange puts the pieces since base in order and between the brackets. Equal pieces of a set of strings are one; of anything else they stay.
func (r *reader) arrange(start, base int, open, shut byte) {
	pieces := r.spans[base:]
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
	r.spans = r.spans[:base]
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
