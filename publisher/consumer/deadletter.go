package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

// The headers of a dead letter, beside those that the event had. Its body is the event's.
const (
	// DeadConsumer is the durable that gave up, DeadReason a [Reason], DeadError the last error's text and DeadTries the number of tries.
	DeadConsumer = "Nimble-Dead-Consumer"
	DeadReason   = "Nimble-Dead-Reason"
	DeadError    = "Nimble-Dead-Error"
	DeadTries    = "Nimble-Dead-Tries"
	// DeadStream, DeadSequence, DeadSubject and DeadStored are where and when the event was stored.
	DeadStream   = "Nimble-Dead-Stream"
	DeadSequence = "Nimble-Dead-Sequence"
	DeadSubject  = "Nimble-Dead-Subject"
	DeadStored   = "Nimble-Dead-Stored"
	// DeadBody is "omitted" on a letter that would have been too large with the body, which is still in the event stream.
	DeadBody = "Nimble-Dead-Body"
	// DeadOriginal is put in front of those of the event's own headers that mean something to the server, which begin with "Nats-".
	DeadOriginal = "Nimble-Dead-Original-"
)

const (
	omitted    = "omitted"
	natsHeader = "Nats-"
	// longestError bounds the text of an error in a letter.
	longestError = 2 << 10
	// unknown stands in a letter's subject for an account and a contact that are not known.
	unknown = "_"
)

// Reason says why an event became a dead letter.
type Reason string

// The reasons.
const (
	// Exhausted: all tries have failed.
	Exhausted Reason = "exhausted"
	// Refused: the handler said that no further try would help.
	Refused Reason = "refused"
	// Unreadable: the message is no contact event.
	Unreadable Reason = "unreadable"
)

// failure is what a letter says of how it came about.
type failure struct {
	err    error
	tries  int
	reason Reason
}

// Letters stand on <dead letters>.<durable>.letter.<account>.<contact id>, and those to be handled again on the same with "again".
func letterSubject(stream, durable, kind, account, contact string) string {
	return strings.Join([]string{stream, durable, kind, account, contact}, ".")
}

const (
	kindLetter = "letter"
	kindAgain  = "again"
)

// againDurable is the consumer of the letters that are to be handled again.
func (c *Config) againDurable(is jetstream.ConsumerConfig, exists bool) jetstream.ConsumerConfig {
	is = c.durable(is)
	is.FilterSubject, is.FilterSubjects = "", []string{letterSubject(c.DeadLetters, c.Durable, kindAgain, "*", "*")}
	if is.Description == "" {
		is.Description = "Dead letters that are to be handled again"
	}
	if !exists {
		is.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	return is
}

// ensureDeadLetters creates the stream of dead letters if there is none, at the start and not when it is needed.
func (r *runner) ensureDeadLetters(ctx context.Context) error {
	stream, err := r.js.Stream(ctx, r.cfg.DeadLetters)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = r.js.CreateStream(ctx, jetstream.StreamConfig{
			Name:        r.cfg.DeadLetters,
			Description: "Events that consumers of nimble-bridge have given up",
			Subjects:    []string{r.cfg.DeadLetters + ".>"},
			Storage:     jetstream.FileStorage,
			Replicas:    r.stream.CachedInfo().Config.Replicas,
			// A letter gives way to no other.
			Discard: jetstream.DiscardNew,
		})
	}
	if err != nil {
		return fmt.Errorf("stream %s for dead letters: %w", r.cfg.DeadLetters, err)
	}
	if has := stream.CachedInfo().Config.Subjects; !slices.Contains(has, r.cfg.DeadLetters+".>") {
		return fmt.Errorf("stream %s has the subjects %s, and dead letters need %s.>: change it, or set DeadLetters to another name",
			r.cfg.DeadLetters, strings.Join(has, ", "), r.cfg.DeadLetters)
	}
	return nil
}

// bury stores an event as a dead letter, and only then acknowledges it. While it cannot be stored the event is kept, and its contact waits.
func (r *runner) bury(l *lane, h *held, msg *message, f failure) {
	log := r.log.With(zap.String("stream", h.source.stream), zap.Uint64("seq", h.sequence))
	letter := r.letter(h, msg, f)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) {
		err := r.store(letter)
		if err == nil {
			break
		}
		log.Error("dead letter not stored; the event is kept", zap.Duration("retry_in", pause), zap.Error(err))
		if !r.pause(h, pause) {
			r.setState(h, waiting)
			return
		}
	}
	log.Error("event given up", zap.String("letter", letter.Subject), zap.String("reason", string(f.reason)), zap.Int("attempts", f.tries), zap.Error(f.err))
	r.settle(l, h, msg)
}

// store publishes a letter, without its body if it does not fit otherwise.
func (r *runner) store(letter *nats.Msg) error {
	err := r.publish(letter)
	if refused, ok := errors.AsType[*jetstream.APIError](err); errors.Is(err, nats.ErrMaxPayload) || ok && refused.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum {
		letter.Data = nil
		letter.Header.Set(DeadBody, omitted)
		err = r.publish(letter)
	}
	return err
}

func (r *runner) publish(letter *nats.Msg) error {
	ctx, cancel := context.WithTimeout(r.hard, answerTimeout)
	defer cancel()
	_, err := r.js.PublishMsg(ctx, letter, jetstream.WithExpectStream(r.cfg.DeadLetters))
	return err
}

// letter makes the dead letter of a message, which may have been one before.
func (r *runner) letter(h *held, msg *message, f failure) *nats.Msg {
	header := headersOf(msg.Header)
	if isLetter(header) {
		maps.DeleteFunc(header, func(key string, _ []string) bool { return strings.HasPrefix(key, natsHeader) })
	} else {
		for key, values := range header {
			if strings.HasPrefix(key, natsHeader) {
				delete(header, key)
				header[DeadOriginal+key] = values
			}
		}
		header.Set(DeadConsumer, r.cfg.Durable)
		header.Set(DeadStream, h.source.stream)
		header.Set(DeadSequence, strconv.FormatUint(h.sequence, 10))
		header.Set(DeadSubject, msg.Subject)
		header.Set(DeadStored, h.stored.UTC().Format(time.RFC3339Nano))
	}
	header.Set(DeadReason, string(f.reason))
	header.Set(DeadError, oneLine(f.err.Error()))
	header.Set(DeadTries, strconv.Itoa(f.tries))
	// Told twice, the server stores it once. Given up again later, it is another letter.
	header.Set(event.HeaderID, fmt.Sprintf("%s/%s/%d/%s", r.cfg.Durable, h.source.stream, h.sequence, idOf(msg)))
	account, contact := unknown, unknown
	if s, err := event.ParseSubject(originalSubject(msg)); err == nil {
		account, contact = s.Account, s.ContactID
	}
	return &nats.Msg{Subject: letterSubject(r.cfg.DeadLetters, r.cfg.Durable, kindLetter, account, contact), Header: header, Data: msg.Data}
}

// oneLine fits a text into a header.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) <= longestError {
		return s
	}
	cut := longestError
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

func isLetter(h nats.Header) bool { return len(h[DeadSubject]) > 0 }

// originalSubject is the subject of the event that a message is, or was before it became a letter.
func originalSubject(msg *message) string {
	if h := msg.Header; isLetter(h) {
		return h.Get(DeadSubject)
	}
	return msg.Subject
}

// revive turns a letter into the event that it was.
func (r *runner) revive(d *Delivery) error {
	h := d.Header
	d.Subject = h.Get(DeadSubject)
	var errs [2]error
	d.Sequence, errs[0] = strconv.ParseUint(h.Get(DeadSequence), 10, 64)
	d.Stored, errs[1] = time.Parse(time.RFC3339Nano, h.Get(DeadStored))
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	if h.Get(DeadBody) == omitted {
		body, err := r.original(h.Get(DeadStream), d.Sequence, h.Get(DeadOriginal+event.HeaderID))
		if err != nil {
			return err
		}
		d.Body = body
	}
	d.Header = make(nats.Header, len(h))
	for key, values := range h {
		if own, ok := strings.CutPrefix(key, DeadOriginal); ok {
			d.Header[own] = values
		} else if !strings.HasPrefix(key, natsHeader) && !strings.HasPrefix(key, "Nimble-Dead-") {
			d.Header[key] = values
		}
	}
	return nil
}

// original reads the body of an event from the event stream.
func (r *runner) original(stream string, sequence uint64, id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(r.hard, answerTimeout)
	defer cancel()
	s, err := r.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	m, err := s.GetMsg(ctx, sequence)
	if err != nil {
		return nil, fmt.Errorf("the body of the dead letter, sequence %d of stream %s: %w", sequence, stream, err)
	}
	if m.Header.Get(event.HeaderID) != id {
		return nil, fmt.Errorf("the body of the dead letter is not in stream %s any more: another event is at sequence %d", stream, sequence)
	}
	return m.Data, nil
}

// discard removes a letter that has been handled again. One that stays behind does no harm.
func (r *runner) discard(sequence uint64) {
	ctx, cancel := context.WithTimeout(r.hard, answerTimeout)
	defer cancel()
	stream, err := r.js.Stream(ctx, r.cfg.DeadLetters)
	if err == nil {
		err = stream.DeleteMsg(ctx, sequence)
	}
	if err != nil {
		r.log.Debug("handled letter not removed", zap.Uint64("seq", sequence), zap.Error(err))
	}
}
