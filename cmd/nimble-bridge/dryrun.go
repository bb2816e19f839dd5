package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
	"nimble-bridge/publisher/dirlock"
	"nimble-bridge/publisher/embedded"
)

// dryRun is what the flags of run say about running without writing.
type dryRun struct {
	wanted, asJSON, reconcile bool
}

// dryRun reads the account and what is published of it, once, and prints what a bridge would publish now. It writes nothing anywhere.
func (p *program) dryRun(ctx context.Context, cfg *config, d dryRun) error {
	log := newLogger(p.stderr, cfg.LogFormat, max(cfg.LogLevel, logLevel(zap.WarnLevel)))
	client, err := nimble.NewClient(cfg.BaseURL, "", nimble.WithKeySource(cfg.key), nimble.WithRateLimit(cfg.RateLimit),
		nimble.WithTimeout(cfg.Timeout), nimble.WithUserAgent("nimble-bridge/"+thisBuild().Version))
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	account := cfg.Account
	if account == "" {
		me, err := client.Myself(ctx)
		if err != nil {
			return err
		}
		account = me.CompanyID
	}
	reader, closeReader, err := cfg.published(ctx, account, log)
	if err != nil {
		return err
	}
	defer closeReader()

	ledger := &dryLedger{
		reader: reader, account: account, view: view{color: wantsColor(p.stdout), zone: time.Local}, print: p.dryPrinter(d.asJSON),
		kept: make(map[uint64]jsontext.Value), counted: make(map[poller.Kind]int),
	}
	settings := cfg.polling(log)
	if !d.reconcile {
		settings.ReconcileInterval = -1
	}
	poll, err := poller.New(client, ledger, settings)
	if err != nil {
		return err
	}
	err = poll.Poll(ctx)
	if err == nil && d.reconcile {
		_, err = poll.Reconcile(ctx)
	}
	if err != nil {
		return stopped(ctx, err)
	}
	_, _ = fmt.Fprintf(p.stderr, "nimble-bridge: %s would be published; nothing was written\n", ledger.summary())
	if held := poll.Status().Held; held > 0 {
		_, _ = fmt.Fprintf(p.stderr, "nimble-bridge: %d deletions would be held back by DELETE_LIMIT\n", held)
	}
	return nil
}

// dryPrinter returns what writes an event, given as such and as JSON.
func (p *program) dryPrinter(asJSON bool) func(text string, encoded []byte) {
	if asJSON {
		return func(_ string, encoded []byte) { p.printf("%s\n", encoded) }
	}
	return func(text string, _ []byte) { p.printf("%s", text) }
}

// published opens what is published of an account for reading. Where no bridge with its embedded server runs, a copy of the directory is read: the server would write in
// the directory itself. The reader is nil where nothing was ever stored.
func (c *config) published(ctx context.Context, account string, log *zap.Logger) (reader *publisher.Reader, done func(), err error) {
	var conn *publisher.Connection
	done = func() {
		if conn != nil {
			conn.Close()
		}
	}
	o := embedded.Inspect(embedded.Options{Dir: c.EmbeddedDir})
	switch {
	case len(c.NATSURL) > 0 || errors.Is(o.Dir, dirlock.ErrTaken):
		conn, err = c.dial(ctx, "nimble-bridge run --dry-run", log)
	case !o.Stored:
		return nil, done, nil
	default:
		var server *embedded.Server
		if server, done, err = copyOf(c.EmbeddedDir); err != nil {
			return nil, nil, err
		}
		stop := done
		done = func() {
			if conn != nil {
				conn.Close()
			}
			stop()
		}
		conn, err = publisher.Connect(ctx, publisher.ConnectConfig{InProcess: server.InProcess(), Name: "nimble-bridge run --dry-run"}, log)
	}
	if err == nil {
		reader, err = publisher.OpenReader(ctx, conn, c.publication(account), log)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return reader, done, nil
}

// copyOf starts a server on a copy of another's directory, at which nobody else can connect. done removes both.
func copyOf(dir string) (server *embedded.Server, done func(), err error) {
	temp, err := os.MkdirTemp("", "nimble-bridge-dry-run-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() { _ = os.RemoveAll(temp) } // Whoever empties the directory of temporary files finds it else.
	const streams = "jetstream"
	if err := os.CopyFS(filepath.Join(temp, streams), os.DirFS(filepath.Join(dir, streams))); err != nil {
		remove()
		return nil, nil, fmt.Errorf("copy of %s, to read it without changing it: %w", dir, err)
	}
	if taken, err := dirlock.Taken(dir); err != nil || taken {
		remove()
		return nil, nil, &hintedError{fmt.Errorf("a bridge has begun to use %s", dir), "try again: its server is asked then"}
	}
	if server, err = embedded.Start(embedded.Options{Dir: temp}); err != nil {
		remove()
		return nil, nil, err
	}
	return server, func() {
		server.Shutdown()
		remove()
	}, nil
}

// dryLedger reads a real ledger, if there is one, and prints what would be appended to it.
type dryLedger struct {
	reader  *publisher.Reader
	account string
	view    view
	print   func(text string, encoded []byte)

	// mu guards the rest: the poller appends changes while others are being appended.
	mu       sync.Mutex
	counted  map[poller.Kind]int
	rejected int
	// last is the sequence that was given to the last event that was not stored. Real ones are far below.
	last uint64
	// kept are the documents of the events that were not stored, up to some size: a contact may change while the account is read.
	kept     map[uint64]jsontext.Value
	keptSize int
}

var _ poller.Ledger = (*dryLedger)(nil)

const (
	dryFirst = 1 << 62
	maxKept  = 32 << 20
)

// Load implements [poller.Ledger].
func (l *dryLedger) Load(ctx context.Context, known func(poller.Known)) error {
	if l.reader == nil {
		return nil
	}
	return l.reader.Load(ctx, known)
}

// Append implements [poller.Ledger]: it prints.
func (l *dryLedger) Append(_ context.Context, changes []poller.Change) ([]uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sequences := make([]uint64, len(changes))
	for i, c := range changes {
		e, err := publisher.EventOf(l.account, c)
		if err != nil {
			return nil, err
		}
		l.print(l.view.event(e), e.Encode())
		l.counted[c.Kind]++
		l.last++
		sequences[i] = dryFirst + l.last
		if l.keptSize+len(c.Contact.Raw) <= maxKept {
			l.keptSize += len(c.Contact.Raw)
			l.kept[sequences[i]] = c.Contact.Raw
		}
	}
	return sequences, nil
}

// Last implements [poller.Ledger].
func (l *dryLedger) Last(ctx context.Context, k poller.Known) (jsontext.Value, error) {
	if raw, ok := l.kept[k.Sequence]; ok {
		return raw, nil
	}
	if l.reader == nil || k.Sequence > dryFirst {
		return nil, fmt.Errorf("contact %s: %w", k.ID, poller.ErrNotRecorded)
	}
	return l.reader.Last(ctx, k)
}

// Reject implements [poller.Ledger]: it prints.
func (l *dryLedger) Reject(_ context.Context, rejected []poller.Rejection) error {
	for _, r := range rejected {
		e := publisher.NoticeOf(l.account, r)
		l.print(fmt.Sprintf("%s  rejected  %s  %s\n", r.Observed.Local().Format("15:04:05"), printable(r.ContactID), printable(r.Reason)), e.Encode())
		l.rejected++
	}
	return nil
}

// Receipt implements [poller.Ledger].
func (l *dryLedger) Receipt(context.Context, poller.Receipt) error { return nil }

// Progress implements [poller.Ledger].
func (l *dryLedger) Progress(ctx context.Context) (poller.Progress, error) {
	if l.reader == nil {
		return poller.Progress{}, nil
	}
	progress, err := l.reader.Progress(ctx)
	progress.Paused = false // What would be published is asked for, pause or not.
	return progress, err
}

// SaveProgress implements [poller.Ledger].
func (l *dryLedger) SaveProgress(context.Context, poller.Progress) error { return nil }

// summary counts what was printed.
func (l *dryLedger) summary() string {
	total := 0
	var parts []string
	for _, kind := range []poller.Kind{poller.Snapshot, poller.Created, poller.Updated, poller.Deleted} {
		total += l.counted[kind]
		if n := l.counted[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	text := fmt.Sprintf("%d events", total)
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	if l.rejected > 0 {
		text += fmt.Sprintf(" and %d notices of records that cannot be understood", l.rejected)
	}
	return text
}
