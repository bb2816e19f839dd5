package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble/jsonwalk"
)

// Summary is a contact for people and simple rules. Strings are empty where something is unknown.
type Summary struct {
	// Name is a person's first and last name, or the name of a company.
	Name string
	// Company is where a person works at present, or the company itself.
	Company string
	// Title is what a person does there.
	Title string
	// Emails and Phones have the primary one first, then the others in Nimble's order.
	Emails, Phones []string
	Tags           []string
}

// lenient accepts what other JSON parsers let pass: the documents are Nimble's, not ours.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// Summarize reads a summary out of a contact document. What has another shape than expected counts as unknown; the error is for what is no JSON
// object at all.
func Summarize(contact jsontext.Value) (Summary, error) {
	if !contact.IsValid(lenient...) {
		return Summary{}, errNoContact
	}
	return SummarizeValid(contact)
}

// SummarizeValid is [Summarize] for a document that has been checked to be JSON, which saves checking it again. What it makes of anything else is unspecified.
func SummarizeValid(contact jsontext.Value) (Summary, error) {
	s, ok := summarizers.Get().(*summarizer)
	if !ok {
		s = &summarizer{}
	}
	defer summarizers.Put(s)
	return s.summarize(contact)
}

var errNoContact = errors.New("contact document: not a JSON object")

// summarizers are those that read other documents before.
var summarizers sync.Pool

// summarizer collects what a summary is made of, in one pass over the document.
type summarizer struct {
	found
	// inner reads the JSON that is in an employment's value.
	doc, inner jsonwalk.Cursor
	// The rooms hold the last text of each that had to be unquoted, kept the value that is being read.
	docRoom, innerRoom, kept []byte
}

// found is what a summary is made of.
type found struct {
	company                  bool
	first, last, companyName string
	title, parent            string
	emails, phones           values
	tags                     []string

	// employer and position are of the best employment so far, whose rank is above 0.
	employer, position string
	rank               int
}

// values is a field with several values.
type values struct {
	list    []string
	primary bool // The first one is marked as primary.
}

func (s *summarizer) summarize(contact jsontext.Value) (Summary, error) {
	s.doc.Reset(contact)
	s.found = found{}
	defer func() { s.doc.Reset(nil); s.found = found{} }() // Nothing is held up.
	if s.doc.Kind() != '{' {
		return Summary{}, errNoContact
	}
	for s.doc.Open(); s.doc.More(); {
		switch string(s.doc.Name()) {
		case "record_type":
			s.company = string(s.text()) == "company"
		case "fields":
			s.fields()
		case "tags":
			s.each(func() { s.tag() })
		default:
			s.doc.Skip()
		}
	}
	if s.doc.End() != nil {
		return Summary{}, errNoContact
	}
	return s.summary(), nil
}

// fields reads the field map.
func (s *summarizer) fields() {
	if s.doc.Kind() != '{' {
		s.doc.Skip()
		return
	}
	for s.doc.Open(); s.doc.More(); {
		switch string(s.doc.Name()) {
		case "first name":
			s.one(&s.first)
		case "last name":
			s.one(&s.last)
		case "company name":
			s.one(&s.companyName)
		case "title":
			s.one(&s.title)
		case "parent company":
			s.one(&s.parent)
		case "email":
			s.values(s.emails.add)
		case "phone":
			s.values(s.phones.add)
		case "contact employment":
			s.values(s.addEmployment)
		default:
			s.doc.Skip()
		}
	}
}

// one reads the primary or first value of a field.
func (s *summarizer) one(into *string) {
	s.values(func(text []byte, primary bool) {
		if *into == "" || primary {
			*into = string(text)
		}
	})
}

func (v *values) add(text []byte, primary bool) {
	if primary && !v.primary && len(v.list) > 0 {
		v.list = append(v.list, "")
		copy(v.list[1:], v.list)
		v.list[0], v.primary = string(text), true
		return
	}
	v.primary = v.primary || primary
	v.list = append(v.list, string(text))
}

// each calls element for each element of a list, which it must read. What is no list counts as a list of one.
func (s *summarizer) each(element func()) {
	if s.doc.Kind() != '[' {
		element()
		return
	}
	for s.doc.Open(); s.doc.More(); {
		element()
	}
}

// values calls add with each value of a field that is not empty.
func (s *summarizer) values(add func(text []byte, primary bool)) {
	s.each(func() {
		s.kept = s.kept[:0]
		primary := false
		if s.doc.Kind() != '{' {
			s.kept = append(s.kept, s.text()...)
		} else {
			for s.doc.Open(); s.doc.More(); {
				switch string(s.doc.Name()) {
				case "value":
					s.kept = append(s.kept[:0], s.text()...)
				case "is_primary":
					primary = s.doc.Kind() == 't'
					s.doc.Skip()
				default:
					s.doc.Skip()
				}
			}
		}
		if len(s.kept) > 0 {
			add(s.kept, primary)
		}
	})
}

// addEmployment reads an employment, which is JSON inside a string. The best one counts: a present one before a primary one before any.
func (s *summarizer) addEmployment(text []byte, primary bool) {
	if !jsontext.Value(text).IsValid(lenient...) {
		var ok bool
		if text, ok = fromPython(string(text)); !ok {
			return
		}
	}
	c := &s.inner
	if c.Reset(text); c.Kind() != '{' {
		return
	}
	var company, title string
	rank := 1
	if primary {
		rank = 2
	}
	for c.Open(); c.More(); {
		switch string(c.Name()) {
		case "company_name":
			company = string(textOf(c, &s.innerRoom))
		case "title":
			title = string(textOf(c, &s.innerRoom))
		case "is_present":
			if c.Kind() == 't' {
				rank += 2
			}
			c.Skip()
		default:
			c.Skip()
		}
	}
	if company == "" && title == "" || rank <= s.rank {
		return
	}
	s.rank, s.employer, s.position = rank, company, title
}

// tag reads one tag, a string or an object with the text under "tag".
func (s *summarizer) tag() {
	if s.doc.Kind() != '{' {
		s.addTag()
		return
	}
	for s.doc.Open(); s.doc.More(); {
		if string(s.doc.Name()) == "tag" {
			s.addTag()
		} else {
			s.doc.Skip()
		}
	}
}

func (s *summarizer) addTag() {
	if text := s.text(); len(text) > 0 {
		s.tags = append(s.tags, string(text))
	}
}

// text reads a value as text: strings, numbers and booleans are it, anything else is none. It is valid until the next one is read.
func (s *summarizer) text() []byte { return textOf(&s.doc, &s.docRoom) }

func textOf(c *jsonwalk.Cursor, room *[]byte) []byte {
	v := c.Value()
	switch v.Kind() {
	case '"':
		return unquoted(v, room)
	case '0', 't', 'f':
		return v
	default:
		return nil
	}
}

func (s *summarizer) summary() Summary {
	sum := Summary{Emails: s.emails.list, Phones: s.phones.list, Tags: s.tags}
	person := s.first
	if s.first != "" && s.last != "" {
		person += " "
	}
	person += s.last
	if s.company {
		sum.Name, sum.Company = s.companyName, s.companyName
		return sum
	}
	sum.Name = person
	if sum.Name == "" {
		sum.Name = s.companyName
	}
	sum.Company, sum.Title = s.employer, s.position
	if sum.Company == "" {
		sum.Company = s.parent
	}
	if sum.Title == "" {
		sum.Title = s.title
	}
	return sum
}

// reader reads a JSON document that nobody has checked.
type reader struct {
	data []byte
	dec  *jsontext.Decoder
	// room holds the last text that had to be unquoted.
	room []byte
}

func newReader(data []byte) *reader {
	return &reader{data: data, dec: jsontext.NewDecoder(bytes.NewBuffer(data), lenient...)}
}

// object reads an object, calling member with each name, valid until it reads the value, which it must.
func (r *reader) object(member func(name []byte) error) error {
	token, err := r.dec.ReadToken()
	if err != nil {
		return err
	}
	if token.Kind() != '{' {
		return fmt.Errorf("%v instead of an object", token.Kind())
	}
	for r.dec.PeekKind() != '}' {
		quoted, err := r.dec.ReadValue()
		if err != nil {
			return err
		}
		if err := member(r.unquote(quoted)); err != nil {
			return err
		}
	}
	_, err = r.dec.ReadToken()
	return err
}

// objectOrSkip reads an object and passes over anything else.
func (r *reader) objectOrSkip(member func(name []byte) error) error {
	if r.dec.PeekKind() != '{' {
		return r.dec.SkipValue()
	}
	return r.object(member)
}

// list reads a list, calling element for each element, which it must read. What is no list counts as a list of one.
func (r *reader) list(element func() error) error {
	if r.dec.PeekKind() != '[' {
		return element()
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	for r.dec.PeekKind() != ']' {
		if err := element(); err != nil {
			return err
		}
	}
	_, err := r.dec.ReadToken()
	return err
}

// text reads a value as text: strings, numbers and booleans are it, anything else is none. It is valid until the next read.
func (r *reader) text() ([]byte, error) {
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	switch v.Kind() {
	case '"':
		return r.unquote(v), nil
	case '0', 't', 'f':
		return v, nil
	default:
		return nil, nil
	}
}

func (r *reader) unquote(quoted jsontext.Value) []byte { return unquoted(quoted, &r.room) }

// unquoted returns the text of a JSON string. There are hardly ever escapes, and then the text lies between the quotes; otherwise it is in room.
func unquoted(quoted jsontext.Value, room *[]byte) []byte {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	*room, _ = jsontext.AppendUnquote((*room)[:0], quoted) // An error speaks of invalid UTF-8, which is replaced.
	return *room
}

// raw reads a value and returns its bytes as they stand in the document, nil for null.
func (r *reader) raw() (jsontext.Value, error) {
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	if v.Kind() == 'n' {
		return nil, nil
	}
	// The value ends where the decoder is, and what it returned is valid only until the next read.
	end := r.dec.InputOffset()
	start := end - int64(len(v))
	return r.data[start:end:end], nil
}

// end makes sure that nothing follows the document.
func (r *reader) end() error {
	switch token, err := r.dec.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%v after the end", token.Kind())
	}
}
