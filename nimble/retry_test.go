package nimble_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble"
)

// recorder answers from a list, the last one for ever, and notes when.
type recorder struct {
	start   time.Time
	answers []roundTrip
	at      []time.Duration
}

func record(answers ...roundTrip) *recorder { return &recorder{start: time.Now(), answers: answers} }

func (r *recorder) roundTrip(req *http.Request) (*http.Response, error) {
	next := r.answers[min(len(r.at), len(r.answers)-1)]
	r.at = append(r.at, time.Since(r.start))
	return next(req)
}

// gap is the wait before the n-th request, counted from 0.
func (r *recorder) gap(n int) time.Duration { return r.at[n] - r.at[n-1] }

func reset(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection reset by peer")
}

func TestRetryUntilItSucceeds(t *testing.T) {
	for name, failure := range map[string]roundTrip{
		"500":             always(500, `{"message":"oops","code":107}`),
		"502 in HTML":     always(502, "<html>Bad gateway</html>"),
		"503":             always(503, ""),
		"504":             always(504, ""),
		"408":             always(408, ""),
		"429":             always(429, ""),
		"connection":      reset,
		"HTML under 200":  always(200, "<html>Maintenance</html>"),
		"half an answer":  always(200, `{"meta":{`),
		"an empty answer": always(200, ""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec := record(failure, failure, failure, always(200, listing(1, 1, 100, 1, document(1))))
				client := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{Initial: time.Second}))
				page, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
				if err != nil || len(page.Contacts) != 1 || len(rec.at) != 4 {
					t.Fatalf("got %+v, %v after %d requests", page, err, len(rec.at))
				}
				// Half more each time, give or take a half.
				for n, want := range []time.Duration{time.Second, 1500 * time.Millisecond, 2250 * time.Millisecond} {
					if got := rec.gap(n + 1); got < want/2 || got > want*3/2 {
						t.Errorf("wait %d is %v, want %v ± 50 %%", n+1, got, want)
					}
				}
			})
		})
	}
}

func TestNoRetryOfRefusals(t *testing.T) {
	for name, failure := range map[string]roundTrip{
		"401": always(401, `{"error":"invalid_token"}`),
		"402": always(402, `{}`),
		"403": always(403, `{"message":"Can't authenticate request"}`),
		"404": always(404, `{}`),
		"409": always(409, `{"message":"bad"}`),
		"418": always(418, ``),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec := record(failure)
				client := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{}))
				if _, err := client.ContactsPage(t.Context(), nimble.ListOptions{}); err == nil || nimble.Retryable(err) || len(rec.at) != 1 {
					t.Errorf("got %v after %d requests", err, len(rec.at))
				}
			})
		})
	}
}

func TestWaitsDifferFromClientToClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := map[time.Duration]bool{}
		for range 10 {
			rec := record(always(500, ""), always(200, emptyPage))
			if _, err := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{})).ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
				t.Fatal(err)
			}
			waits[rec.gap(1)] = true
		}
		if len(waits) < 5 {
			t.Errorf("10 clients share %d different waits", len(waits))
		}
	})
}

func TestRetryGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := record(always(503, `{"message":"later"}`))
		client := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{Initial: time.Second, Max: 4 * time.Second, MaxElapsed: time.Minute}))
		_, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
		if fault, ok := errors.AsType[*nimble.ServerError](err); !ok || fault.Status != 503 || fault.Message != "later" {
			t.Errorf("got %v", err)
		}
		if last := rec.at[len(rec.at)-1]; last > time.Minute || last < 54*time.Second {
			t.Errorf("the last attempt was after %v, want within a minute but not long before", last)
		}
		for n := 1; n < len(rec.at); n++ {
			if got := rec.gap(n); got > 6*time.Second {
				t.Errorf("wait %d is %v, want at most 4s and a half of that", n, got)
			}
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		header []string
		want   time.Duration
	}{
		"429, seconds":                      {429, []string{"Retry-After", "45"}, 45 * time.Second},
		"503, seconds":                      {503, []string{"Retry-After", " 45 "}, 45 * time.Second},
		"a date on this clock":              {429, []string{"Retry-After", "Sat, 01 Jan 2000 00:00:45 GMT"}, 45 * time.Second},
		"a date on the server's slow clock": {429, []string{"Retry-After", "Fri, 31 Dec 1999 00:00:45 GMT", "Date", "Fri, 31 Dec 1999 00:00:00 GMT"}, 45 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // A bubble's clock starts with the year 2000.
				rec := record(always(tt.status, "", tt.header...), always(200, emptyPage))
				if _, err := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{})).ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
					t.Fatal(err)
				}
				if got := rec.gap(1); got != tt.want {
					t.Errorf("waited %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestShortRetryAfterDoesNotHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := record(always(429, "", "Retry-After", "0"), always(200, emptyPage))
		if _, err := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{Initial: 4 * time.Second})).ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := rec.gap(1); got < 2*time.Second {
			t.Errorf("waited %v", got)
		}
	})
}

func TestLongRetryAfterIsLeftToTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := record(always(429, "", "Retry-After", "600"))
		_, err := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{})).ContactsPage(t.Context(), nimble.ListOptions{})
		limited, ok := errors.AsType[*nimble.RateLimitError](err)
		if !ok || limited.RetryAfter != 10*time.Minute {
			t.Fatalf("got %v", err)
		}
		if want := "contacts page 1: GET https://nimble.example/api/v1/contacts: 429 Too Many Requests, retry after 10m0s"; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
		if got := time.Since(rec.start); got != 0 || len(rec.at) != 1 {
			t.Errorf("%d requests within %v, want one and no wait", len(rec.at), got)
		}
	})
}

func TestContextEndsWaitForRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := record(always(503, "", "Retry-After", "60"))
		errShutdown := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(errShutdown) })
		_, err := newClient(t, rec.roundTrip, nimble.WithRetry(nimble.RetryPolicy{})).ContactsPage(ctx, nimble.ListOptions{})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errShutdown) || nimble.Retryable(err) {
			t.Errorf("got %v, retryable %v", err, nimble.Retryable(err))
		}
		if got := time.Since(rec.start); got != 5*time.Second {
			t.Errorf("returned after %v, want 5s", got)
		}
	})
}

func TestRetriesKeepToRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := record(always(500, ""), always(500, ""), always(200, emptyPage))
		client := newClient(t, rec.roundTrip, nimble.WithRateLimit(0.1), nimble.WithRetry(nimble.RetryPolicy{Initial: time.Millisecond}))
		if _, err := client.ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if rec.gap(1).Round(time.Microsecond) != 10*time.Second || rec.gap(2).Round(time.Microsecond) != 10*time.Second {
			t.Errorf("requests at %v, want 10s apart", rec.at)
		}
	})
}

func TestRetryableOfWrappedErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.Join(errors.New("cycle 7"), &nimble.RateLimitError{Status: 429}), true},
		{errors.New("anything"), false},
		{context.Canceled, false},
		{nimble.ErrNotFound, false},
		{fmt.Errorf("page 3: %w", &nimble.ServerError{Status: 500}), true},
		{fmt.Errorf("page 3: %w", &nimble.CredentialsError{Status: 401}), false},
		{&nimble.RecordError{}, false},
	} {
		if got := nimble.Retryable(tt.err); got != tt.want {
			t.Errorf("Retryable(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestRetryAfterOfErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want time.Duration
	}{
		{nil, 0},
		{errors.New("anything"), 0},
		{fmt.Errorf("page 3: %w", &nimble.RateLimitError{RetryAfter: time.Minute}), time.Minute},
		{fmt.Errorf("page 3: %w", &nimble.ServerError{RetryAfter: time.Second}), time.Second},
	} {
		if got := nimble.RetryAfter(tt.err); got != tt.want {
			t.Errorf("RetryAfter(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2031, 5, 4, 10, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"soon", "", 0},
		{"-5", "", 0},
		{"1.5", "", 0},
		{"120", "", 2 * time.Minute},
		{"86400", "", time.Hour},
		{"99999999999999999999999", "", time.Hour},
		{"18446744073709551615", "", time.Hour},
		{"Sun, 04 May 2031 10:00:30 GMT", "", 30 * time.Second},
		{"Sunday, 04-May-31 10:00:30 GMT", "", 30 * time.Second},
		{"Sun, 04 May 2031 09:00:00 GMT", "", 0},
		{"Fri, 31 Dec 9999 23:59:59 GMT", "", time.Hour},
		{"Sun, 04 May 2031 09:00:30 GMT", "Sun, 04 May 2031 09:00:00 GMT", 30 * time.Second},
	} {
		header := http.Header{"Retry-After": {tt.value}, "Date": {tt.date}}
		if got := nimble.ParseRetryAfter(header, now); got != tt.want {
			t.Errorf("Retry-After %q, Date %q: %v, want %v", tt.value, tt.date, got, tt.want)
		}
	}
}

// FuzzRetryAfter: the wait is never negative and never beyond the cap.
func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Sun, 04 May 2031 10:00:30 GMT", "Sun, 04 May 2031 10:00:00 GMT")
	f.Add("Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 01 Jan 0000 00:00:00 GMT")
	f.Add("-1", "x")
	f.Fuzz(func(t *testing.T, value, date string) {
		header := http.Header{"Retry-After": {value}, "Date": {date}}
		if got := nimble.ParseRetryAfter(header, time.Date(2031, 5, 4, 10, 0, 0, 0, time.UTC)); got < 0 || got > nimble.MaxRetryAfter {
			t.Fatalf("Retry-After %q, Date %q: %v", value, date, got)
		}
	})
}
