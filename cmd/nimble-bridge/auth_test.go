package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
)

// The tests of this file connect to servers that demand each kind of authentication.

// demandingServer starts a nats-server on a port of its own, 0 for any.
func demandingServer(t *testing.T, port int, guard func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	opts := &natsserver.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true}
	if port == 0 {
		opts.Port = natsserver.RANDOM_PORT
	}
	guard(opts)
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return srv
}

// end shuts a server down and returns the port that it leaves.
func end(srv *natsserver.Server) int {
	port := srv.Addr().(*net.TCPAddr).Port
	srv.Shutdown()
	srv.WaitForShutdown()
	return port
}

// secretFile writes a file that holds a secret.
func secretFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	rewrite(t, path, content)
	return path
}

func rewrite(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// nkey returns a new user's public key and seed.
func nkey(t *testing.T) (public string, seed []byte) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err1 := pair.PublicKey()
	seed, err2 := pair.Seed()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return public, seed
}

// operator is somebody who runs NATS with accounts and signed credentials.
type operator struct {
	t       *testing.T
	pair    nkeys.KeyPair
	account nkeys.KeyPair
	claims  *jwt.OperatorClaims
	// resolver knows the account.
	resolver *natsserver.MemAccResolver
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{t: t, resolver: &natsserver.MemAccResolver{}}
	var err [4]error
	o.pair, err[0] = nkeys.CreateOperator()
	o.account, err[1] = nkeys.CreateAccount()
	public := o.public(o.pair)
	token, encoded := jwt.NewAccountClaims(o.public(o.account)).Encode(o.pair)
	err[2] = encoded
	err[3] = o.resolver.Store(o.public(o.account), token)
	o.claims = jwt.NewOperatorClaims(public)
	if err := errors.Join(err[:]...); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *operator) public(pair nkeys.KeyPair) string {
	o.t.Helper()
	key, err := pair.PublicKey()
	if err != nil {
		o.t.Fatal(err)
	}
	return key
}

// guard makes a server believe the operator.
func (o *operator) guard(opts *natsserver.Options) {
	opts.TrustedOperators, opts.AccountResolver = []*jwt.OperatorClaims{o.claims}, o.resolver
}

// creds returns what a .creds file for a new user holds.
func (o *operator) creds() []byte {
	o.t.Helper()
	public, seed := nkey(o.t)
	token, err := jwt.NewUserClaims(public).Encode(o.account)
	if err != nil {
		o.t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		o.t.Fatal(err)
	}
	return creds
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	var der []byte
	der, a.key = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a *authority) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// issue returns a certificate and its key, for a server at 127.0.0.1 or a client.
func (a *authority) issue(name string) (cert, key []byte) {
	a.t.Helper()
	der, pair := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	secret, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// guard makes a server speak TLS, and demand a client's certificate if verify says so.
func (a *authority) guard(verify bool) func(*natsserver.Options) {
	cert, key := a.issue("server")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	if verify {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return func(opts *natsserver.Options) {
		opts.TLS, opts.TLSVerify, opts.TLSConfig, opts.TLSTimeout = true, verify, config, patience.Seconds()
	}
}

// TestAuthentication tries each way to authenticate, right and wrong.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	public, seed := nkey(t)
	_, strange := nkey(t)
	signed, foreign := newOperator(t), newOperator(t)
	known, unknown := newAuthority(t), newAuthority(t)
	cert, key := known.issue("bridge")
	oddCert, oddKey := unknown.issue("bridge")
	ca := secretFile(t, "ca.pem", known.pem)
	plain := func(*natsserver.Options) {}
	password := func(o *natsserver.Options) { o.Username, o.Password = "bridge", "hush" }
	token := func(o *natsserver.Options) { o.Authorization = "hush" }
	nkeyed := func(o *natsserver.Options) { o.Nkeys = []*natsserver.NkeyUser{{Nkey: public}} }

	const refused, tlsHint = "check NATS_CREDS, NATS_NKEY, NATS_USER and NATS_PASSWORD, or NATS_TOKEN", "check NATS_TLS_CA, NATS_TLS_CERT and NATS_TLS_KEY"
	tests := []struct {
		name  string
		guard func(*natsserver.Options)
		with  config
		// want is what the error says; empty for none.
		want string
	}{
		{"user and password", password, config{User: "bridge", Password: "hush"}, ""},
		{"password in a file", password, config{User: "bridge", PasswordFile: secretFile(t, "password", []byte("hush\n"))}, ""},
		{"wrong password", password, config{User: "bridge", Password: "hush-hush"}, refused},
		{"wrong password in a file", password, config{User: "bridge", PasswordFile: secretFile(t, "password", []byte("hush-hush"))}, refused},
		{"no password", password, config{}, refused},
		{"token", token, config{Token: "hush"}, ""},
		{"token in a file", token, config{TokenFile: secretFile(t, "token", []byte("hush\n"))}, ""},
		{"wrong token", token, config{Token: "hush-hush"}, refused},
		{"no token", token, config{}, refused},
		{"nkey", nkeyed, config{NKey: secretFile(t, "bridge.nk", seed)}, ""},
		{"another user's nkey", nkeyed, config{NKey: secretFile(t, "bridge.nk", strange)}, refused},
		{"no nkey", nkeyed, config{}, refused},
		{"credentials", signed.guard, config{Creds: secretFile(t, "bridge.creds", signed.creds())}, ""},
		{"another operator's credentials", signed.guard, config{Creds: secretFile(t, "bridge.creds", foreign.creds())}, refused},
		{"no credentials", signed.guard, config{}, refused},
		{"TLS", known.guard(false), config{TLSCA: ca}, ""},
		{"TLS of an unknown authority", unknown.guard(false), config{TLSCA: ca}, tlsHint},
		{"TLS without an authority", known.guard(false), config{}, tlsHint},
		{"TLS wanted where there is none", plain, config{TLSCA: ca}, tlsHint},
		{"TLS with a client certificate", known.guard(true), config{
			TLSCA: ca, TLSCert: secretFile(t, "cert.pem", cert), TLSKey: secretFile(t, "key.pem", key),
		}, ""},
		{"TLS with a client certificate of an unknown authority", known.guard(true), config{
			TLSCA: ca, TLSCert: secretFile(t, "cert.pem", oddCert), TLSKey: secretFile(t, "key.pem", oddKey),
		}, tlsHint},
		{"TLS without a client certificate", known.guard(true), config{TLSCA: ca}, tlsHint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := demandingServer(t, 0, tt.guard)
			cfg := tt.with
			cfg.NATSURL = natsURLs{"nats://" + srv.Addr().String()}
			conn, err := cfg.dial(t.Context(), "test", zap.NewNop())
			if err == nil {
				defer conn.Close()
				// Over TLS 1.3 a server refuses a certificate after the client has taken the connection for made.
				err = conn.NATS().FlushTimeout(patience)
			}
			switch {
			case tt.want == "":
				if err != nil {
					t.Error(err)
				}
			case err == nil:
				t.Error("it connects all the same")
			case !is[*publisher.UnreachableError](err) || !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %v, want one that says %q", err, tt.want)
			case strings.Contains(err.Error(), "hush"):
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

// TestSecretsAreReadAgain changes what the server demands, and then the file, while the bridge is connected.
func TestSecretsAreReadAgain(t *testing.T) {
	t.Parallel()
	first, second := newOperator(t), newOperator(t)
	oldCA, newCA := newAuthority(t), newAuthority(t)
	oldCert, oldKey := oldCA.issue("bridge")
	newCert, newKey := newCA.issue("bridge")
	password := func(secret string) func(*natsserver.Options) {
		return func(o *natsserver.Options) { o.Username, o.Password = "bridge", secret }
	}
	token := func(secret string) func(*natsserver.Options) {
		return func(o *natsserver.Options) { o.Authorization = secret }
	}
	both := func(a, b []byte) []byte { return append(append([]byte{}, a...), b...) }
	tests := []struct {
		name          string
		before, after func(*natsserver.Options)
		contents      [2]map[string][]byte // Of the files, by name, before and after.
		with          func(path func(string) string) config
		reason        reason
	}{
		{
			"NATS_PASSWORD_FILE", password("hush-1"), password("hush-2"),
			[2]map[string][]byte{{"p": []byte("hush-1")}, {"p": []byte("hush-2\n")}},
			func(path func(string) string) config { return config{User: "bridge", PasswordFile: path("p")} }, natsRefuses,
		},
		{
			"NATS_TOKEN_FILE", token("hush-1"), token("hush-2"),
			[2]map[string][]byte{{"t": []byte("hush-1")}, {"t": []byte("hush-2\n")}},
			func(path func(string) string) config { return config{TokenFile: path("t")} }, natsRefuses,
		},
		{
			"NATS_CREDS", first.guard, second.guard,
			[2]map[string][]byte{{"c": first.creds()}, {"c": second.creds()}},
			func(path func(string) string) config { return config{Creds: path("c")} }, natsRefuses,
		},
		{
			"NATS_TLS files", oldCA.guard(true), newCA.guard(true),
			[2]map[string][]byte{{"ca": oldCA.pem, "cert": oldCert, "key": oldKey}, {"ca": both(oldCA.pem, newCA.pem), "cert": newCert, "key": newKey}},
			func(path func(string) string) config {
				return config{TLSCA: path("ca"), TLSCert: path("cert"), TLSKey: path("key")}
			}, natsUnreachable,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := func(name string) string { return filepath.Join(dir, name) }
			write := func(contents map[string][]byte) {
				for name, content := range contents {
					rewrite(t, path(name), content)
				}
			}
			write(tt.contents[0])
			srv := demandingServer(t, 0, tt.before)
			cfg := tt.with(path)
			cfg.NATSURL = natsURLs{"nats://" + srv.Addr().String()}
			side := sideOf(t, &cfg)
			if err := side.conn.WaitConnected(t.Context(), patience); err != nil {
				t.Fatal(err)
			}
			port := end(srv)
			demandingServer(t, port, tt.after)
			soon(t, "the server refuses what was right before", func() bool {
				err := side.away()
				r, _ := reasonOfNATS(err)
				return err != nil && !strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "EOF") && r == tt.reason
			})
			write(tt.contents[1])
			if err := side.conn.WaitConnected(t.Context(), patience); err != nil {
				t.Errorf("with the new content: %v", err)
			}
		})
	}
}

// sideOf connects as the bridge does, and not as a command beside it.
func sideOf(t *testing.T, cfg *config) *natsSide {
	t.Helper()
	to := cfg.connection("test", zap.NewNop())
	to.ReconnectWait = 50 * time.Millisecond
	conn, err := publisher.Connect(context.Background(), to, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return &natsSide{conn: conn}
}

// TestAnotherNKeyNeedsANewStart puts another user's seed into the file. NATS fixes who a connection is for; the error has to say so.
func TestAnotherNKeyNeedsANewStart(t *testing.T) {
	t.Parallel()
	public1, seed1 := nkey(t)
	public2, seed2 := nkey(t)
	file := secretFile(t, "bridge.nk", seed1)
	nkeyed := func(public string) func(*natsserver.Options) {
		return func(o *natsserver.Options) { o.Nkeys = []*natsserver.NkeyUser{{Nkey: public}} }
	}
	srv := demandingServer(t, 0, nkeyed(public1))
	cfg := &config{NATSURL: natsURLs{"nats://" + srv.Addr().String()}, NKey: file}
	side := sideOf(t, cfg)
	if err := side.conn.WaitConnected(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	port := end(srv)
	rewrite(t, file, seed2)
	demandingServer(t, port, nkeyed(public2))
	soon(t, "the error says that only a new start helps", func() bool {
		err := side.away()
		return err != nil && strings.Contains(err.Error(), file) && strings.Contains(err.Error(), "restart")
	})
}

// TestSecretFileThatIsAway takes the file away, as happens for a moment when it is replaced carelessly, while the connection is lost.
func TestSecretFileThatIsAway(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	creds := o.creds()
	public, seed := nkey(t)
	for name, tt := range map[string]struct {
		guard   func(*natsserver.Options)
		content []byte
		with    func(file string) config
	}{
		"NATS_CREDS":         {o.guard, creds, func(f string) config { return config{Creds: f} }},
		"NATS_NKEY":          {func(o *natsserver.Options) { o.Nkeys = []*natsserver.NkeyUser{{Nkey: public}} }, seed, func(f string) config { return config{NKey: f} }},
		"NATS_PASSWORD_FILE": {func(o *natsserver.Options) { o.Username, o.Password = "bridge", "hush" }, []byte("hush"), func(f string) config { return config{User: "bridge", PasswordFile: f} }},
		"NATS_TOKEN_FILE":    {func(o *natsserver.Options) { o.Authorization = "hush" }, []byte("hush"), func(f string) config { return config{TokenFile: f} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := secretFile(t, "secret", tt.content)
			srv := demandingServer(t, 0, tt.guard)
			cfg := tt.with(file)
			cfg.NATSURL = natsURLs{"nats://" + srv.Addr().String()}
			side := sideOf(t, &cfg)
			if err := side.conn.WaitConnected(t.Context(), patience); err != nil {
				t.Fatal(err)
			}
			port := end(srv)
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			demandingServer(t, port, tt.guard)
			soon(t, "the connection fails for want of the file", func() bool {
				err := side.away()
				return err != nil && (errors.Is(err, os.ErrNotExist) || errors.Is(err, nats.ErrAuthorization))
			})
			rewrite(t, file, tt.content)
			if err := side.conn.WaitConnected(t.Context(), patience); err != nil {
				t.Errorf("with the file back: %v", err)
			}
		})
	}
}
