package nimbletest_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble/nimbletest"
)

// ways are the two ways to an account.
func ways(t *testing.T, test func(t *testing.T, a *nimbletest.Account, c *http.Client, base string)) {
	t.Run("transport", func(t *testing.T) {
		a := nimbletest.New(nimbletest.WithContacts(200))
		test(t, a, &http.Client{Transport: a.Transport()}, "http://nimble.test")
	})
	t.Run("server", func(t *testing.T) {
		s := nimbletest.NewServer(nimbletest.WithContacts(200))
		defer s.Close()
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		test(t, s.Account, &http.Client{Transport: transport}, s.URL)
	})
}

func TestFaults(t *testing.T) {
	ways(t, func(t *testing.T, a *nimbletest.Account, c *http.Client, base string) {
		get := func() (answer, error) { return fetch(t.Context(), c, base+"/api/v1/contacts") }
		for _, tt := range []struct {
			name           string
			fault          nimbletest.Fault
			status         int
			retry, content string
		}{
			{"throttled", nimbletest.Fault{Status: 429, RetryAfter: "7"}, 429, "7", `{"message":"Too Many Requests"}`},
			{"failing", nimbletest.Fault{Status: 500}, 500, "", `{"message":"Internal Server Error","code":107}`},
			{"web page", nimbletest.Fault{HTML: true}, 200, "", "<html>"},
			{"failing proxy", nimbletest.Fault{Status: 502, HTML: true}, 502, "", "<h1>502 Bad Gateway</h1>"},
			{"own body", nimbletest.Fault{Body: `{"meta":`}, 200, "", `{"meta":`},
			{"slow", nimbletest.Fault{Delay: time.Millisecond, BodyDelay: time.Millisecond}, 200, "", `"total":200`},
		} {
			t.Run(tt.name, func(t *testing.T) {
				a.Inject(1, tt.fault)
				got, err := get()
				if err != nil {
					t.Fatal(err)
				}
				if got.StatusCode != tt.status || got.Header.Get("Retry-After") != tt.retry || !strings.Contains(got.Body, tt.content) {
					t.Errorf("%d, Retry-After %q, body %.200s", got.StatusCode, got.Header.Get("Retry-After"), got.Body)
				}
				if got, err := get(); err != nil || got.StatusCode != 200 || !strings.Contains(got.Body, `"total":200`) {
					t.Errorf("after the fault: %d, %.200s, %v", got.StatusCode, got.Body, err)
				}
			})
		}
		t.Run("truncated", func(t *testing.T) {
			a.Inject(1, nimbletest.Fault{Truncate: true})
			got, err := get()
			if !errors.Is(err, io.ErrUnexpectedEOF) || int64(len(got.Body)) >= got.ContentLength || got.Body == "" {
				t.Errorf("%d of %d bytes, %v, want half and an unexpected end", len(got.Body), got.ContentLength, err)
			}
		})
		t.Run("reset", func(t *testing.T) {
			// A connection fresh from the pool would be tried again by the network's transport.
			c.CloseIdleConnections()
			a.Inject(1, nimbletest.Fault{Reset: true})
			a.ResetRequests()
			if got, err := get(); err == nil {
				t.Errorf("status = %d, want an error", got.StatusCode)
			}
			if got := a.Requests(); len(got) != 1 || got[0].Status != 0 {
				t.Errorf("requests = %+v", got)
			}
		})
		t.Run("time limit before the answer", func(t *testing.T) {
			a.Inject(1, nimbletest.Fault{Delay: time.Hour})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, err := fetch(ctx, c, base+"/api/v1/contacts"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error = %v, want the deadline", err)
			}
		})
		t.Run("time limit within the body", func(t *testing.T) {
			var got answer
			var err error
			// A slow machine may need a longer limit to get as far as the body.
			for limit := 50 * time.Millisecond; got.Body == "" && limit < time.Minute; limit *= 3 {
				a.ClearFaults()
				a.Inject(1, nimbletest.Fault{BodyDelay: time.Hour})
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				got, err = fetch(ctx, c, base+"/api/v1/contacts")
				cancel()
			}
			if got.StatusCode != 200 || got.Body == "" || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%d with %d bytes, error = %v, want half a body and the deadline", got.StatusCode, len(got.Body), err)
			}
		})
	})
}

func TestFaultsTakeTurnsAndKnowTheirEndpoint(t *testing.T) {
	a := nimbletest.New()
	c := call(t, a)
	a.Inject(2, nimbletest.Fault{Status: 503, Endpoint: nimbletest.EndpointIDs})
	a.Inject(1, nimbletest.Fault{Status: 500})
	a.Inject(-1, nimbletest.Fault{Status: 429, Endpoint: nimbletest.EndpointMyself})
	var got []int
	for _, path := range []string{"contacts", "contacts", "contacts/ids", "contacts/ids", "contacts/ids", "myself", "myself", "contact/x"} {
		got = append(got, c.status(path))
	}
	want := []int{500, 200, 503, 503, 200, 429, 429, 200}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("statuses = %v, want %v", got, want)
		}
	}
	a.ClearFaults()
	if got := c.status("myself"); got != 200 {
		t.Errorf("status = %d after clearing the faults", got)
	}
}

func TestTransportInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := nimbletest.New(nimbletest.WithContacts(100))
		start := time.Now()
		a.Inject(1, nimbletest.Fault{Delay: time.Hour, BodyDelay: time.Minute})
		c := &http.Client{Transport: a.Transport(), Timeout: 2 * time.Hour}
		if _, err := fetch(t.Context(), c, "http://nimble.test/api/v1/contacts"); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(start), time.Hour+time.Minute; got != want {
			t.Errorf("took %v of the bubble's time, want %v", got, want)
		}
		c.Timeout = time.Hour + 30*time.Second
		a.Inject(1, nimbletest.Fault{Delay: time.Hour, BodyDelay: time.Minute})
		start = time.Now()
		if _, err := fetch(t.Context(), c, "http://nimble.test/api/v1/contacts"); err == nil || time.Since(start) != c.Timeout {
			t.Errorf("error = %v after %v, want a timeout within the body", err, time.Since(start))
		}
	})
}

func TestTransportEndsWithTheContext(t *testing.T) {
	a := nimbletest.New()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fetch(ctx, &http.Client{Transport: a.Transport()}, "http://nimble.test/api/v1/myself"); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want canceled", err)
	}
	if got := len(a.Requests()); got != 0 {
		t.Errorf("%d requests reached the account", got)
	}
}

func TestTransportReset(t *testing.T) {
	a := nimbletest.New()
	a.Inject(1, nimbletest.Fault{Reset: true})
	if _, err := fetch(t.Context(), &http.Client{Transport: a.Transport()}, "http://nimble.test/api/v1/myself"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error = %v, want a reset connection", err)
	}
}

func TestNoDateHoldsOverAnyWay(t *testing.T) {
	ways(t, func(t *testing.T, a *nimbletest.Account, c *http.Client, base string) {
		a.SetBehaviour(func(b *nimbletest.Behaviour) { b.NoDate = true })
		got, err := fetch(t.Context(), c, base+"/api/v1/myself")
		if err != nil || len(got.Header.Values("Date")) != 0 {
			t.Errorf("Date = %q, %v, want none", got.Header.Values("Date"), err)
		}
	})
}

func TestCompression(t *testing.T) {
	ways(t, func(t *testing.T, a *nimbletest.Account, c *http.Client, base string) {
		target := base + "/api/v1/contacts?per_page=100"
		plain, err := fetch(t.Context(), c, target)
		if err != nil {
			t.Fatal(err)
		}
		a.SetBehaviour(func(b *nimbletest.Behaviour) { b.Gzip = true })
		got, err := fetch(t.Context(), c, target)
		if err != nil || got.Body != plain.Body || !got.Uncompressed {
			t.Errorf("uncompressed by the transport: %v, %v, same body: %v", got.Uncompressed, err, got.Body == plain.Body)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer test-key")
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || string(got) != plain.Body || resp.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("compressed on request: %v, same body: %v", err, string(got) == plain.Body)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(300))
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = time.Microsecond })
	ids := a.IDs()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			c := call(t, a)
			for i := range 40 {
				id := ids[(i*7+worker)%len(ids)]
				a.Edit(id, nimbletest.Field("title", "Busy"))
				a.RenameUser("Henrik Vale", "Henrik Gale")
				a.CountDown()
				a.Delete(ids[i])
				a.Restore(ids[i])
				a.Import(3)
				for _, path := range []string{"contacts?sort=updated:desc", "contacts/ids?per_page=100", "contact/" + id} {
					if _, err := c.try(path); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got, want := a.Len(), 300+4*40*3; got != want {
		t.Errorf("Len = %d, want %d", got, want)
	}
}
