package main

import (
	"fmt"
	"strings"
	"time"

	"nimble-bridge/poller"
)

// statusScreen writes a status for people.
type statusScreen struct {
	view
	now time.Time
}

// text returns the leader's status, which comes first, and who stands by.
func (s statusScreen) text(statuses []status) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%s %s\n", s.paint(dim, fmt.Sprintf("%-14s", name)), fmt.Sprintf(format, args...))
	}
	first := statuses[0]
	state := s.paint(green, "ready")
	if !first.Ready {
		state = s.paint(red, "not ready") + ": " + string(first.Reason) + ", " + first.Message
		if !first.Since.IsZero() {
			state += s.paint(dim, " (since "+timeText(first.Since.In(s.zone), s.now)+")")
		}
	}
	line("account", "%s", s.paint(bold, first.Account))
	line("state", "%s, %s", first.State, state)
	switch {
	case first.leads():
		line("leader", "%s, version %s, up %s", first.Name, first.Build.Version, age(first.Started, s.now))
	case first.Leader != "":
		line("leader", "%s, which does not answer", first.Leader)
		line("standing by", "%s, version %s, up %s", first.Name, first.Build.Version, age(first.Started, s.now))
	default:
		line("leader", "%s", s.paint(yellow, "none known"))
		line("bridge", "%s, version %s, up %s", first.Name, first.Build.Version, age(first.Started, s.now))
	}
	for _, other := range statuses[1:] {
		text := other.Name + ", version " + other.Build.Version + ", " + string(other.State)
		if !other.Ready {
			text += ": " + string(other.Reason)
		}
		line("beside it", "%s", text)
	}
	s.progress(line, first)
	line("NATS", "%s", natsText(first.NATS))
	return b.String()
}

// progress writes how far the bridge is.
func (s statusScreen) progress(line func(string, string, ...any), st status) {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return timeText(t.In(s.zone), s.now) + ", " + age(t, s.now) + " ago"
	}
	if !st.Watermark.IsZero() {
		line("watermark", "%s", at(st.Watermark))
	}
	contacts := fmt.Sprint(st.Contacts)
	if st.SnapshotFinished.IsZero() {
		contacts += ", the first snapshot is not finished"
	}
	if st.Resyncing {
		contacts += ", all are being published again"
	}
	line("contacts", "%s", contacts)
	line("last poll", "%s", at(st.LastPoll))
	if st.Failures > 0 {
		line("", "%s, %d failures since", s.paint(red, "last success "+at(st.LastSuccess)), st.Failures)
	}
	line("reconciled", "%s", s.reconciled(st.Reconcile, at))
	held := "none"
	if st.DeletionsHeld > 0 {
		held = s.paint(red, fmt.Sprint(st.DeletionsHeld)) + ", since " + at(st.HeldSince) + "; nimble-bridge confirm-deletions lists them"
	}
	line("held deletions", "%s", held)
	var events []string
	for _, kind := range []poller.Kind{poller.Snapshot, poller.Created, poller.Updated, poller.Deleted} {
		events = append(events, fmt.Sprintf("%d %s", st.Events[kind], kind))
	}
	line("events", "%s since the start", strings.Join(events, ", "))
	line("found by", "%s", st.Strategy)
}

func (s statusScreen) reconciled(r reconcileStatus, at func(time.Time) string) string {
	text := at(r.Last)
	switch {
	case r.Error != "":
		return text + "; " + s.paint(red, "the last one failed: ") + r.Error
	case r.Last.IsZero():
		return text
	case r.Unlocated > 0:
		text += s.paint(yellow, fmt.Sprintf(", %d contacts differ that could not be found", r.Unlocated))
	case !r.Agreed.Equal(r.Last):
		text += ", agreed last " + at(r.Agreed)
	default:
		text += ", in agreement"
	}
	return fmt.Sprintf("%s, %d differences made good, %d requests, by %s", text, r.Differences, r.Requests, r.Method)
}

func natsText(n natsStatus) string {
	text := n.URL
	if n.Embedded {
		text += ", embedded"
	}
	if !n.Connected {
		return text + ", not connected"
	}
	text += ", version " + n.Server + ", stream " + n.Stream + ", bucket " + n.Bucket
	switch {
	case n.BucketBehind == nil:
	case *n.BucketBehind == 0:
		text += " up to date"
	default:
		text += fmt.Sprintf(" %d events behind", *n.BucketBehind)
	}
	return text
}

// timeText writes a time of today without the day.
func timeText(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case now.Sub(t).Abs() < 20*time.Hour:
		return t.Local().Format("15:04:05")
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// age writes how long ago something was.
func age(t, now time.Time) string {
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		text := d.Round(time.Second).String()
		if rounded, ok := strings.CutSuffix(text, "m0s"); ok {
			text = rounded + "m"
		}
		return text
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// explanationText writes an explanation for people.
func explanationText(e poller.Explanation) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	at := func(t time.Time) string {
		if t.IsZero() {
			return "unknown"
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	line("contact", "%s", e.ID)
	if k := e.Known; k == nil {
		line("known", "nothing: it has no event")
	} else {
		deleted := ""
		if k.Deleted {
			deleted = ", deleted"
		}
		line("known", "revision %d at sequence %d%s", k.Revision, k.Sequence, deleted)
		line("", "created %s, updated %s, fingerprint %s", at(k.Created), at(k.Updated), k.Fingerprint)
	}
	line("Nimble", "%s", strings.ReplaceAll(e.Now, "_", " "))
	if e.Fingerprint != "" {
		line("", "created %s, updated %s, fingerprint %s", at(e.Created), at(e.Updated), e.Fingerprint)
	}
	if len(e.Differing) > 0 {
		line("differing", "%s", printable(strings.Join(e.Differing, ", ")))
	}
	line("settled", "everything with an updated before %s is published", at(e.Settled))
	b.WriteString("\n" + e.Verdict + "\n")
	return b.String()
}
