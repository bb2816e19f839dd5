package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"nimble-bridge/poller"
)

func TestSilenceIsWarnedOfOnce(t *testing.T) {
	const interval = 10 * time.Second
	const warning, end = "no poll has succeeded for suspiciously long", "polls succeed again"
	failing := func(s *poller.Status) {
		s.State, s.Err = poller.Failing, errors.New("503")
		s.Failures++
	}
	tests := []struct {
		name string
		// step changes the status at each interval.
		step      func(n int, s *poller.Status)
		elsewhere bool
		usual     time.Duration
		want      []string
	}{
		{"all is well", func(_ int, s *poller.Status) { s.LastSuccess = time.Now() }, false, 0, nil},
		{"polls fail for a moment", func(n int, s *poller.Status) {
			if failing(s); n%4 == 0 {
				s.LastSuccess = time.Now()
			}
		}, false, 0, nil},
		{"polls fail for good", func(_ int, s *poller.Status) { failing(s) }, false, 0, []string{warning}},
		{"polls hang", func(int, *poller.Status) {}, false, 0, []string{warning}},
		{"polls fail, and then succeed", func(n int, s *poller.Status) {
			if failing(s); n > 20 {
				s.LastSuccess, s.State = time.Now(), poller.Polling
			}
		}, false, 0, []string{warning, end}},
		{"twice", func(n int, s *poller.Status) {
			if n == 15 {
				s.LastSuccess = time.Now()
			}
		}, false, 0, []string{warning, end, warning}},
		{"another bridge polls", func(int, *poller.Status) {}, true, 0, nil},
		{"somebody has paused it", func(_ int, s *poller.Status) { s.State = poller.Paused }, false, 0, nil},
		{"the first snapshot takes long", func(_ int, s *poller.Status) { s.State = poller.Snapshotting }, false, 0, nil},
		{"polls always take long", func(n int, s *poller.Status) {
			if n%10 == 0 {
				s.LastSuccess = time.Now()
			}
		}, false, 100 * time.Second, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				var mu sync.Mutex
				status := poller.Status{State: poller.Polling, LastSuccess: time.Now()}
				look := func() poller.Status {
					mu.Lock()
					defer mu.Unlock()
					return status
				}
				s := silence{
					log: zap.New(core), interval: interval, elsewhere: func() bool { return tt.elsewhere }, status: look,
					usual: func() time.Duration { return tt.usual },
				}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.run(ctx)
				}()
				time.Sleep(interval / 2)
				for n := range 30 {
					mu.Lock()
					tt.step(n, &status)
					mu.Unlock()
					time.Sleep(interval)
					synctest.Wait()
				}
				stop()
				<-done
				var got []string
				for _, entry := range logs.All() {
					got = append(got, entry.Message)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			})
		})
	}
}
