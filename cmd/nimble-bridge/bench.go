package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/cmd/nimble-bridge/bench"
	"nimble-bridge/publisher/embedded"
)

func (p *program) benchCommand() *cobra.Command {
	o := bench.Options{}
	asJSON := false
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the bridge beside the physical limits of this machine",
		Long: `bench measures this program as a process of its own, against a simulated account and a NATS server in
two others, in one run after another, each from nothing: a snapshot, beside what fetching the same pages and
throwing them away takes and what nats.go alone takes to append the same events in the same batches to the same
stream; a restart; single edits; many edits and deletions at once; and leaving it alone.

It writes to directories that it removes again, below --dir. A thousand contacts take about 6 MB there, and a
million about 5 minutes a run. The figures are those of the machine: compare what was measured in one go.`,
		Example: `  nimble-bridge bench
  nimble-bridge bench --contacts 20000 --runs 5 --dir /var/tmp
  nimble-bridge bench --nats-server "$(command -v nats-server)" --json > bench.json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.bench(cmd.Context(), o, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.Contacts, "contacts", 20_000, "contacts of the account")
	flags.IntVar(&o.Runs, "runs", 3, "how often everything is measured")
	flags.IntVar(&o.Single, "single", 200, "contacts edited one by one")
	flags.IntVar(&o.Edits, "edits", 1000, "contacts edited at once")
	flags.IntVar(&o.Deletions, "deletions", 10, "contacts deleted at once")
	flags.DurationVar(&o.Idle, "idle", 10*time.Second, "for how long the bridge is left alone")
	flags.StringVar(&o.Dir, "dir", os.TempDir(), "where the NATS servers store their streams meanwhile")
	flags.StringVar(&o.NATSServer, "nats-server", "", "nats-server program to measure with; empty: the one in this program")
	flags.BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.AddCommand(p.serveNATSCommand())
	return cmd
}

// bench measures and prints.
func (p *program) bench(ctx context.Context, o bench.Options, asJSON bool) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	o.Program = program
	o.Progress = func(what string) { _, _ = fmt.Fprintf(p.stderr, "%s\n", what) }
	report, err := bench.Run(ctx, o)
	if _, wrong := errors.AsType[*bench.OptionError](err); wrong {
		return &usageError{err}
	}
	if err != nil {
		return err
	}
	report.Version = thisBuild().Version
	if asJSON {
		if err := json.MarshalWrite(p.stdout, report, jsontext.WithIndent("  ")); err != nil {
			return err
		}
		p.printf("\n")
		return nil
	}
	return report.WriteText(p.stdout)
}

// serveNATSCommand is the NATS server of bench, in a process of its own.
func (p *program) serveNATSCommand() *cobra.Command {
	dir := ""
	cmd := &cobra.Command{
		Use:     "serve-nats",
		Short:   "Serve NATS as the bridge's own server does, until interrupted",
		Long:    "serve-nats is the NATS server that bench measures with.",
		Example: "  nimble-bridge bench serve-nats --dir /var/tmp/nats",
		Args:    noArguments,
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, err := embedded.Start(embedded.Options{Dir: dir, Addr: "127.0.0.1:0", Log: zap.NewNop()})
			if err != nil {
				return err
			}
			defer server.Shutdown()
			p.printf("NATS answers at %s\n", server.URL())
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where to store streams")
	return cmd
}
