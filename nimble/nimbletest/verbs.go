package nimbletest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Create makes an invented person, applies the edits, and gives the id.
func (a *Account) Create(edits ...Edit) (id string) { return a.create(false, edits) }

// CreateCompany makes an invented company, applies the edits, and gives the id.
func (a *Account) CreateCompany(edits ...Edit) (id string) { return a.create(true, edits) }

func (a *Account) create(company bool, edits []Edit) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.stamp()
	r := a.add(now)
	next := state{created: now, updated: now, visible: true, company: company}
	if len(edits) > 0 {
		next.doc = a.inventor.materialise(r, &next)
		next.edit(edits)
	}
	a.commit(change{r, next})
	a.record(OpCreate, a.idOf(r), now)
	return a.idOf(r)
}

// Import makes n invented people, all created and updated in the same whole second, the account's current one.
func (a *Account) Import(n int) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := micros(a.clock())
	second := now - now%1e6
	changes := make([]change, n)
	ids := make([]string, n)
	added := make([]*record, n)
	for i := range changes {
		r := &record{ordinal: a.ordinal, id: newObjectID(second, a.inventor.seed, a.ordinal)}
		a.ordinal++
		added[i], ids[i] = r, r.id.String()
		changes[i] = change{r, state{created: second, updated: second, visible: true}}
	}
	a.byID = append(a.byID, added...) // In one go: an import may have many thousands.
	slices.SortFunc(a.byID, func(p, q *record) int { return slices.Compare(p.id[:], q.id[:]) })
	a.commit(changes...)
	for _, id := range ids {
		a.record(OpImport, id, second)
	}
	return ids
}

// Edit changes a contact's content and moves its updated. Edits other than [Tags] also set the updater. It
// reports whether there was such a contact; deleted ones cannot be edited.
func (a *Account) Edit(id string, edits ...Edit) bool {
	return a.alter(id, OpEdit, func(r *record, now int64, next *state) {
		next.updated = now
		next.materialise(a, r)
		next.doc.manage("updated")
		if slices.ContainsFunc(edits, func(e Edit) bool { return !e.byTag }) {
			next.doc.set("updater", quote(nil, a.me()))
		}
		next.edit(edits)
	})
}

// EditSilently changes a contact's content and leaves its updated alone.
func (a *Account) EditSilently(id string, edits ...Edit) bool {
	return a.alter(id, OpEditSilently, func(r *record, _ int64, next *state) {
		next.materialise(a, r)
		next.edit(edits)
	})
}

// Touch moves a contact's updated and leaves its content alone.
func (a *Account) Touch(id string) bool {
	return a.alter(id, OpTouch, func(_ *record, now int64, next *state) {
		next.updated = now
		if next.doc != nil {
			next.doc.manage("updated")
		}
	})
}

// SetTimes dates a contact, also into the future; a zero time leaves that one as it is. The id keeps its second.
func (a *Account) SetTimes(id string, created, updated time.Time) bool {
	return a.alter(id, OpSetTimes, func(_ *record, _ int64, next *state) {
		if !created.IsZero() {
			next.created = micros(created)
			if next.doc != nil {
				next.doc.manage("created")
			}
		}
		if !updated.IsZero() {
			next.updated = micros(updated)
			if next.doc != nil {
				next.doc.manage("updated")
			}
		}
	})
}

// alter makes a new version of a contact that is not deleted.
func (a *Account) alter(id string, op Op, alter func(r *record, now int64, next *state)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.find(id)
	if r == nil || r.deleted {
		return false
	}
	now := a.stamp()
	next := r.stored
	if next.doc != nil {
		next.doc = next.doc.clone()
	}
	alter(r, now, &next)
	a.commit(change{r, next})
	a.record(op, id, now)
	return true
}

// materialise makes the content of the new version editable.
func (s *state) materialise(a *Account, r *record) {
	if s.doc == nil {
		s.doc = a.inventor.materialise(r, s)
		s.doc.set("creator", quote(nil, a.view().userName(creatorOf(s.doc))))
	}
}

func creatorOf(d *document) string {
	var name string
	_ = json.Unmarshal(d.get("creator"), &name) // Invented documents always have one.
	return name
}

// edit applies edits to the version's own document.
func (s *state) edit(edits []Edit) {
	for _, e := range edits {
		e.apply(s.doc)
	}
	s.company = s.doc.isCompany()
}

// Delete removes contacts and gives the number removed. Nothing of them stays visible anywhere.
func (a *Account) Delete(ids ...string) int {
	return a.alterMany(OpDelete, ids, func(r *record) bool { was := !r.deleted; r.deleted = true; return was })
}

// Restore brings deleted contacts back under their ids, with the content and times they had, and gives the
// number brought back.
func (a *Account) Restore(ids ...string) int {
	return a.alterMany(OpRestore, ids, func(r *record) bool { was := r.deleted; r.deleted = false; return was })
}

// Reappear brings contacts back whatever took them away: [Account.Delete], [Account.Hide] or [Account.Unlist]. It gives their number and
// moves no updated.
func (a *Account) Reappear(ids ...string) int {
	return a.alterMany(OpRestore, ids, func(r *record) bool {
		was := r.standing() != Visible
		r.deleted, r.hidden, r.hiddenAs, r.unlisted = false, false, 0, false
		return was
	})
}

// Hide takes contacts out of the sight of the key's user, as a colleague does by making them private, and gives
// the number hidden. It moves no updated.
func (a *Account) Hide(ids ...string) int { return a.HideAs(0, ids...) }

// HideAs is [Account.Hide] with the answer to reading one of these contacts by id: 200 for one without resources, 403 or 404, whatever
// HiddenStatus of [Behaviour] says for the others. 0 leaves it to that.
func (a *Account) HideAs(status int, ids ...string) int {
	switch status {
	case 0, http.StatusOK, http.StatusForbidden, http.StatusNotFound:
	default:
		panic(fmt.Sprintf("nimbletest: HideAs(%d): want 200, 403, 404 or 0", status))
	}
	return a.alterMany(OpHide, ids, func(r *record) bool {
		was := !r.hidden
		r.hidden, r.hiddenAs = true, int16(status)
		return was
	})
}

// Unlist lets listings, counts and queries lose contacts that are still there and can be read by id, as a damaged search index does, and gives
// their number.
func (a *Account) Unlist(ids ...string) int {
	return a.alterMany(OpUnlist, ids, func(r *record) bool { was := !r.unlisted; r.unlisted = true; return was })
}

// Show brings hidden and unlisted contacts back into sight and gives their number. It moves no updated.
func (a *Account) Show(ids ...string) int {
	return a.alterMany(OpShow, ids, func(r *record) bool {
		was := r.hidden || r.unlisted
		r.hidden, r.hiddenAs, r.unlisted = false, 0, false
		return was
	})
}

// Spoil shows the given bytes in place of a contact, in listings as in answers by id, and moves its updated. What they replace is kept, and can be edited
// meanwhile; see [Account.Mend]. It reports whether there was such a contact.
func (a *Account) Spoil(id, raw string) bool {
	return a.alter(id, OpSpoil, func(r *record, now int64, next *state) {
		next.updated = now
		next.materialise(a, r)
		next.doc.manage("updated")
		next.doc.raw = []byte(raw)
	})
}

// Mend shows a spoilt contact again as it is, and moves its updated. It reports whether there was such a contact.
func (a *Account) Mend(id string) bool {
	a.mu.Lock()
	r := a.find(id)
	spoilt := r != nil && !r.deleted && r.stored.doc != nil && r.stored.doc.raw != nil && r.stored.doc.members != nil
	a.mu.Unlock()
	return spoilt && a.alter(id, OpMend, func(_ *record, now int64, next *state) {
		next.updated = now
		next.doc.manage("updated")
		next.doc.raw = nil
	})
}

// alterMany changes whether contacts can be seen.
func (a *Account) alterMany(op Op, ids []string, alter func(*record) bool) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	var changes []change
	for _, id := range ids {
		r := a.find(id)
		if r == nil || !alter(r) {
			continue
		}
		next := r.stored
		next.visible, next.unlisted = !r.deleted && !r.hidden, r.unlisted
		changes = append(changes, change{r, next})
		a.record(op, id, a.stamp())
	}
	a.commit(changes...)
	return len(changes)
}

// Merge joins two duplicates as Nimble's user interface does: the survivor gains the loser's tags and the
// values that it does not have, and its updated moves; the loser is deleted. It reports whether both existed.
func (a *Account) Merge(survivor, loser string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, l := a.find(survivor), a.find(loser)
	if s == nil || l == nil || s == l || s.deleted || l.deleted {
		return false
	}
	now := a.stamp()
	kept, lost := s.stored, l.stored
	kept.materialise(a, s)
	kept.doc = kept.doc.clone()
	lost.materialise(a, l)
	fields := kept.doc.fields()
	for _, f := range lost.doc.fields() {
		have := fields.get(f.name)
		if len(have) > 0 && !multiValued[f.name] {
			continue
		}
		texts := fields.texts(f.name)
		for _, v := range f.values {
			if !slices.Contains(texts, valueText(v)) {
				have = append(slices.Clip(have), v)
			}
		}
		fields = fields.with(f.name, have)
	}
	kept.doc.setFields(fields)
	tags := kept.doc.tags()
	for _, tag := range lost.doc.tags() {
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	kept.doc.setTags(tags)
	kept.doc.manage("updated")
	kept.updated = now
	l.deleted = true
	gone := l.stored
	gone.visible = false
	a.commit(change{s, kept}, change{l, gone})
	a.record(OpMerge, survivor, now)
	a.record(OpDelete, loser, now)
	return true
}

// multiValued are the fields that hold several values.
var multiValued = map[string]bool{
	"contact employment": true, "phone": true, "email": true, "address": true, "URL": true, "description": true,
	"skype id": true, "twitter": true, "facebook": true, "linkedin": true, "google plus": true, "foursquare": true,
	"instagram": true, "threads": true, "tiktok": true, "youtube": true, "muck rack": true,
}

// RenameTag changes a tag in every contact that has it and gives their number. It moves no updated; how Nimble
// treats this is not known.
func (a *Account) RenameTag(old, text string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	var changes []change
	for _, r := range a.byID {
		if r.deleted {
			continue
		}
		var tags []string
		if r.stored.doc == nil {
			tags = a.inventor.tags(r.ordinal)
		} else if r.stored.doc.raw == nil {
			tags = r.stored.doc.tags()
		}
		if !slices.Contains(tags, old) {
			continue
		}
		var renamed []string
		for _, tag := range tags {
			if tag == old {
				tag = text
			}
			if !slices.Contains(renamed, tag) {
				renamed = append(renamed, tag)
			}
		}
		next := r.stored
		next.materialise(a, r)
		next.doc = next.doc.clone()
		next.doc.setTags(renamed)
		changes = append(changes, change{r, next})
		a.record(OpRenameTag, a.idOf(r), a.stamp())
	}
	a.commit(changes...)
	return len(changes)
}

// Put stores a document of the test's own and shows it as it is, unknown keys, odd types and all; a contact with
// the same id is replaced, also a deleted one. raw must be a JSON object with a string id, of any form. Its created
// and updated place it in listings when they can be read; what cannot takes the account's now. Afterwards it is
// a contact like any other.
func (a *Account) Put(raw string) error {
	members, err := parseObject(jsontext.Value(raw))
	if err != nil {
		return fmt.Errorf("put contact: %w", err)
	}
	d := &document{members: members}
	var id string
	if json.Unmarshal(d.get("id"), &id) != nil || id == "" {
		return errors.New("put contact: the document has no id that is a string")
	}
	a.put(id, d)
	return nil
}

// PutRaw stores bytes that are shown as they are in place of the contact with the given id, in listings as in
// answers by id, whatever they are: null, a string, a document with another id or with none, or no JSON at all.
// Its times are the account's now; see [Account.SetTimes].
func (a *Account) PutRaw(id, raw string) { a.put(id, &document{raw: []byte(raw)}) }

func (a *Account) put(id string, d *document) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.stamp()
	next := state{doc: d, visible: true, company: d.isCompany()}
	next.created, next.updated = putTimes(d, now)
	r := a.find(id)
	if r == nil {
		r = a.adopt(id)
	}
	r.deleted, r.hidden, r.hiddenAs, r.unlisted = false, false, 0, false
	a.commit(change{r, next})
	a.record(OpPut, id, now)
}

// adopt makes the record of a contact whose id is not the account's.
func (a *Account) adopt(id string) *record {
	r := &record{ordinal: a.ordinal}
	a.ordinal++
	oid, ok := parseObjectID(id)
	if !ok { // It gets a place among the others that no id of Nimble's form reaches.
		binary.BigEndian.PutUint32(oid[0:4], 0xffffffff)
		binary.BigEndian.PutUint64(oid[4:12], uint64(r.ordinal))
		a.odd[id] = r
		a.oddIDs[r] = id
	}
	r.id = oid
	a.place(r)
	return r
}
