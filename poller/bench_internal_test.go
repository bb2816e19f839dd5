package poller

import (
	"context"
	"encoding/hex"
	"fmt"
	"runtime"
	"testing"
	"time"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
)

// page returns contacts as a listing has them.
func page(b *testing.B, n int) []nimble.Contact {
	b.Helper()
	account := nimbletest.New(nimbletest.WithContacts(n))
	client, err := nimble.NewClient("http://nimble.test", "test-key", nimble.WithTransport(account.Transport()), nimble.WithRateLimit(1e6))
	if err != nil {
		b.Fatal(err)
	}
	p, err := client.ContactsPage(b.Context(), nimble.ListOptions{PerPage: n})
	if err != nil {
		b.Fatal(err)
	}
	return p.Contacts
}

// BenchmarkExamineUnchanged compares contacts with what is known of them and finds no difference, which is what a bridge does nearly all the time.
func BenchmarkExamineUnchanged(b *testing.B) {
	contacts := page(b, 100)
	p, err := New(nil, nil, Config{})
	if err != nil {
		b.Fatal(err)
	}
	p.table = newTable(time.Time{})
	for i, c := range contacts {
		f, err := FingerprintOf(c.Raw)
		if err != nil {
			b.Fatal(err)
		}
		p.table.put(Known{ID: c.ID, Fingerprint: f, Revision: 1, Sequence: uint64(i + 1), Created: c.Created, Updated: c.Updated})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, changed, err := p.examine(context.Background(), contacts[i%len(contacts)]); changed || err != nil {
			b.Fatal(changed, err)
		}
	}
}

// BenchmarkDiff compares a contact's document with the one before.
func BenchmarkDiff(b *testing.B) {
	account := nimbletest.New(nimbletest.WithContacts(1))
	id := account.IDs()[0]
	before, _ := account.Contact(id)
	account.Edit(id, nimbletest.Field("title", "Captain"))
	after, _ := account.Contact(id)
	was, is := newReader(nil), newReader(nil)
	b.ReportAllocs()
	for b.Loop() {
		x, err := was.read([]byte(before))
		if err != nil {
			b.Fatal(err)
		}
		y, err := is.read([]byte(after))
		if err != nil {
			b.Fatal(err)
		}
		if changes := diff(x, y); len(changes) != 1 {
			b.Fatal(changes)
		}
	}
}

// BenchmarkTable measures the memory that what is known of a contact takes, all in.
func BenchmarkTable(b *testing.B) {
	for _, contacts := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("contacts=%d", contacts), func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				t := newTable(time.Now())
				at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
				for i := range contacts {
					var id [12]byte
					id[3], id[9], id[10], id[11] = byte(i>>24), byte(i>>16), byte(i>>8), byte(i)
					t.put(Known{ID: hex.EncodeToString(id[:]), Fingerprint: Fingerprint{Version: 1}, Revision: 1, Sequence: uint64(i + 1), Created: at, Updated: at.Add(time.Duration(i) * time.Second)})
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(contacts), "B/contact")
				runtime.KeepAlive(t)
			}
		})
	}
}
