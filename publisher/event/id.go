package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// ContactEventID returns the id of a contact event: 32 hexadecimal digits that depend on all arguments and on nothing else.
func ContactEventID(account, contactID string, revision uint64, verb Verb, fingerprint string) string {
	var number [20]byte
	return eventID(Source(account), contactID, string(binary.AppendUvarint(number[:0], revision)), string(verb), fingerprint)
}

// RejectedEventID returns the id of the notice of a rejected record: the same for the same record of an account.
func RejectedEventID(account, contactID string, record jsontext.Value) string {
	return eventID(Source(account), RejectedType, contactID, string(record))
}

// ReconciledEventID returns the id of the receipt of an account's reconciliation that ended at the given time.
func ReconciledEventID(account string, at time.Time) string {
	return eventID(Source(account), ReconciledType, at.UTC().Format(time.RFC3339Nano))
}

// eventID hashes the parts, each with its length in front, so that no two lists of parts read alike.
func eventID(parts ...string) string {
	var room [256]byte
	buf := room[:0]
	for _, part := range parts {
		buf = binary.AppendUvarint(buf, uint64(len(part)))
		buf = append(buf, part...)
	}
	sum := sha256.Sum256(buf)
	var text [32]byte
	hex.Encode(text[:], sum[:16])
	return string(text[:])
}
