package event

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// identifying are the keys that are left of a contact that does not fit a message.
var identifying = []string{"id", "object_type", "record_type", "created", "updated"}

// The bounds of what is left of a summary.
const (
	truncatedText = 256
	truncatedList = 8
)

// Truncate reduces the event until it has at most limit bytes as JSON, as far as that can be done: first the contact to its identifying keys, then the
// sides of all changes to null, then the summary, then the number of changes. The event says so in its data, and
// shares no memory with what it was before.
func (e *Event) Truncate(limit int) {
	d := &e.Data
	d.Truncated = true
	d.Contact = identity(d.Contact)
	if len(e.Encode()) <= limit {
		return
	}
	keys := make([]string, 0, len(d.Changes))
	changes := make(map[string]Change, len(d.Changes))
	for key := range d.Changes {
		keys = append(keys, key)
		changes[key] = Change{}
	}
	d.Changes = changes
	if len(e.Encode()) <= limit {
		return
	}
	d.Summary = d.Summary.truncated()
	over := len(e.Encode()) - limit
	slices.Sort(keys)
	// The changes are never empty, so one stays.
	for len(keys) > 1 && over > 0 {
		last := keys[len(keys)-1]
		keys = keys[:len(keys)-1]
		delete(d.Changes, last)
		over -= len(appendString(nil, last)) + len(`,:{"before":null,"after":null}`)
	}
}

// identity returns a contact document with nothing but its identifying keys.
func identity(contact jsontext.Value) jsontext.Value {
	out := []byte{'{'}
	r := newReader(contact)
	err := r.objectOrSkip(func(name []byte) error {
		if !slices.Contains(identifying, string(name)) {
			return r.dec.SkipValue()
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(appendString(out, string(name)), ':')
		v, err := r.dec.ReadValue()
		if err != nil {
			return err
		}
		if len(v) > truncatedText {
			v = jsontext.Value("null")
		}
		out = append(out, v...)
		return nil
	})
	if err != nil {
		return nil
	}
	return append(out, '}')
}

func (s Summary) truncated() Summary {
	list := func(all []string) []string {
		short := make([]string, 0, truncatedList)
		for _, text := range all[:min(len(all), truncatedList)] {
			short = append(short, shortened(text))
		}
		return short
	}
	return Summary{
		Name: shortened(s.Name), Company: shortened(s.Company), Title: shortened(s.Title),
		Emails: list(s.Emails), Phones: list(s.Phones), Tags: list(s.Tags),
	}
}

// shortened cuts a text between two characters.
func shortened(s string) string {
	if len(s) <= truncatedText {
		return s
	}
	end := truncatedText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.Clone(s[:end])
}
