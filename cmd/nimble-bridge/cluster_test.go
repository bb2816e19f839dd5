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
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
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
