package main

import "testing"

func TestGarbageIsBoundedInLargeAccounts(t *testing.T) {
	for _, tt := range []struct{ contacts, percent int }{
		{0, 100}, {20_000, 100}, {300_000, 100}, {1_000_000, 33}, {2_000_000, 16}, {100_000_000, 10},
	} {
		if got := percentFor(tt.contacts); got != tt.percent {
			t.Errorf("%d contacts: %d %% garbage, want %d", tt.contacts, got, tt.percent)
		}
	}
}
