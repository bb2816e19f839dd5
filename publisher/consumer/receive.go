package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// receiver asks the server for the deliveries of one source, and takes them in.
//
// The client library can do that, but does not tell which request a delivery answers. That is what bounds its age: it cannot have been made before it was asked for, however long it
// then lay unread in a connection. So each request has a subscription of its own, which is known from the message.
type receiver struct {
	*runner
	s *source
	// subject takes requests, and batch is for how many events one asks.
	subject string
	batch   int
	// came gets what the server sends, in the order in which it comes in.
	came  chan *nats.Msg
	pulls map[*nats.Subscription]*pull
	// pin is the name under which the server knows this process as the one that gets events, as far as known.
	pin string
	// pauses are those after a refusal, and next is when to ask again.
	pauses backoff.BackOff
	next   time.Time
}

// pull is a request for deliveries.
type pull struct {
	sub   *nats.Subscription
	asked time.Time
	// left is how many it may still bring, and unlikely says that it will not: its time is over, or the connection was lost.
	left     int
	unlikely bool
}

// message is a delivery.
type message struct {
	*nats.Msg
	meta *nats.MsgMetadata
	// asked is a time before the server made the delivery; zero if none is known.
	asked time.Time
}

// What is said about a delivery.
var (
	finished   = []byte("+ACK")
	givenBack  = []byte("-NAK")
	inProgress = []byte("+WPI")
)

const (
	// mostPulls bounds how many requests are waited for: one is enough while it lasts, the next one is sent in time.
	mostPulls = 4
	// patience is how long an answer may be late.
	patience = 2 * time.Second
)

func (r *runner) newReceiver(s *source) *receiver {
	prefix := jetstream.DefaultAPIPrefix
	switch opts := r.js.Options(); {
	case opts.Domain != "":
		prefix = "$JS." + opts.Domain + ".API."
	case opts.APIPrefix != "":
		prefix = strings.TrimSuffix(opts.APIPrefix, ".") + "."
	}
	batch := min(r.cfg.MaxPending, 256)
	return &receiver{
		runner: r, s: s, batch: batch, subject: prefix + "CONSUMER.MSG.NEXT." + s.stream + "." + r.cfg.Durable,
		came: make(chan *nats.Msg, mostPulls*(batch+8)), pulls: make(map[*nats.Subscription]*pull), pauses: newPauses(),
	}
}

// receive takes deliveries in until nothing new is to begin. What was on its way then is taken in as well, to be given back.
func (v *receiver) receive() {
	defer v.finish()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if v.nc.IsClosed() {
			v.fail(jetstream.ErrConnectionClosed)
			return
		}
		timer.Reset(v.tidy(time.Now()))
		select {
		case <-v.stopping:
			return
		case msg := <-v.came:
			v.take(msg)
		case <-v.s.relinked:
			for _, p := range v.pulls {
				p.unlikely = true
			}
			v.next = time.Time{}
			v.pauses.Reset()
		case <-timer.C:
		}
	}
}

// tidy forgets requests that were not answered, and sends one if it is time to. It returns how long to wait for a delivery at most.
func (v *receiver) tidy(now time.Time) time.Duration {
	wait, expected, likely := v.cfg.pull(), 0, 0
	for _, p := range v.pulls {
		switch late := now.Sub(p.asked) - v.cfg.pull() - patience; {
		case late > patience:
			v.forgetPull(p) // Until now something might still have come.
		case late > 0 && !p.unlikely:
			// Either the server has lost the request, and the pin with it, or nothing has been read here for a while, and then others do better.
			p.unlikely, v.pin = true, ""
			v.complaint(v.s, errUnanswered)
		}
		if !p.unlikely {
			expected, likely = expected+p.left, likely+1
		}
	}
	switch {
	case expected > v.batch/2, likely > 0 && v.pin == "", len(v.pulls) >= mostPulls:
		return wait
	case now.Before(v.next):
		return v.next.Sub(now)
	}
	if err := v.ask(); err != nil {
		v.log.Debug("not asked for events", zap.String("stream", v.s.stream), zap.Error(err))
		v.next = now.Add(v.pauses.NextBackOff())
		return v.next.Sub(now)
	}
	return wait
}

var errUnanswered = errors.New("a request for events was not answered")

func (v *receiver) ask() error {
	if !v.nc.IsConnected() {
		return nats.ErrDisconnected
	}
	request, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
		Group   string        `json:"group"`
		Pin     string        `json:"id,omitempty"`
	}{v.batch, v.cfg.pull(), group, v.pin})
	if err != nil {
		return err
	}
	sub, err := v.nc.ChanSubscribe(v.nc.NewInbox(), v.came)
	if err != nil {
		return err
	}
	p := &pull{sub: sub, asked: time.Now(), left: v.batch}
	if err := v.nc.PublishRequest(v.subject, sub.Subject, request); err != nil {
		_ = sub.Unsubscribe()
		return err
	}
	v.pulls[sub] = p
	return nil
}

func (v *receiver) forgetPull(p *pull) {
	delete(v.pulls, p.sub)
	_ = p.sub.Unsubscribe()
}

// take takes one message in: a delivery, or word of the end of a request.
func (v *receiver) take(msg *nats.Msg) {
	p := v.pulls[msg.Sub]
	if status := msg.Header.Get("Status"); status != "" && len(msg.Data) == 0 {
		if err := v.over(status, msg.Header.Get("Description")); err != nil {
			v.complaint(v.s, err)
		}
		if p != nil {
			v.forgetPull(p)
		}
		return
	}
	m := &message{Msg: msg}
	if p != nil {
		m.asked = p.asked
		if p.left--; p.left == 0 {
			v.forgetPull(p)
		}
	}
	v.pauses.Reset()
	var err error
	if m.meta, err = msg.Metadata(); err != nil {
		v.log.Error("message without metadata", zap.String("stream", v.s.stream), zap.Error(err))
		return
	}
	v.pin = pinOf(m)
	v.arrive(v.s, m)
}

// over says what it means that a request has ended. Nil is the usual: nothing more came in its time.
func (v *receiver) over(status, description string) error {
	err := fmt.Errorf("nats: %s %s", status, description)
	is := func(text string) bool { return strings.Contains(strings.ToLower(description), text) }
	switch {
	case status == "404", status == "408":
		v.pauses.Reset()
		return nil
	case status == "423":
		v.pin = ""
		return jetstream.ErrPinIDMismatch
	case status == "400", is("push based"):
		err = fmt.Errorf("%w: %s", jetstream.ErrBadRequest, description)
	case status == "503":
		err = nats.ErrNoResponders
	case is("consumer deleted"):
		err = jetstream.ErrConsumerDeleted
	case is("leadership change"):
		err = jetstream.ErrConsumerLeadershipChanged
	case is("server shutdown"):
		err = jetstream.ErrServerShutdown
	}
	v.next = time.Now().Add(v.pauses.NextBackOff())
	return err
}

// finish ends the requests, and takes in what the server had sent before it heard of that.
func (v *receiver) finish() {
	for sub := range v.pulls {
		if v.nc.IsConnected() {
			_ = sub.Drain()
		} else {
			_ = sub.Unsubscribe()
		}
	}
	_ = v.nc.FlushTimeout(patience)
	for {
		select {
		case msg := <-v.came:
			v.take(msg)
		default:
			return
		}
	}
}
