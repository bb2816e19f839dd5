package publisher

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// loadRejected reads the ids of the notices that the stream has. They are few: a record is noticed once.
func (p *Publisher) loadRejected(ctx context.Context) error {
	p.rejected, p.rejectedAt = make(map[string]struct{}), 0
	return p.readRejected(ctx)
}

// readRejected reads what came since.
func (p *Publisher) readRejected(ctx context.Context) error {
	subject := event.RejectedSubject(p.cfg.Prefix, p.cfg.Account)
	newest := uint64(0)
	err := p.scan(ctx, p.cfg.Stream, subject, p.rejectedAt+1, func(m *nats.Msg, sequence uint64) error {
		p.rejected[headerOf(m.Header, event.HeaderID)] = struct{}{}
		newest = sequence
		return nil
	})
	if err != nil {
		return err
	}
	if newest == 0 {
		// Nothing new, or what was there has been removed by a limit.
		m, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.cfg.Stream, subject) })
		if err != nil {
			return err
		}
		newest = m.sequence()
	}
	p.rejectedAt = newest
	return nil
}

// Reject stores a notice for each record that was not noticed before, as [poller.Ledger] demands.
func (p *Publisher) Reject(ctx context.Context, rejected []poller.Rejection) error {
	if p.rejected == nil {
		if err := p.loadRejected(ctx); err != nil {
			return err
		}
	}
	for _, r := range rejected {
		if err := p.reject(ctx, r); err != nil {
			return fmt.Errorf("rejected record: %w", err)
		}
	}
	return nil
}

func (p *Publisher) reject(ctx context.Context, r poller.Rejection) error {
	msg := p.notice(r)
	id := msg.Header[event.HeaderID][0]
	for pauses := p.newBackOff(ctx); ; {
		if _, done := p.rejected[id]; done {
			return nil
		}
		began := time.Now()
		sequence, err := p.publishNotice(ctx, msg)
		if err == nil {
			p.rejected[id], p.rejectedAt = struct{}{}, sequence
			p.lastSeen = max(p.lastSeen, sequence)
			return nil
		}
		err = p.sorted(ctx, p.conn.explain(err, began))
		if final, ok := asFatal(err); ok {
			return final
		}
		// Refused, since another notice is there: perhaps this one.
		if err := p.readRejected(ctx); err != nil {
			return err
		}
		if err := wait(ctx, pauses, err); err != nil {
			return p.meaning(err, p.eventObject().title)
		}
	}
}

// NoticeOf returns the event about a record of an account that cannot be understood, as [Publisher.Reject] stores it, but for what a message has no room for.
func NoticeOf(account string, r poller.Rejection) *event.Rejected {
	return &event.Rejected{
		Envelope: event.Envelope{
			ID: event.RejectedEventID(account, r.ContactID, r.Record), Source: event.Source(account), Type: event.RejectedType, Subject: r.ContactID, Time: r.Observed,
		},
		Data: event.RejectedData{Reason: r.Reason, ContactID: r.ContactID, Record: r.Record},
	}
}

// notice makes the message about a rejected record. A record that does not fit is left out.
func (p *Publisher) notice(r poller.Rejection) *nats.Msg {
	e := NoticeOf(p.cfg.Account, r)
	msg := &nats.Msg{
		Subject: event.RejectedSubject(p.cfg.Prefix, p.cfg.Account),
		Header:  nats.Header{event.HeaderID: {e.ID}, event.HeaderContentType: {event.ContentType}},
		Data:    e.Encode(),
	}
	if sizeOf(msg) > p.limit() {
		e.Data.Record, e.Data.Reason = nil, fmt.Sprintf("%s (the record of %d bytes does not fit a message)", r.Reason, len(r.Record))
		msg.Data = e.Encode()
	}
	return msg
}

// publishNotice stores a notice if no other came in between.
func (p *Publisher) publishNotice(ctx context.Context, msg *nats.Msg) (uint64, error) {
	msg.Header[headerExpected] = []string{strconv.FormatUint(p.reachable(p.rejectedAt), 10)}
	a, err := p.publish(ctx, msg)
	return a.Sequence, err
}
