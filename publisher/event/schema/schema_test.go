package schema_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/embedded"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/event/schema"
	"nimble-bridge/publisher/event/schema/schematest"
)

// The golden events of package event are one of each kind there is: each type, restored, erased, merged, truncated.
func TestEveryKindOfEventFits(t *testing.T) {
	seen := make(map[string]bool)
	for name, body := range goldenEvents(t) {
		t.Run(name, func(t *testing.T) {
			if err := schematest.Event(body); err != nil {
				t.Errorf("%s\n%v", body, err)
			}
		})
		typ, err := event.TypeOf(body)
		if err != nil {
			t.Fatal(err)
		}
		seen[typ] = true
	}
	if want := slices.Sorted(slices.Values(schema.Types())); !slices.Equal(slices.Sorted(maps.Keys(seen)), want) {
		t.Errorf("there are events of %v, and schemas of %v", slices.Sorted(maps.Keys(seen)), want)
	}
}

func goldenEvents(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../testdata/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d golden events, %v", len(files), err)
	}
	events := make(map[string][]byte)
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		events[strings.TrimSuffix(filepath.Base(file), ".json")] = body
	}
	return events
}

func TestDocumentsStandAlone(t *testing.T) {
	docs := map[string][]byte{"event": schema.Event(), "asyncapi": schema.AsyncAPI()}
	for _, typ := range schema.Types() {
		doc, err := schema.Type(typ)
		if err != nil {
			t.Fatal(err)
		}
		docs[typ] = doc
	}
	for _, name := range schema.DataSchemas() {
		doc, err := schema.Data(name)
		if err != nil {
			t.Fatal(err)
		}
		docs[name] = doc
	}
	ids := make(map[string]string)
	for name, doc := range docs {
		var root map[string]any
		if err := json.Unmarshal(doc, &root); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, ref := range refs(root) {
			if !resolves(root, ref) {
				t.Errorf("%s refers to %s, which is not there", name, ref)
			}
		}
		if name == "asyncapi" {
			continue
		}
		id, _ := root["$id"].(string)
		if other, twice := ids[id]; twice || id == "" {
			t.Errorf("%s and %s have the $id %q", name, other, id)
		}
		ids[id] = name
	}
	if ids[event.ContactSchema] != event.ContactSchema {
		t.Errorf("the schema that events name as %s is not known by that name", event.ContactSchema)
	}
}

// Beside a $ref, drafts before 2019-09 read nothing.
func TestNothingStandsBesideAReference(t *testing.T) {
	var check func(path string, v any)
	check = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if _, ok := v["$ref"].(string); ok && len(v) > 1 {
				t.Errorf("%s has a $ref and %d other members", path, len(v)-1)
			}
			for name, member := range v {
				check(path+"/"+name, member)
			}
		case []any:
			for i, element := range v {
				check(fmt.Sprint(path, "/", i), element)
			}
		}
	}
	var root any
	if err := json.Unmarshal(schema.Event(), &root); err != nil {
		t.Fatal(err)
	}
	check("", root)
}

func refs(v any) []string {
	var all []string
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			all = append(all, ref)
		}
		for _, member := range v {
			all = append(all, refs(member)...)
		}
	case []any:
		for _, element := range v {
			all = append(all, refs(element)...)
		}
	}
	return all
}

func resolves(root any, ref string) bool {
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		object, _ := root.(map[string]any)
		if root, ok = object[name]; !ok {
			return false
		}
	}
	return true
}

func TestTypeTakesTheLastWord(t *testing.T) {
	long, err := schema.Type("com.nimble.contact.updated")
	if err != nil {
		t.Fatal(err)
	}
	short, err := schema.Type("updated")
	if err != nil || string(short) != string(long) {
		t.Errorf("%v, %s", err, short)
	}
	for _, name := range []string{"", "moved", "contact.updated", "nimble", "pdated"} {
		if doc, err := schema.Type(name); err == nil {
			t.Errorf("type %q: %s", name, doc)
		}
	}
	if doc, err := schema.Data("urn:nimble-bridge:contact-event:2"); err == nil {
		t.Errorf("dataschema 2: %s", doc)
	}
}

// spoil is an edit of an event that makes it wrong.
type spoil func(e, data map[string]any)

func TestFaultyEventsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name, of string
		spoil    spoil
	}{
		{"no id", "created", func(e, _ map[string]any) { delete(e, "id") }},
		{"a short id", "created", func(e, _ map[string]any) { e["id"] = "4c1f" }},
		{"an id in capitals", "created", func(e, _ map[string]any) { e["id"] = strings.ToUpper(e["id"].(string)) }},
		{"another specversion", "created", func(e, _ map[string]any) { e["specversion"] = "0.3" }},
		{"another type", "created", func(e, _ map[string]any) { e["type"] = "com.nimble.contact.moved" }},
		{"a source of something else", "created", func(e, _ map[string]any) { e["source"] = "urn:other:acme" }},
		{"a source without an account", "created", func(e, _ map[string]any) { e["source"] = "urn:nimble:" }},
		{"no subject", "created", func(e, _ map[string]any) { delete(e, "subject") }},
		{"a subject with a dot", "created", func(e, _ map[string]any) { e["subject"] = "a.b" }},
		{"an empty subject", "created", func(e, _ map[string]any) { e["subject"] = "" }},
		{"no partition key", "created", func(e, _ map[string]any) { delete(e, "partitionkey") }},
		{"no time", "created", func(e, _ map[string]any) { delete(e, "time") }},
		{"a time in words", "created", func(e, _ map[string]any) { e["time"] = "soonZ" }},
		{"a time with an offset", "created", func(e, _ map[string]any) { e["time"] = "2026-03-01T10:15:00+01:00" }},
		{"a day that is none", "created", func(e, _ map[string]any) { e["time"] = "2026-02-30T10:15:00Z" }},
		{"another dataschema", "created", func(e, _ map[string]any) { e["dataschema"] = "urn:nimble-bridge:contact-event:2" }},
		{"the dataschema of a receipt", "created", func(e, _ map[string]any) { e["dataschema"] = event.ReconciledSchema }},
		{"another datacontenttype", "created", func(e, _ map[string]any) { e["datacontenttype"] = "text/plain" }},
		{"no data", "created", func(e, _ map[string]any) { delete(e, "data") }},
		{"data as text", "created", func(e, _ map[string]any) { e["data"] = "{}" }},
		{"no account", "created", func(_, d map[string]any) { delete(d, "account") }},
		{"an account with a wildcard", "created", func(_, d map[string]any) { d["account"] = "*" }},
		{"no record type", "created", func(_, d map[string]any) { delete(d, "record_type") }},
		{"revision 0", "created", func(_, d map[string]any) { d["revision"] = 0 }},
		{"a revision as text", "created", func(_, d map[string]any) { d["revision"] = "7" }},
		{"half a revision", "created", func(_, d map[string]any) { d["revision"] = 7.5 }},
		{"no observed", "created", func(_, d map[string]any) { delete(d, "observed") }},
		{"an unknown found_by", "created", func(_, d map[string]any) { d["found_by"] = "luck" }},
		{"no summary", "created", func(_, d map[string]any) { delete(d, "summary") }},
		{"a summary without a name", "created", func(_, d map[string]any) { delete(d["summary"].(map[string]any), "name") }},
		{"null for emails", "created", func(_, d map[string]any) { d["summary"].(map[string]any)["emails"] = nil }},
		{"null among tags", "created", func(_, d map[string]any) { d["summary"].(map[string]any)["tags"] = []any{nil} }},
		{"null for the contact", "created", func(_, d map[string]any) { d["contact"] = nil }},
		{"a contact without an id", "created", func(_, d map[string]any) { delete(d["contact"].(map[string]any), "id") }},
		{"truncated as text", "created", func(_, d map[string]any) { d["truncated"] = "yes" }},
		{"restored as a number", "restored", func(_, d map[string]any) { d["restored"] = 1 }},
		{"changes of created", "created", func(_, d map[string]any) {
			d["changes"] = map[string]any{"tags": map[string]any{"before": nil, "after": nil}}
		}},
		{"a reason of created", "created", func(_, d map[string]any) { d["reason"] = "not_found" }},
		{"changes of snapshot", "snapshot", func(_, d map[string]any) {
			d["changes"] = map[string]any{"tags": map[string]any{"before": nil, "after": nil}}
		}},
		{"restored of snapshot", "snapshot", func(_, d map[string]any) { d["restored"] = true }},
		{"no changes", "updated", func(_, d map[string]any) { delete(d, "changes") }},
		{"empty changes", "updated", func(_, d map[string]any) { d["changes"] = map[string]any{} }},
		{"changes in a list", "updated", func(_, d map[string]any) { d["changes"] = []any{} }},
		{"a change without before", "updated", func(_, d map[string]any) { delete(d["changes"].(map[string]any)["tags"].(map[string]any), "before") }},
		{"a change as text", "updated", func(_, d map[string]any) { d["changes"].(map[string]any)["tags"] = "x" }},
		{"erased of updated", "updated", func(_, d map[string]any) { d["erased"] = true }},
		{"no reason", "deleted", func(_, d map[string]any) { delete(d, "reason") }},
		{"an unknown reason", "deleted", func(_, d map[string]any) { d["reason"] = "gone" }},
		{"changes of deleted", "deleted", func(_, d map[string]any) {
			d["changes"] = map[string]any{"tags": map[string]any{"before": nil, "after": nil}}
		}},
		{"no merge candidates", "merged", func(_, d map[string]any) { d["merged_into_candidates"] = []any{} }},
		{"a merge candidate that is no id", "merged", func(_, d map[string]any) { d["merged_into_candidates"] = []any{"a b"} }},
		{"a count of contacts below 0", "reconciled", func(_, d map[string]any) { d["contacts"] = -1 }},
		{"an unknown method", "reconciled", func(_, d map[string]any) { d["method"] = "guess" }},
		{"no since", "reconciled", func(_, d map[string]any) { delete(d, "since") }},
		{"a since in words", "reconciled", func(_, d map[string]any) { d["since"] = "yesterday" }},
		{"requests as text", "reconciled", func(_, d map[string]any) { d["requests"] = "41" }},
		{"no reason for rejecting", "rejected", func(_, d map[string]any) { d["reason"] = "" }},
		{"no record", "rejected", func(_, d map[string]any) { delete(d, "record") }},
		{"a contact id that is none", "rejected", func(_, d map[string]any) { d["contact_id"] = "a b" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := schematest.Event(altered(t, tt.of, tt.spoil)); err == nil {
				t.Error("accepted")
			} else if strings.Contains(err.Error(), "drafts disagree") {
				t.Error(err)
			}
		})
	}
}

func TestEventsMayGainMembers(t *testing.T) {
	for _, of := range []string{"snapshot", "created", "updated", "deleted", "reconciled", "rejected"} {
		body := altered(t, of, func(e, d map[string]any) {
			e["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			d["score"] = map[string]any{"a": []any{1, nil}}
			if changes, ok := d["changes"].(map[string]any); ok {
				changes["tags"].(map[string]any)["added"] = []any{"x"}
			}
			if summary, ok := d["summary"].(map[string]any); ok {
				summary["nickname"] = "Tomek"
			}
		})
		if err := schematest.Event(body); err != nil {
			t.Errorf("%s: %v", of, err)
		}
	}
}

// altered returns a golden event with an edit.
func altered(t *testing.T, name string, edit spoil) []byte {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(goldenEvents(t)[name], &e); err != nil {
		t.Fatal(err)
	}
	data, _ := e["data"].(map[string]any)
	edit(e, data)
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestHeadersFit(t *testing.T) {
	full := event.Headers{
		ID: "4c1f0d9a7be2356881f0a2c94de7b305", Revision: 7, Fingerprint: "1:00112233445566778899aabbccddeeff",
		Created: time.Unix(1e9, 1000), Updated: time.Unix(2e9, 0),
	}
	for _, verb := range []event.Verb{event.Snapshot, event.Created, event.Updated, event.Deleted} {
		h := full
		h.Verb = verb
		if verb == event.Updated {
			h.ChangedKeys = []string{"fields.first name", "fields.名", "tags"}
		}
		if err := schematest.Headers(verb.Type(), h.Map()); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
	for name, spoil := range map[string]func(h map[string][]string){
		"no id":               func(h map[string][]string) { delete(h, event.HeaderID) },
		"another id":          func(h map[string][]string) { h[event.HeaderID] = []string{"x"} },
		"another verb":        func(h map[string][]string) { h[event.HeaderType] = []string{"created"} },
		"no changed keys":     func(h map[string][]string) { delete(h, event.HeaderChanged) },
		"keys not encoded":    func(h map[string][]string) { h[event.HeaderChanged] = []string{"fields.first name"} },
		"revision 0":          func(h map[string][]string) { h[event.HeaderRevision] = []string{"0"} },
		"a fingerprint alone": func(h map[string][]string) { h[event.HeaderFingerprint] = []string{"00112233"} },
		"a local time":        func(h map[string][]string) { h[event.HeaderUpdated] = []string{"2026-03-01T10:15:00+01:00"} },
		"another content":     func(h map[string][]string) { h[event.HeaderContentType] = []string{"application/json"} },
	} {
		h := full
		h.Verb, h.ChangedKeys = event.Updated, []string{"tags"}
		m := h.Map()
		spoil(m)
		if err := schematest.Headers(event.Updated.Type(), m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// odd are contact documents as Nimble could send them any day: they are events like all others.
var odd = []string{
	`{"id":"5049fb849b85f669e4000001"}`,
	`{"id":"5049fb849b85f669e4000002","record_type":null,"created":null,"updated":null,"fields":null,"tags":null,"privacy":null}`,
	`{"id":"5049fb849b85f669e4000003","record_type":"alien","fields":[],"tags":{},"created":1,"updated":[]}`,
	`{"id":"short","fields":{"email":"a@x.example","phone":[null,{"value":17}],"address":[{"value":"{'street': 'x'}"}]},"tags":["a",{"tag":"b"}],"stages_info":[]}`,
	`{"id":"5049fb849b85f669e4000005","fields":{"a,b %*名":[{"value":"x"}]},"":0,"notice":{"text":"` + `\u0000` + `"}}`,
}

// TestEventsFromThePipelineFit runs an account through the real bridge and judges every message that the stream has then.
func TestEventsFromThePipelineFit(t *testing.T) {
	account := nimbletest.New(nimbletest.WithContacts(20))
	p, ledger, nc := bridge(t, account)
	poll := func() {
		t.Helper()
		if err := p.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, raw := range odd[:2] {
		if err := account.Put(raw); err != nil {
			t.Fatal(err)
		}
	}
	poll()
	for _, raw := range odd[2:] {
		if err := account.Put(raw); err != nil {
			t.Fatal(err)
		}
	}
	account.PutRaw("bad", `{"id":"a b"}`)
	ids := account.IDs()
	id := account.Create()
	account.Edit(id, nimbletest.Tags("名", "a, b"), nimbletest.Field("custom, field *", "1"), nimbletest.Key("notice", `{"text":"hello"}`))
	account.Edit(ids[3], nimbletest.RemoveField("email"), nimbletest.Owner(""), nimbletest.Star(true))
	poll()
	for _, raw := range odd {
		if err := account.Put(strings.Replace(raw, "{", `{"is_important":true,`, 1)); err != nil {
			t.Fatal(err)
		}
	}
	account.Edit(id, nimbletest.Key("record_type", "null"), nimbletest.Field("description", strings.Repeat("x", 2<<20)))
	poll()
	reconcile := func() {
		t.Helper()
		if _, err := p.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Odd ones go as well as a truncated one; one comes back, one is merged away, one is erased.
	account.Delete("bad", id, ids[4], "5049fb849b85f669e4000002", "5049fb849b85f669e4000003", "short")
	account.Merge(ids[6], ids[7])
	reconcile()
	account.Restore(ids[4])
	reconcile()
	if _, err := ledger.Erase(t.Context(), ids[5], ""); err != nil {
		t.Fatal(err)
	}

	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), "NIMBLE")
	if err != nil {
		t.Fatal(err)
	}
	types, variants := make(map[string]int), make(map[string]int)
	for seq := range s.CachedInfo().State.LastSeq {
		m, err := s.GetMsg(t.Context(), seq+1)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // Erased.
		}
		if err != nil {
			t.Fatal(err)
		}
		typ, err := event.TypeOf(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		types[typ]++
		if err := errors.Join(schematest.Event(m.Data), schematest.Headers(typ, m.Header)); err != nil {
			t.Errorf("%s\n%v\n%v", m.Data[:min(2000, len(m.Data))], m.Header, err)
		}
		if e, err := event.Decode(m.Data); err == nil {
			for variant, is := range map[string]bool{
				"truncated": e.Data.Truncated, "restored": e.Data.Restored, "erased": e.Data.Erased, "merged": len(e.Data.MergedIntoCandidates) > 0,
			} {
				if is {
					variants[variant]++
				}
			}
		}
	}
	if !slices.Equal(slices.Sorted(maps.Keys(types)), slices.Sorted(slices.Values(schema.Types()))) {
		t.Errorf("judged %v", types)
	}
	if want := []string{"erased", "merged", "restored", "truncated"}; !slices.Equal(slices.Sorted(maps.Keys(variants)), want) {
		t.Errorf("judged the variants %v, want %v", variants, want)
	}
}

// bridge returns a poller whose polls end up in a stream, and a connection to read that.
func bridge(t *testing.T, account *nimbletest.Account) (*poller.Poller, *publisher.Publisher, *nats.Conn) {
	t.Helper()
	srv, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	conn, err := publisher.Connect(t.Context(), publisher.ConnectConfig{InProcess: srv.InProcess(), Name: "test"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ledger, err := publisher.Open(context.Background(), conn, publisher.Config{
		Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Manage: true,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithTransport(account.Transport()), nimble.WithRateLimit(1e6))
	if err != nil {
		t.Fatal(err)
	}
	p, err := poller.New(client, ledger, poller.Config{ConfirmAfter: time.Millisecond, DeleteLimit: &poller.DeleteLimit{Count: 20}})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv.InProcess()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return p, ledger, nc
}

// asyncapi is what the tests look at of the AsyncAPI document.
type asyncapi struct {
	Version string `json:"asyncapi"`
	Servers map[string]struct {
		Protocol string `json:"protocol"`
	} `json:"servers"`
	Channels map[string]struct {
		Address    string                    `json:"address"`
		Parameters map[string]jsontext.Value `json:"parameters"`
		Messages   map[string]struct {
			Ref string `json:"$ref"`
		} `json:"messages"`
		Bindings map[string]jsontext.Value `json:"bindings"`
	} `json:"channels"`
	Operations map[string]struct {
		Action  string `json:"action"`
		Channel struct {
			Ref string `json:"$ref"`
		} `json:"channel"`
	} `json:"operations"`
	Components struct {
		Messages map[string]struct {
			Name     string `json:"name"`
			Examples []struct {
				Headers map[string]string `json:"headers"`
				Payload jsontext.Value    `json:"payload"`
			} `json:"examples"`
		} `json:"messages"`
		Schemas map[string]jsontext.Value `json:"schemas"`
	} `json:"components"`
}

func readAsyncAPI(t *testing.T) asyncapi {
	t.Helper()
	var doc asyncapi
	if err := json.Unmarshal(schema.AsyncAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestAsyncAPIHasTheSubjects(t *testing.T) {
	doc := readAsyncAPI(t)
	if doc.Version != "3.0.0" || doc.Servers["nats"].Protocol != "nats" {
		t.Errorf("asyncapi %q, servers %v", doc.Version, doc.Servers)
	}
	values := strings.NewReplacer("{prefix}", "crm.nimble", "{account}", "acme", "{contactId}", "a1", "{bucket}", "nimble-contacts")
	var got []string
	sent := make(map[string]bool)
	for _, op := range doc.Operations {
		if op.Action == "send" {
			sent[op.Channel.Ref] = true
		}
	}
	for name, channel := range doc.Channels {
		address := values.Replace(channel.Address)
		if strings.ContainsAny(address, "{}") {
			t.Errorf("channel %s has an unknown parameter: %s", name, address)
		}
		if strings.Count(channel.Address, "{") != len(channel.Parameters) {
			t.Errorf("channel %s has %d parameters", name, len(channel.Parameters))
		}
		for parameter := range channel.Parameters {
			if !strings.Contains(channel.Address, "{"+parameter+"}") {
				t.Errorf("channel %s has no place for its parameter %s", name, parameter)
			}
		}
		if !sent["#/channels/"+name] || channel.Bindings["nats"] == nil {
			t.Errorf("channel %s has no operation or no NATS binding", name)
		}
		got = append(got, address)
	}
	want := []string{"$KV.nimble-contacts.acme.a1", event.ReconciledSubject("crm.nimble", "acme"), event.RejectedSubject("crm.nimble", "acme")}
	for _, verb := range []event.Verb{event.Snapshot, event.Created, event.Updated, event.Deleted} {
		want = append(want, event.Subject{Prefix: "crm.nimble", Account: "acme", Verb: verb, ContactID: "a1"}.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("channels %v, want %v", got, want)
	}
}

func TestAsyncAPIHasTheMessages(t *testing.T) {
	doc := readAsyncAPI(t)
	var names []string
	for key, m := range doc.Components.Messages {
		names = append(names, m.Name)
		if len(m.Examples) == 0 {
			t.Errorf("message %s has no example", key)
		}
		for _, example := range m.Examples {
			headers := make(map[string][]string)
			for name, value := range example.Headers {
				headers[name] = []string{value}
			}
			if err := errors.Join(schematest.Event(example.Payload), schematest.Headers(m.Name, headers)); err != nil {
				t.Errorf("example of %s: %v", key, err)
			}
			e, err := event.Decode(example.Payload)
			if errors.Is(err, event.ErrType) {
				continue // A notice.
			}
			h, headersErr := event.ParseHeaders(headers)
			if err != nil || headersErr != nil {
				t.Fatalf("example of %s: %v, %v", key, err, headersErr)
			}
			if h.ID != e.ID || h.Verb != e.Verb() || h.Revision != e.Data.Revision || !slices.Equal(h.ChangedKeys, slices.Sorted(maps.Keys(e.Data.Changes))) {
				t.Errorf("example of %s: headers %+v do not fit", key, h)
			}
		}
	}
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(schema.Types())); !slices.Equal(names, want) {
		t.Errorf("messages %v, want %v", names, want)
	}
}
