package schema_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"nimble-bridge/publisher/event/schema"
)

var update = flag.Bool("update", false, "write the released schema anew, if the one of today is compatible with it")

// released is version 1 of the schema as users have it. Once it is out it grows by -update, and in no other way.
const released = "testdata/event-1.json"

func TestSchemaIsCompatibleWithTheReleasedOne(t *testing.T) {
	before, err := os.ReadFile(released)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range incompatible(read(t, before), read(t, schema.Event())) {
		t.Errorf("%s: leave it as it was released, or begin version 2 beside it", fault)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(released, schema.Event(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// incompatible tells where a schema no longer says what an earlier one said, other than by members more and by what is for people.
func incompatible(before, after map[string]any) []string {
	var faults []string
	var compare func(path string, before, after any)
	compare = func(path string, before, after any) {
		one, ok := before.(map[string]any)
		two, too := after.(map[string]any)
		if !ok || !too {
			if !reflect.DeepEqual(before, after) {
				faults = append(faults, fmt.Sprintf("%s was %v and is %v", path, before, after))
			}
			return
		}
		for _, keyword := range keywords(one, two) {
			at := path + "/" + keyword
			was, had := one[keyword]
			is, has := two[keyword]
			switch {
			case keyword == "title", keyword == "description", keyword == "examples", keyword == "$comment", keyword == "deprecated":
			case !had:
				faults = append(faults, fmt.Sprintf("%s is new: %v", at, is))
			case !has:
				faults = append(faults, at+" is gone")
			case keyword == "properties", keyword == "$defs":
				members, _ := is.(map[string]any)
				for name, member := range was.(map[string]any) {
					if _, ok := members[name]; !ok {
						faults = append(faults, at+"/"+name+" is gone")
						continue
					}
					compare(at+"/"+name, member, members[name])
				}
			case keyword == "required": // In any order.
				compare(at, sorted(was), sorted(is))
			case path == "" && keyword == "oneOf": // Types of events may be added, at the end.
				was, is := was.([]any), is.([]any)
				compare(at, was, is[:min(len(was), len(is))])
			default:
				compare(at, was, is)
			}
		}
	}
	compare("", before, after)
	return faults
}

func keywords(a, b map[string]any) []string {
	var all []string
	for _, m := range []map[string]any{a, b} {
		for keyword := range m {
			all = append(all, keyword)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func sorted(v any) any {
	list := slices.Clone(v.([]any))
	slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	return list
}

func read(t *testing.T, doc []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestIncompatibleSchemasAreTold(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		spoil      func(at map[string]any)
		want       string
	}{
		{"nothing changed", "", func(map[string]any) {}, ""},
		{"a member more", "$defs/contactData/properties", func(at map[string]any) { at["score"] = map[string]any{"type": "number"} }, ""},
		{"a definition more", "$defs", func(at map[string]any) { at["score"] = map[string]any{} }, ""},
		{"a type of event more", "", func(at map[string]any) {
			at["oneOf"] = append(at["oneOf"].([]any), map[string]any{"$ref": "#/$defs/dealCreated"})
		}, ""},
		{"another description", "$defs/contactData", func(at map[string]any) { at["description"] = "New words." }, ""},
		{"required in another order", "$defs/contactData", func(at map[string]any) { slices.Reverse(at["required"].([]any)) }, ""},
		{"a member gone", "$defs/contactData/properties", func(at map[string]any) { delete(at, "revision") }, "/$defs/contactData/properties/revision is gone"},
		{"a definition gone", "$defs", func(at map[string]any) { delete(at, "time") }, "/$defs/time is gone"},
		{"a type of event gone", "", func(at map[string]any) { at["oneOf"] = at["oneOf"].([]any)[1:] }, "/oneOf was"},
		{"another type", "$defs/contactData/properties/revision", func(at map[string]any) { at["type"] = "string" }, "revision/type was integer and is string"},
		{"null allowed", "$defs/contactData/properties/revision", func(at map[string]any) { at["type"] = []any{"integer", "null"} }, "revision/type was integer"},
		{"required more", "$defs/contactData", func(at map[string]any) { at["required"] = append(at["required"].([]any), "truncated") }, "contactData/required was"},
		{"required less", "$defs/contactData", func(at map[string]any) { at["required"] = at["required"].([]any)[1:] }, "contactData/required was"},
		{"required where nothing was", "$defs/contactData/properties/revision", func(at map[string]any) { at["required"] = []any{"x"} }, "revision/required is new"},
		{"a reason more", "$defs/contactData/properties/reason", func(at map[string]any) { at["enum"] = append(at["enum"].([]any), "moved") }, "reason/enum was"},
		{"another pattern", "$defs/eventId", func(at map[string]any) { at["pattern"] = "." }, "eventId/pattern was"},
		{"members closed", "$defs/contactData", func(at map[string]any) { at["additionalProperties"] = false }, "additionalProperties is new"},
		{"a format gone", "$defs/time", func(at map[string]any) { delete(at, "format") }, "/$defs/time/format is gone"},
		{"another reference", "$defs/contactData/properties/summary", func(at map[string]any) { at["$ref"] = "#/$defs/contact" }, "summary/$ref was"},
		{"changes allowed where they were not", "$defs/contactCreated/properties/data/properties", func(at map[string]any) { at["changes"] = true }, "changes was false and is true"},
		{"another identifier", "", func(at map[string]any) { at["$id"] = "urn:nimble-bridge:event:2" }, "/$id was"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			after := read(t, schema.Event())
			at := after
			for name := range strings.SplitSeq(tt.path, "/") {
				if name != "" {
					at = at[name].(map[string]any)
				}
			}
			tt.spoil(at)
			faults := incompatible(read(t, schema.Event()), after)
			if tt.want == "" && len(faults) > 0 || tt.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], tt.want)) {
				t.Errorf("got %q, want %q", faults, tt.want)
			}
		})
	}
}
