//go:build !unix || solaris || aix

package dirlock

import "os"

// lockFile does nothing where the system has no such locks.
func lockFile(*os.File, bool) error { return nil }
