package nimble

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Defaults of a client, each changed by the option of the same name.
const (
	// DefaultRateLimit is in requests a second.
	DefaultRateLimit = 5.0
	// DefaultTimeout is for one request, from sending it to the last byte of the answer.
	DefaultTimeout = 30 * time.Second
	// DefaultMaxBody is in bytes, after decompression. A page of 100 contacts has about 300 kB.
	DefaultMaxBody = 64 << 20
	// DefaultUserAgent names the program in Nimble's logs.
	DefaultUserAgent = "nimble-bridge"
)

// apiPath is the version prefix of everything that the client reads.
const apiPath = "/api/v1"

// maxErrorBody is how much of an error's body is read. Error bodies are short, unless a proxy wrote them.
const maxErrorBody = 64 << 10

// maxRedirects is how many redirects within the origin are followed.
const maxRedirects = 5

// Client reads one Nimble account. It is safe for concurrent use.
type Client struct {
	base      *url.URL
	key       func() (string, error)
	http      *http.Client
	limiter   *rate.Limiter
	timeout   time.Duration
	maxBody   int64
	userAgent string
	retry     *RetryPolicy // nil: none
	observe   func(RequestInfo)
}

// An Option changes a default of [NewClient].
type Option func(*Client) error

// RequestInfo is what is known of one request when it has ended. It holds no personal data.
type RequestInfo struct {
	// Endpoint is what was asked: "contacts", "ids", "contact" (contacts by id) or "myself".
	Endpoint string
	// Status is the HTTP status; 0 when there was no response.
	Status int
	// Duration is from sending the request to the end of the body, without the wait for the rate limit.
	Duration time.Duration
	// Attempt is 1 for the first request of a call and rises with each retry.
	Attempt int
	// Err is why the attempt failed, nil if it did not.
	Err error
}

// WithKeySource makes the client ask source for the API key before each request, so that a replaced key (in a file, say) is
// used at once. An error of source is reported as a [CredentialsError] without a status.
func WithKeySource(source func() (string, error)) Option {
	return func(c *Client) error {
		if source == nil {
			return errors.New("key source is nil")
		}
		c.key = source
		return nil
	}
}

// WithTransport sends the requests through rt, which may answer in-process. The client asks for gzip and unpacks it itself.
func WithTransport(rt http.RoundTripper) Option {
	return func(c *Client) error {
		if rt == nil {
			return errors.New("transport is nil")
		}
		c.http.Transport = rt
		return nil
	}
}

// WithRateLimit allows at most perSecond requests a second, evenly spaced; at high rates in bursts of 10 ms' worth, because timers are not finer
// than that. Positive infinity removes the limit. Defaults to [DefaultRateLimit].
func WithRateLimit(perSecond float64) Option {
	return func(c *Client) error {
		if !(perSecond > 0) { // NaN is refused too.
			return fmt.Errorf("rate limit %v: must be more than 0 requests a second", perSecond)
		}
		if math.IsInf(perSecond, 1) {
			c.limiter = rate.NewLimiter(rate.Inf, 1)
			return nil
		}
		burst := max(1, int(min(perSecond, 1e6)/100))
		c.limiter = rate.NewLimiter(rate.Limit(perSecond), burst)
		return nil
	}
}

// WithTimeout limits one request, body included. Retries have a timeout each. Defaults to [DefaultTimeout].
func WithTimeout(d time.Duration) Option {
	return func(c *Client) error {
		if d <= 0 {
			return fmt.Errorf("timeout %v: must be positive", d)
		}
		c.timeout = d
		return nil
	}
}

// WithMaxBody limits an answer's body, counted in bytes after decompression. A longer one is a [TooLargeError].
// Defaults to [DefaultMaxBody].
func WithMaxBody(n int64) Option {
	return func(c *Client) error {
		if n <= 0 {
			return fmt.Errorf("body limit %d: must be positive", n)
		}
		c.maxBody = n
		return nil
	}
}

// WithUserAgent sets the User-Agent header. Defaults to [DefaultUserAgent].
func WithUserAgent(name string) Option {
	return func(c *Client) error {
		if name == "" || strings.ContainsFunc(name, isControl) {
			return fmt.Errorf("user agent %q: must be printable text", name)
		}
		c.userAgent = name
		return nil
	}
}

// WithRetry sets how failed requests are repeated. Zero fields of the policy take their defaults.
func WithRetry(p RetryPolicy) Option {
	return func(c *Client) error {
		if p.Initial < 0 || p.Max < 0 || p.MaxElapsed < 0 {
			return fmt.Errorf("retry policy %+v: no duration may be negative", p)
		}
		p = p.withDefaults()
		c.retry = &p
		return nil
	}
}

// WithoutRetry reports every failure at once.
func WithoutRetry() Option {
	return func(c *Client) error {
		c.retry = nil
		return nil
	}
}

// WithObserver calls observe after each request, retries included, for logs and metrics. It runs on the goroutine of the
// call and delays it.
func WithObserver(observe func(RequestInfo)) Option {
	return func(c *Client) error {
		c.observe = observe
		return nil
	}
}

// NewClient returns a client for the API at baseURL, an origin such as "https://app.nimble.com", behind a proxy with a path. With
// http:// the key is sent unencrypted. The key may be empty if [WithKeySource] is given. NewClient sends nothing.
func NewClient(baseURL, key string, opts ...Option) (*Client, error) {
	base, err := parseBase(baseURL)
	if err != nil {
		return nil, fmt.Errorf("base URL: %w", err)
	}
	retry := RetryPolicy{}.withDefaults()
	c := &Client{
		base:      base,
		http:      &http.Client{CheckRedirect: checkRedirect},
		limiter:   rate.NewLimiter(DefaultRateLimit, 1),
		timeout:   DefaultTimeout,
		maxBody:   DefaultMaxBody,
		userAgent: DefaultUserAgent,
		retry:     &retry,
	}
	for _, opt := range opts {
		if err := opt(c); err != nil {
			return nil, err
		}
	}
	if c.key == nil {
		if err := checkKey(key); err != nil {
			return nil, err
		}
		c.key = func() (string, error) { return key, nil }
	}
	if c.http.Transport == nil {
		c.http.Transport = newTransport()
	}
	return c, nil
}

// CloseIdleConnections closes connections that wait for another request. The client stays usable.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

func parseBase(baseURL string) (*url.URL, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		// The error of url.Parse repeats the URL, which may hold a password.
		if parse, ok := errors.AsType[*url.Error](err); ok {
			err = parse.Err
		}
		return nil, err
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%q does not begin with https:// or http://", u.Redacted())
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q has no host", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("%q has a user or password; the API key is the only credential", u.Redacted())
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%q has a query or fragment", u.Redacted())
	}
	u.Host = strings.ToLower(u.Host)
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), apiPath)
	u.RawPath = ""
	return u, nil
}

// errNoKey and errBadKey say what is wrong with a key without showing it.
var (
	errNoKey  = errors.New("the API key is empty")
	errBadKey = errors.New("the API key contains white space or control characters")
)

func checkKey(key string) error {
	if key == "" {
		return errNoKey
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r == ' ' || isControl(r) }) {
		return errBadKey
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// newTransport is used rather than the library's shared one, so that idle connections belong to the client.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          8,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
	}
}

// checkRedirect follows redirects within the origin. net/http would carry the key to subdomains, to other ports and from https to
// http, so anything else ends at the redirect itself, which becomes a [StatusError].
func checkRedirect(req *http.Request, via []*http.Request) error {
	origin := via[0].URL
	if req.URL.Scheme != origin.Scheme || !strings.EqualFold(req.URL.Host, origin.Host) || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

// response is a complete answer with status 200.
type response struct {
	request Request
	key     string // Only to keep it out of errors.
	header  http.Header
	body    []byte
}

// date is the server's clock, to the second; zero if the server did not tell it.
func (r *response) date() time.Time {
	return parseDate(r.header)
}

func parseDate(h http.Header) time.Time {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date.UTC()
}

// get is the one way out: every request of the client is made here. decode turns the body into the caller's result; an
// error of it counts as a failure of the attempt, as a damaged body often comes whole the next time.
func (c *Client) get(ctx context.Context, endpoint, path string, query url.Values, decode func(*response) error) error {
	u := *c.base
	u.Path += apiPath + path
	u.RawQuery = query.Encode()
	request := Request{Method: http.MethodGet, URL: u.String(), Endpoint: endpoint}

	attempt := 0
	return c.retry.run(ctx, func() error {
		attempt++
		if err := c.limiter.Wait(ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w", request, ended(ctx))
			}
			// The limiter does not begin a wait that the context's deadline would cut short.
			return fmt.Errorf("%s: %w while waiting for the rate limit", request, context.DeadlineExceeded)
		}
		start := time.Now()
		status, err := c.attempt(ctx, request, decode)
		if c.observe != nil {
			c.observe(RequestInfo{Endpoint: endpoint, Status: status, Duration: time.Since(start), Attempt: attempt, Err: err})
		}
		return err
	})
}

// attempt makes one request and returns the status, 0 if there was no response.
func (c *Client) attempt(ctx context.Context, request Request, decode func(*response) error) (int, error) {
	key, err := c.key()
	if err == nil {
		err = checkKey(key)
	}
	if err != nil {
		return 0, &CredentialsError{Request: request, Err: err}
	}

	timed, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(timed, request.Method, request.URL, nil)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", request, err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Accept", "application/json")
	// Asked for explicitly, so that one piece of code unpacks the answers of every transport.
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("User-Agent", c.userAgent)

	resp, err := c.http.Do(req)
	if err != nil {
		return 0, c.transportError(ctx, timed, request, key, err)
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		body, _ := readBody(resp, maxErrorBody) // What could be read of it is good enough.
		if ctx.Err() != nil {
			return resp.StatusCode, fmt.Errorf("%s: %w", request, ended(ctx))
		}
		return resp.StatusCode, statusError(request, resp, body, key)
	}
	body, err := readBody(resp, c.maxBody)
	if err != nil {
		return resp.StatusCode, c.bodyError(ctx, timed, request, key, len(body), err)
	}
	if err := decode(&response{request: request, key: key, header: resp.Header, body: body}); err != nil {
		return resp.StatusCode, err
	}
	return resp.StatusCode, nil
}

// transportError tells the caller's own cancellation from the timeout of the request and from failures of the network.
func (c *Client) transportError(ctx, timed context.Context, request Request, key string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", request, ended(ctx))
	}
	if timed.Err() != nil {
		// Not wrapping the context's error: callers look for that to see whether their own time is up.
		return &TransportError{Request: request, Timeout: true, Err: fmt.Errorf("no complete answer within %v", c.timeout)}
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // It repeats method and URL.
	}
	// The timeouts of package net, too, claim to be the context's.
	timeout := errors.Is(err, context.DeadlineExceeded)
	if timeout || errors.Is(err, context.Canceled) || strings.Contains(err.Error(), key) {
		err = errors.New(redact(err.Error(), key))
	}
	return &TransportError{Request: request, Timeout: timeout, Err: err}
}

func (c *Client) bodyError(ctx, timed context.Context, request Request, key string, read int, err error) error {
	switch {
	case ctx.Err() != nil || timed.Err() != nil:
		return c.transportError(ctx, timed, request, key, err)
	case errors.Is(err, errBodyLimit):
		return &TooLargeError{Request: request, Limit: c.maxBody}
	case errors.Is(err, errBadGzip):
		return &NotJSONError{Request: request, Reason: "damaged gzip data"}
	}
	return &TruncatedError{Request: request, Read: int64(read), Err: errors.New(redact(err.Error(), key))}
}

var (
	errBodyLimit = errors.New("body longer than the limit")
	errBadGzip   = errors.New("damaged gzip data")
)

// gzipReaders keeps decompressors, which are large, from one response to the next.
var gzipReaders sync.Pool

// readBody reads a body, decompressed, up to limit bytes. With an error it returns what came before it.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	var r io.Reader = resp.Body
	expect := resp.ContentLength
	if strings.EqualFold(strings.TrimSpace(resp.Header.Get("Content-Encoding")), "gzip") && !resp.Uncompressed {
		unzip, err := newGzipReader(resp.Body)
		if err != nil {
			return nil, gzipError(err)
		}
		defer gzipReaders.Put(unzip)
		r, expect = unzip, -1
	}

	var buf bytes.Buffer
	if expect > 0 {
		// Not all of it at once: a length is quickly claimed.
		buf.Grow(int(min(expect, limit, 1<<20)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return buf.Bytes(), gzipError(err)
	case n > limit:
		return buf.Bytes()[:limit], errBodyLimit
	case expect >= 0 && n < expect:
		// The library's transport notices this itself; others need not.
		return buf.Bytes(), io.ErrUnexpectedEOF
	}
	return buf.Bytes(), nil
}

func newGzipReader(r io.Reader) (*gzip.Reader, error) {
	if unzip, ok := gzipReaders.Get().(*gzip.Reader); ok {
		if err := unzip.Reset(r); err != nil {
			gzipReaders.Put(unzip)
			return nil, err
		}
		return unzip, nil
	}
	return gzip.NewReader(r)
}

// gzipError marks the errors that speak of wrong bytes rather than of missing ones.
func gzipError(err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	if corrupt || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return errBadGzip
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // No gzip header at all: the body is empty.
	}
	return err
}
