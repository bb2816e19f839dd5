package nimbletest

import (
	"strings"
	"time"
)

// Behaviour says how the account answers where Nimble's documents are silent or where answers have been seen to
// differ. The zero value is what the evidence favours. Set it with [Account.SetBehaviour].
//
// The functions among its fields are called while the account is locked: they must not call the account.
type Behaviour struct {
	// IndexLag is how long a change stays invisible in listings, counts and queries. Reading by id always gives
	// the newest state. It counts from the change, so it only concerns changes made after it was set.
	IndexLag time.Duration
	// LagOf, when set, gives the lag of each change by contact and takes the place of IndexLag: changes then
	// reach the index in another order than they were made.
	LagOf func(id string) time.Duration

	// UpdatedSort and CreatedSort say what becomes of sort=updated:… and sort=created:….
	UpdatedSort, CreatedSort SortMode
	// UnstableTies gives contacts with equal sort keys another order in each request. By default ties have an
	// order that is fixed but follows neither age nor id.
	UnstableTies bool

	// Range says what becomes of range and not_in_range on created and updated; Relative the same of
	// in_the_last and not_in_the_last.
	Range, Relative RangeMode
	// UpdatedOnly limits Range and Relative to conditions on updated; those on created are then honoured.
	UpdatedOnly bool
	// RangeForms are the accepted spellings of range bounds, others get 409. 0 accepts all.
	RangeForms RangeForms
	// ExclusiveLower and ExclusiveUpper leave the bound itself out of a datetime range.
	ExclusiveLower, ExclusiveUpper bool
	// RangeSeconds compares whole seconds only: an upper bound of 10:15:00 then includes 10:15:00.9.
	RangeSeconds bool
	// NoSecondUnit refuses the unit "second" of in_the_last, as the old documents had it.
	NoSecondUnit bool

	// Timestamps is how created and updated are written.
	Timestamps TimestampForm
	// UserZone is the zone of the key's user: bare dates in queries mean its days, and the offset forms of
	// Timestamps use it. Nil is UTC.
	UserZone *time.Location

	// TotalCap is the largest meta.total shown; DepthCap the row beyond which no page reaches. 0 is no limit;
	// search engines of the kind often have 10,000 for both. Past DepthCap the answer is DepthStatus, 0 for 409.
	TotalCap, DepthCap, DepthStatus int
	// TotalNoise, when set, makes the shown total (before TotalCap) out of the true one.
	TotalNoise func(total int) int

	// URLCap is the length in bytes from which on a request's path and query get a proxy's 414. 0 is no limit.
	URLCap int
	// PastEnd is the answer to a page behind the last one.
	PastEnd PastEnd
	// PerPageMax is the largest per_page, 0 for 200. PerPageCap serves larger requests with that many rows and
	// says so in meta.per_page; without it they get 409. A sorted listing never has more than 100 rows a page.
	PerPageMax int
	PerPageCap bool
	// DuplicateRows begins each page after the first with the last row of the page before, as if a row had come
	// in between the two requests.
	DuplicateRows bool

	// MissingStatus is the answer to reading one deleted or unknown id: 0 for 200 with empty resources, or 404.
	// HiddenStatus is the same for one id that the user may not see: 0 likewise, or 403 or 404. A request for
	// several ids leaves the missing out in any case.
	MissingStatus, HiddenStatus int
	// BadKeyStatus is the answer to a missing or refused key: 0 for 403, or 401 with an OAuth style body.
	BadKeyStatus int
	// ErrorShape is the body of 409 answers.
	ErrorShape ErrorShape
	// HTMLErrors replaces the bodies of all errors by a proxy's HTML page.
	HTMLErrors bool

	// TagsAsStrings writes tags as strings, as the specification has them, not as objects.
	TagsAsStrings bool
	// StagesAsList writes an empty stages_info as [] and not as {}.
	StagesAsList bool
	// Gzip compresses answers to requests that accept it.
	Gzip bool

	// NoDate leaves the Date header out; DateSkew is added to it. Timestamps of contacts keep to the account's clock.
	NoDate   bool
	DateSkew time.Duration
}

// SortMode is what becomes of a sort parameter.
type SortMode uint8

// The sort modes.
const (
	SortHonoured SortMode = iota // sorted as asked
	SortRefused                  // 409
	SortIgnored                  // 200, in the account's own order
)

// RangeMode is what becomes of a date condition in a query.
type RangeMode uint8

// The range modes.
const (
	RangeHonoured RangeMode = iota // evaluated
	RangeRefused                   // 409
	RangeIgnored                   // true for every contact
)

// RangeForms is a set of features that a range bound may be written with. A bound is accepted when the set has
// every feature it uses.
type RangeForms uint16

// The features. Each datetime has one of RangeT and RangeSpace and one of the four zone features.
const (
	RangeDate     RangeForms = 1 << iota // start_date, end_date: 2006-01-02
	RangeZ                               // datetime ending in Z
	RangeOffset                          // datetime ending in +03:00
	RangeCompact                         // datetime ending in +0300
	RangeBare                            // datetime without a zone, meaning UTC
	RangeT                               // T between date and time
	RangeSpace                           // a space between date and time
	RangeFraction                        // a fraction of a second
)

// TimestampForm is how created and updated are written in contacts.
type TimestampForm uint8

// The timestamp forms, all of which have been seen or documented.
const (
	TimestampMicros  TimestampForm = iota // 2031-05-04T10:07:41.553012, UTC; a fraction of zero is left out
	TimestampSeconds                      // 2031-05-04T10:07:41, UTC
	TimestampOffset                       // 2031-05-04T13:07:41+0300 in the user's zone
	TimestampRFC3339                      // 2031-05-04T13:07:41.553012+03:00 in the user's zone
	TimestampZ                            // 2031-05-04T10:07:41.553012Z
	TimestampSpace                        // 2031-05-04 10:07:41.553012, UTC
)

// append writes an instant as a timestamp.
func (f TimestampForm) append(b []byte, at int64, zone *time.Location) []byte {
	t := time.UnixMicro(at).UTC()
	layout := "2006-01-02T15:04:05.000000"
	switch f {
	case TimestampSeconds:
		return t.AppendFormat(b, "2006-01-02T15:04:05")
	case TimestampOffset:
		return inZone(t, zone).AppendFormat(b, "2006-01-02T15:04:05-0700")
	case TimestampRFC3339:
		return inZone(t, zone).AppendFormat(b, "2006-01-02T15:04:05.000000-07:00")
	case TimestampZ:
		layout = "2006-01-02T15:04:05.000000Z"
	case TimestampSpace:
		layout = "2006-01-02 15:04:05.000000"
	}
	if at%1e6 == 0 { // As Python's isoformat does.
		layout = strings.Replace(layout, ".000000", "", 1)
	}
	return t.AppendFormat(b, layout)
}

func inZone(t time.Time, zone *time.Location) time.Time {
	if zone == nil {
		return t
	}
	return t.In(zone)
}

// PastEnd is the answer to a page behind the last one.
type PastEnd uint8

// The answers behind the last page.
const (
	PastEndEmpty   PastEnd = iota // 200 without rows
	PastEndRefused                // 409
	PastEndFails                  // 500
)

// ErrorShape is one of the two body shapes of validation errors.
type ErrorShape uint8

// The error shapes.
const (
	ErrorsNew ErrorShape = iota // errors: {"<path>": {"message"}}, human_readable_error
	ErrorsOld                   // code 245, errors: {"<field>": [{"message", "field_id"}]}
)
