package nimble

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Query is a search condition in Nimble's query language. The zero value is no condition. Nimble documents limits of 11 leaf
// conditions and a nesting depth of 20, and refuses what it does not support with a [ValidationError].
type Query struct {
	text string
}

// Field is a name that a condition is about.
type Field string

// The fields that hold times.
const (
	Created Field = "created"
	Updated Field = "updated"
)

// DatetimeForm is a spelling of a time in a range. Nimble's documents show several and do not say which of them it accepts.
type DatetimeForm uint8

// The spellings. All mean UTC.
const (
	// DatetimeZ is 2006-01-02T15:04:05Z.
	DatetimeZ DatetimeForm = iota
	// DatetimeBare is 2006-01-02T15:04:05.
	DatetimeBare
	// DatetimeOffset is 2006-01-02T15:04:05+00:00.
	DatetimeOffset
)

// String names the form by an example of it.
func (f DatetimeForm) String() string { return "2006-01-02T15:04:05" + f.suffix() }

func (f DatetimeForm) suffix() string {
	switch f {
	case DatetimeBare:
		return ""
	case DatetimeOffset:
		return "+00:00"
	}
	return "Z"
}

// Between is the range of times from from to to. A query's times have whole seconds while contacts' have more, so
// from is rounded down and to up: the range holds at least what was asked for. Whether Nimble counts the ends in is not documented.
func Between(f Field, from, to time.Time, form DatetimeForm) Query {
	start := from.UTC().Truncate(time.Second)
	end := to.UTC().Truncate(time.Second)
	if end.Before(to) {
		end = end.Add(time.Second)
	}
	return leaf(f, "range", `{"start_datetime":`+quote(datetime(start, form))+`,"end_datetime":`+quote(datetime(end, form))+`}`)
}

// The ends of what can be written with four digits for the year.
var (
	firstSecond = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastSecond  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func datetime(t time.Time, form DatetimeForm) string {
	if t.Before(firstSecond) {
		t = firstSecond
	}
	if t.After(lastSecond) {
		t = lastSecond
	}
	return t.Format("2006-01-02T15:04:05") + form.suffix()
}

// InTheLast is the time from d ago, rounded up to whole seconds, until now, on Nimble's clock.
func InTheLast(f Field, d time.Duration) Query {
	seconds := int64(math.Ceil(d.Seconds()))
	return leaf(f, "in_the_last", `{"unit":"second","quantity":`+strconv.FormatInt(max(seconds, 1), 10)+`}`)
}

// IDIn is the contacts with these ids. How many fit into a URL is not documented; 30 are safe. At least one is needed: Nimble refuses
// an empty list.
func IDIn(ids ...string) Query {
	var b strings.Builder
	b.WriteByte('[')
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(id))
	}
	b.WriteByte(']')
	return leaf("_id", "in", b.String())
}

// RecordTypeIs is the contacts of one type, "person" or "company".
func RecordTypeIs(recordType string) Query { return leaf("record type", "is", quote(recordType)) }

// And is what meets all the conditions. Zero queries among them do not count.
func And(queries ...Query) Query { return join("and", queries) }

// Or is what meets any of the conditions. Zero queries among them do not count.
func Or(queries ...Query) Query { return join("or", queries) }

// Not is what meets none of the conditions. Zero queries among them do not count; without any, the result is the zero query.
func Not(queries ...Query) Query {
	q := Or(queries...)
	if q.IsZero() {
		return q
	}
	// The documents speak of one subquery, their example shows it in a list.
	return Query{`{"not":[` + q.text + `]}`}
}

// IsZero tells whether the query is no condition.
func (q Query) IsZero() bool { return q.text == "" }

// String is the query as JSON, empty for the zero value.
func (q Query) String() string { return q.text }

// join leaves a single condition bare: the documents ask for that.
func join(operator string, queries []Query) Query {
	var b strings.Builder
	n, only := 0, Query{}
	b.WriteString(`{"` + operator + `":[`)
	for _, q := range queries {
		if q.IsZero() {
			continue
		}
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(q.text)
		n, only = n+1, q
	}
	if n < 2 {
		return only
	}
	b.WriteString(`]}`)
	return Query{b.String()}
}

func leaf(f Field, operator, value string) Query {
	return Query{`{` + quote(string(f)) + `:{"` + operator + `":` + value + `}}`}
}

func quote(s string) string {
	quoted, _ := jsontext.AppendQuote(nil, s) // An error speaks of invalid UTF-8, which is replaced.
	return string(quoted)
}
