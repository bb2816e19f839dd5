// Package streamtest holds an event stream against the account it is of: the delivery promises, checked from outside.
//
// [Read] takes the events from the stream with nothing but nats.go. [CheckHistory] holds them against each other: ids, revisions, order, headers,
// and every change against the two documents it lies between. [CheckLatest] holds each contact's last event against what the account shows, and
// [CheckBucket] the key-value bucket against the stream, and [CheckSchemas] each message against the schemas that consumers have. Each returns everything that is wrong, joined, and nil when nothing is.
package streamtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
	"nimble-bridge/publisher/event/schema/schematest"
)

// Message is one stored event.
type Message struct {
	Sequence uint64
	Subject  event.Subject
	Header   nats.Header
	Data     []byte
	Event    *event.Event
}

// Read returns the contact events of an account in the order of the stream.
func Read(ctx context.Context, js jetstream.JetStream, stream, prefix, account string) ([]Message, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{prefix + "." + account + ".contact.>"}})
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	defer func() { // One that is left alone lives on for minutes, and counts against the server's limits.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = js.DeleteConsumer(ctx, stream, consumer.CachedInfo().Name)
	}()
	var messages []Message
	left := consumer.CachedInfo().NumPending
	for left > 0 {
		batch, err := consumer.Fetch(int(min(left, 500)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", stream, err)
		}
		for msg := range batch.Messages() {
			m, err := parse(msg)
			if err != nil {
				return nil, err
			}
			messages = append(messages, m)
			left--
		}
		if err := errors.Join(batch.Error(), ctx.Err()); err != nil {
			return nil, fmt.Errorf("stream %s: %w", stream, err)
		}
	}
	return messages, nil
}

func parse(msg jetstream.Msg) (Message, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return Message{}, err
	}
	m := Message{Sequence: meta.Sequence.Stream, Header: msg.Headers(), Data: slices.Clone(msg.Data())}
	if m.Subject, err = event.ParseSubject(msg.Subject()); err != nil {
		return Message{}, fmt.Errorf("message %d: %w", m.Sequence, err)
	}
	if m.Event, err = event.Decode(m.Data); err != nil {
		return Message{}, fmt.Errorf("message %d: %w", m.Sequence, err)
	}
	return m, nil
}

// CheckSchemas checks that each message is as the published schemas say, body and headers.
func CheckSchemas(messages []Message) error {
	var wrong []error
	for _, m := range messages {
		if err := errors.Join(schematest.Event(m.Data), schematest.Headers(m.Event.Type, m.Header)); err != nil {
			wrong = append(wrong, fmt.Errorf("message %d, contact %s: %w", m.Sequence, m.Event.Subject, err))
		}
	}
	return errors.Join(wrong...)
}

// Last returns the last message of each contact, by contact id.
func Last(messages []Message) map[string]Message {
	last := make(map[string]Message)
	for _, m := range messages {
		last[m.Event.Subject] = m
	}
	return last
}

// CheckHistory checks that no id stands twice, that each contact's revisions are 1, 2, 3 … in the order of the stream, beginning with
// a snapshot or created event, that headers and subject agree with the body, and that changes say exactly what differs from the event before.
func CheckHistory(messages []Message) error {
	var wrong []error
	last := make(map[string]*event.Event)
	ids := make(map[string]uint64)
	for _, m := range messages {
		complain := func(format string, args ...any) {
			wrong = append(wrong, fmt.Errorf("message %d, contact %s: "+format, append([]any{m.Sequence, m.Event.Subject}, args...)...))
		}
		e, before := m.Event, last[m.Event.Subject]
		if at, twice := ids[e.ID]; twice {
			complain("its id stands at %d already", at)
		}
		ids[e.ID], last[e.Subject] = m.Sequence, e
		checkHeaders(m, complain)
		switch {
		case before == nil:
			if e.Data.Revision != 1 || e.Verb() != event.Snapshot && e.Verb() != event.Created {
				complain("the first event is %s with revision %d", e.Verb(), e.Data.Revision)
			}
		case e.Data.Revision != before.Data.Revision+1:
			complain("revision %d follows %d", e.Data.Revision, before.Data.Revision)
		case e.Verb() == event.Updated:
			checkChanges(e, before, complain)
		}
		if (e.Verb() == event.Updated) != (len(e.Data.Changes) > 0) {
			complain("%s with %d changes", e.Verb(), len(e.Data.Changes))
		}
	}
	return errors.Join(wrong...)
}

func checkHeaders(m Message, complain func(string, ...any)) {
	e := m.Event
	if m.Subject.ContactID != e.Subject || m.Subject.Verb != e.Verb() || m.Subject.Account != e.Data.Account {
		complain("subject %s for an event %s of account %s", m.Subject, e.Type, e.Data.Account)
	}
	for name, want := range map[string]string{
		"Nats-Msg-Id": e.ID, "Nimble-Type": string(e.Verb()), "Nimble-Revision": strconv.FormatUint(e.Data.Revision, 10),
		"Nimble-Changed": event.FormatChanged(slices.Sorted(maps.Keys(e.Data.Changes))),
	} {
		if got := m.Header.Get(name); got != want {
			complain("header %s is %q, want %q", name, got, want)
		}
	}
	if f, err := poller.FingerprintOf(e.Data.Contact); !e.Data.Truncated && (err != nil || m.Header.Get("Nimble-Fingerprint") != f.String()) {
		complain("header Nimble-Fingerprint is %q, the document's %s, %v", m.Header.Get("Nimble-Fingerprint"), f, err)
	}
}

func checkChanges(e, before *event.Event, complain func(string, ...any)) {
	if e.Data.Truncated || before.Data.Truncated {
		return // The documents that the changes lie between are not there.
	}
	want, err := poller.Diff(before.Data.Contact, e.Data.Contact)
	if err != nil {
		complain("%v", err)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		got, ok := e.Data.Changes[key]
		if !ok || !same(got.Before, want[key].Before) || !same(got.After, want[key].After) {
			complain("change of %q is wrong or missing", key)
		}
	}
	if len(want) != len(e.Data.Changes) {
		complain("%d changes, want %d", len(e.Data.Changes), len(want))
	}
}

// same compares two sides of a change; no value is null in an event.
func same(got, want jsontext.Value) bool {
	return string(got) == string(want) || len(want) == 0 && (len(got) == 0 || string(got) == "null")
}

// CheckLatest checks that each contact's last event shows what the account shows. It compares the documents themselves, key by key, and not their fingerprints, so
// that what the fingerprint should overlook is noticed here.
func CheckLatest(messages []Message, contacts map[string]jsontext.Value) error {
	var wrong []error
	last := Last(messages)
	for _, id := range slices.Sorted(maps.Keys(contacts)) {
		m, ok := last[id]
		if !ok {
			wrong = append(wrong, fmt.Errorf("contact %s has no event", id))
			continue
		}
		differs, err := differing(m.Event.Data.Contact, contacts[id])
		if err != nil {
			wrong = append(wrong, fmt.Errorf("contact %s: %w", id, err))
		}
		if len(differs) > 0 {
			wrong = append(wrong, fmt.Errorf("contact %s: the last event, revision %d at %d, shows an older state of %v", id, m.Event.Data.Revision, m.Sequence, differs))
		}
	}
	return errors.Join(wrong...)
}

// people are the keys that people edit, with the members of those that are only partly theirs.
var people = map[string][]string{
	"record_type": nil, "owner_id": nil, "is_important": nil, "stages_info": nil, "fields": nil, "tags": nil, "privacy": nil,
	"notice": {"text", "color"}, "reminder": {"period", "active"},
}

// differing returns the keys of people in which two documents of one simulated account differ. Such an account writes the same content the
// same way each time, so that no normal form is needed.
func differing(a, b jsontext.Value) ([]string, error) {
	var one, two map[string]jsontext.Value
	if err := errors.Join(json.Unmarshal(a, &one), json.Unmarshal(b, &two)); err != nil {
		return nil, err
	}
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(people)) {
		same, err := equal(one[key], two[key], people[key])
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", key, err)
		}
		if !same {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func equal(a, b jsontext.Value, members []string) (bool, error) {
	if members == nil || a.Kind() != '{' || b.Kind() != '{' {
		a, b = a.Clone(), b.Clone()
		if len(a) == 0 || len(b) == 0 {
			return len(a) == len(b), nil
		}
		err := errors.Join(a.Canonicalize(), b.Canonicalize())
		return string(a) == string(b), err
	}
	var one, two map[string]jsontext.Value
	if err := errors.Join(json.Unmarshal(a, &one), json.Unmarshal(b, &two)); err != nil {
		return false, err
	}
	for _, m := range members {
		if same, err := equal(one[m], two[m], nil); !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

// CheckBucket checks that the bucket shows the last event of each contact, byte for byte, and deleted contacts as deleted. NATS fills the bucket; CheckBucket gives it
// until ctx ends.
func CheckBucket(ctx context.Context, js jetstream.JetStream, bucket, account string, messages []Message) error {
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucket, err)
	}
	for id, m := range Last(messages) {
		for {
			shown, err := shows(ctx, kv, account+"."+id, m)
			if shown {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("bucket %s does not show the last event of contact %s, revision %d: %w", bucket, id, m.Event.Data.Revision, errors.Join(err, ctx.Err()))
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// shows tells whether a key shows a message as the contact's last event.
func shows(ctx context.Context, kv jetstream.KeyValue, key string, m Message) (bool, error) {
	if m.Event.Verb() != event.Deleted {
		entry, err := kv.Get(ctx, key)
		return err == nil && string(entry.Value()) == string(m.Data), err
	}
	history, err := kv.History(ctx, key) // Getting it gives a deleted key for one that never was.
	return err == nil && len(history) == 1 && history[0].Operation() == jetstream.KeyValueDelete, err
}
