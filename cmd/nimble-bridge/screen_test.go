package main

import (
	"strings"
	"testing"
	"time"

	"nimble-bridge/poller"
)

func TestAge(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 15, 0, 0, time.UTC)
	tests := map[time.Duration]string{
		0: "0s", 2340 * time.Millisecond: "2.3s", 2 * time.Minute: "2m", 130 * time.Second: "2m10s", 61 * time.Minute: "1h1m", 2 * time.Hour: "2h0m",
		72 * time.Hour: "3 days", -time.Second: "0s",
	}
	for ago, want := range tests {
		if got := age(now.Add(-ago), now); got != want {
			t.Errorf("age of %v = %q, want %q", ago, got, want)
		}
	}
}

func TestStatusScreen(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	behind := uint64(7)
	leader := status{
		readiness: readiness{Reason: deletionsHeld, Message: "5 of 60 contacts are gone", Since: ago(time.Hour)},
		Build:     buildInfo{Version: "1.2.3"}, Account: "acme", Started: ago(3 * time.Hour), Name: "a", Leader: "a", State: poller.Polling, Strategy: "keyed walk",
		Watermark: ago(2 * time.Minute), SnapshotFinished: ago(3 * time.Hour), Contacts: 60, Events: map[poller.Kind]int{poller.Updated: 3}, LastPoll: ago(time.Second),
		LastSuccess: ago(time.Second), DeletionsHeld: 5, HeldSince: ago(time.Hour), Reconcile: reconcileStatus{Last: ago(time.Minute), Agreed: ago(time.Hour), Method: "count", Requests: 12},
		NATS: natsStatus{URL: "nats://n", Connected: true, Server: "2.15.2", Stream: "NIMBLE", Bucket: "nimble-contacts", BucketBehind: &behind},
	}
	standing := status{readiness: readiness{Ready: true}, Build: buildInfo{Version: "1.2.2"}, Name: "b", Leader: "a", State: standby}
	alone := status{readiness: readiness{Reason: natsUnreachable, Message: "refused"}, Build: buildInfo{Version: "1.2.3"}, Account: "acme", Started: ago(time.Minute), Name: "a", State: poller.Failing, Failures: 4}
	tests := []struct {
		name     string
		statuses []status
		want     []string
		without  string
	}{
		{"a leader and a standby", []status{leader, standing}, []string{
			"state          polling, not ready: deletions_held, 5 of 60 contacts are gone (since ", "leader         a, version 1.2.3, up 3h0m", "beside it      b, version 1.2.2, standby",
			", 2m ago", "held deletions 5, since ", ", agreed last ", "0 differences made good, 12 requests, by count", "3 updated", "nimble-contacts 7 events behind",
		}, "none known"},
		{"a standby whose leader is silent", []status{standing}, []string{"leader         a, which does not answer", "standing by    b, "}, "beside it"},
		{"one without NATS", []status{alone}, []string{"leader         none known", "bridge         a, version 1.2.3, up 1m", "last success never, 4 failures since"}, "beside it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := statusScreen{view{zone: time.UTC}, now}.text(tt.statuses)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if strings.Contains(got, tt.without) {
				t.Errorf("%q in\n%s", tt.without, got)
			}
		})
	}
	if strings.Contains(statusScreen{view{zone: time.UTC}, now}.text([]status{leader}), "\x1b") {
		t.Error("colours in a pipe")
	}
}
