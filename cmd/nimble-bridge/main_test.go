package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Tests that run side by side wait for processes most of the time, so that there may be more of them than processors.
	if !given("test.parallel") {
		_ = flag.Set("test.parallel", "8")
	}
	// What a server leaves behind that is stopped while it sets up the bucket's source is not ours.
	server := goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*stream).trySetupSourceConsumer.func3")
	goleak.VerifyTestMain(m, server, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(buildDir)
		os.Exit(code)
	}))
}

// given tells whether a flag was set on the command line.
func given(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// runProgram calls run as main does and returns what came out.
func runProgram(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(ctx, args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func TestWrongConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty, lines, absent := file("empty", " \n"), file("lines", "a\nb\n"), filepath.Join(dir, "absent")
	const noKey = `nimble-bridge: NIMBLE_API_KEY is not set
nimble-bridge: hint: set it to an API key of your Nimble account (README, "Getting an API key"), or try "nimble-bridge demo", which needs none
`
	tests := []struct {
		name string
		env  map[string]string
		want string
	}{
		{"nothing is set", map[string]string{}, noKey},
		{"the key is empty", map[string]string{"NIMBLE_API_KEY": ""}, noKey},
		{
			"the key has a line feed",
			map[string]string{"NIMBLE_API_KEY": "secret\nsecret"},
			"nimble-bridge: NIMBLE_API_KEY is not usable, want an API key without white space\n",
		},
		{
			"the key's file is absent",
			map[string]string{"NIMBLE_API_KEY_FILE": absent},
			"nimble-bridge: NIMBLE_API_KEY_FILE is \"" + absent + "\", which cannot be used: no such file or directory\n",
		},
		{
			"the key's file is empty",
			map[string]string{"NIMBLE_API_KEY_FILE": empty},
			"nimble-bridge: NIMBLE_API_KEY_FILE is \"" + empty + "\", which cannot be used: it is empty\n",
		},
		{
			"the key's file has two lines",
			map[string]string{"NIMBLE_API_KEY_FILE": lines},
			"nimble-bridge: NIMBLE_API_KEY_FILE is \"" + lines + "\", which cannot be used: it holds more than one line\n",
		},
		{
			"the key is given twice",
			map[string]string{"NIMBLE_API_KEY": "k", "NIMBLE_API_KEY_FILE": file("key", "k")},
			"nimble-bridge: NIMBLE_API_KEY and NIMBLE_API_KEY_FILE are both set\nnimble-bridge: hint: unset one of them\n",
		},
		{
			"durations are malformed",
			map[string]string{"NIMBLE_API_KEY": "k", "POLL_INTERVAL": "ten", "NIMBLE_TIMEOUT": "30", "POLL_OVERLAP": "-1s", "RECONCILE_INTERVAL": "1 h"},
			`nimble-bridge: NIMBLE_TIMEOUT is "30", want a duration above 0 such as 30s or 1m
nimble-bridge: POLL_INTERVAL is "ten", want a duration above 0 such as 10s or 5m
nimble-bridge: POLL_OVERLAP is "-1s", want 0 or a duration such as 30s or 5m
nimble-bridge: RECONCILE_INTERVAL is "1 h", want 0 or a duration such as 15m or 1h
`,
		},
		{
			"numbers are out of bounds",
			map[string]string{"NIMBLE_API_KEY": "k", "NIMBLE_RATE_LIMIT": "0", "NIMBLE_PER_PAGE": "101", "NATS_STREAM_MAX_BYTES": "0", "NATS_REPLICAS": "six", "DELETE_LIMIT": "20,5"},
			`nimble-bridge: NIMBLE_RATE_LIMIT is "0", want a number above 0
nimble-bridge: NIMBLE_PER_PAGE is "101", want a whole number from 1 to 100
nimble-bridge: NATS_REPLICAS is "six", want a whole number from 1 to 5
nimble-bridge: NATS_STREAM_MAX_BYTES is "0", want -1 or a number of bytes above 0
nimble-bridge: DELETE_LIMIT is "20,5", want a count, a percentage or both, such as 20 or 5% or 20,5%
`,
		},
		{
			"names do not fit",
			map[string]string{"NIMBLE_API_KEY": "k", "NIMBLE_ACCOUNT": "a.b", "NATS_STREAM": "a b", "NATS_SUBJECT_PREFIX": "nimble.>", "NATS_BUCKET": "*", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml", "NATS_MANAGE": "maybe"},
			`nimble-bridge: NIMBLE_ACCOUNT is "a.b", want letters, digits, - and _
nimble-bridge: NATS_STREAM is "a b", want a name of letters, digits, - and _
nimble-bridge: NATS_SUBJECT_PREFIX is "nimble.>", want tokens of letters, digits, - and _, joined by dots
nimble-bridge: NATS_BUCKET is "*", want a name of letters, digits, - and _
nimble-bridge: NATS_MANAGE is "maybe", want true or false
nimble-bridge: LOG_LEVEL is "loud", want debug, info, warn or error
nimble-bridge: LOG_FORMAT is "xml", want auto, json or console
`,
		},
		{
			"addresses make no sense, and hold passwords",
			map[string]string{"NIMBLE_API_KEY": "k", "NIMBLE_BASE_URL": "https://me:hush@nimble.example", "NATS_URL": "http://me:hush@nats.example,nats://b", "HTTP_ADDR": "8080", "EMBEDDED_NATS_ADDR": "localhost:99999"},
			`nimble-bridge: NIMBLE_BASE_URL is "https://…@nimble.example", want an origin such as https://app.nimble.com
nimble-bridge: NATS_URL is "http://…@nats.example,nats://b", want URLs such as nats://127.0.0.1:4222, comma separated
nimble-bridge: EMBEDDED_NATS_ADDR is "localhost:99999", want host:port such as 127.0.0.1:4222
nimble-bridge: HTTP_ADDR is "8080", want host:port such as 127.0.0.1:8080, or nothing
`,
		},
		{
			"two ways to authenticate",
			map[string]string{"NIMBLE_API_KEY": "k", "NATS_URL": "nats://a", "NATS_TOKEN": "t", "NATS_USER": "u", "NATS_PASSWORD": "p"},
			"nimble-bridge: NATS_USER and NATS_TOKEN are set together\nnimble-bridge: hint: keep one way of authentication\n",
		},
		{
			"a user without a password",
			map[string]string{"NIMBLE_API_KEY": "k", "NATS_URL": "nats://a", "NATS_USER": "u"},
			"nimble-bridge: NATS_USER and NATS_PASSWORD belong together, and one of them is not set\n",
		},
		{
			"files are absent",
			map[string]string{"NIMBLE_API_KEY": "k", "NATS_URL": "nats://a", "NATS_CREDS": absent, "NATS_TLS_CA": absent},
			"nimble-bridge: NATS_CREDS is \"" + absent + "\", which cannot be read: no such file or directory\n" +
				"nimble-bridge: NATS_TLS_CA is \"" + absent + "\", which cannot be read: no such file or directory\n",
		},
		{
			"settings of a NATS server without one",
			map[string]string{"NIMBLE_API_KEY": "k", "NATS_TOKEN": "t", "NATS_REPLICAS": "3"},
			`nimble-bridge: NATS_URL is not set but NATS_TOKEN is, which the embedded server has no use for
nimble-bridge: hint: set NATS_URL to your NATS server, or unset the others to use the embedded one
nimble-bridge: NATS_REPLICAS is 3, but NATS_URL is not set and the embedded server is a single one
nimble-bridge: hint: set NATS_URL to your NATS server, or unset the others to use the embedded one
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, tt.env)
			ctx, stop := context.WithCancel(t.Context())
			stop() // Should the configuration pass, nothing is to start.
			code, stdout, stderr := runProgram(ctx, "run")
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, stdout %q; want 2 and nothing", code, stdout)
			}
			if diff := cmp.Diff(tt.want, stderr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWrongUsage(t *testing.T) {
	const hint = "nimble-bridge: hint: \"nimble-bridge --help\" lists the commands and variables\n"
	of := func(command string) string {
		return "nimble-bridge: hint: \"nimble-bridge " + command + " --help\" says how it is used\n"
	}
	tests := []struct {
		args string
		want string
	}{
		{"chek", "nimble-bridge: there is no command \"chek\"; did you mean \"check\"?\n" + hint},
		{"help chek", "nimble-bridge: there is no command \"chek\"; did you mean \"check\"?\n" + of("help")},
		{"help simulate now", "nimble-bridge: nimble-bridge simulate has no command \"now\"\n" + of("help")},
		{"completion tcsh", "nimble-bridge: nimble-bridge completion has no command \"tcsh\"; did you mean \"bash\"?\n" + of("completion")},
		{"check --fast", "nimble-bridge: unknown flag: --fast\n" + of("check")},
		{"serve", "nimble-bridge: there is no command \"serve\"\n" + hint},
		{"run fast", "nimble-bridge: nimble-bridge run takes no argument, got \"fast\"\n" + of("run")},
		{"--fast", "nimble-bridge: unknown flag: --fast\n" + hint},
		{"demo --for soon", "nimble-bridge: invalid argument \"soon\" for \"--for\" flag: time: invalid duration \"soon\"\n" + of("demo")},
		{"demo --events -1", "nimble-bridge: --events is -1, want 0 or more\n" + of("demo")},
		{"demo --nats-addr here", "nimble-bridge: --nats-addr is \"here\", want host:port such as 127.0.0.1:4222\n" + of("demo")},
		{"tail --type create", "nimble-bridge: --type is \"create\", want snapshot, created, updated, deleted, reconciled, rejected\n" + of("tail")},
		{"tail --contact a.b", "nimble-bridge: --contact is \"a.b\", want letters, digits, - and _\n" + of("tail")},
		{"tail --account *", "nimble-bridge: --account is \"*\", want letters, digits, - and _\n" + of("tail")},
		{"tail --all --since 1h", "nimble-bridge: --all and --since are both given, want one place to begin\n" + of("tail")},
		{"tail --since soon", "nimble-bridge: --since is \"soon\", want a time ago such as 90m or 2d, a day such as 2026-03-01, or a time such as 2026-03-01T10:15:00Z\n" + of("tail")},
		{"tail --since -1h", "nimble-bridge: --since is \"-1h\", want a time ago such as 90m or 2d, a day such as 2026-03-01, or a time such as 2026-03-01T10:15:00Z\n" + of("tail")},
		{"tail --changed tags --type created", "nimble-bridge: --changed is about updates: leave --type out\n" + of("tail")},
		{"tail --contact a --type rejected", "nimble-bridge: --contact is about contacts, and events of the type reconciled or rejected are not\n" + of("tail")},
		{"tail --no-follow", "nimble-bridge: --no-follow has nothing to show without --all or --since\n" + of("tail")},
		{"tail --events -1", "nimble-bridge: --events is -1, want 0 or more\n" + of("tail")},
		{"simulate --addr nowhere", "nimble-bridge: --addr is \"nowhere\", want host:port such as 127.0.0.1:8090\n" + of("simulate")},
		{"simulate --contacts -1", "nimble-bridge: --contacts is -1, want 0 to 16000000\n" + of("simulate")},
		{"bench --runs 0", "nimble-bridge: 0 runs; 1 at least\n" + of("bench")},
		{"simulate --edits NaN", "nimble-bridge: --edits is NaN, want 0 to 10000 a second\n" + of("simulate")},
	}
	setenv(t, nil)
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := runProgram(t.Context(), strings.Fields(tt.args)...)
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, stdout %q; want 2 and nothing", code, stdout)
			}
			if diff := cmp.Diff(tt.want, stderr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHelpListsEveryVariable(t *testing.T) {
	code, stdout, stderr := runProgram(t.Context(), "--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q; want 0 and nothing", code, stderr)
	}
	for _, name := range variables() {
		if !strings.Contains(stdout, "\n  "+name+" ") {
			t.Errorf("the help text does not list %s", name)
		}
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := runProgram(t.Context(), "version")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q; want 0 and nothing", code, stderr)
	}
	for _, want := range []string{"nimble-bridge ", "commit ", "go ", "nats client ", "nats server "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("version prints %q, want %q in it", stdout, want)
		}
	}
}

// What a mistyped command gives; the exit code is 2.
func Example() {
	code := run(context.Background(), []string{"simulate", "--contacts", "many"}, strings.NewReader(""), os.Stdout, os.Stdout)
	fmt.Println("exit code", code)
	// Output:
	// nimble-bridge: invalid argument "many" for "--contacts" flag: strconv.ParseInt: parsing "many": invalid syntax
	// nimble-bridge: hint: "nimble-bridge simulate --help" says how it is used
	// exit code 2
}
