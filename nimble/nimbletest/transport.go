package nimbletest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// Transport gives a way to the account that needs no network: a request to any host is answered by
// [Account.ServeHTTP] in the calling goroutine. As there is no socket, it is the one for testing/synctest
// bubbles. It ends requests with their context, asks for and undoes compression like [http.Transport], and
// shows aborted answers as the errors that a network would give.
func (a *Account) Transport() http.RoundTripper { return transport{a} }

type transport struct{ handler http.Handler }

// RoundTrip implements [http.RoundTripper].
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	if r.Body != nil {
		defer r.Body.Close()
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	in := r.Clone(ctx)
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	in.RequestURI = in.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	undo := in.Header.Get("Accept-Encoding") == "" && in.Header.Get("Range") == "" && in.Method != http.MethodHead
	if undo {
		in.Header.Set("Accept-Encoding", "gzip")
	}
	rec := &recorder{header: make(http.Header)}
	aborted := rec.run(t.handler, in)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if aborted && rec.status == 0 {
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return rec.response(r, aborted, undo)
}

// recorder is a response writer that keeps what it is given, and where it paused.
type recorder struct {
	header http.Header // what the handler writes to
	sent   http.Header // as it was when the status was written
	status int
	parts  []part
}

// part is a piece of a body, or a pause in it.
type part struct {
	after time.Duration
	data  []byte
}

func (c *recorder) Header() http.Header { return c.header }

func (c *recorder) WriteHeader(status int) {
	if c.status != 0 {
		return
	}
	c.status = status
	c.sent = make(http.Header, len(c.header))
	for name, values := range c.header {
		if len(values) > 0 {
			c.sent[name] = append([]string(nil), values...)
		}
	}
}

func (c *recorder) Write(data []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	c.parts = append(c.parts, part{data: bytes.Clone(data)})
	return len(data), nil
}

// FlushError implements what [http.ResponseController] looks for; everything is there at once anyway.
func (c *recorder) FlushError() error { c.WriteHeader(http.StatusOK); return nil }

func (c *recorder) pause(d time.Duration) { c.parts = append(c.parts, part{after: d}) }

// run calls the handler; aborted says that it gave up as [http.ErrAbortHandler] has it.
func (c *recorder) run(h http.Handler, r *http.Request) (aborted bool) {
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			aborted = true
		}
	}()
	h.ServeHTTP(c, r)
	c.WriteHeader(http.StatusOK)
	return false
}

func (c *recorder) response(r *http.Request, aborted, undo bool) (*http.Response, error) {
	resp := &http.Response{
		Status:     fmt.Sprintf("%d %s", c.status, http.StatusText(c.status)),
		StatusCode: c.status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        c.sent,
		ContentLength: -1,
		Request:       r,
	}
	if n, err := strconv.ParseInt(c.sent.Get("Content-Length"), 10, 64); err == nil {
		resp.ContentLength = n
	}
	body := &streamedBody{ctx: r.Context(), parts: c.parts, end: io.EOF}
	if aborted {
		body.end = io.ErrUnexpectedEOF
	}
	resp.Body = body
	if undo && c.sent.Get("Content-Encoding") == "gzip" {
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
		resp.ContentLength = -1
		resp.Uncompressed = true
		resp.Body = &inflatedBody{streamedBody: body}
	}
	return resp, nil
}

// streamedBody gives a body piece by piece, pausing where the handler paused.
type streamedBody struct {
	ctx    context.Context // A response body lives as long as its request's context.
	parts  []part
	end    error
	closed bool
}

func (s *streamedBody) Read(p []byte) (int, error) {
	if s.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	for len(s.parts) > 0 {
		if err := context.Cause(s.ctx); err != nil {
			return 0, err
		}
		next := &s.parts[0]
		if !wait(s.ctx.Done(), next.after) {
			return 0, context.Cause(s.ctx)
		}
		if len(next.data) == 0 {
			s.parts = s.parts[1:]
			continue
		}
		n := copy(p, next.data)
		next.data = next.data[n:]
		return n, nil
	}
	return 0, s.end
}

func (s *streamedBody) Close() error { s.closed = true; return nil }

// inflatedBody undoes compression while it is read.
type inflatedBody struct {
	*streamedBody
	z *gzip.Reader
}

func (f *inflatedBody) Read(p []byte) (int, error) {
	if f.z == nil {
		z, err := gzip.NewReader(f.streamedBody)
		if err != nil {
			return 0, err
		}
		f.z = z
	}
	return f.z.Read(p)
}
