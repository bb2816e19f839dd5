package admin

import (
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble/nimbletest"
)

// tag answers POST /admin/tag.
func (h *Handler) tag(r *http.Request) (any, error) {
	return h.tags(r, "tagged %s", nimbletest.AddTags)
}

// untag answers POST /admin/untag.
func (h *Handler) untag(r *http.Request) (any, error) {
	return h.tags(r, "untagged %s", nimbletest.RemoveTags)
}

func (h *Handler) tags(r *http.Request, verb string, edit func(...string) nimbletest.Edit) (any, error) {
	var body struct {
		selection
		Tags []string `json:"tags"`
	}
	ids, err := h.choose(r, &body, &body.selection)
	if err != nil {
		return nil, err
	}
	if len(body.Tags) == 0 {
		return nil, invalid("there are no tags")
	}
	return h.each(verb, ids, func(id string) bool { return h.account.Edit(id, edit(body.Tags...)) }), nil
}

// star answers POST /admin/star.
func (h *Handler) star(r *http.Request) (any, error) {
	var body struct {
		selection
		Starred *bool `json:"starred"`
	}
	ids, err := h.choose(r, &body, &body.selection)
	if err != nil {
		return nil, err
	}
	on, verb := body.Starred == nil || *body.Starred, "starred %s"
	if !on {
		verb = "unstarred %s"
	}
	return h.each(verb, ids, func(id string) bool { return h.account.Edit(id, nimbletest.Star(on)) }), nil
}

// touch answers POST /admin/touch.
func (h *Handler) touch(r *http.Request) (any, error) {
	var body selection
	ids, err := h.choose(r, &body, &body)
	if err != nil {
		return nil, err
	}
	return h.each("moved updated of %s", ids, h.account.Touch), nil
}

// times answers POST /admin/times.
func (h *Handler) times(r *http.Request) (any, error) {
	var body struct {
		selection
		Created time.Time `json:"created"`
		Updated time.Time `json:"updated"`
	}
	ids, err := h.choose(r, &body, &body.selection)
	if err != nil {
		return nil, err
	}
	if body.Created.IsZero() && body.Updated.IsZero() {
		return nil, invalid("neither created nor updated is given, want one as in 2026-03-01T10:15:00Z")
	}
	return h.each("dated %s", ids, func(id string) bool { return h.account.SetTimes(id, body.Created, body.Updated) }), nil
}

// merge answers POST /admin/merge.
func (h *Handler) merge(r *http.Request) (any, error) {
	var body struct {
		Survivor string `json:"survivor"`
		Loser    string `json:"loser"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if _, err := h.known(body.Survivor, body.Loser); err != nil {
		return nil, err
	}
	loser, _ := h.account.LookAt(body.Loser)
	if !h.account.Merge(body.Survivor, body.Loser) {
		return nil, refuse(http.StatusConflict, "survivor and loser must be two contacts that are not deleted")
	}
	return h.did("merged "+escaped(name(loser))+" into %s", []string{body.Survivor}), nil
}

func name(s nimbletest.Sight) string {
	if s.Name == "" {
		return s.ID
	}
	return s.Name
}

// maxImport is the largest import at once.
const maxImport = 1_000_000

// importMany answers POST /admin/import.
func (h *Handler) importMany(r *http.Request) (any, error) {
	var body struct {
		Count int `json:"count"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.Count < 1 || body.Count > maxImport {
		return nil, invalid("count is %d, want 1 to %d", body.Count, maxImport)
	}
	return h.did("imported %s", h.account.Import(body.Count)), nil
}

// renaming is from what to what.
type renaming struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func readRenaming(r *http.Request) (renaming, error) {
	var body renaming
	if err := read(r, &body); err != nil {
		return body, err
	}
	if body.From == "" || body.To == "" {
		return body, invalid("from and to are both needed")
	}
	return body, nil
}

// renameTag answers POST /admin/rename-tag.
func (h *Handler) renameTag(r *http.Request) (any, error) {
	body, err := readRenaming(r)
	if err != nil {
		return nil, err
	}
	n := h.account.RenameTag(body.From, body.To)
	return done{Done: "renamed the tag " + body.From + " to " + body.To + " in " + contacts(n), Count: n}, nil
}

// renameUser answers POST /admin/rename-user.
func (h *Handler) renameUser(r *http.Request) (any, error) {
	body, err := readRenaming(r)
	if err != nil {
		return nil, err
	}
	h.account.RenameUser(body.From, body.To)
	return done{Done: "renamed the user " + body.From + " to " + body.To}, nil
}

// countDown answers POST /admin/count-down.
func (h *Handler) countDown(r *http.Request) (any, error) {
	if err := read(r, &struct{}{}); err != nil {
		return nil, err
	}
	h.account.CountDown()
	return done{Done: "let a day pass for reminders"}, nil
}

// put answers PUT /admin/contacts/{id}: a document of the caller's own.
func (h *Handler) put(r *http.Request) (any, error) {
	var raw jsontext.Value
	if err := read(r, &raw); err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	var document struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(raw, &document); err != nil || document.ID != id {
		return nil, invalid("the document is no object with the id %q", id)
	}
	if err := h.account.Put(string(raw)); err != nil {
		return nil, invalid("%v", err)
	}
	return h.did("stored %s", []string{id}), nil
}

// deleteOne answers DELETE /admin/contacts/{id}.
func (h *Handler) deleteOne(r *http.Request) (any, error) {
	ids, err := h.known(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return h.each("deleted %s", ids, h.one(h.account.Delete)), nil
}

// one makes an action on many contacts one on a single contact.
func (h *Handler) one(act func(ids ...string) int) func(id string) bool {
	return func(id string) bool { return act(id) == 1 }
}

// delete answers POST /admin/delete.
func (h *Handler) delete(r *http.Request) (any, error) {
	var body selection
	ids, err := h.choose(r, &body, &body)
	if err != nil {
		return nil, err
	}
	return h.standing("deleted %s", ids, h.account.Delete), nil
}

// standing does what changes the standing of contacts, to all of them at once.
func (h *Handler) standing(what string, ids []string, act func(ids ...string) int) done {
	var concerned []string
	before := make(map[string]nimbletest.Standing, len(ids))
	for _, id := range ids {
		before[id], _ = h.account.Standing(id)
	}
	act(ids...)
	for _, id := range ids {
		if now, _ := h.account.Standing(id); now != before[id] {
			concerned = append(concerned, id)
		}
	}
	return h.did(what, concerned)
}

// hiding are the ways in which a hidden contact is answered when it is read by id.
var hiding = map[string]int{"": 0, "empty": http.StatusOK, "403": http.StatusForbidden, "404": http.StatusNotFound}

// hide answers POST /admin/hide.
func (h *Handler) hide(r *http.Request) (any, error) {
	var body struct {
		selection
		ByID string `json:"by_id"`
	}
	ids, err := h.choose(r, &body, &body.selection)
	if err != nil {
		return nil, err
	}
	status, ok := hiding[body.ByID]
	if !ok {
		return nil, invalid("by_id is %q, want empty, 403 or 404", body.ByID)
	}
	return h.standing("hid %s", ids, func(ids ...string) int { return h.account.HideAs(status, ids...) }), nil
}

// vanish answers POST /admin/vanish.
func (h *Handler) vanish(r *http.Request) (any, error) {
	var body struct {
		selection
		ByID string `json:"by_id"`
	}
	ids, err := h.choose(r, &body, &body.selection)
	if err != nil {
		return nil, err
	}
	if body.ByID == "found" {
		return h.standing("took %s out of listings, but not by id", ids, h.account.Unlist), nil
	}
	status, ok := hiding[body.ByID]
	if !ok {
		return nil, invalid("by_id is %q, want empty, 403, 404 or found", body.ByID)
	}
	return h.standing("took %s out of sight", ids, func(ids ...string) int { return h.account.HideAs(status, ids...) }), nil
}

// restore answers POST /admin/restore.
func (h *Handler) restore(r *http.Request) (any, error) {
	var body selection
	ids, err := h.choose(r, &body, &body, gone...)
	if err != nil {
		return nil, err
	}
	return h.standing("brought %s back", ids, h.account.Reappear), nil
}

// spoil answers POST /admin/spoil.
func (h *Handler) spoil(r *http.Request) (any, error) {
	body := struct {
		selection
		Shown *string `json:"shown"`
	}{}
	ids, err := h.choose(r, &body, &body.selection)
	if err != nil {
		return nil, err
	}
	return h.each("spoilt %s", ids, func(id string) bool {
		shown := `{"id":null,"record_type":"person","fields":"not an object"}`
		if body.Shown != nil {
			shown = *body.Shown
		}
		return h.account.Spoil(id, shown)
	}), nil
}

// mend answers POST /admin/mend.
func (h *Handler) mend(r *http.Request) (any, error) {
	var body selection
	ids, err := h.choose(r, &body, &body)
	if err != nil {
		return nil, err
	}
	return h.each("mended %s", ids, h.account.Mend), nil
}
