package main

import (
	"context"
	"strings"

	"nimble-bridge/poller"
)

// ledger is a ledger as the bridge uses it: what the poller finishes although it has been told to stop can still be given up, and rejected records are
// counted.
type ledger struct {
	poller.Ledger
	metrics *metrics
	// abandoned ends when nothing is to be waited for any more.
	abandoned context.Context
}

// Append implements [poller.Ledger].
func (l ledger) Append(ctx context.Context, changes []poller.Change) ([]uint64, error) {
	ctx, done := l.until(ctx)
	defer done()
	return l.Ledger.Append(ctx, changes)
}

// SaveProgress implements [poller.Ledger].
func (l ledger) SaveProgress(ctx context.Context, p poller.Progress) error {
	ctx, done := l.until(ctx)
	defer done()
	return l.Ledger.SaveProgress(ctx, p)
}

// Receipt implements [poller.Ledger].
func (l ledger) Receipt(ctx context.Context, r poller.Receipt) error {
	ctx, done := l.until(ctx)
	defer done()
	return l.Ledger.Receipt(ctx, r)
}

// Reject implements [poller.Ledger].
func (l ledger) Reject(ctx context.Context, rejected []poller.Rejection) error {
	ctx, done := l.until(ctx)
	defer done()
	if err := l.Ledger.Reject(ctx, rejected); err != nil {
		return err
	}
	for _, r := range rejected {
		// What follows a colon differs from record to record; a label must not.
		reason, _, _ := strings.Cut(r.Reason, ":")
		l.metrics.rejected.WithLabelValues(reason).Inc()
	}
	return nil
}

// until is ctx, ending with abandoned as well.
func (l ledger) until(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	release := context.AfterFunc(l.abandoned, cancel)
	return ctx, func() {
		release()
		cancel()
	}
}
