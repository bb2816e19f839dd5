package publisher

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// Receipt stores a receipt, as [poller.Ledger] demands.
func (p *Publisher) Receipt(ctx context.Context, r poller.Receipt) error {
	e := &event.Reconciled{
		Envelope: event.Envelope{
			ID: event.ReconciledEventID(p.cfg.Account, r.At), Source: event.Source(p.cfg.Account), Type: event.ReconciledType, Time: r.At,
		},
		Data: event.ReconciledData{Contacts: r.Contacts, DifferencesFound: r.Differences, Requests: r.Requests, Method: string(r.Method), Since: r.Since},
	}
	msg := &nats.Msg{
		Subject: event.ReconciledSubject(p.cfg.Prefix, p.cfg.Account),
		Header:  nats.Header{event.HeaderID: {e.ID}, event.HeaderContentType: {event.ContentType}},
		Data:    e.Encode(),
	}
	for pauses := p.newBackOff(ctx); ; {
		began := time.Now()
		a, err := p.publish(ctx, msg) // Sent again, the server recognises it by its id.
		if err == nil {
			p.lastSeen = max(p.lastSeen, a.Sequence)
			return nil
		}
		err = p.sorted(ctx, p.conn.explain(err, began))
		if final, ok := asFatal(err); ok {
			return fmt.Errorf("receipt: %w", final)
		}
		if err := wait(ctx, pauses, err); err != nil {
			return fmt.Errorf("receipt: %w", p.meaning(err, p.eventObject().title))
		}
	}
}
