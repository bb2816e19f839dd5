package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"
)

func TestLogForMachines(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out, "auto", logLevel(zap.InfoLevel))
	log.Debug("unheard")
	log.Info("poll", zap.Int("events", 3), zap.Duration("duration", 1500*time.Millisecond))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	if line["level"] != "info" || line["msg"] != "poll" || line["events"] != 3.0 || line["duration"] != "1.5s" {
		t.Errorf("the line is %s", out.String())
	}
	if _, err := time.Parse(time.RFC3339, line["time"].(string)); err != nil {
		t.Error(err)
	}
}

func TestLogForPeople(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out, "console", logLevel(zap.WarnLevel))
	log.Info("unheard")
	old := time.Date(2020, 3, 1, 10, 15, 0, 0, time.Local)
	log.Warn("poll failed", zap.Time("settled", old), zap.Time("first_met", time.Time{}))
	got := out.String()
	for _, want := range []string{"  WARN  poll failed  ", `"settled": "` + old.Format(time.RFC3339) + `"`, `"first_met": "never"`} {
		if !strings.Contains(got, want) {
			t.Errorf("the line is %q, want %q in it", got, want)
		}
	}
	if strings.Count(got, "\n") != 1 || strings.Contains(got, "\x1b") {
		t.Errorf("the log is %q, want one line without colours", got)
	}
}

func TestScreenKeepsTheBarBelowTheLog(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.draw("[#  ]")
	if _, err := s.Write([]byte("a line\n")); err != nil {
		t.Fatal(err)
	}
	s.draw("")
	if _, err := s.Write([]byte("another\n")); err != nil {
		t.Fatal(err)
	}
	want := eraseLine + "[#  ]" + eraseLine + "a line\n[#  ]" + eraseLine + "another\n"
	if out.String() != want {
		t.Errorf("written: %q, want %q", out.String(), want)
	}
}

func TestBar(t *testing.T) {
	tests := []struct {
		name        string
		done, total int
		left        time.Duration
		want        string
	}{
		{"half", 12_500, 25_000, 25 * time.Second, "snapshot [████████████░░░░░░░░░░░░] 12500 of 25000, 25s left (NIMBLE_RATE_LIMIT=5)"},
		{"more than there were", 110, 100, 0, "snapshot [████████████████████████] 100 of 100 (NIMBLE_RATE_LIMIT=5)"},
		{"no total", 110, -1, 0, "snapshot: 110 contacts (NIMBLE_RATE_LIMIT=5)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := bar(tt.done, tt.total, tt.left, 5); got != tt.want {
				t.Errorf("bar = %q, want %q", got, tt.want)
			}
		})
	}
}
