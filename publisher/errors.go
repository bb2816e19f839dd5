package publisher

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/poller"
)

// UnreachableError says that no NATS server answers.
type UnreachableError struct {
	// URLs are the servers that were tried, without credentials.
	URLs []string
	Err  error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	fix := "check NATS_URL and that the server runs"
	switch {
	case errors.Is(e.Err, nats.ErrAuthorization), errors.Is(e.Err, nats.ErrAuthExpired), errors.Is(e.Err, nats.ErrAuthRevoked):
		fix = "check NATS_CREDS, NATS_NKEY, NATS_USER and NATS_PASSWORD, or NATS_TOKEN"
	case aboutTLS(e.Err):
		fix = "check NATS_TLS_CA, NATS_TLS_CERT and NATS_TLS_KEY, and whether the server speaks TLS"
	}
	return fmt.Sprintf("NATS is not reachable at %s: %v; %s", strings.Join(e.URLs, ", "), e.Err, fix)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// aboutTLS tells whether server and client do not come to terms about encryption, or about each other's certificates.
func aboutTLS(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return true // What crypto/tls makes of the server's word, "certificate required" for instance.
	}
	return errors.Is(err, nats.ErrTLS) || errors.Is(err, nats.ErrSecureConnWanted) || errors.Is(err, nats.ErrSecureConnRequired)
}

// UnansweredError says that there is a connection, and that JetStream does not do what it is asked for or does not say so, which is all that can be seen of a full
// disk from outside.
type UnansweredError struct{ Err error }

// Error implements error.
func (e *UnansweredError) Error() string {
	return fmt.Sprintf("NATS is connected and JetStream does not answer, or does not store: %v; its log tells whether a full disk made it stop, after which there has to be room and the server to be restarted, or whether it has no leader at present", e.Err)
}

// Unwrap returns the cause.
func (e *UnansweredError) Unwrap() error { return e.Err }

// ServerTooOldError says that the server lacks what the bridge's promises rest on.
type ServerTooOldError struct {
	// Version is the server's version as it announces it.
	Version string
}

// Error implements error.
func (e *ServerTooOldError) Error() string {
	return fmt.Sprintf("NATS server %s is too old: atomic batches with message ids need %s; upgrade it, best to a version that is still maintained",
		e.Version, MinimumServer)
}

// NoJetStreamError says that the server or the account has no JetStream.
type NoJetStreamError struct{ Err error }

// Error implements error.
func (e *NoJetStreamError) Error() string {
	return fmt.Sprintf("JetStream is not enabled: %v; start nats-server with -js, or enable JetStream for the account", e.Err)
}

// Unwrap returns the cause.
func (e *NoJetStreamError) Unwrap() error { return e.Err }

// MissingError says that a stream or bucket does not exist.
type MissingError struct {
	// Object is what is missing, for instance "stream NIMBLE".
	Object string
	// Managed says that the bridge creates it.
	Managed bool
}

// Error implements error.
func (e *MissingError) Error() string {
	if e.Managed {
		return e.Object + " does not exist; with NATS_MANAGE=true it is created within seconds, unless another complaint says why not"
	}
	return e.Object + " does not exist; create it, or set NATS_MANAGE=true to have it created"
}

// Misfit is one property of a stream that is not as it has to be.
type Misfit struct {
	Property   string
	Is, Needed string
}

// UnfitError says that a stream or bucket exists, and cannot do what it has to.
type UnfitError struct {
	Object  string
	Misfits []Misfit
	// Fix says what to do about it.
	Fix string
}

// Error implements error.
func (e *UnfitError) Error() string {
	var b strings.Builder
	b.WriteString(e.Object)
	b.WriteString(" does not fit: ")
	for i, m := range e.Misfits {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s is %s, needed is %s", m.Property, m.Is, m.Needed)
	}
	b.WriteString("; ")
	b.WriteString(e.Fix)
	return b.String()
}

// SetupError says that the server refused to create or change a stream or bucket.
type SetupError struct {
	Object string
	Err    error
	// Fix says what to do about it.
	Fix string
}

// Error implements error.
func (e *SetupError) Error() string {
	return fmt.Sprintf("%s cannot be set up: %v; %s", e.Object, e.Err, e.Fix)
}

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

// PermissionError says that the NATS user lacks a permission, which Err names.
type PermissionError struct{ Err error }

// Error implements error.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("NATS denies the bridge's user something it needs: %v; grant it to that user", e.Err)
}

// Unwrap returns the cause.
func (e *PermissionError) Unwrap() error { return e.Err }

// StreamFullError says that the event stream, or what the account or server may store, is at its limit.
type StreamFullError struct {
	Stream string
	Err    error
}

// Error implements error.
func (e *StreamFullError) Error() string {
	return fmt.Sprintf("stream %s is full: %v; raise NATS_STREAM_MAX_BYTES, give the server more room, or remove old events", e.Stream, e.Err)
}

// Unwrap returns the cause.
func (e *StreamFullError) Unwrap() error { return e.Err }

// TooLargeError says that an event does not fit a message, even with the contact reduced to its identifying keys.
type TooLargeError struct {
	ContactID string
	// Size and Limit are in bytes.
	Size, Limit int
	Err         error
}

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("event of contact %s has %d bytes, %d are allowed: raise max_payload of the server or the stream's largest message size",
		e.ContactID, e.Size, e.Limit)
}

// Unwrap returns the cause.
func (e *TooLargeError) Unwrap() error { return e.Err }

// ConflictError says that what the stream has of a contact is not what the change was based on. It wraps [poller.ErrConflict].
type ConflictError struct {
	ContactID string
	// Expected is the sequence of the contact's previous event as the change knew it, Found that of its last event now; 0 is none.
	Expected, Found uint64
	// Reason says what must have happened.
	Reason string
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("contact %s: its last event is at sequence %d, not %d: %s", e.ContactID, e.Found, e.Expected, e.Reason)
}

// Unwrap returns the cause.
func (e *ConflictError) Unwrap() error { return poller.ErrConflict }

// Error codes of the server that nats.go has no names for. They are part of the JetStream API and do not change.
const (
	codeAccountResources     jetstream.ErrorCode = 10002
	codeNotAvailable         jetstream.ErrorCode = 10008
	codeNotLeader            jetstream.ErrorCode = 10009
	codeInsufficientStorage  jetstream.ErrorCode = 10047
	codeInsufficientResource jetstream.ErrorCode = 10023
	codeStoreNotMade         jetstream.ErrorCode = 10049
	codeReplicas             jetstream.ErrorCode = 10074
	codeOverlap              jetstream.ErrorCode = 10065
	codeStoreFailed          jetstream.ErrorCode = 10077
	codeSealed               jetstream.ErrorCode = 10109
	codeAtomicDisabled       jetstream.ErrorCode = 10174
	codeBatchIncomplete      jetstream.ErrorCode = 10176
	codeOffline              jetstream.ErrorCode = 10194
	codeBatchTooLarge        jetstream.ErrorCode = 10199
	codeBatchDuplicate       jetstream.ErrorCode = 10201
)

// apiCode is the code of the server's refusal in err, 0 if it is none.
func apiCode(err error) jetstream.ErrorCode {
	if refused, ok := errors.AsType[*jetstream.APIError](err); ok {
		return refused.ErrorCode
	}
	return 0
}

// full tells a stream at its limit from other failures to store.
func full(err error) bool {
	switch apiCode(err) {
	case codeAccountResources, codeInsufficientStorage, codeInsufficientResource:
		return true
	case codeStoreFailed:
		return strings.Contains(err.Error(), "maximum")
	}
	return false
}

// refusedForOrder tells whether the server refused a message because of what the stream has already, or may be about to have.
func refusedForOrder(err error) bool {
	switch apiCode(err) {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant, codeBatchDuplicate:
		return true
	}
	return false
}
