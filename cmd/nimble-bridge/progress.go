package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/poller"
)

// screen is a writer with, on a terminal, one line below all others that can be drawn anew.
type screen struct {
	mu   sync.Mutex
	w    io.Writer
	line string
}

func newScreen(w io.Writer) *screen { return &screen{w: w} }

func (s *screen) isTerminal() bool { return isTerminal(s.w) }

const eraseLine = "\r\x1b[K"

// Write writes above the line.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if _, err := io.WriteString(s.w, eraseLine); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	if err == nil {
		_, err = io.WriteString(s.w, s.line)
	}
	return n, err
}

// draw replaces the line; an empty one removes it.
func (s *screen) draw(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line == s.line {
		return
	}
	s.line = line
	_, _ = io.WriteString(s.w, eraseLine+line)
}

const (
	// progressAfter is how long a snapshot may take before anybody wonders.
	progressAfter = 3 * time.Second
	progressEvery = 10 * time.Second
	barEvery      = 250 * time.Millisecond
)

// progress shows how far a long snapshot is: as a bar on a terminal, in lines of the log otherwise.
type progress struct {
	log    *zap.Logger
	screen *screen
	// rate is the limit of requests a second, which is what makes a snapshot long.
	rate   float64
	status func() poller.Status
	// count asks how many contacts the account has.
	count func(context.Context) (int, error)
}

// run returns when the snapshot is finished or ctx ends.
func (p progress) run(ctx context.Context) {
	every := progressEvery
	if p.screen.isTerminal() {
		every = barEvery
	}
	began, total, first, shown := time.Time{}, 0, 0, 0
	for wait := barEvery; ; {
		select {
		case <-ctx.Done():
			p.screen.draw("")
			return
		case <-time.After(wait):
		}
		now := p.status()
		switch {
		case !now.SnapshotFinished.IsZero():
			p.screen.draw("")
			return
		case now.State != poller.Snapshotting:
			continue // Nothing is read yet, or reading fails, which the log tells.
		case began.IsZero():
			began, first = time.Now(), now.Contacts
			continue
		case time.Since(began) < progressAfter:
			continue
		}
		if total == 0 {
			n, err := p.count(ctx)
			if err != nil {
				p.log.Debug("contacts not counted; no total for the progress of the snapshot", zap.Error(err))
				n = -1
			}
			total = n
		}
		wait = every
		if now.Contacts == shown {
			continue // It stands still, and why is told elsewhere.
		}
		shown = now.Contacts
		p.show(now.Contacts, total, remaining(now.Contacts-first, total-now.Contacts, time.Since(began)))
	}
}

func (p progress) show(done, total int, left time.Duration) {
	if p.screen.isTerminal() {
		p.screen.draw(bar(done, total, left, p.rate))
		return
	}
	p.log.Info("snapshot under way; the request limit sets its pace", zap.Int("contacts", done), zap.Int("of", max(total, 0)),
		zap.Duration("about_left", left), zap.Float64("requests_per_second", p.rate))
}

// remaining is how long the rest takes at the pace so far; 0 when that is not known.
func remaining(done, left int, took time.Duration) time.Duration {
	if done <= 0 || left <= 0 {
		return 0
	}
	return time.Duration(float64(took) / float64(done) * float64(left)).Round(time.Second)
}

// bar draws the progress in less than 80 columns.
func bar(done, total int, left time.Duration, rate float64) string {
	if total <= 0 {
		return fmt.Sprintf("snapshot: %d contacts (NIMBLE_RATE_LIMIT=%v)", done, rate)
	}
	const width = 24
	done = min(done, total)
	full := done * width / total
	text := fmt.Sprintf("snapshot [%s%s] %d of %d", strings.Repeat("█", full), strings.Repeat("░", width-full), done, total)
	if left > 0 {
		text += fmt.Sprintf(", %s left", left)
	}
	return text + fmt.Sprintf(" (NIMBLE_RATE_LIMIT=%v)", rate)
}
