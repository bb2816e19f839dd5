package publisher_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
)

func inspect(t testing.TB, conn *publisher.Connection, change ...func(*publisher.Config)) *publisher.Inspector {
	t.Helper()
	cfg := config()
	for _, c := range change {
		c(&cfg)
	}
	i, err := publisher.Inspect(t.Context(), conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// userWith is a user who may do what is listed, and no more.
func userWith(name string, permissions []publisher.Permission) *natsserver.User {
	may := &natsserver.Permissions{Publish: &natsserver.SubjectPermission{}, Subscribe: &natsserver.SubjectPermission{}}
	for _, p := range permissions {
		if p.Subscribe {
			may.Subscribe.Allow = append(may.Subscribe.Allow, p.Subject)
		} else {
			may.Publish.Allow = append(may.Publish.Allow, p.Subject)
		}
	}
	if len(may.Subscribe.Allow) == 0 {
		may.Subscribe.Deny = []string{">"} // No list at all would allow everything.
	}
	return &natsserver.User{Username: name, Password: "hush", Permissions: may}
}

func TestPermissionsAreTriedOneByOne(t *testing.T) {
	srv := startServer(t)
	all, err := inspect(t, connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})).Permissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Denied {
			t.Errorf("%s is denied to a user who may do everything", p)
		}
	}
	guarded := rawServer(t, func(o *natsserver.Options) {
		o.Users = []*natsserver.User{userWith("all", all)}
		for n := range all {
			o.Users = append(o.Users, userWith(fmt.Sprint("without ", n), slices.Delete(slices.Clone(all), n, n+1)))
		}
	})
	for n := range all {
		t.Run(all[n].String(), func(t *testing.T) {
			conn := connect(t, publisher.ConnectConfig{InProcess: guarded, User: fmt.Sprint("without ", n), Password: "hush"})
			got, err := inspect(t, conn).Permissions(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for m, p := range got {
				if p.Denied != (m == n) {
					t.Errorf("%s: denied %v", p, p.Denied)
				}
			}
		})
	}

	// What the list allows is enough for everything that the bridge does.
	conn := connect(t, publisher.ConnectConfig{InProcess: guarded, User: "all", Password: "hush"})
	p, err := tryOpen(t, conn)
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Created, "a2", 1, 0))
	if err := p.SaveProgress(t.Context(), poller.Progress{FirstMet: epoch}); err != nil {
		t.Error(err)
	}
	if err := p.Reject(t.Context(), []poller.Rejection{{Reason: "none", Record: []byte(`{}`), Observed: epoch}}); err != nil {
		t.Error(err)
	}
	again, err := tryOpen(t, conn)
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	if err := again.Load(t.Context(), func(poller.Known) { known++ }); err != nil || known != 2 {
		t.Errorf("%d contacts known, %v; want 2", known, err)
	}
	lease, err := again.Lease(t.Context(), "me", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Run(t.Context(), func(context.Context) error { return errStop }, nil); !errors.Is(err, errStop) {
		t.Errorf("lease: %v", err)
	}
	if err := conn.LastError(); err != nil {
		t.Errorf("the server complained: %v", err)
	}
}

var errStop = errors.New("stop")

func TestInspectionChangesNothing(t *testing.T) {
	srv := startServer(t)
	conn := connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})
	js, err := jetstream.New(conn.NATS())
	if err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		i := inspect(t, conn)
		if _, err := i.Server(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := i.Permissions(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := i.Streams(t.Context()); err != nil {
			t.Error(err)
		}
	}
	state := func() map[string]string {
		found := make(map[string]string)
		for info := range js.ListStreams(t.Context()).Info() {
			cfg, err := json.Marshal(info.Config)
			if err != nil {
				t.Fatal(err)
			}
			found[info.Config.Name] = fmt.Sprintf("%s %d messages up to %d, %d consumers", cfg, info.State.Msgs, info.State.LastSeq, info.State.Consumers)
		}
		return found
	}
	look()
	if found := state(); len(found) > 0 {
		t.Errorf("streams after looking at nothing: %v", found)
	}
	appendAll(t, open(t, srv), changeOf(poller.Snapshot, "a1", 1, 0))
	bucketHas(t, js, 1)
	sub, err := conn.NATS().SubscribeSync("nimble.>")
	if err != nil {
		t.Fatal(err)
	}
	before := state()
	look()
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("looking changed (-before +after):\n%s", diff)
	}
	for {
		msg, err := sub.NextMsg(100 * time.Millisecond)
		if errors.Is(err, nats.ErrTimeout) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, err := event.ParseSubject(msg.Subject); err == nil {
			t.Errorf("a subscriber gets %s for an event: %s", s, msg.Data)
		}
	}
}

func TestStreamsForeseesWhatOpenDoes(t *testing.T) {
	tests := []struct {
		name string
		// stream and spoil are what somebody did to one of the streams that an earlier start made; none without a stream.
		stream   string
		spoil    func(*jetstream.StreamConfig)
		recreate bool
		change   func(*publisher.Config)
		changes  []string
		refusal  string
	}{
		{name: "all is as it was"},
		{
			name: "other limits", change: func(c *publisher.Config) { c.MaxBytes, c.MaxAge = 1<<20, time.Hour },
			changes: []string{"max_bytes is none, needed is 1048576", "max_age is 0s, needed is 1h0m0s"},
		},
		{
			name: "no batches", stream: "NIMBLE", spoil: func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false },
			changes: []string{"allow_atomic is false, needed is true"},
		},
		{
			name: "no batches, unmanaged", stream: "NIMBLE", spoil: func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false },
			change: func(c *publisher.Config) { c.Manage = false }, refusal: "allow_atomic is false",
		},
		{
			name: "in memory", stream: "NIMBLE", spoil: func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, recreate: true,
			changes: []string{"storage is Memory, needed is File"}, refusal: "storage is Memory",
		},
		{
			name: "a work queue", stream: "NIMBLE", spoil: func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, recreate: true,
			changes: []string{"retention is WorkQueue, needed is Limits"}, refusal: "retention is WorkQueue",
		},
		{
			name: "by interest", stream: "NIMBLE", spoil: func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, recreate: true,
			changes: []string{"retention is Interest, needed is Limits"},
		},
		{
			name: "a bucket with history", stream: "KV_nimble-contacts", spoil: func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 },
			changes: []string{"max_msgs_per_subject is 5, needed is 1"},
		},
		{
			name: "a state bucket that forgets", stream: "KV_nimble-bridge", spoil: func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
			changes: []string{"max_age is 1h0m0s, needed is 0s"},
		},
		{name: "replicas of a single server", change: func(c *publisher.Config) { c.Replicas = 3 }, refusal: "3 replicas"},
		{name: "another stream that is missing", change: func(c *publisher.Config) { c.Stream = "EVENTS" }, refusal: "stream NIMBLE has subjects"},
		{
			name: "another stream that is missing, unmanaged", change: func(c *publisher.Config) { c.Stream, c.Manage = "EVENTS", false },
			refusal: "stream EVENTS does not exist",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := startServer(t)
			js := open(t, srv).JetStream()
			if tt.stream != "" {
				spoilt := streamConfig(t, js, tt.stream)
				tt.spoil(&spoilt)
				if tt.recreate {
					if err := js.DeleteStream(t.Context(), tt.stream); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := js.CreateOrUpdateStream(t.Context(), spoilt); err != nil {
					t.Fatal(err)
				}
			}
			if tt.change == nil {
				tt.change = func(*publisher.Config) {}
			}
			conn := connect(t, publisher.ConnectConfig{InProcess: srv.InProcess()})
			plans, err := inspect(t, conn, tt.change).Streams(t.Context())
			if err != nil || len(plans) != 3 {
				t.Fatalf("%d plans, %v", len(plans), err)
			}
			var changes []string
			var refusals []error
			for _, p := range plans {
				for _, m := range p.Changes {
					changes = append(changes, fmt.Sprintf("%s is %s, needed is %s", m.Property, m.Is, m.Needed))
				}
				refusals = append(refusals, p.Refusal)
			}
			refusal := errors.Join(refusals...)
			if tt.name != "replicas of a single server" && tt.name != "another stream that is missing" { // Those change much.
				if diff := cmp.Diff(tt.changes, changes); diff != "" {
					t.Errorf("changes (-want +got):\n%s", diff)
				}
			}
			if (refusal != nil) != (tt.refusal != "") || refusal != nil && !strings.Contains(refusal.Error(), tt.refusal) {
				t.Errorf("refusal %v, want %q", refusal, tt.refusal)
			}
			if _, err := tryOpen(t, conn, tt.change); (err != nil) != (refusal != nil) {
				t.Errorf("foreseen: %v\nOpen:     %v", refusal, err)
			}
		})
	}
}

func TestInspectSeesTheServersLimits(t *testing.T) {
	srv := rawServer(t, func(o *natsserver.Options) {
		o.Accounts = []*natsserver.Account{natsserver.NewAccount("crm")}
		o.Users = []*natsserver.User{{Username: "me", Password: "hush", Account: o.Accounts[0]}}
	})
	account, err := srv.LookupAccount("crm")
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(t, publisher.ConnectConfig{InProcess: srv, User: "me", Password: "hush"})
	if _, err := inspect(t, conn).Server(t.Context()); err == nil || !strings.Contains(err.Error(), "JetStream is not enabled") {
		t.Errorf("without JetStream: %v", err)
	}
	if err := account.EnableJetStream(map[string]natsserver.JetStreamAccountLimits{"": {MaxStore: 1 << 20, MaxMemory: -1, MaxStreams: 4, MaxConsumers: -1}}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := inspect(t, conn).Server(t.Context())
	if err != nil || got.Limit != 1<<20 || got.MaxStreams != 4 || got.Version != natsserver.VERSION {
		t.Errorf("server %+v, %v", got, err)
	}
	plans, err := inspect(t, conn, func(c *publisher.Config) { c.MaxBytes = 2 << 20 }).Streams(t.Context())
	if err != nil || plans[0].Refusal == nil || !strings.Contains(plans[0].Refusal.Error(), "1048576 of 1048576 bytes left") {
		t.Errorf("a stream larger than the account: %+v, %v", plans, err)
	}
}
