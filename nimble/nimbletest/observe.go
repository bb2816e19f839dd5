package nimbletest

import (
	"cmp"
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
	changes   int
	log       []Request
	served    map[Served]int // by what they are, the count left out
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
	OpUnlist       Op = "unlist"
	OpSpoil        Op = "spoil"
	OpMend         Op = "mend"
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

// LastEntries gives the newest entries of the journal, at most n, newest first.
func (a *Account) LastEntries(n int) []Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return newest(a.journal, n)
}

// Changes is the number of operations so far.
func (a *Account) Changes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changes
}

func (a *Account) record(op Op, id string, at int64) {
	a.changes++
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

// LastRequests gives the newest of the requests, at most n, newest first.
func (a *Account) LastRequests(n int) []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return newest(a.log, n)
}

func newest[E any](list []E, n int) []E {
	last := slices.Clone(list[max(0, len(list)-max(0, n)):])
	slices.Reverse(last)
	return last
}

// Served is how many requests to one endpoint got answers of one status.
type Served struct {
	Endpoint string // as [Fault] has it; empty for paths that the API does not have
	Status   int    // 0 when the connection was reset
	Count    int
}

// Served counts the requests since the account began or [Account.ResetRequests] was called, by endpoint and status, in their order.
func (a *Account) Served() []Served {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]Served, 0, len(a.served))
	for s, n := range a.served {
		s.Count = n
		list = append(list, s)
	}
	slices.SortFunc(list, func(x, y Served) int {
		return cmp.Or(cmp.Compare(x.Endpoint, y.Endpoint), cmp.Compare(x.Status, y.Status))
	})
	return list
}

// ResetRequests forgets the requests so far and begins counting them anew.
func (a *Account) ResetRequests() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log, a.served, a.requests = nil, nil, 0
}

// OnRequest has a function called before each request is answered, with the request's number (1 is the first
// since the account began or was reset). It may call every method of the account: this is the way to let
// contacts change between two pages. Nil removes it.
func (a *Account) OnRequest(f func(n int, r *http.Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onRequest = f
}
