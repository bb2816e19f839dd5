package nimbletest

import (
	"net/http"
	"net/url"
	"slices"
	"time"
)

// remembered is how many requests and how many journal entries are kept at least; the older ones go.
const remembered = 1 << 20

// observation is what the account has seen and done.
type observation struct {
	journal   []Entry
	log       []Request
	onRequest func(n int, r *http.Request)
}

// Op is what happened to a contact.
type Op string

// The operations, named after the methods that do them.
const (
	OpCreate       Op = "create"
	OpImport       Op = "import"
	OpEdit         Op = "edit"
	OpEditSilently Op = "edit silently"
	OpTouch        Op = "touch"
	OpDelete       Op = "delete"
	OpRestore      Op = "restore"
	OpHide         Op = "hide"
	OpShow         Op = "show"
	OpMerge        Op = "merge"
	OpSetTimes     Op = "set times"
	OpPut          Op = "put"
	OpRenameTag    Op = "rename tag"
	OpRenameUser   Op = "rename user"
	OpCountDown    Op = "count down"
)

// Entry is one operation in an account's journal.
type Entry struct {
	Time time.Time // the account's, UTC
	Op   Op
	ID   string // empty for what concerns no single contact
}

// Journal gives all operations so far, oldest first; of very many only the last million. The contacts an account
// began with are not in it.
func (a *Account) Journal() []Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.journal)
}

func (a *Account) record(op Op, id string, at int64) {
	a.journal = keep(append(a.journal, Entry{Time: time.UnixMicro(at).UTC(), Op: op, ID: id}))
}

// keep drops the older half when there is too much.
func keep[E any](list []E) []E {
	if len(list) < 2*remembered {
		return list
	}
	return slices.Clone(list[len(list)-remembered:])
}

// Request is one request that the account has answered.
type Request struct {
	Time   time.Time // of the answer, by the account's clock
	Method string
	Path   string
	Query  url.Values
	Status int // 0 when the connection was reset
}

// Requests gives the requests answered since the account began or [Account.ResetRequests] was called, oldest first; of
// very many only the last million.
func (a *Account) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.log)
}

// ResetRequests forgets the requests so far and begins counting them anew.
func (a *Account) ResetRequests() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log, a.requests = nil, 0
}

// OnRequest has a function called before each request is answered, with the request's number (1 is the first
// since the account began or was reset). It may call every method of the account: this is the way to let
// contacts change between two pages. Nil removes it.
func (a *Account) OnRequest(f func(n int, r *http.Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onRequest = f
}
