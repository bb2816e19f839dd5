package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
)

// clusterKills is how often the stream's leader and the active bridge are each killed. The full proof takes some minutes:
//
//	go test ./cmd/nimble-bridge -run TestCluster -cluster.kills=10 -timeout 30m -v
var clusterKills = flag.Int("cluster.kills", 1, "kills of the stream's leader, and of the active bridge, in TestCluster")

// cluster is three nats-server processes.
type cluster struct {
	t         *testing.T
	path      string
	configs   [3]string
	addrs     [3]string
	processes [3]*process
}

func startCluster(t *testing.T) *cluster {
	c := &cluster{t: t, path: buildProgram(t, serverPackage)}
	dir := t.TempDir()
	var routes [3]string
	for i := range routes {
		routes[i], c.addrs[i] = freeAddress(t), freeAddress(t)
	}
	for i := range c.configs {
		c.configs[i] = filepath.Join(dir, fmt.Sprintf("n%d.conf", i))
		config := fmt.Sprintf("server_name: n%d\nlisten: %q\njetstream { store_dir: %q }\ncluster { name: c, listen: %q, routes: [nats-route://%s] }\n",
			i, c.addrs[i], filepath.Join(dir, fmt.Sprintf("n%d", i)), routes[i], strings.Join(routes[:], ", nats-route://"))
		if err := os.WriteFile(c.configs[i], []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		c.start(i)
	}
	return c
}

func (c *cluster) start(i int) { c.processes[i] = launch(c.t, c.path, nil, "-c", c.configs[i]) }

func (c *cluster) url() string { return "nats://" + strings.Join(c.addrs[:], ",nats://") }

// leader returns the number of the server that leads the event stream.
func (c *cluster) leader(ctx context.Context) (int, error) {
	nc, err := nats.Connect(c.url(), nats.Timeout(2*time.Second))
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	stream, err := js.Stream(ctx, "NIMBLE")
	if err != nil {
		return 0, err
	}
	info := stream.CachedInfo().Cluster
	i := slices.Index([]string{"n0", "n1", "n2"}, info.Leader)
	if i < 0 {
		return 0, errors.New("the stream has no leader")
	}
	for _, replica := range info.Replicas {
		if !replica.Current || replica.Offline {
			return 0, fmt.Errorf("replica %s is not current", replica.Name)
		}
	}
	return i, nil
}

// TestCluster kills the server that leads the stream, and the bridge that leads the account, in turn, under steady edits.
func TestCluster(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	bridgePath := buildProgram(t, bridgePackage)
	account := nimbletest.NewServer(nimbletest.WithContacts(200))
	defer account.Close()
	c := startCluster(t)
	var addrs [2]string
	var bridges [2]*process
	start := func(i int) {
		addrs[i] = freeAddress(t)
		bridges[i] = launch(t, bridgePath, bridgeEnv(account, addrs[i], "NATS_URL="+c.url(), "NATS_REPLICAS=3"))
	}
	// active returns which bridge leads, by its own word.
	active := func(ctx context.Context) (int, error) {
		var errs []error
		for i, addr := range addrs {
			self, leader, err := leaderOf(ctx, addr)
			if err == nil && leader != "" && self == leader {
				return i, nil
			}
			errs = append(errs, err)
		}
		return 0, fmt.Errorf("no bridge leads: %w", errors.Join(errs...))
	}
	start(0)
	start(1)
	within(t, patience, func(ctx context.Context) error {
		_, err := active(ctx)
		return err
	})
	stopEditing := edit(account.Account, 20*time.Millisecond)
	var took []time.Duration
	for range *clusterKills {
		var leader int
		within(t, patience, func(ctx context.Context) (err error) {
			leader, err = c.leader(ctx)
			return err
		})
		c.processes[leader].kill()
		wait(t, 2*time.Second)
		c.start(leader)

		var first int
		within(t, patience, func(ctx context.Context) (err error) {
			first, err = active(ctx)
			return err
		})
		began := time.Now()
		bridges[first].kill()
		within(t, patience, func(ctx context.Context) error {
			now, err := active(ctx)
			if err == nil && now == first {
				err = errors.New("the dead bridge leads")
			}
			return err
		})
		took = append(took, time.Since(began))
		start(first)
	}
	edits := stopEditing()
	// A cluster's sourcing can stand still for a minute after it lost a node; the stream never does.
	within(t, 2*patience, func(ctx context.Context) error {
		for _, addr := range c.addrs {
			conn, err := net.DialTimeout("tcp", addr, time.Second)
			if err != nil {
				return err
			}
			_ = conn.Close()
		}
		return agree(c.url(), account.Account)(ctx)
	})
	slices.Sort(took)
	t.Logf("%d kills of the stream's leader and of the active bridge, %d edits, %d contacts; take-over by the standby: median %v, worst %v",
		*clusterKills, edits, account.Len(), took[len(took)/2], took[len(took)-1])
}

// TestStaleReplicas lets a replica fall behind, and reads what is known the moment it is back: consumers, and direct gets, may be answered by it.
func TestStaleReplicas(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	c := startCluster(t)
	open := func() *publisher.Publisher {
		conn, err := publisher.Connect(t.Context(), publisher.ConnectConfig{URLs: strings.Split(c.url(), ",")}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		var p *publisher.Publisher
		within(t, patience, func(ctx context.Context) (err error) {
			p, err = publisher.Open(ctx, conn, publisher.Config{
				Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Replicas: 3, Manage: true,
			}, zap.NewNop())
			return err
		})
		return p
	}
	p, q := open(), open()
	const contacts, rounds = 400, 4
	known := make(map[string]poller.Known)
	stale, asked := 0, 0
	for round := range rounds {
		behind := -1
		within(t, patience, func(ctx context.Context) (err error) {
			behind, err = c.follower(ctx)
			return err
		})
		process := c.processes[behind].cmd.Process
		if err := process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var changes []poller.Change
		for i := range contacts {
			changes = append(changes, changeOf(t, known[fmt.Sprint("c", i)], fmt.Sprint("c", i), round))
		}
		sequences, err := p.Append(t.Context(), changes)
		if err := errors.Join(err, process.Signal(syscall.SIGCONT)); err != nil {
			t.Fatal(err)
		}
		for i, change := range changes {
			known[change.Contact.ID] = poller.Known{
				ID: change.Contact.ID, Fingerprint: change.Fingerprint, Revision: change.Revision, Sequence: sequences[i],
				Created: change.Contact.Created, Updated: change.Contact.Updated,
			}
		}
		for i := range 3 {
			asked++
			if !bucketShows(t, p, known[fmt.Sprint("c", 100*i)]) {
				stale++
			}
		}
		got := make(map[string]poller.Known)
		if err := q.Load(t.Context(), func(k poller.Known) { got[k.ID] = k }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(known, got); diff != "" {
			t.Errorf("round %d, with n%d behind: %.2000s", round, behind, diff)
		}
		for _, k := range []string{"c1", "c200", "c399"} {
			if document, err := q.Last(t.Context(), got[k]); err != nil || !strings.Contains(string(document), fmt.Sprintf("round %d", round)) {
				t.Errorf("round %d: last document of %s: %s, %v", round, k, document, err)
			}
		}
	}
	t.Logf("%d of %d direct gets from the bucket were not up to date", stale, asked)
}

// bucketShows tells whether the bucket, as clients read it, has a contact's last event.
func bucketShows(t *testing.T, p *publisher.Publisher, k poller.Known) bool {
	t.Helper()
	kv, err := p.JetStream().KeyValue(t.Context(), "nimble-contacts")
	if err != nil {
		return false
	}
	entry, err := kv.Get(t.Context(), "acme."+k.ID)
	if err != nil {
		return false
	}
	e, err := event.Decode(entry.Value())
	return err == nil && e.Data.Revision == k.Revision
}

// changeOf is the change of a contact that follows what is known of it.
func changeOf(t *testing.T, before poller.Known, id string, round int) poller.Change {
	t.Helper()
	created := time.Date(2026, 3, 1, 10, 15, 0, 0, time.UTC)
	updated := created.Add(time.Duration(round) * time.Minute)
	raw := fmt.Sprintf(`{"id":%q,"record_type":"person","created":%q,"updated":%q,"fields":{"title":[{"value":"round %d","modifier":""}],"description":[{"value":%q,"modifier":""}]},"tags":[]}`,
		id, created.Format(time.RFC3339), updated.Format(time.RFC3339), round, strings.Repeat("long ", 4000))
	change := poller.Change{
		Kind: poller.Snapshot, Contact: nimble.Contact{ID: id, RecordType: "person", Created: created, Updated: updated, Raw: jsontext.Value(raw)},
		Revision: before.Revision + 1, Previous: before.Sequence, Observed: updated, FoundBy: poller.FoundByPoll,
	}
	if before.Revision > 0 {
		change.Kind = poller.Updated
		change.Changes = map[string]poller.Difference{"fields.title": {Before: jsontext.Value(`[]`), After: jsontext.Value(`[]`)}}
	}
	var err error
	if change.Fingerprint, err = poller.FingerprintOf(change.Contact.Raw); err != nil {
		t.Fatal(err)
	}
	return change
}

// follower returns the number of a server that leads neither the stream nor the bucket, once all servers are up to date.
func (c *cluster) follower(ctx context.Context) (int, error) {
	nc, err := nats.Connect(c.url(), nats.Timeout(2*time.Second))
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	names := []string{"n0", "n1", "n2"}
	leads := make(map[string]bool)
	for _, name := range []string{"NIMBLE", "KV_nimble-contacts"} {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return 0, err
		}
		info := stream.CachedInfo().Cluster
		if info.Leader == "" {
			return 0, fmt.Errorf("stream %s has no leader", name)
		}
		leads[info.Leader] = true
		for _, replica := range info.Replicas {
			if !replica.Current || replica.Offline {
				return 0, fmt.Errorf("replica %s of stream %s is not current", replica.Name, name)
			}
		}
	}
	return slices.IndexFunc(names, func(name string) bool { return !leads[name] }), nil
}
