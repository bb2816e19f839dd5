package bench

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
)

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	processor := ""
	if r.Machine.Processor != "" {
		processor = ", " + r.Machine.Processor
	}
	if _, err := fmt.Fprintf(w, "nimble-bridge %s, %d contacts, %d runs\n%s/%s, %d processors%s, %s\n", r.Version, r.Contacts, r.Runs,
		r.Machine.OS, r.Machine.Arch, r.Machine.Processors, processor, r.Machine.Go); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	group := ""
	for i := range r.Figures {
		f := &r.Figures[i]
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(table, "\n%s\tmedian\tmin\tmax\t\ttarget\n", group)
		}
		target := ""
		if f.Target != 0 {
			target = "at most "
			if f.Least {
				target = "at least "
			}
			target += number(f.Target)
			if f.Met() {
				target += " ✓"
			} else {
				target += " ✗"
			}
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\n", f.Name, number(f.Median), number(f.Min), number(f.Max), f.Unit, target)
	}
	return table.Flush()
}

// number writes three significant digits.
func number(v float64) string {
	if v == math.Trunc(v) || math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
