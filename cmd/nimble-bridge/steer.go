package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
)

// The commands of this file ask running bridges over NATS, from wherever there are credentials for it.

func (p *program) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the bridge is: watermark, lag, contacts, last poll, leader, what is held",
		Long: `status asks the bridges of an account over NATS how they are, and shows that on one screen: that of the leader, and which others
stand by. With --json it prints the leader's answer, which is also that of /status on HTTP_ADDR.

Where NATS does not answer, the bridge at HTTP_ADDR on this machine is asked instead.`,
		Example: `  nimble-bridge status
  NATS_URL=nats://nats.internal:4222 NATS_CREDS=operator.creds nimble-bridge status --json | jq .watermark`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.showStatus(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the leader's status as JSON")
	return cmd
}

func (p *program) pauseCommand() *cobra.Command {
	return p.steeringCommand("pause", "Stop polling and reconciling until resume, also beyond a restart",
		`pause has the bridge that leads finish what it is publishing and then leave Nimble alone until "nimble-bridge resume". The pause
is kept in NATS: it holds for whichever bridge leads, and after restarts. What changes meanwhile is found afterwards.`,
		endpointPause, "paused")
}

func (p *program) resumeCommand() *cobra.Command {
	return p.steeringCommand("resume", "End a pause, and poll at once",
		`resume ends what "nimble-bridge pause" began. The bridge that leads polls at once.`,
		endpointResume, "polling again")
}

func (p *program) pollNowCommand() *cobra.Command {
	return p.steeringCommand("poll-now", "Poll at once, and wait for the outcome",
		`poll-now has the bridge that leads poll without waiting for POLL_INTERVAL, and returns when that poll is done: with an
error if it failed.`,
		endpointPollNow, "polled")
}

// steeringCommand is a command without arguments that the leader obeys and answers with its status.
func (p *program) steeringCommand(name, short, long, endpoint, done string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Long: long, Example: "  nimble-bridge " + name,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withBridge(cmd.Context(), func(ctx context.Context, r *remote) error {
				var s status
				if err := r.command(ctx, endpoint, nil, &s); err != nil {
					return err
				}
				p.printf("%s: %s; %d contacts, everything up to %s is published\n", s.Account, done, s.Contacts, timeText(s.Watermark, time.Now()))
				return nil
			})
		},
	}
}

func (p *program) explainCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain ID",
		Short: "Tell why a contact did or did not give an event",
		Long: `explain says what the bridge knows of a contact (the facts of its last event), what Nimble says of it now, which keys differ,
and what follows from that. It shows nothing of the contact's content.`,
		Example: `  nimble-bridge explain 5049fb849b85f669e40000dc`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !word.MatchString(args[0]) {
				return &usageError{fmt.Errorf("%s takes the id of one contact, got %q", cmd.CommandPath(), args)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withBridge(cmd.Context(), func(ctx context.Context, r *remote) error {
				var e poller.Explanation
				if err := r.command(ctx, endpointExplain, explainRequest{args[0]}, &e); err != nil {
					return err
				}
				if asJSON {
					return p.printJSON(e)
				}
				p.printf("%s", explanationText(e))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func (p *program) confirmDeletionsCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "confirm-deletions",
		Short: "List the deletions that DELETE_LIMIT holds back, and release them",
		Long: `confirm-deletions lists the contacts that are gone in Nimble and whose deletion is held back, because they are more than
DELETE_LIMIT lets pass at once; and, after asking, has the bridge publish these deletions. Each contact is looked for once more
before: one that is there again is not deleted. With --yes it does not ask.`,
		Example: `  nimble-bridge confirm-deletions
  nimble-bridge confirm-deletions --yes`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withBridge(cmd.Context(), func(ctx context.Context, r *remote) error { return p.confirmDeletions(ctx, r, yes) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "release them without asking")
	return cmd
}

func (p *program) resyncCommand() *cobra.Command {
	var contacts []string
	var all bool
	cmd := &cobra.Command{
		Use:   "resync {--contact ID… | --all}",
		Short: "Publish contacts again, as snapshots of how they are now",
		Long: `resync has the bridge publish contacts again as they are in Nimble now, each as a snapshot event with the next revision: for
consumers that lost something, or want to begin anew. --contact can be given several times, or with several ids. --all goes
through the whole account beside the polls, and goes on after a restart where it stopped; "nimble-bridge status" tells whether it is under way.`,
		Example: `  nimble-bridge resync --contact 5049fb849b85f669e40000dc
  nimble-bridge resync --contact 5049fb849b85f669e40000dc,5049fb849b85f669e40000dd
  nimble-bridge resync --all`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all == (len(contacts) > 0) {
				return &usageError{errors.New("resync needs either --contact ID… or --all")}
			}
			for _, id := range contacts {
				if !word.MatchString(id) {
					return &usageError{fmt.Errorf("--contact is %q, want the id of a contact", id)}
				}
			}
			return p.withBridge(cmd.Context(), func(ctx context.Context, r *remote) error {
				var a resyncAnswer
				if err := r.command(ctx, endpointResync, resyncRequest{contacts, all}, &a); err != nil {
					return err
				}
				return p.tellResync(r.account, a)
			})
		},
	}
	cmd.Flags().StringSliceVar(&contacts, "contact", nil, "id of a contact; several times, or several joined by commas")
	cmd.Flags().BoolVar(&all, "all", false, "all contacts of the account")
	return cmd
}

func (p *program) tellResync(account string, a resyncAnswer) error {
	if a.Resyncing {
		p.printf("%s: all contacts are being published again, beside the polls\n", account)
		return nil
	}
	p.printf("%s: %d snapshots published\n", account, a.Published)
	if len(a.Missing) > 0 {
		return &hintedError{
			fmt.Errorf("Nimble does not give %s", strings.Join(a.Missing, ", ")), //nolint:staticcheck // A name begins the message.
			"they are deleted, or out of sight for the key's user; a reconciliation finds out and publishes that",
		}
	}
	return nil
}

// remote is a way to the bridges of an account.
type remote struct {
	conn    *publisher.Connection
	cfg     *config
	account string
}

// How long answers are waited for. Those to status come at once or, with NATS in trouble, after two seconds.
const (
	statusPatience  = 4 * time.Second
	statusQuiet     = 300 * time.Millisecond
	commandPatience = answerWithin + 5*time.Second
	handOver        = 6 * time.Second
)

// withBridge connects to NATS, finds out which account is meant, and calls do.
func (p *program) withBridge(ctx context.Context, do func(context.Context, *remote) error) error {
	cfg, err := readClientConfig()
	if err != nil {
		return err
	}
	r, err := p.reach(ctx, cfg)
	if err != nil {
		return err
	}
	defer r.conn.Close()
	return do(ctx, r)
}

// reach connects to NATS and finds out which account is meant.
func (p *program) reach(ctx context.Context, cfg *config) (*remote, error) {
	conn, err := cfg.dial(ctx, "nimble-bridge command", zap.NewNop())
	if err != nil {
		return nil, err
	}
	r := &remote{conn, cfg, cfg.Account}
	if r.account == "" {
		if r.account, err = r.discover(ctx); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return r, nil
}

// discover asks which accounts have a bridge. It has to be one.
func (r *remote) discover(ctx context.Context) (string, error) {
	subject, err := micro.ControlSubject(micro.PingVerb, serviceName, "")
	if err != nil {
		return "", err
	}
	answers, err := r.conn.Ask(ctx, subject, nil, statusPatience, statusQuiet)
	if err != nil {
		return "", r.unanswered(err, "")
	}
	accounts := make(map[string]bool)
	for _, msg := range answers {
		var ping micro.Ping
		if json.Unmarshal(msg.Data, &ping) == nil && word.MatchString(ping.Metadata["account"]) {
			accounts[ping.Metadata["account"]] = true
		}
	}
	names := slices.Sorted(maps.Keys(accounts))
	switch len(names) {
	case 0:
		return "", r.unanswered(nats.ErrNoResponders, "")
	case 1:
		return names[0], nil
	}
	return "", &hintedError{fmt.Errorf("bridges of %d accounts answer: %s", len(names), strings.Join(names, ", ")), "say which one is meant with NIMBLE_ACCOUNT"}
}

// noBridgeError says that no bridge answers.
type noBridgeError struct{ where, account string }

func (e *noBridgeError) Error() string {
	of := ""
	if e.account != "" {
		of = " of account " + e.account
	}
	return fmt.Sprintf("no bridge%s answers at %s", of, e.where)
}

// unanswered makes sense of a question that nobody answered.
func (r *remote) unanswered(err error, account string) error {
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		return &hintedError{
			&noBridgeError{r.conn.NATS().ConnectedUrlRedacted(), account},
			"see that it runs and uses this NATS server and account, and that NIMBLE_ACCOUNT is right if it is set",
		}
	}
	return err
}

// statuses asks all bridges of the account how they are, and returns what each of them answers: the leader's first.
func (r *remote) statuses(ctx context.Context) ([]status, []jsontext.Value, error) {
	answers, err := r.conn.Ask(ctx, endpointSubject(r.account, endpointStatus), nil, statusPatience, statusQuiet)
	if err != nil {
		return nil, nil, r.unanswered(err, r.account)
	}
	type both struct {
		status
		raw jsontext.Value
	}
	latest := make(map[string]both) // A bridge that changes its role may answer twice.
	for _, msg := range answers {
		b := both{raw: msg.Data}
		if err := json.Unmarshal(msg.Data, &b.status); err != nil {
			return nil, nil, fmt.Errorf("answer of a bridge: %w", err)
		}
		latest[b.Name] = b
	}
	sorted := slices.SortedFunc(maps.Values(latest), func(a, b both) int {
		return cmp.Or(-compareBool(a.leads(), b.leads()), -compareBool(a.Ready, b.Ready), cmp.Compare(a.Name, b.Name))
	})
	statuses, raw := make([]status, len(sorted)), make([]jsontext.Value, len(sorted))
	for i, b := range sorted {
		statuses[i], raw[i] = b.status, b.raw
	}
	return statuses, raw, nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// leads tells whether it is the leader's status.
func (s *status) leads() bool { return s.Leader != "" && s.Leader == s.Name }

// refusal is a service's error.
type refusal struct{ code, text string }

func (e *refusal) Error() string { return e.text }

// command has the leader do something and decodes its answer. When leadership is just changing hands, it tries again for a while.
func (r *remote) command(ctx context.Context, endpoint string, request, answer any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	for began := time.Now(); ; {
		err := r.ask(ctx, endpoint, body, answer)
		refused, ok := errors.AsType[*refusal](err)
		again := errors.Is(err, nats.ErrNoResponders) || ok && refused.code == codeNotNow
		if !again {
			return err
		}
		if errors.Is(err, nats.ErrNoResponders) {
			statuses, _, asked := r.statuses(ctx)
			if asked != nil {
				return asked
			}
			if time.Since(began) > handOver || !slices.ContainsFunc(statuses, mayLead) {
				return r.noLeader(statuses)
			}
		} else if time.Since(began) > handOver {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (r *remote) ask(ctx context.Context, endpoint string, body []byte, answer any) error {
	msg, err := r.conn.AskOne(ctx, endpointSubject(r.account, endpoint), body, commandPatience)
	if err != nil {
		if errors.Is(err, nats.ErrNoResponders) || ctx.Err() != nil {
			return err
		}
		return r.unanswered(err, r.account)
	}
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
		refused := &refusal{code, msg.Header.Get(micro.ErrorHeader)}
		switch code {
		case codeConflict:
			return &hintedError{refused, `"nimble-bridge resume" ends the pause`}
		case codeBusy:
			return &hintedError{fmt.Errorf("the bridge did not come to it within %s: %w", answerWithin, refused), `"nimble-bridge status" says what it is busy with`}
		}
		return refused
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("answer of the bridge: %w", err)
	}
	return nil
}

// mayLead tells whether a bridge leads or may be about to: it is no more than starting, or waits for the lease.
func mayLead(s status) bool { return s.Ready || s.Leader != "" || s.Reason == starting }

// noLeader says why nobody obeys although bridges run.
func (r *remote) noLeader(statuses []status) error {
	var why []string
	for _, s := range statuses {
		text := s.Name + " is " + string(s.State)
		if s.Reason != "" {
			text += ", " + string(s.Reason) + ": " + s.Message
		}
		why = append(why, text)
	}
	return &hintedError{fmt.Errorf("no bridge of account %s leads at present: %s", r.account, strings.Join(why, "; ")), `"nimble-bridge status" shows more`}
}

// showStatus is the command status.
func (p *program) showStatus(ctx context.Context, asJSON bool) error {
	cfg, err := readClientConfig()
	if err != nil {
		return err
	}
	statuses, raw, err := p.askStatus(ctx, cfg)
	if err != nil {
		here, body, httpErr := statusHere(ctx)
		if httpErr != nil || cfg.Account != "" && here.Account != cfg.Account {
			return err
		}
		p.complain(fmt.Errorf("%w; this is what the bridge at HTTP_ADDR says", err), nil)
		statuses, raw = []status{here}, []jsontext.Value{body}
	}
	if asJSON {
		v := raw[0]
		if err := v.Indent(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.stdout, "%s\n", v)
		return err
	}
	p.printf("%s", statusScreen{view{color: wantsColor(p.stdout), zone: time.Local}, time.Now()}.text(statuses))
	return nil
}

func (p *program) askStatus(ctx context.Context, cfg *config) ([]status, []jsontext.Value, error) {
	r, err := p.reach(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	defer r.conn.Close()
	return r.statuses(ctx)
}

// statusHere asks the bridge on this machine.
func statusHere(ctx context.Context) (s status, body jsontext.Value, err error) {
	addr, err := healthAddr()
	if err != nil {
		return s, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", nil)
	if err != nil {
		return s, nil, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return s, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err == nil && s.Build.Version == "" {
		err = errors.New("that is no bridge")
	}
	return s, body, err
}

// confirmDeletions lists what is held, asks, and releases it.
func (p *program) confirmDeletions(ctx context.Context, r *remote, yes bool) error {
	var a deletionsAnswer
	if err := r.command(ctx, endpointDeletions, deletionsRequest{}, &a); err != nil {
		return err
	}
	if a.HeldTotal == 0 {
		p.printf("%s: no deletion is held back\n", r.account)
		return nil
	}
	p.printf("%s: %d deletions are held back:\n", r.account, a.HeldTotal)
	names := r.names(ctx, a.Held[:min(len(a.Held), maxNamed)])
	for i, id := range a.Held {
		if i == maxShown {
			p.printf("  … and %d more\n", a.HeldTotal-i)
			break
		}
		p.printf("  %s  %s\n", id, names[id])
	}
	if len(a.Held) == 0 {
		p.printf("  which ones is found out by the reconciliation that is under way\n")
	}
	if !yes {
		switch ok, err := p.ask(fmt.Sprintf("Publish these %d deletions?", a.HeldTotal)); {
		case err != nil:
			return err
		case !ok:
			return errors.New("nothing was released")
		}
	}
	if err := r.command(ctx, endpointDeletions, deletionsRequest{Confirm: true}, &a); err != nil {
		return err
	}
	p.printf("%s: %d deletions are released; each is looked for once more and then published\n", r.account, a.Confirmed)
	return nil
}

// How many held deletions are listed, and for how many the name is looked up.
const (
	maxShown = 200
	maxNamed = 50
)

// names looks up, in the bucket, who contacts are. Whoever may not read it gets no names.
func (r *remote) names(ctx context.Context, ids []string) map[string]string {
	names := make(map[string]string)
	js, err := jetstream.New(r.conn.NATS())
	if err != nil {
		return names
	}
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	bucket, err := js.KeyValue(ctx, r.cfg.Bucket)
	if err != nil {
		return names
	}
	for _, id := range ids {
		entry, err := bucket.Get(ctx, r.account+"."+id)
		if err != nil {
			continue
		}
		if e, err := event.Decode(entry.Value()); err == nil {
			names[id] = who(e)
		}
	}
	return names
}

// ask asks a person, who has to be there.
func (p *program) ask(question string) (bool, error) {
	if !isTerminal(p.stdin) {
		return false, &usageError{errors.New("there is nobody to ask: standard input is no terminal; --yes releases them without asking")}
	}
	p.printf("%s [y/N] ", question)
	line, err := bufio.NewReader(p.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// printJSON prints a document.
func (p *program) printJSON(v any) error {
	if err := json.MarshalWrite(p.stdout, v, json.Deterministic(true), jsontext.Multiline(true)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.stdout)
	return err
}
