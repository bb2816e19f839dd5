package publisher

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// The account's keys in the state bucket are <account>.<name>.
const (
	keyProgress = "progress"
	keyDoubt    = "doubt"
)

func (p *Publisher) stateKey(name string) string { return p.cfg.Account + "." + name }

// Progress returns what was saved last, as [poller.Ledger] demands. Where that is gone and events of the account are there, the time at which the first of them was
// stored takes the place of the first meeting.
func (p *Publisher) Progress(ctx context.Context) (poller.Progress, error) {
	var progress poller.Progress
	_, data, err := p.readState(ctx, keyProgress)
	if err != nil {
		return progress, err
	}
	if len(data) == 0 {
		return p.firstProgress(ctx)
	}
	if err := json.Unmarshal(data, &progress); err != nil {
		return poller.Progress{}, fmt.Errorf("key %s in bucket %s: %w", p.stateKey(keyProgress), StateBucket, err)
	}
	return progress, nil
}

// firstProgress is what the stream says of the progress where none was saved.
func (p *Publisher) firstProgress(ctx context.Context) (poller.Progress, error) {
	first, err := patiently(ctx, p, func() (*stored, error) {
		return p.get(ctx, p.cfg.Stream, `{"seq":1,"next_by_subj":"`+p.events()+`"}`)
	})
	if err != nil || first == nil {
		return poller.Progress{}, err
	}
	return poller.Progress{FirstMet: first.Time.UTC()}, nil
}

// SaveProgress replaces what was saved, as [poller.Ledger] demands. The first one to be saved replaces nothing: when another bridge has met the account
// meanwhile, the error wraps [poller.ErrConflict].
func (p *Publisher) SaveProgress(ctx context.Context, progress poller.Progress) error {
	data, err := json.Marshal(progress)
	if err != nil {
		return err
	}
	return p.writeState(ctx, keyProgress, data, func(is []byte) error {
		var met poller.Progress
		if len(is) == 0 || json.Unmarshal(is, &met) != nil || met.FirstMet.Equal(progress.FirstMet) {
			return nil
		}
		return fmt.Errorf("the account was first met at %v, not at %v: %w", met.FirstMet, progress.FirstMet, poller.ErrConflict)
	})
}

// readState reads a key of the state bucket through its leader: an answer that is out of date, or none, must not pass for an account that was never met.
func (p *Publisher) readState(ctx context.Context, name string) (sequence uint64, data []byte, err error) {
	m, err := patiently(ctx, p, func() (*stored, error) {
		return p.last(ctx, stateObject.name, "$KV."+StateBucket+"."+p.stateKey(name))
	})
	if err != nil {
		return 0, nil, err
	}
	if m == nil || headerOf(m.Header, event.HeaderOperation) != "" {
		return m.sequence(), nil, nil
	}
	return m.Sequence, m.Data, nil
}

// writeState replaces a key if allowed, given what it has now, does not object; it may be nil.
func (p *Publisher) writeState(ctx context.Context, name string, data []byte, allowed func(is []byte) error) error {
	subject := "$KV." + StateBucket + "." + p.stateKey(name)
	for pauses := p.newBackOff(ctx); ; {
		sequence, is, err := p.readState(ctx, name)
		if err != nil {
			return err
		}
		if bytes.Equal(is, data) {
			return nil // Also when an earlier attempt was stored and not acknowledged.
		}
		if allowed != nil {
			if err := allowed(is); err != nil {
				return err
			}
		}
		began := time.Now()
		msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{headerExpected: {strconv.FormatUint(sequence, 10)}}}
		_, err = p.publish(ctx, msg)
		err = p.conn.explain(err, began)
		if err == nil {
			return nil
		}
		if !refusedForOrder(err) && !transient(err) {
			return fmt.Errorf("key %s in bucket %s: %w", p.stateKey(name), StateBucket, p.meaning(err, stateObject.title))
		}
		if err := wait(ctx, pauses, err); err != nil {
			return fmt.Errorf("key %s in bucket %s: %w", p.stateKey(name), StateBucket, err)
		}
	}
}

func headerTime(h nats.Header, name string) time.Time {
	text := headerOf(h, name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{} // As if Nimble had given none.
	}
	return t.UTC()
}
