package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
)

// place finds out what the log and the stream have in common, and notes in the log what they have not: a stream that was made anew, one that has lost its
// end, and messages that are gone before they were audited.
func (a *auditor) place(ctx context.Context) (jetstream.Stream, error) {
	stream, state, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	created := stream.CachedInfo().Created
	switch {
	case a.w.empty():
		a.w.header.created = created
	case !created.Equal(a.w.header.created):
		a.log.Error("the stream was made anew; the audit log goes on with the new one", zap.Time("created", created), zap.Uint64("after_seq", a.w.position))
		if err := a.w.anew(created); err != nil {
			return nil, err
		}
	default:
		if err := a.rewind(ctx, stream, state); err != nil {
			return nil, err
		}
	}
	if state.FirstSeq > a.w.position+1 {
		return stream, a.gap(Gap{From: a.w.position + 1, To: state.FirstSeq - 1, Reason: BeforeFirst})
	}
	return stream, nil
}

// open looks the stream up.
func (a *auditor) open(ctx context.Context) (jetstream.Stream, *jetstream.StreamState, error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	stream, err := a.js.Stream(limited, a.cfg.Stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, nil, fmt.Errorf("stream %s does not exist; start the bridge, which makes it, or set NATS_STREAM", a.cfg.Stream)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return nil, nil, &publisher.NoJetStreamError{Err: err}
	case err != nil:
		return nil, nil, fmt.Errorf("stream %s: %w", a.cfg.Stream, a.conn.Explain(err, began))
	}
	return stream, &stream.CachedInfo().State, nil
}

// rewind compares the end of the log with the stream, and goes back to where they agree. They do not after a power failure has taken the stream's end, and
// its sequences were used again. What the stream has no more cannot be compared, and stands.
func (a *auditor) rewind(ctx context.Context, stream jetstream.Stream, state *jetstream.StreamState) error {
	agreed, differs := uint64(0), state.LastSeq < a.w.position
	compare := func(m known) (more bool, err error) {
		if m.sequence > state.LastSeq {
			return true, nil
		}
		if m.sequence < state.FirstSeq {
			agreed = m.sequence
			return false, nil
		}
		has, err := a.facts(ctx, stream, m.sequence)
		switch {
		case err != nil:
			return false, err
		case has == nil:
			return true, nil // Deleted.
		case *has == m.facts:
			agreed = m.sequence
			return false, nil
		}
		differs = true
		return true, nil
	}
	if !differs && a.w.last.sequence > 0 {
		// Nearly always the last message is all that has to be looked at.
		if more, err := compare(a.w.last); err != nil || !more {
			return err
		}
	}
	if err := a.w.backwards(compare); err != nil || !differs {
		return err
	}
	// Sequences of which the log knows that they are gone need not be read again, if the stream does not have them again.
	to := min(max(agreed, min(state.FirstSeq, state.LastSeq+1)-1), a.w.position)
	a.log.Error("the stream has lost its end, and other messages have those sequences; the audit log notes it and reads them",
		zap.Uint64("audited_seq", a.w.position), zap.Uint64("agreed_seq", to))
	return a.w.rewound(to)
}

// facts reads what the log would say of a message; nil if the stream does not have it.
func (a *auditor) facts(ctx context.Context, stream jetstream.Stream, sequence uint64) (*Hash, error) {
	m, err := a.get(ctx, stream, sequence)
	if err != nil || m == nil {
		return nil, err
	}
	var content []byte
	content, a.w.room = contentOf(m.Data, a.w.room)
	sum := hashOf((&message{Sequence: m.Sequence, Stored: m.Time, Subject: m.Subject, Header: m.Header, Data: m.Data}).appendFacts(nil, content))
	return &sum, nil
}

// get reads a message, nil if there is none.
func (a *auditor) get(ctx context.Context, stream jetstream.Stream, sequence uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	m, err := stream.GetMsg(limited, sequence, opts...)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading stream %s at %d: %w", a.cfg.Stream, sequence, a.conn.Explain(err, began))
	}
	return m, nil
}

// missing notes that the stream has nothing between what was audited and the given sequence, after the stream's leader has confirmed it.
func (a *auditor) missing(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	m, err := a.get(ctx, stream, a.w.position+1, jetstream.WithGetMsgSubject(">"))
	switch {
	case err != nil:
		return err
	case m == nil || m.Sequence < sequence:
		return fmt.Errorf("%w: sequence %d after %d", errOrder, sequence, a.w.position)
	}
	_, state, err := a.open(ctx)
	if err != nil {
		return err
	}
	if first := min(state.FirstSeq, sequence); first > a.w.position+1 {
		if err := a.gap(Gap{From: a.w.position + 1, To: first - 1, Reason: BeforeFirst}); err != nil {
			return err
		}
	}
	if a.w.position+1 == sequence {
		return nil
	}
	return a.gap(Gap{From: a.w.position + 1, To: sequence - 1, Reason: Deleted})
}

// gap notes that messages are gone.
func (a *auditor) gap(g Gap) error {
	facts := []zap.Field{zap.Uint64("from_seq", g.From), zap.Uint64("to_seq", g.To)}
	if g.Reason == Deleted {
		a.log.Warn("messages were deleted from the stream before they were audited; the audit log notes the gap", facts...)
	} else {
		a.log.Error("the stream begins later than it should: messages are gone before they were audited; the audit log notes the gap", facts...)
	}
	return a.w.gap(g)
}
