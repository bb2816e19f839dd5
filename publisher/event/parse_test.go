package event_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"nimble-bridge/publisher/event"
)

func TestParseReadsEveryMessage(t *testing.T) {
	for name, body := range samples() {
		m, err := event.Parse(nil, body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got string
		switch m := m.(type) {
		case *event.Event:
			got = string(m.Encode())
		case *event.Reconciled:
			got = string(m.Encode())
		case *event.Rejected:
			got = string(m.Encode())
		}
		if got != string(body) {
			t.Errorf("%s became %s", name, got)
		}
	}
	headers := event.Headers{ID: sample(event.Updated).ID, Verb: event.Updated, Revision: 7, ChangedKeys: []string{"tags"}}.Map()
	if _, err := event.Parse(headers, sample(event.Updated).Encode()); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(sample(event.Created).Encode())
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "x", "half an event": good[:len(good)/2], "no event": "{}",
	} {
		if m, err := event.Parse(nil, []byte(body)); m != nil || err == nil || errors.Is(err, event.ErrType) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	if m, err := event.Parse(nil, []byte(strings.Replace(good, "contact.created", "deal.created", 1))); m != nil || !errors.Is(err, event.ErrType) {
		t.Errorf("another type: %v, %v", m, err)
	}
	if m, err := event.Parse(map[string][]string{event.HeaderID: {"another"}}, []byte(good)); m != nil || err == nil {
		t.Errorf("headers of another event: %v, %v", m, err)
	}
}

func TestChangedCoversWhatIsBelow(t *testing.T) {
	keys := []string{"fields.email", "fields.first name", "tags"}
	e := sample(event.Updated)
	e.Data.Changes = make(map[string]event.Change)
	for _, key := range keys {
		e.Data.Changes[key] = event.Change{}
	}
	h := event.Headers{Verb: event.Updated, ChangedKeys: keys}
	for _, tt := range []struct {
		keys []string
		want bool
	}{
		{[]string{"fields.email"}, true},
		{[]string{"fields"}, true},
		{[]string{"owner_id", "tags"}, true},
		{[]string{"field"}, false},
		{[]string{"fields."}, false},
		{[]string{"fields.first"}, false},
		{[]string{"fields.email.x"}, false},
		{[]string{"owner_id"}, false},
		{[]string{""}, false},
		{nil, false},
	} {
		if got := e.Changed(tt.keys...); got != tt.want {
			t.Errorf("the event changed %q: %v, want %v", tt.keys, got, tt.want)
		}
		if got := h.Changed(tt.keys...); got != tt.want {
			t.Errorf("by the headers it changed %q: %v, want %v", tt.keys, got, tt.want)
		}
	}
	if sample(event.Created).Changed("tags") {
		t.Error("a created event changed something")
	}
	if h.ChangedCut = true; !h.Changed("owner_id") || h.Changed() {
		t.Error("a key that had no room in the headers does not count as changed")
	}
}

func ExampleParse() {
	headers := map[string][]string{"Nats-Msg-Id": {"9f86d081884c7d659a2feaa0c55ad015"}} // As a NATS message has them.
	body := []byte(`{"specversion":"1.0","id":"9f86d081884c7d659a2feaa0c55ad015","source":"urn:nimble:acme","type":"com.nimble.contact.updated",
		"subject":"5049fb849b85f669e40000dc","data":{"account":"acme","revision":7,"summary":{"name":"Tomasz Brandt"},"contact":{},
		"changes":{"tags":{"before":["supplier"],"after":[{"tag":"supplier","id":"6e/supplier"},{"tag":"hot","id":"6e/hot"}]}}}}`)
	m, err := event.Parse(headers, body)
	if err != nil {
		fmt.Println(err) // errors.Is(err, event.ErrType) is a type of a later bridge: acknowledge and go on.
		return
	}
	switch m := m.(type) {
	case *event.Event:
		if m.Changed("tags") {
			fmt.Printf("%s is now %q\n", m.Data.Summary.Name, m.Data.Changes["tags"].Added())
		}
	case *event.Reconciled:
		fmt.Println("nothing was missing at", m.Time)
	case *event.Rejected:
		fmt.Println(m.Data.Reason)
	}
	// Output:
	// Tomasz Brandt is now ["hot"]
}

func ExampleHeaders_Changed() {
	h, err := event.ParseHeaders(map[string][]string{
		"Nats-Msg-Id": {"9f86d081884c7d659a2feaa0c55ad015"}, "Nimble-Type": {"updated"}, "Nimble-Revision": {"7"}, "Nimble-Changed": {"fields.email,tags"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(h.Changed("fields.email"), h.Changed("fields"), h.Changed("owner_id"))
	// Output:
	// true true false
}

func ExampleData_Fields() {
	d := event.Data{Contact: []byte(`{"id":"5049fb849b85f669e40000dc","fields":{
		"phone":[{"value":"+48 58 1","modifier":"work"},{"value":"+48 601 2","modifier":"mobile","is_primary":true}],
		"address":[{"value":"{\"street\": \"4 Quay Rd\", \"city\": \"Gdynia\"}","modifier":"work"}],
		"contact employment":[{"value":"{\"company_name\": \"Brandt Marine\", \"title\": \"CFO\", \"is_present\": true}"}]}}`)}
	fields, err := d.Fields()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(fields.Text("phone"))
	for _, phone := range fields["phone"] {
		fmt.Println(phone.Modifier, phone.Text)
	}
	fmt.Println(fields.Addresses()[0].City)
	fmt.Println(fields.Employments()[0].Title, "at", fields.Employments()[0].Company)
	// Output:
	// +48 601 2
	// work +48 58 1
	// mobile +48 601 2
	// Gdynia
	// CFO at Brandt Marine
}
