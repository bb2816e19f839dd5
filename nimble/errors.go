package nimble

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Why a contact is missing, as [Client.ContactByID] tells.
var (
	// ErrNotFound says that Nimble has no such contact or does not show it to the key's user.
	ErrNotFound = errors.New("contact not found")
	// ErrForbidden says that Nimble has the contact and refuses it to the key's user.
	ErrForbidden = errors.New("contact forbidden")
)

// Request says which request an error is about. It never contains the API key.
type Request struct {
	Method string
	// URL is complete, with the query.
	URL string
	// Endpoint is as in [RequestInfo].
	Endpoint string
}

// String returns method and URL without the query, which is long and rarely what a reader looks for.
func (r Request) String() string {
	short, _, _ := strings.Cut(r.URL, "?")
	return r.Method + " " + short
}

// full is String with the query, in plain characters: what a refused request asked for is what its refusal is about.
func (r Request) full() string {
	_, query, _ := strings.Cut(r.URL, "?")
	plain, err := url.QueryUnescape(query)
	if query == "" || err != nil {
		return r.String()
	}
	return r.String() + "?" + plain
}

// ended is why the caller's context ended, with the cause that was given for it.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// CredentialsError says that Nimble does not accept the API key: it is wrong, revoked, its user's e-mail address is not
// verified, or the subscription has ended. Asking again does not help until somebody acts.
type CredentialsError struct {
	Request
	// Status is 401, 402 or 403; 0 when there was no key to send.
	Status int
	// Message is Nimble's own, possibly empty.
	Message string
	// Err is why there was no key, for Status 0.
	Err error
}

// Error implements error.
func (e *CredentialsError) Error() string {
	switch e.Status {
	case 0:
		return fmt.Sprintf("%s: no API key: %v", e.Request, e.Err)
	case http.StatusPaymentRequired:
		return fmt.Sprintf("%s: the account's subscription does not cover this: %s", e.Request, status(e.Status, e.Message))
	}
	return fmt.Sprintf("%s: API key refused: %s", e.Request, status(e.Status, e.Message))
}

// Unwrap returns why there was no key.
func (e *CredentialsError) Unwrap() error { return e.Err }

// RateLimitError says that Nimble asks for fewer requests.
type RateLimitError struct {
	Request
	// Status is 429.
	Status int
	// RetryAfter is how long Nimble asks to wait, at most an hour; 0 if it did not say.
	RetryAfter time.Duration
}

// Error implements error.
func (e *RateLimitError) Error() string {
	return fmt.Sprintf("%s: %s%s", e.Request, status(e.Status, ""), after(e.RetryAfter))
}

// ValidationError says that Nimble refuses the parameters, in most cases the query or the sort order.
type ValidationError struct {
	Request
	// Status is 409, as Nimble answers; 400, 414 and 422 are understood the same way.
	Status int
	// Message is Nimble's, the human-readable one if there are two.
	Message string
	// Problems are the complaints about single parameters, by the name or path that Nimble gives them, "" for those that
	// have none.
	Problems map[string][]string
}

// Error implements error.
func (e *ValidationError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: request refused: %s", e.full(), status(e.Status, e.Message))
	for _, name := range slices.Sorted(maps.Keys(e.Problems)) {
		b.WriteString("; ")
		if name != "" {
			b.WriteString(name + ": ")
		}
		b.WriteString(strings.Join(e.Problems[name], ", "))
	}
	return b.String()
}

// ServerError says that Nimble, or a proxy before it, failed to answer.
type ServerError struct {
	Request
	// Status is 500 or above, or 408.
	Status  int
	Message string
	// RetryAfter is how long the server asks to wait, at most an hour; 0 if it did not say.
	RetryAfter time.Duration
}

// Error implements error.
func (e *ServerError) Error() string {
	return fmt.Sprintf("%s: %s%s", e.Request, status(e.Status, e.Message), after(e.RetryAfter))
}

// StatusError is an answer with any other status: a redirect that is not followed, a path that does not exist, or what
// nobody foresaw. It wraps [ErrNotFound] or [ErrForbidden] where it is about a contact.
type StatusError struct {
	Request
	Status  int
	Message string

	kind error
}

// Error implements error.
func (e *StatusError) Error() string {
	if e.kind != nil {
		return fmt.Sprintf("%s: %v: %s", e.Request, e.kind, status(e.Status, e.Message))
	}
	return fmt.Sprintf("%s: %s", e.Request, status(e.Status, e.Message))
}

// Unwrap returns [ErrNotFound], [ErrForbidden] or nil.
func (e *StatusError) Unwrap() error { return e.kind }

// NotJSONError says that the answer was not the JSON that Nimble documents, although its status said that all is well: a proxy's
// page, damaged data, or JSON of another shape.
type NotJSONError struct {
	Request
	// ContentType is what the answer claims to be.
	ContentType string
	// Reason is what is wrong with it. It does not quote the answer, which may hold personal data.
	Reason string
}

// Error implements error.
func (e *NotJSONError) Error() string {
	if e.ContentType == "" {
		return fmt.Sprintf("%s: unexpected answer: %s", e.Request, e.Reason)
	}
	return fmt.Sprintf("%s: unexpected answer of type %q: %s", e.Request, e.ContentType, e.Reason)
}

// TruncatedError says that the body ended before it was complete.
type TruncatedError struct {
	Request
	// Read is how many bytes of it there were.
	Read int64
	// Err is what the connection said, nil if it saw nothing wrong.
	Err error
}

// Error implements error.
func (e *TruncatedError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: answer ends early, after %d bytes", e.Request, e.Read)
	}
	return fmt.Sprintf("%s: answer ends early, after %d bytes: %v", e.Request, e.Read, e.Err)
}

// Unwrap returns what the connection said.
func (e *TruncatedError) Unwrap() error { return e.Err }

// TooLargeError says that the body is longer than [WithMaxBody] allows. Smaller pages help.
type TooLargeError struct {
	Request
	// Limit is in bytes.
	Limit int64
}

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s: answer longer than %d bytes", e.Request, e.Limit)
}

// TransportError says that no answer came: the host could not be found or reached, the connection broke, or time ran out.
type TransportError struct {
	Request
	// Timeout says that the request's own time ran out, not the caller's context.
	Timeout bool
	Err     error
}

// Error implements error.
func (e *TransportError) Error() string { return fmt.Sprintf("%s: %v", e.Request, e.Err) }

// Unwrap returns the error of the network.
func (e *TransportError) Unwrap() error { return e.Err }

// permanent tells the failures that stay until somebody changes something: a certificate that does not fit.
func (e *TransportError) permanent() bool {
	return isType[*tls.CertificateVerificationError](e.Err) || isType[tls.RecordHeaderError](e.Err)
}

// RecordError is about one record that cannot be understood, among others that can.
type RecordError struct {
	Malformed
}

// Error implements error. It does not quote the record.
func (e *RecordError) Error() string {
	if e.ID == "" {
		return "malformed record: " + e.Reason
	}
	return fmt.Sprintf("malformed record %s: %s", e.ID, e.Reason)
}

// statusError makes the error for an answer whose status is not 200.
func statusError(request Request, resp *http.Response, body []byte, key string) error {
	code := resp.StatusCode
	fault := parseFault(body, key)
	switch {
	case code == http.StatusUnauthorized, code == http.StatusPaymentRequired,
		code == http.StatusForbidden && (request.Endpoint != endpointContact || fault.authentication()):
		return &CredentialsError{Request: request, Status: code, Message: fault.message}
	case code == http.StatusTooManyRequests:
		return &RateLimitError{Request: request, Status: code, RetryAfter: parseRetryAfter(resp.Header, time.Now())}
	case code == http.StatusConflict, code == http.StatusBadRequest, code == http.StatusRequestURITooLong, code == http.StatusUnprocessableEntity:
		return &ValidationError{Request: request, Status: code, Message: fault.message, Problems: fault.problems}
	case code >= 500, code == http.StatusRequestTimeout:
		return &ServerError{Request: request, Status: code, Message: fault.message, RetryAfter: parseRetryAfter(resp.Header, time.Now())}
	}
	e := &StatusError{Request: request, Status: code, Message: fault.message}
	// Only Nimble itself knows about contacts. A page that a proxy or a wrong path answers with must not pass for a deleted one,
	// and is not JSON.
	switch {
	case code/100 == 3:
		e.Message = "redirect to " + originOf(resp.Header.Get("Location")) + ", which is not followed because the API key goes to the configured origin only"
	case code == http.StatusNotFound && request.Endpoint == endpointContact && fault.isJSON:
		e.kind = ErrNotFound
	case code == http.StatusForbidden && fault.isJSON:
		e.kind = ErrForbidden
	}
	return e
}

func originOf(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return "an unreadable address"
	}
	return u.Scheme + "://" + u.Host
}

func status(code int, message string) string {
	text := fmt.Sprintf("%d %s", code, http.StatusText(code))
	text = strings.TrimSpace(text)
	if message != "" {
		text += ": " + message
	}
	return text
}

func after(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf(", retry after %v", d)
}

// fault is what an error's body says.
type fault struct {
	isJSON   bool // It is a JSON object.
	message  string
	problems map[string][]string
}

// authentication recognises the two messages with which Nimble refuses a key under the status 403.
func (f *fault) authentication() bool {
	message := strings.ToLower(f.message)
	return strings.Contains(message, "authenticate request") || strings.Contains(message, "email_verification_required")
}

// redact removes the key from a text, in case somebody repeats it there.
func redact(s, key string) string { return strings.ReplaceAll(s, key, "[API key]") }

// parseFault reads an error's body in all the shapes that Nimble's documents and answers have, as far as that is possible: an object
// with a message, and with problems that are a list or an object for each field, or a list of objects. Anything else, HTML for
// one, gives no message. The texts are fit for logs and do not contain the key.
func parseFault(body []byte, key string) fault {
	members, ok := objectMembers(body)
	if !ok {
		return fault{}
	}
	f := fault{isJSON: true}
	for _, name := range []string{"human_readable_error", "message", "error_description", "error"} {
		if f.message = clean(stringValue(members[name]), key); f.message != "" {
			break
		}
	}
	errs := members["errors"]
	if fields, ok := objectMembers(errs); ok {
		for name, value := range fields {
			f.addProblems(clean(name, key), value, key)
		}
	} else {
		f.addProblems("", errs, key)
	}
	return f
}

// maxProblems bounds what an error can grow to.
const maxProblems = 20

func (f *fault) addProblems(name string, value jsontext.Value, key string) {
	if len(f.problems) >= maxProblems {
		return
	}
	elements := []jsontext.Value{value}
	if value.Kind() == '[' {
		elements = listElements(value)
	}
	for _, element := range elements[:min(len(elements), maxProblems)] {
		text := stringValue(element)
		if members, ok := objectMembers(element); ok {
			text = stringValue(members["message"])
		}
		if text = clean(text, key); text == "" {
			continue
		}
		if f.problems == nil {
			f.problems = make(map[string][]string)
		}
		f.problems[name] = append(f.problems[name], text)
	}
}

// maxMessage is in bytes.
const maxMessage = 300

// clean makes a foreign text fit for one line of a log, without the key.
func clean(s, key string) string {
	s = redact(s, key) // First, so that no cut can leave a part of the key.
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(s) <= maxMessage {
		return s
	}
	end := maxMessage
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// objectMembers returns an object's members, and whether b is an object. Where a name repeats, the last one counts.
func objectMembers(b []byte) (map[string]jsontext.Value, bool) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(b), lenient...)
	if dec.PeekKind() != '{' {
		return nil, false
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, false
	}
	members := make(map[string]jsontext.Value)
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, false
		}
		key := name.String()
		if members[key], err = dec.ReadValue(); err != nil {
			return nil, false
		}
	}
	return members, true
}

// listElements returns a list's elements as far as they can be read.
func listElements(b []byte) []jsontext.Value {
	dec := jsontext.NewDecoder(bytes.NewBuffer(b), lenient...)
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	var elements []jsontext.Value
	for dec.PeekKind() != ']' {
		element, err := dec.ReadValue()
		if err != nil {
			return elements
		}
		elements = append(elements, element)
	}
	return elements
}

// lenient makes a decoder accept what parsers of other languages let through.
var lenient = []jsontext.Options{jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)}

// stringValue returns a JSON string's text, and "" for anything else.
func stringValue(v jsontext.Value) string {
	if v.Kind() != '"' {
		return ""
	}
	text, _ := jsontext.AppendUnquote(nil, v) // An error speaks of invalid UTF-8, which is replaced.
	return string(text)
}

// objectError tells why objectMembers found no object.
func objectError(body []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), lenient...)
	value, err := dec.ReadValue()
	if err == nil && value.Kind() != '{' {
		return errShape
	}
	return err
}
