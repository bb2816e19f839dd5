package audit

import (
	"fmt"
	"strconv"
)

// Report is what came out of a verification.
type Report struct {
	// Checks has one entry for each thing that was looked at, in a fixed order.
	Checks []Check
	// Head is the hash of the last line: whoever keeps it elsewhere can prove later, as an anchor, that the log still has everything up to there.
	Head Hash
	// File and Line are where that line stands, Sequence is how far the log reaches in the stream.
	File     string
	Line     int
	Sequence uint64
}

// Holds tells whether no check failed.
func (r *Report) Holds() bool {
	for _, c := range r.Checks {
		if c.Result == Fails {
			return false
		}
	}
	return true
}

// Result is the outcome of a check.
type Result int

// Results.
const (
	// Holds: everything that the check is about is as it has to be.
	Holds Result = iota
	// Fails: something is not, see [Check.Faults].
	Fails
	// Skipped: there was nothing to look at, or nothing to compare it with.
	Skipped
)

// Check is one thing that was looked at.
type Check struct {
	Name   string
	Result Result
	// Text says what was looked at and how far, or how many faults there are.
	Text string
	// Faults has the first things that are wrong, and Count how many there are in all.
	Faults []Fault
	Count  int
}

// maxFaults is how many faults of a check are kept.
const maxFaults = 10

// Fault is something that is wrong with a log.
type Fault struct {
	// File and Line are where it shows. Line is 0 for a file as a whole, File is empty for the log as a whole.
	File string
	Line int
	// Text says what is wrong. It quotes nothing of what contacts contain.
	Text string
}

// String is the fault on one line.
func (f Fault) String() string {
	switch {
	case f.File == "":
		return f.Text
	case f.Line == 0:
		return f.File + ": " + f.Text
	}
	return f.File + " line " + strconv.Itoa(f.Line) + ": " + f.Text
}

// fault adds a fault.
func (c *Check) fault(file string, line int, format string, args ...any) {
	c.Result = Fails
	if c.Count++; len(c.Faults) < maxFaults {
		c.Faults = append(c.Faults, Fault{file, line, fmt.Sprintf(format, args...)})
	}
}

// skip says that there was nothing to check, unless a fault was found before.
func (c *Check) skip(format string, args ...any) {
	c.Text = fmt.Sprintf(format, args...)
	if c.Result == Holds {
		c.Result = Skipped
	}
}

func (c *Check) say(format string, args ...any) { c.Text = fmt.Sprintf(format, args...) }

// counted is a number with its noun.
func counted[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
