package audit

import (
	"errors"
	"fmt"

	"nimble-bridge/publisher/dirlock"
)

// DirError says that a folder cannot hold a log.
type DirError struct {
	Dir string
	Err error
}

// ErrLocked is wrapped by the [*DirError] for a folder that another auditor is writing to.
var ErrLocked = dirlock.ErrTaken

// ErrNoLog is wrapped by the [*DirError] for a folder without a log, where one is to be verified or redacted.
var ErrNoLog = errors.New("there is no audit log in it")

// Error implements error.
func (e *DirError) Error() string {
	fix := "give a directory that this user may read and write"
	switch {
	case errors.Is(e.Err, ErrLocked):
		fix = "stop the other auditor, or give another directory: one log has one writer"
	case errors.Is(e.Err, ErrNoLog):
		fix = "give the directory that an auditor writes to"
	}
	return fmt.Sprintf("audit log %s cannot be used: %v; %s", e.Dir, e.Err, fix)
}

// Unwrap returns the cause.
func (e *DirError) Unwrap() error { return e.Err }

// WriteError says that a log could not be written. Nothing that may be missing from it has been acknowledged.
type WriteError struct {
	Dir, File string
	Err       error
}

// Error implements error.
func (e *WriteError) Error() string {
	return fmt.Sprintf("audit log %s cannot be written: %s: %v; once that is mended start again: nothing was acknowledged that is not in the log, and it goes on where it ends",
		e.Dir, e.File, e.Err)
}

// Unwrap returns the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// DamagedError says that a log is not what the auditor wrote.
type DamagedError struct {
	Dir, File string
	// Line counts from 1; 0 is the file as a whole.
	Line   int
	Reason string
}

// Error implements error.
func (e *DamagedError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s line %d", e.File, e.Line)
	}
	return fmt.Sprintf("audit log %s is damaged: %s: %s; see what --verify says, move %s out of the way to keep it as evidence, and start again: what the stream still has of it is read anew",
		e.Dir, where, e.Reason, e.File)
}

// StreamError says that a log is about another stream than the one to be audited.
type StreamError struct {
	Dir          string
	Has, Offered string
}

// Error implements error.
func (e *StreamError) Error() string {
	return fmt.Sprintf("audit log %s is of stream %s, not %s; give each stream a directory of its own", e.Dir, e.Has, e.Offered)
}
