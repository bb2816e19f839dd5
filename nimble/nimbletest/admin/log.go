package admin

import (
	"net/http"
	"time"

	"nimble-bridge/nimble/nimbletest"
)

// request is one request that the account has answered.
type request struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Query  string    `json:"query,omitempty"`
	// Status is 0 when the connection was reset.
	Status int `json:"status"`
}

// served counts requests by endpoint and status.
type served struct {
	Endpoint string `json:"endpoint"`
	Status   int    `json:"status"`
	Count    int    `json:"count"`
}

func (h *Handler) served() (list []served, total int) {
	for _, s := range h.account.Served() {
		list = append(list, served(s))
		total += s.Count
	}
	return list, total
}

// requests answers GET /admin/requests.
func (h *Handler) requests(r *http.Request) (any, error) {
	last, err := number(r, "last", 100)
	if err != nil {
		return nil, err
	}
	var list struct {
		Total    int       `json:"total"`
		Served   []served  `json:"served"`
		Requests []request `json:"requests"` // newest first
	}
	list.Served, list.Total = h.served()
	for _, q := range h.account.LastRequests(last) {
		list.Requests = append(list.Requests, request{Time: q.Time, Method: q.Method, Path: q.Path, Query: q.Query.Encode(), Status: q.Status})
	}
	return list, nil
}

// resetRequests answers DELETE /admin/requests.
func (h *Handler) resetRequests(*http.Request) (any, error) {
	h.account.ResetRequests()
	return done{Done: "forgot the requests so far"}, nil
}

// journal answers GET /admin/journal.
func (h *Handler) journal(r *http.Request) (any, error) {
	last, err := number(r, "last", 100)
	if err != nil {
		return nil, err
	}
	type entry struct {
		Time time.Time     `json:"time"`
		Op   nimbletest.Op `json:"op"`
		ID   string        `json:"id,omitempty"`
	}
	var list struct {
		Entries []entry `json:"entries"` // newest first
	}
	for _, e := range h.account.LastEntries(last) {
		list.Entries = append(list.Entries, entry(e))
	}
	return list, nil
}

// status answers GET /admin/status.
func (h *Handler) status(*http.Request) (any, error) {
	h.mu.Lock()
	now := h.present()
	h.mu.Unlock()
	census := h.account.Census()
	var s struct {
		// Contacts is how many the user can see.
		Contacts  int            `json:"contacts"`
		Standings map[string]int `json:"standings"`
		Key       key            `json:"key"`
		Faults    []fault        `json:"faults"`
		Requests  int            `json:"requests"`
		Served    []served       `json:"served"`
		// Changes counts what was done to the account.
		Changes int `json:"changes"`
		// Default says that the behaviour is the one that evidence favours.
		Default bool `json:"default_behaviour"`
	}
	s.Contacts = h.account.Len()
	s.Standings = make(map[string]int)
	for _, standing := range []nimbletest.Standing{nimbletest.Visible, nimbletest.Unlisted, nimbletest.Hidden, nimbletest.Deleted} {
		s.Standings[standing.String()] = census[standing]
	}
	s.Key.Key, s.Key.Refused = h.account.Key()
	s.Faults = h.pending()
	s.Served, s.Requests = h.served()
	s.Changes = h.account.Changes()
	s.Default = now == behaviour{}
	return s, nil
}
