package nimbletest

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Account is a simulated Nimble account, seen through the key of one of its users. It is an [http.Handler] that
// serves the API under /api/v1; [Account.Transport] and [NewServer] are two ways to reach it. All methods may
// be called at any time from any goroutine, also while requests are being served.
//
// An account starts no goroutine and no timer: whatever is due by its clock happens when it is next looked at.
type Account struct {
	companyID string
	clock     func() time.Time
	inventor  *inventor

	mu        sync.Mutex
	key       string
	refuseKey bool
	behaviour Behaviour
	users     map[string]string // renamed display names; replaced, never changed, as answers read it unlocked

	slab     []record           // the first contacts, by ordinal
	byID     []*record          // every contact there ever was, by id
	odd      map[string]*record // contacts whose ids are not Nimble's
	oddIDs   map[*record]string
	visible  int    // contacts that the user can see, in the store
	ordinal  uint32 // of the next contact
	last     int64  // the newest stamp given out, Unix microseconds
	days     int    // countdowns so far
	index    *index
	cache    resultCache
	requests int // since the account began

	observation
	faults []injected
}

// Option sets up an account; see [New].
type Option func(*settings)

type settings struct {
	key, companyID string
	seed           uint64
	contacts       int
	clock          func() time.Time
}

// WithKey sets the API key that the account accepts. Defaults to "test-key".
func WithKey(key string) Option { return func(s *settings) { s.key = key } }

// WithCompanyID sets the account's company_id. Defaults to an id made from the seed.
func WithCompanyID(id string) Option { return func(s *settings) { s.companyID = id } }

// WithSeed chooses what is invented: equal seeds (with equal numbers of contacts and equal clocks) give equal
// accounts. Defaults to 1.
func WithSeed(seed uint64) Option { return func(s *settings) { s.seed = seed } }

// WithContacts lets the account begin with n invented contacts, about 15 in 100 of them companies, created and
// edited over the six years before the account's now. n is at most 16,000,000. Their content takes no memory
// until they are edited; a million of them take about 100 MB.
func WithContacts(n int) Option { return func(s *settings) { s.contacts = n } }

// WithClock sets the account's clock. It gives the times of edits, the Date header, and the now of relative
// queries and of the index lag. It must not call the account. Defaults to [time.Now], which in a
// testing/synctest bubble is the bubble's clock.
func WithClock(clock func() time.Time) Option { return func(s *settings) { s.clock = clock } }

// New makes an account.
func New(opts ...Option) *Account {
	s := settings{key: "test-key", seed: 1, clock: time.Now}
	for _, opt := range opts {
		opt(&s)
	}
	if s.contacts < 0 || s.contacts > 16_000_000 {
		panic(fmt.Sprintf("nimbletest: WithContacts(%d): want 0 to 16000000", s.contacts))
	}
	if s.companyID == "" {
		s.companyID = fmt.Sprintf("6e%06x%016x", s.seed&0xffffff, mix(s.seed, 3))
	}
	a := &Account{
		companyID: s.companyID,
		clock:     s.clock,
		key:       s.key,
		inventor:  &inventor{seed: s.seed},
		odd:       make(map[string]*record),
		oddIDs:    make(map[*record]string),
		index:     newIndex(),
	}
	a.settleIn(s.contacts)
	return a
}

// settleIn fills the account with the contacts it begins with.
func (a *Account) settleIn(n int) {
	now := micros(a.clock())
	if n == 0 {
		return
	}
	const span = 6 * 365 * 24 * int64(time.Hour/time.Microsecond)
	slab := make([]record, n)
	a.slab, a.inventor.slab = slab, slab
	a.ordinal = uint32(n)
	step := (span - 1) / int64(n)
	all := make([]*record, n)
	for i := range slab {
		r := &slab[i]
		d := newDice(a.inventor.seed, uint64(i), "times")
		r.ordinal = uint32(i)
		r.stored.created = now - span + int64(i)*step + int64(d.next()%uint64(step))
		r.id = newObjectID(r.stored.created, a.inventor.seed, r.ordinal)
		r.stored.updated = r.stored.created
		if !d.chance(20) { // Edited since, more likely in the years right after.
			age := uint64(now - r.stored.created)
			r.stored.updated += int64(min(d.next()%age, d.next()%age))
		}
		r.stored.company = a.inventor.isCompany(r.ordinal)
		r.stored.visible = true
		all[i] = r
	}
	x := a.index
	x.byUpdated.records = slices.Clone(all)
	slices.SortFunc(x.byUpdated.records, x.byUpdated.compare)
	for i, r := range x.byUpdated.records { // No two edits at the same microsecond.
		if i > 0 {
			r.stored.updated = max(r.stored.updated, x.byUpdated.records[i-1].stored.updated+1)
		}
	}
	a.last = x.byUpdated.records[n-1].stored.updated
	x.byCreated.records = slices.Clone(all) // The slab is in order of creation.
	x.byScramble.records = slices.Clone(all)
	slices.SortFunc(x.byScramble.records, compareTied)
	a.byID = all
	slices.SortFunc(a.byID, func(p, q *record) int { return slices.Compare(p.id[:], q.id[:]) })
	a.visible = n
}

// stamp gives the time of an edit: now, or the microsecond after the edit before it if the clock did not move on.
func (a *Account) stamp() int64 {
	a.last = max(micros(a.clock()), a.last+1)
	return a.last
}

// find looks a contact up by id, also a deleted or hidden one.
func (a *Account) find(id string) *record {
	if r, ok := a.odd[id]; ok {
		return r
	}
	oid, ok := parseObjectID(id)
	if !ok {
		return nil
	}
	i, found := a.position(oid)
	if !found {
		return nil
	}
	return a.byID[i]
}

func (a *Account) position(id objectID) (int, bool) {
	return slices.BinarySearchFunc(a.byID, id, func(r *record, id objectID) int {
		return slices.Compare(r.id[:], id[:])
	})
}

// idOf is the id that a contact goes by.
func (a *Account) idOf(r *record) string {
	if id, ok := a.oddIDs[r]; ok {
		return id
	}
	return r.id.String()
}

// add makes the record of a new contact, not yet visible anywhere.
func (a *Account) add(created int64) *record {
	r := &record{ordinal: a.ordinal}
	a.ordinal++
	r.id = newObjectID(created, a.inventor.seed, r.ordinal)
	a.place(r)
	return r
}

func (a *Account) place(r *record) {
	i, _ := a.position(r.id)
	a.byID = slices.Insert(a.byID, i, r)
}

// change is a new version of a contact.
type change struct {
	record *record
	next   state
}

// commit stores new versions and sends them on their way into the index.
func (a *Account) commit(changes ...change) {
	now := micros(a.clock())
	a.index.settle(now)
	var here []arrival
	for _, c := range changes {
		r := c.record
		if r.stored.visible {
			a.visible--
		}
		if c.next.visible {
			a.visible++
		}
		if r.lag == nil {
			r.lag = &lag{indexed: r.stored}
		}
		r.lag.waiting++
		r.stored = c.next
		wait := a.behaviour.IndexLag
		if a.behaviour.LagOf != nil {
			wait = a.behaviour.LagOf(a.idOf(r))
		}
		a.index.sequence++
		next := arrival{record: r, next: c.next, due: now + wait.Microseconds(), number: a.index.sequence}
		if wait <= 0 {
			here = append(here, next)
		} else {
			heap.Push(&a.index.pending, next)
		}
	}
	a.index.apply(here)
}

// view gives the present way of writing documents. It may be used after the lock is released.
func (a *Account) view() *view {
	return &view{
		inventor:  a.inventor,
		times:     a.behaviour.Timestamps,
		zone:      a.behaviour.UserZone,
		tagTexts:  a.behaviour.TagsAsStrings,
		stageList: a.behaviour.StagesAsList,
		countdown: a.days,
		renamed:   a.users,
	}
}

// SetBehaviour changes how the account answers from now on. The function is called while the account is locked
// and must not call it.
func (a *Account) SetBehaviour(set func(b *Behaviour)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index.settle(micros(a.clock()))
	set(&a.behaviour)
	a.index.generation++ // What queries mean may have changed.
}

// Behaviour gives the present behaviour.
func (a *Account) Behaviour() Behaviour {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.behaviour
}

// Key gives the key that the account accepts, unless it is refused at present.
func (a *Account) Key() (key string, refused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.key, a.refuseKey
}

// RefuseKey makes the account refuse its key, as if it were revoked, or accept it again.
func (a *Account) RefuseKey(refuse bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuseKey = refuse
}

// RotateKey replaces the accepted key.
func (a *Account) RotateKey(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key = key
}

// IDs gives the ids of the contacts that the user can see, in order of id. It is the truth, whatever the index
// has of it.
func (a *Account) IDs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := make([]string, 0, a.visible)
	for _, r := range a.byID {
		if r.stored.visible {
			ids = append(ids, a.idOf(r))
		}
	}
	slices.Sort(ids)
	return ids
}

// Contact gives the contact as reading it by id would show it; ok is false when the user cannot see it.
func (a *Account) Contact(id string) (raw jsontext.Value, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.find(id)
	if r == nil || !r.stored.visible {
		return nil, false
	}
	return a.view().append(nil, r, &r.stored), true
}

// Len is the number of contacts that the user can see.
func (a *Account) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.visible
}

// Times gives the created and updated time of a contact, also of a deleted or hidden one; both are zero when
// there never was such a contact.
func (a *Account) Times(id string) (created, updated time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.find(id); r != nil {
		return time.UnixMicro(r.stored.created).UTC(), time.UnixMicro(r.stored.updated).UTC()
	}
	return created, updated
}

// RenameUser changes the display name of a user wherever contacts show it, at once and also in the index. No
// contact's updated moves.
func (a *Account) RenameUser(old, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	users := maps.Clone(a.users)
	if users == nil {
		users = make(map[string]string)
	}
	for k, v := range users {
		if v == old {
			users[k] = name
		}
	}
	users[old] = name
	a.users = users
	a.record(OpRenameUser, "", a.stamp())
}

// CountDown lets a day pass for what moves with the calendar: days_till_triggered of reminders goes down and
// last_contacted moves on. No contact's updated moves, and the index shows it at once.
func (a *Account) CountDown() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.days++
	for _, r := range a.byID {
		if r.stored.doc != nil {
			if moved, changed := r.stored.doc.advance(); changed {
				r.stored.doc = moved
			}
		}
		if r.lag != nil && r.lag.indexed.doc != nil {
			if moved, changed := r.lag.indexed.doc.advance(); changed {
				r.lag.indexed.doc = moved
			}
		}
	}
	for i := range a.index.pending {
		p := &a.index.pending[i]
		if p.next.doc != nil {
			if moved, changed := p.next.doc.advance(); changed {
				p.next.doc = moved
			}
		}
	}
	a.record(OpCountDown, "", a.stamp())
}

// me is the user whose key the account accepts.
func (a *Account) me() string {
	w := view{renamed: a.users}
	return w.userName(userNames[0])
}

// putTimes reads the times that a document of the test's own claims to have.
func putTimes(d *document, fallback int64) (created, updated int64) {
	read := func(name string) (int64, bool) {
		var text string
		if json.Unmarshal(d.get(name), &text) != nil {
			return 0, false
		}
		at, err := parseTimestamp(text)
		return at, err == nil
	}
	var hasCreated, hasUpdated bool
	created, hasCreated = read("created")
	updated, hasUpdated = read("updated")
	if !hasUpdated {
		updated = fallback
	}
	if !hasCreated {
		created = cmp.Or(created, updated)
	}
	return created, updated
}
