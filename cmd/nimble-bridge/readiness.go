package main

import (
	"errors"
	"time"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
)

// readiness says whether the bridge does its job, and what keeps it from it.
type readiness struct {
	Ready bool `json:"ready"`
	// Reason is one of the reasons below, for machines; empty when ready.
	Reason reason `json:"reason,omitzero"`
	// Message is for people.
	Message string `json:"message,omitzero"`
	// Since is when this began.
	Since time.Time `json:"since,omitzero"`
}

// reason is why the bridge is not ready.
type reason string

const (
	starting          reason = "starting"
	stopping          reason = "stopping"
	keyRefused        reason = "key_refused"
	nimbleUnreachable reason = "nimble_unreachable"
	nimbleThrottles   reason = "nimble_throttles"
	nimbleFails       reason = "nimble_fails"
	natsUnreachable   reason = "nats_unreachable"
	natsRefuses       reason = "nats_refuses"
	streamUnfit       reason = "stream_unfit"
	streamFull        reason = "stream_full"
	natsFails         reason = "nats_fails"
	deletionsHeld     reason = "deletions_held"
	paused            reason = "paused"
)

// reasonOfNimble tells what kind of failure of the API an error is; ok is false for errors that are not the API's.
func reasonOfNimble(err error) (r reason, ok bool) {
	switch {
	case is[*nimble.CredentialsError](err):
		return keyRefused, true
	case is[*nimble.TransportError](err):
		return nimbleUnreachable, true
	case is[*nimble.RateLimitError](err):
		return nimbleThrottles, true
	case is[*nimble.ServerError](err), is[*nimble.NotJSONError](err), is[*nimble.TruncatedError](err), is[*nimble.TooLargeError](err),
		is[*nimble.ValidationError](err), is[*nimble.StatusError](err), is[*poller.SurpriseError](err):
		return nimbleFails, true
	}
	return "", false
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
