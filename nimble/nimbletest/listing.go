package nimbletest

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
)

// row is one contact of a listing, in the version that the index had when the listing was made.
type row struct {
	record *record
	state  state
	id     string
}

// listing is the question that a listing answers.
type listing struct {
	query      *query // nil for none
	queryText  string
	recordType string // "person", "company", or "" for all
	keyword    string
	sort       string // the field, "" for the account's own order
	descending bool
	offset     int
	limit      int
}

// sortable are the text fields that a listing can be sorted by.
var sortable = []string{"first name", "middle name", "last name", "company name", "title", "parent company", "domain"}

// list gives the rows from offset on, at most limit, and the number of rows there are.
func (a *Account) list(l *listing) (rows []row, total int) {
	records, total := a.slice(l)
	rows = make([]row, len(records))
	for i, r := range records {
		rows[i] = row{r, *r.indexed(), a.idOf(r)}
	}
	return rows, total
}

// slice chooses the cheapest way to the asked part of the result.
func (a *Account) slice(l *listing) (records []*record, total int) {
	x := a.index
	created, updated := always, always
	exact := l.recordType == "" && l.keyword == ""
	if l.query != nil {
		created, updated = l.query.created, l.query.updated
		exact = exact && l.query.exact
	}
	switch {
	case !exact || (created != always && updated != always):
		return a.cut(l, a.gathered(l, created, updated))
	case l.sort == "updated" && created == always:
		return a.cut(l, x.byUpdated.between(updated))
	case l.sort == "created" && updated == always:
		return a.cut(l, x.byCreated.between(created))
	case l.sort == "" && created == always && updated == always:
		return a.cut(l, x.byScramble.records)
	case l.sort != "":
		return a.cut(l, a.gathered(l, created, updated))
	}
	// A range in the account's own order. Walking that order until the page is full is cheap when the range has
	// much of the account, sorting the range is cheap when it has little.
	o, iv := &x.byUpdated, updated
	if created != always {
		o, iv = &x.byCreated, created
	}
	total = len(o.between(iv))
	need := min(l.offset+l.limit, total)
	if total == 0 || need*(len(x.byScramble.records)/total) > total {
		return a.cut(l, a.gathered(l, created, updated))
	}
	for _, r := range x.byScramble.records {
		if need == 0 {
			break
		}
		if iv.contains(o.key(r.indexed())) {
			need--
			records = append(records, r)
		}
	}
	return records[min(l.offset, len(records)):], total
}

// cut takes the asked page out of a whole result.
func (a *Account) cut(l *listing, whole []*record) (page []*record, total int) {
	total = len(whole)
	lo := min(l.offset, total)
	hi := min(l.offset+l.limit, total)
	if l.descending {
		lo, hi = total-hi, total-lo
	}
	page = slices.Clone(whole[lo:hi])
	if a.behaviour.UnstableTies && l.sort != "" {
		page = a.shuffled(l.sort, whole, lo, hi)
	}
	if l.descending {
		slices.Reverse(page)
	}
	return page, total
}

// shuffled is the part of a sorted result between lo and hi, had the ties fallen otherwise this time.
func (a *Account) shuffled(sort string, whole []*record, lo, hi int) []*record {
	key := func(r *record) int64 {
		if sort == "created" {
			return r.indexed().created
		}
		return r.indexed().updated
	}
	if lo == hi || (sort != "created" && sort != "updated") {
		return slices.Clone(whole[lo:hi])
	}
	from, to := lo, hi
	for from > 0 && key(whole[from-1]) == key(whole[lo]) {
		from--
	}
	for to < len(whole) && key(whole[to]) == key(whole[hi-1]) {
		to++
	}
	part := slices.Clone(whole[from:to])
	chance := rand.New(rand.NewPCG(a.inventor.seed, uint64(a.requests)))
	for i := 0; i < len(part); {
		j := i + 1
		for j < len(part) && key(part[j]) == key(part[i]) {
			j++
		}
		tied := part[i:j]
		chance.Shuffle(len(tied), func(p, q int) { tied[p], tied[q] = tied[q], tied[p] })
		i = j
	}
	return part[lo-from : hi-from]
}

// resultCache remembers the last results that took a search, for the following pages.
type resultCache struct {
	entries [2]cachedResult
	next    int
}

type cachedResult struct {
	generation uint64
	key        string
	records    []*record
}

// gathered gives the whole result in ascending order, from the cache if nothing has changed since.
func (a *Account) gathered(l *listing, created, updated interval) []*record {
	key := strings.Join([]string{l.queryText, l.recordType, l.keyword, l.sort}, "\x00")
	cacheable := l.query == nil || !l.query.relative
	if cacheable {
		for _, e := range a.cache.entries {
			if e.records != nil && e.generation == a.index.generation && e.key == key {
				return e.records
			}
		}
	}
	found := a.gather(l, created, updated)
	if cacheable {
		a.cache.entries[a.cache.next] = cachedResult{a.index.generation, key, found}
		a.cache.next = (a.cache.next + 1) % len(a.cache.entries)
	}
	return found
}

// gather searches the narrowest part of the index that holds all matches.
func (a *Account) gather(l *listing, created, updated interval) []*record {
	within := a.index.byUpdated.between(updated)
	if other := a.index.byCreated.between(created); len(other) < len(within) {
		within = other
	}
	if l.query != nil && l.query.ids != nil && len(l.query.ids) < len(within) {
		within = a.those(l.query.ids)
	}
	w := a.view()
	keyword := fold(l.keyword)
	found := make([]*record, 0, min(len(within), 1024))
	keys := make(map[*record]string)
	for _, r := range within {
		c := &candidate{account: a, view: w, record: r, state: r.indexed()}
		if l.recordType != "" && c.state.company != (l.recordType == "company") {
			continue
		}
		if l.query != nil && !l.query.match(c) {
			continue
		}
		if keyword != "" && !slices.ContainsFunc(c.everything(), func(s string) bool { return strings.Contains(fold(s), keyword) }) {
			continue
		}
		found = append(found, r)
		if slices.Contains(sortable, l.sort) {
			keys[r] = fold(strings.Join(c.fields().texts(l.sort), " "))
		}
	}
	switch l.sort {
	case "":
		slices.SortFunc(found, compareTied)
	case "updated":
		slices.SortFunc(found, a.index.byUpdated.compare)
	case "created":
		slices.SortFunc(found, a.index.byCreated.compare)
	default:
		slices.SortFunc(found, func(p, q *record) int { return cmp.Or(cmp.Compare(keys[p], keys[q]), compareTied(p, q)) })
	}
	return found
}

// those gives the contacts with the given ids that the index has, each once.
func (a *Account) those(ids []string) []*record {
	var found []*record
	for _, id := range ids {
		if r := a.find(id); r != nil && r.indexed().listed() && !slices.Contains(found, r) {
			found = append(found, r)
		}
	}
	return found
}
