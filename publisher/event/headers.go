package event

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The headers of a contact event's message.
const (
	// HeaderID has the event's id, under the name by which JetStream recognises a message sent twice.
	HeaderID = "Nats-Msg-Id"
	// HeaderContentType has [ContentType].
	HeaderContentType = "Content-Type"
	// HeaderType has the verb.
	HeaderType = "Nimble-Type"
	// HeaderChanged has the keys of an updated event's changes, see [FormatChanged].
	HeaderChanged = "Nimble-Changed"
	// HeaderFingerprint has the version and hash of the contact's significant content, "1:<hex>".
	HeaderFingerprint = "Nimble-Fingerprint"
	// HeaderCreated and HeaderUpdated have the contact's own times in RFC 3339, UTC. They are absent where Nimble gives none.
	HeaderCreated = "Nimble-Created"
	HeaderUpdated = "Nimble-Updated"
	// HeaderRevision has the revision.
	HeaderRevision = "Nimble-Revision"
	// HeaderOperation has [OperationDelete] on deleted events, by which the contact's key in the bucket reads as deleted.
	HeaderOperation = "KV-Operation"

	// OperationDelete is the one value of HeaderOperation.
	OperationDelete = "DEL"
)

// Headers is what a contact event's message says in its headers, for who needs no body.
type Headers struct {
	ID          string
	Verb        Verb
	Revision    uint64
	Fingerprint string
	// Created and Updated are the contact's own times, UTC, zero where Nimble gives none.
	Created, Updated time.Time
	// ChangedKeys has the keys of an updated event's changes, sorted. [Headers.Changed] asks for some.
	ChangedKeys []string
	// ChangedCut says that ChangedKeys is not complete, because so many keys would not fit a message's headers.
	ChangedCut bool
}

// maxChanged bounds the length of the Nimble-Changed header: all headers of a message have to fit 64 KiB in NATS.
const maxChanged = 32 << 10

// cut stands for the keys left out of a Nimble-Changed header. No key is written so, see [escaped].
const cut = "*"

// Map returns the headers in the form that NATS messages have them.
func (h Headers) Map() map[string][]string {
	m := make(map[string][]string, 9)
	h.Put(m)
	return m
}

// Put sets the headers in a message's.
func (h Headers) Put(m map[string][]string) {
	// One backing array for all values: every message needs them.
	values := make([]string, 0, 9)
	set := func(name, value string) {
		values = append(values, value)
		m[name] = values[len(values)-1 : len(values) : len(values)]
	}
	set(HeaderID, h.ID)
	set(HeaderContentType, ContentType)
	set(HeaderType, string(h.Verb))
	set(HeaderFingerprint, h.Fingerprint)
	set(HeaderRevision, strconv.FormatUint(h.Revision, 10))
	if !h.Created.IsZero() {
		set(HeaderCreated, h.Created.UTC().Format(time.RFC3339Nano))
	}
	if !h.Updated.IsZero() {
		set(HeaderUpdated, h.Updated.UTC().Format(time.RFC3339Nano))
	}
	if h.Verb == Updated {
		set(HeaderChanged, FormatChanged(h.ChangedKeys))
	}
	if h.Verb == Deleted {
		set(HeaderOperation, OperationDelete)
	}
}

// ParseHeaders reads the headers of a contact event's message. A [nats.Header] is such a map.
//
// [nats.Header]: https://pkg.go.dev/github.com/nats-io/nats.go#Header
func ParseHeaders(m map[string][]string) (Headers, error) {
	get := func(name string) string {
		if v := m[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	h := Headers{ID: get(HeaderID), Verb: Verb(get(HeaderType)), Fingerprint: get(HeaderFingerprint)}
	if h.ID == "" {
		return Headers{}, fmt.Errorf("no %s header", HeaderID)
	}
	if !h.Verb.Valid() {
		return Headers{}, fmt.Errorf("%s header %q is no verb", HeaderType, string(h.Verb))
	}
	var err error
	if h.Revision, err = strconv.ParseUint(get(HeaderRevision), 10, 64); err != nil || h.Revision == 0 {
		return Headers{}, fmt.Errorf("%s header %q is no revision", HeaderRevision, get(HeaderRevision))
	}
	if h.Created, err = parseHeaderTime(HeaderCreated, get(HeaderCreated)); err != nil {
		return Headers{}, err
	}
	if h.Updated, err = parseHeaderTime(HeaderUpdated, get(HeaderUpdated)); err != nil {
		return Headers{}, err
	}
	if changed := get(HeaderChanged); changed != "" {
		if h.ChangedKeys, h.ChangedCut, err = ParseChanged(changed); err != nil {
			return Headers{}, err
		}
	}
	return h, nil
}

func parseHeaderTime(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	t = t.UTC()
	if err != nil || t.Year() < 0 || t.Year() > 9999 { // An offset can take it out of the years that RFC 3339 has.
		return time.Time{}, fmt.Errorf("%s header %q is no RFC 3339 time", name, s)
	}
	return t, nil
}

// FormatChanged writes keys of changes for the Nimble-Changed header: sorted, comma separated. In a key, "%", ",", "*", space, control characters
// and everything outside ASCII are percent-encoded. Keys beyond 32 KiB are left out, and a single "*" stands for them.
func FormatChanged(keys []string) string {
	if !slices.IsSorted(keys) {
		keys = slices.Sorted(slices.Values(keys))
	}
	var b strings.Builder
	for i, key := range keys {
		before := b.Len()
		if i > 0 {
			b.WriteByte(',')
		}
		escape(&b, key)
		if b.Len() > maxChanged {
			kept := b.String()[:before]
			if before > 0 {
				kept += ","
			}
			return kept + cut
		}
	}
	return b.String()
}

const upperhex = "0123456789ABCDEF"

func escape(b *strings.Builder, key string) {
	for i := range len(key) {
		if c := key[i]; escaped(c) {
			b.WriteByte('%')
			b.WriteByte(upperhex[c>>4])
			b.WriteByte(upperhex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
}

func escaped(c byte) bool {
	return c <= ' ' || c >= 0x7f || c == '%' || c == ',' || c == cut[0]
}

// ParseChanged reads what [FormatChanged] wrote. cut says that keys were left out.
func ParseChanged(s string) (keys []string, left bool, err error) {
	if s == "" {
		return nil, false, nil
	}
	for element := range strings.SplitSeq(s, ",") {
		if element == cut {
			left = true
			continue
		}
		key, ok := unescape(element)
		if !ok {
			return nil, false, fmt.Errorf("%s header has a bad percent-encoding in %q", HeaderChanged, element)
		}
		keys = append(keys, key)
	}
	return keys, left, nil
}

func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b = append(b, byte(c))
		i += 2
	}
	return string(b), true
}
