package nimble_test

import (
	"regexp"
	"testing"
	"time"

	"nimble-bridge/nimble"
)

func TestParseTime(t *testing.T) {
	tests := []struct {
		name, in, want string // want in RFC 3339, empty if it is no timestamp
	}{
		{"no zone, microseconds", "2031-05-04T10:07:41.553012", "2031-05-04T10:07:41.553012Z"},
		{"no zone, whole seconds", "2031-05-04T10:07:41", "2031-05-04T10:07:41Z"},
		{"offset without colon", "2012-11-29T16:49:56+0300", "2012-11-29T13:49:56Z"},
		{"offset zero without colon", "2012-11-29T16:49:56+0000", "2012-11-29T16:49:56Z"},
		{"offset with colon", "2012-11-29T16:49:56+00:00", "2012-11-29T16:49:56Z"},
		{"offset with colon, microseconds", "2012-11-29T16:49:56.000001-05:30", "2012-11-29T22:19:56.000001Z"},
		{"offset of hours", "2012-11-29T16:49:56-05", "2012-11-29T21:49:56Z"},
		{"Z", "2012-11-29T16:49:56Z", "2012-11-29T16:49:56Z"},
		{"Z, milliseconds", "2012-11-29T16:49:56.120Z", "2012-11-29T16:49:56.12Z"},
		{"small letters", "2012-11-29t16:49:56z", "2012-11-29T16:49:56Z"},
		{"space between", "2012-11-29 16:49:56", "2012-11-29T16:49:56Z"},
		{"space before the offset", "2012-11-29 16:49:56 +0100", "2012-11-29T15:49:56Z"},
		{"spaces around", " 2012-11-29T16:49:56 ", "2012-11-29T16:49:56Z"},
		{"more than nanoseconds", "2012-11-29T16:49:56.1234567899", "2012-11-29T16:49:56.123456789Z"},
		{"one digit of fraction", "2012-11-29T16:49:56.5", "2012-11-29T16:49:56.5Z"},
		{"comma", "2012-11-29T16:49:56,5", "2012-11-29T16:49:56.5Z"},
		{"leap day", "2028-02-29T00:00:00", "2028-02-29T00:00:00Z"},
		{"over the end of a year", "2028-12-31T23:30:00-0100", "2029-01-01T00:30:00Z"},

		{"empty", "", ""},
		{"date only", "2012-11-29", ""},
		{"no seconds", "2012-11-29T16:49", ""},
		{"no such day", "2027-02-29T00:00:00", ""},
		{"month 0", "2027-00-10T00:00:00", ""},
		{"month 13", "2027-13-10T00:00:00", ""},
		{"hour 24", "2027-01-10T24:00:00", ""},
		{"minute 60", "2027-01-10T23:60:00", ""},
		{"second 60", "2027-01-10T23:59:60", ""},
		{"point without digits", "2012-11-29T16:49:56.", ""},
		{"half an offset", "2012-11-29T16:49:56+030", ""},
		{"offset too large", "2012-11-29T16:49:56+2400", ""},
		{"text after it", "2012-11-29T16:49:56Zulu", ""},
		{"sign in a number", "2012-11-29T16:49:+6", ""},
		{"wrong separator", "2012-11-29_16:49:56", ""},
		{"seconds since 1970", "1354207796", ""},
		{"beyond the year 9999", "9999-12-31T23:59:59-0100", ""},
		{"before the year 1", "0001-01-01T00:00:00+0100", ""},
		{"year 0", "0000-01-01T00:00:00Z", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nimble.ParseTime(tt.in)
			if tt.want == "" {
				if err == nil || !got.IsZero() {
					t.Fatalf("ParseTime(%q) = %v, %v, want an error", tt.in, got, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseTime(%q): %v", tt.in, err)
			}
			if got := got.Format(time.RFC3339Nano); got != tt.want {
				t.Errorf("ParseTime(%q) = %s, want %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestParseTimeAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = nimble.ParseTime("2012-11-29T16:49:56.553012+0300") }); n != 0 {
		t.Errorf("ParseTime makes %v allocations, want 0", n)
	}
}

// rfc3339 is what time.Parse should accept: it lets through hours of one digit, for instance.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// FuzzParseTime: what is read is UTC, can be written by every format, and reads back as the same instant. Whatever the standard library reads as RFC
// 3339 is read as the same instant here.
func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{
		"2031-05-04T10:07:41.553012", "2012-11-29T16:49:56+0300", "2012-11-29 16:49:56Z", "2012-11-29T16:49:56.5-05:30",
		"0001-01-01T00:00:00", "9999-12-31T23:59:59.999999999Z", "", "2027-02-29T00:00:00", "2012-11-29T16:49:56+03",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := nimble.ParseTime(s)
		if want, stdErr := time.Parse(time.RFC3339, s); rfc3339.MatchString(s) && stdErr == nil && want.UTC().Year() >= 1 && want.UTC().Year() <= 9999 {
			if err != nil || !got.Equal(want) {
				t.Fatalf("ParseTime(%q) = %v, %v; RFC 3339 says %v", s, got, err, want)
			}
		}
		if err != nil {
			return
		}
		if got.Location() != time.UTC {
			t.Fatalf("ParseTime(%q) is in %v", s, got.Location())
		}
		written := got.Format(time.RFC3339Nano)
		again, err := nimble.ParseTime(written)
		if err != nil || !again.Equal(got) {
			t.Fatalf("ParseTime(%q) = %v, %v, after ParseTime(%q) = %v", written, again, err, s, got)
		}
	})
}

func TestIDTime(t *testing.T) {
	tests := []struct {
		name, id string
		want     time.Time
		ok       bool
	}{
		{"as Nimble makes it", "5049fb849b85f669e40000dc", time.Date(2012, 9, 7, 13, 49, 56, 0, time.UTC), true},
		{"capital digits", "5049FB849B85F669E40000DC", time.Date(2012, 9, 7, 13, 49, 56, 0, time.UTC), true},
		{"beyond 31 bits", "ffffffff9b85f669e40000dc", time.Date(2106, 2, 7, 6, 28, 15, 0, time.UTC), true},
		{"too short", "5049fb849b85f669e40000d", time.Time{}, false},
		{"too long", "5049fb849b85f669e40000dc0", time.Time{}, false},
		{"no hexadecimal digit", "5049fb849b85f669e40000dg", time.Time{}, false},
		{"empty", "", time.Time{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := nimble.IDTime(tt.id)
			if !got.Equal(tt.want) || ok != tt.ok {
				t.Errorf("IDTime(%q) = %v, %v, want %v, %v", tt.id, got, ok, tt.want, tt.ok)
			}
		})
	}
}
