package consumer

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

// source is a durable that events come from.
type source struct {
	stream   string
	consumer jetstream.Consumer
	// events says that this is the event stream itself, and that the order per contact has to be kept.
	events  bool
	looking sync.Mutex

	// The rest is guarded by the runner's mutex.

	held map[uint64]*held
	done *memory
	// late is what came when the run was about to end.
	late []*message
	// last is the number that the server gave to the last delivery that came here, and pin the name under which this process gets deliveries.
	last uint64
	pin  string
	// doubt is not nil while an earlier event of some contact may be on its way.
	doubt *doubt

	// relinked gets a token when the connection is lost, or is back.
	relinked chan struct{}
}

func (r *runner) newSource(stream string, consumer jetstream.Consumer, events bool) *source {
	return &source{
		stream: stream, consumer: consumer, events: events,
		held: make(map[uint64]*held), done: newMemory(2 * r.cfg.MaxPending), relinked: make(chan struct{}, 1),
	}
}

// held is an event that is here and not finished.
type held struct {
	source *source
	// sequence is its place in the stream, delivery the number of its first delivery to this process, and deliveries how often the server has handed it out.
	sequence, delivery, deliveries uint64
	// stored is when the server stored it.
	stored time.Time
	// msg is the latest delivery: only that one is certain to be known to the server.
	msg   *message
	state state
	// sure is until when the event is certain to be nobody else's. See [runner.keep].
	sure time.Time
	// unsure says that the server may or may not wait for it still: an acknowledgement has been sent.
	unsure bool
	// gone is closed when the event is no longer held.
	gone chan struct{}
	// news gets a token when msg is replaced.
	news chan struct{}
}

// state is what is being done about a held event.
type state int

const (
	waiting state = iota // for its turn, or for another try.
	working              // in a handler, or finished and about to be acknowledged.
)

func bySequence(a, b *held) int { return cmp.Compare(a.sequence, b.sequence) }

// lane is the events of one contact that are held, in the order of the stream. It exists as long as there are any, and has one goroutine.
type lane struct {
	key   string
	queue []*held
	// wake gets a token when the queue has a new head.
	wake chan struct{}
	// suspect is an event of this contact that may not be finished and is not here.
	suspect uint64
}

// remove is called with the mutex held.
func (l *lane) remove(h *held) {
	if isGone(h) {
		return
	}
	if i := slices.Index(l.queue, h); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	if h.source.held[h.sequence] == h {
		delete(h.source.held, h.sequence)
	}
	close(h.gone)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// idOf is the event's id, by which a message is recognised when the server has lost the end of the stream and used its sequences again.
func idOf(msg *message) string { return msg.Header.Get(event.HeaderID) }

// pinOf is the name under which the server made a delivery.
func pinOf(msg *message) string { return msg.Header.Get(headerPin) }

// arrive takes a message in. It does not wait for anything, so that what is received is always known.
func (r *runner) arrive(s *source, msg *message) {
	meta := msg.meta
	sequence := meta.Sequence.Stream
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halted() {
		// Given back when nothing can be on its way here any more: at once, it would come again, and might get lost.
		s.late = append(s.late, msg)
		return
	}
	s.pin = pinOf(msg)
	if meta.Sequence.Consumer <= s.last {
		r.forget(s)
	}
	if meta.Sequence.Consumer != s.last+1 {
		r.beginDoubt(s)
	}
	s.last = meta.Sequence.Consumer
	nudge(s.doubt.arrivals())

	if h := s.held[sequence]; h != nil {
		if h.state == working || idOf(h.msg) == idOf(msg) {
			h.msg, h.deliveries = msg, meta.NumDelivered
			if sure := r.sureFrom(msg.asked); sure.After(h.sure) {
				h.sure = sure
			}
			nudge(h.news)
			return
		}
		r.lanes[keyOf(s, h.msg)].remove(h) // The stream has another event there now.
	}
	if s.done.has(sequence, idOf(msg)) {
		_ = r.nc.Publish(msg.Reply, finished) // The acknowledgement was lost, with the server's memory.
		return
	}
	h := &held{
		source: s, sequence: sequence, delivery: s.last, deliveries: meta.NumDelivered, stored: meta.Timestamp, msg: msg,
		sure: r.sureFrom(msg.asked), gone: make(chan struct{}), news: make(chan struct{}, 1),
	}
	s.held[sequence] = h
	key := keyOf(s, msg)
	l := r.lanes[key]
	if l == nil {
		l = &lane{key: key, wake: make(chan struct{}, 1)}
		r.lanes[key] = l
		r.work.Go(func() { r.walk(l) })
	}
	at, _ := slices.BinarySearchFunc(l.queue, h, bySequence)
	if !s.events {
		at = len(l.queue)
	}
	l.queue = slices.Insert(l.queue, at, h)
	if at == 0 {
		nudge(l.wake)
	}
}

// forget is called, with the mutex held, when the server counts deliveries from an earlier number on: it was killed before it had noted the last ones, and does
// not know what was delivered since. All of that comes again.
func (r *runner) forget(s *source) {
	for _, h := range s.held {
		if h.unsure = true; h.state == waiting {
			r.lanes[keyOf(s, h.msg)].remove(h)
		}
	}
}

// headerPin is put on messages by the server, for the client library.
const headerPin = "Nats-Pin-Id"

// keyOf names the lane of a message: its contact, or itself if it is about none.
func keyOf(s *source, msg *message) string {
	if subject, err := event.ParseSubject(originalSubject(msg)); err == nil {
		return subject.Account + "." + subject.ContactID
	}
	return fmt.Sprintf("%s %d", s.stream, msg.meta.Sequence.Stream)
}

// walk does what a lane is for: one event after the other. It returns when there are none, or when nothing new is to begin.
func (r *runner) walk(l *lane) {
	for {
		h := r.head(l)
		if h == nil {
			return
		}
		if r.mayBegin(l, h) {
			r.process(l, h)
		}
	}
}

// head is the lane's first event. Without one the lane ends.
func (r *runner) head(l *lane) *held {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(l.queue) == 0 || r.halted() {
		delete(r.lanes, l.key)
		return nil
	}
	return l.queue[0]
}

// process takes one event to its end: handled, passed over or a dead letter. It returns early when the run ends or the event is no longer ours.
func (r *runner) process(l *lane, h *held) {
	r.mu.Lock()
	msg, deliveries := h.msg, h.deliveries
	r.mu.Unlock()
	d, err := r.newDelivery(msg)
	if unanswered(err) {
		r.pause(h, time.Second)
		return
	}
	if err != nil {
		r.log.Error("event cannot be read", zap.String("stream", h.source.stream), zap.Uint64("seq", h.sequence), zap.Error(err))
		if r.begin(h) {
			r.end()
			r.bury(l, h, msg, failure{err: err, reason: Unreadable})
		}
		return
	}
	d.Requeued = !h.source.events
	log := r.log.With(zap.String("contact_id", d.Event.Subject), zap.Uint64("seq", d.Sequence))
	if !d.Requeued && !r.cfg.Filter.Wants(d.Header, d.Event) {
		r.settle(l, h, msg)
		return
	}
	pauses := r.cfg.newBackOff()
	for try := 1; ; try++ {
		if !r.begin(h) {
			return
		}
		attempt := *d
		attempt.Try, attempt.Deliveries = try, deliveries
		err := r.call(&attempt)
		r.end()
		how := markOf(err)
		switch {
		case err == nil:
			log.Debug("event handled", zap.Int("attempt", try))
			r.settle(l, h, msg)
			return
		case how.stop:
			r.setState(h, waiting)
			r.fail(err)
			r.halt()
			return
		case r.hard.Err() != nil:
			r.setState(h, waiting)
			return // The handler was cut short, which is no fault of the event's.
		case how.permanent:
			r.bury(l, h, msg, failure{err: err, tries: try, reason: Refused})
			return
		case try >= r.cfg.MaxTries:
			r.bury(l, h, msg, failure{err: err, tries: try, reason: Exhausted})
			return
		}
		pause := max(pauses.NextBackOff(), min(how.after, longestAfter))
		r.setState(h, waiting)
		say := log.Debug
		if r.loud.Allow() {
			say = log.Warn
		}
		say("event not handled; it is tried again", zap.Int("attempt", try), zap.Duration("retry_in", pause), zap.Error(err))
		if !r.pause(h, pause) {
			return
		}
	}
}

// newDelivery reads a message, which may be an event or a dead letter that is to be handled again.
func (r *runner) newDelivery(msg *message) (*Delivery, error) {
	d := &Delivery{Body: msg.Data, Header: headersOf(msg.Header), Subject: msg.Subject, Sequence: msg.meta.Sequence.Stream, Stored: msg.meta.Timestamp}
	if isLetter(d.Header) {
		if err := r.revive(d); err != nil {
			return nil, err
		}
	}
	var err error
	if d.Event, err = event.Decode(d.Body); err != nil {
		return nil, err
	}
	s, err := event.ParseSubject(d.Subject)
	if err == nil && (s.ContactID != d.Event.Subject || s.Account != d.Event.Data.Account) {
		err = fmt.Errorf("an event of another contact stands on subject %s", d.Subject)
	}
	return d, err
}

// headersOf leaves out what the server adds for the client library.
func headersOf(all nats.Header) nats.Header {
	header := make(nats.Header, len(all))
	for key, values := range all {
		if key != headerPin {
			header[key] = values
		}
	}
	return header
}

// begin waits for a slot and a connection. It is false when the event is not to be handled here and now.
func (r *runner) begin(h *held) bool {
	select {
	case <-r.stopping:
		return false
	case <-h.gone:
		return false
	default:
	}
	select {
	case r.slots <- struct{}{}:
	case <-r.stopping:
		return false
	case <-h.gone:
		return false
	}
	// What is done while disconnected could not be acknowledged, and might be done by somebody else as well.
	for !r.nc.IsConnected() {
		if !r.pause(h, 25*time.Millisecond) {
			r.end()
			return false
		}
	}
	if !r.claim(h) {
		r.end()
		return false
	}
	return true
}

// end gives a slot back.
func (r *runner) end() { <-r.slots }

func isGone(h *held) bool {
	select {
	case <-h.gone:
		return true
	default:
		return false
	}
}

func (r *runner) setState(h *held, s state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.state = s
}

// call runs the handler.
func (r *runner) call(d *Delivery) (err error) {
	ctx, cancel := context.WithCancel(r.hard)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			r.log.Error("the handler panicked", zap.String("contact_id", d.Event.Subject), zap.Uint64("seq", d.Sequence), zap.ByteString("stack", debug.Stack()))
			err = fmt.Errorf("the handler panicked: %v", v)
		}
	}()
	return r.handle(ctx, d)
}

// pause waits for a moment, unless the event is not to be handled any more.
func (r *runner) pause(h *held, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-h.gone:
	case <-r.stopping:
	}
	return false
}

// settle acknowledges an event, and returns when the server has confirmed it: the next one of the contact begins only when this one cannot come again. handled is the message
// that was handled.
func (r *runner) settle(l *lane, h *held, handled *message) {
	r.setState(h, working)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		r.mu.Lock()
		msg := h.msg
		if idOf(msg) != idOf(handled) { // The stream has another event there now, that is yet to be handled.
			h.state = waiting
			r.mu.Unlock()
			return
		}
		h.unsure = true
		r.mu.Unlock()
		err := r.acknowledge(msg)
		if err == nil {
			break
		}
		r.log.Debug("acknowledgement not confirmed", zap.Uint64("seq", h.sequence), zap.Error(err))
		if r.nc.IsClosed() {
			return // It comes again, to somebody else.
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-h.news:
			timer.Stop()
		case <-r.hard.Done():
			timer.Stop()
			return
		}
	}
	if !h.source.events {
		r.discard(h.sequence)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h.source.done.add(h.sequence, idOf(handled))
	l.remove(h)
}

func (r *runner) acknowledge(msg *message) error {
	r.settling.RLock()
	defer r.settling.RUnlock()
	r.mu.Lock()
	link := r.link
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(link, answerTimeout)
	defer cancel()
	_, err := r.nc.RequestWithContext(ctx, msg.Reply, finished)
	return err
}

// memory knows the events that were finished last.
type memory struct {
	ids    map[uint64]string
	order  []uint64
	oldest int
}

func newMemory(size int) *memory {
	return &memory{ids: make(map[uint64]string), order: make([]uint64, 0, size)}
}

func (m *memory) has(sequence uint64, id string) bool {
	known, ok := m.ids[sequence]
	return ok && known == id
}

// knows tells whether whatever stands at a sequence was finished.
func (m *memory) knows(sequence uint64) bool {
	_, ok := m.ids[sequence]
	return ok
}

func (m *memory) add(sequence uint64, id string) {
	if _, ok := m.ids[sequence]; ok {
		m.ids[sequence] = id
		return
	}
	m.ids[sequence] = id
	if len(m.order) < cap(m.order) {
		m.order = append(m.order, sequence)
		return
	}
	delete(m.ids, m.order[m.oldest])
	m.order[m.oldest] = sequence
	m.oldest = (m.oldest + 1) % len(m.order)
}
