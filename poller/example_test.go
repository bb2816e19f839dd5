package poller_test

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// Two polls of an account, with an edit between them. The ledger here is one in memory; [nimble-bridge/publisher] has the real one.
func Example() {
	account := nimbletest.New(nimbletest.WithContacts(2))
	client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithTransport(account.Transport()), nimble.WithRateLimit(1000))
	if err != nil {
		fmt.Println(err)
		return
	}
	ledger := newMemory()
	p, err := poller.New(client, ledger, poller.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := p.Poll(context.Background()); err != nil {
		fmt.Println(err)
	}
	account.Edit(account.IDs()[0], nimbletest.Tags("customer"), nimbletest.Owner("6e00000000000000000000a7"))
	if err := p.Poll(context.Background()); err != nil {
		fmt.Println(err)
	}
	for _, change := range ledger.events {
		fmt.Println(change.Kind, "revision", change.Revision, slices.Sorted(maps.Keys(change.Changes)))
	}
	// Output:
	// snapshot revision 1 []
	// snapshot revision 1 []
	// updated revision 2 [owner_id tags]
}

func ExampleDiff() {
	before := jsontext.Value(`{"id": "a1", "updated": "2026-03-01T10:00:00", "tags": ["lead", "boats"], "is_important": null,
		"fields": {"email": [{"value": "t@old.example", "modifier": "work"}]}}`)
	after := jsontext.Value(`{"id": "a1", "updated": "2026-03-01T10:15:00", "tags": ["boats", "lead"], "is_important": true,
		"fields": {"email": [{"value": "t@new.example", "modifier": "work"}]}}`)
	changes, err := poller.Diff(before, after)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		fmt.Printf("%s: %q → %q\n", key, changes[key].Before, changes[key].After)
	}
	// Output:
	// fields.email: "[{\"value\": \"t@old.example\", \"modifier\": \"work\"}]" → "[{\"value\": \"t@new.example\", \"modifier\": \"work\"}]"
	// is_important: "null" → "true"
}

func ExampleFingerprintOf() {
	one, _ := poller.FingerprintOf(jsontext.Value(`{"tags": ["lead", "boats"], "owner_id": null}`))
	two, _ := poller.FingerprintOf(jsontext.Value(`{"owner_id": "", "tags": [{"tag": "boats", "id": "6e/boats"}, {"tag": "lead", "id": "6e/lead"}]}`))
	fmt.Println(one == two, one)
	// Output:
	// true 1:4a20721892bec035640f36e4bce831dd
}
