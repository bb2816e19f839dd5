package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/publisher"
)

// lookAfter sees to the stream and the buckets until ctx ends: whether this bridge polls or another does, consumers rely on them.
func (b *bridge) lookAfter(ctx context.Context, side *natsSide, stream *publisher.Publisher) {
	for pause := b.checkUp; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = b.checkUp
		err := side.checkServer(b.log)
		if err == nil {
			if side.away() != nil {
				continue
			}
			limited, done := context.WithTimeout(ctx, b.checkUp)
			err = stream.CheckUp(limited)
			done()
			if ctx.Err() != nil || side.away() != nil {
				continue
			}
		}
		b.mu.Lock()
		before := b.unfit
		b.unfit = err
		if before == nil {
			b.unfitSince = time.Now()
		}
		b.mu.Unlock()
		if err != nil {
			pause /= 5 // Somebody may be about to mend it.
		}
		switch {
		case err != nil && (before == nil || before.Error() != err.Error()):
			b.log.Error("not ready", zap.String("waiting_for", "stream"), zap.Error(err), zap.Duration("retry_in", pause))
		case err == nil && before != nil:
			b.log.Info("stream and buckets are fit again")
		}
	}
}
