package jsonwalk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble/jsonwalk"
)

func ExampleCursor() {
	var c jsonwalk.Cursor
	c.Reset([]byte(`{"id": "5049fb84", "tags": ["supplier", "boats"]}`))
	for c.Open(); c.More(); {
		switch string(c.Name()) {
		case "tags":
			for c.Open(); c.More(); {
				fmt.Println(c.Value())
			}
		default:
			c.Skip()
		}
	}
	fmt.Println(c.End())
	// Output:
	// "supplier"
	// "boats"
	// <nil>
}

// walk reads everything and returns each value that is no object or list, and each bracket and name, in order.
func walk(c *jsonwalk.Cursor, seen []string) []string {
	switch kind := c.Kind(); kind {
	case '{':
		seen = append(seen, "{")
		for c.Open(); c.More(); {
			name := string([]rune(string(c.Name()))) // Bytes that are no UTF-8 are left to the reader; the decoder replaces them.
			seen = append(seen, name)
			seen = walk(c, seen)
		}
		return append(seen, "}")
	case '[':
		seen = append(seen, "[")
		for c.Open(); c.More(); {
			seen = walk(c, seen)
		}
		return append(seen, "]")
	default:
		return append(seen, string(c.Value()))
	}
}

// decoded is what a walk should see.
func decoded(text []byte) []string {
	var seen []string
	d := jsontext.NewDecoder(bytes.NewReader(text), lenient...)
	for {
		kind := d.PeekKind()
		if kind == '{' || kind == '[' || kind == '}' || kind == ']' {
			_, _ = d.ReadToken()
			seen = append(seen, string(rune(kind)))
			continue
		}
		v, err := d.ReadValue()
		if errors.Is(err, io.EOF) {
			return seen
		}
		if outer, length := d.StackIndex(d.StackDepth()); outer == '{' && length%2 == 1 {
			v, _ = jsontext.AppendUnquote(nil, v)
		}
		seen = append(seen, string(v))
	}
}

var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

func FuzzWalk(f *testing.F) {
	for _, text := range []string{
		`{"id":"5049fb84","fields":{"first name":[{"value":"J\u00f6rg \"J\"","is_primary":false}],"a.b, \"c\"\\":[]},"tags":null,"n":-1.5e3,"t":true}`,
		" [ [ ] , { } , \"\\\\\" , 0 ] ", `"x"`, "null", `{"a":{"b":{"c":[1,2,[3]]}}}`, `{"\u0061":1,"\\":2}`,
		"", "{", `{"a"`, `{"a":`, `{"a":1`, `[1,`, `"`, `"\`, `{]`, `[}`, `{1:2}`, `[,]`, `tru`, "{}x", "\x00", `{"a" 1}`, `[1 2]`, `{,}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		kept := bytes.Clone(text)
		var c jsonwalk.Cursor
		if !jsontext.Value(text).IsValid(lenient...) {
			// Bounded, whatever it is: this comes to an end, and does not panic.
			c.Reset(text)
			for c.Kind() != 0 {
				c.Skip()
			}
			c.Reset(text)
			for c.Open(); c.More(); {
				c.Name()
				c.Skip()
			}
			if depth(text) > 1000 {
				return
			}
			c.Reset(text)
			walk(&c, nil)
			return
		}
		c.Reset(text)
		got, want := walk(&c, nil), decoded(text)
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) || c.End() != nil {
			t.Errorf("%q\nread  %q, %v\nwant  %q", text, got, c.End(), want)
		}
		c.Reset(text)
		if whole := c.Value(); !bytes.Equal(whole, bytes.Trim(text, " \t\r\n")) || c.End() != nil {
			t.Errorf("%q\nis the value %q, %v", text, whole, c.End())
		}
		if !bytes.Equal(text, kept) {
			t.Errorf("%q was changed to %q", kept, text)
		}
	})
}

// depth is more than how deep the text can be nested.
func depth(text []byte) int { return bytes.Count(text, []byte("{")) + bytes.Count(text, []byte("[")) }

func TestEndNoticesWhatIsNoJSON(t *testing.T) {
	for _, text := range []string{"", " ", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a" 1}`, `{1:2}`, `[`, `[1`, `"`, `"\"`, `}`, "{}x", "[] []", "#"} {
		t.Run(text, func(t *testing.T) {
			var c jsonwalk.Cursor
			c.Reset([]byte(text))
			walk(&c, nil)
			if err := c.End(); err == nil {
				t.Errorf("no error for %q", text)
			}
		})
	}
}

func BenchmarkWalk(b *testing.B) {
	text := bytes.Repeat([]byte(`{"value":"tomasz@brandt.example","modifier":"work","label":"email","is_primary":true},`), 25)
	text = append(append([]byte{'['}, text[:len(text)-1]...), ']')
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var c jsonwalk.Cursor
	for b.Loop() {
		c.Reset(text)
		for c.Open(); c.More(); {
			for c.Open(); c.More(); {
				c.Name()
				c.Skip()
			}
		}
		if c.End() != nil {
			b.Fatal("not read to the end")
		}
	}
}
