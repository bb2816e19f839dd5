package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nimble-bridge/publisher/dirlock"
)

// Outlook is what [Start] would meet with the same options.
type Outlook struct {
	// Stored tells whether the directory holds streams already.
	Stored bool
	// Free is how many bytes this user may still write on the directory's disk; 0 where the system does not tell.
	Free int64
	// Dir is a [*DirError] unless the directory can be used; it wraps [dirlock.ErrTaken] while a server has it.
	Dir error
	// Addr is an [*AddressError] unless the address can be listened on.
	Addr error
}

// Inspect looks at what [Start] needs. It starts nothing and writes nothing.
func Inspect(opts Options) Outlook {
	var o Outlook
	_, _, o.Addr = listenAddress(opts.Addr)
	if err := o.inspectDir(opts.Dir); err != nil {
		o.Dir = &DirError{Dir: opts.Dir, Err: err}
	}
	return o
}

func (o *Outlook) inspectDir(dir string) error {
	if dir == "" {
		return errors.New("no directory given")
	}
	taken, err := dirlock.Taken(dir)
	if err != nil {
		return err
	}
	if taken {
		return dirlock.ErrTaken
	}
	// The nearest directory that is there has the disk, and the permissions that count.
	place, err := nearest(dir)
	if err != nil {
		return err
	}
	o.Free = int64(freeSpace(place))
	streams := filepath.Join(dir, "jetstream")
	if info, err := os.Stat(streams); err == nil && info.IsDir() {
		o.Stored, place = true, streams
	}
	if err := writable(place); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	return nil
}

// nearest returns the directory itself or the nearest one above it that exists.
func nearest(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%s is not a directory", dir)
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}
