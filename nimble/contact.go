package nimble

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Contact is a person or a company as the API key's user sees it.
type Contact struct {
	// ID has 1 to 64 characters out of A-Z, a-z, 0-9, _ and -. Nimble's own have 24 hexadecimal digits, see [IDTime].
	ID string
	// RecordType is "person" or "company", or whatever else Nimble sends; empty if it sends none.
	RecordType string
	// Created and Updated are in UTC, and zero where Nimble sends none or an unreadable one.
	Created, Updated time.Time
	// Raw is the record as Nimble sent it, byte for byte, without white space around it. The contacts of a page share
	// one buffer: clone what is kept when the rest of the page is not.
	Raw jsontext.Value
}

// Malformed is a record of a listing that cannot be understood.
type Malformed struct {
	// ID is the record's id, empty if it has no usable one.
	ID string
	// Reason does not quote the record.
	Reason string
	// Raw is the record as Nimble sent it. It may have repeated names or invalid UTF-8, and is no JSON then for a
	// strict parser.
	Raw jsontext.Value
}

// What makes a record malformed.
const (
	reasonNoObject = "not a JSON object"
	reasonNoID     = "no usable id"
	reasonNotPure  = "invalid UTF-8 or a repeated name"
)

// ParseContact reads a contact document. It is lenient about everything but what nobody could work with: the error is a [*RecordError] when
// raw is no JSON object or has no usable id. The contact's Raw aliases raw.
func ParseContact(raw jsontext.Value) (Contact, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw))
	if dec.PeekKind() != '{' {
		return Contact{}, &RecordError{Malformed{Reason: reasonNoObject, Raw: raw}}
	}
	contact, err := readContact(dec, raw)
	if err == nil {
		_, err = dec.ReadToken()
	}
	if !errors.Is(err, io.EOF) { // That is: anything but the end right after the object.
		return Contact{}, &RecordError{Malformed{Reason: reasonNoObject, Raw: raw}}
	}
	if contact.ID == "" {
		return Contact{}, &RecordError{Malformed{Reason: reasonNoID, Raw: raw}}
	}
	return contact, nil
}

// readContact reads the object that dec stands before. body is all that dec reads. The ID of the result is empty if there is no
// usable one; an error is about the syntax.
func readContact(dec *jsontext.Decoder, body []byte) (Contact, error) {
	var c Contact
	if _, err := dec.ReadToken(); err != nil {
		return c, err
	}
	start := dec.InputOffset() - 1
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return c, err
		}
		value, err := dec.ReadValue()
		if err != nil {
			return c, err
		}
		if value.Kind() != '"' {
			continue
		}
		switch string(unquoted(name)) {
		case "id":
			if id := unquoted(value); validID(id) {
				c.ID = string(id)
			}
		case "record_type":
			c.RecordType = recordType(unquoted(value))
		case "created":
			c.Created, _ = parseTime(unquoted(value)) // Unreadable is zero.
		case "updated":
			c.Updated, _ = parseTime(unquoted(value))
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return c, err
	}
	end := dec.InputOffset()
	c.Raw = body[start:end:end]
	return c, nil
}

// unquoted returns a JSON string's text. There are hardly ever escapes in what is read here, and then the text lies between the quotes.
func unquoted(quoted jsontext.Value) []byte {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	text, _ = jsontext.AppendUnquote(nil, quoted) // An error speaks of invalid UTF-8, which is replaced.
	return text
}

// recordType does without an allocation for the two known types.
func recordType(text []byte) string {
	switch string(text) {
	case "person":
		return "person"
	case "company":
		return "company"
	}
	return string(text)
}

const maxIDLength = 64

// validID tells whether an id can stand in a URL, in a list of ids, and in what is derived from ids elsewhere.
func validID[S string | []byte](id S) bool {
	if len(id) == 0 || len(id) > maxIDLength {
		return false
	}
	for i := range len(id) {
		switch b := id[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '_', b == '-':
		default:
			return false
		}
	}
	return true
}

// listing is the body of every answer that lists something.
type listing struct {
	meta     Meta
	hasTotal bool
	// contacts and malformed are the resources of a contact listing, ids and oddities (entries that are no usable id) those of an
	// id listing.
	contacts  []Contact
	malformed []Malformed
	ids       []string
	oddities  int
}

// resourceKind says what a listing lists.
type resourceKind uint8

const (
	contactResources resourceKind = iota
	idResources
)

// decodeListing reads a listing in one pass, expecting about expect resources. What it returns aliases the body.
//
// The pass is a strict one: it refuses repeated names and invalid UTF-8, so that every contact it lets through is JSON for everybody.
// When it fails, a second, lenient pass finds the records that are to blame.
func decodeListing(resp *response, kind resourceKind, expect int) (*listing, error) {
	l := &listing{}
	err := l.decode(resp.body, kind, expect, jsontext.NewDecoder(bytes.NewBuffer(resp.body)), true)
	if err != nil && !endsEarly(err) {
		l = &listing{}
		err = l.decode(resp.body, kind, expect, jsontext.NewDecoder(bytes.NewBuffer(resp.body), lenient...), false)
	}
	if err != nil {
		return nil, resp.bodyError(err)
	}
	return l, nil
}

// shapeError says what is wrong with an answer that is JSON.
type shapeError string

func (e shapeError) Error() string { return string(e) }

const errShape = shapeError("JSON of another shape")

func (l *listing) decode(body []byte, kind resourceKind, expect int, dec *jsontext.Decoder, strict bool) error {
	if token, err := dec.ReadToken(); err != nil {
		return err
	} else if token.Kind() != '{' {
		return errShape
	}
	found := jsontext.Kind(0)
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return err
		}
		switch string(unquoted(name)) {
		case "meta":
			err = l.readMeta(dec)
		case "resources":
			if found = dec.PeekKind(); found != '[' {
				_, err = dec.ReadValue()
				break
			}
			if kind == idResources {
				err = l.readIDs(dec, expect)
			} else {
				err = l.readContacts(dec, body, expect, strict)
			}
		default:
			_, err = dec.ReadValue()
		}
		if err != nil {
			return err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return shapeError("more data after the JSON")
	}
	// An answer without its list must not pass for an empty list, in which every contact seems deleted. An explicit null beside a
	// total of none may.
	none := found == 'n' && l.hasTotal && l.meta.Total == 0
	if found != '[' && !none {
		return shapeError("JSON without a list of resources")
	}
	return nil
}

func (l *listing) readContacts(dec *jsontext.Decoder, body []byte, expect int, strict bool) error {
	l.contacts, l.malformed = make([]Contact, 0, expect), nil
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if !strict || dec.PeekKind() != '{' {
			raw, err := dec.ReadValue()
			if err != nil {
				return err
			}
			l.addRecord(raw)
			continue
		}
		contact, err := readContact(dec, body)
		if err != nil {
			return err
		}
		if contact.ID == "" {
			l.malformed = append(l.malformed, Malformed{Reason: reasonNoID, Raw: contact.Raw})
			continue
		}
		l.contacts = append(l.contacts, contact)
	}
	_, err := dec.ReadToken()
	return err
}

// addRecord sorts one record into the good and the malformed ones, when its page is not read the quick way.
func (l *listing) addRecord(raw jsontext.Value) {
	if raw.IsValid() {
		contact, err := ParseContact(raw)
		if record, ok := errors.AsType[*RecordError](err); ok {
			l.malformed = append(l.malformed, record.Malformed)
			return
		}
		l.contacts = append(l.contacts, contact)
		return
	}
	m := Malformed{Reason: reasonNotPure, Raw: raw}
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw), lenient...)
	if dec.PeekKind() == '{' {
		contact, _ := readContact(dec, raw) // Only for the id; the record has been read once already.
		m.ID = contact.ID
	}
	l.malformed = append(l.malformed, m)
}

func (l *listing) readIDs(dec *jsontext.Decoder, expect int) error {
	l.ids, l.oddities = make([]string, 0, expect), 0
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if value.Kind() == '"' {
			if id := unquoted(value); validID(id) {
				l.ids = append(l.ids, string(id))
				continue
			}
		}
		l.oddities++
	}
	_, err := dec.ReadToken()
	return err
}

// readMeta reads what it can; numbers may be strings, and anything else counts as absent.
func (l *listing) readMeta(dec *jsontext.Decoder) error {
	l.meta, l.hasTotal = Meta{}, false
	if dec.PeekKind() != '{' {
		_, err := dec.ReadValue()
		return err
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return err
		}
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		n, ok := wholeNumber(value)
		switch string(unquoted(name)) {
		case "page":
			l.meta.Page = n
		case "pages":
			l.meta.Pages = n
		case "per_page":
			l.meta.PerPage = n
		case "total":
			l.meta.Total, l.hasTotal = n, ok
		}
	}
	_, err := dec.ReadToken()
	return err
}

// wholeNumber reads a count from a number, in whatever notation, or from a string with one in it.
func wholeNumber(v jsontext.Value) (int, bool) {
	text := string(v)
	switch v.Kind() {
	case '"':
		text = strings.TrimSpace(string(unquoted(v)))
	case '0':
	default:
		return 0, false
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return n, true
	}
	const most = 1 << 50 // Far beyond any account, and exact as a float.
	if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 && f <= most {
		return int(f), true
	}
	return 0, false
}

// endsEarly tells an incomplete JSON text from a wrong one.
func endsEarly(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// bodyError gives an error of a decoder the type that callers know it by. Errors of the decoder itself quote the text, which is
// nobody else's business.
func (r *response) bodyError(err error) error {
	start := bytes.TrimLeft(r.body, " \t\r\n")
	reason := "not valid JSON"
	switch shape, isShape := errors.AsType[shapeError](err); {
	case len(start) == 0:
		return &TruncatedError{Request: r.request, Read: int64(len(r.body))}
	case start[0] == '<':
		reason = "an HTML or XML document"
	case isShape:
		reason = shape.Error()
	case endsEarly(err):
		return &TruncatedError{Request: r.request, Read: int64(len(r.body))}
	default:
		if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			reason = fmt.Sprintf("not valid JSON at byte %d", syntax.ByteOffset)
		}
	}
	return &NotJSONError{Request: r.request, ContentType: clean(r.header.Get("Content-Type"), r.key), Reason: reason}
}
