package hook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

// ExitRefused is the exit code by which a command says that no further try will help (EX_DATAERR in sysexits.h): the event becomes a dead letter.
const ExitRefused = 65

// Command is a program that is run for each event.
type Command struct {
	// Name and Args are what is run. No shell is involved.
	Name string
	Args []string
	// Env is the environment, to which facts about the event are added.
	Env []string
	// Stdout and Stderr get what the program writes. Nil drops it.
	Stdout, Stderr io.Writer
	// Timeout bounds one run. Defaults to 30 s.
	Timeout time.Duration
}

// killDelay is how long a program that is told to end may take until it is killed.
const killDelay = 5 * time.Second

// Call runs the command. It is a [consumer.Handler].
func (c *Command) Call(ctx context.Context, d *consumer.Delivery) error {
	timeout := cmp.Or(c.Timeout, defaultTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Env = append(slices.Clip(c.Env), Facts(d)...)
	cmd.Stdin = bytes.NewReader(d.Body)
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	err := runGroup(cmd)
	var failed *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: ended after %s without a result: %w", c.Name, timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", c.Name, ctx.Err())
	case errors.As(err, &failed) && failed.ExitCode() == ExitRefused:
		return consumer.Permanent(fmt.Errorf("%s: %w", c.Name, err))
	}
	return fmt.Errorf("%s: %w", c.Name, err)
}

// Facts are what a command is told of an event in its environment:
//
//	NIMBLE_EVENT_ID, NIMBLE_EVENT_TYPE (the verb), NIMBLE_EVENT_TIME, NIMBLE_EVENT_ACCOUNT, NIMBLE_EVENT_SUBJECT, NIMBLE_EVENT_SEQUENCE
//	NIMBLE_CONTACT_ID, NIMBLE_CONTACT_NAME, NIMBLE_RECORD_TYPE, NIMBLE_REVISION
//	NIMBLE_CHANGED   the changed keys as in the header of that name: sorted, comma separated, percent-encoded where needed
//	NIMBLE_ATTEMPT   1 at the first try
//	NIMBLE_REDELIVERED   true if the event may have been handled before
func Facts(d *consumer.Delivery) []string {
	e := d.Event
	keys := make([]string, 0, len(e.Data.Changes))
	for key := range e.Data.Changes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	facts := []string{
		"NIMBLE_EVENT_ID=" + e.ID,
		"NIMBLE_EVENT_TYPE=" + string(e.Verb()),
		"NIMBLE_EVENT_TIME=" + e.Time.UTC().Format(time.RFC3339Nano),
		"NIMBLE_EVENT_ACCOUNT=" + e.Data.Account,
		"NIMBLE_EVENT_SUBJECT=" + d.Subject,
		"NIMBLE_EVENT_SEQUENCE=" + strconv.FormatUint(d.Sequence, 10),
		"NIMBLE_CONTACT_ID=" + e.Subject,
		"NIMBLE_CONTACT_NAME=" + e.Data.Summary.Name,
		"NIMBLE_RECORD_TYPE=" + e.Data.RecordType,
		"NIMBLE_REVISION=" + strconv.FormatUint(e.Data.Revision, 10),
		"NIMBLE_CHANGED=" + event.FormatChanged(keys),
		"NIMBLE_ATTEMPT=" + strconv.Itoa(d.Try),
		"NIMBLE_REDELIVERED=" + strconv.FormatBool(d.Redelivered()),
	}
	for i, fact := range facts {
		facts[i] = strings.ReplaceAll(fact, "\x00", "") // No environment can have it.
	}
	return facts
}
