package nimbletest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// inventor makes up the content of contacts. Everything follows from the seed and the contact's ordinal, so
// that a contact which nobody has edited needs no memory for its content: it is written anew each time.
type inventor struct {
	seed uint64
	slab []record // the contacts that the account began with, by ordinal; their ids never change
}

// Contacts come in blocks of twenty, of which three are companies (15 in a hundred); people work for the
// companies of their own block. So both ends of an employment are found without a search.
const (
	blockSize      = 20
	blockCompanies = 3
)

// companies gives the ordinals of the companies in a block.
func (v *inventor) companies(block uint32) [blockCompanies]uint32 {
	d := newDice(v.seed, uint64(block), "companies")
	var at [blockCompanies]uint32
	for i := range at {
		// One company in each third of the block: 0-5, 6-11, 12-17.
		at[i] = block*blockSize + uint32(i*6+d.below(6))
	}
	return at
}

// isCompany tells whether one of the first contacts is a company.
func (v *inventor) isCompany(ordinal uint32) bool {
	for _, c := range v.companies(ordinal / blockSize) {
		if c == ordinal {
			return true
		}
	}
	return false
}

// employer gives the company that a person works for.
func (v *inventor) employer(ordinal uint32) (company uint32, ok bool) {
	d := newDice(v.seed, uint64(ordinal), "employer")
	block := ordinal / blockSize
	if int(ordinal) >= len(v.slab) {
		if len(v.slab) < blockSize {
			return 0, false
		}
		block = uint32(d.below(len(v.slab) / blockSize)) // A newcomer joins any of the companies.
	}
	if d.chance(25) {
		return 0, false
	}
	company = v.companies(block)[d.below(blockCompanies)]
	return company, int(company) < len(v.slab)
}

// companyName is the name a company was invented with, and its domain.
func (v *inventor) companyName(ordinal uint32) (name, domain string) {
	d := newDice(v.seed, uint64(ordinal), "company")
	c := &cultures[d.below(len(cultures))]
	head, plain := spelling(d.pick(companyTop))
	if d.chance(60) {
		head, plain = spelling(d.pick(c.family))
	}
	trade := d.pick(trades)
	name = head + " " + trade + " " + d.pick(c.suffixes)
	// The ordinal makes the domain unique, as Nimble demands of an account's companies.
	domain = slug(plain) + "-" + slug(trade) + "-" + strconv.FormatUint(uint64(ordinal), 36) + ".example"
	return name, domain
}

// tags gives the tags a contact was invented with.
func (v *inventor) tags(ordinal uint32) []string {
	d := newDice(v.seed, uint64(ordinal), "tags")
	n := max(0, d.below(6)-2)
	if n == 0 {
		return nil
	}
	first := d.below(len(tagTexts))
	step := 1 + d.below(len(tagTexts)/4)
	tags := make([]string, n)
	for i := range tags {
		tags[i] = tagTexts[(first+i*step)%len(tagTexts)]
	}
	return tags
}

// tagID is the id that Nimble gives to a tag: an object's id, a slash, and the tag itself.
func tagID(text string) string {
	h := uint64(len(text))
	for i := range len(text) {
		h = mix(h, uint64(text[i]))
	}
	return fmt.Sprintf("6e%06x%016x/%s", h>>40&0xffffff, mix(h, 1), text)
}

// userID is the id of one of the account's users.
func userID(user int) string { return fmt.Sprintf("6e%020x%02x", 0, 0xa1+user) }

// view is how documents are to be written: what was switched or moved for the account as a whole.
type view struct {
	inventor  *inventor
	times     TimestampForm
	zone      *time.Location
	tagTexts  bool // tags as strings
	stageList bool // stages_info as a list
	countdown int
	renamed   map[string]string // display names of users, old to new
}

func (w *view) userName(name string) string {
	if n, ok := w.renamed[name]; ok {
		return n
	}
	return name
}

// appendInvented writes the document of a contact that nobody has edited.
func (w *view) appendInvented(b []byte, r *record, s *state) []byte {
	d := newDice(w.inventor.seed, uint64(r.ordinal), "document")
	user := d.below(len(userNames))
	kind := "person"
	if s.company {
		kind = "company"
	}
	b = append(b, `{"id":"`...)
	b = append(b, r.id.String()...)
	b = append(b, `","object_type":"contact","record_type":"`...)
	b = append(b, kind...)
	b = append(b, `","created":"`...)
	b = w.times.append(b, s.created, w.zone)
	b = append(b, `","updated":"`...)
	b = w.times.append(b, s.updated, w.zone)
	b = append(b, `","creator":`...)
	b = quote(b, w.userName(userNames[user]))
	b = append(b, `,"creator_id":"`...)
	b = append(b, userID(user)...)
	b = append(b, `","updater":null,"owner_id":`...)
	if d.chance(70) {
		b = quote(b, userID(d.below(len(userNames))))
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"fields":{`...)
	if s.company {
		b = w.inventor.appendCompanyFields(b, r.ordinal, &d)
	} else {
		b = w.appendPersonFields(b, r.ordinal, &d)
	}
	b = append(b, `},"tags":`...)
	tags := w.inventor.tags(r.ordinal)
	b = appendTags(b, tags, w.tagTexts)
	b = append(b, `,"tags2":`...)
	b = appendTags(b, tags, true)
	b = append(b, `,"children":[`...)
	if s.company {
		b = w.inventor.appendChildren(b, r.ordinal)
	}
	b = append(b, `],"employers_info":[`...)
	if !s.company {
		b = w.inventor.appendEmployer(b, r.ordinal)
	}
	b = append(b, `],"privacy":`...)
	switch {
	case d.chance(93):
		b = append(b, `{"read":null,"edit":null}`...)
	case d.chance(50):
		b = append(b, `{"read":null,"edit":{"user_ids":[],"group_ids":[]}}`...)
	default:
		b = append(b, `{"read":{"user_ids":["`...)
		b = append(b, userID(0)...)
		b = append(b, `"],"group_ids":[]},"edit":{"user_ids":["`...)
		b = append(b, userID(0)...)
		b = append(b, `"],"group_ids":[]}}`...)
	}
	b = append(b, `,"is_editable":true,"is_important":`...)
	b = append(b, d.pick([]string{"null", "null", "null", "false", "true"})...)
	b = append(b, `,"avatar_url":"https://app.nimble.com/api/avatars/`...)
	b = append(b, kind...)
	b = append(b, `_default","last_contacted":`...)
	b = w.appendLastContacted(b, r, s)
	b = append(b, `,"company_last_contacted":{"in":null,"out":null},"last_contacted_user":null,"lc":null,"reminder":`...)
	b = w.appendReminder(b, r)
	b = append(b, `,"reminders":null,"notice":`...)
	b = w.appendNotice(b, s, &d)
	b = append(b, `,"stages_info":`...)
	b = append(b, stages(w.stageList)...)
	return append(b, `,"files":null,"contexts":[]}`...)
}

func stages(list bool) string {
	if list {
		return "[]"
	}
	return "{}"
}

// appendValue writes one value object, with the comma before it when it is not the first of its list.
func appendValue(b []byte, value, modifier, label string, primary bool, extra string) []byte {
	if b[len(b)-1] == '}' {
		b = append(b, ',')
	}
	b = append(b, `{"value":`...)
	b = quote(b, value)
	b = append(b, `,"modifier":`...)
	b = quote(b, modifier)
	b = append(b, `,"label":`...)
	b = quote(b, label)
	b = append(b, `,"is_primary":`...)
	b = strconv.AppendBool(b, primary)
	if extra != "" {
		b = append(b, `,"extra_value":`...)
		b = quote(b, extra)
	}
	return append(b, '}')
}

// openField begins a field of the field map.
func openField(b []byte, name string) []byte {
	if b[len(b)-1] == ']' {
		b = append(b, ',')
	}
	b = quote(b, name)
	return append(b, ':', '[')
}

// appendField writes a field with one value.
func appendField(b []byte, name, value, modifier string, primary bool, extra string) []byte {
	return append(appendValue(openField(b, name), value, modifier, name, primary, extra), ']')
}

func (w *view) appendPersonFields(b []byte, ordinal uint32, d *dice) []byte {
	v := w.inventor
	c := &cultures[d.below(len(cultures))]
	given, plainGiven := spelling(d.pick(c.given))
	family, plainFamily := c.familyName(d)
	mail := slug(plainGiven) + "." + slug(plainFamily)
	b = appendField(b, "first name", given, "", false, "")
	if d.chance(12) {
		middle, _ := spelling(d.pick(c.given))
		b = appendField(b, "middle name", middle, "", false, "")
	}
	b = appendField(b, "last name", family, "", false, "")

	company, employed := v.employer(ordinal)
	domain := slug(plainFamily) + ".example"
	companyName, companyID := "", ""
	if employed {
		companyName, domain = v.companyName(company)
		companyID = v.slab[company].id.String()
	}
	b = openField(b, "email")
	b = appendValue(b, mail+"@"+domain, "work", "email", true, "")
	if d.chance(30) {
		b = appendValue(b, mail+strconv.Itoa(10+d.below(89))+"@mail.example", "personal", "email", false, "")
	}
	b = append(b, ']')
	b = openField(b, "phone")
	b = appendValue(b, c.phone(d), "work", "phone", true, "")
	if d.chance(45) {
		b = appendValue(b, c.phone(d), "mobile", "phone", false, "")
	}
	b = append(b, ']')
	if d.chance(75) {
		b = appendField(b, "address", c.address(d), d.pick([]string{"work", "home"}), false, "")
	}
	title := d.pick(titles)
	if employed {
		start := fmt.Sprintf("%02d/%d", 1+d.below(12), 2008+d.below(15))
		b = appendField(b, "contact employment", `{"company_name": `+jsonString(companyName)+`, "title": `+jsonString(title)+
			`, "start_date": "`+start+`", "end_date": null, "is_present": true}`, "", true, companyID)
		b = appendField(b, "parent company", companyName, "", false, companyID)
	}
	b = appendField(b, "title", title, "", false, "")
	if d.chance(40) {
		b = appendField(b, "URL", "https://"+domain+"/"+slug(plainGiven), "work", false, "")
	}
	if d.chance(55) {
		b = appendField(b, "description", d.pick(aboutLines), "other", false, "")
	}
	if d.chance(50) {
		b = appendField(b, "linkedin", "https://linkedin.example/in/"+slug(plainGiven)+"-"+slug(plainFamily)+"-"+strconv.Itoa(d.below(9000)), "", false, "")
	}
	if d.chance(20) {
		b = appendField(b, "twitter", "@"+slug(plainGiven)+strconv.Itoa(d.below(900)), "", false, "")
	}
	if d.chance(20) {
		b = appendField(b, "birthday", fmt.Sprintf("%02d/%02d", 1+d.below(12), 1+d.below(28)), "", false, "")
	}
	if d.chance(35) {
		b = appendField(b, "lead status", d.pick(leadStatuses), "", false, "")
		b = appendField(b, "lead source", d.pick(leadSources), "", false, "")
	}
	if d.chance(15) {
		b = appendField(b, "rating", strconv.Itoa(1+d.below(5)), "", false, "")
	}
	if d.chance(25) {
		b = appendField(b, "Customer number", fmt.Sprintf("K-%06d", d.below(1000000)), "", false, "")
	}
	return b
}

func (v *inventor) appendCompanyFields(b []byte, ordinal uint32, d *dice) []byte {
	home := newDice(v.seed, uint64(ordinal), "company") // The dice that named it, so that address and name go together.
	c := &cultures[home.below(len(cultures))]
	name, domain := v.companyName(ordinal)
	b = appendField(b, "company name", name, "", false, "")
	b = appendField(b, "domain", domain, "", false, "")
	b = openField(b, "email")
	b = appendValue(b, d.pick([]string{"info", "office", "hello", "sales"})+"@"+domain, "work", "email", true, "")
	if d.chance(40) {
		b = appendValue(b, "invoices@"+domain, "other", "email", false, "")
	}
	b = append(b, ']')
	b = openField(b, "phone")
	b = appendValue(b, c.phone(d), "main", "phone", true, "")
	if d.chance(40) {
		b = appendValue(b, c.phone(d), "work fax", "phone", false, "")
	}
	b = append(b, ']')
	b = openField(b, "address")
	b = appendValue(b, c.address(d), "work", "address", true, "")
	if d.chance(25) {
		b = appendValue(b, c.address(d), "other", "address", false, "")
	}
	b = append(b, ']')
	b = appendField(b, "URL", "https://www."+domain, "work", false, "")
	if d.chance(70) {
		b = appendField(b, "description", d.pick(aboutLines), "other", false, "")
	}
	if d.chance(60) {
		b = appendField(b, "annual revenue", strconv.Itoa((1+d.below(400))*50000), "", false, "")
		b = appendField(b, "# of employees", strconv.Itoa(1+d.below(8)), "", false, "")
	}
	if d.chance(30) {
		b = appendField(b, "lead status", d.pick(leadStatuses), "", false, "")
	}
	return b
}

// appendChildren writes the ids of the people who work for a company.
func (v *inventor) appendChildren(b []byte, company uint32) []byte {
	if int(company) >= len(v.slab) {
		return b
	}
	first := company - company%blockSize
	for o := first; o < first+blockSize && int(o) < len(v.slab); o++ {
		if v.isCompany(o) {
			continue
		}
		if e, ok := v.employer(o); ok && e == company {
			if b[len(b)-1] != '[' {
				b = append(b, ',')
			}
			b = quote(b, v.slab[o].id.String())
		}
	}
	return b
}

// appendEmployer writes Nimble's copy of the employer's data.
func (v *inventor) appendEmployer(b []byte, ordinal uint32) []byte {
	company, ok := v.employer(ordinal)
	if !ok {
		return b
	}
	name, _ := v.companyName(company)
	b = append(b, `{"contact_id":"`...)
	b = append(b, v.slab[company].id.String()...)
	b = append(b, `","company_name":`...)
	b = quote(b, name)
	return append(b, `,"avatar_url":"https://app.nimble.com/api/avatars/company_default"}`...)
}

// appendLastContacted writes when a contact was last heard of. Each countdown moves it on for those who were
// contacted at all.
func (w *view) appendLastContacted(b []byte, r *record, s *state) []byte {
	d := newDice(w.inventor.seed, uint64(r.ordinal), "contacted")
	if !d.chance(40) {
		return append(b, `{"tstamp":null,"type":null,"object_id":null,"user_id":null,"deletion_tstamp":null}`...)
	}
	at := time.UnixMicro(s.created).UTC().Add(time.Duration(d.below(90*86400))*time.Second).AddDate(0, 0, w.countdown)
	b = append(b, `{"tstamp":"`...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05-0700")
	b = append(b, `","type":"`...)
	b = append(b, d.pick([]string{"email", "call", "meeting"})...)
	b = append(b, `","object_id":"`...)
	b = fmt.Appendf(b, "6d%06x%016x", r.ordinal, mix(uint64(r.ordinal), 77))
	b = append(b, `","user_id":"`...)
	b = append(b, userID(d.below(len(userNames)))...)
	b = append(b, `","deletion_tstamp":null,"direction":"`...)
	b = append(b, d.pick([]string{"in", "out"})...)
	return append(b, `"}`...)
}

// appendReminder writes the stay-in-touch reminder of the few contacts that have one.
func (w *view) appendReminder(b []byte, r *record) []byte {
	d := newDice(w.inventor.seed, uint64(r.ordinal), "reminder")
	if !d.chance(6) {
		return append(b, "null"...)
	}
	left := max(0, d.below(60)-w.countdown)
	b = append(b, `{"contact_id":"`...)
	b = append(b, r.id.String()...)
	b = append(b, `","period":"`...)
	b = append(b, d.pick(periods)...)
	b = append(b, `","days_till_triggered":`...)
	b = strconv.AppendInt(b, int64(left), 10)
	b = append(b, `,"active":true,"triggered":`...)
	b = strconv.AppendBool(b, left == 0)
	return append(b, '}')
}

func (w *view) appendNotice(b []byte, s *state, d *dice) []byte {
	if !d.chance(4) {
		return append(b, "null"...)
	}
	user := d.below(len(userNames))
	b = append(b, `{"text":`...)
	b = quote(b, d.pick(aboutLines))
	b = append(b, `,"color":"yellow","created":"`...)
	b = w.times.append(b, s.created, w.zone)
	b = append(b, `","updated":"`...)
	b = w.times.append(b, s.created, w.zone)
	b = append(b, `","creator":{"id":"`...)
	b = append(b, userID(user)...)
	b = append(b, `","name":`...)
	b = quote(b, w.userName(userNames[user]))
	return append(b, `},"updated_by":null}`...)
}

// appendTags writes a tag list as objects or as bare texts.
func appendTags(b []byte, tags []string, texts bool) []byte {
	b = append(b, '[')
	for i, tag := range tags {
		if i > 0 {
			b = append(b, ',')
		}
		if texts {
			b = quote(b, tag)
			continue
		}
		b = append(b, `{"tag":`...)
		b = quote(b, tag)
		b = append(b, `,"id":`...)
		b = quote(b, tagID(tag))
		b = append(b, '}')
	}
	return append(b, ']')
}

// familyName is a family name, or two of them joined where that is customary enough.
func (c *culture) familyName(d *dice) (name, plain string) {
	entry, second := d.pick(c.family), d.pick(c.family)
	if d.chance(30) && second != entry && !strings.ContainsAny(entry+second, "|- ") {
		entry += "-" + second
	}
	return spelling(entry)
}

func (c *culture) phone(d *dice) string {
	return fmt.Sprintf("%s %d %03d %04d", c.dial, 20+d.below(79), d.below(1000), d.below(10000))
}

// address is a postal address as Nimble sends it: a JSON object encoded as a string.
func (c *culture) address(d *dice) string {
	p := &c.places[d.below(len(c.places))]
	b := append(make([]byte, 0, 160), `{"street": `...)
	b = quote(b, d.pick(p.streets))
	b = append(b, `, "city": `...)
	b = quote(b, p.city)
	if p.state != "" {
		b = append(b, `, "state": `...)
		b = quote(b, p.state)
	}
	if p.zip != "" {
		b = append(b, `, "zip": `...)
		b = quote(b, p.zip)
	}
	b = append(b, `, "country": `...)
	b = quote(b, p.country)
	return string(append(b, '}'))
}

// spelling splits a pool's entry into the name and its ASCII form.
func spelling(entry string) (name, plain string) {
	if name, plain, ok := strings.Cut(entry, "|"); ok {
		return name, plain
	}
	return entry, fold(entry)
}

// slug makes the part of an address out of a name: lower-case ASCII letters, digits and hyphens.
func slug(s string) string {
	b := make([]byte, 0, len(s))
	for _, c := range []byte(fold(s)) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b = append(b, c)
		case (c == ' ' || c == '-') && len(b) > 0 && b[len(b)-1] != '-':
			b = append(b, '-')
		}
	}
	return strings.TrimSuffix(string(b), "-")
}

// quote appends s as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func quote(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

func jsonString(s string) string { return string(quote(nil, s)) }

// dice is a small deterministic source of chance (splitmix64), cheap enough to make one per decision.
type dice struct{ state uint64 }

// newDice gives independent dice for each purpose, so that one part of a contact can be known without the rest.
func newDice(seed, ordinal uint64, purpose string) dice {
	h := mix(seed, ordinal)
	for i := 0; i < len(purpose); i += 4 {
		h = mix(h, uint64(purpose[i])<<8|uint64(len(purpose)))
	}
	return dice{h}
}

func (d *dice) next() uint64 {
	d.state += 0x9e3779b97f4a7c15
	z := d.state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (d *dice) below(n int) int           { return int(d.next() % uint64(n)) }
func (d *dice) chance(percent int) bool   { return d.below(100) < percent }
func (d *dice) pick(from []string) string { return from[d.below(len(from))] }
