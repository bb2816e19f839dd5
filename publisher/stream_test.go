package publisher_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

func streamConfig(t testing.TB, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

func TestOpenCreatesStreamAndBuckets(t *testing.T) {
	p := open(t, startServer(t), func(c *publisher.Config) { c.MaxAge, c.MaxBytes = time.Hour, 1<<30 })
	js := p.JetStream()
	events := streamConfig(t, js, "NIMBLE")
	if diff := cmp.Diff([]string{"nimble.*.contact.*.*", "nimble.*.bridge.*"}, events.Subjects); diff != "" {
		t.Error(diff)
	}
	if !events.AllowAtomicPublish || events.AllowDirect || events.DenyDelete || events.Discard != jetstream.DiscardNew || events.Storage != jetstream.FileStorage ||
		events.MaxAge != time.Hour || events.MaxBytes != 1<<30 || events.Duplicates != 2*time.Minute || events.Replicas != 1 {
		t.Errorf("event stream: %+v", events)
	}
	bucket := streamConfig(t, js, "KV_nimble-contacts")
	if bucket.MaxMsgsPerSubject != 1 || !bucket.AllowDirect || bucket.PersistMode != jetstream.AsyncPersistMode || len(bucket.Sources) != 1 {
		t.Errorf("bucket: %+v", bucket)
	}
	state, err := p.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.Create(t.Context(), "acme.leader", []byte("me"), jetstream.KeyTTL(time.Minute)); err != nil {
		t.Errorf("a key with a time to live: %v", err)
	}
}

func TestOpenLeavesAloneWhatItNeedNotChange(t *testing.T) {
	srv := startServer(t)
	nc, err := srv.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "NIMBLE", Subjects: []string{"nimble.>"}, Description: "ours", Compression: jetstream.S2Compression, Metadata: map[string]string{"owner": "crm"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, srv)
	got := streamConfig(t, js, "NIMBLE")
	if got.Description != "ours" || got.Compression != jetstream.S2Compression || got.Metadata["owner"] != "crm" || !cmp.Equal(got.Subjects, []string{"nimble.>"}) {
		t.Errorf("changed: %+v", got)
	}
	if !got.AllowAtomicPublish {
		t.Error("not made fit")
	}
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0))
	before := streamConfig(t, js, "KV_nimble-contacts")
	open(t, srv)
	if diff := cmp.Diff(before, streamConfig(t, js, "KV_nimble-contacts")); diff != "" {
		t.Error("the second start changes the bucket:", diff)
	}
}

func TestUnmanagedStreamsAreVerified(t *testing.T) {
	srv := startServer(t)
	js := open(t, srv).JetStream() // Creates all three, fit.
	unmanaged := func(c *publisher.Config) { c.Manage = false }
	conn := connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})
	if _, err := tryOpen(t, conn, unmanaged); err != nil {
		t.Fatalf("what a managed start made does not fit: %v", err)
	}

	tests := map[string]struct {
		stream string
		spoil  func(*jetstream.StreamConfig)
		wants  []string
	}{
		"no batches": {"NIMBLE", func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false }, []string{"stream NIMBLE", "allow_atomic is false", "needed is true"}},
		"other subjects": {
			"NIMBLE", func(c *jetstream.StreamConfig) { c.Subjects = []string{"nimble.acme.contact.*.*", "nimble.*.bridge.*"} },
			[]string{"subjects is nimble.acme.contact.*.*", "nimble.*.contact.*.*"},
		},
		"drops old events": {"NIMBLE", func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = 1<<20, jetstream.DiscardOld }, []string{"discard is DiscardOld"}},
		"one per subject":  {"NIMBLE", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 }, []string{"max_msgs_per_subject is 1"}},
		"no source":        {"KV_nimble-contacts", func(c *jetstream.StreamConfig) { c.Sources = nil }, []string{"bucket nimble-contacts", "sources is none", "$KV.nimble-contacts"}},
		"other source": {
			"KV_nimble-contacts",
			func(c *jetstream.StreamConfig) {
				c.Sources[0].SubjectTransforms[0].Destination = "$KV.nimble-contacts.$3"
			},
			[]string{"sources is NIMBLE with nimble.*.contact.*.* to $KV.nimble-contacts.$3"},
		},
		"history":         {"KV_nimble-contacts", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 }, []string{"max_msgs_per_subject is 5"}},
		"forgetful":       {"KV_nimble-contacts", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, []string{"max_age is 1h0m0s"}},
		"forgetful state": {"KV_nimble-bridge", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, []string{"bucket nimble-bridge", "max_age"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fit, spoilt := streamConfig(t, js, tt.stream), streamConfig(t, js, tt.stream)
			tt.spoil(&spoilt)
			if _, err := js.UpdateStream(t.Context(), spoilt); err != nil {
				t.Fatal(err)
			}
			_, err := tryOpen(t, conn, unmanaged)
			if _, ok := errors.AsType[*publisher.UnfitError](err); !ok {
				t.Fatalf("error %v", err)
			}
			for _, want := range append(tt.wants, "NATS_MANAGE=true") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if _, err := tryOpen(t, conn); err != nil {
				t.Errorf("a managed start does not make it fit: %v", err)
			}
			if _, err := js.UpdateStream(t.Context(), fit); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, stream := range []string{"NIMBLE", "KV_nimble-contacts", "KV_nimble-bridge"} {
		fit := streamConfig(t, js, stream)
		if err := js.DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		_, err := tryOpen(t, conn, unmanaged)
		if missing, ok := errors.AsType[*publisher.MissingError](err); !ok || !strings.Contains(missing.Object, strings.TrimPrefix(stream, "KV_")) {
			t.Errorf("without %s: error %v", stream, err)
		}
		if _, err := js.CreateStream(t.Context(), fit); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatTheServerRefusesIsNamed(t *testing.T) {
	srv := startServer(t)
	conn := connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})
	js, err := jetstream.New(conn.NATS())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"taken.>"}}); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*publisher.Config)
		want   string
	}{
		"replicas without a cluster": {func(c *publisher.Config) { c.Replicas = 3 }, "NATS_REPLICAS=1"},
		"subjects of another stream": {func(c *publisher.Config) { c.Prefix = "taken" }, "NATS_SUBJECT_PREFIX"},
		"more than there is":         {func(c *publisher.Config) { c.MaxBytes = 1 << 50 }, "NATS_STREAM_MAX_BYTES"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := tryOpen(t, conn, tt.change)
			if setup, ok := errors.AsType[*publisher.SetupError](err); !ok || setup.Object != "stream NIMBLE" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	conn := connect(t, publisher.ConnectConfig{InProcess: startServer(t).InProcess()})
	for name, change := range map[string]func(*publisher.Config){
		"account": func(c *publisher.Config) { c.Account = "a.b" },
		"stream":  func(c *publisher.Config) { c.Stream = "a b" },
		"bucket":  func(c *publisher.Config) { c.Bucket = "nimble-bridge" },
		"prefix":  func(c *publisher.Config) { c.Prefix = "nimble.>" },
	} {
		if _, err := tryOpen(t, conn, change); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestPrefixMayHaveSeveralTokens(t *testing.T) {
	p := open(t, startServer(t), func(c *publisher.Config) { c.Prefix = "crm.nimble" })
	c := changeOf(poller.Snapshot, "a1", 1, 0)
	appendAll(t, p, c)
	bucketHas(t, p.JetStream(), 1)
	if diff := cmp.Diff(map[string]poller.Known{"a1": known(c, 1)}, load(t, p)); diff != "" {
		t.Error(diff)
	}
	kv, err := p.JetStream().KeyValue(t.Context(), "nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Get(t.Context(), "acme.a1"); err != nil {
		t.Error(err)
	}
}

// disguise makes a server announce another version.
type disguise struct {
	nats.InProcessConnProvider
	as string
}

func (d disguise) InProcessConn() (net.Conn, error) {
	conn, err := d.InProcessConnProvider.InProcessConn()
	return &disguised{conn, d.as}, err
}

type disguised struct {
	net.Conn
	as string
}

func (c *disguised) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	// The versions have the same length, so that the rest stays where it is.
	copy(b[:n], bytes.ReplaceAll(b[:n], []byte(`"version":"`+natsserver.VERSION+`"`), []byte(`"version":"`+c.as+`"`)))
	return n, err
}

func TestOldServerIsRefused(t *testing.T) {
	srv := startServer(t)
	for version, old := range map[string]bool{"2.9.25": true, "2.11.9": true, "2.12.0": true, "2.12.1": false, "2.14.0": false, "3.0.10": false} {
		conn := connect(t, publisher.ConnectConfig{InProcess: disguise{srv.InProcess(), version}})
		_, err := tryOpen(t, conn)
		tooOld, ok := errors.AsType[*publisher.ServerTooOldError](err)
		switch {
		case ok != old:
			t.Errorf("server %s: error %v", version, err)
		case ok && (tooOld.Version != version || !strings.Contains(err.Error(), publisher.MinimumServer)):
			t.Errorf("server %s: error %v", version, err)
		}
	}
}

func TestServerWithoutJetStreamIsNamed(t *testing.T) {
	srv := rawServer(t, func(o *natsserver.Options) { o.JetStream = false })
	_, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: srv}))
	if _, ok := errors.AsType[*publisher.NoJetStreamError](err); !ok {
		t.Errorf("error %v", err)
	}
}

func TestUnreachableServerIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close()
	conn := connect(t, publisher.ConnectConfig{URLs: []string{"nats://user:secret@" + addr}})
	_, err = tryOpen(t, conn, func(c *publisher.Config) { c.AckTimeout = 100 * time.Millisecond })
	if _, ok := errors.AsType[*publisher.UnreachableError](err); !ok || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "secret") {
		t.Fatalf("error %v", err)
	}
	// It comes up later.
	serverIn(t, t.TempDir(), addr)
	if _, err := tryOpen(t, conn); err != nil {
		t.Error(err)
	}
}

func TestWrongPasswordIsNamedAndTriedAgain(t *testing.T) {
	srv := rawServer(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", natsserver.RANDOM_PORT
		o.Username, o.Password = "bridge", "secret"
	})
	var password atomic.Value
	password.Store("wrong")
	conn := connect(t, publisher.ConnectConfig{URLs: []string{srv.ClientURL()}, UserInfo: func() (string, string) {
		return "bridge", password.Load().(string)
	}})
	_, err := tryOpen(t, conn, func(c *publisher.Config) { c.AckTimeout = 10 * time.Millisecond })
	if _, ok := errors.AsType[*publisher.UnreachableError](err); !ok || !errors.Is(err, nats.ErrAuthorization) || !strings.Contains(err.Error(), "NATS_PASSWORD") {
		t.Errorf("error %v", err)
	}
	password.Store("secret")
	if _, err := tryOpen(t, conn); err != nil {
		t.Errorf("with the right password at last: %v", err)
	}
}

func TestCredentialFilesThatCannotBeReadAreNamed(t *testing.T) {
	for name, cfg := range map[string]publisher.ConnectConfig{
		"creds": {Creds: "/nowhere/nimble.creds"},
		"nkey":  {NKeyFile: "/nowhere/nimble.nk"},
		"ca":    {TLSCA: "/nowhere/ca.pem"},
	} {
		cfg.URLs = []string{"nats://127.0.0.1:1"}
		if conn, err := publisher.Connect(t.Context(), cfg, quiet(t)); err == nil {
			conn.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), "/nowhere/") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
