package nimbletest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"testing"

	"nimble-bridge/nimble/nimbletest"
)

// BenchmarkKeyedWalk reads a whole account oldest edit first, each request asking from the last seen edit on.
func BenchmarkKeyedWalk(b *testing.B) {
	for _, n := range []int{1000, 25000} {
		b.Run(fmt.Sprintf("contacts=%d", n), func(b *testing.B) {
			account := nimbletest.New(nimbletest.WithContacts(n))
			client := &http.Client{Transport: account.Transport()}
			b.ReportAllocs()
			for b.Loop() {
				from, rows, bytes := "1970-01-01T00:00:00", 0, 0
				for {
					query := `{"updated":{"range":{"start_datetime":"` + from + `","end_datetime":"9999-01-01T00:00:00"}}}`
					body := mustGet(b, client, "/api/v1/contacts?sort=updated:asc&per_page=100&query="+url.QueryEscape(query))
					bytes += len(body)
					updated := updatedTimes(body)
					rows += len(updated)
					if len(updated) < 100 {
						break
					}
					from = updated[len(updated)-1]
				}
				if rows < n {
					b.Fatalf("saw %d rows, want at least %d", rows, n)
				}
				b.SetBytes(int64(bytes))
			}
		})
	}
}

// updatedTimes picks the updated times out of a listing without parsing it: the benchmark is about the account.
func updatedTimes(body []byte) []string {
	const key = `","updated":"`
	var times []string
	for i := 0; i+len(key) < len(body); i++ {
		if body[i] == '"' && body[i+1] == ',' && string(body[i:i+len(key)]) == key {
			rest := body[i+len(key):]
			end := 0
			for rest[end] != '"' {
				end++
			}
			// A notice has such a key too, but the contact's own comes before a creator's name.
			if string(rest[end:end+len(`","creator":"`)]) == `","creator":"` {
				times = append(times, string(rest[:end]))
			}
			i += len(key)
		}
	}
	return times
}

// BenchmarkMillion measures single requests and edits in an account of a million.
func BenchmarkMillion(b *testing.B) {
	if testing.Short() {
		b.Skip("takes a while to set up")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	account := nimbletest.New(nimbletest.WithContacts(1_000_000))
	runtime.GC()
	runtime.ReadMemStats(&after)
	client := &http.Client{Transport: account.Transport()}
	ids := account.IDs()
	b.Run("count", func(b *testing.B) {
		query := `{"created":{"range":{"start_date":"2001-01-01","end_date":"2099-01-01"}}}`
		for b.Loop() {
			var list struct{ Meta struct{ Total int } }
			if err := json.Unmarshal(mustGet(b, client, "/api/v1/contacts/ids?per_page=1&query="+url.QueryEscape(query)), &list); err != nil || list.Meta.Total != len(ids) {
				b.Fatalf("total = %d, %v, want %d", list.Meta.Total, err, len(ids))
			}
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-account")
	})
	b.Run("page", func(b *testing.B) {
		for b.Loop() {
			mustGet(b, client, "/api/v1/contacts?sort=updated:asc&per_page=100&page=5000")
		}
	})
	b.Run("edit", func(b *testing.B) {
		i := 0
		for b.Loop() {
			account.Edit(ids[i*7919%len(ids)], nimbletest.Field("title", "Keeper of keys"))
			i++
		}
	})
}

func mustGet(tb testing.TB, client *http.Client, path string) []byte {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "http://nimble.test"+path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer test-key")
	resp, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		tb.Fatalf("%s: %s: %s", path, resp.Status, body)
	}
	return body
}

// BenchmarkLook looks through an account as somebody does who searches in it by hand.
func BenchmarkLook(b *testing.B) {
	const contacts = 20_000
	account := nimbletest.New(nimbletest.WithContacts(contacts))
	for _, look := range []struct {
		name   string
		filter nimbletest.Filter
	}{
		{"all", nimbletest.Filter{}},
		{"tag", nimbletest.Filter{Tag: "VIP"}},
		{"text", nimbletest.Filter{Text: "lovelace"}},
	} {
		b.Run(look.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				account.Look(look.filter, 0, 100)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/contacts, "ns/contact")
		})
	}
}
