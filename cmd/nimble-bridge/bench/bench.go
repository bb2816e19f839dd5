// Package bench measures a whole bridge beside the physical limits of the machine that it runs on.
//
// Everything is a process of its own, as in production: the simulated account, the NATS server and the bridge are the same program, started
// with other commands, so that the only thing to install is that program. One run
//
//  1. lets a bridge take the snapshot of an account, from the start of its process to the last event stored;
//  2. asks for the same pages again and throws the answers away, which is the limit that the account sets;
//  3. appends the same messages to another, empty server with bare nats.go, in full batches with the same headers, which is the limit
//     that NATS sets;
//  4. starts the bridge again and measures until it is ready;
//  5. edits single contacts and measures until the event has come;
//  6. edits and deletes many;
//  7. leaves it alone, and measures what that costs.
//
// On a machine with few processors all three processes share them, so that the rate of the whole can reach neither limit: a ratio says how
// much of the scarcer one is left.
package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options say what is measured.
type Options struct {
	// Program is the nimble-bridge to measure.
	Program string
	// NATSServer is a nats-server to measure with; empty: Program serves NATS, with the same library.
	NATSServer string
	// Contacts is the size of the account, Runs how often everything is measured.
	Contacts, Runs int
	// Single, Edits and Deletions are how many contacts are edited one by one, edited at once, and deleted at once.
	Single, Edits, Deletions int
	// Idle is for how long the bridge is left alone.
	Idle time.Duration
	// Dir is where the servers store their streams, in directories that are removed again.
	Dir string
	// Progress, if set, is told what is being done.
	Progress func(string)
}

// OptionError says that there is nothing to measure with such options.
type OptionError struct{ problem string }

// Error implements error.
func (e *OptionError) Error() string { return e.problem }

// maxDeletions is how many deletions a bridge publishes without asking anybody, unless it is told otherwise.
const maxDeletions = 20

func (o *Options) check() error {
	problem := func(format string, args ...any) error { return &OptionError{fmt.Sprintf(format, args...)} }
	switch {
	case o.Contacts < 100:
		return problem("%d contacts are too few to measure anything with; 100 at least", o.Contacts)
	case o.Runs < 1:
		return problem("%d runs; 1 at least", o.Runs)
	case o.Single < 1 || o.Edits < 1 || o.Deletions < 1:
		return problem("%d contacts edited one by one, %d edited and %d deleted at once; 1 of each at least", o.Single, o.Edits, o.Deletions)
	case o.Single > o.Contacts || o.Edits > o.Contacts:
		return problem("%d contacts edited one by one and %d at once, of %d; no more than there are", o.Single, o.Edits, o.Contacts)
	case o.Deletions > maxDeletions:
		return problem("%d deletions; at most %d, because more wait for a person", o.Deletions, maxDeletions)
	case o.Idle < time.Second:
		return problem("idle for %s; 1s at least", o.Idle)
	}
	return nil
}

// Report is what was measured.
type Report struct {
	Machine  Machine  `json:"machine"`
	Version  string   `json:"version"`
	Contacts int      `json:"contacts"`
	Runs     int      `json:"runs"`
	Figures  []Figure `json:"figures"`
}

// Machine is where.
type Machine struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	Processor  string `json:"processor,omitzero"`
	Processors int    `json:"processors"`
	Go         string `json:"go"`
}

// Figure is one thing that was measured in each run.
type Figure struct {
	// Group is what part of the run it belongs to.
	Group string `json:"group"`
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	// Target is what the value is to reach, Least whether it is to be reached from above; no target is zero.
	Target float64 `json:"target,omitzero"`
	Least  bool    `json:"target_is_least,omitzero"`
	// Values are those of the runs, in their order.
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
}

// Met tells whether the median reaches the target, as exactly as the text shows it.
func (f *Figure) Met() bool {
	shown, err := strconv.ParseFloat(number(f.Median), 64)
	if err != nil {
		shown = f.Median
	}
	return f.Target == 0 || f.Least && shown >= f.Target || !f.Least && shown <= f.Target
}

// measured collects the figures of one run.
type measured struct{ figures []Figure }

func (m *measured) add(group, name, unit string, value float64) {
	m.figures = append(m.figures, Figure{Group: group, Name: name, Unit: unit, Values: []float64{value}})
}

// targets are what design and promises ask for, by group and name.
var targets = map[[2]string]Figure{
	{groupSnapshot, "rate, of what nats.go alone appends"}: {Target: 60, Least: true},
	{groupSnapshot, "bridge's CPU for a contact"}:          {Target: 60},
	{groupRestart, "until ready"}:                          {Target: 15},
	{groupSingle, "edit to event, p99"}:                    {Target: 50},
	{groupIdle, "bridge's CPU for a poll"}:                 {Target: 1},
	{groupIdle, "requests for a poll"}:                     {Target: 2},
}

// merge puts the runs together.
func merge(runs []measured) []Figure {
	figures := slices.Clone(runs[0].figures)
	for i := range figures {
		f := &figures[i]
		f.Values = nil
		for _, r := range runs {
			f.Values = append(f.Values, r.figures[i].Values...)
		}
		sorted := slices.Sorted(slices.Values(f.Values))
		f.Min, f.Max = sorted[0], sorted[len(sorted)-1]
		f.Median = (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
		if t, ok := targets[[2]string{f.Group, f.Name}]; ok {
			f.Target, f.Least = t.Target, t.Least
		}
	}
	return figures
}

// Run measures, and stops early when ctx ends.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	dir, err := os.MkdirTemp(o.Dir, "nimble-bridge-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var runs []measured
	for n := range o.Runs {
		r := &run{Options: o, dir: filepath.Join(dir, fmt.Sprint(n+1))}
		r.say = func(what string) { o.Progress(fmt.Sprintf("run %d of %d: %s", n+1, o.Runs, what)) }
		if err := r.everything(ctx); err != nil {
			return nil, fmt.Errorf("run %d: %w", n+1, err)
		}
		runs = append(runs, r.measured)
		if err := os.RemoveAll(r.dir); err != nil {
			return nil, err
		}
	}
	return &Report{Machine: machine(), Contacts: o.Contacts, Runs: o.Runs, Figures: merge(runs)}, nil
}

func machine() Machine {
	m := Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Processors: runtime.NumCPU(), Go: runtime.Version()}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// percentile returns the value below which the given share of the sorted values lies.
func percentile[T cmp.Ordered](sorted []T, share float64) T {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}
