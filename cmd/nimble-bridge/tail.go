package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/follow"
)

// tailing is what the flags of tail say.
type tailing struct {
	json                               bool
	all, noFollow                      bool
	since                              string
	types, contacts, accounts, changed []string
	events                             int
}

func (p *program) tailCommand() *cobra.Command {
	var t tailing
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Watch the events on NATS: what changed, before and after",
		Long: `tail shows the events as they come, in words: on a terminal in colour, each change on a line of its own; in a pipe one plain line
an event; with --json the events themselves, one a line. It begins with the next event unless told to begin in the past.

It needs no API key, and of NATS the same variables as the bridge: NATS_URL and credentials. Without NATS_URL it asks the
server inside a bridge on this machine, at EMBEDDED_NATS_ADDR. It may read and nothing else: permission to publish to
$JS.API.STREAM.INFO.<stream>, $JS.API.CONSUMER.CREATE.<stream>.> and $JS.API.CONSUMER.MSG.NEXT.<stream>.*, and to
subscribe to _INBOX_NIMBLE_BRIDGE.>, is enough.

Lost connections and restarts of the server lose and repeat nothing. A stream that does not exist yet is waited for.
It ends with Ctrl-C, or when nobody reads what it writes.`,
		Example: `  nimble-bridge tail
  nimble-bridge tail --since 1h --type created,deleted
  nimble-bridge tail --all --contact 6f10a0c2d4e5b6a7c8d9e0f1 --no-follow
  nimble-bridge tail --changed fields.email,tags
  nimble-bridge tail --json | jq -r '.data.summary.name'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.tail(cmd.Context(), t) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&t.json, "json", false, "print the events as they are, one a line")
	flags.StringVar(&t.since, "since", "", "begin in the past: 90m, 2d, 2026-03-01 or 2026-03-01T10:15:00Z")
	flags.BoolVar(&t.all, "all", false, "begin with the oldest event")
	flags.BoolVar(&t.noFollow, "no-follow", false, "end when everything there is has been shown")
	flags.IntVar(&t.events, "events", 0, "end after this many events; 0 goes on until interrupted")
	flags.StringSliceVar(&t.types, "type", nil, "only these: "+strings.Join(tailTypes, ", "))
	flags.StringSliceVar(&t.contacts, "contact", nil, "only the contacts with these ids")
	flags.StringSliceVar(&t.changed, "changed", nil, "only updates that changed one of these keys, such as tags, fields.email, or fields for any field")
	flags.StringSliceVar(&t.accounts, "account", nil, "only these accounts; without it NIMBLE_ACCOUNT if that is set, or all")
	for name, values := range map[string][]string{"type": tailTypes, "changed": changedKeys} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // The flags are right above.
		}
	}
	return cmd
}

// The types of --type, by their last word: those of contacts first.
var (
	contactTypes = []string{string(event.Snapshot), string(event.Created), string(event.Updated), string(event.Deleted)}
	bridgeTypes  = []string{"reconciled", "rejected"}
	tailTypes    = slices.Concat(contactTypes, bridgeTypes)
)

// check finds what makes no sense, and returns where to begin.
func (t *tailing) check(now time.Time) (follow.From, error) {
	for _, name := range t.types {
		if !slices.Contains(tailTypes, name) {
			return follow.From{}, fmt.Errorf("--type is %q, want %s", name, strings.Join(tailTypes, ", "))
		}
	}
	for _, token := range []struct {
		flag   string
		values []string
	}{{"--contact", t.contacts}, {"--account", t.accounts}} {
		for _, value := range token.values {
			if !event.ValidToken(value) {
				return follow.From{}, fmt.Errorf("%s is %q, want letters, digits, - and _", token.flag, value)
			}
		}
	}
	switch {
	case t.events < 0:
		return follow.From{}, fmt.Errorf("--events is %d, want 0 or more", t.events)
	case t.all && t.since != "":
		return follow.From{}, errors.New("--all and --since are both given, want one place to begin")
	case len(t.changed) > 0 && len(t.types) > 0 && !slices.Equal(t.types, []string{string(event.Updated)}):
		return follow.From{}, errors.New("--changed is about updates: leave --type out")
	case len(t.contacts) > 0 && slices.ContainsFunc(t.types, func(name string) bool { return slices.Contains(bridgeTypes, name) }):
		return follow.From{}, fmt.Errorf("--contact is about contacts, and events of the type %s are not", strings.Join(bridgeTypes, " or "))
	case t.noFollow && !t.all && t.since == "":
		return follow.From{}, errors.New("--no-follow has nothing to show without --all or --since")
	case t.all:
		return follow.All(), nil
	case t.since == "":
		return follow.Now(), nil
	}
	since, ok := parseSince(t.since, now)
	if !ok {
		return follow.From{}, fmt.Errorf("--since is %q, want a time ago such as 90m or 2d, a day such as 2026-03-01, or a time such as 2026-03-01T10:15:00Z", t.since)
	}
	return follow.Since(since), nil
}

// parseSince reads a time ago, a day in this machine's zone, or a time.
func parseSince(text string, now time.Time) (time.Time, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return now.AddDate(0, 0, -int(n)), err == nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), ago >= 0
	}
	if day, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return day, true
	}
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}

// subjects are the filters of the stream that the flags mean.
func (t *tailing) subjects(prefix string) []string {
	types := t.types
	if len(t.changed) > 0 {
		types = []string{string(event.Updated)}
	}
	var list []string
	for _, account := range orAny(t.accounts) {
		base := prefix + "." + account
		verbs := slices.DeleteFunc(slices.Clone(types), func(name string) bool { return slices.Contains(bridgeTypes, name) })
		if len(types) == 0 || len(verbs) > 0 {
			for _, verb := range orAny(verbs) {
				for _, id := range orAny(t.contacts) {
					list = append(list, base+".contact."+verb+"."+id)
				}
			}
		}
		for _, name := range bridgeTypes {
			if slices.Contains(types, name) {
				list = append(list, base+".bridge."+name)
			}
		}
		if len(types) == 0 && len(t.contacts) == 0 {
			list = append(list, base+".bridge.>")
		}
	}
	return list
}

// orAny is the values, each once, or the wildcard for any.
func orAny(values []string) []string {
	if len(values) == 0 {
		return []string{"*"}
	}
	sorted := slices.Sorted(slices.Values(values))
	return slices.Compact(sorted)
}

// errEnough ends a view that has shown what it should.
var errEnough = errors.New("enough events")

// tail is the command tail.
func (p *program) tail(ctx context.Context, t tailing) error {
	from, err := t.check(time.Now())
	if err != nil {
		return &usageError{err}
	}
	cfg, err := readClientConfig()
	if err != nil {
		return err
	}
	if len(t.accounts) == 0 && cfg.Account != "" {
		t.accounts = []string{cfg.Account}
	}
	// Writing to a pipe that nobody reads is to fail, which ends this well, and not to kill the process.
	signal.Ignore(syscall.SIGPIPE)

	// What happens to the connection is told below, in words; here only what concerns nobody else, such as a password file that cannot be read.
	log := newLogger(p.stderr, cfg.LogFormat, logLevel(zap.ErrorLevel))
	conn, err := cfg.dial(ctx, "nimble-bridge tail", log)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn.NATS())
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(p.stdout, 64<<10)
	w := &tailWriter{
		program: p, flags: t, out: out, prefix: cfg.Prefix, stream: cfg.Stream,
		view: view{color: wantsColor(p.stdout), zone: time.Local, single: !isTerminal(p.stdout), ids: true},
	}
	began := time.Now()
	err = follow.Run(ctx, js, follow.Config{Stream: cfg.Stream, Subjects: t.subjects(cfg.Prefix), From: from, Stop: t.noFollow, Notice: w.notice}, w.show)
	err = cmp.Or(err, out.Flush())
	switch {
	case err == nil, errors.Is(err, errEnough), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return &hintedError{fmt.Errorf("stream %s does not exist", cfg.Stream), "start a bridge, which makes it; or set NATS_STREAM to the stream that yours writes"}
	}
	return conn.Explain(err, began)
}

// tailWriter shows messages, and tells what happens beside them.
type tailWriter struct {
	program        *program
	flags          tailing
	out            *bufio.Writer
	view           view
	prefix, stream string

	shown   int
	flushed time.Time
	day     string // of the last event on a terminal
	account string // of the first event
	several bool   // accounts have been seen
}

// show shows one message.
func (w *tailWriter) show(m *follow.Message) error {
	text, ok := w.text(m)
	if !ok {
		return nil
	}
	if _, err := w.out.WriteString(text); err != nil {
		return err
	}
	w.shown++
	enough := w.flags.events > 0 && w.shown >= w.flags.events
	// Many events at once are written together, but nobody waits for what is there.
	if m.Pending == 0 || enough || time.Since(w.flushed) > 100*time.Millisecond {
		if err := w.out.Flush(); err != nil {
			return err
		}
		w.flushed = time.Now()
	}
	if enough {
		return errEnough
	}
	return nil
}

// text is what is shown of a message; ok is false when that is nothing.
func (w *tailWriter) text(m *follow.Message) (text string, ok bool) {
	parsed, err := event.Parse(m.Header, m.Data)
	unknown := errors.Is(err, event.ErrType)
	if err != nil && !unknown {
		w.say("message %d on %s is no event: %v", m.Sequence, printable(m.Subject), err)
		return "", false
	}
	e, _ := parsed.(*event.Event)
	if len(w.flags.changed) > 0 && (e == nil || !e.Changed(w.flags.changed...)) {
		return "", false
	}
	if w.flags.json {
		line := jsontext.Value(slices.Clone(m.Data)) // What Nimble sent may have line breaks between its tokens.
		if err := line.Compact(); err != nil {
			w.say("message %d on %s is no JSON: %v", m.Sequence, printable(m.Subject), err)
			return "", false
		}
		return string(line) + "\n", true
	}
	if unknown {
		kind, _ := event.TypeOf(m.Data)
		return w.dated(m.Time) + w.view.head(m.Time, dim, "other") + "  an event of the type " + printable(kind) + ", which this version does not know\n", true
	}
	text = w.view.message(parsed)
	if account := w.accountOf(m.Subject); account != "" {
		head, rest, _ := strings.Cut(text, "\n")
		text = head + w.view.paint(dim, "  "+account) + "\n" + rest
	}
	at := m.Time
	if e != nil {
		at = e.Data.Observed
	}
	return w.dated(at) + text, true
}

// dated is the line that comes before the first event of another day.
func (w *tailWriter) dated(at time.Time) string {
	if w.view.single {
		return ""
	}
	day := at.In(w.view.zone).Format(time.DateOnly)
	if w.day == "" && day == time.Now().In(w.view.zone).Format(time.DateOnly) {
		w.day = day // Nobody needs to be told of today.
	}
	if day == w.day {
		return ""
	}
	w.day = day
	return w.view.day(at)
}

// accountOf names the account of an event once there are several.
func (w *tailWriter) accountOf(subject string) string {
	account, _, _ := strings.Cut(strings.TrimPrefix(subject, w.prefix+"."), ".")
	if w.account == "" {
		w.account = account
	}
	w.several = w.several || account != w.account
	if !w.several {
		return ""
	}
	return printable(account)
}

// notice tells what happens beside the messages.
func (w *tailWriter) notice(n follow.Notice) {
	_ = w.out.Flush() // Its error comes again with the next event.
	switch n.What {
	case follow.Absent:
		w.say("stream %s does not exist yet; waiting for a bridge to make it", w.stream)
	case follow.Begun:
		if isTerminal(w.program.stdout) && !w.flags.noFollow {
			w.say("following stream %s; Ctrl-C ends it", w.stream)
		}
	case follow.Interrupted:
		w.say("NATS is away: %v", n.Err)
	case follow.Resumed:
		w.say("going on where it stopped")
	case follow.Replaced:
		w.say("stream %s was made anew, or lost its end; going on with what is new in it", w.stream)
	case follow.Removed:
		w.say("events before number %d were removed from stream %s before they could be shown", n.Sequence, w.stream)
	}
}

// say tells the person at the terminal something, apart from the events.
func (w *tailWriter) say(format string, args ...any) {
	_, _ = fmt.Fprintf(w.program.stderr, "nimble-bridge: "+format+"\n", args...)
}
