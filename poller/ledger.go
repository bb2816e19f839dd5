package poller

import (
	"context"
	"errors"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrConflict is wrapped by the error of [Ledger.Append] when somebody else appended to one of the contacts.
// What is remembered is then out of date: it has to be loaded again.
var ErrConflict = errors.New("another writer appended to the contact")

// ErrNotRecorded is wrapped by the error of [Ledger.Last] when the ledger no longer holds the contact's last event.
var ErrNotRecorded = errors.New("the contact's last event is no longer stored")

// Ledger is where changes are published, in order and once each, and the only memory of the account: everything
// known of a contact is what its last event says. An implementation serves one call at a time, but for one exception: [Ledger.Append] and [Ledger.SaveProgress] are called
// while an earlier Append is under way that is about other contacts.
type Ledger interface {
	// Load calls known once for each contact that has an event, also for deleted ones, with the facts of its last
	// event. It is complete when it returns nil: whatever was appended before the call has been told.
	Load(ctx context.Context, known func(Known)) error

	// Append stores one event for each change, all different contacts, and returns their sequences in the same order once all of them are
	// durable. A change whose Previous is not the contact's last event is not stored, unless the event stored in its place is the very
	// same one (an earlier attempt whose acknowledgement was lost), which counts as stored. On an error some of the
	// changes may have been stored: load again before appending more. The error wraps [ErrConflict] when
	// another writer came first.
	Append(ctx context.Context, changes []Change) ([]uint64, error)

	// Last returns the contact document of the contact's last event, which k describes. The error wraps
	// [ErrNotRecorded] when that event is gone.
	Last(ctx context.Context, k Known) (jsontext.Value, error)

	// Reject stores records that cannot be understood, once per distinct record.
	Reject(ctx context.Context, rejected []Rejection) error

	// Receipt stores that the account and the ledger were found to agree.
	Receipt(ctx context.Context, r Receipt) error

	// Progress returns what was saved last, the zero value if nothing ever was. Should it be lost while events are still there, FirstMet is
	// to be no earlier than the first meeting was.
	Progress(ctx context.Context) (Progress, error)

	// SaveProgress replaces the saved progress. It is called only after the acknowledgement of everything it speaks of.
	SaveProgress(ctx context.Context, p Progress) error
}

// Progress is what cannot be derived from the published events.
type Progress struct {
	// FirstMet is the moment, on Nimble's clock, at which the account was first read. What was created later is new.
	FirstMet time.Time `json:"first_met,omitzero"`
	// SnapshotFinished is when the first complete reading of the account ended; zero while it has not.
	SnapshotFinished time.Time `json:"snapshot_finished,omitzero"`
	// Settled is the time, on Nimble's clock, up to which the account is completely read: every change with an
	// `updated` before it has been published. It may lag behind the events, never lead them.
	Settled time.Time `json:"settled,omitzero"`
	// Agreed is when, on Nimble's clock, the last reconciliation found nothing that differs, or published all that did.
	Agreed time.Time `json:"agreed,omitzero"`
	// Swept is how far, by `created`, the slow comparison of everything has come.
	Swept time.Time `json:"swept,omitzero"`
	// Held is the number of deletions that wait for a person, HeldSince when the first of them was found.
	Held      int       `json:"held,omitzero"`
	HeldSince time.Time `json:"held_since,omitzero"`
	// Confirmed is how many deletions a person has said may be published, ConfirmedAt when.
	Confirmed   int       `json:"confirmed,omitzero"`
	ConfirmedAt time.Time `json:"confirmed_at,omitzero"`
	// Resynced is how far, by `created`, a resync of the whole account has come; Resyncing says that one is under way.
	Resyncing bool      `json:"resyncing,omitzero"`
	Resynced  time.Time `json:"resynced,omitzero"`
	// Paused says that a person has paused the polling.
	Paused bool `json:"paused,omitzero"`
}

// Receipt says that the account and the ledger were found to agree.
type Receipt struct {
	// At is when.
	At time.Time
	// Contacts is how many contacts both have.
	Contacts int
	// Differences is how many contacts differed before; their events have been published.
	Differences int
	// Requests is what finding out cost.
	Requests int
	// Method is how it was done.
	Method Method
	// Since is the time of the agreement before; zero for the first one.
	Since time.Time
}

// Rejection is a record in a listing that cannot be understood.
type Rejection struct {
	// ContactID is empty where the record has no usable id.
	ContactID string
	Reason    string
	Record    jsontext.Value
	Observed  time.Time
}
