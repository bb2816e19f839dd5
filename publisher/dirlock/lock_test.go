package dirlock_test

import (
	"errors"
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
