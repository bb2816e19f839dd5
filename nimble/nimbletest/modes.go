package nimbletest

import (
	"fmt"
	"slices"
	"strings"
)

// The names of what the modes can be, in the order of their values.
var (
	sortNames      = []string{"honoured", "refused", "ignored"}
	rangeNames     = []string{"honoured", "refused", "ignored"}
	timestampNames = []string{"micros", "seconds", "offset", "rfc3339", "z", "space"}
	pastEndNames   = []string{"empty", "refused", "fails"}
	shapeNames     = []string{"new", "old"}
	formNames      = []string{"date", "z", "offset", "compact", "bare", "t", "space", "fraction"}
)

// String is the mode's name: honoured, refused or ignored.
func (m SortMode) String() string { return nameOf(sortNames, m) }

// MarshalText implements [encoding.TextMarshaler].
func (m SortMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a mode's name.
func (m *SortMode) UnmarshalText(text []byte) error { return parseName(m, "sort", sortNames, text) }

// String is the mode's name: honoured, refused or ignored.
func (m RangeMode) String() string { return nameOf(rangeNames, m) }

// MarshalText implements [encoding.TextMarshaler].
func (m RangeMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a mode's name.
func (m *RangeMode) UnmarshalText(text []byte) error { return parseName(m, "range", rangeNames, text) }

// String is the form's name: micros, seconds, offset, rfc3339, z or space.
func (f TimestampForm) String() string { return nameOf(timestampNames, f) }

// MarshalText implements [encoding.TextMarshaler].
func (f TimestampForm) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads a form's name.
func (f *TimestampForm) UnmarshalText(text []byte) error {
	return parseName(f, "timestamp form", timestampNames, text)
}

// String is the answer's name: empty, refused or fails.
func (p PastEnd) String() string { return nameOf(pastEndNames, p) }

// MarshalText implements [encoding.TextMarshaler].
func (p PastEnd) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads an answer's name.
func (p *PastEnd) UnmarshalText(text []byte) error {
	return parseName(p, "answer behind the last page", pastEndNames, text)
}

// String is the shape's name: new or old.
func (s ErrorShape) String() string { return nameOf(shapeNames, s) }

// MarshalText implements [encoding.TextMarshaler].
func (s ErrorShape) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a shape's name.
func (s *ErrorShape) UnmarshalText(text []byte) error {
	return parseName(s, "error shape", shapeNames, text)
}

// String is the names of the set's features with commas between.
func (f RangeForms) String() string {
	var names []string
	for i, name := range formNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// MarshalText implements [encoding.TextMarshaler].
func (f RangeForms) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the names of features with commas between: date, z, offset, compact, bare, t, space and fraction. Nothing is the empty set.
func (f *RangeForms) UnmarshalText(text []byte) error {
	var set RangeForms
	for name := range strings.SplitSeq(string(text), ",") {
		if name == "" {
			continue
		}
		var feature uint8
		if err := parseName(&feature, "range form", formNames, []byte(name)); err != nil {
			return err
		}
		set |= 1 << feature
	}
	*f = set
	return nil
}

var standingNames = []string{"visible", "unlisted", "hidden", "deleted"}

// String is the standing's name in small letters.
func (s Standing) String() string { return nameOf(standingNames, s) }

// MarshalText implements [encoding.TextMarshaler].
func (s Standing) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a standing's name.
func (s *Standing) UnmarshalText(text []byte) error {
	return parseName(s, "standing", standingNames, text)
}

func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprint(uint8(v))
}

// parseName finds what a name stands for.
func parseName[T ~uint8](into *T, what string, names []string, name []byte) error {
	i := slices.Index(names, string(name))
	if i < 0 {
		return fmt.Errorf("%s is %q, want %s", what, name, strings.Join(names, ", "))
	}
	*into = T(i)
	return nil
}
