package embedded

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
)

// serverLog passes the server's log on. The server's notices are hardly news to who runs a bridge, so they count as debug.
type serverLog struct {
	log *zap.Logger
	// fatal gets the reason when the server gives up.
	fatal chan string
	// failed gets a value when the server logs an error. It has room for one.
	failed chan<- struct{}
	// noSpace is whether it has met a full disk. Not everything that it cannot store makes it stop: what it lays aside for an atomic batch, for instance, does not.
	noSpace atomic.Bool
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

// Warnf is how the server says that a stream could not be created, too.
func (l *serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Warn(text)
	l.lookForNoSpace(text)
}

func (l *serverLog) lookForNoSpace(text string) {
	if strings.Contains(text, syscall.ENOSPC.Error()) {
		l.noSpace.Store(true)
	}
}

// Errorf wakes who looks after the server.
func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error(text)
	l.lookForNoSpace(text)
	select {
	case l.failed <- struct{}{}:
	default:
	}
}

// Fatalf does not end the process, as the server's own logger would: the one who started the server hears of it.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error(text)
	select {
	case l.fatal <- text:
	default:
	}
}
