package main

import (
	"context"
	"time"

	"nimble-bridge/poller"
)

// status is what /status answers.
type status struct {
	readiness
	Build   buildInfo `json:"build"`
	Account string    `json:"account"`
	Started time.Time `json:"started"`

	// Name is this bridge's, Leader that of the one that polls the account: another's on a standby, empty while nobody is known to.
	Name   string `json:"name,omitzero"`
	Leader string `json:"leader"`

	State    poller.State `json:"state"`
	Strategy string       `json:"strategy,omitzero"`
	// Watermark is the time on Nimble's clock up to which everything is published; LagSeconds is how long ago that is, which is never
	// less than the overlap.
	Watermark        time.Time           `json:"watermark,omitzero"`
	LagSeconds       float64             `json:"lag_seconds,omitzero"`
	FirstMet         time.Time           `json:"first_met,omitzero"`
	SnapshotFinished time.Time           `json:"snapshot_finished,omitzero"`
	Contacts         int                 `json:"contacts"`
	Events           map[poller.Kind]int `json:"events"`
	LastPoll         time.Time           `json:"last_poll,omitzero"`
	LastSuccess      time.Time           `json:"last_success,omitzero"`
	Failures         int                 `json:"failures"`
	// DeletionsHeld is how many deletions wait for a person.
	DeletionsHeld int             `json:"deletions_held"`
	HeldSince     time.Time       `json:"held_since,omitzero"`
	Resyncing     bool            `json:"resyncing,omitzero"`
	Reconcile     reconcileStatus `json:"reconcile"`
	// UnknownKeys are the keys of contacts that do not count as content because no document of the API has them, each with how often it was read.
	UnknownKeys map[string]int `json:"unknown_keys,omitzero"`

	NATS natsStatus `json:"nats"`
}

// standby is the state of a bridge that waits for another to end.
const standby poller.State = "standby"

// reconcileStatus is the part about reconciliations.
type reconcileStatus struct {
	// Last is when the last complete one ended, Agreed when the last one did after which nothing differed.
	Last   time.Time `json:"last,omitzero"`
	Agreed time.Time `json:"agreed,omitzero"`
	// The rest is about the last one, complete or not.
	Method      poller.Method `json:"method,omitzero"`
	Requests    int           `json:"requests,omitzero"`
	Differences int           `json:"differences,omitzero"`
	Unlocated   int           `json:"unlocated,omitzero"`
	Seconds     float64       `json:"seconds,omitzero"`
	Error       string        `json:"error,omitzero"`
}

// natsStatus is the part about NATS.
type natsStatus struct {
	URL       string `json:"url"`
	Embedded  bool   `json:"embedded"`
	Connected bool   `json:"connected"`
	Server    string `json:"server,omitzero"`
	Stream    string `json:"stream"`
	Bucket    string `json:"bucket"`
	// BucketBehind is how many events the bucket does not show yet; absent when that is not known.
	BucketBehind *uint64 `json:"bucket_behind,omitzero"`
}

// status tells how the bridge is at this moment.
func (b *bridge) status(ctx context.Context) status {
	s := status{readiness: b.readiness(), Build: thisBuild(), Started: b.began.UTC(), State: poller.Starting, Events: map[poller.Kind]int{}}
	b.mu.Lock()
	p, side, stream := b.poller, b.nats, b.stream
	s.Account, s.Name, s.Leader = b.account, b.name, b.leader
	b.mu.Unlock()
	s.NATS = side.status()
	s.NATS.Stream, s.NATS.Bucket = b.cfg.Stream, b.cfg.Bucket
	if p == nil {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if n, err := stream.BucketBehind(ctx); err == nil {
		s.NATS.BucketBehind = &n
	}
	now := p.Status()
	s.State, s.Strategy, s.Contacts, s.Failures = now.State, now.Findings.Strategy.String(), now.Contacts, now.Failures
	s.Watermark, s.FirstMet, s.SnapshotFinished = now.Settled, now.FirstMet, now.SnapshotFinished
	s.LastPoll, s.LastSuccess = now.LastPoll.UTC(), now.LastSuccess.UTC()
	s.UnknownKeys = now.UnknownKeys
	s.DeletionsHeld, s.HeldSince, s.Resyncing = now.Held, now.HeldSince, now.Resyncing
	r := now.Reconciliation
	s.Reconcile = reconcileStatus{
		Last: now.LastReconcile.UTC(), Agreed: now.LastAgreed.UTC(), Method: r.Method, Requests: r.Requests, Differences: r.Differences, Unlocated: r.Unlocated,
		Seconds: r.Duration.Round(time.Millisecond).Seconds(),
	}
	if r.Err != nil {
		s.Reconcile.Error = r.Err.Error()
	}
	if s.Leader != "" && s.Leader != s.Name {
		s.State = standby // What this poller knows is from when it led last, if ever.
	}
	if !now.Settled.IsZero() {
		s.LagSeconds = time.Since(now.Settled).Round(time.Millisecond).Seconds()
	}
	if now.Published != nil {
		s.Events = now.Published
	}
	return s
}
