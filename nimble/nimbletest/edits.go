package nimbletest

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Edit is a change to the content of a contact, for [Account.Create], [Account.Edit] and [Account.EditSilently].
type Edit struct {
	apply func(*document)
	// byTag edits leave the updater alone, as tag replacement does.
	byTag bool
}

// Value is one value of a field.
type Value struct {
	// Value is the text; a JSON-encoded object for "address" and "contact employment".
	Value string
	// Modifier is "work", "home" and the like, or empty.
	Modifier string
	// Label is the field's display name. Empty stands for the field's own name.
	Label   string
	Primary bool
	// Extra is extra_value, the id of an employer's contact. Empty leaves it out.
	Extra string
}

// Field gives a field a single text. Modifier, primary mark and extra value stay those of the field's first
// value when it has one.
func Field(name, value string) Edit {
	return Edit{apply: func(d *document) {
		fields := d.fields()
		raw := appendValue([]byte{' '}, value, "", name, false, "")[1:]
		if before := fields.get(name); len(before) > 0 {
			if members, err := parseObject(before[0]); err == nil {
				first := &document{members: members}
				first.set("value", quote(nil, value))
				raw = first.plain()
			}
		}
		d.setFields(fields.with(name, []jsontext.Value{raw}))
	}}
}

// FieldValues replaces all values of a field. Without values it removes the field.
func FieldValues(name string, values ...Value) Edit {
	return Edit{apply: func(d *document) {
		raw := make([]jsontext.Value, len(values))
		for i, v := range values {
			label := v.Label
			if label == "" {
				label = name
			}
			raw[i] = appendValue([]byte{' '}, v.Value, v.Modifier, label, v.Primary, v.Extra)[1:]
		}
		d.setFields(d.fields().with(name, raw))
	}}
}

// RemoveField removes a field and all its values.
func RemoveField(name string) Edit { return FieldValues(name) }

// Tags replaces the tags.
func Tags(texts ...string) Edit {
	return Edit{apply: func(d *document) { d.setTags(texts) }, byTag: true}
}

// AddTags adds the tags that the contact does not have yet.
func AddTags(texts ...string) Edit {
	return Edit{apply: func(d *document) {
		tags := d.tags()
		for _, text := range texts {
			if !slices.Contains(tags, text) {
				tags = append(tags, text)
			}
		}
		d.setTags(tags)
	}, byTag: true}
}

// RemoveTags takes tags off the contact.
func RemoveTags(texts ...string) Edit {
	return Edit{apply: func(d *document) {
		d.setTags(slices.DeleteFunc(d.tags(), func(tag string) bool { return slices.Contains(texts, tag) }))
	}, byTag: true}
}

// Blank takes away what was invented: all fields and tags, owner, star, privacy, notice and reminder. It comes before the edits that give a new
// contact the content it is to have, and no other.
func Blank() Edit {
	return Edit{apply: func(d *document) {
		d.set("fields", jsontext.Value("{}"))
		d.setTags(nil)
		for _, name := range []string{"owner_id", "is_important", "notice", "reminder"} {
			d.set(name, jsontext.Value("null"))
		}
		d.set("privacy", jsontext.Value(`{"read":null,"edit":null}`))
		d.set("children", jsontext.Value("[]"))
		d.set("employers_info", jsontext.Value("[]"))
	}}
}

// Audience is who may read or edit a contact besides its owner: users and groups by id. An empty one is the owner alone.
type Audience struct{ Users, Groups []string }

// Privacy says who may read and who may edit the contact; nil is everybody. It is content like any other: a contact that the key's user is not to
// see any more is a matter of [Account.Hide].
func Privacy(read, edit *Audience) Edit {
	return Edit{apply: func(d *document) {
		b := read.append([]byte(`{"read":`))
		b = edit.append(append(b, `,"edit":`...))
		d.set("privacy", append(b, '}'))
	}}
}

func (p *Audience) append(b []byte) []byte {
	if p == nil {
		return append(b, "null"...)
	}
	b = appendTags(append(b, `{"user_ids":`...), p.Users, true)
	b = appendTags(append(b, `,"group_ids":`...), p.Groups, true)
	return append(b, '}')
}

// Owner assigns the contact to a user by id; the empty id makes it unassigned.
func Owner(id string) Edit {
	return Edit{apply: func(d *document) {
		if id == "" {
			d.set("owner_id", jsontext.Value("null"))
			return
		}
		d.set("owner_id", quote(nil, id))
	}}
}

// Star marks the contact as important, or takes the mark off.
func Star(on bool) Edit {
	return Edit{apply: func(d *document) { d.set("is_important", jsontext.Value(fmt.Sprint(on))) }}
}

// Key sets a key of the contact object to the given JSON, whatever it was. A "created" or "updated" set so is
// shown as it is, until an edit moves the account's own time of it; it has no influence on listings. Key panics
// when rawJSON is no JSON; for documents that are none there is [Account.PutRaw].
func Key(name, rawJSON string) Edit {
	raw := jsontext.Value(rawJSON)
	if !raw.IsValid() {
		panic(fmt.Sprintf("nimbletest: Key(%q): %q is no JSON value", name, rawJSON))
	}
	return Edit{apply: func(d *document) { d.set(name, raw) }}
}

// isCompany reads the record type back after an edit.
func (d *document) isCompany() bool {
	var kind string
	return json.Unmarshal(d.get("record_type"), &kind) == nil && kind == "company"
}
