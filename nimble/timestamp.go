package nimble

import (
	"encoding/hex"
	"errors"
	"time"
)

// ErrTime is returned by [ParseTime] for what is no timestamp.
var ErrTime = errors.New("not a timestamp")

// ParseTime reads a timestamp in any of the forms that Nimble uses, all of which differ from one another and most from RFC 3339: date
// and time separated by T or a space, an optional fraction of a second, then Z, an offset (+0300, +03:00 or +03), or nothing, which
// means UTC. The result is in UTC and in the years 1 to 9999; digits beyond the nanosecond are cut off.
func ParseTime(s string) (time.Time, error) { return parseTime(s) }

// parseTime is ParseTime for strings and bytes alike, because a page holds two hundred timestamps and none of them needs a
// string.
func parseTime[S string | []byte](s S) (time.Time, error) {
	for len(s) > 0 && s[0] == ' ' {
		s = s[1:]
	}
	for len(s) > 0 && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	const layout = "2006-01-02T15:04:05"
	if len(s) < len(layout) || s[4] != '-' || s[7] != '-' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, ErrTime
	}
	if s[10] != 'T' && s[10] != 't' && s[10] != ' ' {
		return time.Time{}, ErrTime
	}
	year, okYear := number(s[0:4])
	month, okMonth := number(s[5:7])
	day, okDay := number(s[8:10])
	hour, okHour := number(s[11:13])
	minute, okMinute := number(s[14:16])
	second, okSecond := number(s[17:19])
	if !okYear || !okMonth || !okDay || !okHour || !okMinute || !okSecond || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, ErrTime
	}
	nanos, rest, ok := fraction(s[len(layout):])
	if !ok {
		return time.Time{}, ErrTime
	}
	offset, ok := zone(rest)
	if !ok {
		return time.Time{}, ErrTime
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if t.Year() != year || t.Month() != time.Month(month) || t.Day() != day {
		return time.Time{}, ErrTime // time.Date turns February 30 into a day of March.
	}
	t = t.Add(-offset)
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}, ErrTime // No format writes these.
	}
	return t, nil
}

// number reads decimal digits only.
func number[S string | []byte](s S) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
	}
	return n, true
}

// fraction reads an optional fraction of a second, in nanoseconds, and returns what follows it.
func fraction[S string | []byte](s S) (nanos int, rest S, ok bool) {
	if len(s) == 0 || s[0] != '.' && s[0] != ',' {
		return 0, s, true
	}
	s = s[1:]
	digits, scale := 0, int(time.Second)
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		if scale /= 10; scale > 0 {
			nanos += scale * int(s[digits]-'0')
		}
		digits++
	}
	return nanos, s[digits:], digits > 0
}

// zone reads what follows the seconds; nothing is UTC.
func zone[S string | []byte](s S) (time.Duration, bool) {
	for len(s) > 0 && s[0] == ' ' {
		s = s[1:]
	}
	switch {
	case len(s) == 0, len(s) == 1 && (s[0] == 'Z' || s[0] == 'z'):
		return 0, true
	case s[0] != '+' && s[0] != '-':
		return 0, false
	}
	var hours, minutes int
	var okHours, okMinutes bool
	switch {
	case len(s) == len("+03"):
		hours, okHours = number(s[1:3])
		okMinutes = true
	case len(s) == len("+0300"):
		hours, okHours = number(s[1:3])
		minutes, okMinutes = number(s[3:5])
	case len(s) == len("+03:00") && s[3] == ':':
		hours, okHours = number(s[1:3])
		minutes, okMinutes = number(s[4:6])
	}
	if !okHours || !okMinutes || hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// IDTime returns the second at which an id was made, which Nimble's ids, like all MongoDB ObjectIDs, carry in their first four
// bytes. It tells the zone of timestamps that do not name one. The id must have 24 hexadecimal digits.
func IDTime(id string) (time.Time, bool) {
	if len(id) != 24 {
		return time.Time{}, false
	}
	var b [12]byte
	if _, err := hex.Decode(b[:], []byte(id)); err != nil {
		return time.Time{}, false
	}
	seconds := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return time.Unix(int64(seconds), 0).UTC(), true
}
