package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/streamtest"
)

// The tests of this file run the built binary and a built nats-server as processes, kill them, and hold the stream against the account.

// buildProgram returns the path of a program built from a package, once for all tests.
func buildProgram(t *testing.T, pkg string) string {
	t.Helper()
	buildOnce.Lock()
	defer buildOnce.Unlock()
	if path, ok := built[pkg]; ok {
		return path
	}
	if buildDir == "" {
		dir, err := os.MkdirTemp("", "nimble-bridge-test") //nolint:usetesting // It outlives the test: the next one needs the programs too.
		if err != nil {
			t.Fatal(err)
		}
		buildDir = dir
	}
	path := filepath.Join(buildDir, fmt.Sprintf("program%d", len(built)))
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	built[pkg] = path
	return path
}

var (
	buildOnce sync.Mutex
	buildDir  string
	built     = make(map[string]string)
)

const (
	bridgePackage = "nimble-bridge/cmd/nimble-bridge"
	serverPackage = "github.com/nats-io/nats-server/v2"
)

// process is a running program, whose output ends up in the test's log if the test fails.
type process struct {
	cmd *exec.Cmd
	log *os.File
}

// apart prepares the program as a process of its own, so that tests which give it an environment can wait side by side.
func apart(t *testing.T, env map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(buildProgram(t, bridgePackage), args...)
	cmd.Env = os.Environ()
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// runApart is runProgram in a process of its own.
func runApart(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	cmd := apart(t, env, args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	if err := cmd.Run(); err != nil && !is[*exec.ExitError](err) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// startApart is start in a process of its own.
func startApart(t *testing.T, env map[string]string, args ...string) *running {
	t.Helper()
	cmd := apart(t, env, args...)
	r := &running{stdout: newOutput(), stderr: newOutput(), code: make(chan int, 1)}
	cmd.Stdout, cmd.Stderr = r.stdout, r.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.stop = func() { _ = cmd.Process.Signal(syscall.SIGTERM) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // What came of it is in the exit code.
		r.code <- cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
		}
	})
	return r
}

// launch starts a program that the end of the test kills.
func launch(t *testing.T, path string, env []string, args ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, log}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			out, _ := os.ReadFile(log.Name())
			t.Logf("%s %v:\n%s", filepath.Base(path), args, out[max(0, len(out)-4000):])
		}
		_ = log.Close()
	})
	return p
}

// kill ends the process as a power switch would, and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// stop ends the process with SIGTERM and returns its exit code.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return p.ends(t)
}

// ends waits for the process's end and returns its exit code.
func (p *process) ends(t *testing.T) int {
	t.Helper()
	done := make(chan struct{})
	go func() {
		_ = p.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		p.kill()
		t.Fatalf("the process does not end within %s", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// freeAddress returns an address on this machine at which nobody listens. It is not one of those that the system gives out by itself, to connections too, so that it stays free while a program
// that listens there is killed and started again.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		address := fmt.Sprint("127.0.0.1:", 10_000+(firstPort+nextPort.Add(1))%20_000)
		listener, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = listener.Close()
		return address
	}
}

// Tests of other packages may look for addresses at the same time, so each process begins somewhere else.
var (
	firstPort = rand.Uint32N(20_000)
	nextPort  atomic.Uint32
)

// within tries until there is no error, and fails with the last one.
func within(t *testing.T, patience time.Duration, try func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		began := time.Now()
		attempt, done := context.WithTimeout(ctx, time.Minute) // Reading thousands of events takes its time under the race detector.
		err = try(attempt)
		done()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		// Some tries read everything that is stored, and what they wait for needs the processor as well.
		case <-time.After(max(50*time.Millisecond, min(2*time.Since(began), time.Second))):
		}
	}
	t.Fatalf("not within %s: %v", patience, err)
}

// ready asks /readyz.
func ready(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", resp.Status)
		}
		return nil
	}
}

// agree holds the stream of an account against the account itself.
func agree(url string, account *nimbletest.Account) func(context.Context) error {
	return func(ctx context.Context) error {
		nc, err := nats.Connect(url, nats.Timeout(2*time.Second))
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		messages, err := streamtest.Read(ctx, js, "NIMBLE", "nimble", "acme")
		if err != nil {
			return err
		}
		contacts := make(map[string]jsontext.Value)
		for _, id := range account.IDs() {
			contacts[id], _ = account.Contact(id)
		}
		if err := errors.Join(streamtest.CheckHistory(messages), streamtest.CheckLatest(messages, contacts)); err != nil {
			return err // The bucket may well be ahead of what was read.
		}
		return streamtest.CheckBucket(ctx, js, "nimble-contacts", "acme", messages)
	}
}

// edit changes the account until the returned function is called, which tells how often it did.
func edit(account *nimbletest.Account, pause time.Duration) (stop func() int) {
	quit, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ticker := time.NewTicker(pause); ; {
			select {
			case <-quit:
				ticker.Stop()
				done <- n
				return
			case <-ticker.C:
			}
			n++
			ids := account.IDs()
			switch {
			case n%10 == 0:
				account.Create()
			case n%97 == 0:
				account.Import(120)
			default:
				account.Edit(ids[rand.IntN(len(ids))], nimbletest.Field("title", fmt.Sprint("edit ", n)))
			}
		}
	}()
	return func() int {
		close(quit)
		return <-done
	}
}

// bridgeEnv is the configuration of a bridge on a simulated account.
func bridgeEnv(server *nimbletest.Server, http string, more ...string) []string {
	return append([]string{
		"NIMBLE_API_KEY=test-key", "NIMBLE_BASE_URL=" + server.URL, "NIMBLE_ACCOUNT=acme", "NIMBLE_RATE_LIMIT=10000",
		"POLL_INTERVAL=50ms", "POLL_OVERLAP=3s", "HTTP_ADDR=" + http,
	}, more...)
}

// TestKilledAtRandomMoments kills the bridge, with its embedded server in it, twenty times while somebody edits contacts.
func TestKilledAtRandomMoments(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	path := buildProgram(t, bridgePackage)
	server := nimbletest.NewServer(nimbletest.WithContacts(400))
	defer server.Close()
	natsAddr, httpAddr := freeAddress(t), freeAddress(t)
	env := bridgeEnv(server, httpAddr, "EMBEDDED_NATS_DIR="+t.TempDir(), "EMBEDDED_NATS_ADDR="+natsAddr)
	stopEditing := edit(server.Account, 3*time.Millisecond)
	for range 20 {
		bridge := launch(t, path, env)
		wait(t, time.Duration(50+rand.IntN(700))*time.Millisecond)
		bridge.kill()
	}
	bridge := launch(t, path, env)
	edits := stopEditing()
	within(t, patience, agree("nats://"+natsAddr, server.Account))
	within(t, patience, ready(httpAddr))
	if code := bridge.stop(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	t.Logf("%d edits, %d contacts", edits, server.Len())
}

// TestServerKilledAtRandomMoments kills a separate nats-server, and the bridge in turn.
func TestServerKilledAtRandomMoments(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	bridgePath, serverPath := buildProgram(t, bridgePackage), buildProgram(t, serverPackage)
	account := nimbletest.NewServer(nimbletest.WithContacts(400))
	defer account.Close()
	natsAddr, httpAddr, dir := freeAddress(t), freeAddress(t), t.TempDir()
	_, port, _ := net.SplitHostPort(natsAddr)
	startServer := func() *process { return launch(t, serverPath, nil, "-js", "-sd", dir, "-a", "127.0.0.1", "-p", port) }
	env := bridgeEnv(account, httpAddr, "NATS_URL=nats://"+natsAddr)
	server, bridge := startServer(), launch(t, bridgePath, env)
	stopEditing := edit(account.Account, 3*time.Millisecond)
	for i := range 10 {
		wait(t, time.Duration(100+rand.IntN(900))*time.Millisecond)
		if i%2 == 0 {
			server.kill()
			server = startServer()
		} else {
			bridge.kill()
			bridge = launch(t, bridgePath, env)
		}
	}
	edits := stopEditing()
	within(t, patience, agree("nats://"+natsAddr, account.Account))
	within(t, patience, ready(httpAddr))
	if code := bridge.stop(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	t.Logf("%d edits, %d contacts", edits, account.Len())
}

// wait lets real processes run for a while.
func wait(t *testing.T, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

// leaderOf asks a bridge's /status who polls.
func leaderOf(ctx context.Context, addr string) (self, leader string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", http.NoBody)
	if err != nil {
		return "", "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var s struct {
		Name   string `json:"name"`
		Leader string `json:"leader"`
	}
	err = json.UnmarshalRead(resp.Body, &s)
	return s.Name, s.Leader, err
}

// TestStandbyTakesOver kills whoever leads, again and again, while two bridges watch one account; the other goes on, and nothing is lost or doubled.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	bridgePath, serverPath := buildProgram(t, bridgePackage), buildProgram(t, serverPackage)
	account := nimbletest.NewServer(nimbletest.WithContacts(200))
	defer account.Close()
	natsAddr := freeAddress(t)
	_, port, _ := net.SplitHostPort(natsAddr)
	launch(t, serverPath, nil, "-js", "-sd", t.TempDir(), "-a", "127.0.0.1", "-p", port)
	var addrs [2]string
	var bridges [2]*process
	start := func(i int) {
		addrs[i] = freeAddress(t)
		bridges[i] = launch(t, bridgePath, bridgeEnv(account, addrs[i], "NATS_URL=nats://"+natsAddr))
		within(t, patience, ready(addrs[i]))
	}
	leads := func(i int) func(context.Context) error {
		return func(ctx context.Context) error {
			self, leader, err := leaderOf(ctx, addrs[i])
			if err == nil && (leader == "" || self != leader) {
				err = fmt.Errorf("bridge %d is %q and %q leads", i, self, leader)
			}
			return err
		}
	}
	start(0)
	within(t, patience, leads(0))
	start(1)
	stopEditing := edit(account.Account, 5*time.Millisecond)
	var took []time.Duration
	leader := 0
	for range 2 {
		began := time.Now()
		bridges[leader].kill()
		within(t, patience, leads(1-leader))
		took = append(took, time.Since(began))
		start(leader)
		leader = 1 - leader
	}
	leases := watchLease(t, "nats://"+natsAddr)
	began := time.Now()
	if code := bridges[leader].stop(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	within(t, patience, leads(1-leader))
	clean := time.Since(began)
	if !givenBack(leases) {
		t.Error("the lease was not given back, so that the standby had to wait for it to expire")
	}
	edits := stopEditing()
	within(t, patience, agree("nats://"+natsAddr, account.Account))
	slices.Sort(took)
	t.Logf("take-over after a kill: %v at best, %v at worst; after a clean stop: %v; %d edits", took[0], took[len(took)-1], clean, edits)
}

// watchLease returns what bridges write into the lease from now on. What expires is no message.
func watchLease(t *testing.T, url string) <-chan *nats.Msg {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	ch := make(chan *nats.Msg, 1000)
	if _, err := nc.ChanSubscribe("$KV.nimble-bridge.acme.leader", ch); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return ch
}

// givenBack tells whether the lease was purged by the one who held it.
func givenBack(leases <-chan *nats.Msg) bool {
	for {
		select {
		case m := <-leases:
			if m.Header.Get("KV-Operation") == "PURGE" {
				return true
			}
		default:
			return false
		}
	}
}
