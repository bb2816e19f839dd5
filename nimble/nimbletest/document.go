package nimbletest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// document is the content of a contact that is no longer, or never was, the invented one.
type document struct {
	members []member
	// raw, when set, is what is shown whatever else happens; see Account.PutRaw.
	raw []byte
}

// member is one key of the contact object.
type member struct {
	name string
	// value is the JSON; nil for what the account writes itself: the timestamps as they stand, and the parts
	// that move with the clock.
	value jsontext.Value
}

func (d *document) clone() *document {
	return &document{members: slices.Clone(d.members), raw: d.raw}
}

// get gives a member's JSON, nil when the document does not have it or the account writes it.
func (d *document) get(name string) jsontext.Value {
	for _, m := range d.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// set replaces or adds a member.
func (d *document) set(name string, value jsontext.Value) {
	for i, m := range d.members {
		if m.name == name {
			d.members[i].value = value
			return
		}
	}
	d.members = append(d.members, member{name, value})
}

// manage hands a member, when the document has it, over to the account.
func (d *document) manage(names ...string) {
	for i, m := range d.members {
		if slices.Contains(names, m.name) {
			d.members[i].value = nil
		}
	}
}

func (d *document) remove(name string) {
	d.members = slices.DeleteFunc(d.members, func(m member) bool { return m.name == name })
}

// tags gives the texts of the document's tags, in either of the shapes they come in.
func (d *document) tags() []string { return tagsOf(d.get("tags")) }

func tagsOf(raw jsontext.Value) []string {
	var list []jsontext.Value
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	var tags []string
	for _, item := range list {
		var object struct {
			Tag string `json:"tag"`
		}
		var text string
		if item.Kind() == '"' && json.Unmarshal(item, &text) == nil {
			tags = append(tags, text)
		} else if item.Kind() == '{' && json.Unmarshal(item, &object) == nil {
			tags = append(tags, object.Tag)
		}
	}
	return tags
}

func (d *document) setTags(tags []string) {
	d.set("tags", appendTags(nil, tags, false))
	d.set("tags2", appendTags(nil, tags, true))
}

// fieldMap is a contact's fields in the order of the document.
type fieldMap []field

type field struct {
	name   string
	values []jsontext.Value
}

func (d *document) fields() fieldMap {
	members, err := parseObject(d.get("fields"))
	if err != nil {
		return nil
	}
	fields := make(fieldMap, 0, len(members))
	for _, m := range members {
		var values []jsontext.Value
		if json.Unmarshal(m.value, &values) != nil {
			values = []jsontext.Value{m.value} // An odd document; keep what is there.
		}
		fields = append(fields, field{m.name, values})
	}
	return fields
}

func (d *document) setFields(fields fieldMap) {
	b := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(quote(b, f.name), ':', '[')
		for j, v := range f.values {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(b, v...)
		}
		b = append(b, ']')
	}
	d.set("fields", append(b, '}'))
}

// get gives a field's values.
func (f fieldMap) get(name string) []jsontext.Value {
	for _, e := range f {
		if e.name == name {
			return e.values
		}
	}
	return nil
}

// with gives the map with a field's values replaced, or without the field when there are none.
func (f fieldMap) with(name string, values []jsontext.Value) fieldMap {
	for i := range f {
		if f[i].name == name {
			f[i].values = values
			if len(values) == 0 {
				return slices.Delete(f, i, i+1)
			}
			return f
		}
	}
	if len(values) == 0 {
		return f
	}
	return append(f, field{name, values})
}

// texts gives the values of a field as text.
func (f fieldMap) texts(name string) []string {
	var texts []string
	for _, raw := range f.get(name) {
		if text := valueText(raw); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}

// valueText is the text of one value object; numbers and truth values count by their spelling.
func valueText(raw jsontext.Value) string {
	var object struct {
		Value jsontext.Value `json:"value"`
	}
	if json.Unmarshal(raw, &object) != nil || object.Value.Kind() == 'n' {
		return ""
	}
	var text string
	if json.Unmarshal(object.Value, &text) == nil {
		return text
	}
	return string(object.Value)
}

// parseObject splits a JSON object into its members, in their order.
func parseObject(raw jsontext.Value) ([]member, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	if start, err := dec.ReadToken(); err != nil {
		return nil, err
	} else if start.Kind() != '{' {
		return nil, errors.New("not an object")
	}
	var members []member
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		members = append(members, member{key, value.Clone()})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the object")
	}
	return members, nil
}

// append writes a contact as it is shown.
func (w *view) append(b []byte, r *record, s *state) []byte {
	if s.doc == nil {
		return w.appendInvented(b, r, s)
	}
	if s.doc.raw != nil {
		return append(b, s.doc.raw...)
	}
	b = append(b, '{')
	for i, m := range s.doc.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(quote(b, m.name), ':')
		b = w.appendMember(b, r, s, m)
	}
	return append(b, '}')
}

// appendMember writes a member's value, with what the account as a whole has to say about it.
func (w *view) appendMember(b []byte, r *record, s *state, m member) []byte {
	switch m.name {
	case "created", "updated":
		if m.value == nil {
			at := s.updated
			if m.name == "created" {
				at = s.created
			}
			b = append(b, '"')
			b = w.times.append(b, at, w.zone)
			return append(b, '"')
		}
	case "reminder":
		if m.value == nil {
			return w.appendReminder(b, r)
		}
	case "last_contacted":
		if m.value == nil {
			return w.appendLastContacted(b, r, s)
		}
	case "creator", "updater":
		var name string
		if m.value.Kind() == '"' && json.Unmarshal(m.value, &name) == nil {
			return quote(b, w.userName(name))
		}
	case "tags":
		if w.tagTexts && m.value.Kind() == '[' {
			return appendTags(b, tagsOf(m.value), true)
		}
	case "stages_info":
		if text := string(m.value); text == "{}" || text == "[]" {
			return append(b, stages(w.stageList)...)
		}
	}
	return append(b, m.value...)
}

// materialise makes an invented document editable. Timestamps and what moves with the clock stay the account's.
func (v *inventor) materialise(r *record, s *state) *document {
	w := view{inventor: v}
	members, err := parseObject(w.appendInvented(nil, r, s))
	if err != nil {
		panic("nimbletest: invented a document that is no JSON: " + err.Error())
	}
	d := &document{members: members}
	d.manage("created", "updated", "reminder", "last_contacted")
	return d
}

// advance moves a document's own reminder and last contact on by a day; changed is false when it has neither.
func (d *document) advance() (moved *document, changed bool) {
	moved = d.clone()
	if members, err := parseObject(d.get("reminder")); err == nil {
		reminder := &document{members: members}
		if days, err := strconv.Atoi(string(reminder.get("days_till_triggered"))); err == nil && days > 0 {
			reminder.set("days_till_triggered", strconv.AppendInt(nil, int64(days-1), 10))
			if days == 1 {
				reminder.set("triggered", jsontext.Value("true"))
			}
			moved.set("reminder", reminder.plain())
			changed = true
		}
	}
	if members, err := parseObject(d.get("last_contacted")); err == nil {
		contacted := &document{members: members}
		var stamp string
		if json.Unmarshal(contacted.get("tstamp"), &stamp) == nil {
			if at, err := parseTimestamp(stamp); err == nil {
				next := time.UnixMicro(at).UTC().AddDate(0, 0, 1).Format(`"2006-01-02T15:04:05-0700"`)
				contacted.set("tstamp", jsontext.Value(next))
				moved.set("last_contacted", contacted.plain())
				changed = true
			}
		}
	}
	return moved, changed
}

// plain writes the members as they are.
func (d *document) plain() jsontext.Value {
	b := []byte{'{'}
	for i, m := range d.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(quote(b, m.name), ':'), m.value...)
	}
	return append(b, '}')
}

// parseTimestamp reads any of the spellings that contacts are known to carry, as Unix microseconds.
func parseTimestamp(s string) (int64, error) {
	s = strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return micros(t), nil
		}
	}
	return 0, fmt.Errorf("%q is no timestamp", s)
}
