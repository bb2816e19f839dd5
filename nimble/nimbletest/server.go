package nimbletest

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Server is an account on a port of the loopback interface.
type Server struct {
	*Account
	// URL is the server's address without a path: http://127.0.0.1:port.
	URL string

	http *http.Server
	done chan struct{}
}

// NewServer makes an account and serves it until [Server.Close]. Like net/http/httptest it panics when there is
// no port to be had.
func NewServer(opts ...Option) *Server {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic("nimbletest: " + err.Error())
	}
	a := New(opts...)
	s := &Server{
		Account: a,
		URL:     "http://" + listener.Addr().String(),
		http:    &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second},
		done:    make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(listener) // Ends with Close, which is all its error would say.
	}()
	return s
}

// Close ends the server and all its connections.
func (s *Server) Close() {
	_ = s.http.Close() // The listener was ours alone; failing to close it leaves nothing to do.
	<-s.done
}
