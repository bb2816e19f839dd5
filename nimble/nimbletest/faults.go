package nimbletest

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// Fault is something that goes wrong with a request. Its parts can be combined; the zero value does nothing.
type Fault struct {
	// Endpoint limits the fault to one of the endpoints: [EndpointContacts], [EndpointIDs], [EndpointContact] or
	// [EndpointMyself]. Empty is all of them.
	Endpoint string
	// Delay is how long the answer takes to begin, BodyDelay how long it pauses in the middle of the body. Both
	// end with the request's context.
	Delay, BodyDelay time.Duration
	// Reset ends the connection without an answer.
	Reset bool
	// Status replaces the answer by an error of that status. 0 with a Body or HTML is 200.
	Status int
	// RetryAfter is the Retry-After header, in whichever form.
	RetryAfter string
	// Body replaces the answer's body. Empty is a JSON error that suits the status.
	Body string
	// HTML makes the answer a web page: the Body if there is one, else a proxy's.
	HTML bool
	// Truncate ends the connection after half of the body.
	Truncate bool
}

// injected is a fault for some requests to come.
type injected struct {
	fault Fault
	left  int // negative: for ever
}

// Inject lets the next n requests that the fault concerns suffer it, all of them when n is negative. Faults of
// several calls come one after the other.
func (a *Account) Inject(n int, f Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n != 0 {
		a.faults = append(a.faults, injected{f, n})
	}
}

// PendingFault is a fault and the number of requests that are still to suffer it.
type PendingFault struct {
	Fault Fault
	Left  int // negative: all that come
}

// Faults gives the faults that have not been suffered yet, in the order in which they come.
func (a *Account) Faults() []PendingFault {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]PendingFault, len(a.faults))
	for i, f := range a.faults {
		list[i] = PendingFault{Fault: f.fault, Left: f.left}
	}
	return list
}

// ClearFaults removes all faults that have not been suffered yet.
func (a *Account) ClearFaults() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = nil
}

// takeFault gives the fault for a request to the endpoint.
func (a *Account) takeFault(endpoint string) (Fault, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.faults {
		f := &a.faults[i]
		if f.fault.Endpoint != "" && f.fault.Endpoint != endpoint {
			continue
		}
		fault := f.fault
		if f.left > 0 {
			f.left--
			if f.left == 0 {
				a.faults = slices.Delete(a.faults, i, i+1)
			}
		}
		return fault, true
	}
	return Fault{}, false
}

// before does what comes before the answer; false means that there will be none.
func (f Fault) before(ctx context.Context) bool {
	return wait(ctx.Done(), f.Delay) && !f.Reset
}

// answer is the answer that takes the place of the account's.
func (f Fault) answer() answer {
	status := f.Status
	if status == 0 {
		status = http.StatusOK
	}
	var out answer
	switch {
	case f.HTML:
		out = htmlAnswer(status)
	case status == http.StatusOK:
		out = jsonAnswer(status, nil)
	default:
		out = jsonAnswer(status, (&apiError{status: status, message: statusText(status)}).body(ErrorsNew))
	}
	if f.Body != "" {
		out.body = []byte(f.Body)
	}
	return out
}

// pauser is a response writer that can let a pause happen while the body is read; see Account.Transport.
type pauser interface{ pause(time.Duration) }

// write sends the body, with what goes wrong while it is sent.
func (f Fault) write(w http.ResponseWriter, r *http.Request, body []byte) {
	if f.BodyDelay <= 0 && !f.Truncate {
		_, _ = w.Write(body) // The client may be gone; that is no concern of the account.
		return
	}
	half := len(body) / 2
	_, _ = w.Write(body[:half])
	_ = http.NewResponseController(w).Flush() // What cannot flush is in memory.
	if p, ok := w.(pauser); ok {
		p.pause(f.BodyDelay)
	} else if !wait(r.Context().Done(), f.BodyDelay) {
		panic(http.ErrAbortHandler)
	}
	if f.Truncate {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body[half:])
}
