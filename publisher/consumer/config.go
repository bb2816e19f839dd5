package consumer

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

// Config says which events are handled, and how. Durable is the only field that has to be set.
type Config struct {
	// Durable is the name under which the server remembers how far events have been handled: letters, digits, "-" and "_". Processes with the same name share the work
	// as one consumer, of which one at a time is active.
	Durable string
	// Stream is the event stream. Defaults to "NIMBLE".
	Stream string
	// Prefix is what the subjects of events start with. Defaults to "nimble".
	Prefix string
	// Bucket is the key-value bucket with each contact's latest event, which [Bootstrap] reads. Defaults to "nimble-contacts".
	Bucket string
	// Filter chooses among the contact events. Its zero value takes all of them.
	Filter Filter
	// From says where a durable that does not exist yet begins. Its zero value is [All]. One that exists goes on where it is.
	From From

	// Concurrency is how many events, of different contacts, are handled at the same time. Defaults to 8.
	Concurrency int
	// MaxPending is how many events may be received and not finished, those included that wait for another try or behind one of their contact. When that many wait,
	// so does everything else. It bounds the memory: each is held as a whole. Defaults to 4096.
	MaxPending int
	// MaxTries is how often an event is tried before it becomes a dead letter. Defaults to 10.
	MaxTries int
	// FirstRetry and LongestRetry are the pauses between tries: each is about twice the one before, give or take a half, from the first up to the longest.
	// They default to 1 s and 5 min, so that ten tries take eight or nine minutes.
	FirstRetry, LongestRetry time.Duration
	// AckWait is how long the server waits for a sign of life before it gives an event to somebody else; while an event is held here, the server hears so in time, however
	// long its handler takes. So after a crash it takes up to this long until what was in work is received again. At least a second. Defaults to 30 s.
	AckWait time.Duration
	// Grace is how long handlers may go on when [Run]'s context has ended. After it their context ends too. Defaults to 10 s.
	Grace time.Duration
	// DeadLetters is the stream that takes what is given up, and the first token of its subjects. It is created if it does not exist. Defaults to "nimble-dead".
	DeadLetters string
	// Log gets what happens. It names contacts by id only, but has the text of the handler's errors. Nil drops it.
	Log *zap.Logger
}

// Filter chooses among contact events: those that fit each of the lists. A list without elements fits all.
type Filter struct {
	// Verbs are what happened.
	Verbs []event.Verb
	// Changed are keys of changes: of updated events only those count that changed one of them. A key covers what is below it, "fields" for instance "fields.email". If no Verbs
	// are given it means updated events alone.
	Changed []string
	// Contacts are ids.
	Contacts []string
	// Accounts are account tokens. Where one bridge writes to a stream there is only one.
	Accounts []string
}

// From is where a new durable begins.
type From struct {
	policy   jetstream.DeliverPolicy
	sequence uint64
	time     time.Time
}

// All begins with the first event that the stream has.
func All() From { return From{policy: jetstream.DeliverAllPolicy} }

// Now begins with what is stored after the durable has been created.
func Now() From { return From{policy: jetstream.DeliverNewPolicy} }

// Since begins with the first event that was stored at or after a time.
func Since(t time.Time) From {
	return From{policy: jetstream.DeliverByStartTimePolicy, time: t.UTC()}
}

// Sequence begins at a sequence of the stream, or with the first event after it.
func Sequence(sequence uint64) From {
	return From{policy: jetstream.DeliverByStartSequencePolicy, sequence: max(sequence, 1)}
}

const (
	defaultStream       = "NIMBLE"
	defaultPrefix       = "nimble"
	defaultBucket       = "nimble-contacts"
	defaultDeadLetters  = "nimble-dead"
	defaultConcurrency  = 8
	defaultMaxPending   = 4096
	defaultMaxTries     = 10
	defaultFirstRetry   = time.Second
	defaultLongestRetry = 5 * time.Minute
	defaultAckWait      = 30 * time.Second
	defaultGrace        = 10 * time.Second
	// leastAckWait leaves room for a sign of life every third of it.
	leastAckWait = time.Second
)

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	c.Stream = cmp.Or(c.Stream, defaultStream)
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	c.Bucket = cmp.Or(c.Bucket, defaultBucket)
	c.DeadLetters = cmp.Or(c.DeadLetters, defaultDeadLetters)
	c.Concurrency = cmp.Or(c.Concurrency, defaultConcurrency)
	c.MaxPending = cmp.Or(c.MaxPending, defaultMaxPending)
	c.MaxTries = cmp.Or(c.MaxTries, defaultMaxTries)
	c.FirstRetry = cmp.Or(c.FirstRetry, defaultFirstRetry)
	c.LongestRetry = cmp.Or(c.LongestRetry, max(defaultLongestRetry, c.FirstRetry))
	c.AckWait = cmp.Or(c.AckWait, defaultAckWait)
	c.Grace = cmp.Or(c.Grace, defaultGrace)
	if len(c.Filter.Verbs) == 0 && len(c.Filter.Changed) > 0 {
		c.Filter.Verbs = []event.Verb{event.Updated}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// name is what NATS takes as the name of a stream or a consumer.
var name = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// check reports everything that is wrong at once.
func (c *Config) check() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(name.MatchString(c.Durable), "Durable is %q, want a name of letters, digits, - and _", c.Durable)
	want(name.MatchString(c.Stream), "Stream is %q, want a name of letters, digits, - and _", c.Stream)
	want(name.MatchString(c.Bucket), "Bucket is %q, want a name of letters, digits, - and _", c.Bucket)
	want(name.MatchString(c.DeadLetters), "DeadLetters is %q, want a name of letters, digits, - and _", c.DeadLetters)
	want(event.ValidPrefix(c.Prefix), "Prefix is %q, want tokens of letters, digits, - and _ with dots between", c.Prefix)
	want(c.Stream != c.DeadLetters && strings.SplitN(c.Prefix, ".", 2)[0] != c.DeadLetters,
		"DeadLetters is %q, want another stream than that of the events", c.DeadLetters)
	for _, verb := range c.Filter.Verbs {
		want(verb.Valid(), "Filter.Verbs has %q, want snapshot, created, updated or deleted", string(verb))
	}
	for _, id := range c.Filter.Contacts {
		want(event.ValidToken(id), "Filter.Contacts has %q, want an id of letters, digits, - and _", id)
	}
	for _, account := range c.Filter.Accounts {
		want(event.ValidToken(account), "Filter.Accounts has %q, want letters, digits, - and _", account)
	}
	want(!slices.Contains(c.Filter.Changed, ""), "Filter.Changed has an empty key")
	want(len(c.Filter.Changed) == 0 || slices.Contains(c.Filter.Verbs, event.Updated), "Filter.Changed is set, and Filter.Verbs leaves updated out")
	want(c.Concurrency > 0, "Concurrency is %d, want more than 0", c.Concurrency)
	want(c.MaxPending >= c.Concurrency, "MaxPending is %d, want at least Concurrency, %d", c.MaxPending, c.Concurrency)
	want(c.MaxTries > 0, "MaxTries is %d, want more than 0", c.MaxTries)
	want(c.FirstRetry > 0, "FirstRetry is %s, want more than 0", c.FirstRetry)
	want(c.LongestRetry >= c.FirstRetry, "LongestRetry is %s, want at least FirstRetry, %s", c.LongestRetry, c.FirstRetry)
	want(c.AckWait >= leastAckWait, "AckWait is %s, want at least %s", c.AckWait, leastAckWait)
	want(c.Grace > 0, "Grace is %s, want more than 0", c.Grace)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	return nil
}

// Subjects are those of the events that the filter takes, as far as subjects can tell, for who reads the stream in another way. No two of them overlap. What they cannot
// tell is for [Filter.Wants].
func (c Config) Subjects() []string {
	c = c.withDefaults()
	tokens := func(given []string) []string {
		if len(given) == 0 {
			return []string{"*"}
		}
		return slices.Compact(slices.Sorted(slices.Values(given)))
	}
	verbs := make([]string, len(c.Filter.Verbs))
	for i, verb := range c.Filter.Verbs {
		verbs[i] = string(verb)
	}
	var subjects []string
	for _, account := range tokens(c.Filter.Accounts) {
		for _, verb := range tokens(verbs) {
			for _, contact := range tokens(c.Filter.Contacts) {
				subjects = append(subjects, strings.Join([]string{c.Prefix, account, "contact", verb, contact}, "."))
			}
		}
	}
	return subjects
}

// takes tells whether the server gives events on a subject to the durable.
func (f *Filter) takes(s event.Subject) bool {
	return fits(f.Verbs, s.Verb) && fits(f.Contacts, s.ContactID) && fits(f.Accounts, s.Account)
}

func fits[T comparable](list []T, element T) bool {
	return len(list) == 0 || slices.Contains(list, element)
}

// Wants tells whether an event on one of the filter's subjects is one to handle, by what it changed. That is looked for in the headers, and in the event where they had no room for all.
func (f *Filter) Wants(h map[string][]string, e *event.Event) bool {
	if len(f.Changed) == 0 || e.Verb() != event.Updated {
		return true
	}
	headers, err := event.ParseHeaders(h)
	if err != nil || headers.ChangedCut {
		return e.Changed(f.Changed...) || e.Data.Truncated // A truncated event may have lost its changes; better one too many.
	}
	return headers.Changed(f.Changed...)
}

// newBackOff returns the pauses between the tries of one event.
func (c *Config) newBackOff() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(c.FirstRetry),
		backoff.WithMaxInterval(c.LongestRetry),
		backoff.WithMultiplier(2),
		backoff.WithMaxElapsedTime(0),
	)
}

// Only one of the processes that share a durable gets events. It keeps its place by asking for more, which it does at least every pull.
const group = "one"

func (c *Config) pull() time.Duration      { return max(c.AckWait/6, 500*time.Millisecond) }
func (c *Config) pinnedTTL() time.Duration { return max(3*c.pull(), 3*time.Second) }

// durable is the consumer as it has to be, on top of what it is if it exists.
func (c *Config) durable(is jetstream.ConsumerConfig) jetstream.ConsumerConfig {
	is.Durable, is.Name = c.Durable, c.Durable
	is.AckPolicy = jetstream.AckExplicitPolicy
	is.AckWait = c.AckWait
	is.MaxDeliver = -1
	is.BackOff = nil
	is.MaxAckPending = c.MaxPending
	is.HeadersOnly = false
	is.PriorityPolicy = jetstream.PriorityPolicyPinned
	is.PriorityGroups = []string{group}
	is.PinnedTTL = c.pinnedTTL()
	return is
}

// eventsDurable is the consumer of the event stream.
func (c *Config) eventsDurable(is jetstream.ConsumerConfig, exists bool) jetstream.ConsumerConfig {
	is = c.durable(is)
	is.FilterSubject, is.FilterSubjects = "", c.Subjects()
	if is.Description == "" {
		is.Description = "Contact events of nimble-bridge, in order per contact"
	}
	if !exists {
		is.DeliverPolicy = c.From.policy
		is.OptStartSeq = c.From.sequence
		if !c.From.time.IsZero() {
			is.OptStartTime = &c.From.time
		}
	}
	return is
}
