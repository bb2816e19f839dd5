package publisher_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/embedded"
)

// document is a contact of about two kilobytes.
func document(id string) jsontext.Value {
	return jsontext.Value(`{"id":"` + id + `","object_type":"contact","record_type":"person","created":"2026-03-01T10:15:00.123456","updated":"2026-03-01T10:16:00.123456",` +
		`"fields":{"first name":[{"value":"Tomasz","modifier":"","label":"first name","is_primary":false}],"last name":[{"value":"Brandt","modifier":"","label":"last name","is_primary":false}],` +
		`"email":[{"value":"tomasz@brandt.example","modifier":"work","label":"email","is_primary":true}],"description":[{"value":"` + strings.Repeat("He likes boats. ", 80) + `","modifier":""}]},` +
		`"tags":[{"tag":"supplier","id":"6e00000000000000000000c0/supplier"}],"privacy":{"read":null,"edit":null},"is_important":null}`)
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		b.Run("changes="+strconv.Itoa(size), func(b *testing.B) {
			p := open(b, startServer(b))
			changes := make([]poller.Change, size)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				for i := range changes {
					n++
					c := changeOf(poller.Snapshot, "c"+strconv.Itoa(n), 1, 0)
					c.Contact.Raw = document(c.Contact.ID)
					changes[i] = c
				}
				if _, err := p.Append(b.Context(), changes); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}

// BenchmarkLoad reads what is known of many contacts. NIMBLE_BENCH_CONTACTS sets how many.
func BenchmarkLoad(b *testing.B) {
	contacts := 10_000
	if n, err := strconv.Atoi(os.Getenv("NIMBLE_BENCH_CONTACTS")); err == nil {
		contacts = n
	}
	b.Run(fmt.Sprintf("contacts=%d", contacts), func(b *testing.B) {
		dir := b.TempDir()
		srv, err := embedded.Start(embedded.Options{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(srv.Shutdown)
		p := open(b, srv)
		changes := make([]poller.Change, 500)
		for n := 0; n < contacts; n += len(changes) {
			for i := range changes {
				changes[i] = changeOf(poller.Snapshot, "c"+strconv.Itoa(n+i), 1, 0)
				changes[i].Contact.Raw = document(changes[i].Contact.ID)
			}
			if _, err := p.Append(b.Context(), changes); err != nil {
				b.Fatal(err)
			}
		}
		b.ResetTimer()
		for b.Loop() {
			told := 0
			if err := p.Load(b.Context(), func(poller.Known) { told++ }); err != nil {
				b.Fatal(err)
			}
			if told < contacts {
				b.Fatalf("%d contacts told, want %d", told, contacts)
			}
		}
		b.ReportMetric(float64(contacts)*float64(b.N)/b.Elapsed().Seconds(), "contacts/s")
	})
}
