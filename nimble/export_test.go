package nimble

import (
	"net/http"
	"net/url"
	"time"
)

// ParseRetryAfter lets the fuzz test call what no answer can be made to show so directly.
func ParseRetryAfter(h http.Header, now time.Time) time.Duration { return parseRetryAfter(h, now) }

// DecodePage reads the body of a contact listing, without a request around it.
func DecodePage(body []byte) (*Page, error) {
	l, err := decodeListing(&response{body: body, key: "none", header: http.Header{}}, contactResources, 100)
	if err != nil {
		return nil, err
	}
	return &Page{Meta: l.meta, Contacts: l.contacts, Malformed: l.malformed}, nil
}

// Values is what a listing sends.
func (o ListOptions) Values() (url.Values, error) { return o.values() }

// MaxRetryAfter is the cap on Retry-After.
const MaxRetryAfter = maxRetryAfter
