package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"

	"nimble-bridge/poller"
)

// serviceName is the name of the NATS micro service that every bridge is, and the first token of its subjects. They are none of the event stream's.
const serviceName = "nimble-bridge"

// What the service can be asked. Every bridge answers status; the rest is answered by the one that leads.
const (
	endpointStatus    = "status"
	endpointPause     = "pause"
	endpointResume    = "resume"
	endpointPollNow   = "poll-now"
	endpointExplain   = "explain"
	endpointDeletions = "confirm-deletions"
	endpointResync    = "resync"
)

// endpointSubject is where the bridges of an account are asked.
func endpointSubject(account, endpoint string) string {
	return serviceName + "." + account + "." + endpoint
}

// Codes of the service's errors, as HTTP has them.
const (
	codeWrong    = "400"
	codeConflict = "409"
	codeFailed   = "500"
	codeNotNow   = "503"
	codeBusy     = "504"
)

// answerWithin bounds how long a request may take: the server forgets after two minutes that an answer was allowed.
const answerWithin = 90 * time.Second

// The requests and answers that are not documented by themselves.
type (
	explainRequest struct {
		ID string `json:"id"`
	}
	deletionsRequest struct {
		// Confirm releases what is held; otherwise it is only listed.
		Confirm bool `json:"confirm,omitzero"`
	}
	deletionsAnswer struct {
		// Held are the contacts whose deletion waits, at most maxListed; HeldTotal is how many there are.
		Held      []string `json:"held"`
		HeldTotal int      `json:"held_total"`
		// Confirmed is how many of them were released. They are asked for once more and then published.
		Confirmed int `json:"confirmed"`
	}
	resyncRequest struct {
		Contacts []string `json:"contacts,omitzero"`
		All      bool     `json:"all,omitzero"`
	}
	resyncAnswer struct {
		Published int `json:"published"`
		// Missing are contacts that Nimble does not give.
		Missing []string `json:"missing"`
		// Resyncing says that the whole account is being published again.
		Resyncing bool `json:"resyncing"`
	}
)

// maxListed is how many ids fit well into one message.
const maxListed = 10_000

// control is a bridge's end of the commands that steer it.
type control struct {
	b       *bridge
	nc      *nats.Conn
	account string

	mu      sync.Mutex
	service micro.Service
}

// serve offers what this bridge can be asked. leader is its poller while it leads, and nil otherwise. What was offered before is taken back.
//
// A service cannot give up a single endpoint, so it is another one before and after: what "nats micro info" shows is what is answered.
func (c *control) serve(ctx context.Context, leader *poller.Poller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.service
	service, err := c.start(ctx, leader)
	if err != nil {
		c.b.log.Warn("commands cannot reach this bridge over NATS", zap.Error(err))
	}
	c.service = service
	stopService(before)
}

// stop takes everything back.
func (c *control) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	stopService(c.service)
	c.service = nil
}

func stopService(s micro.Service) {
	if s != nil {
		_ = s.Stop() // Fails only without a connection, and then nobody can ask anyway.
	}
}

func (c *control) start(ctx context.Context, leader *poller.Poller) (micro.Service, error) {
	role := "standby"
	if leader != nil {
		role = "leader"
	}
	c.b.mu.Lock()
	name := c.b.name
	c.b.mu.Unlock()
	settings := micro.Config{
		Name: serviceName, Version: strings.TrimPrefix(thisBuild().Version, "v"), Description: "Publishes the changes of a Nimble CRM account",
		Metadata: map[string]string{"account": c.account, "bridge": name, "role": role}, QueueGroupDisabled: true,
	}
	service, err := micro.AddService(c.nc, settings)
	if errors.Is(err, micro.ErrConfigValidation) { // Builds from a working copy have no version.
		settings.Version = "0.0.0"
		service, err = micro.AddService(c.nc, settings)
	}
	if err != nil {
		return nil, err
	}
	err = c.add(ctx, service, endpointStatus, func(ctx context.Context, _ []byte) (any, error) { return c.b.status(ctx), nil })
	if leader != nil {
		for endpoint, handle := range c.leading(leader) {
			err = errors.Join(err, c.add(ctx, service, endpoint, handle))
		}
	}
	if err != nil {
		stopService(service)
		return nil, err
	}
	return service, nil
}

// handle answers a request.
type handle func(ctx context.Context, request []byte) (answer any, err error)

func (c *control) add(ctx context.Context, service micro.Service, endpoint string, h handle) error {
	subject := endpointSubject(c.account, endpoint)
	return service.AddEndpoint(endpoint, micro.HandlerFunc(func(req micro.Request) {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		answer, err := h(ctx, req.Data())
		if endpoint != endpointStatus {
			c.b.log.Info("command", zap.String("command", endpoint), zap.Error(err))
		}
		var body []byte
		if err == nil {
			body, err = json.Marshal(answer, json.Deterministic(true))
		}
		if err == nil {
			err = req.Respond(body)
		} else {
			err = req.Error(codeOf(err), err.Error(), nil)
		}
		if err != nil {
			c.b.log.Warn("command not answered", zap.String("command", endpoint), zap.Error(err))
		}
	}), micro.WithEndpointSubject(subject))
}

// requestError says that a request makes no sense.
type requestError struct{ error }

// codeOf is the code under which an error is answered.
func codeOf(err error) string {
	switch {
	case is[*requestError](err):
		return codeWrong
	case errors.Is(err, poller.ErrPaused):
		return codeConflict
	case errors.Is(err, poller.ErrNotRunning), errors.Is(err, context.Canceled):
		return codeNotNow
	case errors.Is(err, context.DeadlineExceeded):
		return codeBusy
	}
	return codeFailed
}

// leading is what the bridge that leads can be asked.
func (c *control) leading(p *poller.Poller) map[string]handle {
	then := func(do func(context.Context) error) handle {
		return func(ctx context.Context, _ []byte) (any, error) {
			if err := do(ctx); err != nil {
				return nil, err
			}
			return c.b.status(ctx), nil
		}
	}
	return map[string]handle{
		endpointPause:   then(p.Pause),
		endpointResume:  then(p.Resume),
		endpointPollNow: then(p.PollNow),
		endpointExplain: func(ctx context.Context, request []byte) (any, error) {
			var r explainRequest
			if err := decodeRequest(request, &r); err != nil {
				return nil, err
			}
			if !word.MatchString(r.ID) {
				return nil, &requestError{fmt.Errorf("id is %q, want that of a contact", r.ID)}
			}
			return p.Explain(ctx, r.ID)
		},
		endpointDeletions: func(ctx context.Context, request []byte) (any, error) {
			var r deletionsRequest
			if err := decodeRequest(request, &r); err != nil {
				return nil, err
			}
			return deletions(ctx, p, r.Confirm)
		},
		endpointResync: func(ctx context.Context, request []byte) (any, error) {
			var r resyncRequest
			if err := decodeRequest(request, &r); err != nil {
				return nil, err
			}
			return resync(ctx, p, r)
		},
	}
}

func decodeRequest(request []byte, into any) error {
	if len(request) == 0 {
		return nil
	}
	if err := json.Unmarshal(request, into, json.RejectUnknownMembers(true)); err != nil {
		return &requestError{fmt.Errorf("request: %w", err)}
	}
	return nil
}

func deletions(ctx context.Context, p *poller.Poller, confirm bool) (deletionsAnswer, error) {
	held, err := p.HeldDeletions(ctx)
	if err != nil {
		return deletionsAnswer{}, err
	}
	answer := deletionsAnswer{Held: held[:min(len(held), maxListed)], HeldTotal: max(len(held), p.Status().Held)}
	if answer.Held == nil {
		answer.Held = []string{}
	}
	if confirm {
		answer.Confirmed, err = p.ConfirmDeletions(ctx)
	}
	return answer, err
}

func resync(ctx context.Context, p *poller.Poller, r resyncRequest) (resyncAnswer, error) {
	switch {
	case r.All == (len(r.Contacts) > 0):
		return resyncAnswer{}, &requestError{errors.New("a resync is of some contacts or of all")}
	case len(r.Contacts) > maxListed:
		return resyncAnswer{}, &requestError{fmt.Errorf("%d contacts at once, %d are possible; a resync of all is", len(r.Contacts), maxListed)}
	}
	for _, id := range r.Contacts {
		if !word.MatchString(id) {
			return resyncAnswer{}, &requestError{fmt.Errorf("contact %q, want an id", id)}
		}
	}
	result, err := p.Resync(ctx, r.Contacts...)
	answer := resyncAnswer{Published: result.Published, Missing: result.Missing, Resyncing: r.All}
	if answer.Missing == nil {
		answer.Missing = []string{}
	}
	return answer, err
}
