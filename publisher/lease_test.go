package publisher_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"nimble-bridge/publisher"
)

// candidate is a bridge that wants to lead.
type candidate struct {
	conn    *publisher.Connection
	stream  *publisher.Publisher
	leads   chan time.Time // When it began to lead.
	ended   chan time.Time // When it was told to stop leading.
	standby chan string
	stop    func() error // Ends it as SIGTERM would.
}

func runCandidate(t *testing.T, s *modelServer, name string, ttl time.Duration, fail error) *candidate {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := publisher.Connect(ctx, publisher.ConnectConfig{InProcess: s, ReconnectWait: 5 * time.Millisecond}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := publisher.Open(ctx, conn, publisher.Config{
		Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Manage: true, AckTimeout: 300 * time.Millisecond,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	lease, err := stream.Lease(ctx, name, ttl)
	if err != nil {
		t.Fatal(err)
	}
	c := &candidate{conn: conn, stream: stream, leads: make(chan time.Time, 9), ended: make(chan time.Time, 9), standby: make(chan string, 99)}
	done := make(chan error, 1)
	go func() {
		done <- lease.Run(ctx, func(ctx context.Context) error {
			c.leads <- time.Now()
			if fail != nil {
				return fail
			}
			<-ctx.Done()
			c.ended <- time.Now()
			return nil
		}, func(holder string) { c.standby <- holder })
	}()
	stopped := false
	c.stop = func() error {
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if !stopped {
			_ = c.stop()
		}
		conn.Close()
	})
	return c
}

// await returns what a channel gives.
func await[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not happen within %s", what, patience)
		panic("unreachable")
	}
}

func TestLeaseIsHandedOverAtOnceOnACleanStop(t *testing.T) {
	s := startModelServer(t)
	// Long enough that nothing but the lease being given back lets the second lead in time.
	const ttl = time.Hour
	first := runCandidate(t, s, "first", ttl, nil)
	await(t, "leading", first.leads)
	second := runCandidate(t, s, "second", ttl, nil)
	if holder := await(t, "standing by", second.standby); holder != "first" {
		t.Errorf("standing by for %q, want first", holder)
	}
	if leader, err := second.stream.Leader(t.Context()); leader != "first" || err != nil {
		t.Errorf("Leader = %q, %v, want first", leader, err)
	}
	if err := first.stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	await(t, "taking over", second.leads)
}

func TestLeaseOfADeadHolderExpires(t *testing.T) {
	t.Parallel() // It waits for the lease to expire.
	s := startModelServer(t)
	const ttl = 3 * time.Second // A third of it lies between the one giving up and the other taking over.
	first := runCandidate(t, s, "first", ttl, nil)
	await(t, "leading", first.leads)
	second := runCandidate(t, s, "second", ttl, nil)
	await(t, "standing by", second.standby)
	began := time.Now()
	first.conn.Close() // No goodbye.
	took := await(t, "taking over", second.leads).Sub(began)
	stopped := await(t, "giving up", first.ended).Sub(began)
	if stopped > took {
		t.Errorf("the first led for %s after it was cut off, the second since %s: two leaders", stopped, took)
	}
}

func TestLeaseSurvivesAServerRestart(t *testing.T) {
	s := startModelServer(t)
	first := runCandidate(t, s, "first", time.Second, nil)
	await(t, "leading", first.leads)
	for range 3 {
		s.restart(t)
	}
	second := runCandidate(t, s, "second", time.Second, nil)
	// Whoever leads after it, somebody does, and the other stands by.
	select {
	case <-second.leads:
	case <-second.standby:
	case <-time.After(patience):
		t.Fatal("nobody leads after the server came back")
	}
}

func TestLeaseEndsWithItsWork(t *testing.T) {
	s := startModelServer(t)
	broken := errors.New("broken")
	first := runCandidate(t, s, "first", time.Second, broken)
	await(t, "leading", first.leads)
	if err := first.stop(); !errors.Is(err, broken) {
		t.Errorf("Run = %v, want %v", err, broken)
	}
	second := runCandidate(t, s, "second", time.Second, nil)
	await(t, "leading", second.leads)
}
