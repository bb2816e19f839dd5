package hook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

// Endpoint is a receiver of webhooks.
type Endpoint struct {
	// URL is where events are posted.
	URL *url.URL
	// Secrets are what events are signed with, asked for at each try, so that they can change. All of them sign. Nil leaves the signature out.
	Secrets func() ([]Secret, error)
	// Timeout bounds one try. Defaults to 30 s.
	Timeout time.Duration
	// Transport does the requests. Defaults to [NewTransport].
	Transport http.RoundTripper
	// UserAgent says who is calling.
	UserAgent string

	once   sync.Once
	client *http.Client
}

const (
	defaultTimeout = 30 * time.Second
	// mostResponse is how much of an answer is read, so that its connection can be used again. Nobody looks at it.
	mostResponse = 64 << 10
)

// NewTransport returns what an endpoint needs for its requests. The caller closes its idle connections in the end.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// StatusError is an answer that was no success.
type StatusError struct {
	// URL is where the event was posted, without what may be secret in it.
	URL    string
	Status int
	// Location is where a redirect leads, which was not followed.
	Location string
	// RetryAfter is how long the receiver wants to be left alone, 0 if it does not say.
	RetryAfter time.Duration
}

// Error implements error.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("POST %s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
	if e.Location != "" {
		text += ", a redirect to " + e.Location + ", which is not followed"
	}
	return text
}

// GoneError says that the receiver wants no more events.
type GoneError struct{ URL string }

// Error implements error.
func (e *GoneError) Error() string {
	return fmt.Sprintf("POST %s: 410 Gone: the receiver wants no more events", e.URL)
}

// Call posts an event. It is a [consumer.Handler].
func (e *Endpoint) Call(ctx context.Context, d *consumer.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(e.Timeout, defaultTimeout))
	defer cancel()
	req, err := e.request(ctx, d, time.Now())
	if err != nil {
		return err
	}
	e.once.Do(e.setUp)
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("POST %s: %w", Shown(e.URL), plain(err))
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, mostResponse)
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusGone:
		return consumer.Stop(&GoneError{Shown(e.URL)})
	}
	failed := &StatusError{URL: Shown(e.URL), Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	if to, err := resp.Location(); err == nil && resp.StatusCode < 400 {
		failed.Location = Shown(to)
	}
	if failed.RetryAfter > 0 {
		return consumer.RetryAfter(failed, failed.RetryAfter)
	}
	return failed
}

// request makes the request of a try at a time.
func (e *Endpoint) request(ctx context.Context, d *consumer.Delivery, at time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL.String(), bytes.NewReader(d.Body))
	if err != nil {
		return nil, fmt.Errorf("POST %s: %w", Shown(e.URL), plain(err))
	}
	req.Header.Set("Content-Type", event.ContentType)
	req.Header.Set("Webhook-Id", d.Event.ID)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
	if e.UserAgent != "" {
		req.Header.Set("User-Agent", e.UserAgent)
	}
	if e.Secrets != nil {
		secrets, err := e.Secrets()
		if err != nil {
			return nil, fmt.Errorf("secret: %w", err)
		}
		req.Header.Set("Webhook-Signature", sign(secrets, d.Event.ID, at, d.Body))
	}
	return req, nil
}

func (e *Endpoint) setUp() {
	e.client = &http.Client{
		Transport:     e.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if e.Transport == nil {
		e.client.Transport = NewTransport()
	}
}

// Shown is a URL without what may be secret in it: user, password, query and fragment.
func Shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// plain leaves out what [http.Client] puts around an error: the URL, with all of its query.
func plain(err error) error {
	if around, ok := errors.AsType[*url.Error](err); ok {
		return around.Err
	}
	return err
}

// retryAfter reads the header of that name, seconds or a date. What it does not understand, or what is over, is 0.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
