package event

import (
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Verb is what happened to a contact; it stands in subjects, types and the Nimble-Type header.
type Verb string

// The verbs.
const (
	// Snapshot: the contact already existed when the bridge first met the account, or a fresh picture was asked for.
	Snapshot Verb = "snapshot"
	// Created: the contact is new.
	Created Verb = "created"
	// Updated: something in the contact changed.
	Updated Verb = "updated"
	// Deleted: the contact is gone from what the API key's user can see.
	Deleted Verb = "deleted"
)

// Valid tells whether v is one of the four verbs.
func (v Verb) Valid() bool {
	switch v {
	case Snapshot, Created, Updated, Deleted:
		return true
	}
	return false
}

// Type is the CloudEvents type of a contact event with this verb.
func (v Verb) Type() string { return typePrefix + string(v) }

// Types and schemas of the events, and what is the same in all of them.
const (
	// ReconciledType is the type of the receipts for reconciliations without a difference left.
	ReconciledType = "com.nimble.bridge.reconciled"
	// RejectedType is the type of the notices of records that cannot be understood.
	RejectedType = "com.nimble.bridge.rejected"

	// ContactSchema is the dataschema of contact events. Its number rises when a member changes its meaning or goes;
	// members may be added without.
	ContactSchema = "urn:nimble-bridge:contact-event:1"
	// ReconciledSchema is the dataschema of receipts.
	ReconciledSchema = "urn:nimble-bridge:reconciled-event:1"
	// RejectedSchema is the dataschema of notices of rejected records.
	RejectedSchema = "urn:nimble-bridge:rejected-event:1"

	// ContentType is the Content-Type header of every message.
	ContentType = "application/cloudevents+json; charset=utf-8"

	typePrefix   = "com.nimble.contact."
	sourcePrefix = "urn:nimble:"
	specVersion  = "1.0"
)

// Source is the CloudEvents source of an account's events.
func Source(account string) string { return sourcePrefix + account }

// Envelope has the CloudEvents attributes that differ between events.
type Envelope struct {
	// ID identifies the event: together with Source it is unique.
	ID string
	// Source is "urn:nimble:<account>".
	Source string
	// Type is "com.nimble.contact.<verb>" for contact events.
	Type string
	// Subject is the contact's id; empty where an event is about no single contact.
	Subject string
	// Time is, for contact events, the contact's created (of created) or updated (of snapshot and updated), and the moment of detection (of
	// deleted); UTC.
	Time time.Time
}

// Event is a contact event.
type Event struct {
	Envelope
	Data Data
}

// Verb is what happened, from the event's type. It is empty for a type that is no contact event's.
func (e *Event) Verb() Verb {
	v, ok := strings.CutPrefix(e.Type, typePrefix)
	if verb := Verb(v); ok && verb.Valid() {
		return verb
	}
	return ""
}

// Data is the payload of a contact event.
type Data struct {
	Account string
	// RecordType is "person" or "company".
	RecordType string
	// Revision counts the contact's events: 1, 2, 3 … without a gap.
	Revision uint64
	// Observed is when the bridge saw what it reports, UTC.
	Observed time.Time
	// FoundBy is how: "snapshot", "poll", "reconcile" or "resync".
	FoundBy string
	// Reason is for deleted only: "not_found", "forbidden", or "erased" for a person who was erased although Nimble still has the contact.
	Reason string
	// Restored is for created only: the contact was deleted before and is back, so that its revision is not 1.
	Restored bool
	// Erased is for deleted only: the contact's earlier events were removed on request, and this one holds nothing of the person.
	Erased bool
	// MergedIntoCandidates is for deleted only, and a hint: contacts that came to hold the deleted one's e-mail address or name about when it vanished, as the
	// survivor of a merge does.
	MergedIntoCandidates []string
	// Truncated says that the contact did not fit the server's largest message: Contact has only its identifying keys then, and the sides of Changes may be
	// missing.
	Truncated bool
	Summary   Summary
	// Contact is the contact exactly as Nimble returned it; for deleted, as it was last known.
	Contact jsontext.Value
	// Changes is for updated only. Its keys are "fields.<name>" for the contact's field map and the plain key for everything else.
	Changes map[string]Change
}

// Change is one entry of an event's changes: the value before and after, as Nimble wrote them. A side that has no value is nil.
type Change struct {
	Before, After jsontext.Value
}

// Reconciled is the receipt for a reconciliation after which Nimble and the stream agreed.
type Reconciled struct {
	Envelope
	Data ReconciledData
}

// ReconciledData is the payload of a receipt.
type ReconciledData struct {
	// Contacts is the number of contacts that both sides have.
	Contacts int
	// DifferencesFound is how many contacts differed before, and have been published since.
	DifferencesFound int
	// Requests is what the reconciliation cost, in API requests.
	Requests int
	// Method is how it was done, "count" or "list".
	Method string
	// Since is the time of the agreement before this one; zero if there was none.
	Since time.Time
}

// Rejected is the notice of a record that cannot be understood.
type Rejected struct {
	Envelope
	Data RejectedData
}

// RejectedData is the payload of a notice of a rejected record.
type RejectedData struct {
	Reason string
	// ContactID is empty where the record has no usable id.
	ContactID string
	// Record is the record as Nimble sent it if that is JSON, else a JSON string with its text. It is never nil in a published event, except
	// when the record is larger than the server's largest message.
	Record jsontext.Value
}
