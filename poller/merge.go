package poller

import (
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// recent remembers who changed of late and which e-mail addresses and names they have now, as hashes: when a contact vanishes, the one that came to hold
// its address or its name may be the survivor of a merge.
type recent struct {
	seed    maphash.Seed
	changed []changed // Oldest first.
}

type changed struct {
	id     string
	at     time.Time
	traits []uint64
}

const (
	// recentFor is how long a change may come before the deletion is seen.
	recentFor = time.Hour
	// maxRecent bounds the memory for it; of an import, the last ones stay.
	maxRecent = 4096
	// maxCandidates is how many are named: more would be no hint.
	maxCandidates = 5
)

func newRecent() *recent { return &recent{seed: maphash.MakeSeed()} }

// note takes changes that were published.
func (r *recent) note(changes []Change, now time.Time) {
	for _, c := range changes {
		if c.Kind != Updated && c.Kind != Created {
			continue
		}
		if traits := r.traits(c.Contact.Raw); len(traits) > 0 {
			r.changed = append(r.changed, changed{c.Contact.ID, now, traits})
		}
	}
	old := max(len(r.changed)-maxRecent, 0)
	for old < len(r.changed) && now.Sub(r.changed[old].at) > recentFor {
		old++
	}
	r.changed = slices.Delete(r.changed, 0, old)
}

// holding returns the contacts that changed of late and have an e-mail address or the name of the given one, the latest first.
func (r *recent) holding(id string, raw jsontext.Value, now time.Time) []string {
	traits := r.traits(raw)
	var ids []string
	for _, c := range slices.Backward(r.changed) {
		if now.Sub(c.at) > recentFor || len(ids) == maxCandidates {
			break
		}
		shared := slices.ContainsFunc(c.traits, func(t uint64) bool { return slices.Contains(traits, t) })
		if shared && c.id != id && !slices.Contains(ids, c.id) {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// traits hashes a contact's e-mail addresses and its name, in lower case.
func (r *recent) traits(raw jsontext.Value) []uint64 {
	var contact struct {
		Fields map[string]jsontext.Value `json:"fields"`
	}
	if json.Unmarshal(raw, &contact, json.DefaultOptionsV2(), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
		return nil
	}
	values := func(field string) []string {
		var list []struct {
			Value jsontext.Value `json:"value"`
		}
		if json.Unmarshal(contact.Fields[field], &list) != nil {
			return nil
		}
		var texts []string
		for _, v := range list {
			var text string
			if json.Unmarshal(v.Value, &text) == nil && text != "" {
				texts = append(texts, strings.ToLower(strings.TrimSpace(text)))
			}
		}
		return texts
	}
	var traits []uint64
	for _, address := range values("email") {
		traits = append(traits, maphash.String(r.seed, "email "+address))
	}
	var name strings.Builder
	for _, field := range []string{"first name", "middle name", "last name", "company name"} {
		for _, part := range values(field) {
			name.WriteByte(0)
			name.WriteString(part)
		}
	}
	if name.Len() > 0 {
		traits = append(traits, maphash.String(r.seed, "name"+name.String()))
	}
	return traits
}
