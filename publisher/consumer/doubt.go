package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

// doubt is a time in which the server may have handed out events that are neither finished nor here: to a process that has died, or into a connection that broke. They come
// again, in no particular order, once the server has waited long enough for a sign of life. Until then an event may begin only if no earlier one of its
// contact can be among them.
//
// A doubt begins when deliveries, which the server numbers, are missing, or when events are forgotten that were here. It ends when everything that the server waits for is here.
type doubt struct {
	// again counts how often deliveries were missing.
	again int
	// floor is a sequence up to which everything is finished, as far as known.
	floor uint64
	known bool
	// news is closed, and replaced, when floor has changed or the doubt has ended. came gets a token for each delivery.
	news chan struct{}
	came chan struct{}
}

func (d *doubt) arrivals() chan struct{} {
	if d == nil {
		return nil
	}
	return d.came
}

// beginDoubt is called with the mutex held.
func (r *runner) beginDoubt(s *source) {
	switch {
	case !s.events, r.halted():
	case s.doubt != nil:
		s.doubt.again++
	default:
		d := &doubt{news: make(chan struct{}), came: make(chan struct{}, 1)}
		s.doubt = d
		r.work.Go(func() { r.resolve(s, d) })
	}
}

// resolve asks the server again and again what it waits for, until all of it is here.
func (r *runner) resolve(s *source, d *doubt) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, r.cfg.AckWait/20) {
		over, err := r.resolved(s, d)
		if over {
			return
		}
		if err != nil {
			r.log.Debug("what is outstanding is not known", zap.Error(err))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.stopping:
			timer.Stop()
			return
		}
	}
}

// resolved counts what the server waits for and what is certain to be among it here. Nothing is acknowledged meanwhile, and deliveries that the server counts are waited for, so that both
// numbers are of the same moment.
func (r *runner) resolved(s *source, d *doubt) (bool, error) {
	r.settling.Lock()
	defer r.settling.Unlock()
	r.mu.Lock()
	again, last := d.again, s.last
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.hard, answerTimeout)
	defer cancel()
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return false, err
	}
	if info.Delivered.Consumer < last {
		// A server that has just been started, and has not read yet what it knows of the durable, or has lost it.
		return false, nil
	}
	r.awaitDelivery(s, d, info.Delivered.Consumer)

	r.mu.Lock()
	defer r.mu.Unlock()
	d.floor, d.known = info.AckFloor.Stream, true
	here := 0
	for _, h := range s.held {
		if !h.unsure && h.delivery <= info.Delivered.Consumer && r.left(h.sure) > 0 {
			here++
		}
	}
	over := d.again == again && s.last >= info.Delivered.Consumer && info.NumAckPending <= here
	if over {
		s.doubt = nil
	}
	close(d.news)
	d.news = make(chan struct{})
	return over, nil
}

// awaitDelivery waits a moment for deliveries that the server has sent.
func (r *runner) awaitDelivery(s *source, d *doubt, number uint64) {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	for {
		r.mu.Lock()
		came := s.last >= number
		r.mu.Unlock()
		if came {
			return
		}
		select {
		case <-d.came:
		case <-timer.C:
			return
		}
	}
}

// mayBegin waits until no earlier event of the contact can be outstanding. It is false when the event is not the first of its lane any more, or not here.
func (r *runner) mayBegin(l *lane, h *held) bool {
	for {
		r.mu.Lock()
		d := h.source.doubt
		if len(l.queue) == 0 || l.queue[0] != h || r.halted() {
			r.mu.Unlock()
			return false
		}
		if d == nil || !h.source.events {
			l.suspect = 0
			r.mu.Unlock()
			return true
		}
		floor, known, news, suspect := d.floor, d.known, d.news, l.suspect
		if suspect > 0 && (suspect <= floor || suspect >= h.sequence || h.source.done.knows(suspect)) {
			suspect = 0
		}
		r.mu.Unlock()
		if known && suspect == 0 {
			earlier, err := r.earlier(h, floor)
			if err == nil && earlier == 0 {
				return true
			}
			if err != nil {
				r.log.Debug("earlier events of the contact are not known", zap.Error(err))
			}
			r.mu.Lock()
			l.suspect = earlier
			r.mu.Unlock()
		}
		select {
		case <-news:
		case <-l.wake:
		case <-h.gone:
		case <-r.stopping:
		}
	}
}

// earlier is the first event of the contact after floor and before h, among those that the durable gets, that was not finished here; 0 if there is none.
func (r *runner) earlier(h *held, floor uint64) (uint64, error) {
	r.mu.Lock()
	subject, err := event.ParseSubject(h.msg.Subject)
	r.mu.Unlock()
	if err != nil {
		return 0, nil // It belongs to no contact.
	}
	filter := event.ContactSubjects(subject.Prefix, subject.Account, subject.ContactID)
	for next := floor + 1; next < h.sequence; {
		ctx, cancel := context.WithTimeout(r.hard, answerTimeout)
		m, err := r.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(filter))
		cancel()
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if m.Sequence >= h.sequence {
			return 0, nil
		}
		r.mu.Lock()
		finished := h.source.done.knows(m.Sequence)
		r.mu.Unlock()
		if s, err := event.ParseSubject(m.Subject); !finished && err == nil && r.cfg.Filter.takes(s) {
			return m.Sequence, nil
		}
		next = m.Sequence + 1
	}
	return 0, nil
}
