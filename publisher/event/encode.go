package event

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Append appends the event as JSON to dst. The contact and the sides of changes are copied byte for byte, so they have to be JSON.
func (e *Event) Append(dst []byte) []byte {
	d := &e.Data
	dst = e.Envelope.append(dst, ContactSchema, e.Subject)
	dst = appendString(append(dst, `"account":`...), d.Account)
	dst = appendString(append(dst, `,"record_type":`...), d.RecordType)
	dst = strconv.AppendUint(append(dst, `,"revision":`...), d.Revision, 10)
	dst = appendTime(append(dst, `,"observed":`...), d.Observed)
	dst = appendString(append(dst, `,"found_by":`...), d.FoundBy)
	if d.Reason != "" {
		dst = appendString(append(dst, `,"reason":`...), d.Reason)
	}
	if d.Restored {
		dst = append(dst, `,"restored":true`...)
	}
	if d.Erased {
		dst = append(dst, `,"erased":true`...)
	}
	if len(d.MergedIntoCandidates) > 0 {
		dst = appendStrings(append(dst, `,"merged_into_candidates":`...), d.MergedIntoCandidates)
	}
	if d.Truncated {
		dst = append(dst, `,"truncated":true`...)
	}
	dst = d.Summary.append(append(dst, `,"summary":`...))
	dst = appendRaw(append(dst, `,"contact":`...), d.Contact)
	if len(d.Changes) > 0 {
		dst = appendChanges(append(dst, `,"changes":`...), d.Changes)
	}
	return append(dst, '}', '}')
}

// Encode returns the event as JSON.
func (e *Event) Encode() []byte { return e.Append(make([]byte, 0, e.SizeHint())) }

// SizeHint is about how many bytes the event has as JSON, hardly ever less than that.
func (e *Event) SizeHint() int {
	size := 1024 + len(e.Data.Contact)
	for key, c := range e.Data.Changes {
		size += len(key) + len(c.Before) + len(c.After) + 32
	}
	return size
}

// Encode returns the receipt as JSON.
func (r *Reconciled) Encode() []byte {
	d := &r.Data
	dst := r.Envelope.append(make([]byte, 0, 512), ReconciledSchema, accountOf(r.Source))
	dst = strconv.AppendInt(append(dst, `"contacts":`...), int64(d.Contacts), 10)
	dst = strconv.AppendInt(append(dst, `,"differences_found":`...), int64(d.DifferencesFound), 10)
	dst = strconv.AppendInt(append(dst, `,"requests":`...), int64(d.Requests), 10)
	dst = appendString(append(dst, `,"method":`...), d.Method)
	dst = append(dst, `,"since":`...)
	if d.Since.IsZero() {
		dst = append(dst, "null"...)
	} else {
		dst = appendTime(dst, d.Since)
	}
	return append(dst, '}', '}')
}

// Encode returns the notice as JSON. A record that is no JSON, or not in UTF-8, is written as a string with its text.
func (r *Rejected) Encode() []byte {
	d := &r.Data
	dst := r.Envelope.append(make([]byte, 0, 512+len(d.Record)), RejectedSchema, accountOf(r.Source))
	dst = appendString(append(dst, `"reason":`...), d.Reason)
	if d.ContactID != "" {
		dst = appendString(append(dst, `,"contact_id":`...), d.ContactID)
	}
	dst = append(dst, `,"record":`...)
	switch {
	case d.Record == nil:
		dst = append(dst, "null"...)
	case d.Record.IsValid(jsontext.AllowDuplicateNames(true)) && utf8.Valid(d.Record):
		dst = append(dst, d.Record...)
	default:
		dst = appendString(dst, string(d.Record))
	}
	return append(dst, '}', '}')
}

// append writes everything up to the payload's opening brace. Attributes without a value are left out.
func (e *Envelope) append(dst []byte, schema, partition string) []byte {
	dst = appendString(append(dst, `{"specversion":"`+specVersion+`","id":`...), e.ID)
	dst = appendString(append(dst, `,"source":`...), e.Source)
	dst = appendString(append(dst, `,"type":`...), e.Type)
	if e.Subject != "" {
		dst = appendString(append(dst, `,"subject":`...), e.Subject)
	}
	if !e.Time.IsZero() {
		dst = appendTime(append(dst, `,"time":`...), e.Time)
	}
	dst = append(append(append(dst, `,"datacontenttype":"application/json","dataschema":"`...), schema...), '"')
	if partition != "" {
		dst = appendString(append(dst, `,"partitionkey":`...), partition)
	}
	return append(dst, `,"data":{`...)
}

func (s *Summary) append(dst []byte) []byte {
	dst = appendString(append(dst, `{"name":`...), s.Name)
	dst = appendString(append(dst, `,"company":`...), s.Company)
	dst = appendString(append(dst, `,"title":`...), s.Title)
	dst = appendStrings(append(dst, `,"emails":`...), s.Emails)
	dst = appendStrings(append(dst, `,"phones":`...), s.Phones)
	dst = appendStrings(append(dst, `,"tags":`...), s.Tags)
	return append(dst, '}')
}

func appendChanges(dst []byte, changes map[string]Change) []byte {
	var room [16]string
	keys := room[:0]
	for key := range changes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for i, key := range keys {
		c := changes[key]
		dst = appendString(append(dst, "{,"[min(i, 1)]), key)
		dst = appendRaw(append(dst, `:{"before":`...), c.Before)
		dst = appendRaw(append(dst, `,"after":`...), c.After)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// appendString quotes s. Bytes that are no UTF-8 are replaced, which the error that is dropped here would say.
func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

func appendRaw(dst []byte, v jsontext.Value) []byte {
	if len(v) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, v...)
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}
