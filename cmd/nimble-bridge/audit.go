package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
	"nimble-bridge/publisher/audit"
)

// auditing is what the flags of audit say.
type auditing struct {
	dir         string
	durable     string
	maxFileSize byteSize
	compress    bool
	without     bool

	verify  bool
	offline bool
	anchors []string
	json    bool

	redact []string
}

func (p *program) auditCommand() *cobra.Command {
	a := auditing{maxFileSize: audit.DefaultMaxFileSize}
	cmd := &cobra.Command{
		Use:   "audit --dir DIR",
		Short: "Keep an append-only, hash-chained log of all events, or prove one",
		Long: `audit writes every message of the event stream to a folder of JSON lines, each chained to the one before by
its hash. A message is acknowledged once it is on the disk; stopped in whatever way, audit goes on where the log ends.
It runs until it is interrupted.

With --verify it proves a folder complete and untouched instead: against itself, against the stream if NATS can be reached,
and against hashes that the log ended with earlier. It prints a line for each check, where the first faults are, and the hash that the log
ends with now. Keep that elsewhere: without it, and beyond what the stream still has, nobody can tell whether the end of a log
was cut off or rewritten.

With --redact it removes what the log holds of a contact, and notes that in the log, which still proves itself. No audit may be running on
the folder meanwhile.

The log holds personal data. "go doc nimble-bridge/publisher/audit" describes its format, so that other tools can verify it.`,
		Example: `  nimble-bridge audit --dir /var/lib/nimble-audit --compress
  nimble-bridge audit --dir /var/lib/nimble-audit --verify --anchor "$(cat last-month.hash)"
  nimble-bridge audit --dir /var/lib/nimble-audit --redact 6f10a0c2d4e5b6a7c8d9e0f1`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			anchors, err := a.check(cmd)
			if err != nil {
				return &usageError{err}
			}
			cfg, err := readClientConfig()
			if err != nil {
				return err
			}
			log := newLogger(p.stderr, cfg.LogFormat, cfg.LogLevel)
			switch {
			case a.verify:
				return p.verifyLog(cmd.Context(), cfg, a, anchors)
			case len(a.redact) > 0:
				return p.redactLog(cmd.Context(), a, log)
			}
			return keepLog(cmd.Context(), cfg, a, log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&a.dir, "dir", "", "folder of the log; required")
	flags.StringVar(&a.durable, "durable", "", `name of the consumer on the stream; without it "audit-" and the log's own id`)
	flags.Var(&a.maxFileSize, "max-file-size", "size at which a file is closed and the next one begun; a new day begins one, too")
	flags.BoolVar(&a.compress, "compress", false, "compress closed files")
	flags.BoolVar(&a.without, "without-content", false, "keep what contacts contain out of the log, and only its hash in it")
	flags.BoolVar(&a.verify, "verify", false, "prove the log instead of writing it")
	flags.BoolVar(&a.offline, "offline", false, "with --verify: without NATS")
	flags.StringArrayVar(&a.anchors, "anchor", nil, "with --verify: a hash that the log once ended with; can be given several times")
	flags.BoolVar(&a.json, "json", false, "with --verify: print one JSON document")
	flags.StringArrayVar(&a.redact, "redact", nil, "remove what the log holds of the contact with this id; can be given several times")
	return cmd
}

// check finds flags that make no sense, alone or together.
func (a *auditing) check(cmd *cobra.Command) (anchors []audit.Hash, err error) {
	if a.dir == "" {
		return nil, errors.New("--dir is not set, want the folder of the log")
	}
	together := func(mode string, on bool, flags ...string) error {
		for _, name := range flags {
			if !on && cmd.Flags().Changed(name) {
				return fmt.Errorf("--%s goes with %s only", name, mode)
			}
		}
		return nil
	}
	if a.verify && len(a.redact) > 0 {
		return nil, errors.New("--verify and --redact are two things to do, one after the other")
	}
	writes := !a.verify && len(a.redact) == 0
	err = errors.Join(
		together("--verify", a.verify, "offline", "anchor", "json"),
		together("writing", writes, "max-file-size", "compress", "without-content"),
		together("writing and --verify", writes || a.verify, "durable"),
	)
	if err != nil {
		return nil, err
	}
	for _, given := range a.anchors {
		h, err := audit.ParseHash(strings.TrimSpace(given))
		if err != nil {
			return nil, fmt.Errorf("--anchor: %w", err)
		}
		anchors = append(anchors, h)
	}
	for _, id := range a.redact {
		if !word.MatchString(id) {
			return nil, fmt.Errorf("--redact is %q, want a contact's id", id)
		}
	}
	if a.durable != "" && !word.MatchString(a.durable) {
		return nil, fmt.Errorf("--durable is %q, want a name of letters, digits, - and _", a.durable)
	}
	return anchors, nil
}

// keepLog writes the log until ctx ends. A server that is away is waited for, since the audit may well be started before the bridge.
func keepLog(ctx context.Context, cfg *config, a auditing, log *zap.Logger) error {
	to := cfg.connection("nimble-bridge audit", log)
	if len(to.URLs) == 0 {
		to.URLs = []string{cfg.embeddedURL()}
	}
	conn, err := publisher.Connect(ctx, to, log)
	if err != nil {
		return stopped(ctx, err)
	}
	defer conn.Close()
	return audit.Run(ctx, conn, audit.Config{
		Dir: a.dir, Stream: cfg.Stream, Durable: a.durable,
		MaxFileSize: int64(a.maxFileSize), Compress: a.compress, WithoutContent: a.without,
	}, log)
}

// verifyLog proves the log, and says what it found.
func (p *program) verifyLog(ctx context.Context, cfg *config, a auditing, anchors []audit.Hash) error {
	opts := audit.VerifyOptions{Dir: a.dir, Stream: cfg.Stream, Durable: a.durable, Anchors: anchors}
	var unreachable error
	if a.offline {
		opts.Alone = "--offline"
	} else {
		// What the connection itself has to say is in the error, or does not matter.
		conn, err := cfg.dial(ctx, "nimble-bridge audit --verify", zap.NewNop())
		switch {
		case err == nil:
			defer conn.Close()
			opts.Conn = conn
		case len(cfg.NATSURL) > 0:
			unreachable = err // It was to be compared.
			opts.Alone = "NATS is not reachable"
		default:
			opts.Alone = err.Error()
		}
	}
	report, err := audit.Verify(ctx, opts)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted before everything was verified")
	case err != nil:
		return err
	}
	if a.json {
		err = json.MarshalWrite(p.stdout, documentOf(report), jsontext.Multiline(true))
		p.printf("\n")
	} else {
		p.printReport(report)
	}
	switch {
	case err != nil:
		return err
	case !report.Holds():
		return fmt.Errorf("audit log %s does not hold", a.dir)
	case unreachable != nil:
		return &hintedError{unreachable, "the log holds by itself; --offline says that this is enough"}
	}
	return nil
}

var auditStatus = map[audit.Result]checkStatus{audit.Holds: passed, audit.Fails: failed, audit.Skipped: skipped}

// printReport prints a report for people.
func (p *program) printReport(r *audit.Report) {
	paint := view{color: wantsColor(p.stdout)}.paint
	for _, c := range r.Checks {
		p.printf("%s\n", checked{Check: c.Name, Status: auditStatus[c.Result], Detail: c.Text}.line(paint))
		for _, f := range c.Faults {
			p.printf("    %s\n", f)
		}
		if more := c.Count - len(c.Faults); more > 0 {
			p.printf("    and %d more\n", more)
		}
	}
	p.printf("\nThe log ends with hash %s\n%s line %d, sequence %d of the stream\n", r.Head, r.File, r.Line, r.Sequence)
}

// verification is a report for programs.
type verification struct {
	Holds  bool           `json:"holds"`
	Checks []auditChecked `json:"checks"`
	// The last line.
	Hash     string `json:"hash"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Sequence uint64 `json:"sequence"`
}

// auditChecked is the outcome of one check of a log. Faults has the first ones only, Count is how many there are.
type auditChecked struct {
	checked
	Count  int      `json:"count,omitzero"`
	Faults []string `json:"faults,omitzero"`
}

func documentOf(r *audit.Report) verification {
	v := verification{Holds: r.Holds(), Hash: r.Head.String(), File: r.File, Line: r.Line, Sequence: r.Sequence}
	for _, c := range r.Checks {
		one := auditChecked{checked: checked{Check: c.Name, Status: auditStatus[c.Result], Detail: c.Text}, Count: c.Count}
		for _, f := range c.Faults {
			one.Faults = append(one.Faults, f.String())
		}
		v.Checks = append(v.Checks, one)
	}
	return v
}

// redactLog removes contacts from the log.
func (p *program) redactLog(ctx context.Context, a auditing, log *zap.Logger) error {
	removed, err := audit.Redact(ctx, a.dir, a.redact, log)
	switch {
	case ctx.Err() != nil:
		return &hintedError{errors.New("interrupted before everything was removed"), "do it once more"}
	case err != nil:
		return err
	}
	p.printf("%d events have lost their content\n", removed)
	return nil
}

// byteSize is a number of bytes, given with a unit.
type byteSize int64

var byteUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// String is the size with the largest unit that it is a multiple of.
func (s byteSize) String() string {
	for _, unit := range byteUnits {
		if s > 0 && int64(s)%unit.size == 0 {
			return strconv.FormatInt(int64(s)/unit.size, 10) + unit.name
		}
	}
	return "0"
}

// Set implements [pflag.Value].
func (s *byteSize) Set(value string) error {
	for _, unit := range byteUnits {
		number, ok := strings.CutSuffix(value, unit.name)
		if !ok {
			continue
		}
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && n > 0 && n <= math.MaxInt64/unit.size {
			*s = byteSize(n * unit.size)
			return nil
		}
		break
	}
	return errors.New("want a size above 0 such as 64MiB")
}

// Type implements [pflag.Value].
func (s *byteSize) Type() string { return "size" }
