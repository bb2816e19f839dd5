package publisher

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// Load tells everything that is known, as [poller.Ledger] demands: what the bucket has, headers only, and what the stream has beyond it.
//
// It also makes good what power loss took: events that the bucket has and the stream has lost are appended again.
func (p *Publisher) Load(ctx context.Context, known func(poller.Known)) error {
	if err := p.loadRejected(ctx); err != nil {
		return err
	}
	reach, err := patiently(ctx, p, func() (extent, error) { return p.extentOf(ctx, p.cfg.Stream) })
	if err != nil {
		return err
	}
	p.first, p.lastSeen, p.loadedTo = reach.First, reach.Last, reach.Last
	newest, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.bucketStream, p.keys()) })
	if err != nil {
		return err
	}
	doubt, err := p.doubtFrom(ctx)
	if err != nil {
		return err
	}
	p.sourcing.believed.CompareAndSwap(0, sourceOf(headerOfStored(newest)))
	agree := differs
	if doubt == 0 {
		if agree, err = p.agree(ctx, reach, sourceOf(headerOfStored(newest)), newest.id()); err != nil {
			return err
		}
	}
	if agree == differs {
		return p.reconcile(ctx, reach, doubt, known)
	}
	return p.loadBoth(ctx, sourceOf(headerOfStored(newest)), known)
}

func headerOfStored(m *stored) nats.Header {
	if m == nil {
		return nil
	}
	return m.Header
}

// keys matches the account's entries in the bucket, events its events in the stream.
func (p *Publisher) keys() string { return p.key("*") }

func (p *Publisher) key(contact string) string {
	return "$KV." + p.cfg.Bucket + "." + p.cfg.Account + "." + contact
}
func (p *Publisher) events() string { return p.cfg.Prefix + "." + p.cfg.Account + ".contact.*.*" }

// agreement is what the stream says of a bucket entry.
type agreement uint8

const (
	// differs: the stream does not reach to where the entry was sourced, or has another event there. It has lost its end, or was made anew.
	differs agreement = iota
	// removed: the event is gone, and the stream goes on behind it. A limit or a person removed it, which says nothing against the entry.
	removed
	// agrees: the stream has the event.
	agrees
)

// agree tells whether the stream still has, at the sequence where a bucket entry was sourced, the event that the entry has.
func (p *Publisher) agree(ctx context.Context, reach extent, sequence uint64, id string) (agreement, error) {
	switch {
	case sequence < reach.First: // Also for no entry at all.
		return removed, nil
	case sequence > reach.Last:
		return differs, nil
	}
	m, err := patiently(ctx, p, func() (*stored, error) { return p.at(ctx, p.cfg.Stream, sequence) })
	switch {
	case err != nil:
		return differs, err
	case m == nil:
		return removed, nil
	case m.id() == id:
		return agrees, nil
	}
	return differs, nil
}

// loadBoth reads the stream from where the bucket ends, and then the bucket. In that order no event falls between the two: what was sourced meanwhile is in both,
// and the later one counts.
func (p *Publisher) loadBoth(ctx context.Context, sourced uint64, known func(poller.Known)) error {
	tail := make(map[string]entry)
	if err := p.scanEvents(ctx, sourced+1, tail); err != nil {
		return err
	}
	var strange []string
	count, before := 0, uint64(0)
	err := p.scan(ctx, p.bucketStream, p.keys(), 1, func(m *nats.Msg, _ uint64) error {
		contact := lastToken(m.Subject)
		e, ok := entryOf(contact, m.Header, sourceOf(m.Header))
		if !ok {
			strange = append(strange, contact)
			return nil
		}
		if e.known.Sequence <= before {
			// NATS sources in order, so the stream's sequences have begun anew in between.
			return p.distrust(ctx, fmt.Errorf("bucket %s was sourced from more than one past of stream %s: %w", p.cfg.Bucket, p.cfg.Stream, poller.ErrConflict))
		}
		before = e.known.Sequence
		if later, ok := tail[contact]; ok {
			if later.known.Sequence >= e.known.Sequence {
				return nil
			}
			// Sourced since, and told here.
			delete(tail, contact)
		}
		count++
		known(e.known)
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range tail {
		known(e.known)
	}
	told, err := p.loadStrange(ctx, strange, tail, known)
	if err != nil {
		return err
	}
	p.log.Debug("known contacts loaded", zap.Int("from_bucket", count), zap.Int("from_stream", len(tail)+told))
	return nil
}

// loadStrange looks up, in the stream, contacts whose bucket entries are no events: somebody else wrote them.
func (p *Publisher) loadStrange(ctx context.Context, contacts []string, tail map[string]entry, known func(poller.Known)) (told int, err error) {
	for _, contact := range contacts {
		if _, ok := tail[contact]; ok || !event.ValidToken(contact) {
			continue
		}
		p.log.Warn("bucket entry is no event; the stream's last one counts", zap.String("bucket", p.cfg.Bucket), zap.String("contact_id", contact))
		filter := event.ContactSubjects(p.cfg.Prefix, p.cfg.Account, contact)
		m, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.cfg.Stream, filter) })
		if err != nil {
			return told, err
		}
		if e, ok := entryOf(contact, headerOfStored(m), m.sequence()); ok {
			told++
			known(e.known)
		}
	}
	return told, nil
}

// scanEvents reads the account's events from a sequence on, and keeps the last one of each contact.
func (p *Publisher) scanEvents(ctx context.Context, from uint64, into map[string]entry) error {
	return p.scan(ctx, p.cfg.Stream, p.events(), from, func(m *nats.Msg, sequence uint64) error {
		contact := lastToken(m.Subject)
		e, ok := entryOf(contact, m.Header, sequence)
		if !ok {
			return fmt.Errorf("stream %s, sequence %d: not an event of the bridge on %s; remove it, so that nothing is built on it", p.cfg.Stream, sequence, m.Subject)
		}
		into[contact] = e
		p.lastSeen = max(p.lastSeen, sequence)
		return nil
	})
}

// entry is what an event's headers say of a contact.
type entry struct {
	known poller.Known
	id    string
}

// entryOf reads an event's headers. It is told a million times at a start, so it reads just what it needs.
func entryOf(contact string, h nats.Header, sequence uint64) (entry, bool) {
	fingerprint, err := poller.ParseFingerprint(headerOf(h, event.HeaderFingerprint))
	if err != nil {
		return entry{}, false
	}
	revision, err := strconv.ParseUint(headerOf(h, event.HeaderRevision), 10, 64)
	if err != nil || sequence == 0 {
		return entry{}, false
	}
	return entry{
		known: poller.Known{
			ID: contact, Fingerprint: fingerprint, Revision: revision, Sequence: sequence,
			Created: headerTime(h, event.HeaderCreated), Updated: headerTime(h, event.HeaderUpdated),
			Deleted: headerOf(h, event.HeaderType) == string(event.Deleted),
		},
		id: headerOf(h, event.HeaderID),
	}, true
}

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// Last returns the contact document of a contact's last event, as [poller.Ledger] demands: from the stream, or from the bucket when a limit has removed
// it there.
func (p *Publisher) Last(ctx context.Context, k poller.Known) (jsontext.Value, error) {
	m, err := patiently(ctx, p, func() (*stored, error) { return p.at(ctx, p.cfg.Stream, k.Sequence) })
	if err != nil {
		return nil, err
	}
	if m != nil {
		if s, err := event.ParseSubject(m.Subject); err == nil && s.Account == p.cfg.Account && s.ContactID == k.ID {
			return contactIn(m, k)
		}
	}
	if m, err = patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.bucketStream, p.key(k.ID)) }); err != nil {
		return nil, err
	}
	e, ok := entryOf(k.ID, headerOfStored(m), sourceOf(headerOfStored(m)))
	if !ok || e.known.Revision != k.Revision || e.known.Fingerprint != k.Fingerprint {
		return nil, fmt.Errorf("contact %s, revision %d at sequence %d: %w", k.ID, k.Revision, k.Sequence, poller.ErrNotRecorded)
	}
	return contactIn(m, k)
}

func contactIn(m *stored, k poller.Known) (jsontext.Value, error) {
	e, err := event.Decode(m.Data)
	if err != nil {
		return nil, fmt.Errorf("contact %s at sequence %d: %w", k.ID, m.Sequence, err)
	}
	return e.Data.Contact, nil
}

// reconcile loads when stream and bucket disagree, or once have: power loss took the end of the stream and left the bucket ahead of it, or the
// stream was made anew. From the first doubtful sequence on, the stream is read itself, whatever the bucket says; what only the bucket has is appended
// again; and NATS is made to source the bucket again from there. The doubtful sequence is remembered until both agree.
func (p *Publisher) reconcile(ctx context.Context, reach extent, doubt uint64, known func(poller.Known)) error {
	entries := make(map[string]entry)
	sourced := uint64(0) // How far NATS has come with sourcing.
	err := p.scan(ctx, p.bucketStream, p.keys(), 1, func(m *nats.Msg, _ uint64) error {
		contact := lastToken(m.Subject)
		if e, ok := entryOf(contact, m.Header, sourceOf(m.Header)); ok {
			entries[contact], sourced = e, e.known.Sequence
		}
		return nil
	})
	if err != nil {
		return err
	}
	from, err := p.firstDoubt(ctx, reach, entries)
	if err != nil {
		return err
	}
	if doubt > 0 {
		from = min(from, doubt)
	}
	if doubt == 0 || from < doubt {
		p.log.Warn("stream and bucket disagree; reading the stream itself, and appending again what it has lost",
			zap.String("bucket", p.cfg.Bucket), zap.Uint64("from_seq", from), zap.Uint64("last_seq", reach.Last))
		if err := p.saveDoubt(ctx, from); err != nil {
			return err
		}
	}
	events := make(map[string]entry)
	if err := p.scanEvents(ctx, from, events); err != nil {
		return err
	}
	if err := p.passOver(ctx, reach, from, entries, events); err != nil {
		return err
	}
	lost, settled, again := compare(from, sourced, entries, events)
	if err := p.appendLost(ctx, lost, entries, events); err != nil {
		return err
	}
	if again > 0 && p.cfg.Manage {
		if err := p.sourceAgain(ctx, again); err != nil {
			return err
		}
	}
	if settled && doubt > 0 {
		p.log.Info("stream and bucket agree again")
		if err := p.saveDoubt(ctx, 0); err != nil {
			return err
		}
	}
	maps.Copy(entries, events)
	for _, e := range entries {
		known(e.known)
	}
	return nil
}

// passOver believes the bucket where a person or a limit has removed a contact's last event from the stream, out of the middle of what is in doubt: to append that again would
// undo it. Such an entry is made the contact's last event, in place of an earlier one that may have stayed.
func (p *Publisher) passOver(ctx context.Context, reach extent, from uint64, entries, events map[string]entry) error {
	for contact, e := range entries {
		if s, ok := events[contact]; e.known.Sequence < from || e.known.Sequence > reach.Last || ok && s.known.Revision >= e.known.Revision {
			continue
		}
		is, err := p.agree(ctx, reach, e.known.Sequence, e.id)
		if err != nil {
			return err
		}
		if is == removed {
			events[contact] = e
		}
	}
	return nil
}

// compare finds the contacts whose events the stream has lost, in the order they had. settled says that bucket and stream agree on everything in doubt; again is
// the first sequence of those that the bucket, sourced up to some other one, will not get by itself, 0 for none.
func compare(from, sourced uint64, entries, events map[string]entry) (lost []string, settled bool, again uint64) {
	settled = true
	for contact, e := range entries {
		s, ok := events[contact]
		switch {
		case e.known.Sequence < from && !ok:
		case !ok, s.known.Revision < e.known.Revision:
			if e.known.Sequence >= from {
				lost = append(lost, contact)
				settled = false
			}
		case s.id != e.id || s.known.Sequence != e.known.Sequence:
			settled = false
		}
	}
	for contact, s := range events {
		if e := entries[contact]; e.id != s.id {
			settled = false
			if s.known.Sequence <= sourced && (again == 0 || s.known.Sequence < again) {
				again = s.known.Sequence
			}
		}
	}
	if len(lost) > 0 {
		again = from
	}
	slices.SortFunc(lost, func(a, b string) int { return cmp.Compare(entries[a].known.Sequence, entries[b].known.Sequence) })
	return lost, settled, again
}

// firstDoubt is the sequence after the last one at which bucket and stream are seen to agree. Sequences are handed out in order and lost events are appended
// again in order, so that agreement at one sequence is agreement at all before it; hence it is enough to go back in growing steps.
func (p *Publisher) firstDoubt(ctx context.Context, reach extent, entries map[string]entry) (uint64, error) {
	sorted := make([]entry, 0, len(entries))
	for _, e := range entries {
		sorted = append(sorted, e)
	}
	slices.SortFunc(sorted, func(a, b entry) int { return cmp.Compare(b.known.Sequence, a.known.Sequence) })
	for i, step := 0, 1; i < len(sorted); i, step = i+step, 2*step {
		e := sorted[i]
		if e.known.Sequence < reach.First {
			break
		}
		agree, err := p.agree(ctx, reach, e.known.Sequence, e.id)
		if err != nil {
			return 0, err
		}
		if agree == agrees {
			return e.known.Sequence + 1, nil
		}
	}
	return reach.First, nil
}

// appendLost appends events again that only the bucket has, with the ids and revisions they had.
func (p *Publisher) appendLost(ctx context.Context, lost []string, entries, events map[string]entry) error {
	for _, contact := range lost {
		m, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.bucketStream, p.key(contact)) })
		if err != nil {
			return err
		}
		if m.id() != entries[contact].id {
			return fmt.Errorf("contact %s: %w: the bucket has changed while it was read", contact, poller.ErrConflict)
		}
		filter := event.ContactSubjects(p.cfg.Prefix, p.cfg.Account, contact)
		before, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.cfg.Stream, filter) })
		if err != nil {
			return err
		}
		o, err := p.again(m, contact, before.sequence())
		if err != nil {
			return err
		}
		if err := p.store(ctx, []*outgoing{o}); err != nil {
			return fmt.Errorf("appending again what the stream has lost: %w", err)
		}
		e := entries[contact]
		e.known.Sequence = o.sequence
		entries[contact], events[contact] = e, e
	}
	if len(lost) > 0 {
		p.log.Warn("events that the stream had lost were appended again from the bucket", zap.Int("events", len(lost)))
	}
	return nil
}

// sourceAgain makes NATS source the bucket again from the given sequence on. It would not do so by itself: it goes on from the sequence it reached, under
// which the stream has other events now. The same source in another spelling is another one to NATS, and begins where it is told.
func (p *Publisher) sourceAgain(ctx context.Context, from uint64) error {
	is, err := p.configOf(ctx, p.bucketObject())
	if err != nil {
		return err
	}
	spelling := 0
	if len(is.Sources) == 1 {
		spelling = p.spellingOf(is.Sources[0]) + 1
	}
	is.Sources, is.Duplicates = []*jetstream.StreamSource{p.source(spelling%spellings, from)}, bucketWindow
	p.log.Warn("the bucket is sourced again", zap.String("bucket", p.cfg.Bucket), zap.Uint64("from_seq", from))
	return p.put(ctx, p.bucketObject(), is, false)
}

// doubtful is what is saved of a disagreement.
type doubtful struct {
	From uint64 `json:"from"`
}

// doubtFrom returns the saved sequence from which on the bucket is not to be believed; 0 for none.
func (p *Publisher) doubtFrom(ctx context.Context) (uint64, error) {
	_, data, err := p.readState(ctx, keyDoubt)
	if err != nil || len(data) == 0 {
		return 0, err
	}
	var d doubtful
	if err := json.Unmarshal(data, &d); err != nil {
		return 0, fmt.Errorf("key %s in bucket %s: %w", p.stateKey(keyDoubt), StateBucket, err)
	}
	return d.From, nil
}

func (p *Publisher) saveDoubt(ctx context.Context, from uint64) error {
	data, err := json.Marshal(doubtful{From: from})
	if err != nil {
		return err
	}
	return p.writeState(ctx, keyDoubt, data, nil)
}
