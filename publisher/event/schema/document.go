package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// object is a JSON object whose members keep their order. The documents here are the package's own, so what is wrong with them is a fault of the program: it panics.
type object []member

type member struct {
	name  string
	value jsontext.Value
}

func parse(raw []byte) object {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	if token := must(dec.ReadToken()); token.Kind() != '{' {
		panic(fmt.Sprintf("schema: %v instead of an object", token.Kind()))
	}
	var o object
	for dec.PeekKind() != '}' {
		name := must(dec.ReadToken()).String()
		o = append(o, member{name, must(dec.ReadValue()).Clone()})
	}
	return o
}

func (o object) get(name string) jsontext.Value {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	panic(fmt.Sprintf("schema: no member %q", name))
}

func (o object) set(name string, value jsontext.Value) {
	for i := range o {
		if o[i].name == name {
			o[i].value = value
		}
	}
}

func (o object) value() jsontext.Value {
	var b bytes.Buffer
	for i, m := range o {
		b.WriteByte("{,"[min(i, 1)])
		b.Write(quoted(m.name))
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// walk calls token with each token of a document, and with the name it stands under if it is a member of an object.
func walk(raw []byte, token func(name string, t jsontext.Token)) {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	name := ""
	for {
		t, err := dec.ReadToken()
		if errors.Is(err, io.EOF) {
			return
		}
		t = must(t, err).Clone()
		kind, length := dec.StackIndex(dec.StackDepth())
		if kind == '{' && t.Kind() == '"' && length%2 == 1 {
			token("", t)
			name = t.String()
			continue
		}
		token(name, t)
		name = ""
	}
}

// references are the targets of all $ref in a document.
func references(raw []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		more := true
		walk(raw, func(name string, t jsontext.Token) {
			if more && name == "$ref" && t.Kind() == '"' {
				more = yield(t.String())
			}
		})
	}
}

// redirect gives each $ref in a document that begins with the one prefix the other instead.
func redirect(raw jsontext.Value, from, to string) jsontext.Value {
	var b bytes.Buffer
	enc := jsontext.NewEncoder(&b)
	walk(raw, func(name string, t jsontext.Token) {
		if name == "$ref" && t.Kind() == '"' {
			if rest, ok := strings.CutPrefix(t.String(), from); ok {
				t = jsontext.String(to + rest)
			}
		}
		must(0, enc.WriteToken(t))
	})
	return bytes.TrimSpace(b.Bytes())
}

func quoted(s string) jsontext.Value { return must(jsontext.AppendQuote(nil, s)) }

func indented(v jsontext.Value) []byte {
	must(0, v.Indent(jsontext.WithIndent("  "), jsontext.SpaceAfterColon(true)))
	return append(v, '\n')
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("schema: %v", err))
	}
	return v
}
