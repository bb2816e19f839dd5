package nimble_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"nimble-bridge/nimble"

	"github.com/google/go-cmp/cmp"
)

// emptyPage is a listing without contacts.
var emptyPage = listing(1, 0, 100, 0)

// serve starts a server on the loopback interface.
func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return srv
}

// dial returns a client that speaks to a server over real connections.
func dial(t *testing.T, baseURL string, opts ...nimble.Option) *nimble.Client {
	t.Helper()
	opts = append([]nimble.Option{nimble.WithRateLimit(1e6), nimble.WithoutRetry()}, opts...)
	client, err := nimble.NewClient(baseURL, testKey, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func TestNewClientRefuses(t *testing.T) {
	const good = "https://app.nimble.com"
	tests := []struct {
		name, baseURL, key string
		opt                nimble.Option
		want               string
	}{
		{"no URL", "", "k", nil, `base URL: "" does not begin with https:// or http://`},
		{"no scheme", "app.nimble.com", "k", nil, `base URL: "app.nimble.com" does not begin with https:// or http://`},
		{"another scheme", "ftp://app.nimble.com", "k", nil, `base URL: "ftp://app.nimble.com" does not begin with https:// or http://`},
		{"no host", "https:///api", "k", nil, `base URL: "https:///api" has no host`},
		{"a password", "https://me:secret@app.nimble.com", "k", nil, `base URL: "https://me:xxxxx@app.nimble.com" has a user or password; the API key is the only credential`},
		{"a password in a broken URL", "https://me:secret@app.nimble.com:port", "k", nil, `base URL: invalid port ":port" after host`},
		{"a query", "https://app.nimble.com?x=1", "k", nil, `base URL: "https://app.nimble.com?x=1" has a query or fragment`},
		{"no key", good, "", nil, "the API key is empty"},
		{"a line feed in the key", good, "secret\n", nil, "the API key contains white space or control characters"},
		{"a space in the key", good, "Bearer secret", nil, "the API key contains white space or control characters"},
		{"no requests at all", good, "k", nimble.WithRateLimit(0), "rate limit 0: must be more than 0 requests a second"},
		{"no number of requests", good, "k", nimble.WithRateLimit(math.NaN()), "rate limit NaN: must be more than 0 requests a second"},
		{"no time", good, "k", nimble.WithTimeout(0), "timeout 0s: must be positive"},
		{"no body", good, "k", nimble.WithMaxBody(-1), "body limit -1: must be positive"},
		{"no transport", good, "k", nimble.WithTransport(nil), "transport is nil"},
		{"no key source", good, "", nimble.WithKeySource(nil), "key source is nil"},
		{"a line feed in the user agent", good, "k", nimble.WithUserAgent("a\nb"), `user agent "a\nb": must be printable text`},
		{"a negative wait", good, "k", nimble.WithRetry(nimble.RetryPolicy{Initial: -1}), "retry policy {Initial:-1ns Max:0s MaxElapsed:0s}: no duration may be negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := []nimble.Option{}
			if tt.opt != nil {
				opts = append(opts, tt.opt)
			}
			_, err := nimble.NewClient(tt.baseURL, tt.key, opts...)
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBaseURLMayHaveAPath(t *testing.T) {
	for base, want := range map[string]string{
		"https://nimble.example":             "https://nimble.example/api/v1/myself",
		"https://nimble.example/":            "https://nimble.example/api/v1/myself",
		"https://nimble.example/api/v1/":     "https://nimble.example/api/v1/myself",
		"http://LOCALHOST:8090/proxy/nimble": "http://localhost:8090/proxy/nimble/api/v1/myself",
	} {
		var got string
		client, err := nimble.NewClient(base, testKey, nimble.WithTransport(roundTrip(func(req *http.Request) (*http.Response, error) {
			got = req.URL.String()
			return answer(req, 200, `{"user_id":"u","company_id":"c"}`), nil
		})))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Myself(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("with base %s the request goes to %s, want %s", base, got, want)
		}
	}
}

func TestRequestCarriesKeyInHeaderOnly(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Header.Get("Authorization"), "Bearer "+testKey; got != want {
			t.Errorf("Authorization: %q, want %q", got, want)
		}
		if strings.Contains(r.URL.String(), testKey) {
			t.Errorf("the key is in the URL: %s", r.URL)
		}
		if r.Method != http.MethodGet || r.URL.Path != "/api/v1/contacts" {
			t.Errorf("request is %s %s", r.Method, r.URL.Path)
		}
		if got := r.Header.Get("User-Agent"); got != "the-test/1" {
			t.Errorf("User-Agent: %q", got)
		}
		_, _ = io.WriteString(w, emptyPage)
	})
	if _, err := dial(t, srv.URL, nimble.WithUserAgent("the-test/1")).ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestKeySourceIsAskedForEachRequest(t *testing.T) {
	keys := []string{"first", "second"}
	var got []string
	client := newClient(t, func(req *http.Request) (*http.Response, error) {
		got = append(got, req.Header.Get("Authorization"))
		return answer(req, 200, emptyPage), nil
	}, nimble.WithKeySource(func() (string, error) {
		if len(keys) == 0 {
			return "", errors.New("file is gone")
		}
		key := keys[0]
		keys = keys[1:]
		return key, nil
	}))
	for range 2 {
		if _, err := client.ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"Bearer first", "Bearer second"}, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}

	_, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
	refused, ok := errors.AsType[*nimble.CredentialsError](err)
	if !ok || refused.Status != 0 || len(got) != 2 {
		t.Fatalf("without a key: %v after %d requests, want a CredentialsError without a request", err, len(got))
	}
	if want := "contacts page 1: GET https://nimble.example/api/v1/contacts: no API key: file is gone"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestRedirectKeepsKeyWithinOrigin(t *testing.T) {
	elsewhere := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was requested, with Authorization %q", r.URL, r.Header.Get("Authorization"))
	})
	elsewhereURL, err := url.Parse(elsewhere.URL)
	if err != nil {
		t.Fatal(err)
	}
	// Another port, another name of the same host, a subdomain: net/http would carry the key to the last.
	targets := map[string]string{
		"another port":     elsewhere.URL + "/api/v1/myself",
		"another name":     "http://localhost:" + elsewhereURL.Port() + "/api/v1/myself",
		"another scheme":   "https://127.0.0.1/",
		"no scheme":        "//" + elsewhereURL.Host + "/",
		"not even a place": "http:///x",
	}
	for name, target := range targets {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", target)
				w.WriteHeader(http.StatusFound)
			})
			_, err := dial(t, srv.URL).Myself(t.Context())
			if err == nil {
				t.Fatal("the redirect was followed")
			}
			if nimble.Retryable(err) && name != "not even a place" {
				t.Errorf("retryable: %v", err)
			}
		})
	}

	t.Run("same origin", func(t *testing.T) {
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/v1/myself" {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			if got, want := r.Header.Get("Authorization"), "Bearer "+testKey; got != want {
				t.Errorf("Authorization: %q, want %q", got, want)
			}
			_, _ = io.WriteString(w, `{"user_id":"u","company_id":"c"}`)
		})
		if _, err := dial(t, srv.URL).Myself(t.Context()); err != nil {
			t.Error(err)
		}
	})

	t.Run("from https to http", func(t *testing.T) {
		var requests []string
		client := newClient(t, func(req *http.Request) (*http.Response, error) {
			requests = append(requests, req.URL.Scheme+" "+req.URL.Host)
			return answer(req, 301, "", "Location", "http://nimble.example/api/v1/myself?token=hush"), nil
		})
		_, err := client.Myself(t.Context())
		if diff := cmp.Diff([]string{"https nimble.example"}, requests); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		const want = "myself: GET https://nimble.example/api/v1/myself: 301 Moved Permanently: " +
			"redirect to http://nimble.example, which is not followed because the API key goes to the configured origin only"
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})

	t.Run("for ever", func(t *testing.T) {
		requests := 0
		client := newClient(t, func(req *http.Request) (*http.Response, error) {
			requests++
			return answer(req, 302, "", "Location", "/api/v1/myself"), nil
		})
		_, err := client.Myself(t.Context())
		if status, ok := errors.AsType[*nimble.StatusError](err); !ok || status.Status != 302 || requests > 10 {
			t.Errorf("%v after %d requests, want a StatusError after a few", err, requests)
		}
	})
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGzip(t *testing.T) {
	body := listing(1, 1, 100, 1, document(1))
	zipped := gzipped(t, body)
	check := func(t *testing.T, client *nimble.Client) {
		t.Helper()
		for range 3 { // Decompressors are used again.
			page, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Contacts) != 1 || string(page.Contacts[0].Raw) != document(1) {
				t.Errorf("got %+v", page)
			}
		}
	}
	t.Run("over a connection", func(t *testing.T) {
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "gzip" {
				t.Errorf("Accept-Encoding: %q", got)
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, zipped)
		})
		check(t, dial(t, srv.URL))
	})
	t.Run("in-process", func(t *testing.T) { check(t, newClient(t, always(200, zipped, "Content-Encoding", " GZIP"))) })
	t.Run("in-process, unpacked already", func(t *testing.T) {
		check(t, newClient(t, func(req *http.Request) (*http.Response, error) {
			resp := answer(req, 200, body, "Content-Encoding", "gzip")
			resp.Uncompressed = true
			return resp, nil
		}))
	})
	t.Run("an error", func(t *testing.T) {
		client := newClient(t, always(409, gzipped(t, `{"message":"no such order"}`), "Content-Encoding", "gzip"))
		_, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
		if refused, ok := errors.AsType[*nimble.ValidationError](err); !ok || refused.Message != "no such order" {
			t.Errorf("got %v", err)
		}
	})
	for name, damaged := range map[string]string{
		"not gzip":     body,
		"flipped bits": zipped[:40] + "????????" + zipped[48:],
		"wrong sum":    zipped[:len(zipped)-8] + "\x00\x00\x00\x00" + zipped[len(zipped)-4:],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(t, always(200, damaged, "Content-Encoding", "gzip")).ContactsPage(t.Context(), nimble.ListOptions{})
			if damaged, ok := errors.AsType[*nimble.NotJSONError](err); !ok || damaged.Reason != "damaged gzip data" {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, short := range map[string]string{"cut short": zipped[:len(zipped)/2], "no checksum": zipped[:len(zipped)-4], "empty": ""} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(t, always(200, short, "Content-Encoding", "gzip")).ContactsPage(t.Context(), nimble.ListOptions{})
			if _, ok := errors.AsType[*nimble.TruncatedError](err); !ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestBodyLimitCountsUnpackedBytes(t *testing.T) {
	body := listing(1, 1, 100, 1, document(1))
	for name, rt := range map[string]roundTrip{
		"plain": always(200, body),
		"gzip":  always(200, gzipped(t, body), "Content-Encoding", "gzip"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newClient(t, rt, nimble.WithMaxBody(int64(len(body)))).ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
				t.Errorf("a body of just the limit: %v", err)
			}
			_, err := newClient(t, rt, nimble.WithMaxBody(int64(len(body)-1))).ContactsPage(t.Context(), nimble.ListOptions{})
			large, ok := errors.AsType[*nimble.TooLargeError](err)
			if !ok || large.Limit != int64(len(body)-1) {
				t.Fatalf("a body over the limit: %v", err)
			}
			if nimble.Retryable(err) {
				t.Error("asking again for a body that is too long is worth nothing")
			}
		})
	}
}

func TestEndlessBodyIsNotReadToTheEnd(t *testing.T) {
	endless := roundTrip(func(req *http.Request) (*http.Response, error) {
		resp := answer(req, 200, "")
		resp.Body, resp.ContentLength = io.NopCloser(endlessReader{}), -1
		return resp, nil
	})
	_, err := newClient(t, endless, nimble.WithMaxBody(1<<20)).ContactsPage(t.Context(), nimble.ListOptions{})
	if _, ok := errors.AsType[*nimble.TooLargeError](err); !ok {
		t.Errorf("got %v", err)
	}
	failing := roundTrip(func(req *http.Request) (*http.Response, error) {
		resp, err := endless(req)
		resp.StatusCode = 500
		return resp, err
	})
	_, err = newClient(t, failing).ContactsPage(t.Context(), nimble.ListOptions{})
	if _, ok := errors.AsType[*nimble.ServerError](err); !ok {
		t.Errorf("an endless error: got %v", err)
	}
}

type endlessReader struct{}

func (endlessReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestTruncatedBody(t *testing.T) {
	body := listing(1, 1, 100, 2, document(1), document(2))
	half := body[:len(body)/2]
	tests := map[string]func(w http.ResponseWriter){
		"shorter than announced": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = io.WriteString(w, half)
		},
		"connection cut in a chunk": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, half)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"the end of a JSON text missing": func(w http.ResponseWriter) { _, _ = io.WriteString(w, half) },
		"nothing at all":                 func(http.ResponseWriter) {},
	}
	for name, write := range tests {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, _ *http.Request) { write(w) })
			_, err := dial(t, srv.URL).ContactsPage(t.Context(), nimble.ListOptions{})
			truncated, ok := errors.AsType[*nimble.TruncatedError](err)
			if !ok {
				t.Fatalf("got %v, want a TruncatedError", err)
			}
			if name != "nothing at all" && truncated.Read != int64(len(half)) {
				t.Errorf("%d bytes read, want %d", truncated.Read, len(half))
			}
		})
	}
	t.Run("shorter than announced, in-process", func(t *testing.T) {
		client := newClient(t, func(req *http.Request) (*http.Response, error) {
			// What there is, is complete as JSON.
			resp := answer(req, 200, emptyPage)
			resp.ContentLength += 10
			return resp, nil
		})
		_, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
		if _, ok := errors.AsType[*nimble.TruncatedError](err); !ok {
			t.Errorf("got %v, want a TruncatedError", err)
		}
	})
}

func TestTransportErrors(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		srv.Close()
		_, err := dial(t, srv.URL).Myself(t.Context())
		transport, ok := errors.AsType[*nimble.TransportError](err)
		if !ok || transport.Timeout || !errors.Is(err, syscall.ECONNREFUSED) || !nimble.Retryable(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("connection reset", func(t *testing.T) {
		srv := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		_, err := dial(t, srv.URL).Myself(t.Context())
		if _, ok := errors.AsType[*nimble.TransportError](err); !ok || !nimble.Retryable(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a certificate that nobody vouches for", func(t *testing.T) {
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS()
		t.Cleanup(srv.Close)
		_, err := dial(t, srv.URL).Myself(t.Context())
		_, ok := errors.AsType[*nimble.TransportError](err)
		if _, cert := errors.AsType[*tls.CertificateVerificationError](err); !ok || !cert || nimble.Retryable(err) {
			t.Errorf("got %v, retryable %v", err, nimble.Retryable(err))
		}
	})
	t.Run("a timeout of the network's own", func(t *testing.T) {
		// As net.Dialer reports one.
		_, err := newClient(t, func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
		}).Myself(t.Context())
		transport, ok := errors.AsType[*nimble.TransportError](err)
		if !ok || !transport.Timeout || !nimble.Retryable(err) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the key in the error of a transport", func(t *testing.T) {
		_, err := newClient(t, func(req *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("proxy refuses %q", req.Header.Get("Authorization"))
		}).Myself(t.Context())
		if want := `myself: GET https://nimble.example/api/v1/myself: proxy refuses "Bearer [API key]"`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// hang answers nothing until the request's context ends.
func hang(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// hangingBody sends half a listing and then nothing.
func hangingBody(req *http.Request) (*http.Response, error) {
	resp := answer(req, 200, "")
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"meta":{`), readerFunc(func([]byte) (int, error) {
		<-req.Context().Done()
		return 0, req.Context().Err()
	})))
	resp.ContentLength = -1
	return resp, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestTimeoutCoversTheBody(t *testing.T) {
	for name, rt := range map[string]roundTrip{"no answer": hang, "half an answer": hangingBody} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := newClient(t, rt, nimble.WithTimeout(7*time.Second))
				start := time.Now()
				_, err := client.ContactsPage(t.Context(), nimble.ListOptions{})
				if got := time.Since(start); got != 7*time.Second {
					t.Errorf("took %v, want 7s", got)
				}
				transport, ok := errors.AsType[*nimble.TransportError](err)
				if !ok || !transport.Timeout || !nimble.Retryable(err) {
					t.Errorf("got %v, want a timeout worth a retry", err)
				}
				if errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v passes for the end of the caller's own context", err)
				}
			})
		})
	}
}

func TestCallersContextEndsRequest(t *testing.T) {
	errShutdown := errors.New("shutting down")
	for name, rt := range map[string]roundTrip{"no answer": hang, "half an answer": hangingBody} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(3*time.Second, func() { cancel(errShutdown) })
				_, err := newClient(t, rt, nimble.WithRetry(nimble.RetryPolicy{})).ContactsPage(ctx, nimble.ListOptions{})
				if !errors.Is(err, context.Canceled) || !errors.Is(err, errShutdown) || nimble.Retryable(err) {
					t.Errorf("got %v, retryable %v", err, nimble.Retryable(err))
				}
				if _, ok := errors.AsType[*nimble.TransportError](err); ok {
					t.Errorf("%v passes for a failure of the network", err)
				}
			})
		})
	}
}

func TestRateLimitSpacesRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		client := newClient(t, func(req *http.Request) (*http.Response, error) {
			at = append(at, time.Since(start))
			return answer(req, 200, emptyPage), nil
		}, nimble.WithRateLimit(5))
		for range 4 {
			if _, err := client.ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		want := []time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond, 600 * time.Millisecond}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("requests at (-want +got):\n%s", diff)
		}

		// A wait that would outlast the context is not begun.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := client.ContactsPage(ctx, nimble.ListOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if len(at) != 4 {
			t.Errorf("%d requests, want 4", len(at))
		}
	})
}

func TestRateLimitOfThousands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, always(200, emptyPage), nimble.WithRateLimit(2000))
		start := time.Now()
		for range 4000 {
			if _, err := client.ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got < 1980*time.Millisecond || got > 2*time.Second {
			t.Errorf("4000 requests at 2000 a second took %v", got)
		}
	})
}

func TestNoRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, always(200, emptyPage), nimble.WithRateLimit(math.Inf(1)))
		start := time.Now()
		for range 1000 {
			if _, err := client.ContactsPage(t.Context(), nimble.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("1000 requests without a limit took %v", got)
		}
	})
}

func TestObserverSeesEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []roundTrip{always(502, ""), hang, always(200, `{"user_id":"u"}`)}
		var seen []nimble.RequestInfo
		client := newClient(t, func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			next := answers[0]
			answers = answers[1:]
			return next(req)
		}, nimble.WithObserver(func(info nimble.RequestInfo) { seen = append(seen, info) }), nimble.WithRetry(nimble.RetryPolicy{}))
		if _, err := client.Myself(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []nimble.RequestInfo{
			{Endpoint: "myself", Status: 502, Duration: time.Second, Attempt: 1},
			{Endpoint: "myself", Status: 0, Duration: nimble.DefaultTimeout, Attempt: 2},
			{Endpoint: "myself", Status: 200, Duration: time.Second, Attempt: 3},
		}
		for i := range seen {
			if (seen[i].Err == nil) != (seen[i].Status == 200) {
				t.Errorf("attempt %d: error %v", i+1, seen[i].Err)
			}
			seen[i].Err = nil
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("observed (-want +got):\n%s", diff)
		}
	})
}
