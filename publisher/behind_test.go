package publisher_test

import (
	"fmt"
	"testing"

	"nimble-bridge/poller"
)

// TestBucketBehindPastNotices has more and more notices behind the last event, which the bucket does not have and does not need.
func TestBucketBehindPastNotices(t *testing.T) {
	p := open(t, startServer(t))
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
	bucketHas(t, p.JetStream(), 2)
	stopSourcing(t, p.JetStream())
	notice := func(n int) {
		t.Helper()
		if err := p.Reject(t.Context(), []poller.Rejection{{ContactID: fmt.Sprint("r", n), Reason: "no usable id", Record: []byte(fmt.Sprint(n))}}); err != nil {
			t.Fatal(err)
		}
	}
	behind := func(want uint64) {
		t.Helper()
		if got, err := p.BucketBehind(t.Context()); err != nil || got != want {
			t.Errorf("the bucket is %d behind, %v; want %d", got, err, want)
		}
	}
	behind(0)
	for n := range 40 {
		notice(n)
		behind(0)
	}
	appendAll(t, p, changeOf(poller.Updated, "a1", 2, 1)) // Sequence 43.
	for n := range 40 {
		behind(41)
		notice(100 + n)
	}
}
