package poller

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Diff compares two documents of one contact and returns an entry for each significant key that differs, with both values as Nimble
// wrote them. The map is empty exactly if the documents' fingerprints are equal.
func Diff(before, after jsontext.Value) (map[string]Difference, error) {
	was, err := checked(before)
	if err != nil {
		return nil, fmt.Errorf("before: %w", err)
	}
	is, err := checked(after)
	if err != nil {
		return nil, fmt.Errorf("after: %w", err)
	}
	return diff(was, is), nil
}

// diff merges the two sorted lists of entries.
func diff(was, is *content) map[string]Difference {
	changes := make(map[string]Difference)
	i, j := 0, 0
	for i < len(was.entries) || j < len(is.entries) {
		switch {
		case j == len(is.entries) || i < len(was.entries) && was.entries[i].key < is.entries[j].key:
			changes[was.entries[i].key] = Difference{Before: was.rawOf(was.entries[i]).Clone()}
			i++
		case i == len(was.entries) || is.entries[j].key < was.entries[i].key:
			changes[is.entries[j].key] = Difference{After: is.rawOf(is.entries[j]).Clone()}
			j++
		default:
			a, b := was.entries[i], is.entries[j]
			if !bytes.Equal(was.normalOf(a), is.normalOf(b)) {
				changes[a.key] = Difference{Before: was.rawOf(a).Clone(), After: is.rawOf(b).Clone()}
			}
			i, j = i+1, j+1
		}
	}
	return changes
}
