package nimble_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
)

func Example() {
	account := nimbletest.NewServer(nimbletest.WithKey("my-key"), nimbletest.WithCompanyID("acme"))
	defer account.Close()
	account.Create(nimbletest.Field("first name", "Tomasz"))

	client, err := nimble.NewClient(account.URL, "my-key")
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseIdleConnections()

	me, err := client.Myself(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	everyone, err := client.Count(context.Background(), nimble.Query{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Account %s has %d contact.\n", me.CompanyID, everyone.Total)
	// Output: Account acme has 1 contact.
}

// The contacts changed within an hour, in the order of their changes.
func ExampleClient_Contacts() {
	noon := time.Date(2031, 5, 4, 12, 0, 0, 0, time.UTC)
	account := nimbletest.New(nimbletest.WithClock(func() time.Time { return noon }))
	for i, name := range []string{"Ines", "Tomasz", "Aiko"} {
		id := account.Create(nimbletest.Field("first name", name))
		account.SetTimes(id, time.Time{}, noon.Add(-time.Duration(i)*40*time.Minute))
	}

	client, err := nimble.NewClient("http://nimble.example", "test-key", nimble.WithTransport(account.Transport()))
	if err != nil {
		log.Fatal(err)
	}
	recent := nimble.Between(nimble.Updated, noon.Add(-time.Hour), noon, nimble.DatetimeZ)
	for contact, err := range client.Contacts(context.Background(), nimble.ListOptions{Query: recent, Sort: "updated:asc"}) {
		if record, ok := errors.AsType[*nimble.RecordError](err); ok {
			log.Print(record) // The others go on.
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(contact.RecordType, contact.Updated.Format(time.TimeOnly))
	}
	// Output:
	// person 11:20:00
	// person 12:00:00
}

// Why a contact is not there.
func ExampleClient_ContactByID() {
	account := nimbletest.New()
	id := account.Create()
	account.Delete(id)

	client, err := nimble.NewClient("http://nimble.example", "test-key", nimble.WithTransport(account.Transport()))
	if err != nil {
		log.Fatal(err)
	}
	switch _, err := client.ContactByID(context.Background(), id); {
	case err == nil:
		fmt.Println("still there")
	case errors.Is(err, nimble.ErrNotFound):
		fmt.Println("deleted, merged or made private")
	case errors.Is(err, nimble.ErrForbidden):
		fmt.Println("made private")
	default:
		fmt.Println("nothing is known:", err)
	}
	// Output: deleted, merged or made private
}

// A long wait that Nimble asks for is left to the caller.
func ExampleRateLimitError() {
	account := nimbletest.New()
	account.Inject(1, nimbletest.Fault{Status: http.StatusTooManyRequests, RetryAfter: "600"})

	client, err := nimble.NewClient("http://nimble.example", "test-key", nimble.WithTransport(account.Transport()))
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Myself(context.Background())
	if limited, ok := errors.AsType[*nimble.RateLimitError](err); ok {
		fmt.Println("again in", limited.RetryAfter)
	}
	// Output: again in 10m0s
}

func ExampleBetween() {
	noon := time.Date(2031, 5, 4, 12, 0, 0, 0, time.UTC)
	people := nimble.And(
		nimble.RecordTypeIs("person"),
		nimble.Between(nimble.Created, noon, noon.Add(15*time.Minute), nimble.DatetimeZ),
	)
	fmt.Println(people)
	// Output: {"and":[{"record type":{"is":"person"}},{"created":{"range":{"start_datetime":"2031-05-04T12:00:00Z","end_datetime":"2031-05-04T12:15:00Z"}}}]}
}

func ExampleParseTime() {
	for _, s := range []string{"2031-05-04T10:07:41.553012", "2031-05-04T13:07:41+0300"} {
		t, err := nimble.ParseTime(s)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t)
	}
	// Output:
	// 2031-05-04 10:07:41.553012 +0000 UTC
	// 2031-05-04 10:07:41 +0000 UTC
}
