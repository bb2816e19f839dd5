package consumer

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// An event may begin here only while the server waits for it on account of this process. Once the server has waited in vain for [Config.AckWait], it may give the event to another one, and
// the later ones of the contact after it. Nobody tells this process: the delivery may have been lying in a connection that nobody read, or the whole process may have stood still.
//
// So each event that is held has a time until which it is certain to be nobody else's. It comes from a chain of facts that each do not depend on when something is noticed here:
//
//   - The delivery was made after it was asked for. For AckWait from then on, the event is ours.
//   - A sign of life that the server has confirmed before that time was over was given after it was sent. For AckWait from then on, the event is ours.
//   - If the confirmation came later than that, the event may have been given away in between. If the server then still has the pin under which it delivered the event, it has given nothing to
//     anybody else since; the sign of life counts as if it had been in time. If not, the event is dropped: it comes again, to whoever it belongs to.

// sureFrom is until when an event is ours by a fact that was established at a time or later.
func (r *runner) sureFrom(fact time.Time) time.Time {
	if fact.IsZero() {
		return fact
	}
	return fact.Add(r.cfg.AckWait)
}

// left is how much time there is until another. The clock that time differences are taken by stands still on some systems while the machine sleeps, and the one on the wall can be set: whichever
// has gone further is believed.
func (*runner) left(until time.Time) time.Duration {
	now := time.Now()
	return min(until.Sub(now), until.Round(0).Sub(now.Round(0)))
}

// claim makes sure that an event is ours, and marks it as being worked on. It is false when the event is not to be handled here and now.
//
// A third of AckWait is kept in reserve. The next sign of life will be given within a third, and a server that is killed may forget the last one.
func (r *runner) claim(h *held) bool {
	for {
		r.mu.Lock()
		if r.halted() || isGone(h) {
			r.mu.Unlock()
			return false
		}
		if r.left(h.sure) > r.cfg.AckWait/3 {
			h.state = working
			r.mu.Unlock()
			return true
		}
		round := r.round
		r.mu.Unlock()
		nudge(r.now)
		select {
		case <-round:
		case <-h.gone:
			return false
		case <-r.stopping:
			return false
		}
	}
}

// keep tells the server now and then that everything held here is in work, and when somebody has to know.
func (r *runner) keep(sources []*source, done <-chan struct{}) {
	ticker := time.NewTicker(r.cfg.AckWait / 3)
	defer ticker.Stop()
	pauses := newPauses()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		case <-r.now:
		}
		var failed error
		for _, s := range sources {
			if err := r.keepSource(s); err != nil {
				failed = err
			}
		}
		r.mu.Lock()
		close(r.round)
		r.round = make(chan struct{})
		r.mu.Unlock()
		if failed == nil {
			pauses.Reset()
			continue
		}
		r.log.Debug("not known whether events are still ours", zap.Error(failed))
		select {
		case <-done:
			return
		case <-time.After(min(pauses.NextBackOff(), r.cfg.AckWait/3)):
		}
	}
}

// keepSource gives a sign of life for every event that is held, and notes until when they are ours.
func (r *runner) keepSource(s *source) error {
	r.mu.Lock()
	all := make([]*held, 0, len(s.held))
	msgs := make([]*message, 0, len(s.held))
	for _, h := range s.held {
		all, msgs = append(all, h), append(msgs, h.msg)
	}
	link := r.link
	r.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(link, max(r.cfg.AckWait/3, time.Second))
	defer cancel()
	given := time.Now()
	for _, msg := range msgs[1:] {
		if err := r.nc.Publish(msg.Reply, inProgress); err != nil {
			return err
		}
	}
	// They are heard in order, so the answer to the last one stands for all.
	if _, err := r.nc.RequestWithContext(ctx, msgs[0].Reply, inProgress); err != nil {
		return err
	}

	r.mu.Lock()
	var late []*held
	for _, h := range all {
		if r.left(h.sure) > 0 {
			h.sure = r.sureFrom(given)
		} else if !isGone(h) {
			late = append(late, h)
		}
	}
	r.mu.Unlock()
	if len(late) == 0 {
		return nil
	}
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return err
	}
	pin := ""
	if len(info.PriorityGroups) == 1 {
		pin = info.PriorityGroups[0].PinnedClientID
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	dropped := 0
	for _, h := range late {
		switch {
		case isGone(h), r.left(h.sure) > 0: // It has been delivered again.
		case pin != "" && pinOf(h.msg) == pin:
			h.sure = r.sureFrom(given)
		case h.state == waiting && !r.halted():
			r.lanes[keyOf(s, h.msg)].remove(h)
			r.beginDoubt(s) // It comes again, in whatever order.
			dropped++
		}
	}
	if dropped > 0 {
		r.log.Warn("out of touch with NATS for too long; what had not begun may have been given to another process", zap.String("stream", s.stream), zap.Int("events", dropped))
	}
	return nil
}
