package admin

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"nimble-bridge/nimble/nimbletest"
)

// behaviour is nimbletest.Behaviour as this interface writes it.
type behaviour struct {
	IndexLag duration `json:"index_lag"`
	// UnevenLag lets each contact's changes lag by its own part of index_lag, so that they arrive in another order.
	UnevenLag bool `json:"uneven_lag"`

	UpdatedSort  nimbletest.SortMode `json:"updated_sort"`
	CreatedSort  nimbletest.SortMode `json:"created_sort"`
	UnstableTies bool                `json:"unstable_ties"`

	Range          nimbletest.RangeMode  `json:"range"`
	Relative       nimbletest.RangeMode  `json:"relative"`
	UpdatedOnly    bool                  `json:"updated_only"`
	RangeForms     nimbletest.RangeForms `json:"range_forms"`
	ExclusiveLower bool                  `json:"exclusive_lower"`
	ExclusiveUpper bool                  `json:"exclusive_upper"`
	RangeSeconds   bool                  `json:"range_seconds"`
	NoSecondUnit   bool                  `json:"no_second_unit"`

	Timestamps nimbletest.TimestampForm `json:"timestamps"`
	UserZone   zone                     `json:"user_zone"`

	TotalCap    int `json:"total_cap"`
	DepthCap    int `json:"depth_cap"`
	DepthStatus int `json:"depth_status"`
	// TotalError makes totals wrong: "+5" and "-3" by so much, "10%" by up to so much and differently each time, "=1000" always that.
	TotalError string `json:"total_error"`

	URLCap        int                `json:"url_cap"`
	PastEnd       nimbletest.PastEnd `json:"past_end"`
	PerPageMax    int                `json:"per_page_max"`
	PerPageCap    bool               `json:"per_page_cap"`
	DuplicateRows bool               `json:"duplicate_rows"`

	MissingStatus int                   `json:"missing_status"`
	HiddenStatus  int                   `json:"hidden_status"`
	BadKeyStatus  int                   `json:"bad_key_status"`
	ErrorShape    nimbletest.ErrorShape `json:"error_shape"`
	HTMLErrors    bool                  `json:"html_errors"`

	TagsAsStrings bool `json:"tags_as_strings"`
	StagesAsList  bool `json:"stages_as_list"`
	Gzip          bool `json:"gzip"`

	NoDate   bool     `json:"no_date"`
	DateSkew duration `json:"date_skew"`
}

// duration is written as Go writes durations.
type duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration; 0 needs no unit.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return invalid("%q is no duration such as 1.5s or 2m", text)
	}
	*d = duration(parsed)
	return nil
}

// zone is written as its name or its distance from UTC; empty is UTC.
type zone struct{ *time.Location }

// MarshalText implements [encoding.TextMarshaler].
func (z zone) MarshalText() ([]byte, error) {
	if z.Location == nil {
		return nil, nil
	}
	return []byte(z.String()), nil
}

// UnmarshalText reads a name such as Europe/Warsaw or a distance such as +03:00.
func (z *zone) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		z.Location = nil
		return nil
	}
	if at, err := time.Parse("-07:00", string(text)); err == nil {
		_, seconds := at.Zone()
		z.Location = time.FixedZone(string(text), seconds)
		return nil
	}
	location, err := time.LoadLocation(string(text))
	if err != nil {
		return invalid("%q is no time zone such as Europe/Warsaw or +03:00", text)
	}
	z.Location = location
	return nil
}

// present is the account's behaviour now.
func (h *Handler) present() behaviour {
	b := h.account.Behaviour()
	return behaviour{
		IndexLag: duration(b.IndexLag), UnevenLag: b.LagOf != nil,
		UpdatedSort: b.UpdatedSort, CreatedSort: b.CreatedSort, UnstableTies: b.UnstableTies,
		Range: b.Range, Relative: b.Relative, UpdatedOnly: b.UpdatedOnly, RangeForms: b.RangeForms,
		ExclusiveLower: b.ExclusiveLower, ExclusiveUpper: b.ExclusiveUpper, RangeSeconds: b.RangeSeconds, NoSecondUnit: b.NoSecondUnit,
		Timestamps: b.Timestamps, UserZone: zone{b.UserZone},
		TotalCap: b.TotalCap, DepthCap: b.DepthCap, DepthStatus: b.DepthStatus, TotalError: h.totalError,
		URLCap: b.URLCap, PastEnd: b.PastEnd, PerPageMax: b.PerPageMax, PerPageCap: b.PerPageCap, DuplicateRows: b.DuplicateRows,
		MissingStatus: b.MissingStatus, HiddenStatus: b.HiddenStatus, BadKeyStatus: b.BadKeyStatus, ErrorShape: b.ErrorShape, HTMLErrors: b.HTMLErrors,
		TagsAsStrings: b.TagsAsStrings, StagesAsList: b.StagesAsList, Gzip: b.Gzip,
		NoDate: b.NoDate, DateSkew: duration(b.DateSkew),
	}
}

// set makes it the account's behaviour.
func (h *Handler) set(s behaviour) error {
	noise, err := totalNoise(s.TotalError)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	next := nimbletest.Behaviour{
		IndexLag:    time.Duration(s.IndexLag),
		UpdatedSort: s.UpdatedSort, CreatedSort: s.CreatedSort, UnstableTies: s.UnstableTies,
		Range: s.Range, Relative: s.Relative, UpdatedOnly: s.UpdatedOnly, RangeForms: s.RangeForms,
		ExclusiveLower: s.ExclusiveLower, ExclusiveUpper: s.ExclusiveUpper, RangeSeconds: s.RangeSeconds, NoSecondUnit: s.NoSecondUnit,
		Timestamps: s.Timestamps, UserZone: s.UserZone.Location,
		TotalCap: s.TotalCap, DepthCap: s.DepthCap, DepthStatus: s.DepthStatus, TotalNoise: noise,
		URLCap: s.URLCap, PastEnd: s.PastEnd, PerPageMax: s.PerPageMax, PerPageCap: s.PerPageCap, DuplicateRows: s.DuplicateRows,
		MissingStatus: s.MissingStatus, HiddenStatus: s.HiddenStatus, BadKeyStatus: s.BadKeyStatus, ErrorShape: s.ErrorShape, HTMLErrors: s.HTMLErrors,
		TagsAsStrings: s.TagsAsStrings, StagesAsList: s.StagesAsList, Gzip: s.Gzip,
		NoDate: s.NoDate, DateSkew: time.Duration(s.DateSkew),
	}
	if s.UnevenLag {
		next.LagOf = unevenLag(time.Duration(s.IndexLag))
	}
	h.account.SetBehaviour(func(b *nimbletest.Behaviour) { *b = next })
	h.totalError = s.TotalError
	return nil
}

// check refuses what the account has no meaning for.
func (s *behaviour) check() error {
	if s.IndexLag < 0 {
		return invalid("index_lag is %s, want 0 or more", time.Duration(s.IndexLag))
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"total_cap", s.TotalCap}, {"depth_cap", s.DepthCap}, {"url_cap", s.URLCap}, {"per_page_max", s.PerPageMax}} {
		if n.value < 0 {
			return invalid("%s is %d, want 0 or more", n.name, n.value)
		}
	}
	for _, status := range []struct {
		name  string
		value int
		ok    []int
	}{
		{"missing_status", s.MissingStatus, []int{0, 404}},
		{"hidden_status", s.HiddenStatus, []int{0, 403, 404}},
		{"bad_key_status", s.BadKeyStatus, []int{0, 401, 403}},
		{"depth_status", s.DepthStatus, []int{0, 409, 500}},
	} {
		known := status.value == 0
		var names []string
		for _, ok := range status.ok {
			known = known || ok == status.value
			names = append(names, strconv.Itoa(ok))
		}
		if !known {
			return invalid("%s is %d, want %s", status.name, status.value, strings.Join(names, " or "))
		}
	}
	return nil
}

// unevenLag gives each contact its own part of the longest lag, by its id.
func unevenLag(longest time.Duration) func(id string) time.Duration {
	return func(id string) time.Duration {
		hash := uint32(2166136261)
		for i := range len(id) {
			hash = (hash ^ uint32(id[i])) * 16777619
		}
		return time.Duration(float64(longest) * float64(hash%1000) / 1000)
	}
}

// totalNoise reads how totals are wrong.
func totalNoise(text string) (func(int) int, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // Nil is the behaviour without noise.
	}
	refused := invalid(`total_error is %q, want "" or such as +5, -3, 10%% or =1000`, text)
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || percent < 0 || percent > 100 {
			return nil, refused
		}
		var asked atomic.Uint64
		return func(total int) int {
			turn := asked.Add(1) * 0x9e3779b97f4a7c15 >> 40 // Scattered over its 24 bits, so that no two answers in a row agree.
			off := float64(turn)/float64(1<<23) - 1
			return total + int(off*percent/100*float64(total))
		}, nil
	}
	number, fixed := strings.CutPrefix(text, "=")
	n, err := strconv.Atoi(number)
	if err != nil || !fixed && text[0] != '+' && text[0] != '-' {
		return nil, refused
	}
	return func(total int) int {
		if fixed {
			return n
		}
		return total + n
	}, nil
}

// behaviour answers GET /admin/behaviour.
func (h *Handler) behaviour(*http.Request) (any, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.present(), nil
}

// behave answers PATCH /admin/behaviour: what is not named stays.
func (h *Handler) behave(r *http.Request) (any, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.present()
	if err := read(r, &next); err != nil {
		return nil, err
	}
	if err := h.set(next); err != nil {
		return nil, err
	}
	return h.present(), nil
}

// behaveWell answers DELETE /admin/behaviour.
func (h *Handler) behaveWell(*http.Request) (any, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.set(behaviour{}); err != nil {
		return nil, err
	}
	return h.present(), nil
}
