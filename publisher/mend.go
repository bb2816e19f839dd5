package publisher

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// sourcing is what is known of how far the bucket can be relied on.
//
// NATS remembers how far it has sourced apart from what it has sourced. A disk that was full can leave the first further on than the second: the server then goes on from
// there after its next start, and the bucket lacks some events for ever, or shows the ones before them.
type sourcing struct {
	// believed is how far the bucket had come when it was read first, and was believed; begun whether MendBucket has taken that over.
	believed atomic.Uint64
	begun    bool
	// whole is the sequence up to which every event has reached the bucket, and its disk; next the one that will be whole when all is well at the next look.
	whole, next uint64
	// reached is how far the bucket had come when it was looked at last, and since when it has not come further.
	reached uint64
	since   time.Time
	// doubted says that the bucket may lack events after whole. mended is the sequence from which it was sourced again last, tries how often, mendedAt when.
	doubted  bool
	mended   uint64
	tries    int
	mendedAt time.Time
}

// How long the bucket may stand still behind the stream before it is helped. They are variables for the tests' sake.
var (
	// stalledAfter is longer than a cluster that lost a node takes by itself.
	stalledAfter = 90 * time.Second
	// doubtedAfter is for a single server that was away, and may have come back in a state in which it stands still for ever. Otherwise it needs a second or two.
	doubtedAfter = 5 * time.Second
)

const (
	// mendings is how often the same is tried.
	mendings = 3
	// fewContacts are looked up in the bucket one by one; for more, all of it is read.
	fewContacts = 500
)

// MendBucket looks whether the bucket follows the stream, and has NATS source it again from the first event that it lacks when NATS does not do so by itself: when it
// stands still, or, with doubted, when the server may have lost a part of it. Doubt lasts until the bucket was found whole, which MendBucket returns; it
// is to be called again until then. It is cheap while nothing is in doubt. One call at a time, please; and bridges that share a bucket leave it to one of them.
func (p *Publisher) MendBucket(ctx context.Context, doubted bool) (whole bool, err error) {
	s := &p.sourcing
	if !s.begun {
		// What happened to the server before this bridge began nobody knows.
		s.begun, s.whole = true, s.believed.Load()
		doubted = doubted || s.whole > 0
	}
	if doubted {
		s.doubted, s.next, s.since, s.tries = true, s.whole, time.Now(), 0
	}
	reached, last, err := p.bucketReach(ctx)
	if err != nil {
		return false, err
	}
	if reached != s.reached || s.since.IsZero() {
		s.reached, s.since = reached, time.Now()
	}
	patience := stalledAfter
	if s.doubted && p.nc.ConnectedClusterName() == "" {
		patience = doubtedAfter
	}
	switch {
	case reached < last && time.Since(s.since) < patience:
		return false, nil // On its way, most likely.
	case reached >= last && !s.doubted:
		s.whole, s.next = s.next, last
		return true, nil
	}
	missing, err := p.firstMissing(ctx, s.whole+1)
	if err != nil {
		return false, err
	}
	if missing == 0 {
		if s.doubted {
			s.doubted = false
			p.log.Debug("the bucket was found whole", zap.Uint64("from_seq", s.whole+1), zap.Uint64("to_seq", last))
		}
		s.whole, s.next = last, last
		return true, nil
	}
	if time.Since(s.mendedAt) < patience {
		return false, nil // It has hardly begun.
	}
	return false, p.mend(ctx, missing)
}

// mend has the bucket sourced again from an event that it lacks.
func (p *Publisher) mend(ctx context.Context, missing uint64) error {
	s := &p.sourcing
	if missing != s.mended {
		s.mended, s.tries = missing, 0
	}
	s.tries++
	s.mendedAt = time.Now()
	s.since = s.mendedAt
	hopeless := s.tries > mendings || !p.cfg.Manage
	switch {
	case hopeless && (s.tries == 1 || s.tries == mendings+1):
		s.doubted = false // Looking again changes nothing.
		p.log.Error("the bucket lacks events of the stream, and sourcing it again does not help or is not allowed; delete its stream and have it created anew, NATS fills it again",
			zap.String("stream", p.bucketStream), zap.Uint64("first_seq", missing), zap.Bool("managed", p.cfg.Manage))
		return nil
	case hopeless:
		return nil
	}
	p.log.Warn("the bucket lacks events of the stream", zap.String("bucket", p.cfg.Bucket), zap.Uint64("first_seq", missing))
	return p.sourceAgain(ctx, missing)
}

// firstMissing returns the first sequence, from the given one on, of a contact's last event that the bucket does not have; 0 if it has all.
func (p *Publisher) firstMissing(ctx context.Context, from uint64) (uint64, error) {
	last := make(map[string]uint64)
	err := p.scan(ctx, p.cfg.Stream, p.events(), from, func(m *nats.Msg, sequence uint64) error {
		last[lastToken(m.Subject)] = sequence
		return nil
	})
	if err != nil {
		return 0, err
	}
	settle := func(contact string, h nats.Header) {
		if sequence, ok := last[contact]; ok && sourceOf(h) >= sequence {
			delete(last, contact)
		}
	}
	if len(last) > fewContacts {
		err = p.scan(ctx, p.bucketStream, p.keys(), 1, func(m *nats.Msg, _ uint64) error {
			settle(lastToken(m.Subject), m.Header)
			return nil
		})
	} else {
		for contact := range maps.Clone(last) {
			var m *stored
			if m, err = p.last(ctx, p.bucketStream, p.key(contact)); err != nil {
				break
			}
			settle(contact, headerOfStored(m))
		}
	}
	if err != nil || len(last) == 0 {
		return 0, err
	}
	return slices.Min(slices.Collect(maps.Values(last))), nil
}
