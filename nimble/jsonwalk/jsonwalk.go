// Package jsonwalk reads JSON that has been checked before.
//
// A contact's document is checked once, strictly, when it comes in. After that it is walked over again, for its fingerprint, its summary and its differences from another, and
// a decoder that checks every byte once more would take most of the time of a bridge. A [Cursor] only looks for where things begin and end, and does not allocate.
//
// What it makes of a text that is no JSON is unspecified, but bounded: it stays within the text, comes to an end, and mostly notices.
package jsonwalk

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrNotJSON is what [Cursor.End] returns for a text that turned out to be no JSON.
var ErrNotJSON = errors.New("not valid JSON")

// Cursor moves over a JSON text from value to value. The zero Cursor stands at the end of an empty text.
//
// Objects and lists are entered:
//
//	for c.Open(); c.More(); {
//		name := c.Name() // In objects alone.
//		value := c.Value()
//	}
type Cursor struct {
	text   []byte
	at     int
	broken bool
	// room holds the last name that had escapes in it.
	room []byte
}

// Reset puts the cursor before the only value of a text, which must not change while it is read.
func (c *Cursor) Reset(text []byte) { c.text, c.at, c.broken = text, 0, false }

// Kind tells what value comes next, as [jsontext.Decoder.PeekKind] does: '{', '[', '"', '0' for any number, 't', 'f' or 'n'. At the end, and in what is no JSON, it is 0.
func (c *Cursor) Kind() jsontext.Kind {
	c.space()
	if c.at == len(c.text) {
		return 0
	}
	switch b := c.text[c.at]; b {
	case '{', '[', '"', 't', 'f', 'n':
		return jsontext.Kind(b)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return '0'
	}
	return 0
}

// Open enters the object or the list that comes next.
func (c *Cursor) Open() {
	if kind := c.Kind(); kind != '{' && kind != '[' {
		c.fail()
		return
	}
	c.at++
}

// More tells whether another member or element comes in the object or list that was entered last, and leaves it if none does.
func (c *Cursor) More() bool {
	c.space()
	if c.at == len(c.text) {
		c.broken = true
		return false
	}
	switch c.text[c.at] {
	case '}', ']':
		c.at++
		return false
	case ',':
		c.at++
		c.space()
	}
	return true
}

// Name reads the name of a member. It is valid until the next name is read.
func (c *Cursor) Name() []byte {
	name, escaped := c.quoted()
	c.space()
	if c.at == len(c.text) || c.text[c.at] != ':' {
		c.fail()
		return nil
	}
	c.at++
	if !escaped {
		return name[1 : len(name)-1]
	}
	c.room, _ = jsontext.AppendUnquote(c.room[:0], name) // An error speaks of invalid UTF-8, which is replaced.
	return c.room
}

// Value reads a value and returns it as it stands in the text. It is empty if there is none.
func (c *Cursor) Value() jsontext.Value {
	kind := c.Kind()
	start := c.at
	switch kind {
	case '"':
		s, _ := c.quoted()
		return s
	case '{', '[':
		c.structure()
	case 0:
		c.fail()
		return nil
	default:
		c.word()
	}
	return c.text[start:c.at:c.at]
}

// Skip passes over a value.
func (c *Cursor) Skip() { c.Value() }

// Offset is how far the text has been read. Before a value, after [Cursor.Kind], it is where the value begins.
func (c *Cursor) Offset() int { return c.at }

// End returns an error if the text goes on, or was found to be no JSON.
func (c *Cursor) End() error {
	c.space()
	if c.broken || c.at < len(c.text) {
		return ErrNotJSON
	}
	return nil
}

// space passes over white space. Other control characters do not stand in JSON.
func (c *Cursor) space() {
	for c.at < len(c.text) && c.text[c.at] <= ' ' {
		c.at++
	}
}

// quoted reads a string, quotes included, and tells whether there are escapes in it. Without one it is an empty string.
func (c *Cursor) quoted() (s jsontext.Value, escaped bool) {
	if c.at == len(c.text) || c.text[c.at] != '"' {
		c.fail()
		return jsontext.Value(`""`), false
	}
	text := c.text[c.at:]
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			c.at += i + 1
			return text[: i+1 : i+1], escaped
		case '\\':
			escaped = true
			i++
		}
	}
	c.fail()
	return jsontext.Value(`""`), false
}

// structure passes over an object or a list.
func (c *Cursor) structure() {
	for depth := 0; c.at < len(c.text); {
		switch c.text[c.at] {
		case '"':
			c.quoted()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if c.at++; depth == 0 {
			return
		}
	}
	c.broken = true
}

// word passes over a number, true, false or null.
func (c *Cursor) word() {
	for c.at++; c.at < len(c.text); c.at++ {
		switch c.text[c.at] {
		case ',', '}', ']', ' ', '\t', '\r', '\n':
			return
		}
	}
}

// fail gives the text up.
func (c *Cursor) fail() { c.broken, c.at = true, len(c.text) }
