package event_test

import (
	"fmt"

	"nimble-bridge/publisher/event"
)

func ExampleDecode() {
	body := []byte(`{"specversion":"1.0","id":"9f86d081884c7d659a2feaa0c55ad015","source":"urn:nimble:acme","type":"com.nimble.contact.updated",
		"subject":"5049fb849b85f669e40000dc","time":"2026-03-01T10:15:00Z","datacontenttype":"application/json","data":{
		"account":"acme","record_type":"person","revision":7,"observed":"2026-03-01T10:15:12.031Z","found_by":"poll",
		"summary":{"name":"Tomasz Brandt","company":"Brandt Marine","title":"CFO","emails":["tomasz@brandt.example"],"phones":[],"tags":["supplier"]},
		"contact":{"id":"5049fb849b85f669e40000dc"},
		"changes":{"tags":{"before":null,"after":["supplier"]}}}}`)
	ev, err := event.Decode(body)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ev.Verb(), ev.Data.Summary.Name, ev.Data.Revision)
	for key, change := range ev.Data.Changes {
		fmt.Printf("%s: %s, was %v\n", key, change.After, change.Before == nil)
	}
	// Output:
	// updated Tomasz Brandt 7
	// tags: ["supplier"], was true
}

func ExampleParseHeaders() {
	headers := map[string][]string{ // As a NATS message has them.
		"Nats-Msg-Id":        {"9f86d081884c7d659a2feaa0c55ad015"},
		"Nimble-Type":        {"updated"},
		"Nimble-Revision":    {"7"},
		"Nimble-Fingerprint": {"1:00112233445566778899aabbccddeeff"},
		"Nimble-Changed":     {"fields.first%20name,tags"},
	}
	h, err := event.ParseHeaders(headers)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s, revision %d: %q\n", h.Verb, h.Revision, h.ChangedKeys)
	// Output:
	// updated, revision 7: ["fields.first name" "tags"]
}

func ExampleParseSubject() {
	s, err := event.ParseSubject("nimble.acme.contact.created.5049fb849b85f669e40000dc")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Account, s.Verb, s.ContactID)
	// Output:
	// acme created 5049fb849b85f669e40000dc
}
