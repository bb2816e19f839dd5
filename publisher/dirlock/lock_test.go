package dirlock_test

import (
	"errors"
	"os"
	"testing"

	"nimble-bridge/publisher/dirlock"
)

func TestTakenOnce(t *testing.T) {
	dir := t.TempDir()
	first, err := dirlock.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dirlock.Take(dir); !errors.Is(err, dirlock.ErrTaken) {
		t.Errorf("second: %v, want ErrTaken", err)
	}
	other, err := dirlock.Take(t.TempDir())
	if err != nil {
		t.Fatalf("another directory: %v", err)
	}
	other.Release()
	first.Release()
	first.Release()
	again, err := dirlock.Take(dir)
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	again.Release()
}

func TestDirectoryHasToExist(t *testing.T) {
	if _, err := dirlock.Take(t.TempDir() + "/absent"); err == nil || errors.Is(err, dirlock.ErrTaken) {
		t.Errorf("got %v, want the reason", err)
	}
}

func TestTakenTellsWithoutTaking(t *testing.T) {
	dir := t.TempDir()
	ask := func(want bool) {
		t.Helper()
		if taken, err := dirlock.Taken(dir); err != nil || taken != want {
			t.Errorf("taken %v, %v; want %v", taken, err, want)
		}
	}
	ask(false)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("asking made %v, %v", entries, err)
	}
	lock, err := dirlock.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	ask(true)
	lock.Release()
	ask(false)
	again, err := dirlock.Take(dir)
	if err != nil {
		t.Fatalf("after it was asked for: %v", err)
	}
	again.Release()
	if taken, err := dirlock.Taken(dir + "/absent"); err != nil || taken {
		t.Errorf("an absent directory: taken %v, %v", taken, err)
	}
}
