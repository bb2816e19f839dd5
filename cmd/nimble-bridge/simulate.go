package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/nimble/nimbletest/admin"
)

// simulation is what the flags of simulate say.
type simulation struct {
	addr     string
	key      string
	contacts int
	seed     uint64
	edits    float64
	imports  int
	lag      time.Duration
	admin    bool
}

func (p *program) simulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Serve a simulated Nimble API, for developing without an account",
		Long: `simulate serves an invented Nimble account over HTTP, in the way the bridge and other
clients of the API see a real one. It runs until it is interrupted and keeps nothing.

The account is changed in a browser, at the address that it prints, or from a shell and from
tests in any language, by JSON below /admin/, which needs no key:

    A=http://127.0.0.1:8090/admin
    curl --json '{"fields": {"first name": "Ada", "email": "ada@engine.example"}, "tags": ["new"]}' $A/contacts
    curl --json '{"search": "ada", "fields": {"title": "CEO"}}' $A/edit      # "silent": true leaves updated alone
    curl --json '{"search": "ada", "tags": ["VIP"]}' $A/tag                  # and untag, star, touch
    curl --json '{"count": 3}' $A/delete                                     # and restore
    curl --json '{"share": "50%", "by_id": "404"}' $A/vanish                 # and hide
    curl --json '{"all": true}' $A/restore
    curl --json '{"survivor": "6a92…", "loser": "6af6…"}' $A/merge
    curl --json '{"count": 10000}' $A/import                                 # all in the same second
    curl -X PATCH --json '{"index_lag": "5s", "total_error": "10%", "updated_sort": "refused"}' $A/behaviour
    curl --json '{"endpoint": "contacts", "status": 429, "retry_after": "2", "times": 3}' $A/faults
    curl "$A/contacts?search=ada&standing=any"                               # and contacts/ID, status, requests, journal

Which contacts an action is for says one of "id", "ids", "count", "share", "tagged", "search" and
"all": true. "go doc nimble-bridge/nimble/nimbletest/admin" has everything.

Whoever reaches the address can do all this: it listens on this machine only unless --addr says
otherwise. Pages of other sites are refused.`,
		Example: `  nimble-bridge simulate --contacts 500 --edits 0.5
  nimble-bridge simulate --addr 127.0.0.1:0 --import 10000 --lag 3s`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return &usageError{err}
			}
			return p.simulate(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.addr, "addr", "127.0.0.1:8090", "where to listen; port 0 takes a free one")
	flags.StringVar(&s.key, "key", "test-key", "the API key that is accepted")
	flags.IntVar(&s.contacts, "contacts", 1000, "contacts that exist at the start")
	flags.Uint64Var(&s.seed, "seed", 1, "what to invent: the same seed, the same account")
	flags.Float64Var(&s.edits, "edits", 0, "random edits and additions a second while it runs")
	flags.IntVar(&s.imports, "import", 0, "contacts imported in one second, shortly after the first request")
	flags.DurationVar(&s.lag, "lag", 0, "how long a change stays invisible in listings")
	flags.BoolVar(&s.admin, "admin", true, "serve the page and the endpoints below /admin/, which change the account and need no key")
	return cmd
}

// maxSimulated is the number of contacts that the simulator can invent.
const maxSimulated = 16_000_000

func (s simulation) check() error {
	switch {
	case !isAddress(s.addr):
		return fmt.Errorf("--addr is %q, want host:port such as 127.0.0.1:8090", s.addr)
	case s.key == "":
		return errors.New("--key is empty, want the API key to accept")
	case s.contacts < 0 || s.contacts > maxSimulated:
		return fmt.Errorf("--contacts is %d, want 0 to %d", s.contacts, maxSimulated)
	case s.imports < 0 || s.imports > maxSimulated:
		return fmt.Errorf("--import is %d, want 0 to %d", s.imports, maxSimulated)
	case !(s.edits >= 0 && s.edits <= 10_000):
		return fmt.Errorf("--edits is %v, want 0 to 10000 a second", s.edits)
	case s.lag < 0:
		return fmt.Errorf("--lag is %s, want 0 or more", s.lag)
	}
	return nil
}

// simulate serves the account until ctx ends.
func (p *program) simulate(ctx context.Context, s simulation) error {
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return &hintedError{fmt.Errorf("simulated account: %w", err), "choose another address with --addr, or port 0 for a free one"}
	}
	account := nimbletest.New(nimbletest.WithKey(s.key), nimbletest.WithSeed(s.seed), nimbletest.WithContacts(s.contacts))
	account.SetBehaviour(func(b *nimbletest.Behaviour) { b.IndexLag = s.lag })

	log := newLogger(p.stderr, "auto", logLevel(zap.InfoLevel))
	ctx, stop := context.WithCancel(ctx)
	var busy sync.WaitGroup
	defer busy.Wait()
	defer stop()
	if s.imports > 0 {
		first := make(chan struct{})
		var once sync.Once
		account.OnRequest(func(int, *http.Request) { once.Do(func() { close(first) }) })
		busy.Go(func() {
			select {
			case <-ctx.Done():
				return
			case <-first:
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second): // The bridge meets the account first, so that the import is news to it.
				account.Import(s.imports)
				log.Info("contacts imported", zap.Int("contacts", s.imports))
			}
		})
	}
	if s.edits > 0 {
		someone := newEditor(account, s.seed)
		pause := time.Duration(float64(time.Second) / s.edits)
		busy.Go(func() {
			someone.work(ctx, func() time.Duration { return pause }, func(what string) { log.Debug("edit", zap.String("what", what)) })
		})
	}

	p.printf(`A simulated Nimble account with %d contacts answers at http://%s
Point the bridge at it, in another terminal:

    NIMBLE_BASE_URL=http://%[2]s NIMBLE_API_KEY=%s NIMBLE_RATE_LIMIT=1000 nimble-bridge

Or ask it yourself:

    curl -s -H 'Authorization: Bearer %[3]s' 'http://%[2]s/api/v1/contacts?per_page=2&sort=updated:desc'

`, account.Len(), listener.Addr(), s.key)
	if s.admin {
		p.printf(`Change it in a browser at http://%s/admin/ or from a shell (--help has more):

    curl --json '{"fields": {"first name": "Ada"}, "tags": ["new"]}' http://%[1]s/admin/contacts

`, listener.Addr())
	}
	return serve(ctx, listener, s.handler(account))
}

// handler is the account and, below a path that Nimble does not have, what changes it.
func (s simulation) handler(account *nimbletest.Account) http.Handler {
	if !s.admin {
		return account
	}
	beside := admin.New(account)
	// Not a ServeMux, which would tidy the account's paths.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/admin/"):
			beside.ServeHTTP(w, r)
		case path == "/" || path == "/admin": // Who opens the address in a browser means the page.
			http.Redirect(w, r, "/admin/", http.StatusFound)
		default:
			account.ServeHTTP(w, r)
		}
	})
}

// printf writes to standard output for people. A reader who has gone is no fault.
func (p *program) printf(format string, args ...any) { _, _ = fmt.Fprintf(p.stdout, format, args...) }
