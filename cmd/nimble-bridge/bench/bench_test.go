package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nimble-bridge/cmd/nimble-bridge/bench"
)

// TestSmallRun measures a small account, and looks whether the figures can be true.
func TestSmallRun(t *testing.T) {
	program := filepath.Join(t.TempDir(), "nimble-bridge")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "nimble-bridge/cmd/nimble-bridge").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	report, err := bench.Run(ctx, bench.Options{
		Program: program, Contacts: 1200, Runs: 1, Single: 3, Edits: 150, Deletions: 2, Idle: time.Second, Dir: dir, Progress: func(what string) { t.Log(what) },
	})
	if err != nil {
		t.Fatal(err)
	}
	figures := make(map[string]float64)
	for _, f := range report.Figures {
		figures[f.Group+": "+f.Name] = f.Median
		if f.Median < 0 || f.Min != f.Median || f.Max != f.Median || len(f.Values) != 1 {
			t.Errorf("%s: %s: %+v of one run", f.Group, f.Name, f)
		}
	}
	for name, within := range map[string][2]float64{
		"snapshot: from the start of the process to the last event": {0.01, 60},
		"snapshot: rate": {20, 1e6},
		"snapshot: limit: fetching the same pages, one after another": {20, 1e7},
		"snapshot: limit: nats.go alone appending the same events":    {20, 1e7},
		"snapshot: requests":                                           {13, 30}, // 12 pages, the count and a few for finding out what the API can do.
		"restart: pages of contacts asked for until then":              {0, 3},
		"single edits: edit to event, p50":                             {0.1, 30_000},
		"many at once: from 150 edits to the last event":               {0.01, 60},
		"many at once: requests of the reconciliation that found them": {3, 1000},
		"idle: requests for a poll":                                    {0.9, 2.5}, // The account's total is asked for at some polls only.
	} {
		if got, ok := figures[name]; !ok || got < within[0] || got > within[1] {
			t.Errorf("%s: %v (there: %v), want %v to %v", name, got, ok, within[0], within[1])
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%v left behind, %v", left, err)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil || !strings.Contains(text.String(), "requests for a poll") {
		t.Errorf("%v, text:\n%s", err, text.String())
	}
	data, err := json.Marshal(report)
	if err != nil || !strings.Contains(string(data), `"target":60,"target_is_least":true`) {
		t.Errorf("%v, JSON: %s", err, data)
	}
}

// TestProgramThatEnds reports a program that is none, with what it said.
func TestProgramThatEnds(t *testing.T) {
	program, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	_, err = bench.Run(t.Context(), bench.Options{Program: program, Contacts: 100, Runs: 1, Single: 1, Edits: 1, Deletions: 1, Idle: time.Second, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "simulator ended: exit status 2") || !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("error %v, want one that says how the simulator ended", err)
	}
}

func TestOptions(t *testing.T) {
	good := bench.Options{Contacts: 100, Runs: 1, Single: 1, Edits: 1, Deletions: 1, Idle: time.Second}
	for _, tt := range []struct {
		change func(*bench.Options)
		want   string
	}{
		{func(o *bench.Options) { o.Contacts = 99 }, "99 contacts"},
		{func(o *bench.Options) { o.Runs = 0 }, "0 runs"},
		{func(o *bench.Options) { o.Edits = 0 }, "0 edited"},
		{func(o *bench.Options) { o.Single = 101 }, "101 contacts edited one by one"},
		{func(o *bench.Options) { o.Deletions = 21 }, "21 deletions"},
		{func(o *bench.Options) { o.Idle = time.Millisecond }, "idle for 1ms"},
	} {
		o := good
		tt.change(&o)
		_, err := bench.Run(t.Context(), o)
		if wrong, ok := errors.AsType[*bench.OptionError](err); !ok || !strings.Contains(wrong.Error(), tt.want) {
			t.Errorf("error %v, want one about options that says %q", err, tt.want)
		}
	}
}

func TestMet(t *testing.T) {
	for _, tt := range []struct {
		figure bench.Figure
		want   bool
	}{
		{bench.Figure{Median: 5}, true},
		{bench.Figure{Median: 5, Target: 4}, false},
		{bench.Figure{Median: 2.002, Target: 2}, true},
		{bench.Figure{Median: 2.01, Target: 2}, false},
		{bench.Figure{Median: 4, Target: 4}, true},
		{bench.Figure{Median: 5, Target: 4, Least: true}, true},
		{bench.Figure{Median: 3, Target: 4, Least: true}, false},
	} {
		if got := tt.figure.Met(); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.figure, got, tt.want)
		}
	}
}
