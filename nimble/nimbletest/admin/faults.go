package admin

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"nimble-bridge/nimble/nimbletest"
)

// fault is nimbletest.Fault as this interface writes it.
type fault struct {
	Endpoint   string   `json:"endpoint,omitempty"`
	Status     int      `json:"status,omitzero"`
	RetryAfter string   `json:"retry_after,omitempty"`
	Delay      duration `json:"delay,omitzero"`
	BodyDelay  duration `json:"body_delay,omitzero"`
	Reset      bool     `json:"reset,omitzero"`
	Truncate   bool     `json:"truncate,omitzero"`
	HTML       bool     `json:"html,omitzero"`
	Body       string   `json:"body,omitempty"`
	// Times is how many requests suffer it, -1 all until it is cleared.
	Times int `json:"times"`
}

var endpoints = []string{"", nimbletest.EndpointContacts, nimbletest.EndpointIDs, nimbletest.EndpointContact, nimbletest.EndpointMyself}

func (f fault) check() error {
	switch {
	case !slices.Contains(endpoints, f.Endpoint):
		return invalid("endpoint is %q, want contacts, ids, contact, myself, or nothing for all of them", f.Endpoint)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return invalid("status is %d, want 200 to 599", f.Status)
	case f.Delay < 0 || f.BodyDelay < 0:
		return invalid("a delay is below 0")
	case f.Times < -1 || f.Times == 0:
		return invalid("times is %d, want 1 or more, or -1 for all requests until the fault is cleared", f.Times)
	}
	if nothing := (fault{Endpoint: f.Endpoint, RetryAfter: f.RetryAfter, Times: f.Times}); f == nothing {
		return invalid("the fault does nothing: give status, delay, body_delay, reset, truncate, html or body")
	}
	return nil
}

// faults answers GET /admin/faults.
func (h *Handler) faults(*http.Request) (any, error) {
	return struct {
		Faults []fault `json:"faults"`
	}{h.pending()}, nil
}

func (h *Handler) pending() []fault {
	var list []fault
	for _, p := range h.account.Faults() {
		list = append(list, fault{
			Endpoint: p.Fault.Endpoint, Status: p.Fault.Status, RetryAfter: p.Fault.RetryAfter,
			Delay: duration(p.Fault.Delay), BodyDelay: duration(p.Fault.BodyDelay),
			Reset: p.Fault.Reset, Truncate: p.Fault.Truncate, HTML: p.Fault.HTML, Body: p.Fault.Body, Times: max(p.Left, -1),
		})
	}
	return list
}

// fault answers POST /admin/faults.
func (h *Handler) fault(r *http.Request) (any, error) {
	f := fault{Times: 1}
	if err := read(r, &f); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	h.account.Inject(f.Times, nimbletest.Fault{
		Endpoint: f.Endpoint, Delay: time.Duration(f.Delay), BodyDelay: time.Duration(f.BodyDelay), Reset: f.Reset, Status: f.Status,
		RetryAfter: f.RetryAfter, Body: f.Body, HTML: f.HTML, Truncate: f.Truncate,
	})
	to := "the API"
	if f.Endpoint != "" {
		to = f.Endpoint
	}
	what := "the next request to " + to + " suffers the fault"
	switch {
	case f.Times < 0:
		what = "all requests to " + to + " suffer the fault"
	case f.Times > 1:
		what = fmt.Sprintf("the next %d requests to %s suffer the fault", f.Times, to)
	}
	return done{Done: what, Count: f.Times}, nil
}

// clearFaults answers DELETE /admin/faults.
func (h *Handler) clearFaults(*http.Request) (any, error) {
	h.account.ClearFaults()
	return done{Done: "cleared all faults"}, nil
}

// key is the account's key as this interface shows it.
type key struct {
	Key     string `json:"key"`
	Refused bool   `json:"refused"`
}

// key answers GET /admin/key.
func (h *Handler) key(*http.Request) (any, error) {
	accepted, refused := h.account.Key()
	return key{accepted, refused}, nil
}

// setKey answers PUT /admin/key: what is not named stays.
func (h *Handler) setKey(r *http.Request) (any, error) {
	var k key
	k.Key, k.Refused = h.account.Key()
	if err := read(r, &k); err != nil {
		return nil, err
	}
	if k.Key == "" {
		return nil, invalid(`key is empty; "refused": true refuses every key`)
	}
	h.account.RotateKey(k.Key)
	h.account.RefuseKey(k.Refused)
	return k, nil
}
