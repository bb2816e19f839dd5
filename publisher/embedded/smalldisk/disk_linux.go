package smalldisk

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Disk is a small disk.
type Disk struct {
	dir     string
	ballast string
}

// Under puts a disk of the given size under a directory, and what is in the directory on it. It is there until the test ends.
func Under(t testing.TB, dir string, size int) *Disk {
	t.Helper()
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "mode=700,size="+strconv.Itoa(size)); err != nil {
		t.Skipf("no disk that can be filled: mounting one fails with %q; the test needs the right to mount, which root has outside of most containers", err)
	}
	t.Cleanup(func() { unmount(t, mount) })
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(mount, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(mount, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return &Disk{dir, filepath.Join(dir, "ballast")}
}

// unmount takes a disk away once nobody uses it any more.
func unmount(t testing.TB, dir string) {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		t.Errorf("unmounting %s: %v", dir, err)
	}
}

// Fill leaves the given number of bytes free, or a little less.
func (d *Disk) Fill(t testing.TB, left int) {
	t.Helper()
	var is syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &is); err != nil {
		t.Fatal(err)
	}
	free := int(is.Bavail) * int(is.Bsize)
	if free < left {
		t.Fatalf("only %d bytes are free, and %d are to be left", free, left)
	}
	if err := os.WriteFile(d.ballast, make([]byte, free-left), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Clear makes room again.
func (d *Disk) Clear(t testing.TB) {
	t.Helper()
	if err := os.Remove(d.ballast); err != nil {
		t.Fatal(err)
	}
}
