package main

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
)

// lookAfter sees to the server, if it is the embedded one, to the stream and the buckets until ctx ends: whether this bridge polls or another does, consumers rely on
// them. It does so every now and then, and when something has happened.
func (b *bridge) lookAfter(ctx context.Context, side *natsSide, stream *publisher.Publisher) {
	nc := side.conn.NATS()
	back := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(back)
	doubted := false // Whether the bucket may lack something: the server was away, for what reason ever.
	looked := time.Now()
	for pause := b.checkUp / soonPart; ; looked = time.Now() {
		select {
		case <-ctx.Done():
			return
		case <-back:
			doubted = true
		case <-side.failed():
			if !rest(ctx, breath-time.Since(looked)) {
				return
			}
		case <-time.After(pause):
		}
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
		b.notFit(err)
		whole := true
		if err == nil && b.leads() {
			if whole, err = stream.MendBucket(ctx, doubted); err != nil {
				b.log.Debug("bucket not looked at", zap.Error(err))
			} else {
				doubted = false // It goes on by itself from here, until it is whole.
			}
		}
		pause = b.checkUp
		if err != nil || !whole {
			pause /= soonPart // Somebody may be about to mend it, or it is catching up.
		}
	}
}

// soonPart is the part of the usual pause that is left alone when something is amiss, and at the start.
const soonPart = 5

// breath is the least time between two looks, however much a server complains.
const breath = time.Second

// rest returns after a while, and whether ctx is still alive.
func rest(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// notFit notes what is wrong with the server, the stream or the buckets, or that nothing is.
func (b *bridge) notFit(err error) {
	b.mu.Lock()
	before := b.unfit
	b.unfit = err
	if before == nil {
		b.unfitSince = time.Now()
	}
	b.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		b.log.Error("not ready", zap.String("waiting_for", "stream"), zap.Error(err))
	case err == nil && before != nil:
		b.log.Info("stream and buckets are fit again")
	}
}
