package embedded

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"nimble-bridge/publisher/dirlock"
)

// Options say how the server runs.
type Options struct {
	// Dir is where the streams are stored. It is made if it does not exist, and belongs to one server at a time.
	Dir string
	// Addr is the host and port at which others can connect; port 0 takes any free one. Empty: nobody else can.
	Addr string
	// Log gets the server's own log; nil drops it.
	Log *zap.Logger
	// MaxStore bounds the size of all streams in bytes. 0 leaves a tenth of what is free on the disk, because a server that meets its limit says so,
	// and one that meets a full disk has to be restarted.
	MaxStore int64
}

const (
	// ServerName is what the server calls itself.
	ServerName = "nimble-bridge"
	// startTimeout is long: a server that was killed reads its streams again, about a second for a million contacts.
	startTimeout = 2 * time.Minute
	// maxMemory bounds streams in memory, of which the bridge has none.
	maxMemory = 64 << 20
	// minStore is what MaxStore is at least, when it is derived from the free space.
	minStore = 64 << 20
)

// Server is a running server.
type Server struct {
	opts Options
	host string
	lock *dirlock.Lock

	mu sync.Mutex
	// port is the one that was asked for, and the actual one once the server has listened.
	port int
	srv  *server.Server
	url  string
	// log is the present server's, failed where any of them says that it has failed at something.
	log    *serverLog
	failed chan struct{}
}

// AddressError says that the server could not listen at its address.
type AddressError struct {
	Addr string
	Err  error
}

// Error implements error.
func (e *AddressError) Error() string {
	if errors.Is(e.Err, syscall.EADDRINUSE) {
		return fmt.Sprintf("embedded NATS cannot listen on %s: the port is taken; set EMBEDDED_NATS_ADDR to another one, or NATS_URL to use the server that is there", e.Addr)
	}
	return fmt.Sprintf("embedded NATS cannot listen on %s: %v; set EMBEDDED_NATS_ADDR to a host and port of this machine", e.Addr, e.Err)
}

// Unwrap returns the cause.
func (e *AddressError) Unwrap() error { return e.Err }

// DirError says that the server could not use its directory.
type DirError struct {
	Dir string
	Err error
}

// ErrLocked is wrapped by the [*DirError] for a directory that another server is using.
var ErrLocked = dirlock.ErrTaken

// Error implements error.
func (e *DirError) Error() string {
	fix := "set EMBEDDED_NATS_DIR to a directory that this user may write to"
	if errors.Is(e.Err, ErrLocked) {
		fix = "stop the other bridge, or set EMBEDDED_NATS_DIR to another directory"
	}
	return fmt.Sprintf("embedded NATS cannot store in %s: %v; %s", e.Dir, e.Err, fix)
}

// Unwrap returns the cause.
func (e *DirError) Unwrap() error { return e.Err }

// Start starts a server and returns when it can be used. The error is an [*AddressError] or a [*DirError] where the options are to blame.
func Start(opts Options) (*Server, error) {
	host, port, err := listenAddress(opts.Addr)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, host: host, port: port, lock: lock, failed: make(chan struct{}, 1)}
	if err := s.start(); err != nil {
		s.lock.Release()
		return nil, err
	}
	return s, nil
}

func (s *Server) start() error {
	opts, log := s.opts, s.opts.Log
	if log == nil {
		log = zap.NewNop()
	}
	store := opts.MaxStore
	if store <= 0 {
		store = roomFor(opts.Dir)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: ServerName,
		DontListen: opts.Addr == "",
		Host:       s.host,
		Port:       s.port,
		JetStream:  true,
		StoreDir:   opts.Dir,
		SyncAlways: true,
		NoSigs:     true,

		JetStreamMaxStore:  store,
		JetStreamMaxMemory: maxMemory,
	})
	if err != nil {
		return fmt.Errorf("embedded NATS: %w", err)
	}
	failures := &serverLog{log: log.WithOptions(zap.AddCallerSkip(1)), fatal: make(chan string, 1), failed: s.failed}
	srv.SetLoggerV2(failures, log.Core().Enabled(zap.DebugLevel), false, false)
	s.srv, s.log = srv, failures
	srv.Start()
	if err := s.ready(opts, failures.fatal); err != nil {
		return err
	}
	if addr, ok := srv.Addr().(*net.TCPAddr); ok {
		s.port, s.url = addr.Port, srv.ClientURL()
	}
	return nil
}

// ready waits until the server takes connections, or says why it does not.
func (s *Server) ready(opts Options, fatal <-chan string) error {
	for deadline := time.Now().Add(startTimeout); ; {
		if s.srv.ReadyForConnections(50 * time.Millisecond) {
			break
		}
		select {
		case reason := <-fatal:
			s.srv.Shutdown()
			s.srv.WaitForShutdown()
			return fmt.Errorf("embedded NATS did not start: %s", reason)
		default:
		}
		if time.Now().After(deadline) {
			s.srv.Shutdown()
			s.srv.WaitForShutdown()
			return fmt.Errorf("embedded NATS is not ready after %v", startTimeout)
		}
	}
	if !s.srv.JetStreamEnabled() {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
		return &DirError{Dir: opts.Dir, Err: errors.New("JetStream did not start there")}
	}
	return nil
}

// listenAddress checks the address before anything is started, since the server itself only logs that it cannot listen, and ends.
func listenAddress(addr string) (host string, port int, err error) {
	if addr == "" {
		return "", 0, nil
	}
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, &AddressError{Addr: addr, Err: err}
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > math.MaxUint16 {
		return "", 0, &AddressError{Addr: addr, Err: fmt.Errorf("%q is no port", text)}
	}
	probe, err := net.Listen("tcp", addr) //nolint:noctx // The listener is closed at once.
	if err != nil {
		return "", 0, &AddressError{Addr: addr, Err: err}
	}
	_ = probe.Close()
	if host == "" {
		host = server.DEFAULT_HOST
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// lockDir makes the directory and takes it for this process. Two servers on one directory would ruin each other's streams.
func lockDir(dir string) (*dirlock.Lock, error) {
	if dir == "" {
		return nil, &DirError{Dir: dir, Err: errors.New("no directory given")}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, &DirError{Dir: dir, Err: err}
	}
	lock, err := dirlock.Take(dir)
	if err != nil {
		return nil, &DirError{Dir: dir, Err: err}
	}
	return lock, nil
}

// roomFor is nine tenths of what the directory has room for: what is free, and what its streams take up already.
func roomFor(dir string) int64 {
	free, used := freeSpace(dir), 0.0
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				used += float64(info.Size())
			}
		}
		return nil // What cannot be read is not counted.
	})
	return int64(max(0.9*(free+used), minStore))
}

// URL is where others can connect; empty without a listen address.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Version is the version of the server.
func (s *Server) Version() string { return server.VERSION }

// InProcess is how this process connects, see [nats.InProcessServer].
func (s *Server) InProcess() nats.InProcessConnProvider { return inProcess{s} }

// inProcess connects to the server as it is at the moment: it may be another one after [Server.Restart].
type inProcess struct{ s *Server }

// InProcessConn implements [nats.InProcessConnProvider].
func (p inProcess) InProcessConn() (net.Conn, error) {
	p.s.mu.Lock()
	srv := p.s.srv
	p.s.mu.Unlock()
	return srv.InProcessConn()
}

// Conn connects without a socket. The caller closes the connection.
func (s *Server) Conn(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append([]nats.Option{nats.InProcessServer(s.InProcess())}, opts...)...)
}

// Shutdown stops the server and returns when everything is written and its directory is free. It may be called more than once.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.lock.Release()
}

// StoppedError says that the server runs and does not store, which a full disk does to it.
type StoppedError struct {
	Dir string
	// Free is how many bytes the disk has room for.
	Free int64
	// NoSpace says that the server met a full disk, or a quota that is used up, however much room there is by now.
	NoSpace bool
	// Err is what the server says of itself; nil when it takes more, and only the disk is full.
	Err error
}

// Full tells whether the disk has too little room to go on.
func (e *StoppedError) Full() bool { return e.Free < minFree }

// minFree is the room that a restart needs to be worth it.
const minFree = 8 << 20

// Error implements error.
func (e *StoppedError) Error() string {
	if e.Full() {
		return fmt.Sprintf("embedded NATS has stopped storing: the disk of EMBEDDED_NATS_DIR, which is %s, is full; make room there, %d MiB at least, and it goes on by itself", e.Dir, minFree>>20)
	}
	why := ""
	if e.NoSpace {
		why = "the disk or a quota was full: "
	}
	return fmt.Sprintf("embedded NATS has stopped storing in EMBEDDED_NATS_DIR, which is %s: %s%v; it is restarted by itself, again and again until that helps", e.Dir, why, e.Err)
}

// Unwrap returns the cause.
func (e *StoppedError) Unwrap() error { return e.Err }

// Failed gets a value when the server has logged an error, so that who wants to know need not ask all the time.
func (s *Server) Failed() <-chan struct{} { return s.failed }

// Check returns a [*StoppedError] when the server does not store. After a failed write a stream takes nothing more until the server is started again, however much room there
// is then; and when it is a stream with sources, the server gives up JetStream altogether. [Server.Restart] helps, once there is room.
func (s *Server) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stopped := &StoppedError{Dir: s.opts.Dir, Free: int64(freeSpace(s.opts.Dir)), NoSpace: s.log.noSpace.Load(), Err: writeFailure(s.srv)}
	if stopped.Err != nil {
		return stopped
	}
	if stopped.NoSpace {
		if stopped.Full() {
			return stopped
		}
		s.log.noSpace.Store(false) // What failed is tried again, and there is room.
	}
	return nil
}

// writeFailure is why a server takes nothing more for one of its streams, or all of them; nil if it does.
func writeFailure(srv *server.Server) error {
	if !srv.JetStreamEnabled() {
		return errors.New("it has given up JetStream; its log says why")
	}
	for _, failure := range srv.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if strings.Contains(failure.Error, "write error") { // Others are about streams that could not be read at the start, which another start does not change.
			return errors.New(failure.Error)
		}
	}
	return nil
}

// Restart stops the server and starts it again, in the same directory and at the same address. Connections come back by themselves. After an error the server is
// down and may be restarted again.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	return s.start()
}
