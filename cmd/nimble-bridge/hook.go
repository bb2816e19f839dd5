package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/follow"
	"nimble-bridge/publisher/hook"
)

// exitGone is the exit code of a hook whose receiver wants no more events.
const exitGone = 3

// hooking is what the flags of hook say.
type hooking struct {
	url      string
	exec     bool
	unsigned bool

	types, changed, contacts, accounts []string
	where                              string

	durable     string
	from        string
	concurrency int
	tries       int
	first       time.Duration
	longest     time.Duration
	timeout     time.Duration
	dryRun      bool
}

func (p *program) hookCommand() *cobra.Command {
	var h hooking
	cmd := &cobra.Command{
		Use:   "hook {--url URL | --exec -- COMMAND [ARGUMENT…]}",
		Short: "Call a URL or run a command for each matching event",
		Long: `hook posts each event that matches to a URL, by Standard Webhooks, or runs a command with it. An event counts as done when the
receiver answers with 2xx, or the command ends with 0, and is tried again otherwise, with growing pauses. What fails at the last try
becomes a dead letter: see "nimble-bridge hook dead".

At least once, and each contact's events in order: while one is tried again the later ones of its contact wait, and those of
others go on. Stopped in whatever way, hook goes on where it was. Several with the same --durable stand by for each other.

With --url the body is the event as it is stored. It is signed with the secrets in HOOK_SECRET, or in the file HOOK_SECRET_FILE, which is read
again at each call; with several, white space between, each signs, so that a receiver can change from one to the next. "nimble-bridge hook secret"
makes one. The event's id is in webhook-id, by which a receiver recognises what it has had. Redirects are not followed.
Retry-After is honoured up to an hour, and 410 Gone ends the hook with exit code 3.

With --exec the event is on the command's standard input, and facts about it are in its environment: NIMBLE_EVENT_TYPE, NIMBLE_EVENT_ID,
NIMBLE_CONTACT_ID, NIMBLE_CONTACT_NAME, NIMBLE_CHANGED, NIMBLE_REVISION, NIMBLE_ATTEMPT and others. No shell is involved. Exit code 65 means that no further
try will help: the event becomes a dead letter at once. After --timeout the command is ended, with all that it has started.

--where takes an expression (https://expr-lang.org) over type, summary.name, .company, .title, .emails, .phones, .tags, fields["lead status"],
changed("tags"), changes["tags"].added, contact, revision and others. "contains" looks for an element in a list, and for a part in a text.`,
		Example: `  HOOK_SECRET=$(nimble-bridge hook secret) nimble-bridge hook --url https://crm.example/hooks --type created,updated
  nimble-bridge hook --exec --changed tags --where 'summary.tags contains "hot"' -- ./call-sales.sh
  nimble-bridge hook --exec --from all --durable export -- jq -c .data.summary
  nimble-bridge hook --dry-run --from 7d --where 'changes["tags"].added contains "hot"' --exec -- true
  nimble-bridge hook dead list`,
		Args: func(cmd *cobra.Command, args []string) error {
			if h.exec || len(args) == 0 {
				return nil
			}
			if cmd.ArgsLenAtDash() == 0 {
				return &usageError{fmt.Errorf("%q is given after --, which goes with --exec", args[0])}
			}
			return noArguments(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return p.hook(cmd.Context(), &h, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&h.url, "url", "", "where to post the events")
	flags.BoolVar(&h.exec, "exec", false, "run the command that follows after --")
	flags.BoolVar(&h.unsigned, "unsigned", false, "post without a signature, to a receiver that trusts the network")
	flags.StringSliceVar(&h.types, "type", nil, "only these: "+strings.Join(contactTypes, ", "))
	flags.StringSliceVar(&h.changed, "changed", nil, "of updates only those that changed one of these keys, such as tags, fields.email, or fields for any field; without --type updates alone")
	flags.StringSliceVar(&h.contacts, "contact", nil, "only the contacts with these ids")
	flags.StringSliceVar(&h.accounts, "account", nil, "only these accounts; without it NIMBLE_ACCOUNT if that is set, or all")
	flags.StringVar(&h.where, "where", "", "only events of which this expression is true")
	flags.StringVar(&h.durable, "durable", "", "name under which NATS remembers how far the hook is; without it one that is derived from the URL or command, and from nothing else")
	flags.StringVar(&h.from, "from", "now", "where a new hook begins: now, all, or in the past: 90m, 2d, 2026-03-01, 2026-03-01T10:15:00Z")
	flags.IntVar(&h.concurrency, "concurrency", 4, "calls at the same time, of different contacts")
	flags.IntVar(&h.tries, "max-tries", 12, "tries until an event becomes a dead letter")
	flags.DurationVar(&h.first, "first-retry", 5*time.Second, "pause after the first try; it doubles each time, give or take a half")
	flags.DurationVar(&h.longest, "longest-retry", time.Hour, "longest pause between tries")
	flags.DurationVar(&h.timeout, "timeout", 30*time.Second, "time for one try")
	flags.BoolVar(&h.dryRun, "dry-run", false, "print what would be done, from --from on, and remember nothing")
	for name, values := range map[string][]string{"type": contactTypes, "changed": changedKeys, "from": {"now", "all"}} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // The flags are right above.
		}
	}
	cmd.AddCommand(p.hookDeadCommand(), p.hookSecretCommand())
	return cmd
}

// changedKeys are keys that people often ask for.
var changedKeys = []string{"tags", "fields", "fields.email", "fields.phone", "owner_id", "privacy", "is_important"}

func (p *program) hookSecretCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "secret",
		Short:   "Make a secret for signing webhooks",
		Long:    `secret prints a new secret, for HOOK_SECRET and for the receiver.`,
		Example: `  nimble-bridge hook secret > hook.secret`,
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			p.printf("%s\n", hook.NewSecret())
			return nil
		},
	}
}

// hookPlan is what the flags come to.
type hookPlan struct {
	// target names the URL or the command for people, without what may be secret in it.
	target    string
	url       *url.URL
	condition *hook.Condition
	consumer  consumer.Config
	from      follow.From
}

// plan checks the flags. It finds everything that is wrong at once.
func (h *hooking) plan(cfg *config, args []string, now time.Time) (*hookPlan, configError) {
	plan := &hookPlan{}
	var problems configError
	complain := func(hint, format string, args ...any) {
		problems = append(problems, problem{text: fmt.Sprintf(format, args...), hint: hint})
	}
	plan.aim(h, args, complain)
	filter := consumer.Filter{Changed: h.changed, Contacts: h.contacts, Accounts: h.accounts}
	for _, name := range h.types {
		if !slices.Contains(contactTypes, name) {
			complain("", "--type is %q, want %s", name, strings.Join(contactTypes, ", "))
		}
		filter.Verbs = append(filter.Verbs, event.Verb(name))
	}
	if len(h.changed) > 0 && len(h.types) > 0 && !slices.Contains(h.types, string(event.Updated)) {
		complain("", "--changed is about updates, and --type leaves them out")
	}
	if slices.Contains(h.changed, "") {
		complain("", "--changed has an empty key")
	}
	for flag, values := range map[string][]string{"--contact": h.contacts, "--account": h.accounts} {
		for _, value := range values {
			if !event.ValidToken(value) {
				complain("", "%s is %q, want letters, digits, - and _", flag, value)
			}
		}
	}
	if h.where != "" {
		var err error
		if plan.condition, err = hook.Compile(h.where); err != nil {
			complain("", "--where: %v", err)
		}
	}
	if len(filter.Accounts) == 0 && cfg != nil && cfg.Account != "" {
		filter.Accounts = []string{cfg.Account}
	}
	h.checkNumbers(complain)
	plan.consumer = consumer.Config{
		Durable: h.durable, Filter: filter, Concurrency: h.concurrency, MaxTries: h.tries, FirstRetry: h.first, LongestRetry: h.longest,
		// What was in work when a hook was killed is called again after so long.
		AckWait: 10 * time.Second,
		Grace:   max(h.timeout+time.Second, 10*time.Second),
	}
	if h.durable == "" {
		plan.consumer.Durable = plan.durable(h, args)
	}
	var ok bool
	if plan.consumer.From, plan.from, ok = parseFrom(h.from, now); !ok {
		complain("", "--from is %q, want now, all, a time ago such as 90m or 2d, a day such as 2026-03-01, or a time such as 2026-03-01T10:15:00Z", h.from)
	}
	if cfg != nil {
		plan.consumer.Stream, plan.consumer.Prefix, plan.consumer.Bucket = cfg.Stream, cfg.Prefix, cfg.Bucket
		if h.url != "" && !h.exec && !h.unsigned && !h.dryRun && cfg.HookKey == "" && cfg.HookKeyFile == "" {
			complain(`set it to the receiver's secret ("nimble-bridge hook secret" makes one), or give --unsigned`, "HOOK_SECRET is not set")
		}
	}
	return plan, problems
}

func (h *hooking) checkNumbers(complain func(hint, format string, args ...any)) {
	if h.durable != "" && !word.MatchString(h.durable) {
		complain("", "--durable is %q, want a name of letters, digits, - and _", h.durable)
	}
	if h.concurrency < 1 || h.concurrency > 1000 {
		complain("", "--concurrency is %d, want 1 to 1000", h.concurrency)
	}
	if h.tries < 1 {
		complain("", "--max-tries is %d, want 1 or more", h.tries)
	}
	if h.first <= 0 {
		complain("", "--first-retry is %s, want more than 0", h.first)
	}
	if h.longest < h.first {
		complain("", "--longest-retry is %s, want at least --first-retry, %s", h.longest, h.first)
	}
	if h.timeout <= 0 {
		complain("", "--timeout is %s, want more than 0", h.timeout)
	}
}

// aim finds out what is to be called.
func (plan *hookPlan) aim(h *hooking, args []string, complain func(hint, format string, args ...any)) {
	switch {
	case h.url != "" && h.exec:
		complain("", "--url and --exec are both given, want one of them")
	case h.exec && len(args) == 0:
		complain("", "--exec is given without a command, want it after --")
	case h.exec:
		plan.target = args[0]
		if _, err := exec.LookPath(args[0]); err != nil {
			complain("", "the command %q cannot be run: %v", args[0], errors.Unwrap(err))
		}
		if h.unsigned {
			complain("", "--unsigned goes with --url only")
		}
	case h.url == "":
		complain("", "neither --url nor --exec is given, want one of them")
	default:
		u, err := url.Parse(h.url)
		if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			complain("", "--url is %q, want one such as https://crm.example/hooks", redactURLs(h.url))
			return
		}
		u.Fragment = ""
		plan.url, plan.target = u, hook.Shown(u)
	}
}

// unnamed is what a durable's name cannot have in it.
var unnamed = regexp.MustCompile(`[^A-Za-z0-9]+`)

// durable derives a name from the URL or command, so that the same hook goes on where it was.
func (plan *hookPlan) durable(h *hooking, args []string) string {
	name, all := filepath.Base(plan.target), strings.Join(args, "\x00")
	if plan.url != nil {
		name, all = plan.url.Host, plan.target
	}
	if h.exec && len(args) == 0 || all == "" {
		return "hook"
	}
	name = strings.Trim(unnamed.ReplaceAllString(name, "-"), "-")
	sum := sha256.Sum256([]byte(all))
	return "hook-" + name[:min(len(name), 40)] + "-" + hex.EncodeToString(sum[:4])
}

// parseFrom reads where to begin, for a durable and for somebody who looks on.
func parseFrom(text string, now time.Time) (consumer.From, follow.From, bool) {
	switch text {
	case "now":
		return consumer.Now(), follow.Now(), true
	case "all":
		return consumer.All(), follow.All(), true
	}
	since, ok := parseSince(text, now)
	return consumer.Since(since), follow.Since(since), ok
}

// hook is the command hook.
func (p *program) hook(ctx context.Context, h *hooking, args []string) error {
	cfg, err := readClientConfig()
	problems, wrong := errors.AsType[configError](err)
	if err != nil && !wrong {
		return err
	}
	plan, more := h.plan(cfg, args, time.Now())
	if problems = append(problems, more...); len(problems) > 0 {
		return problems
	}
	if h.dryRun {
		cfg.LogLevel = max(cfg.LogLevel, logLevel(zap.ErrorLevel))
	}
	log := newLogger(p.stderr, cfg.LogFormat, cfg.LogLevel)
	to := cfg.connection("nimble-bridge hook", log)
	if len(to.URLs) == 0 {
		to.URLs = []string{cfg.embeddedURL()}
	}
	conn, err := publisher.Connect(ctx, to, log)
	if err != nil {
		return stopped(ctx, err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn.NATS())
	if err != nil {
		return err
	}
	if h.dryRun {
		return p.rehearse(ctx, js, plan, h)
	}
	call, done := p.caller(cfg, h, plan, args)
	defer done()
	plan.consumer.Log = log
	log.Info("hook runs", zap.String("target", plan.target), zap.String("durable", plan.consumer.Durable))
	return runHook(ctx, js, plan, plan.condition.Filter(call), log)
}

// caller makes what is called for each event. done gives back what it holds.
func (p *program) caller(cfg *config, h *hooking, plan *hookPlan, args []string) (call consumer.Handler, done func()) {
	if plan.url == nil {
		command := &hook.Command{Name: args[0], Args: args[1:], Env: withoutSecrets(os.Environ()), Stdout: p.stdout, Stderr: p.stderr, Timeout: h.timeout}
		return command.Call, func() {}
	}
	transport := hook.NewTransport()
	endpoint := &hook.Endpoint{URL: plan.url, Transport: transport, Timeout: h.timeout, UserAgent: "nimble-bridge/" + thisBuild().Version}
	if !h.unsigned {
		endpoint.Secrets = cfg.hookSecrets
	}
	return endpoint.Call, transport.CloseIdleConnections
}

// runHook runs the consumer. A stream that is not there yet is waited for, since the hook may well be started before the bridge.
func runHook(ctx context.Context, js jetstream.JetStream, plan *hookPlan, handle consumer.Handler, log *zap.Logger) error {
	for said := false; ; said = true {
		err := consumer.Run(ctx, js, plan.consumer, handle)
		if gone, ok := errors.AsType[*hook.GoneError](err); ok {
			return &hintedError{gone, "the event is kept: where the receiver takes events again, start the hook again; otherwise delete it with `nats consumer rm " +
				plan.consumer.Stream + " " + plan.consumer.Durable + "`"}
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		if !said {
			log.Warn("waiting for the stream", zap.String("stream", plan.consumer.Stream))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Second):
		}
	}
}

// rehearse prints what the hook would do. It shows what there is and ends, if it begins in the past.
func (p *program) rehearse(ctx context.Context, js jetstream.JetStream, plan *hookPlan, h *hooking) error {
	action := "run " + plan.target
	if plan.url != nil {
		action = http.MethodPost + " " + plan.target
	}
	return follow.Run(ctx, js, follow.Config{Stream: plan.consumer.Stream, Subjects: plan.consumer.Subjects(), From: plan.from, Stop: h.from != "now"}, func(m *follow.Message) error {
		e, err := event.Decode(m.Data)
		if err != nil {
			p.printf("sequence %d would become a dead letter: %v\n", m.Sequence, err)
			return nil
		}
		if !plan.consumer.Filter.Wants(m.Header, e) {
			return nil
		}
		what := fmt.Sprintf("%s of contact %s, revision %d, sequence %d", e.Verb(), e.Subject, e.Data.Revision, m.Sequence)
		if plan.condition != nil {
			holds, err := plan.condition.Holds(e)
			if err != nil {
				p.printf("%s would become a dead letter: %v\n", what, err)
				return nil
			}
			if !holds {
				return nil
			}
		}
		p.printf("%s: would %s\n", what, action)
		return nil
	})
}

// withoutSecrets leaves out of an environment what a command has no business with.
func withoutSecrets(environ []string) []string {
	return slices.DeleteFunc(environ, func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		for field := range reflect.TypeFor[config]().Fields() {
			if field.Tag.Get("envconfig") == name {
				return field.Tag.Get("secret") != ""
			}
		}
		return false
	})
}
