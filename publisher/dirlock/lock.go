// Package dirlock takes a directory for one process at a time.
//
// The lock is the kernel's: it ends with the process, however that ends, and the file that carries it stays behind without a meaning.
package dirlock

import (
	"errors"
	"os"
	"path/filepath"
)

// Name is the file in the directory that carries the lock.
const Name = "nimble-bridge.lock"

// ErrTaken says that another process has the directory.
var ErrTaken = errors.New("another process is using it")

// Lock is a directory that was taken.
type Lock struct{ f *os.File }

// Take takes a directory, which has to exist. The error wraps [ErrTaken] when another process has it.
func Take(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, Name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &Lock{f}, nil
}

// Release gives the directory back. It may be called more than once.
func (l *Lock) Release() {
	if l.f != nil {
		_ = l.f.Close() // Which drops the lock.
		l.f = nil
	}
}
