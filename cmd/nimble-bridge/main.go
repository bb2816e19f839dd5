// Command nimble-bridge publishes the changes of a Nimble CRM account as events on NATS JetStream.
//
//	nimble-bridge          run the bridge, configured by environment variables
//	nimble-bridge check    see whether it could run
//	nimble-bridge demo     see it work, with a simulated account and an embedded server
//	nimble-bridge audit    keep an append-only, hash-chained log of all events, or prove one
//	nimble-bridge tail     watch the events on NATS
//	nimble-bridge hook     call a URL or run a command for each matching event
//	nimble-bridge simulate serve the simulated account, for developing consumers
//	nimble-bridge bench    measure the bridge beside the physical limits of the machine
//	nimble-bridge schema   print the JSON Schema of the events, or the AsyncAPI document
//	nimble-bridge version  print versions
//
// This package wires the others together, and only that: package nimble reads the account, package poller finds what changed, package
// publisher stores it. Configuration, signals and the process's streams are known here and nowhere else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"nimble-bridge/publisher/hook"
)

// Exit codes of the program.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Once the first signal has been taken the next one ends the process at once, as it does by default.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// program is one invocation: where it reads and writes.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run is the whole program but for the process around it: it reads the environment, acts, reports what went wrong on stderr and returns the exit code. It ends when ctx does.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr}
	root := p.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	p.complain(err, cmd)
	_, config := errors.AsType[configError](err)
	_, usage := errors.AsType[*usageError](err)
	if config || usage {
		return exitUsage
	}
	if _, gone := errors.AsType[*hook.GoneError](err); gone {
		return exitGone
	}
	return exitFailed
}

// complain writes an error as users read it: what is wrong, and on the next line what to do.
func (p *program) complain(err error, cmd *cobra.Command) {
	say := func(text, hint string) {
		_, _ = fmt.Fprintf(p.stderr, "nimble-bridge: %s\n", text)
		if hint != "" {
			_, _ = fmt.Fprintf(p.stderr, "nimble-bridge: hint: %s\n", hint)
		}
	}
	if problems, ok := errors.AsType[configError](err); ok {
		for _, problem := range problems {
			say(problem.text, problem.hint)
		}
		return
	}
	hint := ""
	if hinted, ok := errors.AsType[*hintedError](err); ok {
		hint = hinted.hint
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		hint = fmt.Sprintf("%q says how it is used", cmd.CommandPath()+" --help")
		if !cmd.HasParent() {
			hint = `"nimble-bridge --help" lists the commands and variables`
		}
	}
	say(err.Error(), hint)
}

// usageError says that the command line makes no sense.
type usageError struct{ error }

// hintedError is an error with advice.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// noArguments refuses arguments, as a wrong use of the command.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return unknownCommand(cmd, args[0])
	}
	return &usageError{fmt.Errorf("%s takes no argument, got %q", cmd.CommandPath(), args[0])}
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "nimble-bridge",
		Short: "Publish the changes of a Nimble CRM account as events on NATS JetStream",
		Long: `nimble-bridge polls one Nimble CRM account and publishes each new, changed or
existing contact as an event on NATS JetStream. Without a command it runs the bridge.
It is configured by environment variables.`,
		Example: `  nimble-bridge demo                                  # see it work, with nothing else
  NIMBLE_API_KEY=… nimble-bridge check                # see whether it could run
  NIMBLE_API_KEY=… NATS_URL=nats://nats:4222 nimble-bridge`,
		Args:          noArguments,
		RunE:          p.runBridge,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		p.runCommand(),
		p.checkCommand(),
		p.statusCommand(),
		p.explainCommand(),
		p.pauseCommand(),
		p.resumeCommand(),
		p.pollNowCommand(),
		p.confirmDeletionsCommand(),
		p.resyncCommand(),
		p.demoCommand(),
		p.auditCommand(),
		p.tailCommand(),
		p.hookCommand(),
		p.simulateCommand(),
		p.benchCommand(),
		p.eraseCommand(),
		p.schemaCommand(),
		p.versionCommand(),
		p.healthcheckCommand(),
	)
	p.arrange(root)
	return root
}
