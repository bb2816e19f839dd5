package poller_test

import (
	"fmt"
	"testing"
	"time"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
)

// BenchmarkReconcile measures what it costs to find deletions, in requests: the table in the package documentation. Run it with
//
//	go test ./poller -run '^$' -bench Reconcile -benchtime 1x
func BenchmarkReconcile(b *testing.B) {
	for _, contacts := range []int{1000, 20_000, 100_000} {
		for _, deleted := range []int{0, 1, 3, 10, 100} {
			b.Run(fmt.Sprintf("contacts=%d/deleted=%d", contacts, deleted), func(b *testing.B) {
				requests := 0
				for b.Loop() {
					b.StopTimer()
					account := nimbletest.New(nimbletest.WithContacts(contacts))
					ledger := newMemory()
					p, err := poller.New(newClient(b, account), ledger, poller.Config{ConfirmAfter: time.Microsecond, DeleteLimit: &poller.DeleteLimit{Count: 1000}})
					if err != nil {
						b.Fatal(err)
					}
					if err := p.Poll(b.Context()); err != nil {
						b.Fatal(err)
					}
					ids := account.IDs()
					for i := range deleted {
						account.Delete(ids[(i*7919+13)%contacts])
					}
					b.StartTimer()
					result, err := p.Reconcile(b.Context())
					b.StopTimer()
					if err != nil || result.Published[poller.Deleted] != deleted || !result.Agreed {
						b.Fatalf("%+v, %v: want %d deletions and agreement", result, err, deleted)
					}
					requests = result.Requests
					b.StartTimer()
				}
				b.ReportMetric(float64(requests), "requests")
				b.ReportMetric(float64(contacts)/100, "pages")
			})
		}
	}
}
