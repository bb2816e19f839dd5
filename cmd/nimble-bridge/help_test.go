package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands are all commands, hidden ones and their own ones too.
func commands() (all []*cobra.Command) {
	var add func(cmd *cobra.Command)
	add = func(cmd *cobra.Command) {
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			add(sub)
		}
	}
	add((&program{}).rootCommand())
	return all
}

func TestEveryCommandHasCompleteHelp(t *testing.T) {
	for _, cmd := range commands() {
		path := strings.Fields(cmd.CommandPath())[1:]
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			code, stdout, stderr := runProgram(t.Context(), append(path, "--help")...)
			if code != 0 || stderr != "" {
				t.Errorf("exit code %d, stderr %q; want 0 and nothing", code, stderr)
			}
			want := []string{"\nUsage:\n", "\nFlags:\n", "\nExit codes:\n  0  "}
			if cmd.Parent() == nil || cmd.Parent().Name() != "completion" { // Those are cobra's.
				want = append(want, "\nExamples:\n  ")
				if cmd.Long == "" || cmd.Long == cmd.Short {
					t.Error("no description")
				}
				if topicOf(cmd).group == "" && cmd.HasParent() { // A command below another one may share its entry.
					t.Error("no entry in topics: which group, which variables, which exit codes?")
				}
				if strings.Contains(stdout, "\t") {
					t.Error("tabs, which are as wide as the terminal likes")
				}
			}
			if topic := topicOf(cmd); len(topic.variables) > 0 {
				want = append(want, "\nEnvironment variables:\n  ")
			}
			for _, section := range want {
				if !strings.Contains(stdout, section) {
					t.Errorf("no %q in\n%s", section, stdout)
				}
			}
			if len(path) > 0 {
				if _, again, _ := runProgram(t.Context(), append([]string{"help"}, path...)...); again != stdout {
					t.Errorf("help says something else than --help:\n%s", again)
				}
			}
		})
	}
}

func TestHelpShowsEachCommandInItsGroup(t *testing.T) {
	_, stdout, _ := runProgram(t.Context(), "help")
	for _, cmd := range (&program{}).rootCommand().Commands() {
		line := regexp.MustCompile(`(?m)^  ` + cmd.Name() + ` +\S`)
		if found := line.FindAllString(stdout, -1); (len(found) == 1) == cmd.Hidden {
			t.Errorf("%s is listed %d times", cmd.Name(), len(found))
		}
		if !cmd.Hidden && !slices.Contains(groups, cmd.GroupID) {
			t.Errorf("%s is in no group", cmd.Name())
		}
	}
	if first, second := strings.Index(stdout, groupRun), strings.Index(stdout, groupTry); first < 0 || second < first {
		t.Errorf("the groups are in no order:\n%s", stdout)
	}
}

func TestHelpListsTheVariablesOfACommand(t *testing.T) {
	table := variableTable(topics["status"].variables)
	for _, want := range []string{"NATS_URL", "NATS_TOKEN", "NATS_TOKEN_FILE", "NATS_TLS_CA", "NIMBLE_ACCOUNT", "HTTP_ADDR"} {
		if !strings.Contains(table, "  "+want+" ") {
			t.Errorf("status does not list %s:\n%s", want, table)
		}
	}
	for _, not := range []string{"NIMBLE_API_KEY", "POLL_INTERVAL", "NATS_STREAM_MAX_AGE", "NATS_STREAM "} {
		if strings.Contains(table, not) {
			t.Errorf("status lists %s:\n%s", not, table)
		}
	}
}

func TestCompletion(t *testing.T) {
	tests := []struct {
		line string
		want []string
	}{
		{"", []string{"check", "run", "simulate", "help", "completion"}},
		{"che", []string{"check"}},
		{"run --", []string{"--dry-run", "--json", "--reconcile"}},
		{"check --", []string{"--json"}},
		{"help ", []string{"check", "demo"}},
		{"check ", nil},
		{"completion ", []string{"bash", "fish", "powershell", "zsh"}},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			code, stdout, _ := runProgram(t.Context(), append([]string{"__complete"}, strings.Split(tt.line, " ")...)...)
			if code != 0 {
				t.Errorf("exit code %d", code)
			}
			var got []string
			for line := range strings.Lines(stdout) {
				word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
				got = append(got, word)
			}
			for _, want := range tt.want {
				if !slices.Contains(got, want) {
					t.Errorf("%q is not offered among %v", want, got)
				}
			}
			if directive := got[len(got)-1]; directive != ":4" { // No file names.
				t.Errorf("directive %s, want that no files are offered", directive)
			}
			if tt.want == nil && len(got) != 1 {
				t.Errorf("%v are offered, want nothing", got)
			}
		})
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, stdout, _ := runProgram(t.Context(), "completion", shell); code != 0 || !strings.Contains(stdout, "nimble-bridge") {
			t.Errorf("%s: exit code %d, %d bytes", shell, code, len(stdout))
		}
	}
}
