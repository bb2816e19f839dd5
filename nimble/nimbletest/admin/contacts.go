package admin

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble/nimbletest"
)

// contact is one contact as this interface shows it.
type contact struct {
	ID         string    `json:"id"`
	RecordType string    `json:"record_type"`
	Standing   string    `json:"standing"`
	Spoilt     bool      `json:"spoilt"`
	Name       string    `json:"name"`
	Title      string    `json:"title"`
	Company    string    `json:"company"`
	Emails     []string  `json:"emails"`
	Phones     []string  `json:"phones"`
	Tags       []string  `json:"tags"`
	Starred    bool      `json:"starred"`
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
	// Contact is the document as the API shows it, or would; a string when it is no JSON.
	Contact jsontext.Value `json:"contact,omitempty"`
}

func contactOf(s nimbletest.Sight, document bool) contact {
	c := contact{
		ID: s.ID, RecordType: "person", Standing: s.Standing.String(), Spoilt: s.Spoilt, Name: s.Name, Title: s.Title, Company: s.Employer,
		Emails: s.Emails, Phones: s.Phones, Tags: s.Tags, Starred: s.Starred, Created: s.Created, Updated: s.Updated,
	}
	if s.Company {
		c.RecordType = "company"
	}
	if document {
		c.Contact = s.Document
		if !c.Contact.IsValid() {
			c.Contact, _ = jsontext.AppendQuote(nil, s.Document) // What is no UTF-8 comes out as replacement characters.
		}
	}
	return c
}

// list answers GET /admin/contacts.
func (h *Handler) list(r *http.Request) (any, error) {
	filter := nimbletest.Filter{Text: r.URL.Query().Get("search"), Tag: r.URL.Query().Get("tag")}
	for name := range strings.SplitSeq(r.URL.Query().Get("standing"), ",") {
		switch name {
		case "":
		case "any":
			filter.Standings = []nimbletest.Standing{nimbletest.Visible, nimbletest.Unlisted, nimbletest.Hidden, nimbletest.Deleted}
		case "gone":
			filter.Standings = append(filter.Standings, gone...)
		default:
			var standing nimbletest.Standing
			if err := standing.UnmarshalText([]byte(name)); err != nil {
				return nil, invalid("%v, gone or any", err)
			}
			filter.Standings = append(filter.Standings, standing)
		}
	}
	offset, err := number(r, "offset", 0)
	if err != nil {
		return nil, err
	}
	limit, err := number(r, "limit", 50)
	if err != nil {
		return nil, err
	}
	found, total := h.account.Look(filter, offset, limit)
	list := struct {
		Total    int       `json:"total"`
		Contacts []contact `json:"contacts"`
	}{Total: total}
	for _, s := range found {
		list.Contacts = append(list.Contacts, contactOf(s, false))
	}
	return list, nil
}

// gone are the standings of contacts that a listing does not have.
var gone = []nimbletest.Standing{nimbletest.Unlisted, nimbletest.Hidden, nimbletest.Deleted}

// ids answers GET /admin/ids.
func (h *Handler) ids(*http.Request) (any, error) {
	ids := h.account.IDs()
	return done{Done: contacts(len(ids)) + " can be seen", Count: len(ids), IDs: ids}, nil
}

// show answers GET /admin/contacts/{id}.
func (h *Handler) show(r *http.Request) (any, error) {
	s, ok := h.account.LookAt(r.PathValue("id"))
	if !ok {
		return nil, unknown(r.PathValue("id"))
	}
	return contactOf(s, true), nil
}

func unknown(ids ...string) error {
	return refuse(http.StatusNotFound, "there is no contact %s", strings.Join(ids, ", "))
}

// created is the answer to a request that made a contact.
type created struct {
	done
	ID      string  `json:"id"`
	Contact contact `json:"contact"`
}

// create answers POST /admin/contacts.
func (h *Handler) create(r *http.Request) (any, error) {
	var body struct {
		RecordType string `json:"record_type"`
		Invent     *bool  `json:"invent"`
		content
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	edits, err := body.edits()
	if err != nil {
		return nil, err
	}
	company := false
	names := []string{"first name", "last name"}
	switch body.RecordType {
	case "", "person":
	case "company":
		company, names = true, []string{"company name"}
	default:
		return nil, invalid("record_type is %q, want person or company", body.RecordType)
	}
	invent := body.Fields == nil
	if body.Invent != nil {
		invent = *body.Invent
	}
	if !invent {
		named := func(name string) bool { return !empty(body.Fields[name]) }
		if !slices.ContainsFunc(names, named) {
			return nil, invalid(`fields have no %s, which Nimble requires; give one, or "invent": true to have what is missing invented`, strings.Join(names, " or "))
		}
		edits = append([]nimbletest.Edit{nimbletest.Blank()}, edits...)
	}
	create := h.account.Create
	if company {
		create = h.account.CreateCompany
	}
	id := create(edits...)
	s, _ := h.account.LookAt(id)
	return created{done: done{Done: "created " + name(s), Count: 1, IDs: []string{id}}, ID: id, Contact: contactOf(s, true)}, nil
}

// content is what an edit can say of a contact.
type content struct {
	// Fields by name: a text, a list of texts and value objects, or null to remove the field.
	Fields map[string]jsontext.Value `json:"fields"`
	// Tags replaces them all.
	Tags       []string `json:"tags"`
	AddTags    []string `json:"add_tags"`
	RemoveTags []string `json:"remove_tags"`
	Starred    *bool    `json:"starred"`
	// OwnerID is a user's id, null for nobody.
	OwnerID jsontext.Value `json:"owner_id"`
	// Privacy is "everyone", "owner", or an object like the API's.
	Privacy jsontext.Value `json:"privacy"`
	// Keys sets keys of the contact object to any JSON.
	Keys map[string]jsontext.Value `json:"keys"`
}

// edits turns the content into edits, in the order of the fields' names.
func (c *content) edits() ([]nimbletest.Edit, error) {
	var edits []nimbletest.Edit
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		edit, err := fieldEdit(name, c.Fields[name])
		if err != nil {
			return nil, err
		}
		edits = append(edits, edit)
	}
	if c.Tags != nil {
		edits = append(edits, nimbletest.Tags(c.Tags...))
	}
	if len(c.AddTags) > 0 {
		edits = append(edits, nimbletest.AddTags(c.AddTags...))
	}
	if len(c.RemoveTags) > 0 {
		edits = append(edits, nimbletest.RemoveTags(c.RemoveTags...))
	}
	if c.Starred != nil {
		edits = append(edits, nimbletest.Star(*c.Starred))
	}
	if c.OwnerID != nil {
		var owner *string
		if err := json.Unmarshal(c.OwnerID, &owner); err != nil {
			return nil, invalid("owner_id is %s, want a user's id or null", c.OwnerID)
		}
		id := ""
		if owner != nil {
			id = *owner
		}
		edits = append(edits, nimbletest.Owner(id))
	}
	if c.Privacy != nil {
		edit, err := privacyEdit(c.Privacy)
		if err != nil {
			return nil, err
		}
		edits = append(edits, edit)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Keys)) {
		if name == "id" {
			return nil, invalid("the key id cannot be set: it is the contact's identity")
		}
		edits = append(edits, nimbletest.Key(name, string(c.Keys[name])))
	}
	return edits, nil
}

// empty tells whether a field's value takes the field away.
func empty(raw jsontext.Value) bool {
	text := string(raw)
	return len(raw) == 0 || text == "null" || text == "[]" || text == `""`
}

// value is one value of a field, with the names that the API has.
type value struct {
	Value    jsontext.Value `json:"value"`
	Modifier string         `json:"modifier"`
	Label    string         `json:"label"`
	Primary  bool           `json:"is_primary"`
	Extra    string         `json:"extra_value"`
}

// fieldEdit reads what a field is to be.
func fieldEdit(name string, raw jsontext.Value) (nimbletest.Edit, error) {
	switch {
	case name == "":
		return nimbletest.Edit{}, invalid("a field without a name")
	case empty(raw):
		return nimbletest.RemoveField(name), nil
	case raw.Kind() == '[':
		var list []jsontext.Value
		if err := json.Unmarshal(raw, &list); err != nil {
			return nimbletest.Edit{}, invalid("field %q: %v", name, err)
		}
		values := make([]nimbletest.Value, len(list))
		for i, element := range list {
			v, err := fieldValue(name, element)
			if err != nil {
				return nimbletest.Edit{}, err
			}
			values[i] = v
		}
		return nimbletest.FieldValues(name, values...), nil
	}
	v, err := fieldValue(name, raw)
	if err != nil {
		return nimbletest.Edit{}, err
	}
	if v == (nimbletest.Value{Value: v.Value}) {
		return nimbletest.Field(name, v.Value), nil // Keeps the modifier and mark of the value it replaces.
	}
	return nimbletest.FieldValues(name, v), nil
}

// structured are the fields whose text is JSON itself.
var structured = []string{"address", "contact employment"}

// fieldValue reads one value: a text, or an object with one and more about it.
func fieldValue(name string, raw jsontext.Value) (nimbletest.Value, error) {
	if raw.Kind() != '{' {
		text, err := text(name, raw)
		return nimbletest.Value{Value: text}, err
	}
	var v value
	err := json.Unmarshal(raw, &v, json.RejectUnknownMembers(true))
	if err != nil && slices.Contains(structured, name) {
		return nimbletest.Value{Value: string(raw)}, nil // The address itself, say, and not an object around it.
	}
	if err != nil || v.Value == nil {
		return nimbletest.Value{}, invalid("field %q has %s, want a text or an object with value, modifier, label, is_primary and extra_value", name, raw)
	}
	out := nimbletest.Value{Modifier: v.Modifier, Label: v.Label, Primary: v.Primary, Extra: v.Extra}
	if v.Value.Kind() == '{' && slices.Contains(structured, name) {
		out.Value = string(v.Value)
		return out, nil
	}
	out.Value, err = text(name, v.Value)
	return out, err
}

// text reads a value's text; numbers and truth values are as good as their spelling.
func text(name string, raw jsontext.Value) (string, error) {
	switch raw.Kind() {
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case '0', 't', 'f':
		return string(raw), nil
	}
	return "", invalid("field %q has the value %s, want a text", name, raw)
}

// privacyEdit reads who may read and edit.
func privacyEdit(raw jsontext.Value) (nimbletest.Edit, error) {
	switch string(raw) {
	case `"everyone"`, "null":
		return nimbletest.Privacy(nil, nil), nil
	case `"owner"`:
		return nimbletest.Privacy(&nimbletest.Audience{}, &nimbletest.Audience{}), nil
	}
	type audience struct {
		Users  []string `json:"user_ids"`
		Groups []string `json:"group_ids"`
	}
	var p struct {
		Read *audience `json:"read"`
		Edit *audience `json:"edit"`
	}
	if err := json.Unmarshal(raw, &p, json.RejectUnknownMembers(true)); err != nil {
		return nimbletest.Edit{}, invalid(`privacy is %s, want "everyone", "owner", or {"read": …, "edit": …} with null or {"user_ids": […], "group_ids": […]}`, raw)
	}
	those := func(a *audience) *nimbletest.Audience {
		if a == nil {
			return nil
		}
		return &nimbletest.Audience{Users: a.Users, Groups: a.Groups}
	}
	return nimbletest.Privacy(those(p.Read), those(p.Edit)), nil
}

// editing is the body of an edit, but for which contacts.
type editing struct {
	content
	// Silent leaves updated alone.
	Silent bool `json:"silent"`
}

// apply edits the contacts.
func (h *Handler) apply(ids []string, e *editing) (any, error) {
	edits, err := e.edits()
	if err != nil {
		return nil, err
	}
	if len(edits) == 0 {
		return nil, invalid("nothing to change: give fields, tags, add_tags, remove_tags, starred, owner_id, privacy or keys")
	}
	edit, what := h.account.Edit, "edited %s"
	if e.Silent {
		edit, what = h.account.EditSilently, "edited %s without moving updated"
	}
	return h.each(what, ids, func(id string) bool { return edit(id, edits...) }), nil
}

// each does something to contacts, and says what: %s in it stands for whom.
func (h *Handler) each(what string, ids []string, do func(id string) bool) done {
	var did []string
	for _, id := range ids {
		if do(id) {
			did = append(did, id)
		}
	}
	return h.did(what, did)
}

func (h *Handler) did(what string, ids []string) done {
	whom := contacts(len(ids))
	if len(ids) == 1 {
		if s, ok := h.account.LookAt(ids[0]); ok {
			whom = name(s)
		}
	}
	return done{Done: fmt.Sprintf(what, whom), Count: len(ids), IDs: ids}
}

// escaped is a text as a part of a format.
func escaped(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// editOne answers PATCH /admin/contacts/{id}.
func (h *Handler) editOne(r *http.Request) (any, error) {
	var body editing
	if err := read(r, &body); err != nil {
		return nil, err
	}
	ids, err := h.known(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return h.apply(ids, &body)
}

// edit answers POST /admin/edit.
func (h *Handler) edit(r *http.Request) (any, error) {
	var body struct {
		selection
		editing
	}
	ids, err := h.choose(r, &body, &body.selection)
	if err != nil {
		return nil, err
	}
	return h.apply(ids, &body.editing)
}
