package main

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A proxy stands between a bridge and its NATS server, and is the network that fails.
type proxy struct {
	listener net.Listener
	target   string
	// rewrite, if not nil, changes what the server says.
	rewrite func([]byte) []byte

	mu    sync.Mutex
	state proxyState
	// changed is closed when the state changes, and replaced then.
	changed chan struct{}
	conns   map[net.Conn]struct{}
	ended   bool
}

type proxyState int

const (
	passing proxyState = iota
	// closed ends all connections and refuses new ones.
	closed
	// silent keeps all connections and lets nothing through, as a network does that drops every packet.
	silent
)

func startProxy(t *testing.T, target string, rewrite func([]byte) []byte) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, rewrite: rewrite, changed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.set(closed)
		_ = l.Close()
		done.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// set changes the state of the network.
func (p *proxy) set(state proxyState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	close(p.changed)
	p.changed = make(chan struct{})
	if state == closed {
		for conn := range p.conns {
			_ = conn.Close()
		}
		clear(p.conns)
	}
}

// await returns when something may pass; false when it never will.
func (p *proxy) await() bool {
	for {
		p.mu.Lock()
		state, changed := p.state, p.changed
		p.mu.Unlock()
		switch state {
		case passing:
			return true
		case closed:
			return false
		case silent:
		}
		<-changed
	}
}

func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	if !p.keep(client) || !p.await() {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !p.keep(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(client, server, p.rewrite) })
	both.Go(func() { p.copy(server, client, nil) })
	both.Wait()
}

// keep remembers a connection, unless there are to be none.
func (p *proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == closed || p.ended {
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *proxy) copy(to io.WriteCloser, from io.ReadCloser, rewrite func([]byte) []byte) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.await() {
				return
			}
			part := buffer[:n]
			if rewrite != nil {
				part = rewrite(part)
			}
			if _, err := to.Write(part); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
