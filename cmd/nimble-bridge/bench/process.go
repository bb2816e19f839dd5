package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child.
type process struct {
	name  string
	cmd   *exec.Cmd
	began time.Time
	url   string
	tail  *tail
	ended chan struct{}
	err   error
}

// startWithin is how long a child may take until it says where it answers. A simulated account of a million takes a while to invent.
const startWithin = 2 * time.Minute

// start runs a program and waits for a line of its output, from which address takes where it answers.
func start(ctx context.Context, name, program string, args, env []string, address *regexp.Regexp) (*process, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	p := &process{name: name, tail: &tail{}, ended: make(chan struct{})}
	// The end of ctx kills it, whatever it is doing.
	p.cmd = exec.CommandContext(ctx, program, args...)
	p.cmd.Env = append(inherited(), env...)
	p.cmd.Stdout, p.cmd.Stderr = write, write
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		read.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	found := make(chan string, 1)
	go func() {
		defer read.Close()
		p.follow(read, address, found)
	}()
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	select {
	case p.url = <-found:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("%s ended: %w\n%s", name, p.err, p.tail)
	case <-ctx.Done():
		p.kill()
		return nil, ctx.Err()
	case <-time.After(startWithin):
		p.kill()
		return nil, fmt.Errorf("%s does not say where it answers:\n%s", name, p.tail)
	}
}

// inherited is what of this process's environment its children get: none of the variables that configure a bridge.
func inherited() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SYSTEMROOT", "GOMEMLIMIT", "GOMAXPROCS", "GOGC"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// follow reads the output to its end.
func (p *process) follow(from io.Reader, address *regexp.Regexp, found chan<- string) {
	for lines := bufio.NewReader(from); ; {
		line, err := lines.ReadString('\n')
		p.tail.add(line)
		if m := address.FindStringSubmatch(line); m != nil && found != nil {
			found <- m[1]
			found = nil
		}
		if err != nil {
			return
		}
	}
}

// stop ends the process as a service manager does, and returns what it has cost.
func (p *process) stop() (cpu time.Duration, err error) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.kill()
		return 0, fmt.Errorf("%s: %w\n%s", p.name, err, p.tail)
	}
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.kill()
		return 0, fmt.Errorf("%s does not end\n%s", p.name, p.tail)
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.err); p.err != nil && (!ok || exit.Exited()) { // Some end by the signal itself.
		return 0, fmt.Errorf("%s: %w\n%s", p.name, p.err, p.tail)
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), nil
}

// kill ends the process if it still runs.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // It may have ended.
	<-p.ended
}

// check reports a process that has ended by itself.
func (p *process) check() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended: %w\n%s", p.name, p.err, p.tail)
	default:
		return nil
	}
}

// cpu is what the process has used so far; zero where that cannot be seen from outside.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "stat"))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(stat), ") ") // The name before it may hold anything.
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0
	}
	const tick = 10 * time.Millisecond // Linux shows hundredths to every program, whatever it counts in.
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

// memory is how much of the process is in memory now, and was at most, in bytes; zero where that cannot be seen from outside.
func (p *process) memory() (now, peak float64) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch name {
		case "VmRSS":
			now = kilobytes * 1024
		case "VmHWM":
			peak = kilobytes * 1024
		}
	}
	return now, peak
}

// tail keeps the end of a process's output, for errors.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	const most = 20
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, line); len(t.lines) > most {
		t.lines = t.lines[1:]
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(strings.Join(t.lines, ""))
}

// The lines in which the children say where they answer.
var (
	simulatorAddress = regexp.MustCompile(`answers at (http://\S+)`)
	bridgeAddress    = regexp.MustCompile(`"url":"(http://[^"]+)"`)
	serverAddress    = regexp.MustCompile(`(?:NATS answers at |Listening for client connections on )(\S+)`)
)

func (r *run) startSimulator(ctx context.Context) (err error) {
	args := []string{"simulate", "--addr", "127.0.0.1:0", "--key", apiKey, "--contacts", strconv.Itoa(r.Contacts)}
	r.simulator, err = start(ctx, "simulator", r.Program, args, nil, simulatorAddress)
	return err
}

// startServer starts a NATS server that makes everything durable at once, as the bridge's own does and others are asked to.
func (r *run) startServer(ctx context.Context, name string) (*process, error) {
	dir := filepath.Join(r.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if r.NATSServer == "" {
		return start(ctx, "NATS server", r.Program, []string{"bench", "serve-nats", "--dir", dir}, nil, serverAddress)
	}
	config, err := json.Marshal(map[string]any{
		"listen": "127.0.0.1:-1", "jetstream": map[string]any{"store_dir": dir, "sync_interval": "always"},
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(r.dir, name+".conf")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	return start(ctx, "NATS server", r.NATSServer, []string{"-c", file}, nil, serverAddress)
}

// natsURL is where a server answers; nats-server names the address alone.
func natsURL(p *process) string {
	if strings.Contains(p.url, "://") {
		return p.url
	}
	return "nats://" + p.url
}

func (r *run) startBridge(ctx context.Context, interval, overlap time.Duration) (*process, error) {
	return start(ctx, "bridge", r.Program, []string{"run"}, []string{
		"NIMBLE_API_KEY=" + apiKey, "NIMBLE_BASE_URL=" + r.simulator.url, "NIMBLE_RATE_LIMIT=1000000", "NATS_URL=" + natsURL(r.server),
		"HTTP_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "POLL_INTERVAL=" + interval.String(), "POLL_OVERLAP=" + overlap.String(),
	}, bridgeAddress)
}

const apiKey = "bench-key"

// visible tells whether processes can be looked into from outside.
const visible = runtime.GOOS == "linux"
