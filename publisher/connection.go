package publisher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// InboxPrefix is the first token of every subject that answers come to, so that a user's permission to subscribe can be as narrow as
// "_INBOX_NIMBLE_BRIDGE.>".
const InboxPrefix = "_INBOX_NIMBLE_BRIDGE"

// writeTimeout is short, because nothing else is written meanwhile, and no context ends it.
const writeTimeout = 5 * time.Second

// ConnectConfig says how to reach NATS. At most one kind of authentication is to be given.
type ConnectConfig struct {
	// URLs are the servers; any of them will do. Not needed with InProcess.
	URLs []string
	// Creds is a .creds file, NKeyFile one with an nkey seed.
	Creds, NKeyFile string
	// User and Password, or Token.
	User, Password, Token string
	// UserInfo and TokenSource, if not nil, are asked at every attempt to connect instead, for secrets that change while the bridge runs.
	UserInfo    func() (user, password string)
	TokenSource func() string
	// TLSCA is a file with the certificates to trust, TLSCert and TLSKey are the client's own certificate and key.
	TLSCA, TLSCert, TLSKey string
	// InProcess is an embedded server; no socket is used then.
	InProcess nats.InProcessConnProvider
	// Name is what the server shows for the connection.
	Name string
	// ReconnectWait is the pause between attempts to connect; up to half of it is added by chance, so that many clients do not come back at once. 0 means a second.
	ReconnectWait time.Duration
	// WriteTimeout is how long the network may take to accept what is written. 0 means five seconds.
	WriteTimeout time.Duration
	// FailFast makes [Connect] wait for the outcome of the first attempt at each server, and fail with an [*UnreachableError] when none lets it in. It is for
	// commands that a person waits for. A connection that was made comes back by itself all the same.
	FailFast bool
}

// Connection is a connection to NATS that comes back by itself for as long as it is open, and remembers what the server last complained of.
//
// NATS reports a missing permission apart from the call that needed it, which just gets no answer. What is remembered here lets a time-out name
// its reason.
type Connection struct {
	nc  *nats.Conn
	log *zap.Logger

	mu     sync.Mutex
	last   error
	lastAt time.Time
	// deaf is why no answer can be received on this connection. The server says so once, to the first subscription, and all later answers miss it too.
	deaf error
	// lost is closed when the connection is lost, and replaced then.
	lost chan struct{}
}

// Connect starts connecting and returns without waiting for a server: [Connection.WaitConnected] does. An error is about the configuration, a credentials file that
// cannot be read for instance, unless [ConnectConfig.FailFast] asks for more.
func Connect(ctx context.Context, cfg ConnectConfig, log *zap.Logger) (*Connection, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &Connection{log: log, lost: make(chan struct{})}
	opts, err := c.options(cfg)
	if err != nil {
		return nil, fmt.Errorf("NATS connection: %w", err)
	}
	nc, err := nats.Connect(strings.Join(cfg.URLs, ","), opts...)
	if err != nil && cfg.FailFast {
		urls := make([]string, len(cfg.URLs))
		for i, u := range cfg.URLs {
			urls[i] = redacted(u)
		}
		return nil, &UnreachableError{URLs: urls, Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("NATS connection: %w", err)
	}
	c.mu.Lock()
	c.nc = nc
	c.mu.Unlock()
	return c, nil
}

func (c *Connection) options(cfg ConnectConfig) ([]nats.Option, error) {
	wait := cmp.Or(cfg.ReconnectWait, time.Second)
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.MaxReconnects(-1),
		// A network that swallows everything without a word, and a server that is frozen, are given up within half a minute, for another server perhaps.
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(cmp.Or(cfg.WriteTimeout, writeTimeout)),
		nats.RetryOnFailedConnect(!cfg.FailFast),
		// Without it a second refusal of the credentials closes the connection for good.
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(func(int) time.Duration {
			c.attempted()
			return wait + rand.N(wait/2+1)
		}),
		// Nothing is kept for later while disconnected: an event that may be stored at some unknown time is worse than an error now.
		nats.ReconnectBufSize(-1),
		nats.CustomInboxPrefix(InboxPrefix),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.complaint("NATS error", err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.complaint("NATS not reached; trying again", err) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			c.mu.Lock()
			close(c.lost)
			c.lost = make(chan struct{})
			c.mu.Unlock()
			if nc.IsClosed() || err == nil {
				return
			}
			c.complaint("NATS disconnected", err)
		}),
		nats.ConnectHandler(func(nc *nats.Conn) { c.connected("NATS connected", nc) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.connected("NATS reconnected", nc) }),
	}
	if cfg.InProcess != nil {
		opts = append(opts, nats.InProcessServer(cfg.InProcess))
	}
	switch {
	case cfg.Creds != "":
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	case cfg.NKeyFile != "":
		nkey, err := nkeyOf(cfg.NKeyFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nkey)
	case cfg.UserInfo != nil:
		opts = append(opts, nats.UserInfoHandler(cfg.UserInfo))
	case cfg.User != "":
		opts = append(opts, nats.UserInfo(cfg.User, cfg.Password))
	case cfg.TokenSource != nil:
		opts = append(opts, nats.TokenHandler(cfg.TokenSource))
	case cfg.Token != "":
		opts = append(opts, nats.Token(cfg.Token))
	}
	if cfg.TLSCA != "" {
		opts = append(opts, nats.RootCAs(cfg.TLSCA))
	}
	if cfg.TLSCert != "" || cfg.TLSKey != "" {
		opts = append(opts, nats.ClientCert(cfg.TLSCert, cfg.TLSKey))
	}
	return opts, nil
}

// nkeyOf reads the file again for each signature, as a moment without it must not end the connection. Whose key it is NATS fixes for the connection's whole life.
func nkeyOf(file string) (nats.Option, error) {
	read := func() (is nats.Options, err error) {
		option, err := nats.NkeyOptionFromSeed(file)
		if err == nil {
			err = option(&is)
		}
		if err != nil {
			return is, fmt.Errorf("nkey file %s: %w", file, err)
		}
		return is, nil
	}
	first, err := read()
	if err != nil {
		return nil, err
	}
	return nats.Nkey(first.Nkey, func(nonce []byte) ([]byte, error) {
		now, err := read()
		if err != nil {
			return nil, err
		}
		if now.Nkey != first.Nkey {
			return nil, fmt.Errorf("nkey file %s holds another user's key than at the start; restart the bridge to use it", file)
		}
		return now.SignatureCB(nonce)
	}), nil
}

// attempted is called before another attempt to reconnect. What the last one failed of, once there was a server at the other end, nobody else tells.
func (c *Connection) attempted() {
	c.mu.Lock()
	nc := c.nc
	c.mu.Unlock()
	if nc != nil {
		c.complaint("NATS not reached; trying again", nc.LastError())
	}
}

// complaint remembers an error, and logs it unless it is just the last one again.
func (c *Connection) complaint(what string, err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	again := c.last != nil && c.last.Error() == err.Error()
	c.last, c.lastAt = err, time.Now()
	if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `Subscription to "`+InboxPrefix) {
		c.deaf = err
	}
	c.mu.Unlock()
	if again {
		c.log.Debug(what, zap.Error(err))
		return
	}
	c.log.Warn(what, zap.Error(err))
}

func (c *Connection) connected(what string, nc *nats.Conn) {
	c.mu.Lock()
	c.last, c.deaf = nil, nil
	c.mu.Unlock()
	c.log.Info(what, zap.String("server", nc.ConnectedServerName()), zap.String("version", nc.ConnectedServerVersion()))
}

// NATS is the underlying connection.
func (c *Connection) NATS() *nats.Conn { return c.nc }

// Connected tells whether there is a server at the other end now.
func (c *Connection) Connected() bool { return c.nc.IsConnected() }

// LastError is what the server or the network last complained of since the connection was made; nil if nothing.
func (c *Connection) LastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// WaitConnected returns when there is a server at the other end, or an [*UnreachableError] when there is none after the given time.
func (c *Connection) WaitConnected(ctx context.Context, patience time.Duration) error {
	changed := c.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(changed)
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for !c.nc.IsConnected() {
		if c.nc.IsClosed() {
			return &UnreachableError{Err: nats.ErrConnectionClosed}
		}
		select {
		case <-changed:
		case <-timeout.C:
			return c.unreachable()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *Connection) unreachable() error {
	err := c.LastError()
	if err == nil {
		err = c.nc.LastError()
	}
	if err == nil {
		err = nats.ErrNoServers
	}
	urls := make([]string, 0, 4)
	for _, u := range c.nc.Servers() {
		urls = append(urls, redacted(u))
	}
	return &UnreachableError{URLs: urls, Err: err}
}

// request sends a message and returns the answer. It gives up after the given time, or at once when the connection is lost: the answer would not come then, though what
// was asked for may have been done.
func (c *Connection) request(ctx context.Context, msg *nats.Msg, timeout time.Duration) (*nats.Msg, error) {
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	type answer struct {
		msg *nats.Msg
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		reply, err := c.nc.RequestMsgWithContext(limited, msg)
		answered <- answer{reply, err}
	}()
	select {
	case a := <-answered:
		return a.msg, c.written(a.err)
	case <-lost:
		cancel()
		if a := <-answered; a.err == nil {
			return a.msg, nil
		}
		return nil, nats.ErrDisconnected
	}
}

// send sends a message that has no answer of its own.
func (c *Connection) send(msg *nats.Msg) error { return c.written(c.nc.PublishMsg(msg)) }

// written gives up a connection on which writing took too long. Where in a message it ended nobody knows, so that nothing sensible can follow.
func (c *Connection) written(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.log.Warn("NATS does not take what is sent; connecting anew", zap.Error(err))
		_ = c.nc.ForceReconnect() // Fails only when the connection is closed, or under way already.
	}
	return err
}

// Explain makes sense of a call on the connection that got no answer, for who makes such calls besides the publisher: the error names the permission that
// was found missing since the call began, or the servers that are away.
func (c *Connection) Explain(err error, began time.Time) error { return c.explain(err, began) }

// Ask sends a request to a service and returns all answers to it: none comes any more when it has been quiet for a while after the first. The error is
// [nats.ErrNoResponders] when nobody listens to the subject, a [*PermissionError] when it may not be used, and about time when nobody answers within patience.
func (c *Connection) Ask(ctx context.Context, subject string, request []byte, patience, quiet time.Duration) ([]*nats.Msg, error) {
	return c.ask(ctx, subject, request, math.MaxInt, patience, quiet)
}

// AskOne is Ask for the first answer.
func (c *Connection) AskOne(ctx context.Context, subject string, request []byte, patience time.Duration) (*nats.Msg, error) {
	answers, err := c.ask(ctx, subject, request, 1, patience, 0)
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

func (c *Connection) ask(ctx context.Context, subject string, request []byte, enough int, patience, quiet time.Duration) ([]*nats.Msg, error) {
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // Fails only when the connection is gone, and the subscription with it.
	before := c.nc.LastError()
	if err := c.nc.PublishRequest(subject, inbox, request); err != nil {
		return nil, err
	}
	// The server complains of a missing permission before it answers the ping in this.
	if err := c.flush(ctx, patience); err != nil {
		return nil, err
	}
	if after := c.nc.LastError(); after != before && errors.Is(after, nats.ErrPermissionViolation) { //nolint:errorlint // The same may be said again; whether it was counts.
		return nil, &PermissionError{Err: after}
	}
	var answers []*nats.Msg
	for wait := patience; len(answers) < enough; wait = quiet {
		msg, err := next(ctx, sub, wait)
		switch {
		case ctx.Err() != nil:
			return answers, ctx.Err()
		case err != nil && len(answers) > 0:
			return answers, nil
		case err != nil:
			return nil, err
		case len(msg.Data) == 0 && msg.Header.Get("Status") == "503":
			return nil, nats.ErrNoResponders
		}
		answers = append(answers, msg)
	}
	return answers, nil
}

func (c *Connection) flush(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.nc.FlushWithContext(ctx)
}

// next waits for a message.
func next(ctx context.Context, sub *nats.Subscription, wait time.Duration) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// explain makes sense of a call that got no answer, or of a batch that did not arrive as a whole: a permission that was found missing since it began is the
// reason.
func (c *Connection) explain(err error, began time.Time) error {
	if !unanswered(err) && apiCode(err) != codeBatchIncomplete {
		return err
	}
	c.mu.Lock()
	last, at, deaf := c.last, c.lastAt, c.deaf
	c.mu.Unlock()
	switch {
	case last != nil && !at.Before(began) && errors.Is(last, nats.ErrPermissionViolation):
		return &PermissionError{Err: last}
	case deaf != nil:
		return &PermissionError{Err: deaf}
	}
	if !c.nc.IsConnected() {
		return c.unreachable()
	}
	if silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout); silent || apiCode(err) == codeBatchIncomplete {
		return &UnansweredError{Err: err}
	}
	return err
}

// unanswered tells whether an error says only that there was no answer in time.
func unanswered(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || disconnected(err)
}

func disconnected(err error) bool {
	return errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionReconnecting) ||
		errors.Is(err, nats.ErrStaleConnection)
}

// Close waits for what is being sent, and closes the connection.
func (c *Connection) Close() {
	if c.nc.IsConnected() {
		_ = c.nc.FlushTimeout(2 * time.Second) // There is nobody left to tell.
	}
	c.nc.Close()
}

// redacted drops the user and password from a URL.
func redacted(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return scheme + "://" + rest
}
