package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/poller"
)

// silence warns once when no poll has succeeded for suspiciously long, whatever the reason, and says once when one does again. A poll that hangs fails nothing, so nobody
// would hear of it otherwise.
type silence struct {
	log *zap.Logger
	// interval is the time between polls.
	interval time.Duration
	// elsewhere tells whether another bridge polls, status how polling goes here.
	elsewhere func() bool
	status    func() poller.Status
	// usual returns how long the last complete poll took, which is longer than the interval in accounts that have to be read whole.
	usual func() time.Duration
}

// suspicious is how many intervals may pass without a complete poll.
const suspicious = 5

// lookEvery keeps a bridge that polls every few milliseconds from looking as often.
const lookEvery = 250 * time.Millisecond

// run returns when ctx ends.
func (s silence) run(ctx context.Context) {
	ticker := time.NewTicker(max(s.interval, lookEvery))
	defer ticker.Stop()
	var since time.Time // Since when a complete poll has been due; zero while none is.
	warned := false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			status := s.status()
			switch {
			case s.elsewhere(), status.State == poller.Paused, status.State == poller.Snapshotting, status.State == poller.Starting:
				// Others poll, a person has said so, or it is no wonder.
				since, warned = time.Time{}, false
				continue
			case since.IsZero():
				since = now
			}
			if status.LastSuccess.After(since) {
				if warned {
					s.log.Info("polls succeed again", zap.Duration("silent_for", status.LastSuccess.Sub(since).Round(time.Millisecond)))
				}
				since, warned = status.LastSuccess, false
			}
			quiet := now.Sub(since)
			if !warned && quiet > max(suspicious*s.interval, 2*s.usual()+s.interval) {
				warned = true
				s.log.Warn("no poll has succeeded for suspiciously long", zap.Duration("silent_for", quiet.Round(time.Millisecond)), zap.Time("last_success", status.LastSuccess),
					zap.Int("failures", status.Failures), zap.Error(status.Err))
			}
		}
	}
}
