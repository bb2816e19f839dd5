package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/embedded"
)

// natsSide is the bridge's end at NATS: the connection, and the server itself if it is the embedded one.
type natsSide struct {
	conn   *publisher.Connection
	server *embedded.Server // nil: somebody else's
	// restarted is when the embedded server was restarted last, pause how long it is left alone after that.
	restarted time.Time
	pause     time.Duration
}

// natsPatience is how long a step waits for a server before the bridge says that there is none.
const natsPatience = 2 * time.Second

// connection says how to reach the NATS server of the configuration. name is what the server shows for the connection.
func (c *config) connection(name string, log *zap.Logger) publisher.ConnectConfig {
	to := publisher.ConnectConfig{
		URLs: c.NATSURL, Creds: c.Creds, NKeyFile: c.NKey, User: c.User, Password: c.Password, Token: c.Token,
		TLSCA: c.TLSCA, TLSCert: c.TLSCert, TLSKey: c.TLSKey, Name: name,
	}
	if c.PasswordFile != "" {
		to.UserInfo = func() (string, string) { return c.User, secretNow(log, "NATS_PASSWORD_FILE", c.password) }
	}
	if c.TokenFile != "" {
		to.TokenSource = func() string { return secretNow(log, "NATS_TOKEN_FILE", c.token) }
	}
	return to
}

// dial connects to the NATS server that a bridge with this configuration uses: without NATS_URL that is the one inside the bridge, which has
// to be running. It is for commands beside the bridge, and does not wait for a server that is away.
func (c *config) dial(ctx context.Context, name string, log *zap.Logger) (*publisher.Connection, error) {
	to := c.connection(name, log)
	to.FailFast = true
	if len(c.NATSURL) > 0 {
		return publisher.Connect(ctx, to, log)
	}
	to.URLs = []string{c.embeddedURL()}
	conn, err := publisher.Connect(ctx, to, log)
	if unreachable, ok := errors.AsType[*publisher.UnreachableError](err); ok {
		err = &hintedError{
			fmt.Errorf("no bridge with an embedded NATS server answers at EMBEDDED_NATS_ADDR, which is %s: %w", c.EmbeddedAddr, unreachable.Err),
			"start the bridge, or set NATS_URL to the server that it uses",
		}
	}
	return conn, err
}

// embeddedURL is where others reach the embedded server.
func (c *config) embeddedURL() string {
	host, port, err := net.SplitHostPort(c.EmbeddedAddr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return "nats://" + net.JoinHostPort("127.0.0.1", port) // It listens on all addresses, and this is one of them.
	}
	return "nats://" + c.EmbeddedAddr
}

// connect starts the embedded server, or waits for somebody else's.
func (b *bridge) connect(ctx context.Context) (*natsSide, error) {
	c := b.cfg
	to := c.connection("nimble-bridge", b.log)
	side := &natsSide{}
	if len(c.NATSURL) == 0 {
		server, err := embedded.Start(embedded.Options{Dir: c.EmbeddedDir, Addr: c.EmbeddedAddr, Log: b.log.Named("nats")})
		if err != nil {
			return nil, err
		}
		side.server, to.InProcess = server, server.InProcess()
		b.log.Info("embedded NATS server runs", zap.String("url", server.URL()), zap.String("dir", c.EmbeddedDir), zap.String("version", server.Version()))
	}
	var err error
	if side.conn, err = publisher.Connect(ctx, to, b.log); err == nil {
		err = b.await(ctx, "NATS", side.waitConnected)
	}
	if err != nil {
		side.close()
		return nil, err
	}
	return side, nil
}

// secretNow is for a connection that asks for its secret without taking no for an answer: the server will refuse an empty one.
func secretNow(log *zap.Logger, name string, read func() (string, error)) string {
	secret, err := read()
	if err != nil {
		log.Error("secret not read", zap.String("variable", name), zap.Error(err))
	}
	return secret
}

func (s *natsSide) waitConnected(ctx context.Context) error {
	return s.conn.WaitConnected(ctx, natsPatience)
}

// open opens the account's stream. retried is called whenever something is published again.
func (s *natsSide) open(ctx context.Context, c *config, account string, retried func(), log *zap.Logger) (*publisher.Publisher, error) {
	if err := s.checkServer(log); err != nil {
		return nil, err
	}
	if err := s.waitConnected(ctx); err != nil {
		return nil, err
	}
	settings := c.publication(account)
	settings.Hooks.Retried = retried
	return publisher.Open(ctx, s.conn, settings, log)
}

// publication says where an account's events go.
func (c *config) publication(account string) publisher.Config {
	return publisher.Config{
		Account: account, Stream: c.Stream, Prefix: c.Prefix, Bucket: c.Bucket, Replicas: c.Replicas,
		MaxAge: c.MaxAge, MaxBytes: c.MaxBytes, Manage: c.Manage,
	}
}

// away returns an error while there is no connection.
func (s *natsSide) away() error {
	if s.conn.Connected() {
		return nil
	}
	if err := s.conn.LastError(); err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	return errAway
}

var errAway = errors.New("NATS is not connected")

// An embedded server that does not store is restarted at once, and then more and more seldom while that does not help.
const (
	firstRestartPause   = 2 * time.Second
	longestRestartPause = 2 * time.Minute
)

// checkServer restarts the embedded server when it has stopped storing, which it does at a full disk, and there is room again.
func (s *natsSide) checkServer(log *zap.Logger) error {
	if s.server == nil {
		return nil
	}
	err := s.server.Check()
	switch stopped, ok := errors.AsType[*embedded.StoppedError](err); {
	case !ok:
		if time.Since(s.restarted) > longestRestartPause {
			s.pause = 0
		}
		return err
	case stopped.Full(), time.Since(s.restarted) < s.pause:
		return err
	}
	s.restarted, s.pause = time.Now(), min(max(2*s.pause, firstRestartPause), longestRestartPause)
	log.Warn("embedded NATS server is restarted", zap.Error(err))
	return s.server.Restart()
}

// failed gets a value when the embedded server complains; never, if it is somebody else's.
func (s *natsSide) failed() <-chan struct{} {
	if s.server == nil {
		return nil
	}
	return s.server.Failed()
}

// close gives everything back.
func (s *natsSide) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
	}
}

// status is what /status says of NATS.
func (s *natsSide) status() natsStatus {
	if s == nil {
		return natsStatus{}
	}
	nc := s.conn.NATS()
	status := natsStatus{Embedded: s.server != nil, Connected: nc.IsConnected(), Server: nc.ConnectedServerVersion(), URL: nc.ConnectedUrlRedacted()}
	if s.server != nil {
		status.URL = s.server.URL()
	}
	return status
}

// connected is a Nimble account that is not read while NATS is away: what is found could not be stored, and Nimble still has it later.
type connected struct {
	*nimble.Client
	nats *natsSide
}

// ContactsPage implements [poller.Source].
func (c connected) ContactsPage(ctx context.Context, opts nimble.ListOptions) (*nimble.Page, error) {
	if err := c.nats.away(); err != nil {
		return nil, fmt.Errorf("polling pauses: %w", err)
	}
	return c.Client.ContactsPage(ctx, opts)
}

// reasonOfNATS tells what kind of failure of NATS an error is, and whether waiting for it to be mended makes sense.
func reasonOfNATS(err error) (r reason, waits bool) {
	switch {
	case is[*publisher.ServerTooOldError](err):
		return natsFails, false
	case is[*publisher.PermissionError](err), errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return natsRefuses, true
	case is[*publisher.UnreachableError](err), errors.Is(err, errAway):
		return natsUnreachable, true
	case is[*publisher.StreamFullError](err), noSpace(err):
		return streamFull, true
	case is[*publisher.MissingError](err), is[*publisher.UnfitError](err), is[*publisher.SetupError](err), is[*publisher.NoJetStreamError](err):
		return streamUnfit, true
	}
	return natsFails, true
}

// noSpace tells whether the embedded server has no room on its disk. It may have stopped for other reasons.
func noSpace(err error) bool {
	stopped, ok := errors.AsType[*embedded.StoppedError](err)
	return ok && (stopped.NoSpace || stopped.Full())
}
