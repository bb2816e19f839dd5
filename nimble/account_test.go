package nimble_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
)

// simulate returns a client of a simulated account, in-process.
func simulate(t *testing.T, account *nimbletest.Account, opts ...nimble.Option) *nimble.Client {
	t.Helper()
	opts = append([]nimble.Option{nimble.WithTransport(account.Transport()), nimble.WithRateLimit(1e6), nimble.WithoutRetry()}, opts...)
	client, err := nimble.NewClient("http://nimble.example", "test-key", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestWholeAccount reads a simulated account in every way there is and finds the same contacts.
func TestWholeAccount(t *testing.T) {
	for name, behave := range map[string]func(*nimbletest.Behaviour){
		"as a rule":         func(*nimbletest.Behaviour) {},
		"gzip":              func(b *nimbletest.Behaviour) { b.Gzip = true },
		"missing is 404":    func(b *nimbletest.Behaviour) { b.MissingStatus = 404 },
		"offset timestamps": func(b *nimbletest.Behaviour) { b.Timestamps = nimbletest.TimestampOffset },
		"tags as texts":     func(b *nimbletest.Behaviour) { b.TagsAsStrings = true },
	} {
		t.Run(name, func(t *testing.T) {
			account := nimbletest.New(nimbletest.WithContacts(230))
			account.SetBehaviour(behave)
			client := simulate(t, account)
			gone := account.IDs()[7]
			account.Delete(gone)
			want := account.IDs()
			slices.Sort(want)

			var listed []string
			for contact, err := range client.Contacts(t.Context(), nimble.ListOptions{Sort: "updated:asc"}) {
				if err != nil {
					t.Fatal(err)
				}
				listed = append(listed, contact.ID)
				if made, ok := nimble.IDTime(contact.ID); !ok || !made.Equal(contact.Created.Truncate(time.Second)) || contact.Updated.Before(made) {
					t.Errorf("%s was created %v, updated %v", contact.ID, contact.Created, contact.Updated)
				}
			}
			slices.Sort(listed)
			if diff := cmp.Diff(want, listed); diff != "" {
				t.Errorf("listed (-want +got):\n%s", diff)
			}

			var pages []string
			for page := 1; page <= 3; page++ {
				got, err := client.ContactIDsPage(t.Context(), nimble.ListOptions{Page: page, PerPage: 100})
				if err != nil {
					t.Fatal(err)
				}
				pages = append(pages, got.IDs...)
			}
			slices.Sort(pages)
			if diff := cmp.Diff(want, pages); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}

			byID, err := client.ContactsByID(t.Context(), append(want, gone)...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ids(byID)); diff != "" {
				t.Errorf("by id (-want +got):\n%s", diff)
			}
			if _, err := client.ContactByID(t.Context(), gone); !errors.Is(err, nimble.ErrNotFound) {
				t.Errorf("deleted contact: %v", err)
			}
			if count, err := client.Count(t.Context(), nimble.Query{}); err != nil || count.Total != len(want) || count.Date.IsZero() {
				t.Errorf("Count = %+v, %v, want %d", count, err, len(want))
			}
		})
	}
}

// TestQueriesMeanTheSameToTheAccount has a simulated account, which shares no code with the client, evaluate the queries.
func TestQueriesMeanTheSameToTheAccount(t *testing.T) {
	noon := time.Date(2031, 5, 4, 12, 0, 0, 0, time.UTC)
	account := nimbletest.New(nimbletest.WithClock(func() time.Time { return noon }))
	person := account.Create()
	company := account.CreateCompany()
	old := account.Create()
	account.SetTimes(person, noon.Add(-time.Hour), noon.Add(-time.Minute))
	account.SetTimes(company, noon.Add(-2*time.Hour), noon.Add(-time.Second/2))
	account.SetTimes(old, noon.Add(-48*time.Hour), noon.Add(-24*time.Hour))
	client := simulate(t, account)

	between := func(from, to time.Duration, form nimble.DatetimeForm) nimble.Query {
		return nimble.Between(nimble.Updated, noon.Add(from), noon.Add(to), form)
	}
	tests := []struct {
		name  string
		query nimble.Query
		want  []string
	}{
		{"none", nimble.Query{}, []string{old, person, company}},
		{"Z", between(-2*time.Minute, 0, nimble.DatetimeZ), []string{person, company}},
		{"no zone", between(-2*time.Minute, 0, nimble.DatetimeBare), []string{person, company}},
		{"offset", between(-2*time.Minute, 0, nimble.DatetimeOffset), []string{person, company}},
		{"within a second, rounded outwards", between(-600*time.Millisecond, -400*time.Millisecond, nimble.DatetimeZ), []string{company}},
		{"all time", nimble.Between(nimble.Created, time.Time{}, noon.AddDate(9000, 0, 0), nimble.DatetimeZ), []string{old, person, company}},
		{"created", nimble.Between(nimble.Created, noon.Add(-90*time.Minute), noon, nimble.DatetimeZ), []string{person}},
		{"in the last", nimble.InTheLast(nimble.Updated, 2*time.Minute), []string{person, company}},
		{"ids", nimble.IDIn(company, old), []string{old, company}},
		{"record type", nimble.RecordTypeIs("company"), []string{company}},
		{"and", nimble.And(nimble.RecordTypeIs("person"), nimble.InTheLast(nimble.Updated, time.Hour)), []string{person}},
		{"or", nimble.Or(nimble.IDIn(old), nimble.RecordTypeIs("company")), []string{old, company}},
		{"not", nimble.Not(nimble.IDIn(old)), []string{person, company}},
		{"not any of two", nimble.Not(nimble.IDIn(old), nimble.RecordTypeIs("company")), []string{person}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			page, err := client.ContactsPage(t.Context(), nimble.ListOptions{Query: tt.query, Sort: "updated:asc"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, ids(page.Contacts)); diff != "" {
				t.Errorf("contacts (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFaultsOfTheAccount has the simulated account fail in all the ways it can, each once, and the client get over it.
func TestFaultsOfTheAccount(t *testing.T) {
	for name, fault := range map[string]nimbletest.Fault{
		"server fault":    {Status: 500},
		"HTML":            {HTML: true},
		"HTML, 502":       {Status: 502, HTML: true},
		"truncated":       {Truncate: true},
		"reset":           {Reset: true},
		"throttled":       {Status: 429},
		"throttled, wait": {Status: 429, RetryAfter: "30"},
		"no answer":       {Delay: time.Hour},
		"half an answer":  {BodyDelay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				account := nimbletest.New(nimbletest.WithContacts(5))
				account.Inject(1, fault)
				page, err := simulate(t, account, nimble.WithRetry(nimble.RetryPolicy{})).ContactsPage(t.Context(), nimble.ListOptions{})
				if err != nil || len(page.Contacts) != 5 {
					t.Errorf("got %+v, %v", page, err)
				}
				if n := len(account.Requests()); n != 2 {
					t.Errorf("%d requests, want 2", n)
				}
			})
		})
	}
}

func TestKeyIsRotated(t *testing.T) {
	account := nimbletest.New()
	key := "test-key"
	client := simulate(t, account, nimble.WithKeySource(func() (string, error) { return key, nil }))
	account.RotateKey("new-key")
	if _, err := client.Myself(t.Context()); err == nil {
		t.Fatal("the old key still works")
	} else if _, ok := errors.AsType[*nimble.CredentialsError](err); !ok {
		t.Fatalf("got %v, want a CredentialsError", err)
	}
	key = "new-key"
	if _, err := client.Myself(t.Context()); err != nil {
		t.Errorf("with the new key: %v", err)
	}
}
