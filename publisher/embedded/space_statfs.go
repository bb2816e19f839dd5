//go:build linux || darwin

package embedded

import "golang.org/x/sys/unix"

// freeSpace is how many bytes this user may still write on the directory's disk.
func freeSpace(dir string) float64 {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return 0
	}
	return float64(disk.Bavail) * float64(disk.Bsize)
}
