package admin

import (
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble/nimbletest"
)

// selection says which contacts an action is for: one of its members does.
type selection struct {
	ID  string   `json:"id"`
	IDs []string `json:"ids"`
	// Count is a number of contacts scattered over the account, the same ones each time while nothing changes.
	Count *int `json:"count"`
	// Share is the same as a part of the account: 0.5 or "50%".
	Share  jsontext.Value `json:"share"`
	Tagged string         `json:"tagged"`
	Search string         `json:"search"`
	All    bool           `json:"all"`
}

// choose reads a body with a selection in it and gives the ids of what is selected: ids as they are, everything else among the contacts of the
// given standings, without any those that the user can see.
func (h *Handler) choose(r *http.Request, body any, s *selection, among ...nimbletest.Standing) ([]string, error) {
	if err := read(r, body); err != nil {
		return nil, err
	}
	ways := 0
	for _, given := range []bool{s.ID != "", s.IDs != nil, s.Count != nil, s.Share != nil, s.Tagged != "", s.Search != "", s.All} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, invalid(`%d ways to say which contacts, want one of id, ids, count, share, tagged, search and "all": true`, ways)
	}
	switch {
	case s.ID != "":
		return h.known(s.ID)
	case s.IDs != nil:
		return h.known(s.IDs...)
	case s.Tagged != "" || s.Search != "":
		return h.account.Find(nimbletest.Filter{Text: s.Search, Tag: s.Tagged, Standings: among}, math.MaxInt), nil
	}
	part, err := s.part()
	if err != nil {
		return nil, err
	}
	return h.some(part, among), nil
}

// part gives the function from the number of contacts there are to the number selected.
func (s *selection) part() (func(of int) int, error) {
	switch {
	case s.All:
		return func(of int) int { return of }, nil
	case s.Count != nil:
		if *s.Count < 0 {
			return nil, invalid("count is %d, want 0 or more", *s.Count)
		}
		return func(int) int { return *s.Count }, nil
	}
	share, ok := parseShare(s.Share)
	if !ok {
		return nil, invalid(`share is %s, want a part such as 0.5 or "50%%"`, s.Share)
	}
	return func(of int) int { return int(math.Round(share * float64(of))) }, nil
}

// parseShare reads 0.5, "0.5" and "50%".
func parseShare(raw jsontext.Value) (share float64, ok bool) {
	text := string(raw)
	if raw.Kind() == '"' && json.Unmarshal(raw, &text) != nil {
		return 0, false
	}
	number, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(number, 64)
	if percent {
		share /= 100
	}
	return share, err == nil && share >= 0 && share <= 1
}

// some gives a part of the contacts of the given standings.
func (h *Handler) some(part func(of int) int, among []nimbletest.Standing) []string {
	if len(among) == 0 {
		return h.account.Pick(part(h.account.Len()))
	}
	census, of := h.account.Census(), 0
	for _, standing := range among {
		of += census[standing]
	}
	return h.account.Find(nimbletest.Filter{Standings: among}, part(of))
}

// known gives the ids back when there are such contacts, each once.
func (h *Handler) known(ids ...string) ([]string, error) {
	var good, bad []string
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if _, ok := h.account.Standing(id); !ok {
			bad = append(bad, strconv.Quote(id))
		} else if !seen[id] {
			good = append(good, id)
		}
		seen[id] = true
	}
	if len(bad) > 0 {
		return nil, unknown(bad...)
	}
	return good, nil
}
