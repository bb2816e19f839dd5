package publisher

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
	"nimble-bridge/publisher/event"
)

// Erasure is what [Publisher.Erase] did.
type Erasure struct {
	// Sequence is that of the deleted event that is left, Revision its revision.
	Sequence, Revision uint64
	// Removed is how many of the contact's messages were removed from the stream.
	Removed uint64
}

// Reasons of an erasure beside those that the poller knows.
const erasedByRequest = "erased"

// Erase removes a person from NATS, for the right to be forgotten: it appends a deleted event that holds nothing of the contact but its id, and then removes all earlier
// events of the contact, and the notices about its record. The bucket follows by itself, since it keeps each contact's last event only, and Erase waits for that. reason is
// why the contact is gone in Nimble, or empty if it is still there.
//
// It may be called while a bridge runs, whose next event of the contact, if there is one, follows the one left here. Called again, it finishes what an interruption
// left. The error is a [*NothingKnownError] when neither stream nor bucket has anything of the contact. What consumers stored, and what was removed from the stream but is still in the
// server's files until they are compacted, is beyond its reach.
func (p *Publisher) Erase(ctx context.Context, contactID string, reason poller.Reason) (Erasure, error) {
	if !event.ValidToken(contactID) {
		return Erasure{}, &event.SubjectError{Part: "contact id", Text: contactID}
	}
	filter := event.ContactSubjects(p.cfg.Prefix, p.cfg.Account, contactID)
	reach, err := patiently(ctx, p, func() (extent, error) { return p.extentOf(ctx, p.cfg.Stream) })
	if err != nil {
		return Erasure{}, err
	}
	p.first, p.lastSeen = reach.First, max(p.lastSeen, reach.Last)
	last, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.cfg.Stream, filter) })
	if err != nil {
		return Erasure{}, err
	}
	known := last
	if known == nil { // A limit may have removed the events; the bucket keeps the last one.
		if known, err = patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.bucketStream, p.key(contactID)) }); err != nil {
			return Erasure{}, err
		}
	}
	if known == nil {
		return Erasure{}, &NothingKnownError{ContactID: contactID}
	}
	h, err := event.ParseHeaders(known.Header)
	if err != nil {
		return Erasure{}, fmt.Errorf("last event of contact %s: %w", contactID, err)
	}
	result := Erasure{Sequence: last.sequence(), Revision: h.Revision}
	if !erased(known) || last == nil {
		recordType := ""
		if e, err := event.Decode(known.Data); err == nil {
			recordType = e.Data.RecordType
		}
		o, err := p.erasureMessage(contactID, recordType, h.Revision+1, last.sequence(), reason)
		if err != nil {
			return Erasure{}, err
		}
		if err := p.store(ctx, []*outgoing{o}); err != nil {
			return Erasure{}, fmt.Errorf("erasing contact %s: %w", contactID, err)
		}
		result.Sequence, result.Revision = o.sequence, h.Revision+1
	}
	if result.Removed, err = p.purge(ctx, p.cfg.Stream, filter, result.Sequence); err != nil {
		return result, fmt.Errorf("erasing contact %s: its events are still in stream %s, behind the deleted one; erase it again: %w", contactID, p.cfg.Stream, err)
	}
	notices, err := p.purgeNotices(ctx, contactID)
	if err != nil {
		return result, fmt.Errorf("erasing contact %s: notices about its record: %w", contactID, err)
	}
	result.Removed += notices
	if err := p.awaitBucket(ctx, contactID, result.Sequence); err != nil {
		return result, fmt.Errorf("erasing contact %s: the stream has forgotten it, bucket %s not yet: %w", contactID, p.cfg.Bucket, err)
	}
	p.log.Info("contact erased", zap.String("contact_id", contactID), zap.Uint64("removed", result.Removed), zap.Uint64("seq", result.Sequence))
	return result, nil
}

// erased tells whether a message is what an erasure leaves.
func erased(m *stored) bool {
	e, err := event.Decode(m.Data)
	return err == nil && e.Data.Erased
}

// erasureMessage makes the deleted event that an erasure leaves.
func (p *Publisher) erasureMessage(contactID, recordType string, revision, previous uint64, reason poller.Reason) (*outgoing, error) {
	raw, err := json.Marshal(struct {
		ID         string `json:"id"`
		RecordType string `json:"record_type,omitzero"`
	}{contactID, recordType})
	if err != nil {
		return nil, err
	}
	fingerprint, err := poller.FingerprintOf(raw)
	if err != nil {
		return nil, err
	}
	if reason == "" {
		reason = erasedByRequest
	}
	return p.message(&poller.Change{
		Kind: poller.Deleted, Contact: nimble.Contact{ID: contactID, RecordType: recordType, Raw: raw}, Fingerprint: fingerprint, Revision: revision, Previous: previous,
		Observed: time.Now().UTC(), FoundBy: poller.FoundByReconcile, Reason: reason, Erased: true,
	}, &room{})
}

// purge removes the messages before a sequence that a filter matches from a stream.
func (p *Publisher) purge(ctx context.Context, stream, filter string, before uint64) (uint64, error) {
	request, err := json.Marshal(map[string]any{"filter": filter, "seq": before})
	if err != nil {
		return 0, err
	}
	return patiently(ctx, p, func() (uint64, error) {
		var answer struct {
			Error  *apiError `json:"error"`
			Purged uint64    `json:"purged"`
		}
		if err := p.ask(ctx, apiPrefix+"STREAM.PURGE."+stream, request, &answer); err != nil {
			return 0, err
		}
		if answer.Error != nil {
			return 0, p.meaning(answer.Error.asError(), "stream "+stream)
		}
		return answer.Purged, nil
	})
}

// purgeNotices removes the notices of rejected records that name the contact.
func (p *Publisher) purgeNotices(ctx context.Context, contactID string) (removed uint64, err error) {
	subject := event.RejectedSubject(p.cfg.Prefix, p.cfg.Account)
	var sequences []uint64
	if err := p.scan(ctx, p.cfg.Stream, subject, 1, func(_ *nats.Msg, sequence uint64) error {
		sequences = append(sequences, sequence)
		return nil
	}); err != nil {
		return 0, err
	}
	for _, sequence := range sequences {
		m, err := patiently(ctx, p, func() (*stored, error) { return p.at(ctx, p.cfg.Stream, sequence) })
		if err != nil {
			return removed, err
		}
		if m == nil {
			continue
		}
		notice, err := event.DecodeRejected(m.Data)
		if err != nil || notice.Data.ContactID != contactID {
			continue
		}
		if err := p.deleteMessage(ctx, p.cfg.Stream, sequence); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// deleteMessage removes one message from a stream, overwriting it on disk.
func (p *Publisher) deleteMessage(ctx context.Context, stream string, sequence uint64) error {
	request := []byte(`{"seq":` + strconv.FormatUint(sequence, 10) + `}`)
	_, err := patiently(ctx, p, func() (struct{}, error) {
		var answer struct {
			Error *apiError `json:"error"`
		}
		if err := p.ask(ctx, apiPrefix+"STREAM.MSG.DELETE."+stream, request, &answer); err != nil {
			return struct{}{}, err
		}
		if answer.Error != nil {
			return struct{}{}, p.meaning(answer.Error.asError(), "stream "+stream)
		}
		return struct{}{}, nil
	})
	return err
}

// awaitBucket waits until the bucket shows the event at a sequence, or a later one, as the contact's last.
func (p *Publisher) awaitBucket(ctx context.Context, contactID string, sequence uint64) error {
	for pauses := p.newBackOff(ctx); ; {
		m, err := patiently(ctx, p, func() (*stored, error) { return p.last(ctx, p.bucketStream, p.key(contactID)) })
		if err != nil {
			return err
		}
		if m != nil && sourceOf(m.Header) >= sequence {
			return nil
		}
		if err := wait(ctx, pauses, nil); err != nil {
			return err
		}
	}
}

// NothingKnownError says that neither stream nor bucket has anything of a contact.
type NothingKnownError struct{ ContactID string }

// Error implements error.
func (e *NothingKnownError) Error() string {
	return fmt.Sprintf("nothing is stored of contact %s in this account", e.ContactID)
}
