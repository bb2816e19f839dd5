package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/publisher/event"
)

// view writes events as people read them: who, what changed, before → after.
type view struct {
	color bool
	zone  *time.Location
	// single puts each event on one line that stands for itself, with the date and the contact's id, for programs that work line by line.
	single bool
	// ids adds the contact's id.
	ids bool
}

// The colours of a terminal, by what they are for.
const (
	dim    = "\x1b[2m"
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	blue   = "\x1b[34m"
	plain  = "\x1b[0m"
)

func (v view) paint(color, text string) string {
	if !v.color || text == "" {
		return text
	}
	return color + text + plain
}

// event returns an event in one line, and one more for each change unless all have to be on one.
func (v view) event(e *event.Event) string {
	verb := e.Verb()
	color := map[event.Verb]string{event.Snapshot: blue, event.Created: green, event.Updated: yellow, event.Deleted: red}[verb]
	word := string(verb)
	switch {
	case e.Data.Restored:
		word = "restored"
	case e.Data.Erased:
		word = "erased"
	}
	var b strings.Builder
	b.WriteString(v.head(e.Data.Observed, color, word))
	if v.single {
		b.WriteString("  " + printable(e.Subject))
	}
	b.WriteString("  " + v.paint(bold, who(e)))
	for _, detail := range about(e) {
		b.WriteString("  " + detail)
	}
	b.WriteString(v.paint(dim, fmt.Sprintf("  #%d", e.Data.Revision)))
	if v.ids && !v.single {
		b.WriteString(v.paint(dim, "  "+printable(e.Subject)))
	}
	for i, key := range slices.Sorted(maps.Keys(e.Data.Changes)) {
		change := e.Data.Changes[key]
		name := printable(strings.TrimPrefix(key, "fields."))
		before, after := v.paint(red, words(key, change.Before)), v.paint(green, words(key, change.After))
		switch {
		case !v.single:
			fmt.Fprintf(&b, "\n                      %-12s  %s %s %s", name, before, v.paint(dim, "→"), after)
		case i == 0:
			fmt.Fprintf(&b, "  %s: %s → %s", name, before, after)
		default:
			fmt.Fprintf(&b, "; %s: %s → %s", name, before, after)
		}
	}
	return b.String() + "\n"
}

// head begins each line: when, and what happened.
func (v view) head(at time.Time, color, word string) string {
	clock := at.In(v.zone).Format("15:04:05")
	if v.single {
		clock = at.UTC().Format(time.RFC3339)
	}
	return v.paint(dim, clock) + "  " + v.paint(color, fmt.Sprintf("%-8s", word))
}

// day separates the events of one day from those of the day before, where the lines have no date.
func (v view) day(at time.Time) string {
	return v.paint(dim, at.In(v.zone).Format("── Monday, 2 January 2006 ──")) + "\n"
}

// receipt returns the receipt of a reconciliation.
func (v view) receipt(e *event.Reconciled) string {
	text := counted(e.Data.Contacts, "contact") + " in Nimble and in the stream, in agreement"
	if e.Data.DifferencesFound > 0 {
		text += " after " + counted(e.Data.DifferencesFound, "difference")
	}
	how := counted(e.Data.Requests, "request")
	switch e.Data.Method {
	case "count":
		how += ", by counting"
	case "list":
		how += ", by listing"
	}
	if since := e.Data.Since; !since.IsZero() {
		how += ", since " + since.In(v.zone).Format("2 Jan 15:04:05")
	}
	return v.head(e.Time, blue, "receipt") + "  " + text + v.paint(dim, "  ("+how+")") + "\n"
}

// rejected returns the notice of a record that cannot be understood.
func (v view) rejected(e *event.Rejected) string {
	which := "a record without an id"
	if e.Data.ContactID != "" {
		which = printable(e.Data.ContactID)
	}
	return v.head(e.Time, red, "rejected") + "  " + v.paint(bold, which) + "  " + printable(e.Data.Reason) + "\n"
}

// message returns any message of the bridge.
func (v view) message(m event.Message) string {
	switch m := m.(type) {
	case *event.Event:
		return v.event(m)
	case *event.Reconciled:
		return v.receipt(m)
	case *event.Rejected:
		return v.rejected(m)
	}
	return "" // There are no others.
}

// counted is a number of things, with the thousands apart.
func counted(n int, what string) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	if n != 1 {
		what += "s"
	}
	return text + " " + what
}

// who names the contact.
func who(e *event.Event) string {
	return printable(cmp.Or(e.Data.Summary.Name, e.Data.Summary.Company, first(e.Data.Summary.Emails), e.Subject))
}

// about is what else one would say of the event, besides its changes.
func about(e *event.Event) []string {
	var details []string
	switch e.Verb() {
	case event.Snapshot, event.Created:
		s := e.Data.Summary
		var parts []string
		for _, part := range []string{s.Title, s.Company, first(s.Emails), strings.Join(s.Tags, ", ")} {
			if part != "" && part != s.Name {
				parts = append(parts, printable(part))
			}
		}
		if len(parts) > 0 {
			details = append(details, strings.Join(parts, " · "))
		}
		switch {
		case e.Data.Restored:
			details = append(details, "back after it was deleted")
		case e.Data.FoundBy == "resync":
			details = append(details, "sent again, as asked")
		}
	case event.Updated:
		if e.Data.FoundBy == "reconcile" {
			details = append(details, "found by reconciliation")
		}
	case event.Deleted:
		details = append(details, gone(e))
		if merged := e.Data.MergedIntoCandidates; len(merged) > 0 {
			details = append(details, "perhaps merged into "+printable(strings.Join(merged, " or ")))
		}
	}
	if e.Data.Truncated {
		details = append(details, "too large for one message: the event has a part of it")
	}
	return details
}

// gone says why a contact is gone.
func gone(e *event.Event) string {
	reasons := map[string]string{"not_found": "no longer in Nimble", "forbidden": "no longer to be seen with this key"}
	switch {
	case e.Data.Erased && e.Data.Reason == "erased":
		return "removed from NATS on request; Nimble still has it"
	case e.Data.Erased:
		return "removed from NATS on request"
	}
	return cmp.Or(reasons[e.Data.Reason], printable(e.Data.Reason))
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// nothing stands for a side of a change that has no value.
const nothing = "(none)"

// words writes one side of a change: the values of a field, the texts of tags, anything else as JSON.
func words(key string, raw jsontext.Value) string {
	var list []jsontext.Value
	if (key == "tags" || strings.HasPrefix(key, "fields.")) && json.Unmarshal(raw, &list) == nil {
		var parts []string
		for _, element := range list {
			if text := elementText(element); text != "" {
				parts = append(parts, text)
			}
		}
		return printable(cmp.Or(strings.Join(parts, ", "), nothing))
	}
	text := string(raw)
	var quoted string
	switch {
	case len(raw) == 0, text == "null", text == "[]", text == "{}":
		return nothing
	case json.Unmarshal(raw, &quoted) == nil:
		text = cmp.Or(quoted, nothing)
	}
	return printable(text)
}

// elementText is the text of a value object or a tag, in whichever form the API writes them.
func elementText(raw jsontext.Value) string {
	var object struct {
		Value    jsontext.Value `json:"value"`
		Modifier string         `json:"modifier"`
		Tag      string         `json:"tag"`
	}
	if json.Unmarshal(raw, &object) != nil {
		return scalar(raw)
	}
	if object.Tag != "" {
		return object.Tag
	}
	text := scalar(object.Value)
	if object.Modifier != "" && text != "" {
		text += " (" + object.Modifier + ")"
	}
	return text
}

func scalar(raw jsontext.Value) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// maxText is where a value is cut for display, in bytes.
const maxText = 120

// printable makes a foreign text safe for a terminal and short enough for a line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
