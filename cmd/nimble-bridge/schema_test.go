package main

import (
	"strings"
	"testing"

	"nimble-bridge/publisher/event/schema"
)

func TestSchemaPrints(t *testing.T) {
	updated, err := schema.Type("updated")
	if err != nil {
		t.Fatal(err)
	}
	data, err := schema.Data("urn:nimble-bridge:rejected-event:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		want []byte
	}{
		{"schema", schema.Event()},
		{"schema --asyncapi", schema.AsyncAPI()},
		{"schema --type updated", updated},
		{"schema --dataschema urn:nimble-bridge:rejected-event:1", data},
	} {
		code, stdout, stderr := runProgram(t.Context(), strings.Fields(tt.args)...)
		if code != exitDone || stdout != string(tt.want) || stderr != "" {
			t.Errorf("%s: exit code %d, %d bytes, want %d; stderr %q", tt.args, code, len(stdout), len(tt.want), stderr)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"schema --type moved", `no event has the type "moved"; there are com.nimble.contact.snapshot, `},
		{"schema --dataschema x", `no event has the dataschema "x"; there are urn:nimble-bridge:contact-event:1, `},
		{"schema --asyncapi --type updated", "exclude each other"},
		{"schema updated", "takes no argument"},
	} {
		code, stdout, stderr := runProgram(t.Context(), strings.Fields(tt.args)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, %q, %q", tt.args, code, stdout, stderr)
		}
	}
}
