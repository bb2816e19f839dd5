package event

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrType is wrapped by the error of a decoding function that was given an event of another type. [TypeOf] tells which one.
var ErrType = errors.New("event of another type")

// Decode reads a contact event from a message's body. The raw values in it alias data.
//
// Members it does not know are passed over, so that a consumer built today reads what a later bridge writes.
func Decode(data []byte) (*Event, error) {
	e := &Event{}
	err := decode(data, &e.Envelope, func(typ string) bool {
		verb, ok := strings.CutPrefix(typ, typePrefix)
		return ok && Verb(verb).Valid()
	}, func(r *reader, name []byte) error { return e.Data.member(r, name) })
	if err != nil {
		return nil, err
	}
	if e.Subject == "" {
		return nil, errors.New("event without a subject")
	}
	return e, nil
}

// DecodeReconciled reads a receipt.
func DecodeReconciled(data []byte) (*Reconciled, error) {
	e := &Reconciled{}
	err := decode(data, &e.Envelope, func(typ string) bool { return typ == ReconciledType }, func(r *reader, name []byte) error {
		d := &e.Data
		switch string(name) {
		case "contacts":
			return r.int(&d.Contacts)
		case "differences_found":
			return r.int(&d.DifferencesFound)
		case "requests":
			return r.int(&d.Requests)
		case "method":
			return r.string(&d.Method)
		case "since":
			return r.time(&d.Since)
		}
		return r.dec.SkipValue()
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// DecodeRejected reads a notice of a rejected record. The record in it aliases data.
func DecodeRejected(data []byte) (*Rejected, error) {
	e := &Rejected{}
	err := decode(data, &e.Envelope, func(typ string) bool { return typ == RejectedType }, func(r *reader, name []byte) (err error) {
		switch string(name) {
		case "reason":
			return r.string(&e.Data.Reason)
		case "contact_id":
			return r.string(&e.Data.ContactID)
		case "record":
			e.Data.Record, err = r.raw()
			return err
		}
		return r.dec.SkipValue()
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// TypeOf returns the type of an event without reading the rest.
func TypeOf(data []byte) (string, error) {
	var e Envelope
	err := decode(data, &e, func(string) bool { return true }, func(r *reader, _ []byte) error { return r.dec.SkipValue() })
	return e.Type, err
}

// decode reads an event's attributes into e and gives each member of the payload to member, which must read it. The type may
// come after the payload, so payloads of a wrong type may be read before that is found out.
func decode(data []byte, e *Envelope, fits func(typ string) bool, member func(r *reader, name []byte) error) error {
	r := newReader(data)
	var version string
	var hasData bool
	err := r.object(func(name []byte) error {
		switch string(name) {
		case "specversion":
			return r.string(&version)
		case "id":
			return r.string(&e.ID)
		case "source":
			return r.string(&e.Source)
		case "type":
			if err := r.string(&e.Type); err != nil {
				return err
			}
			if !fits(e.Type) {
				return fmt.Errorf("%w: %q", ErrType, e.Type)
			}
			return nil
		case "subject":
			return r.string(&e.Subject)
		case "time":
			return r.time(&e.Time)
		case "data":
			hasData = true
			return r.object(func(name []byte) error {
				if err := member(r, name); err != nil {
					return fmt.Errorf("data: %w", err)
				}
				return nil
			})
		}
		return r.dec.SkipValue()
	})
	if err == nil {
		err = r.end()
	}
	switch {
	case err != nil:
		return fmt.Errorf("event: %w", err)
	case version != specVersion:
		return fmt.Errorf("event: specversion %q, not %s", version, specVersion)
	case e.ID == "" || e.Source == "" || e.Type == "":
		return errors.New("event without id, source or type")
	case !hasData:
		return errors.New("event without data")
	}
	return nil
}

// member reads one member of a contact event's payload.
func (d *Data) member(r *reader, name []byte) (err error) {
	switch string(name) {
	case "account":
		return r.string(&d.Account)
	case "record_type":
		return r.string(&d.RecordType)
	case "revision":
		return r.uint(&d.Revision)
	case "observed":
		return r.time(&d.Observed)
	case "found_by":
		return r.string(&d.FoundBy)
	case "reason":
		return r.string(&d.Reason)
	case "restored":
		return r.bool(&d.Restored)
	case "erased":
		return r.bool(&d.Erased)
	case "merged_into_candidates":
		return r.strings(&d.MergedIntoCandidates)
	case "truncated":
		return r.bool(&d.Truncated)
	case "summary":
		return r.objectOrSkip(func(name []byte) error { return d.Summary.member(r, name) })
	case "contact":
		d.Contact, err = r.raw()
		return err
	case "changes":
		return r.objectOrSkip(func(name []byte) error { return d.change(r, string(name)) })
	}
	return r.dec.SkipValue()
}

func (d *Data) change(r *reader, key string) error {
	var c Change
	err := r.object(func(name []byte) (err error) {
		switch string(name) {
		case "before":
			c.Before, err = r.raw()
			return err
		case "after":
			c.After, err = r.raw()
			return err
		}
		return r.dec.SkipValue()
	})
	if err != nil {
		return err
	}
	if d.Changes == nil {
		d.Changes = make(map[string]Change)
	}
	d.Changes[key] = c
	return nil
}

func (s *Summary) member(r *reader, name []byte) error {
	switch string(name) {
	case "name":
		return r.string(&s.Name)
	case "company":
		return r.string(&s.Company)
	case "title":
		return r.string(&s.Title)
	case "emails":
		return r.strings(&s.Emails)
	case "phones":
		return r.strings(&s.Phones)
	case "tags":
		return r.strings(&s.Tags)
	}
	return r.dec.SkipValue()
}

// string, bool, strings, uint, int and time read a value of that kind; null leaves what is there.

func (r *reader) string(into *string) error {
	v, err := r.expect('"')
	if v != nil {
		*into = string(r.unquote(v))
	}
	return err
}

// bool takes everything but true for false.
func (r *reader) bool(into *bool) error {
	*into = r.dec.PeekKind() == 't'
	return r.dec.SkipValue()
}

func (r *reader) strings(into *[]string) error {
	if r.dec.PeekKind() != '[' {
		_, err := r.expect('[')
		return err
	}
	*into = nil
	return r.list(func() error {
		var s string
		err := r.string(&s)
		*into = append(*into, s)
		return err
	})
}

func (r *reader) uint(into *uint64) error {
	v, err := r.expect('0')
	if v == nil {
		return err
	}
	*into, err = strconv.ParseUint(string(v), 10, 64)
	return err
}

func (r *reader) int(into *int) error {
	v, err := r.expect('0')
	if v == nil {
		return err
	}
	*into, err = strconv.Atoi(string(v))
	return err
}

func (r *reader) time(into *time.Time) error {
	v, err := r.expect('"')
	if v == nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, string(r.unquote(v)))
	*into = t.UTC()
	return err
}

// expect reads a value of the given kind and returns it, or nil if it is null.
func (r *reader) expect(kind jsontext.Kind) (jsontext.Value, error) {
	v, err := r.dec.ReadValue()
	switch {
	case err != nil:
		return nil, err
	case v.Kind() == kind:
		return v, nil
	case v.Kind() == 'n':
		return nil, nil
	default:
		return nil, fmt.Errorf("%v instead of %v", v.Kind(), kind)
	}
}

// accountOf is the account in a source.
func accountOf(source string) string { return strings.TrimPrefix(source, sourcePrefix) }
