package main

import (
	"context"
	"errors"
	"testing"

	"nimble-bridge/poller"
)

// frozen is a ledger whose server never answers.
type frozen struct{ poller.Ledger }

func (frozen) Append(ctx context.Context, _ []poller.Change) ([]uint64, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (frozen) SaveProgress(ctx context.Context, _ poller.Progress) error {
	<-ctx.Done()
	return ctx.Err()
}

func (frozen) Reject(ctx context.Context, _ []poller.Rejection) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestWhatWillNotFinishIsGivenUp(t *testing.T) {
	abandoned, abandon := context.WithCancel(t.Context())
	l := ledger{frozen{}, newMetrics(), abandoned}
	failed := make(chan error)
	calls := []func(context.Context) error{
		func(ctx context.Context) error { _, err := l.Append(ctx, nil); return err },
		func(ctx context.Context) error { return l.SaveProgress(ctx, poller.Progress{}) },
		func(ctx context.Context) error { return l.Reject(ctx, nil) },
	}
	for _, call := range calls {
		go func() { failed <- call(context.WithoutCancel(t.Context())) }() // As the poller calls it when it is told to stop.
	}
	select {
	case err := <-failed:
		t.Fatalf("given up before it was abandoned: %v", err)
	default:
	}
	abandon()
	for range calls {
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("given up with %v, want that it was cancelled", err)
		}
	}
}
