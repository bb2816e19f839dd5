// Package schema has the JSON Schemas of the events that the bridge publishes, and the AsyncAPI document that says on which subjects, with which headers
// and how they arrive.
//
// # The documents
//
// [Event] is one JSON Schema (draft 2020-12) for events of every type, [Type] the part of it that is about one type. [Data] is the schema of an
// event's data alone: what the event names in its dataschema attribute. [AsyncAPI] describes the whole interface. Each stands alone.
//
// All of them are made of two files in this folder, in which each fact stands once: event.json has the schemas, and asyncapi.json refers to them. The schemas keep
// to what means the same in drafts 07 and 2020-12, so that tools of either kind, AsyncAPI's among them, read the same.
//
// # Compatibility
//
// A document of version 1 may gain members, of objects that are described as of new ones. Nothing in it goes, changes its type or its allowed values, or becomes required, so that a
// reader built for today's events reads tomorrow's, and one built tomorrow reads those stored today. Anything else is version 2: another number
// in the dataschema attribute, beside version 1. A test holds event.json against the schema as it was released.
package schema

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"nimble-bridge/publisher/event"
)

//go:embed event.json
var eventJSON []byte

//go:embed asyncapi.json
var asyncapiJSON []byte

const (
	draft = "https://json-schema.org/draft/2020-12/schema"
	// ID is the identifier of [Event].
	ID = "urn:nimble-bridge:event:1"

	// How event.json refers to its definitions, how asyncapi.json does, and how they are referred to once they stand there.
	localRef  = "#/$defs/"
	fileRef   = "event.json#/$defs/"
	bundleRef = "#/components/schemas/"
)

// types are the types of events and the definitions of events with that type, in the order in which they are told.
var types = []struct{ name, definition string }{
	{event.Snapshot.Type(), "contactSnapshot"},
	{event.Created.Type(), "contactCreated"},
	{event.Updated.Type(), "contactUpdated"},
	{event.Deleted.Type(), "contactDeleted"},
	{event.ReconciledType, "bridgeReconciled"},
	{event.RejectedType, "bridgeRejected"},
}

// payloads are the values of the dataschema attribute and the definitions of data.
var payloads = []struct{ name, definition string }{
	{event.ContactSchema, "contactData"},
	{event.ReconciledSchema, "reconciledData"},
	{event.RejectedSchema, "rejectedData"},
}

// Types returns the types of events, such as com.nimble.contact.updated.
func Types() []string {
	var names []string
	for _, t := range types {
		names = append(names, t.name)
	}
	return names
}

// DataSchemas returns the values of the events' dataschema attribute.
func DataSchemas() []string {
	var names []string
	for _, p := range payloads {
		names = append(names, p.name)
	}
	return names
}

// Event returns the JSON Schema of all events.
func Event() []byte { return slices.Clone(eventJSON) }

// Type returns the JSON Schema of the events with one type, such as com.nimble.contact.updated. Its last word will do.
func Type(name string) ([]byte, error) {
	for _, t := range types {
		if t.name == name || strings.HasSuffix(t.name, "."+name) && !strings.Contains(name, ".") {
			return parsed().standalone(ID+":"+t.name, t.definition), nil
		}
	}
	return nil, fmt.Errorf("no event has the type %q; there are %s", name, strings.Join(Types(), ", "))
}

// Data returns the JSON Schema of what events that have the given dataschema attribute carry as data.
func Data(dataschema string) ([]byte, error) {
	for _, p := range payloads {
		if p.name == dataschema {
			return parsed().standalone(p.name, p.definition), nil
		}
	}
	return nil, fmt.Errorf("no event has the dataschema %q; there are %s", dataschema, strings.Join(DataSchemas(), ", "))
}

// AsyncAPI returns the AsyncAPI 3.0 document as JSON, which is YAML as well. The schemas of [Event] are among its components.
func AsyncAPI() []byte {
	doc := parse(asyncapiJSON)
	components := parse(doc.get("components"))
	schemas := parse(components.get("schemas"))
	var needed []string
	for ref := range references(asyncapiJSON) {
		if name, ok := strings.CutPrefix(ref, fileRef); ok {
			needed = append(needed, name)
		}
	}
	for _, definition := range parsed().closure(needed...) {
		schemas = append(schemas, member{definition.name, redirect(definition.value, localRef, bundleRef)})
	}
	components.set("schemas", schemas.value())
	doc.set("components", components.value())
	return indented(redirect(doc.value(), fileRef, bundleRef))
}

// definitions are the $defs of event.json.
type definitions object

var parsed = sync.OnceValue(func() definitions {
	root := parse(eventJSON)
	return definitions(parse(root.get("$defs")))
})

// standalone makes a schema out of one definition and those that it needs.
func (d definitions) standalone(id, name string) []byte {
	at := object(d)
	root := object{{"$schema", quoted(draft)}, {"$id", quoted(id)}}
	root = append(root, parse(at.get(name))...)
	if rest := d.closure(name)[1:]; len(rest) > 0 {
		root = append(root, member{"$defs", rest.value()})
	}
	return indented(root.value())
}

// closure returns the named definitions, followed by all that they refer to.
func (d definitions) closure(names ...string) object {
	var all object
	seen := make(map[string]bool)
	for at := object(d); len(names) > 0; names = names[1:] {
		if seen[names[0]] {
			continue
		}
		seen[names[0]] = true
		definition := member{names[0], at.get(names[0])}
		all = append(all, definition)
		for ref := range references(definition.value) {
			names = append(names, strings.TrimPrefix(ref, localRef))
		}
	}
	return all
}
