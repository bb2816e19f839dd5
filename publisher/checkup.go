package publisher

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// CheckUp looks after the stream and the buckets while a bridge runs, since people delete and change them. What is missing or does not fit is set up again, as
// [Open] would, if [Config.Manage] allows that; else it is the error. What fits is left alone, however it differs from what Open would make. Anybody may
// call it.
func (p *Publisher) CheckUp(ctx context.Context) error {
	for _, o := range []struct {
		object
		shape func(*jetstream.StreamConfig)
		unfit func(jetstream.StreamConfig) []Misfit
	}{
		{p.eventObject(), p.shapeEvents, p.unfitEvents},
		{p.bucketObject(), p.shapeBucket, p.unfitBucket},
		{stateObject, p.shapeState, p.unfitState},
	} {
		if p.cfg.Manage {
			is, err := p.configOf(ctx, o.object)
			_, missing := errors.AsType[*MissingError](err)
			switch {
			case err == nil && len(o.unfit(is)) == 0:
				continue
			case err == nil || missing:
				p.log.Warn("a stream was deleted or changed while the bridge runs; it is set up again", zap.String("stream", o.name))
			}
		}
		if _, err := p.ensure(ctx, o.object, o.shape, o.unfit); err != nil {
			return err
		}
	}
	return nil
}
