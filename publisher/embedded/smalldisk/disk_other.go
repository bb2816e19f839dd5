//go:build !linux

package smalldisk

import "testing"

// Disk is a small disk.
type Disk struct{}

// Under skips the test.
func Under(t testing.TB, _ string, _ int) *Disk {
	t.Helper()
	t.Skip("no disk that can be filled: that takes Linux")
	return nil
}

// Fill does nothing.
func (*Disk) Fill(testing.TB, int) {}

// Clear does nothing.
func (*Disk) Clear(testing.TB) {}
