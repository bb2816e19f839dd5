package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/publisher/consumer"
)

// deadLetters is what the flags of hook dead say.
type deadLetters struct {
	durable, contact string
	all, json        bool
}

func (p *program) hookDeadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "Look at dead letters, have them handled again, or drop them",
		Long: `dead is about the events that hooks, and Go services with the same library, have given up. They are in the stream nimble-dead, each with the
event as it was and the last error.`,
		Example: `  nimble-bridge hook dead list
  nimble-bridge hook dead retry --durable crm-sync --all
  nimble-bridge hook dead drop 17 18`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		p.deadCommand("list", "List dead letters", `list prints the dead letters, the oldest first, one a line. The first column is what retry and drop take. With --json it prints one
document a line, with the event in it.`, `  nimble-bridge hook dead list --durable crm-sync
  nimble-bridge hook dead list --json | jq -r .error`, p.listLetters),
		p.deadCommand("retry", "Have dead letters handled again", `retry hands dead letters to their consumer again, which gives each all its tries; if they fail again they become dead letters again. Later events of
the same contact may have been handled before, which the consumer is told of.`, `  nimble-bridge hook dead retry 17
  nimble-bridge hook dead retry --durable crm-sync --all`, p.retryLetters),
		p.deadCommand("drop", "Remove dead letters", `drop removes dead letters for good, and overwrites them.`, `  nimble-bridge hook dead drop 17
  nimble-bridge hook dead drop --contact 6f10a0c2d4e5b6a7c8d9e0f1`, p.dropLetters),
	)
	return cmd
}

// letterAction does something about chosen letters.
type letterAction func(ctx context.Context, letters *consumer.Letters, chosen []*consumer.Letter, d deadLetters) error

func (p *program) deadCommand(name, short, long, example string, act letterAction) *cobra.Command {
	var d deadLetters
	lists := name == "list"
	use := name + " {SEQUENCE… | --durable NAME --all | --contact ID}"
	if lists {
		use = name
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			sequences, err := d.check(lists, args)
			if err != nil {
				return &usageError{err}
			}
			return p.onLetters(cmd.Context(), d, sequences, act)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&d.durable, "durable", "", "only those of this consumer")
	flags.StringVar(&d.contact, "contact", "", "only those of the contact with this id")
	if lists {
		flags.BoolVar(&d.json, "json", false, "print one JSON document a line")
	} else {
		flags.BoolVar(&d.all, "all", false, "all of them, or all that --durable and --contact leave")
	}
	return cmd
}

// check finds what makes no sense, and returns the sequences that are asked for.
func (d *deadLetters) check(lists bool, args []string) ([]uint64, error) {
	var sequences []uint64
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil || n == 0 || lists {
			return nil, fmt.Errorf("there is no use for %q, want the number of a letter, and that with retry and drop only", arg)
		}
		sequences = append(sequences, n)
	}
	for flag, value := range map[string]string{"--durable": d.durable, "--contact": d.contact} {
		if value != "" && !word.MatchString(value) {
			return nil, fmt.Errorf("%s is %q, want letters, digits, - and _", flag, value)
		}
	}
	switch {
	case lists:
	case len(sequences) > 0 && (d.all || d.contact != "" || d.durable != ""):
		return nil, errors.New("letters are named by their numbers and by flags, want one or the other")
	case len(sequences) == 0 && !d.all && d.contact == "":
		return nil, errors.New("no letter is named, want numbers, --contact or --all")
	}
	return sequences, nil
}

// onLetters finds the letters and does something about them.
func (p *program) onLetters(ctx context.Context, d deadLetters, sequences []uint64, act letterAction) error {
	cfg, err := readClientConfig()
	if err != nil {
		return err
	}
	conn, err := cfg.dial(ctx, "nimble-bridge hook dead", newLogger(p.stderr, cfg.LogFormat, logLevel(zap.ErrorLevel)))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn.NATS())
	if err != nil {
		return err
	}
	began := time.Now()
	letters, err := consumer.OpenLetters(ctx, js, "")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if len(sequences) > 0 {
			return err
		}
		return act(ctx, nil, nil, d) // No consumer has run yet.
	}
	if err != nil {
		return conn.Explain(err, began)
	}
	var chosen []*consumer.Letter
	for _, sequence := range sequences {
		letter, err := letters.Get(ctx, sequence)
		if err != nil {
			return conn.Explain(err, began)
		}
		chosen = append(chosen, letter)
	}
	if len(sequences) == 0 {
		for letter, err := range letters.All(ctx, d.durable, d.contact) {
			if err != nil {
				return conn.Explain(err, began)
			}
			chosen = append(chosen, letter)
		}
	}
	slices.SortStableFunc(chosen, func(a, b *consumer.Letter) int { return int(a.Sequence) - int(b.Sequence) })
	return conn.Explain(act(ctx, letters, chosen, d), began)
}

// letterDocument is a letter as JSON.
type letterDocument struct {
	Letter        uint64         `json:"letter"`
	At            time.Time      `json:"at"`
	Durable       string         `json:"durable"`
	Reason        string         `json:"reason"`
	Error         string         `json:"error"`
	Tries         int            `json:"tries"`
	Account       string         `json:"account,omitempty"`
	ContactID     string         `json:"contact_id,omitempty"`
	Type          string         `json:"type,omitempty"`
	Revision      uint64         `json:"revision,omitzero"`
	Stream        string         `json:"stream"`
	EventSequence uint64         `json:"event_sequence"`
	Subject       string         `json:"subject"`
	Event         jsontext.Value `json:"event,omitempty"`
	Body          string         `json:"body,omitempty"`
}

func (p *program) listLetters(_ context.Context, _ *consumer.Letters, chosen []*consumer.Letter, d deadLetters) error {
	if d.json {
		for _, l := range chosen {
			doc := letterDocument{
				Letter: l.Sequence, At: l.At.UTC(), Durable: l.Durable, Reason: string(l.Reason), Error: l.Error, Tries: l.Tries, Account: l.Account, ContactID: l.ContactID,
				Type: string(l.Verb), Revision: l.Revision, Stream: l.Stream, EventSequence: l.EventSequence, Subject: l.Subject,
			}
			if body := jsontext.Value(l.Body); body.IsValid(jsontext.AllowDuplicateNames(true)) {
				doc.Event = body
			} else {
				doc.Body = string(l.Body)
			}
			line, err := json.Marshal(doc, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
			if err != nil {
				return fmt.Errorf("letter %d: %w", l.Sequence, err)
			}
			p.printf("%s\n", line)
		}
		return nil
	}
	if len(chosen) == 0 {
		p.printf("no dead letters\n")
		return nil
	}
	tabs := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tabs, "LETTER\tWHEN\tDURABLE\tCONTACT\tEVENT\tREVISION\tTRIES\tREASON\tERROR")
	for _, l := range chosen {
		_, _ = fmt.Fprintf(tabs, "%d\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", l.Sequence, l.At.Local().Format(time.DateTime), printable(l.Durable), printable(l.ContactID),
			printable(string(l.Verb)), l.Revision, l.Tries, printable(string(l.Reason)), printable(l.Error))
	}
	return tabs.Flush()
}

func (p *program) retryLetters(ctx context.Context, letters *consumer.Letters, chosen []*consumer.Letter, _ deadLetters) error {
	for _, l := range chosen {
		if err := letters.Retry(ctx, l); err != nil {
			return err
		}
	}
	p.printf("%s handed to %s again\n", counted(len(chosen), "dead letter"), map[bool]string{true: "its consumer", false: "their consumers"}[len(chosen) == 1])
	return nil
}

func (p *program) dropLetters(ctx context.Context, letters *consumer.Letters, chosen []*consumer.Letter, _ deadLetters) error {
	for _, l := range chosen {
		if err := letters.Drop(ctx, l); err != nil {
			return err
		}
	}
	p.printf("%s removed\n", counted(len(chosen), "dead letter"))
	return nil
}
