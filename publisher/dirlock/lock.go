// Package dirlock takes a directory for one process at a time.
//
// The lock is the kernel's: it ends with the process, however that ends, and the file that carries it stays behind without a meaning.
package dirlock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
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
	// Whoever only asks whether the directory is taken has it for an instant, see [Taken].
	for attempt := 0; ; attempt++ {
		err := lockFile(f, true)
		if err == nil {
			return &Lock{f}, nil
		}
		if attempt == 3 || !errors.Is(err, ErrTaken) {
			_ = f.Close()
			return nil, err
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Taken tells whether a process has the directory at this moment. It writes nothing, and the directory need not exist.
func Taken(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, Name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // Which drops the lock again.
	err = lockFile(f, false)
	if errors.Is(err, ErrTaken) {
		return true, nil
	}
	return false, err
}

// Release gives the directory back. It may be called more than once.
func (l *Lock) Release() {
	if l.f != nil {
		_ = l.f.Close() // Which drops the lock.
		l.f = nil
	}
}
