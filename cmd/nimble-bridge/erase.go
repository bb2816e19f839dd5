package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

func (p *program) eraseCommand() *cobra.Command {
	var contact string
	var evenIfPresent bool
	cmd := &cobra.Command{
		Use:   "erase --contact ID",
		Short: "Remove a person from NATS, leaving a deleted event without personal data",
		Long: `erase is for the right to be forgotten. It removes all events of one contact from the stream, and what the bucket
has of it, and leaves one deleted event with nothing but the contact's id, so that consumers learn of it and the
contact's revisions go on. It may run while the bridge does, and finishes what an earlier erase was interrupted in.

The contact has to be gone in Nimble: while it is there, the bridge would publish it again. --even-if-present erases
it all the same.

It cannot reach what consumers have stored. In the server's own files, removed events are overwritten when those are
compacted.`,
		Example: `  nimble-bridge erase --contact 5049fb849b85f669e40000dc`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if contact == "" {
				return &usageError{errors.New("erase needs --contact ID")}
			}
			if !word.MatchString(contact) {
				return &usageError{fmt.Errorf("--contact is %q, want the id of one contact", contact)}
			}
			return p.erase(cmd.Context(), contact, evenIfPresent)
		},
	}
	cmd.Flags().StringVar(&contact, "contact", "", "id of the contact")
	cmd.Flags().BoolVar(&evenIfPresent, "even-if-present", false, "erase it although Nimble still has it")
	return cmd
}

// erase makes sure that Nimble has forgotten a contact, and has NATS forget it.
func (p *program) erase(ctx context.Context, contact string, evenIfPresent bool) error {
	cfg, err := readConfig()
	if err != nil {
		return err
	}
	log := newLogger(p.stderr, cfg.LogFormat, cfg.LogLevel)
	client, err := nimble.NewClient(cfg.BaseURL, "", nimble.WithKeySource(cfg.key), nimble.WithRateLimit(cfg.RateLimit), nimble.WithTimeout(cfg.Timeout),
		nimble.WithUserAgent("nimble-bridge/"+thisBuild().Version))
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
	reason, err := absenceOf(ctx, client, contact)
	switch {
	case err != nil:
		return err
	case reason == "" && !evenIfPresent:
		return &hintedError{
			fmt.Errorf("contact %s is still there in Nimble, from where the bridge would publish it again", contact),
			"delete it in Nimble first, or erase what NATS has so far with --even-if-present",
		}
	}
	conn, err := cfg.dial(ctx, "nimble-bridge erase", log)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := publisher.Open(ctx, conn, cfg.publication(account), log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)))
	if err != nil {
		return err
	}
	erasure, err := stream.Erase(ctx, contact, reason)
	if nothing, ok := errors.AsType[*publisher.NothingKnownError](err); ok {
		return &hintedError{nothing, "the id may be wrong, or the account: this one is " + account}
	}
	if err != nil {
		return err
	}
	p.printf("Contact %s is erased: %d messages removed from stream %s; what is left is its deleted event, revision %d at sequence %d.\n",
		contact, erasure.Removed, cfg.Stream, erasure.Revision, erasure.Sequence)
	return nil
}

// absenceOf returns why Nimble does not give a contact, or nothing if it does.
func absenceOf(ctx context.Context, client *nimble.Client, contact string) (poller.Reason, error) {
	_, err := client.ContactByID(ctx, contact)
	switch {
	case errors.Is(err, nimble.ErrNotFound):
		return poller.NotFound, nil
	case errors.Is(err, nimble.ErrForbidden):
		return poller.Forbidden, nil
	case is[*nimble.RecordError](err):
		return "", nil // A record is there.
	}
	return "", err
}
