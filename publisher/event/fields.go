package event

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Fields is a contact's field map: the values of each field by its name, such as "email". Names are Nimble's, with spaces and capitals; custom fields stand among the others.
type Fields map[string][]Value

// Value is one value of a field.
type Value struct {
	// Text is the value. Nimble writes nearly all values as text, dates, numbers and choices too; what is written otherwise is its JSON.
	Text string
	// Modifier says which of several it is, "work" for instance; empty where the field has none.
	Modifier string
	// Primary says that it is the one to use.
	Primary bool
	// Extra is the id of the company's contact, for "contact employment" and "parent company".
	Extra string
}

// Address is a value of the field "address", taken apart. Parts that Nimble does not give are empty.
type Address struct {
	Street, City, State, Zip, Country string
	// Modifier and Primary are the value's.
	Modifier string
	Primary  bool
	// Text is the address as Nimble wrote it. Where that cannot be taken apart, the parts are empty.
	Text string
}

// Employment is a value of the field "contact employment", taken apart. Parts that Nimble does not give are empty.
type Employment struct {
	Company, Title string
	// Start and End are MM/YYYY.
	Start, End string
	// Present says that the person works there now.
	Present bool
	// CompanyID is the id of the company's contact, where Nimble has one.
	CompanyID string
	// Primary is the value's.
	Primary bool
	// Text is the employment as Nimble wrote it. Where that cannot be taken apart, the parts are empty.
	Text string
}

// Fields reads the field map of the event's contact. It is empty for a contact that was truncated or erased.
func (d *Data) Fields() (Fields, error) {
	if len(d.Contact) == 0 {
		return nil, nil
	}
	return ParseFields(d.Contact)
}

// ParseFields reads the field map of a contact document. As in [Summarize], what has another shape than expected is passed over; the error is for what is no JSON
// object at all.
func ParseFields(contact jsontext.Value) (Fields, error) {
	r := newReader(contact)
	fields := make(Fields)
	err := r.object(func(name []byte) error {
		if string(name) != "fields" {
			return r.dec.SkipValue()
		}
		return r.objectOrSkip(func(name []byte) (err error) {
			field := string(name)
			values, err := r.values()
			if len(values) > 0 {
				fields[field] = values
			}
			return err
		})
	})
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return nil, fmt.Errorf("contact document: %w", err)
	}
	return fields, nil
}

// First returns the primary value of a field, or its first one if none is primary.
func (f Fields) First(name string) (Value, bool) {
	values := f[name]
	if len(values) == 0 {
		return Value{}, false
	}
	if i := slices.IndexFunc(values, func(v Value) bool { return v.Primary }); i > 0 {
		return values[i], true
	}
	return values[0], true
}

// Text is the text of a field's primary or first value, empty if it has none.
func (f Fields) Text(name string) string {
	v, _ := f.First(name)
	return v.Text
}

// Texts are the texts of a field's values, in Nimble's order.
func (f Fields) Texts(name string) []string { return texts(f[name]) }

// Addresses are the contact's addresses, in Nimble's order.
func (f Fields) Addresses() []Address {
	var all []Address
	for _, v := range f["address"] {
		all = append(all, v.Address())
	}
	return all
}

// Employments are the person's employments, in Nimble's order. A contact that has only the older fields "parent company" and "title" has one made of these.
func (f Fields) Employments() []Employment {
	var all []Employment
	for _, v := range f["contact employment"] {
		all = append(all, v.Employment())
	}
	company, works := f.First("parent company")
	title, titled := f.First("title")
	if len(all) == 0 && (works || titled) {
		all = []Employment{{Company: company.Text, Title: title.Text, CompanyID: company.Extra, Present: true}}
	}
	return all
}

// Address takes the value of an address apart. Nimble writes it as JSON inside the text, and at times in Python's spelling of it.
func (v Value) Address() Address {
	a := Address{Modifier: v.Modifier, Primary: v.Primary, Text: v.Text}
	v.parts(map[string]*string{"street": &a.Street, "city": &a.City, "state": &a.State, "zip": &a.Zip, "country": &a.Country}, nil)
	return a
}

// Employment takes the value of a contact employment apart, in the same way.
func (v Value) Employment() Employment {
	e := Employment{CompanyID: v.Extra, Primary: v.Primary, Text: v.Text}
	v.parts(map[string]*string{"company_name": &e.Company, "title": &e.Title, "start_date": &e.Start, "end_date": &e.End}, map[string]*bool{"is_present": &e.Present})
	return e
}

// parts reads the object inside a text. Nothing is set if there is none.
func (v Value) parts(parts map[string]*string, flags map[string]*bool) {
	doc := []byte(v.Text)
	if !jsontext.Value(doc).IsValid(lenient...) {
		var ok bool
		if doc, ok = fromPython(v.Text); !ok {
			return
		}
	}
	r := newReader(doc)
	_ = r.objectOrSkip(func(name []byte) error { // It has been checked.
		if into := parts[string(name)]; into != nil {
			text, err := r.text()
			*into = string(text)
			return err
		}
		if into := flags[string(name)]; into != nil {
			return r.bool(into)
		}
		return r.dec.SkipValue()
	})
}

// Texts are the sides of a change of a field or of tags, each as the texts it has. Any other side that is a text, a number or a boolean is one text, null is none.
func (c Change) Texts() (before, after []string) {
	return texts(valuesOf(c.Before)), texts(valuesOf(c.After))
}

// Values are the sides of a change of a field.
func (c Change) Values() (before, after []Value) { return valuesOf(c.Before), valuesOf(c.After) }

// Added are the texts that a change of a field or of tags has brought.
func (c Change) Added() []string {
	before, after := c.Texts()
	return without(after, before)
}

// Removed are the texts that a change of a field or of tags has taken away.
func (c Change) Removed() []string {
	before, after := c.Texts()
	return without(before, after)
}

func without(texts, others []string) []string {
	var left []string
	for _, text := range texts {
		if !slices.Contains(others, text) && !slices.Contains(left, text) {
			left = append(left, text)
		}
	}
	return left
}

func texts(values []Value) []string {
	var all []string
	for _, v := range values {
		all = append(all, v.Text)
	}
	return all
}

// valuesOf reads one side of a change. It has been checked when the event was read.
func valuesOf(side jsontext.Value) []Value {
	if len(side) == 0 {
		return nil
	}
	values, _ := newReader(side).values()
	return values
}

// values reads the values of a field, or tags.
func (r *reader) values() ([]Value, error) {
	var all []Value
	err := r.list(func() error {
		v, ok, err := r.fieldValue()
		if ok {
			all = append(all, v)
		}
		return err
	})
	return all, err
}

// fieldValue reads a value object, a tag object, or a bare text. There is none in null and in lists.
func (r *reader) fieldValue() (v Value, ok bool, err error) {
	if r.dec.PeekKind() != '{' {
		text, err := r.text()
		return Value{Text: string(text)}, text != nil, err
	}
	set := func(into *string) error {
		text, err := r.text()
		*into = string(text)
		return err
	}
	err = r.object(func(name []byte) error {
		switch string(name) {
		case "value", "tag":
			ok = true
			if kind := r.dec.PeekKind(); kind == '{' || kind == '[' { // As addresses were written once.
				raw, err := r.raw()
				v.Text = string(raw)
				return err
			}
			return set(&v.Text)
		case "modifier":
			return set(&v.Modifier)
		case "is_primary":
			return r.bool(&v.Primary)
		case "extra_value":
			return set(&v.Extra)
		}
		return r.dec.SkipValue()
	})
	return v, ok, err
}

// fromPython rewrites a dictionary as Python prints it, {'city': 'Gdynia', 'is_present': True}, as JSON.
func fromPython(text string) (jsontext.Value, bool) {
	if !strings.HasPrefix(text, "{") {
		return nil, false
	}
	words := map[string]string{"True": "true", "False": "false", "None": "null"}
	var out []byte
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\'' || c == '"':
			s, length, ok := pythonString(text[i:])
			if !ok {
				return nil, false
			}
			out = appendString(out, s)
			i += length
		case c >= 'A' && c <= 'Z':
			end := i + 1
			for end < len(text) && text[end] >= 'a' && text[end] <= 'z' {
				end++
			}
			out = append(out, words[text[i:end]]...) // No other word makes JSON.
			i = end
		default:
			out = append(out, c)
			i++
		}
	}
	return out, jsontext.Value(out).IsValid(lenient...)
}

// pythonString reads the string literal that text begins with.
func pythonString(text string) (s string, length int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == text[0]:
			return b.String(), i + 1, true
		case c != '\\':
			b.WriteByte(c)
		case i+1 == len(text):
			return "", 0, false
		default:
			i++
			digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[text[i]]
			if digits == 0 {
				b.WriteByte(unescaped(text[i]))
				continue
			}
			if len(text)-i-1 < digits {
				return "", 0, false
			}
			r, err := strconv.ParseUint(text[i+1:i+1+digits], 16, 32)
			if err != nil || !utf8.ValidRune(rune(r)) {
				return "", 0, false
			}
			b.WriteRune(rune(r))
			i += digits
		}
	}
	return "", 0, false
}

// unescaped is what a backslash and the character mean in Python.
func unescaped(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}
