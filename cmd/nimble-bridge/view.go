package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
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

// event returns an event in one line, and one more for each change.
func (v view) event(e *event.Event) string {
	verb := e.Verb()
	color := map[event.Verb]string{event.Snapshot: blue, event.Created: green, event.Updated: yellow, event.Deleted: red}[verb]
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s", v.paint(dim, e.Data.Observed.In(v.zone).Format("15:04:05")), v.paint(color, fmt.Sprintf("%-8s", verb)), v.paint(bold, who(e)))
	if detail := about(e); detail != "" {
		b.WriteString("  " + detail)
	}
	if e.Data.Reason != "" {
		b.WriteString("  " + printable(e.Data.Reason))
	}
	b.WriteString(v.paint(dim, fmt.Sprintf("  #%d", e.Data.Revision)) + "\n")
	for _, key := range slices.Sorted(maps.Keys(e.Data.Changes)) {
		change := e.Data.Changes[key]
		name := strings.TrimPrefix(key, "fields.")
		fmt.Fprintf(&b, "                      %s  %s %s %s\n", fmt.Sprintf("%-12s", printable(name)),
			v.paint(red, words(key, change.Before)), v.paint(dim, "→"), v.paint(green, words(key, change.After)))
	}
	return b.String()
}

// who names the contact.
func who(e *event.Event) string {
	return printable(cmp.Or(e.Data.Summary.Name, e.Data.Summary.Company, first(e.Data.Summary.Emails), e.Subject))
}

// about is what else one would say of the contact, for events that show it for the first time.
func about(e *event.Event) string {
	if verb := e.Verb(); verb != event.Snapshot && verb != event.Created {
		return ""
	}
	s := e.Data.Summary
	var parts []string
	for _, part := range []string{s.Title, s.Company, first(s.Emails), strings.Join(s.Tags, ", ")} {
		if part != "" && part != s.Name {
			parts = append(parts, printable(part))
		}
	}
	return strings.Join(parts, " · ")
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
