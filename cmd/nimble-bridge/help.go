package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// topic is what the help says of a command besides what cobra knows: the variables that it uses, by the beginnings of their names, and what its exit codes mean.
type topic struct {
	group     string
	variables []string
	codes     string
}

// The groups of commands, in the order of the help.
const (
	groupRun     = "Run the bridge:"
	groupOperate = "Look at a running bridge, and steer it:"
	groupConsume = "Use the events:"
	groupTry     = "Try it without an account:"
	groupOther   = "Other:"
)

var groups = []string{groupRun, groupOperate, groupConsume, groupTry, groupOther}

// What commands have in common.
const (
	usualCodes = `  0  done
  1  failed while running
  2  wrong usage or configuration; every problem is listed`
	runCodes = `  0  stopped by SIGINT or SIGTERM, after finishing what was being published
  1  failed while running, for a reason that only a new start can mend
  2  wrong usage or configuration; every problem is listed`
	hookCodes = usualCodes + `
  3  the receiver answered 410 Gone: it wants no more events`
	checkCodes = `  0  all that was checked is as it has to be
  1  something is not
  2  the configuration is wrong`
)

// natsVariables reach the bridge's NATS server, and LOG_ decides how the command tells of trouble.
var natsVariables = []string{"NATS_URL", "NATS_CREDS", "NATS_NKEY", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_TLS_", "EMBEDDED_NATS_ADDR"}

var (
	allVariables     = []string{""}
	streamVariables  = slices.Concat(natsVariables, []string{"NATS_STREAM", "NATS_SUBJECT_PREFIX", "NIMBLE_ACCOUNT", "LOG_"})
	controlVariables = slices.Concat(natsVariables, []string{"NIMBLE_ACCOUNT"})
)

// topics has an entry for each command.
var topics = map[string]topic{
	"nimble-bridge":     {variables: allVariables, codes: runCodes},
	"run":               {groupRun, allVariables, runCodes},
	"check":             {groupRun, allVariables, checkCodes},
	"status":            {groupOperate, slices.Concat(controlVariables, []string{"HTTP_ADDR"}), usualCodes},
	"explain":           {groupOperate, controlVariables, usualCodes},
	"pause":             {groupOperate, controlVariables, usualCodes},
	"resume":            {groupOperate, controlVariables, usualCodes},
	"poll-now":          {groupOperate, controlVariables, usualCodes},
	"confirm-deletions": {groupOperate, controlVariables, usualCodes},
	"resync":            {groupOperate, controlVariables, usualCodes},
	"erase":             {groupOperate, allVariables, usualCodes},
	"healthcheck":       {groupOperate, []string{"HTTP_ADDR"}, usualCodes},
	"tail":              {groupConsume, streamVariables, usualCodes},
	"audit":             {groupConsume, streamVariables, usualCodes},
	"hook":              {groupConsume, slices.Concat(streamVariables, []string{"HOOK_"}), hookCodes},
	"schema":            {groupConsume, nil, usualCodes},
	"demo":              {groupTry, nil, usualCodes},
	"simulate":          {groupTry, nil, usualCodes},
	"bench":             {groupTry, nil, usualCodes},
	"completion":        {groupOther, nil, usualCodes},
	"help":              {groupOther, nil, usualCodes},
	"version":           {groupOther, nil, usualCodes},
}

// topicOf is the entry of a command, or of the nearest one above it.
func topicOf(cmd *cobra.Command) topic {
	for ; cmd != nil; cmd = cmd.Parent() {
		if t, ok := topics[cmd.Name()]; ok {
			return t
		}
	}
	return topic{codes: usualCodes}
}

// arrange gives the commands below root their places in the help, and completion that offers what makes sense.
func (p *program) arrange(root *cobra.Command) {
	for _, group := range groups {
		root.AddGroup(&cobra.Group{ID: group, Title: group})
	}
	root.SetHelpCommand(p.helpCommand(root))
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		cmd.GroupID = topicOf(cmd).group
		if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		if cmd.Name() == "completion" {
			describeCompletion(cmd)
		}
	}
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { p.printf("%s", helpText(cmd)) })
}

// helpCommand is cobra's, which takes no notice of a command that does not exist.
func (p *program) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Print what a command does, with its flags, variables and exit codes",
		Long: `help prints what a command does, with its flags, the variables that it uses and its exit codes; without a command,
what commands there are. It is the same as --help behind the command.`,
		Example: `  nimble-bridge help
  nimble-bridge help check`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, cmd := range root.Commands() {
				if len(args) == 0 && cmd.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(cmd.Name(), cmd.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd, rest[0])
			}
			return cmd.Help()
		},
	}
}

// describeCompletion rewords cobra's command, whose own words are about programs in general.
func describeCompletion(cmd *cobra.Command) {
	cmd.Short = "Print a script that lets a shell complete commands and flags"
	cmd.Long = `completion prints a script for your shell, which then completes the commands, flags and some of their values.`
	cmd.Example = `  source <(nimble-bridge completion bash)                                       # in this shell
  nimble-bridge completion bash > /etc/bash_completion.d/nimble-bridge          # in each new one
  nimble-bridge completion zsh > "${fpath[1]}/_nimble-bridge"
  nimble-bridge completion fish > ~/.config/fish/completions/nimble-bridge.fish`
	cmd.Args = noArguments
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// unknownCommand says that there is no such command below another, and which one may have been meant.
func unknownCommand(above *cobra.Command, name string) error {
	err := fmt.Errorf("there is no command %q", name)
	if above.HasParent() {
		err = fmt.Errorf("%s has no command %q", above.CommandPath(), name)
	}
	above.SuggestionsMinimumDistance = 2 // Letters that may be wrong.
	if meant := above.SuggestionsFor(name); len(meant) > 0 && name != "" {
		err = fmt.Errorf("%w; did you mean %q?", err, meant[0])
	}
	return &usageError{err}
}

// helpText is what a command's --help prints.
func helpText(cmd *cobra.Command) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	section := func(title, text string) {
		if text = strings.TrimRight(text, "\n "); text != "" {
			fmt.Fprintf(&b, "\n%s\n%s\n", title, text)
		}
	}
	description := cmd.Long
	if description == "" {
		description = cmd.Short
	}
	b.WriteString(strings.TrimRight(description, "\n") + "\n")
	section("Usage:", usage(cmd))
	section("Examples:", cmd.Example)
	if !cmd.HasParent() {
		for _, group := range groups {
			section(group, commandTable(cmd.Commands(), group))
		}
	} else if cmd.HasAvailableSubCommands() {
		section("Commands:", commandTable(cmd.Commands(), ""))
	}
	if !cmd.HasParent() {
		section("A command's own help:", "  nimble-bridge help COMMAND")
	}
	section("Flags:", cmd.LocalFlags().FlagUsages())
	t := topicOf(cmd)
	section("Environment variables:", variableTable(t.variables))
	section("Exit codes:", t.codes)
	return b.String()
}

func usage(cmd *cobra.Command) string {
	var lines []string
	if cmd.Runnable() {
		lines = append(lines, "  "+cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		lines = append(lines, "  "+cmd.CommandPath()+" COMMAND [flags]")
	}
	return strings.Join(lines, "\n")
}

// commandTable lists the commands of a group.
func commandTable(commands []*cobra.Command, group string) string {
	var b strings.Builder
	for _, cmd := range commands {
		if cmd.GroupID == group && cmd.IsAvailableCommand() {
			fmt.Fprintf(&b, "  %-18s %s\n", cmd.Name(), cmd.Short)
		}
	}
	return b.String()
}

// variableTable lists the variables whose names have one of the beginnings.
func variableTable(prefixes []string) string {
	var b strings.Builder
	tabs := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for field := range reflect.TypeFor[config]().Fields() {
		name := field.Tag.Get("envconfig")
		if slices.ContainsFunc(prefixes, func(prefix string) bool {
			return name == prefix || strings.TrimSuffix(name, "_FILE") == prefix || prefix == "" || strings.HasSuffix(prefix, "_") && strings.HasPrefix(name, prefix)
		}) {
			_, _ = fmt.Fprintf(tabs, "  %s\t%s\t%s\n", name, field.Tag.Get("default"), field.Tag.Get("desc"))
		}
	}
	_ = tabs.Flush()
	return b.String()
}
