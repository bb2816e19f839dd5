package poller

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble"
)

// Kind is what happened to a contact. Its text is the verb in event subjects and types.
type Kind string

// The kinds of change.
const (
	// Snapshot says that the contact already existed when the account was first met, or that a fresh picture was asked for.
	Snapshot Kind = "snapshot"
	// Created says that the contact is new.
	Created Kind = "created"
	// Updated says that something significant in the contact changed.
	Updated Kind = "updated"
	// Deleted says that the contact is gone from what the API key's user can see.
	Deleted Kind = "deleted"
)

// FoundBy is how a change came to be seen.
type FoundBy string

// The ways a change is found.
const (
	FoundBySnapshot  FoundBy = "snapshot"
	FoundByPoll      FoundBy = "poll"
	FoundByReconcile FoundBy = "reconcile"
	FoundByResync    FoundBy = "resync"
)

// Reason is why a contact counts as deleted.
type Reason string

// The reasons for a deletion, as the API tells them apart.
const (
	// NotFound: the API has no such contact, or no longer shows it.
	NotFound Reason = "not_found"
	// Forbidden: the API says that the key's user may not see it.
	Forbidden Reason = "forbidden"
)

// Difference is one entry of a contact's changes: the value before and after, as Nimble wrote them.
// A nil side has no value.
type Difference struct {
	Before, After jsontext.Value
}

// Change is one step in a contact's life, ready to be published as one event.
type Change struct {
	Kind Kind
	// Contact is the contact as Nimble returned it; for Deleted, as it was last known.
	Contact nimble.Contact
	// Fingerprint stands for Contact's significant content.
	Fingerprint Fingerprint
	// Revision is the number of this event among the contact's events: 1 for the first.
	Revision uint64
	// Previous is the ledger's sequence of the contact's event before this one; 0 for none. A ledger appends
	// the change only if that is still the contact's last event.
	Previous uint64
	// Observed is the moment of detection, UTC.
	Observed time.Time
	FoundBy  FoundBy
	// Changes has an entry for each significant key that differs; for Updated only, and then never empty.
	// Keys are "fields.<name>" for the contact's field map and the plain key for everything else.
	Changes map[string]Difference
	// Reason is for Deleted only.
	Reason Reason
	// Restored is for Created only: the contact was deleted before, and is back.
	Restored bool
	// MergedInto is for Deleted only, and a hint: contacts that came to hold the deleted one's e-mail address or name about when it vanished, as the survivor
	// of a merge does. Nimble itself says nothing of merges.
	MergedInto []string
	// Erased is for Deleted only: the contact's earlier events are being removed, and Contact has nothing but its id.
	Erased bool
}

// Known is what is remembered of one contact: the facts of its last event.
type Known struct {
	ID          string
	Fingerprint Fingerprint
	Revision    uint64
	// Sequence is the position of the contact's last event in the ledger.
	Sequence uint64
	// Created and Updated are the contact's own times, UTC, zero where unknown.
	Created, Updated time.Time
	// Deleted says that the last event is a deletion.
	Deleted bool
}
