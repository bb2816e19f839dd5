package poller

import (
	"maps"
	"time"

	"go.uber.org/zap"
)

// State is what a poller is doing, in one word.
type State string

// The states of a poller.
const (
	// Starting: nothing is known yet.
	Starting State = "starting"
	// Snapshotting: the account is read for the first time.
	Snapshotting State = "snapshotting"
	// Polling: the last poll was complete.
	Polling State = "polling"
	// Failing: the last poll failed; Status.Err says why.
	Failing State = "failing"
	// Paused: a person has paused the polling.
	Paused State = "paused"
)

// Status is a poller seen from outside, at one moment.
type Status struct {
	State State
	// Findings are how changes are found at present.
	Findings Findings
	// Settled is the time on Nimble's clock up to which everything is published.
	Settled time.Time
	// FirstMet and SnapshotFinished are as in [Progress].
	FirstMet, SnapshotFinished time.Time
	// Contacts is the number of contacts known and not deleted.
	Contacts int
	// Published is the number of events stored since the start, by kind.
	Published map[Kind]int
	// LastPoll is when the last poll ended, LastSuccess when the last complete one did; by the local clock.
	LastPoll, LastSuccess time.Time
	// Failures is the number of polls that failed since the last complete one.
	Failures int
	// Err is why the last poll failed; nil after a complete one.
	Err error
	// LastReconcile is when the last complete reconciliation ended, LastAgreed when the last one did after which nothing differed; by the local clock.
	LastReconcile, LastAgreed time.Time
	// Reconciliation is the last one.
	Reconciliation ReconcileResult
	// Held is how many deletions wait for a person, since HeldSince.
	Held      int
	HeldSince time.Time
	// Resyncing says that the whole account is being published again.
	Resyncing bool
	// UnknownKeys are the keys of contacts that are in no document of the API, and therefore no content, each with how often a contact with it was read since the start. nil
	// while there is none.
	UnknownKeys map[string]int
}

// Status returns what the poller is doing. It may be called from any goroutine.
func (p *Poller) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Published = maps.Clone(s.Published)
	return s
}

// report brings the status up to date while a poll runs.
func (p *Poller) report() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Findings = p.ladder.findings()
	if len(p.unknown) > 0 {
		p.status.UnknownKeys = make(map[string]int, len(p.unknown)) // A new one: who asked before has the last.
		for key, n := range p.unknown {
			p.status.UnknownKeys[key] = *n
		}
	}
	if p.table == nil {
		return
	}
	p.status.Settled, p.status.Contacts = p.table.settled, p.table.present
	p.status.FirstMet, p.status.SnapshotFinished = p.progress.FirstMet, p.progress.SnapshotFinished
	p.status.Held, p.status.HeldSince, p.status.Resyncing = p.progress.Held, p.progress.HeldSince, p.progress.Resyncing
	switch {
	case p.progress.Paused:
		p.status.State = Paused
	case p.status.State == Paused:
		p.status.State = Starting
	case p.progress.SnapshotFinished.IsZero() && p.status.Failures == 0:
		p.status.State = Snapshotting
	}
}

// finish brings the status up to date after a poll.
func (p *Poller) finish(took time.Duration, err error) {
	p.report()
	if err != nil {
		p.failures++
	} else if p.failures > 0 {
		p.log.Info("polling recovered", zap.Int("failures", p.failures))
		p.failures = 0
	}
	now := time.Now()
	p.mu.Lock()
	p.status.LastPoll, p.status.Err, p.status.Failures = now, err, p.failures
	if err == nil {
		p.status.State, p.status.LastSuccess = Polling, now
	} else {
		p.status.State = Failing
	}
	for kind, n := range p.pass.published {
		p.status.Published[kind] += n
	}
	p.mu.Unlock()
	p.logPoll(took, err)
	if p.cfg.Polled != nil {
		p.cfg.Polled(PollResult{Duration: took, Requests: p.pass.requests, Examined: p.pass.examined, Published: p.pass.published, Err: err})
	}
}

// countPublished adds what a pass beside the polls has published to the status, and begins its count anew.
func (p *Poller) countPublished() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for kind, n := range p.pass.published {
		p.status.Published[kind] += n
	}
	clear(p.pass.published)
}

// logPoll writes one line for a poll that did something.
func (p *Poller) logPoll(took time.Duration, err error) {
	events := 0
	for _, n := range p.pass.published {
		events += n
	}
	level := zap.DebugLevel
	if events > 0 {
		level = zap.InfoLevel
	}
	p.log.Log(level, "poll", zap.Bool("complete", err == nil), zap.Int("events", events), zap.Int("snapshot", p.pass.published[Snapshot]),
		zap.Int("created", p.pass.published[Created]), zap.Int("updated", p.pass.published[Updated]), zap.Int("deleted", p.pass.published[Deleted]),
		zap.Int("examined", p.pass.examined), zap.Int("requests", p.pass.requests), zap.Duration("duration", took))
}
