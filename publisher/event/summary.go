package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
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
	r := borrowReader(contact)
	defer r.giveBack()
	var s summarizer
	err := r.object(func(name []byte) error {
		switch string(name) {
		case "record_type":
			text, err := r.text()
			s.company = string(text) == "company"
			return err
		case "fields":
			return r.objectOrSkip(func(name []byte) error { return s.field(r, name) })
		case "tags":
			return r.list(func() error { return s.tag(r) })
		default:
			return r.dec.SkipValue()
		}
	})
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return Summary{}, fmt.Errorf("contact document: %w", err)
	}
	return s.summary(), nil
}

// summarizer collects what a summary is made of, in one pass over the document.
type summarizer struct {
	company                  bool
	first, last, companyName string
	title, parent            string
	emails, phones           values
	tags                     []string

	// employment and position are of the best employment so far, whose rank is above 0.
	employment, position string
	rank                 int
}

// values is a field with several values.
type values struct {
	list    []string
	primary bool // The first one is marked as primary.
}

// field reads one entry of the field map.
func (s *summarizer) field(r *reader, name []byte) error {
	one := func(into *string) error {
		return s.values(r, func(text []byte, primary bool) {
			if *into == "" || primary {
				*into = string(text)
			}
		})
	}
	switch string(name) {
	case "first name":
		return one(&s.first)
	case "last name":
		return one(&s.last)
	case "company name":
		return one(&s.companyName)
	case "title":
		return one(&s.title)
	case "parent company":
		return one(&s.parent)
	case "email":
		return s.values(r, s.emails.add)
	case "phone":
		return s.values(r, s.phones.add)
	case "contact employment":
		return s.values(r, s.addEmployment)
	default:
		return r.dec.SkipValue()
	}
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

// values calls add with each value of a field that is not empty.
func (s *summarizer) values(r *reader, add func(text []byte, primary bool)) error {
	return r.list(func() error {
		if r.dec.PeekKind() != '{' {
			text, err := r.text()
			if err == nil && len(text) > 0 {
				add(text, false)
			}
			return err
		}
		primary := false
		kept := r.kept[:0]
		err := r.object(func(name []byte) error {
			switch string(name) {
			case "value":
				text, err := r.text()
				kept = append(kept[:0], text...)
				return err
			case "is_primary":
				primary = r.dec.PeekKind() == 't'
				return r.dec.SkipValue()
			default:
				return r.dec.SkipValue()
			}
		})
		r.kept = kept
		if err == nil && len(kept) > 0 {
			add(kept, primary)
		}
		return err
	})
}

// addEmployment reads an employment, which is JSON inside a string. The best one counts: a present one before a primary one before any.
func (s *summarizer) addEmployment(text []byte, primary bool) {
	r := borrowReader(text)
	defer r.giveBack()
	var company, title string
	rank := 1
	if primary {
		rank = 2
	}
	err := r.object(func(name []byte) error {
		switch string(name) {
		case "company_name":
			text, err := r.text()
			company = string(text)
			return err
		case "title":
			text, err := r.text()
			title = string(text)
			return err
		case "is_present":
			if r.dec.PeekKind() == 't' {
				rank += 2
			}
			return r.dec.SkipValue()
		default:
			return r.dec.SkipValue()
		}
	})
	if err != nil || company == "" && title == "" || rank <= s.rank {
		return
	}
	s.rank, s.employment, s.position = rank, company, title
}

// tag reads one tag, a string or an object with the text under "tag".
func (s *summarizer) tag(r *reader) error {
	if r.dec.PeekKind() != '{' {
		text, err := r.text()
		if err == nil && len(text) > 0 {
			s.tags = append(s.tags, string(text))
		}
		return err
	}
	return r.object(func(name []byte) error {
		if string(name) != "tag" {
			return r.dec.SkipValue()
		}
		text, err := r.text()
		if err == nil && len(text) > 0 {
			s.tags = append(s.tags, string(text))
		}
		return err
	})
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
	sum.Company, sum.Title = s.employment, s.position
	if sum.Company == "" {
		sum.Company = s.parent
	}
	if sum.Title == "" {
		sum.Title = s.title
	}
	return sum
}

// reader walks over one JSON document.
type reader struct {
	src  *bytes.Buffer
	data []byte
	dec  *jsontext.Decoder
	// room holds the last text that had to be unquoted, kept the value that is being read.
	room, kept []byte
}

func newReader(data []byte) *reader {
	src := bytes.NewBuffer(data)
	return &reader{src: src, data: data, dec: jsontext.NewDecoder(src, lenient...)}
}

// readers are those that read other documents before.
var readers sync.Pool

// borrowReader returns a reader that giveBack makes ready for another document. Nothing that it has returned may be used afterwards.
func borrowReader(data []byte) *reader {
	r, ok := readers.Get().(*reader)
	if !ok {
		return newReader(data)
	}
	*r.src, r.data = *bytes.NewBuffer(data), data
	r.dec.Reset(r.src, lenient...)
	return r
}

func (r *reader) giveBack() {
	*r.src, r.data = bytes.Buffer{}, nil // The document is not held up.
	readers.Put(r)
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

// unquote returns the text of a JSON string. There are hardly ever escapes, and then the text lies between the quotes.
func (r *reader) unquote(quoted jsontext.Value) []byte {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	r.room, _ = jsontext.AppendUnquote(r.room[:0], quoted) // An error speaks of invalid UTF-8, which is replaced.
	return r.room
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
