package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/dirlock"
	"nimble-bridge/publisher/embedded"
)

func (p *program) checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check everything that the bridge needs, before it runs or while it does",
		Long: `check looks at all that the bridge needs and prints one line for each: ✓ where it is as it should be,
! where the bridge can work with it but somebody should know, ✗ with the reason and what to do, and – for what
could not be looked at and why. It changes nothing: not in Nimble, not in NATS, not on the disk; and it can run
beside the bridge.`,
		Example: `  nimble-bridge check
  nimble-bridge check --json | jq '.checks[] | select(.status == "fail")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.check(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// checkStatus is what became of one check.
type checkStatus string

const (
	passed  checkStatus = "pass"
	warned  checkStatus = "warning"
	failed  checkStatus = "fail"
	skipped checkStatus = "skipped"
)

// checked is the outcome of one check.
type checked struct {
	Check  string      `json:"check"`
	Status checkStatus `json:"status"`
	// Detail is what was found, or the reason for a failure; Fix is what to do about it.
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitzero"`
}

// checkup is one run of the command.
type checkup struct {
	cfg  *config
	done []checked
	// tell is called with each outcome as it is known.
	tell func(checked)
	// http asks other programs on this machine; its owner closes its connections.
	http *http.Client
}

func (c *checkup) note(check string, status checkStatus, detail, fix string) {
	outcome := checked{check, status, detail, fix}
	c.done = append(c.done, outcome)
	c.tell(outcome)
}

func (c *checkup) pass(check, format string, args ...any) {
	c.note(check, passed, fmt.Sprintf(format, args...), "")
}

func (c *checkup) warn(check, fix, format string, args ...any) {
	c.note(check, warned, fmt.Sprintf(format, args...), fix)
}

// fail notes an error; the errors of package publisher say what to do after the last semicolon.
func (c *checkup) fail(check string, err error, fix string) {
	text := err.Error()
	if at := strings.LastIndex(text, "; "); at >= 0 && fix == "" {
		text, fix = text[:at], text[at+2:]
	}
	c.note(check, failed, text, fix)
}

func (c *checkup) skip(why string, checks ...string) {
	for _, check := range checks {
		c.note(check, skipped, why, "")
	}
}

// check is the command check.
func (p *program) check(ctx context.Context, asJSON bool) error {
	c := &checkup{tell: func(checked) {}, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	if !asJSON {
		paint := view{color: wantsColor(p.stdout)}.paint
		c.tell = func(o checked) { p.printf("%s\n", o.line(paint)) }
	}
	misconfigured := c.run(ctx)
	if ctx.Err() != nil {
		return &hintedError{errors.New("interrupted before everything was checked"), ""}
	}
	var bad []string
	for _, o := range c.done {
		if o.Status == failed && !slices.Contains(bad, o.Check) {
			bad = append(bad, o.Check)
		}
	}
	if asJSON {
		document := struct {
			Passed bool      `json:"passed"`
			Checks []checked `json:"checks"`
		}{len(bad) == 0, c.done}
		if err := json.MarshalWrite(p.stdout, document, jsontext.Multiline(true)); err != nil {
			return err
		}
		p.printf("\n")
	}
	if len(bad) == 0 {
		return nil
	}
	text := "not ready to run: " + strings.Join(bad, ", ")
	if len(misconfigured) > 0 {
		return configError{{text: text + " (" + strings.Join(misconfigured, ", ") + ")"}}
	}
	return errors.New(text)
}

// line is an outcome as a person reads it.
func (o checked) line(paint func(color, text string) string) string {
	mark := map[checkStatus]string{passed: paint(green, "✓"), warned: paint(yellow, "!"), failed: paint(red, "✗"), skipped: paint(dim, "–")}[o.Status]
	text := fmt.Sprintf("%s %s %s", mark, paint(bold, fmt.Sprintf("%-13s", o.Check)), o.Detail)
	if o.Fix != "" {
		text += paint(dim, " → ") + o.Fix
	}
	return text
}

// The checks, by name.
const (
	checkConfig      = "configuration"
	checkKey         = "API key"
	checkAccount     = "account"
	checkContacts    = "contacts"
	checkRanges      = "ranges"
	checkSorting     = "sorting"
	checkTimes       = "timestamps"
	checkCounts      = "counts"
	checkClock       = "clock"
	checkDirectory   = "directory"
	checkAddress     = "address"
	checkServer      = "NATS server"
	checkJetStream   = "JetStream"
	checkPermissions = "permissions"
	checkStream      = "event stream"
	checkBucket      = "bucket"
	checkState       = "state bucket"
	checkBridge      = "bridge"
	checkHTTP        = "HTTP"
)

// run makes all checks, one after the other, and returns the names of the variables that are wrong. What depends on something that failed is skipped, and everything
// else goes on.
func (c *checkup) run(ctx context.Context) (misconfigured []string) {
	cfg, found := inspectConfig()
	c.cfg = cfg
	for _, f := range found {
		misconfigured = append(misconfigured, f.name)
		c.note(checkConfig, failed, f.text, f.hint)
	}
	wrong := func(prefixes ...string) bool {
		return slices.ContainsFunc(misconfigured, func(name string) bool {
			return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		})
	}
	if len(found) == 0 {
		c.pass(checkConfig, "%s", cfg.summary())
	}
	meant := misspelt(os.Environ())
	for _, name := range slices.Sorted(maps.Keys(meant)) {
		fix := ""
		if meant[name] != "" {
			fix = "did you mean " + meant[name] + "?"
		}
		c.warn(checkConfig, fix, "%s looks like a variable of the bridge and is none", name)
	}
	if !wrong("NIMBLE_BASE_URL") && cfg.plainHTTP() {
		c.warn(checkConfig, "use https", "NIMBLE_BASE_URL is %s: the API key travels unencrypted", redactURLs(cfg.BaseURL))
	}

	account := cfg.Account
	if wrong("NIMBLE_") {
		c.skip("the configuration is wrong", checkKey, checkAccount, checkContacts)
	} else {
		account = c.nimble(ctx)
	}
	switch {
	case wrong("NATS_", "EMBEDDED_"):
		c.skip("the configuration is wrong", checkServer)
	case len(cfg.NATSURL) == 0:
		c.embedded(ctx, account)
	default:
		c.natsServer(ctx, account)
	}
	if !wrong("HTTP_ADDR") && cfg.HTTPAddr != "" {
		c.httpAddress(ctx)
	}
	return misconfigured
}

// summary says in one line what the configuration comes to, without anything secret.
func (c *config) summary() string {
	nats := "embedded NATS server at " + c.EmbeddedAddr + " in " + c.EmbeddedDir
	if len(c.NATSURL) > 0 {
		nats = "NATS at " + redactURLs(strings.Join(c.NATSURL, ","))
	}
	return fmt.Sprintf("Nimble at %s, %s, a poll every %s", redactURLs(c.BaseURL), nats, c.Interval)
}

// checkRetry is less patient than the bridge is: a person waits.
var checkRetry = nimble.RetryPolicy{Initial: 200 * time.Millisecond, Max: time.Second, MaxElapsed: 4 * time.Second}

// nimble checks the API and returns the account's token, if it is known.
func (c *checkup) nimble(ctx context.Context) (account string) {
	account = c.cfg.Account
	client, err := nimble.NewClient(c.cfg.BaseURL, "", nimble.WithKeySource(c.cfg.key), nimble.WithRateLimit(c.cfg.RateLimit),
		nimble.WithTimeout(c.cfg.Timeout), nimble.WithRetry(checkRetry), nimble.WithUserAgent("nimble-bridge/"+thisBuild().Version))
	if err != nil {
		c.fail(checkKey, err, "")
		return account
	}
	defer client.CloseIdleConnections()

	me, err := client.Myself(ctx)
	if err != nil {
		c.fail(checkKey, err, fixOfNimble(err))
		if account == "" {
			c.skip("Nimble did not tell", checkAccount)
		}
		if is[*nimble.CredentialsError](err) || is[*nimble.TransportError](err) {
			c.skip("Nimble cannot be asked", checkContacts)
			return account
		}
	} else {
		c.pass(checkKey, "accepted; it acts as %s, and sees what that user sees", keyUser(me))
	}
	switch {
	case account != "":
		c.pass(checkAccount, "%s, as NIMBLE_ACCOUNT says", account)
	case err != nil:
	case !word.MatchString(me.CompanyID):
		c.fail(checkAccount, fmt.Errorf("Nimble gives the account the company_id %q, which cannot stand in a subject", me.CompanyID), "set NIMBLE_ACCOUNT to a name of letters, digits, - and _") //nolint:staticcheck // A name begins the message.
	default:
		account = me.CompanyID
		c.pass(checkAccount, "%s, which is the key's company_id", account)
	}
	found, err := poller.Probe(ctx, client, poller.Config{PerPage: c.cfg.PerPage})
	if err != nil {
		c.fail(checkContacts, err, fixOfNimble(err))
		return account
	}
	c.answers(found)
	return account
}

// keyUser names the user whom a key belongs to.
func keyUser(me nimble.Myself) string {
	name := strings.TrimSpace(printable(me.Name))
	if me.Email != "" {
		name = strings.TrimSpace(name + " <" + printable(me.Email) + ">")
	}
	if name == "" {
		return "user " + me.UserID
	}
	return name
}

// fixOfNimble says what to do about a failure of the API.
func fixOfNimble(err error) string {
	switch r, _ := reasonOfNimble(err); r {
	case keyRefused:
		return `give a valid key (README, "Getting an API key")`
	case nimbleUnreachable:
		return "look at NIMBLE_BASE_URL, the network and NIMBLE_TIMEOUT"
	case nimbleThrottles:
		return "lower NIMBLE_RATE_LIMIT, or wait"
	}
	return "wait until Nimble works again; look at NIMBLE_BASE_URL if it goes on"
}

// answers notes what the probe has found.
func (c *checkup) answers(found poller.Probed) {
	requests := math.Ceil(float64(found.Contacts) / float64(c.cfg.PerPage))
	takes := time.Duration(requests / c.cfg.RateLimit * float64(time.Second)).Round(time.Second)
	atLeast := ""
	if found.Counts == poller.CountsCapped {
		atLeast = "at least "
	}
	c.pass(checkContacts, "%s%d; a first snapshot takes %.0f requests, %sabout %s at NIMBLE_RATE_LIMIT=%v", atLeast, found.Contacts, requests, atLeast, max(takes, time.Second), c.cfg.RateLimit)
	if found.Malformed > 0 {
		c.warn(checkContacts, "look at the events on "+c.cfg.Prefix+".*.bridge.rejected once the bridge runs", "%d records of the first page cannot be understood", found.Malformed)
	}

	f := found.Findings
	const unproven = "too few contacts of different times to tell"
	switch {
	case f.Strategy == poller.FullCompare:
		c.warn(checkRanges, "", "not obeyed: each poll reads the whole account, %.0f requests", requests)
	case f.Strategy == poller.CreatedWalk:
		c.warn(checkRanges, "", "of updated are not obeyed: each poll reads the whole account by created, %.0f requests", requests)
	case f.Relative:
		c.warn(checkRanges, "", "only relative ones (in_the_last) are accepted")
	case !found.RangeProven:
		c.pass(checkRanges, "accepted as %s; %s whether they are obeyed", f.Form, unproven)
	default:
		c.pass(checkRanges, "obeyed, written as %s", f.Form)
	}
	switch {
	case f.Strategy == poller.FullCompare:
		c.skip("nothing is read in an order", checkSorting)
	case f.Strategy == poller.WindowRead:
		c.warn(checkSorting, "", "by updated is not obeyed: what changed is read whole and put in order here")
	case !found.SortProven:
		c.pass(checkSorting, "accepted; %s whether it is obeyed", unproven)
	default:
		c.pass(checkSorting, "obeyed in both directions")
	}
	switch {
	case !found.OffsetKnown:
		c.pass(checkTimes, "taken for UTC; too few contacts to tell")
	case found.Offset != 0:
		c.warn(checkTimes, "", "%s away from UTC, as the ids show; they are corrected", found.Offset)
	default:
		c.pass(checkTimes, "in UTC, as the ids show")
	}
	switch found.Counts {
	case poller.CountsExact:
		c.pass(checkCounts, "exact: the parts of the account add up")
	case poller.CountsCapped:
		c.warn(checkCounts, "", "capped at %d: the parts of the account add up to more; larger numbers are counted in parts", found.Contacts)
	case poller.CountsOff:
		c.warn(checkCounts, "", "not reliable: the parts of the account do not add up; reconciliations list the account instead")
	default:
		c.pass(checkCounts, "nothing to compare")
	}
	const believed = 10 * time.Minute
	switch {
	case !found.Dated:
		c.warn(checkClock, "", "Nimble's answers have no Date; times are taken from the contacts")
	case found.Skew.Abs() > believed:
		c.fail(checkClock, fmt.Errorf("the local clock and Nimble's are %s apart, too much to go by Nimble's", found.Skew.Abs().Round(time.Second)), "set the clock of this machine, by NTP for instance")
	case found.Skew.Abs() > 5*time.Second:
		c.warn(checkClock, "set the clock of this machine, by NTP for instance", "the local clock and Nimble's are %s apart; Nimble's counts", found.Skew.Abs().Round(time.Second))
	default:
		c.pass(checkClock, "within %s of Nimble's", max(found.Skew.Abs().Round(time.Second), time.Second))
	}
}

// embedded checks what the embedded server needs, or, when a bridge runs with it, that server.
func (c *checkup) embedded(ctx context.Context, account string) {
	o := embedded.Inspect(embedded.Options{Dir: c.cfg.EmbeddedDir, Addr: c.cfg.EmbeddedAddr})
	taken := errors.Is(o.Dir, dirlock.ErrTaken)
	if taken && o.Addr != nil {
		c.pass(checkDirectory, "%s, in use by the server of a running bridge", c.cfg.EmbeddedDir)
		c.pass(checkAddress, "%s, in use", c.cfg.EmbeddedAddr)
		c.natsServer(ctx, account)
		return
	}
	switch {
	case o.Dir != nil:
		c.fail(checkDirectory, o.Dir, "")
	case o.Free > 0 && o.Free < lowSpace:
		c.fail(checkDirectory, fmt.Errorf("%s has %s left on its disk", c.cfg.EmbeddedDir, bytesText(uint64(o.Free))), "make room, or set EMBEDDED_NATS_DIR to another disk")
	case o.Stored:
		c.pass(checkDirectory, "%s, with streams from an earlier run and %s free", c.cfg.EmbeddedDir, bytesText(uint64(o.Free)))
	default:
		c.pass(checkDirectory, "%s can be made and written to, with %s free", c.cfg.EmbeddedDir, bytesText(uint64(o.Free)))
	}
	if o.Addr != nil {
		c.fail(checkAddress, o.Addr, "")
	} else {
		c.pass(checkAddress, "%s is free", c.cfg.EmbeddedAddr)
	}
	c.skip("it starts with the bridge, which makes the streams then", checkServer)
}

// lowSpace is so little room on a disk that the bridge would not run for long.
const lowSpace = 100 << 20

// natsServer checks the server, what the user may do there, and the streams.
func (c *checkup) natsServer(ctx context.Context, account string) {
	later := []string{checkJetStream, checkPermissions, checkStream, checkBucket, checkState, checkBridge}
	conn, err := c.cfg.dial(ctx, "nimble-bridge check", zap.NewNop())
	if err != nil {
		fix := ""
		if hinted, ok := errors.AsType[*hintedError](err); ok {
			fix = hinted.hint
		}
		c.fail(checkServer, err, fix)
		c.skip("there is no connection", later...)
		return
	}
	defer conn.Close()
	if len(c.cfg.NATSURL) == 0 && conn.NATS().ConnectedServerName() != embedded.ServerName {
		c.fail(checkServer, fmt.Errorf("%s is the address of another NATS server, %s", c.cfg.EmbeddedAddr, conn.NATS().ConnectedServerName()),
			"set EMBEDDED_NATS_ADDR to another address, or NATS_URL to use the server that is there")
		c.skip("it is not the bridge's server", later...)
		return
	}
	token := account
	if token == "" {
		token = "unknown"
	}
	settings := c.cfg.publication(token)
	settings.AckTimeout = checkPatience
	i, err := publisher.Inspect(ctx, conn, settings)
	if err != nil {
		c.fail(checkServer, err, "")
		c.skip("it cannot be looked at", later...)
		return
	}
	jetStream := c.server(ctx, i, conn)
	denied := c.permissions(ctx, i, account)
	switch {
	case !jetStream:
		c.skip("JetStream cannot be asked", checkStream, checkBucket, checkState, checkBridge)
	case denied:
		c.skip("a permission that is needed to look is denied", checkStream, checkBucket, checkState, checkBridge)
	default:
		c.streams(ctx, i)
		c.bridge(ctx, i, account)
	}
}

// checkPatience is how long one answer of NATS is waited for.
const checkPatience = 3 * time.Second

// server checks version and JetStream, and tells whether the latter can be asked.
func (c *checkup) server(ctx context.Context, i *publisher.Inspector, conn *publisher.Connection) bool {
	s, err := i.Server(ctx)
	where := s.URL
	if s.Cluster != "" {
		where += " in cluster " + s.Cluster
	}
	if is[*publisher.ServerTooOldError](err) {
		c.fail(checkServer, err, "")
		c.skip("the server is too old", checkJetStream)
		return false
	}
	trip := "?"
	if rtt, err := conn.NATS().RTT(); err == nil {
		trip = rtt.Round(10 * time.Microsecond).String()
	}
	c.pass(checkServer, "version %s at %s (%s or newer is needed), round trip %s", s.Version, where, publisher.MinimumServer, trip)
	room := bytesText(s.Stored) + " stored"
	if s.Limit >= 0 {
		room += " of " + bytesText(uint64(s.Limit))
	}
	streams := fmt.Sprintf("%d streams", s.Streams)
	if s.MaxStreams >= 0 {
		streams = fmt.Sprintf("%d of %d streams", s.Streams, s.MaxStreams)
	}
	switch {
	case err != nil:
		c.fail(checkJetStream, err, "")
		return false
	case s.Limit >= 0 && s.Stored >= uint64(s.Limit):
		c.fail(checkJetStream, fmt.Errorf("the account's limit is reached: %s", room), "raise the limit, or remove what is stored")
	case s.Limit >= 0 && float64(s.Stored) > 0.9*float64(s.Limit):
		c.warn(checkJetStream, "raise the limit, or remove what is stored", "the account's limit is near: %s", room)
	default:
		c.pass(checkJetStream, "enabled; %s, %s", room, streams)
	}
	return true
}

// permissions tries what the bridge needs, and tells whether something is denied without which looking further makes no sense.
func (c *checkup) permissions(ctx context.Context, i *publisher.Inspector, account string) (blind bool) {
	if account == "" {
		c.skip("the account, which is part of the subjects, is not known", checkPermissions)
		return false
	}
	all, err := i.Permissions(ctx)
	if err != nil {
		c.fail(checkPermissions, err, "")
		return false
	}
	var denied []string
	for _, p := range all {
		if p.Denied {
			denied = append(denied, p.String())
			blind = blind || p.Subscribe || strings.HasPrefix(p.Subject, "$JS.API.STREAM.INFO.") || strings.HasPrefix(p.Subject, "$JS.API.STREAM.MSG.GET.")
		}
	}
	c.commands(ctx, i, account)
	if len(denied) > 0 {
		c.fail(checkPermissions, fmt.Errorf("denied: %s", strings.Join(denied, ", ")), "grant that to the bridge's NATS user")
		return blind
	}
	c.pass(checkPermissions, "all %d that the bridge needs, each tried", len(all))
	return false
}

// commands warns when the commands that steer a running bridge could not reach it.
func (c *checkup) commands(ctx context.Context, i *publisher.Inspector, account string) {
	tried, err := i.Try(ctx, publisher.Permission{Subscribe: true, Subject: endpointSubject(account, "*")}, publisher.Permission{Subscribe: true, Subject: "$SRV.>"})
	if err != nil {
		return // The other permissions have met the same error.
	}
	for _, p := range tried {
		if p.Denied {
			c.warn(checkPermissions, "grant that to the bridge's NATS user", "denied: %s; status, pause and the like will not reach the bridge", p)
		}
	}
}

// streams checks the shape of the streams.
func (c *checkup) streams(ctx context.Context, i *publisher.Inspector) {
	plans, err := i.Streams(ctx)
	names := []string{checkStream, checkBucket, checkState}
	for n, plan := range plans {
		c.stream(names[n], plan)
	}
	if err != nil {
		c.fail(names[len(plans)], err, "")
		c.skip("the one before could not be looked at", names[len(plans)+1:]...)
	}
}

func (c *checkup) stream(check string, plan publisher.Plan) {
	stored := fmt.Sprintf("%d messages, %s", plan.Messages, bytesText(plan.Bytes))
	if plan.MaxBytes > 0 {
		stored += " of " + bytesText(plan.MaxBytes)
	}
	var changes []string
	for _, m := range plan.Changes {
		changes = append(changes, fmt.Sprintf("%s from %s to %s", m.Property, m.Is, m.Needed))
	}
	full := float64(plan.Bytes) / float64(max(plan.MaxBytes, 1))
	const room = "raise NATS_STREAM_MAX_BYTES, or remove old events"
	switch {
	case plan.Refusal != nil:
		c.fail(check, plan.Refusal, "")
	case plan.Missing:
		c.pass(check, "%s does not exist yet; the bridge creates it", plan.Object)
	case plan.MaxBytes > 0 && full > 0.98:
		c.fail(check, fmt.Errorf("%s is full: %s", plan.Object, stored), room)
	case len(changes) > 0:
		c.warn(check, "", "%s fits after what the bridge will change when it starts: %s", plan.Object, strings.Join(changes, ", "))
	case plan.MaxBytes > 0 && full > 0.8:
		c.warn(check, room, "%s is nearly full: %s", plan.Object, stored)
	default:
		c.pass(check, "%s fits; %s", plan.Object, stored)
	}
}

// bridge tells which bridge polls the account, if one does.
func (c *checkup) bridge(ctx context.Context, i *publisher.Inspector, account string) {
	if account == "" {
		return
	}
	leader, err := i.Leader(ctx)
	switch {
	case is[*publisher.MissingError](err):
		c.pass(checkBridge, "none has run for this account yet")
	case err != nil:
		c.fail(checkBridge, err, "")
	case leader == "":
		c.pass(checkBridge, "none is running for this account")
	default:
		text := leader + " polls this account"
		if behind, err := i.BucketBehind(ctx); err == nil && behind > 0 {
			text += fmt.Sprintf("; the bucket is %d events behind the stream", behind)
		}
		c.pass(checkBridge, "%s", text)
	}
}

// httpAddress checks that health and metrics can be served, or are by a bridge.
func (c *checkup) httpAddress(ctx context.Context) {
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", c.cfg.HTTPAddr)
	if err == nil {
		_ = listener.Close()
		c.pass(checkHTTP, "%s is free", c.cfg.HTTPAddr)
		return
	}
	var answer status
	if addr, bad := healthAddr(); bad == nil && c.ask(ctx, "http://"+addr+"/status", &answer) == nil && answer.Build.Version != "" {
		c.pass(checkHTTP, "%s is served by a running bridge, account %s", c.cfg.HTTPAddr, answer.Account)
		return
	}
	c.fail(checkHTTP, fmt.Errorf("%s cannot be listened on: %w", c.cfg.HTTPAddr, errors.Unwrap(err)), "set HTTP_ADDR to another host:port, or to nothing to do without")
}

// ask gets a JSON document from a program on this machine.
func (c *checkup) ask(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.UnmarshalRead(http.MaxBytesReader(nil, resp.Body, 1<<20), into)
}

// bytesText writes a size for people.
func bytesText(n uint64) string {
	const units = "kMGTP"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	size := float64(n)
	for _, unit := range units {
		if size /= 1000; size < 999.5 {
			return fmt.Sprintf("%.3g %cB", size, unit)
		}
	}
	return fmt.Sprintf("%.3g EB", size/1000)
}
