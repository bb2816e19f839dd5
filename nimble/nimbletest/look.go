package nimbletest

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Standing is whether the key's user can see a contact.
type Standing uint8

// The standings.
const (
	Visible  Standing = iota // to be seen everywhere
	Unlisted                 // readable by id, but lost to listings; see Account.Unlist
	Hidden                   // made private by somebody else; see Account.Hide
	Deleted                  // deleted, or merged into another contact
)

func (r *record) standing() Standing {
	switch {
	case r.deleted:
		return Deleted
	case r.hidden:
		return Hidden
	case r.unlisted:
		return Unlisted
	}
	return Visible
}

// Sight is what one sees of a contact at a glance, whatever its standing.
type Sight struct {
	ID       string
	Company  bool // a company, not a person
	Standing Standing
	// Spoilt says that other bytes are shown in its place; see Account.Spoil.
	Spoilt           bool
	Created, Updated time.Time
	// Name is the full name of a person or the name of a company.
	Name            string
	Title, Employer string
	Emails, Phones  []string
	Tags            []string
	Starred         bool
	// Document is the contact as reading it by id shows it, or would.
	Document jsontext.Value
}

// Filter says which contacts to look for. The zero value is all that the user can see.
type Filter struct {
	// Text is in one of the contact's values or tags, or begins its id, whatever the case and the accents.
	Text string
	// Tag is one of its tags, exactly.
	Tag string
	// Standings are the ones to look for, Visible and Unlisted when there are none.
	Standings []Standing
}

// Look gives the contacts that fit, last changed first: up to limit of them after the first offset, and the number of all. It is the truth, not
// what the index has of it. A text takes time in a large account, during which other requests are served.
func (a *Account) Look(f Filter, offset, limit int) (found []Sight, total int) {
	page, total := a.look(f, offset, limit)
	found = make([]Sight, len(page))
	for i, s := range page {
		found[i] = s.sight()
	}
	return found, total
}

// Find gives the ids of the contacts that fit, last changed first, at most limit.
func (a *Account) Find(f Filter, limit int) []string {
	page, _ := a.look(f, 0, limit)
	ids := make([]string, len(page))
	for i, s := range page {
		ids[i] = s.id
	}
	return ids
}

func (a *Account) look(f Filter, offset, limit int) (page []sighted, total int) {
	standings := f.Standings
	if len(standings) == 0 {
		standings = []Standing{Visible, Unlisted}
	}
	text := fold(f.Text)
	var words []string // as an invented document spells them
	for word := range strings.FieldsSeq(text) {
		quoted := quote(nil, word)
		words = append(words, string(quoted[1:len(quoted)-1]))
	}
	offset = max(0, offset)
	most := offset + min(max(0, limit), math.MaxInt/4-offset)
	newestFirst := func(p, q sighted) int {
		return cmp.Or(cmp.Compare(q.state.updated, p.state.updated), cmp.Compare(p.id, q.id))
	}
	for s := range a.walk {
		if !slices.Contains(standings, s.standing) || f.Tag != "" && !slices.Contains(s.tags(), f.Tag) || text != "" && !s.mentions(text, words) {
			continue
		}
		total++
		page = append(page, s)
		if len(page) > 2*most+1000 {
			slices.SortFunc(page, newestFirst)
			page = slices.Delete(page, most, len(page))
		}
	}
	slices.SortFunc(page, newestFirst)
	return page[min(offset, len(page)):min(most, len(page))], total
}

// LookAt gives one contact, whatever its standing; ok is false when there never was such a contact.
func (a *Account) LookAt(id string) (s Sight, ok bool) {
	a.mu.Lock()
	r := a.find(id)
	if r == nil {
		a.mu.Unlock()
		return Sight{}, false
	}
	found := a.sighted(a.view(), r)
	a.mu.Unlock()
	return found.sight(), true
}

// Standing tells whether the user can see a contact; ok is false when there never was such a contact.
func (a *Account) Standing(id string) (s Standing, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.find(id)
	if r == nil {
		return 0, false
	}
	return r.standing(), true
}

// Pick gives the ids of n of the contacts that the user can see, all of them when there are not so many. They are scattered over the account, in a way that
// stays the same: whoever picks more gets these too.
func (a *Account) Pick(n int) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var seen []*record
	for _, r := range a.byID {
		if r.stored.visible {
			seen = append(seen, r)
		}
	}
	slices.SortFunc(seen, compareTied)
	ids := make([]string, max(0, min(n, len(seen))))
	for i := range ids {
		ids[i] = a.idOf(seen[i])
	}
	return ids
}

// Census counts the contacts by standing, also those that are gone.
func (a *Account) Census() map[Standing]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	count := make(map[Standing]int)
	for _, r := range a.byID {
		count[r.standing()]++
	}
	return count
}

// sighted is a version of a contact, to be looked at without the account's lock.
type sighted struct {
	candidate
	id       string
	standing Standing
}

func (a *Account) sighted(w *view, r *record) sighted {
	state := r.stored
	return sighted{candidate: candidate{view: w, record: r, state: &state}, id: a.idOf(r), standing: r.standing()}
}

// walk yields every contact there ever was, in order of id. The account is locked for some thousand contacts at a time only.
func (a *Account) walk(yield func(sighted) bool) {
	var last *record
	for {
		a.mu.Lock()
		from := 0
		if last != nil {
			from, _ = a.position(last.id) // It is there: nothing ever leaves.
			from++
		}
		records := a.byID[from:min(from+4096, len(a.byID))]
		some := make([]sighted, len(records))
		w := a.view()
		for i, r := range records {
			some[i] = a.sighted(w, r)
			last = r
		}
		a.mu.Unlock()
		for _, s := range some {
			if !yield(s) {
				return
			}
		}
		if len(some) == 0 {
			return
		}
	}
}

// mentions tells whether a folded text occurs in the contact. words are the words in it.
func (s *sighted) mentions(text string, words []string) bool {
	if s.state.doc == nil {
		// Taking an invented document apart takes much longer than inventing it, and most do not have the words anywhere.
		document := fold(string(s.view.append(make([]byte, 0, 4096), s.record, s.state)))
		if !allIn(document, words) {
			return false
		}
	}
	if strings.HasPrefix(fold(s.id), text) || strings.Contains(fold(s.name()), text) {
		return true
	}
	return slices.ContainsFunc(s.everything(), func(value string) bool { return strings.Contains(fold(value), text) })
}

func allIn(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}

func (s *sighted) name() string {
	var parts []string
	for _, field := range []string{"first name", "middle name", "last name"} {
		parts = append(parts, s.fields().texts(field)...)
	}
	if len(parts) == 0 {
		parts = s.fields().texts("company name")
	}
	return strings.Join(parts, " ")
}

func (s *sighted) sight() Sight {
	out := Sight{
		ID: s.id, Company: s.state.company, Standing: s.standing, Spoilt: s.state.doc != nil && s.state.doc.raw != nil,
		Created: time.UnixMicro(s.state.created).UTC(), Updated: time.UnixMicro(s.state.updated).UTC(),
		Name: s.name(), Emails: s.fields().texts("email"), Phones: s.fields().texts("phone"), Tags: s.tags(),
		Document: s.view.append(nil, s.record, s.state),
	}
	first := func(field string) string {
		if texts := s.fields().texts(field); len(texts) > 0 {
			return texts[0]
		}
		return ""
	}
	out.Title, out.Employer = first("title"), first("parent company")
	var job struct {
		Company string `json:"company_name"`
		Title   string `json:"title"`
	}
	if json.Unmarshal([]byte(first("contact employment")), &job) == nil {
		out.Title, out.Employer = cmp.Or(out.Title, job.Title), cmp.Or(out.Employer, job.Company)
	}
	if s.doc != nil {
		out.Starred = string(s.doc.get("is_important")) == "true"
	}
	return out
}
