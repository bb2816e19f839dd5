package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

const (
	apiPrefix = "$JS.API."
	// headerSource is on every message that NATS has sourced from another stream.
	headerSource = "Nats-Stream-Source"
)

// stored is a message of a stream.
type stored struct {
	Subject  string
	Sequence uint64
	Header   nats.Header
	Data     []byte
	// Time is when the server stored it.
	Time time.Time
}

// id is the event id that a message carries; empty for none, and for no message.
func (m *stored) id() string {
	if m == nil {
		return ""
	}
	return headerOf(m.Header, event.HeaderID)
}

// sequence is 0 for no message.
func (m *stored) sequence() uint64 {
	if m == nil {
		return 0
	}
	return m.Sequence
}

// at reads one message of a stream; nil if there is none at that sequence.
func (p *Publisher) at(ctx context.Context, stream string, sequence uint64) (*stored, error) {
	return p.get(ctx, stream, `{"seq":`+strconv.FormatUint(sequence, 10)+`}`)
}

// last reads the last message of a stream on the subjects that the filter matches; nil if there is none.
func (p *Publisher) last(ctx context.Context, stream, filter string) (*stored, error) {
	return p.get(ctx, stream, `{"last_by_subj":"`+filter+`"}`)
}

// get reads one message through the stream's leader, which is the only one to know for sure: direct gets, which the client library prefers where a
// stream allows them, are answered by any replica, however late it is.
func (p *Publisher) get(ctx context.Context, stream, request string) (*stored, error) {
	var answer struct {
		Error   *apiError `json:"error"`
		Message *struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Time     time.Time `json:"time"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
		} `json:"message"`
	}
	if err := p.ask(ctx, apiPrefix+"STREAM.MSG.GET."+stream, []byte(request), &answer); err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", stream, err)
	}
	switch {
	case answer.Error != nil && answer.Error.Code == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	case answer.Error != nil:
		return nil, fmt.Errorf("reading stream %s: %w", stream, p.meaning(answer.Error.asError(), "stream "+stream))
	case answer.Message == nil:
		return nil, fmt.Errorf("reading stream %s: answer without a message", stream)
	}
	m := &stored{Subject: answer.Message.Subject, Sequence: answer.Message.Sequence, Time: answer.Message.Time, Data: answer.Message.Data}
	if len(answer.Message.Header) > 0 {
		header, err := nats.DecodeHeadersMsg(answer.Message.Header)
		if err != nil {
			return nil, fmt.Errorf("reading stream %s: headers of message %d: %w", stream, m.Sequence, err)
		}
		m.Header = header
	}
	return m, nil
}

// apiError is an error in an answer of the JetStream API.
type apiError struct {
	Status      int                 `json:"code"`
	Code        jetstream.ErrorCode `json:"err_code"`
	Description string              `json:"description"`
}

func (e *apiError) asError() error {
	return &jetstream.APIError{Code: e.Status, ErrorCode: e.Code, Description: e.Description}
}

// extent is how far a stream reaches.
type extent struct {
	First, Last uint64
}

// extentOf asks a stream's leader how far it reaches. An empty stream has First = Last+1.
func (p *Publisher) extentOf(ctx context.Context, stream string) (extent, error) {
	var answer struct {
		Error *apiError `json:"error"`
		State struct {
			First uint64 `json:"first_seq"`
			Last  uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := p.ask(ctx, apiPrefix+"STREAM.INFO."+stream, nil, &answer); err != nil {
		return extent{}, fmt.Errorf("stream %s: %w", stream, err)
	}
	if answer.Error != nil {
		return extent{}, p.meaning(answer.Error.asError(), "stream "+stream)
	}
	e := extent{First: answer.State.First, Last: answer.State.Last}
	if e.First == 0 {
		e.First = 1
	}
	return e, nil
}

// ask sends a request and decodes the answer.
func (p *Publisher) ask(ctx context.Context, subject string, request []byte, answer any) error {
	began := time.Now()
	reply, err := p.conn.request(ctx, &nats.Msg{Subject: subject, Data: request}, p.cfg.AckTimeout)
	if err != nil {
		return p.conn.explain(err, began)
	}
	if err := json.Unmarshal(reply.Data, answer); err != nil {
		return fmt.Errorf("answer of the JetStream API: %w", err)
	}
	return nil
}

// scanBatch is how many messages a scan asks for at once.
const scanBatch = 4096

// errInterrupted says that a consumer went away, or skipped something.
var errInterrupted = errors.New("the consumer was interrupted")

// scan calls visit for every message from the given sequence on that a filter matches, in order, headers only, and returns when it has come to
// the end. The end is what the stream's leader calls the last such message at the start, or later: a consumer may be on a replica that has yet to catch up. Consumers
// that are lost on the way are replaced; what cannot be completed is an error.
func (p *Publisher) scan(ctx context.Context, stream, filter string, from uint64, visit func(m *nats.Msg, sequence uint64) error) error {
	end, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, stream, filter) })
	if err != nil {
		return err
	}
	retry := p.newBackOff(ctx)
	for next := max(from, 1); next <= end.sequence(); {
		reached, err := p.consume(ctx, stream, filter, next, visit)
		if reached >= next {
			next = reached + 1
			retry.Reset()
		}
		if err == nil && next > end.sequence() {
			break
		}
		if err != nil && !transient(err) {
			return err
		}
		if err := wait(ctx, retry, err); err != nil {
			return fmt.Errorf("reading stream %s from sequence %d: %w", stream, next, err)
		}
		// What was last may have been replaced or removed since.
		if end, err = patiently(ctx, p, func() (*stored, error) { return p.last(ctx, stream, filter) }); err != nil {
			return err
		}
	}
	return nil
}

// consume reads with one consumer until nothing is left for it. It returns the sequence of the last message visited, 0 for none.
func (p *Publisher) consume(ctx context.Context, stream, filter string, from uint64, visit func(*nats.Msg, uint64) error) (reached uint64, err error) {
	setup, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
	defer cancel()
	began := time.Now()
	consumer, err := p.js.CreateConsumer(setup, stream, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		FilterSubject:     filter,
		AckPolicy:         jetstream.AckNonePolicy,
		HeadersOnly:       true,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	})
	switch apiCode(err) {
	case jetstream.JSErrCodeConsumerCreate, jetstream.JSErrCodeConsumerNotFound, jetstream.JSErrCodeConsumerDoesNotExist:
		return 0, fmt.Errorf("%w: %w", errInterrupted, err) // Gone before it was there.
	}
	if err != nil {
		return 0, fmt.Errorf("reading stream %s: %w", stream, p.meaning(p.conn.explain(err, began), "stream "+stream))
	}
	info := consumer.CachedInfo()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.AckTimeout)
		defer cancel()
		if err := p.js.DeleteConsumer(ctx, stream, info.Name); err != nil {
			p.log.Debug("consumer not deleted; the server does that by itself", zap.String("stream", stream), zap.Error(err))
		}
	}()
	// Nothing to read is nothing to wait for.
	if info.NumPending == 0 {
		return 0, nil
	}
	inbox := p.nc.NewInbox()
	sub, err := p.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer func() { _ = sub.Unsubscribe() }() // Fails only when the connection is gone, and the subscription with it.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return 0, err
	}
	request := []byte(`{"batch":` + strconv.Itoa(scanBatch) + `,"no_wait":true}`)
	subject := apiPrefix + "CONSUMER.MSG.NEXT." + stream + "." + info.Name
	var asked time.Time
	for delivered := uint64(0); ; {
		// One request at a time: the server answers a second one, made while the first is open, with an error instead of messages.
		if delivered%scanBatch == 0 {
			asked = time.Now()
			if err := p.conn.send(&nats.Msg{Subject: subject, Reply: inbox, Data: request}); err != nil {
				return reached, err
			}
		}
		msg, err := p.next(ctx, sub)
		if err != nil {
			return reached, p.conn.explain(err, asked)
		}
		place, err := placeOf(msg)
		if err != nil {
			if msg.Header.Get("Status") == "404" {
				return reached, nil // Nothing more at present.
			}
			return reached, fmt.Errorf("%w: %s %s", errInterrupted, msg.Header.Get("Status"), msg.Header.Get("Description"))
		}
		if delivered++; place.delivered != delivered {
			return reached, fmt.Errorf("%w: message %d came as number %d", errInterrupted, place.sequence, place.delivered)
		}
		if err := visit(msg, place.sequence); err != nil {
			return reached, err
		}
		reached = place.sequence
		if place.pending == 0 {
			return reached, nil
		}
	}
}

// next waits for a message, looking at the context now and then: a context with a time limit for each of a million messages would cost more
// than reading them.
func (p *Publisher) next(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	const glance = 100 * time.Millisecond
	for waited := time.Duration(0); waited < p.cfg.AckTimeout; waited += glance {
		msg, err := sub.NextMsg(glance)
		if err == nil || !errors.Is(err, nats.ErrTimeout) {
			return msg, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !p.conn.Connected() {
			break
		}
	}
	return nil, fmt.Errorf("%w: no message came: %w", errInterrupted, nats.ErrTimeout)
}

// place is where a delivered message stands.
type place struct {
	sequence, delivered, pending uint64
}

// placeOf reads a message's reply subject, $JS.ACK.[<domain>.<account hash>.]<stream>.<consumer>.<tries>.<sequence>.<delivered>.<time>.<pending>[.<token>]. An
// error means that the message is none of a stream but a status.
func placeOf(msg *nats.Msg) (place, error) {
	const short, long = 9, 11
	var room [12]string
	tokens := room[:0]
	for token := range strings.SplitSeq(msg.Reply, ".") {
		if tokens = append(tokens, token); len(tokens) == cap(tokens) {
			break
		}
	}
	at := 5
	switch {
	case len(tokens) == short:
	case len(tokens) >= long:
		at += 2
	default:
		return place{}, errors.New("no stream message")
	}
	var pl place
	var err [3]error
	pl.sequence, err[0] = strconv.ParseUint(tokens[at], 10, 64)
	pl.delivered, err[1] = strconv.ParseUint(tokens[at+1], 10, 64)
	pl.pending, err[2] = strconv.ParseUint(tokens[at+3], 10, 64)
	return pl, errors.Join(err[:]...)
}

// headerOf is the first value of a header, which has to be spelled as NATS has it.
func headerOf(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// sourceOf reads the header that NATS puts on a message it has sourced: the sequence in the stream it comes from; 0 if there is none. The header
// reads "<stream> <sequence> <filter> <transform> <subject> [<identity>]".
func sourceOf(h nats.Header) uint64 {
	_, rest, _ := strings.Cut(headerOf(h, headerSource), " ")
	text, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
