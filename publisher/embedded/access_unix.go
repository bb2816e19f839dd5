//go:build linux || darwin

package embedded

import "golang.org/x/sys/unix"

// writable returns why this user may not create files in a directory; nil if it may.
func writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
