// Package schematest judges events by the published schemas, with a validator that shares nothing with the bridge: what it refuses, a consumer who
// validates would refuse too.
//
// Each document is read under draft 2020-12 and under draft 07, formats asserted. The schemas are written so that both say the same, and a disagreement is an error of
// its own.
package schematest

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"nimble-bridge/publisher/event/schema"
)

// Event validates an event of any type: against the schema of all events, that of its own type, that of its data, and the payload of its message in the AsyncAPI document.
func Event(body []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	if err := compiled().event.validate(v); err != nil {
		return err
	}
	e := v.(map[string]any) // The schema says so.
	typ, dataschema := e["type"].(string), e["dataschema"].(string)
	for _, s := range []*schemas{compiled().types[typ], compiled().payloads[typ]} {
		if err := s.validate(v); err != nil {
			return err
		}
	}
	return compiled().data[dataschema].validate(e["data"])
}

// Headers validates the headers of a message that holds an event of the given type, as the AsyncAPI document describes them.
func Headers(typ string, headers map[string][]string) error {
	s, ok := compiled().headers[typ]
	if !ok {
		return fmt.Errorf("no message holds events of type %q", typ)
	}
	v := make(map[string]any)
	for name, values := range headers {
		v[name] = strings.Join(values, ", ")
	}
	return s.validate(v)
}

// schemas is one schema under two drafts.
type schemas struct {
	name       string
	now, older *jsonschema.Schema
}

func (s *schemas) validate(v any) error {
	now, older := s.now.Validate(v), s.older.Validate(v)
	switch {
	case (now == nil) != (older == nil):
		return fmt.Errorf("%s: drafts disagree: 2020-12 says %w, 07 says %w", s.name, now, older)
	case now != nil:
		return fmt.Errorf("%s: %w", s.name, now)
	}
	return nil
}

type all struct {
	event                          *schemas
	types, data, payloads, headers map[string]*schemas
}

var compiled = sync.OnceValue(func() *all {
	a := &all{
		event: compile("schema", schema.Event(), ""),
		types: make(map[string]*schemas), data: make(map[string]*schemas), payloads: make(map[string]*schemas), headers: make(map[string]*schemas),
	}
	for _, typ := range schema.Types() {
		a.types[typ] = compile("schema of "+typ, must(schema.Type(typ)), "")
	}
	for _, dataschema := range schema.DataSchemas() {
		a.data[dataschema] = compile(dataschema, must(schema.Data(dataschema)), "")
	}
	asyncapi := schema.AsyncAPI()
	doc := must(jsonschema.UnmarshalJSON(bytes.NewReader(asyncapi))).(map[string]any)
	for name, m := range doc["components"].(map[string]any)["messages"].(map[string]any) {
		typ := m.(map[string]any)["name"].(string)
		a.payloads[typ] = compile("AsyncAPI payload of "+typ, asyncapi, "#/components/messages/"+name+"/payload")
		a.headers[typ] = compile("AsyncAPI headers of "+typ, asyncapi, "#/components/messages/"+name+"/headers")
	}
	return a
})

// compile reads a schema, or the one at a place in a document, under both drafts.
func compile(name string, doc []byte, place string) *schemas {
	under := func(draft *jsonschema.Draft) *jsonschema.Schema {
		v := must(jsonschema.UnmarshalJSON(bytes.NewReader(doc)))
		if draft == jsonschema.Draft7 {
			delete(v.(map[string]any), "$schema")
		}
		c := jsonschema.NewCompiler()
		c.DefaultDraft(draft)
		c.AssertFormat()
		must(0, c.AddResource("urn:schematest", v))
		return must(c.Compile("urn:schematest" + place))
	}
	return &schemas{name, under(jsonschema.Draft2020), under(jsonschema.Draft7)}
}

// must is for documents that the package schema is made of: what is wrong with them, its tests say.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("schematest: %v", err))
	}
	return v
}
