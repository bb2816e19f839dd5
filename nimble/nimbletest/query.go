package nimbletest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Limits that Nimble documents for a query.
const (
	maxLeaves = 11
	maxDepth  = 20
)

// query is a parsed query. What it says of created, updated and ids as a whole is kept apart, as the index can
// answer that without looking at every contact.
type query struct {
	match            func(*candidate) bool
	created, updated interval
	ids              []string // nil: any
	// exact says that created and updated are all there is to the query.
	exact bool
	// relative says that the query means something else a moment later.
	relative bool
}

// candidate is a contact that a query is held against, in its indexed version.
type candidate struct {
	account *Account
	view    *view
	record  *record
	state   *state
	doc     *document
	fieldsM fieldMap
	read    bool
}

// content reads the document; most queries never need it.
func (c *candidate) content() {
	if c.read {
		return
	}
	c.read = true
	c.doc = c.state.doc
	if c.doc == nil {
		members, err := parseObject(c.view.append(nil, c.record, c.state))
		if err != nil {
			return
		}
		c.doc = &document{members: members}
	}
	c.fieldsM = c.doc.fields()
}

func (c *candidate) fields() fieldMap { c.content(); return c.fieldsM }

func (c *candidate) tags() []string {
	if c.state.doc == nil {
		return c.view.inventor.tags(c.record.ordinal)
	}
	return c.state.doc.tags()
}

// queryParser reads the JSON of a query.
type queryParser struct {
	behaviour *Behaviour
	now       int64
	leaves    int
	relative  bool
}

// node is a part of a query. Besides the test itself it says what the index can use: every contact that matches
// lies in the intervals and, when ids is not nil, has one of the ids. exact means that the intervals say it all.
type node struct {
	match            func(*candidate) bool
	created, updated interval
	ids              []string
	exact            bool
}

func all(match func(*candidate) bool) node {
	return node{match: match, created: always, updated: always}
}

// parseQuery reads a query; the error is the text for the 409.
func parseQuery(text string, b *Behaviour, now int64) (*query, error) {
	var tree any
	if err := json.Unmarshal([]byte(text), &tree); err != nil {
		return nil, errors.New("query is not valid JSON")
	}
	p := &queryParser{behaviour: b, now: now}
	n, err := p.parse(tree, 1)
	if err != nil {
		return nil, err
	}
	return &query{match: n.match, created: n.created, updated: n.updated, ids: n.ids, exact: n.exact, relative: p.relative}, nil
}

func (p *queryParser) parse(tree any, depth int) (node, error) {
	if depth > maxDepth {
		return node{}, fmt.Errorf("query is nested deeper than %d", maxDepth)
	}
	name, value, err := only(tree)
	if err != nil {
		return node{}, err
	}
	switch name {
	case "and", "or":
		list, ok := value.([]any)
		if !ok || len(list) == 0 {
			return node{}, fmt.Errorf("%q takes a list of conditions", name)
		}
		parts := make([]node, len(list))
		for i, item := range list {
			if parts[i], err = p.parse(item, depth+1); err != nil {
				return node{}, err
			}
		}
		if name == "and" {
			return conjunction(parts), nil
		}
		return disjunction(parts), nil
	case "not":
		if list, ok := value.([]any); ok {
			if len(list) != 1 {
				return node{}, fmt.Errorf("%q takes one condition", name)
			}
			value = list[0]
		}
		part, err := p.parse(value, depth+1)
		if err != nil {
			return node{}, err
		}
		return all(func(c *candidate) bool { return !part.match(c) }), nil
	}
	p.leaves++
	if p.leaves > maxLeaves {
		return node{}, fmt.Errorf("query has more than %d conditions", maxLeaves)
	}
	operator, operand, err := only(value)
	if err != nil {
		return node{}, fmt.Errorf("field %q: %w", name, err)
	}
	n, err := p.leaf(name, operator, operand)
	if err != nil {
		return node{}, fmt.Errorf("field %q, operator %q: %w", name, operator, err)
	}
	return n, nil
}

// only takes apart an object with one key.
func only(tree any) (name string, value any, err error) {
	if object, ok := tree.(map[string]any); ok && len(object) == 1 {
		for name, value := range object {
			return name, value, nil
		}
	}
	return "", nil, errors.New("want an object with exactly one key")
}

func conjunction(parts []node) node {
	n := node{created: always, updated: always, exact: true}
	for _, part := range parts {
		n.created, n.updated = n.created.cap(part.created), n.updated.cap(part.updated)
		n.exact = n.exact && part.exact
		if part.ids != nil {
			n.ids = part.ids
		}
	}
	n.match = func(c *candidate) bool {
		for _, part := range parts {
			if !part.match(c) {
				return false
			}
		}
		return true
	}
	return n
}

func disjunction(parts []node) node {
	if len(parts) == 1 {
		return parts[0]
	}
	return all(func(c *candidate) bool {
		for _, part := range parts {
			if part.match(c) {
				return true
			}
		}
		return false
	})
}

var (
	errOperator = errors.New("not supported")
	errOperand  = errors.New("bad value")
)

func (p *queryParser) leaf(field, operator string, operand any) (node, error) {
	switch field {
	case "created", "updated":
		return p.dateLeaf(field, operator, operand)
	case "_id":
		return idLeaf(operator, operand)
	case "record type":
		kind, ok := operand.(string)
		switch {
		case operator != "is":
			return node{}, errOperator
		case !ok || (kind != "person" && kind != "company"):
			return node{}, errOperand
		}
		return all(func(c *candidate) bool { return c.state.company == (kind == "company") }), nil
	case "tag":
		return textLeaf(operator, operand, false, (*candidate).tags)
	case "names":
		return textLeaf(operator, operand, true, func(c *candidate) []string {
			f := c.fields()
			first, last := f.texts("first name"), f.texts("last name")
			names := slices.Concat(first, last, f.texts("middle name"), f.texts("company name"))
			if len(first) > 0 && len(last) > 0 {
				names = append(names, first[0]+" "+last[0])
			}
			return names
		})
	case "__any":
		return textLeaf(operator, operand, true, (*candidate).everything)
	case "email", "phone", "domain", "URL", "description", "title", "parent company",
		"first name", "middle name", "last name", "company name":
		return textLeaf(operator, operand, true, func(c *candidate) []string { return c.fields().texts(field) })
	}
	return node{}, errOperator
}

// everything is what a keyword is looked for in.
func (c *candidate) everything() []string {
	var texts []string
	for _, f := range c.fields() {
		texts = append(texts, c.fields().texts(f.name)...)
	}
	return append(texts, c.tags()...)
}

func idLeaf(operator string, operand any) (node, error) {
	ids, ok := texts(operand, operator == "is")
	if !ok {
		return node{}, errOperand
	}
	has := func(c *candidate) bool { return slices.Contains(ids, c.account.idOf(c.record)) }
	switch operator {
	case "is", "in":
		n := all(has)
		n.ids = ids
		return n, nil
	case "not_in":
		return all(func(c *candidate) bool { return !has(c) }), nil
	}
	return node{}, errOperator
}

// textLeaf compares folded texts; contain is offered for running text only.
func textLeaf(operator string, operand any, contain bool, get func(*candidate) []string) (node, error) {
	switch operator {
	case "is", "is_not", "contain":
		wanted, ok := texts(operand, true)
		if !ok {
			return node{}, errOperand
		}
		w := fold(wanted[0])
		if operator == "contain" {
			if !contain {
				return node{}, errOperator
			}
			return all(func(c *candidate) bool {
				return slices.ContainsFunc(get(c), func(s string) bool { return strings.Contains(fold(s), w) })
			}), nil
		}
		return all(func(c *candidate) bool {
			found := slices.ContainsFunc(get(c), func(s string) bool { return fold(s) == w })
			return found == (operator == "is")
		}), nil
	case "in":
		wanted, ok := texts(operand, false)
		if !ok {
			return node{}, errOperand
		}
		for i := range wanted {
			wanted[i] = fold(wanted[i])
		}
		return all(func(c *candidate) bool {
			return slices.ContainsFunc(get(c), func(s string) bool { return slices.Contains(wanted, fold(s)) })
		}), nil
	case "is_empty":
		empty, ok := operand.(bool)
		if !ok {
			return node{}, errOperand
		}
		return all(func(c *candidate) bool { return (len(get(c)) == 0) == empty }), nil
	}
	return node{}, errOperator
}

// texts reads one string, or a list of them; none of them may be empty.
func texts(operand any, single bool) ([]string, bool) {
	if single {
		s, ok := operand.(string)
		return []string{s}, ok && s != ""
	}
	list, ok := operand.([]any)
	if !ok || len(list) == 0 {
		return nil, false
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok || out[i] == "" {
			return nil, false
		}
	}
	return out, true
}

// dateLeaf reads a condition on created or updated.
func (p *queryParser) dateLeaf(field, operator string, operand any) (node, error) {
	arguments, ok := operand.(map[string]any)
	if !ok {
		return node{}, errOperand
	}
	var iv interval
	var err error
	mode := p.behaviour.Range
	switch operator {
	case "range", "not_in_range":
		iv, err = p.rangeInterval(arguments)
	case "in_the_last", "not_in_the_last":
		mode = p.behaviour.Relative
		p.relative = true
		iv, err = p.relativeInterval(arguments)
	default:
		return node{}, errOperator
	}
	if p.behaviour.UpdatedOnly && field != "updated" {
		mode = RangeHonoured
	}
	switch {
	case err != nil:
		return node{}, err
	case mode == RangeRefused:
		return node{}, errOperator
	case mode == RangeIgnored:
		n := all(func(*candidate) bool { return true })
		n.exact = true
		return n, nil
	}
	at := func(s *state) int64 { return s.updated }
	if field == "created" {
		at = func(s *state) int64 { return s.created }
	}
	if strings.HasPrefix(operator, "not_") {
		return all(func(c *candidate) bool { return !iv.contains(at(c.state)) }), nil
	}
	n := all(func(c *candidate) bool { return iv.contains(at(c.state)) })
	n.exact = true
	if field == "created" {
		n.created = iv
	} else {
		n.updated = iv
	}
	return n, nil
}

// relativeInterval reads the argument of in_the_last.
func (p *queryParser) relativeInterval(arguments map[string]any) (interval, error) {
	unit, _ := arguments["unit"].(string)
	quantity, ok := arguments["quantity"].(float64)
	if len(arguments) != 2 || !ok || quantity < 1 || quantity != math.Trunc(quantity) || quantity > 1e9 {
		return interval{}, errOperand
	}
	n := int(quantity)
	now := time.UnixMicro(p.now).UTC()
	var from time.Time
	switch unit {
	case "second":
		if p.behaviour.NoSecondUnit {
			return interval{}, errOperand
		}
		from = now.Add(-time.Duration(n) * time.Second)
	case "day":
		from = now.AddDate(0, 0, -min(n, 1e6))
	case "week":
		from = now.AddDate(0, 0, -7*min(n, 1e5))
	case "month":
		from = now.AddDate(0, -min(n, 1e5), 0)
	case "year":
		from = now.AddDate(-min(n, 1e4), 0, 0)
	default:
		return interval{}, errOperand
	}
	return interval{micros(from), p.now}, nil
}

// rangeInterval reads the argument of range: two dates or two datetimes.
func (p *queryParser) rangeInterval(arguments map[string]any) (interval, error) {
	read := func(name string) string { s, _ := arguments[name].(string); return s }
	if len(arguments) != 2 {
		return interval{}, errOperand
	}
	zone := p.behaviour.UserZone
	if zone == nil {
		zone = time.UTC
	}
	if read("start_date") != "" && read("end_date") != "" {
		start, err1 := time.ParseInLocation(time.DateOnly, read("start_date"), zone)
		end, err2 := time.ParseInLocation(time.DateOnly, read("end_date"), zone)
		if err1 != nil || err2 != nil || !p.accepts(RangeDate) {
			return interval{}, errOperand
		}
		return interval{micros(start), micros(end.AddDate(0, 0, 1)) - 1}, nil
	}
	start, form1, ok1 := parseBound(read("start_datetime"))
	end, form2, ok2 := parseBound(read("end_datetime"))
	if !ok1 || !ok2 || !p.accepts(form1) || !p.accepts(form2) {
		return interval{}, errOperand
	}
	iv := interval{start, end}
	step := int64(1)
	if p.behaviour.RangeSeconds {
		step = 1e6
		iv.from = floor(iv.from, step)
		iv.to = floor(iv.to, step) + step - 1
	}
	if p.behaviour.ExclusiveLower {
		iv.from += step
	}
	if p.behaviour.ExclusiveUpper {
		iv.to -= step
	}
	return iv, nil
}

func floor(at, step int64) int64 {
	m := at % step
	if m < 0 {
		m += step
	}
	return at - m
}

func (p *queryParser) accepts(form RangeForms) bool {
	return p.behaviour.RangeForms == 0 || p.behaviour.RangeForms&form == form
}

// parseBound reads a datetime of a range and says how it was written.
func parseBound(s string) (at int64, form RangeForms, ok bool) {
	if len(s) < len("2006-01-02T15:04:05") {
		return 0, 0, false
	}
	layout := "2006-01-02T15:04:05"
	form = RangeT
	if s[10] == ' ' {
		layout = "2006-01-02 15:04:05"
		form = RangeSpace
	}
	rest := s[len(layout):]
	if strings.HasPrefix(rest, ".") {
		form |= RangeFraction
		rest = strings.TrimLeft(rest[1:], "0123456789")
	}
	switch {
	case rest == "":
		form |= RangeBare
	case rest == "Z":
		form |= RangeZ
		layout += "Z"
	case len(rest) == len("+00:00"):
		form |= RangeOffset
		layout += "-07:00"
	default:
		form |= RangeCompact
		layout += "-0700"
	}
	t, err := time.Parse(layout, s)
	return micros(t), form, err == nil
}
