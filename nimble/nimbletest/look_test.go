package nimbletest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nimble-bridge/nimble/nimbletest"
)

func TestLookShowsTheLastChangedFirst(t *testing.T) {
	c := newClock()
	a := nimbletest.New(nimbletest.WithClock(c.Now), nimbletest.WithContacts(5000)) // More than are looked at without a pause.
	ids := a.IDs()
	c.Advance(time.Minute)
	a.Edit(ids[7], nimbletest.Tags("vip"))
	a.Edit(ids[4800], nimbletest.Star(true))
	found, total := a.Look(nimbletest.Filter{}, 0, 3)
	if total != 5000 || len(found) != 3 || found[0].ID != ids[4800] || found[1].ID != ids[7] {
		t.Fatalf("found %v of %d, want 3 of 5000 that begin with %s and %s", found, total, ids[4800], ids[7])
	}
	if !found[0].Starred || !slices.Equal(found[1].Tags, []string{"vip"}) {
		t.Errorf("starred %v, tags %v; want true and vip", found[0].Starred, found[1].Tags)
	}
	var all []string
	for offset := 0; offset < 5000; offset += 900 {
		found, _ := a.Look(nimbletest.Filter{}, offset, 900)
		for i, s := range found {
			if i > 0 && s.Updated.After(found[i-1].Updated) {
				t.Fatalf("%s at %v comes after %s at %v", s.ID, s.Updated, found[i-1].ID, found[i-1].Updated)
			}
			all = append(all, s.ID)
		}
	}
	slices.Sort(all)
	if !slices.Equal(all, ids) {
		t.Errorf("the pages together have %d contacts, want each of the 5000 once", len(all))
	}
}

func TestLookFinds(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(100))
	ada := a.Create(nimbletest.Blank(), nimbletest.Field("first name", "Zoë"), nimbletest.Field("last name", "Łanowska"), nimbletest.Field("title", "Chief Engineer"),
		nimbletest.FieldValues("email", nimbletest.Value{Value: "zoe@engine.example"}), nimbletest.Tags("Mathematics"))
	firm := a.CreateCompany(nimbletest.Blank(), nimbletest.Field("company name", "Difference & Sons"))
	gone := a.Create(nimbletest.Blank(), nimbletest.Field("last name", "Babbage"))
	a.Delete(gone)
	everything := []nimbletest.Standing{nimbletest.Visible, nimbletest.Unlisted, nimbletest.Hidden, nimbletest.Deleted}
	for _, tt := range []struct {
		name   string
		filter nimbletest.Filter
		want   []string
	}{
		{"by name, without case and accents", nimbletest.Filter{Text: "ZOE łan"}, []string{ada}},
		{"by address", nimbletest.Filter{Text: "engine.example"}, []string{ada}},
		{"by tag", nimbletest.Filter{Text: "mathem"}, []string{ada}},
		{"by exact tag", nimbletest.Filter{Tag: "Mathematics"}, []string{ada}},
		{"not by half a tag", nimbletest.Filter{Tag: "Math"}, nil},
		{"a company", nimbletest.Filter{Text: "difference & sons"}, []string{firm}},
		{"by id", nimbletest.Filter{Text: ada}, []string{ada}},
		{"nothing that is deleted", nimbletest.Filter{Text: "babbage"}, nil},
		{"the deleted when asked", nimbletest.Filter{Text: "babbage", Standings: everything}, []string{gone}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := a.Find(tt.filter, 10); !slices.Equal(got, tt.want) {
				t.Errorf("found %v, want %v", got, tt.want)
			}
		})
	}
	got, ok := a.LookAt(ada)
	want := nimbletest.Sight{
		ID: ada, Name: "Zoë Łanowska", Title: "Chief Engineer", Emails: []string{"zoe@engine.example"}, Tags: []string{"Mathematics"},
	}
	ignored := cmpopts.IgnoreFields(nimbletest.Sight{}, "Created", "Updated", "Document")
	if diff := cmp.Diff(want, got, ignored); !ok || diff != "" {
		t.Errorf("sight, %v (-want +got):\n%s", ok, diff)
	}
	if shown, _ := a.Contact(ada); string(got.Document) != string(shown) {
		t.Errorf("document = %s, want %s", got.Document, shown)
	}
	if _, ok := a.LookAt("unknown"); ok {
		t.Error("an unknown contact was looked at")
	}
}

func TestStandings(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(10))
	c := call(t, a)
	ids := a.IDs()
	a.Delete(ids[0])
	a.Hide(ids[1])
	a.Unlist(ids[2])
	for i, want := range []nimbletest.Standing{nimbletest.Deleted, nimbletest.Hidden, nimbletest.Unlisted, nimbletest.Visible} {
		if got, ok := a.Standing(ids[i]); got != want || !ok {
			t.Errorf("standing of %d = %v, %v, want %v", i, got, ok, want)
		}
	}
	want := map[nimbletest.Standing]int{nimbletest.Deleted: 1, nimbletest.Hidden: 1, nimbletest.Unlisted: 1, nimbletest.Visible: 7}
	if diff := cmp.Diff(want, a.Census()); diff != "" {
		t.Errorf("census (-want +got):\n%s", diff)
	}
	if got := c.ids(""); !slices.Equal(got, ids[3:]) {
		t.Errorf("listed %v, want %v", got, ids[3:])
	}
	if got := c.ids(`{"_id":{"in":["` + ids[2] + `"]}}`); len(got) != 0 {
		t.Errorf("a query finds the unlisted contact")
	}
	if _, ok := c.contact(ids[2]); !ok {
		t.Error("the unlisted contact cannot be read by id")
	}
	a.Touch(ids[2])
	if got := c.ids(""); !slices.Equal(got, ids[3:]) {
		t.Errorf("after a touch listed %v, want %v", got, ids[3:])
	}
	if n := a.Reappear(ids...); n != 3 {
		t.Errorf("%d reappeared, want 3", n)
	}
	if got := c.ids(""); !slices.Equal(got, ids) {
		t.Errorf("listed %v, want all", got)
	}
	a.Unlist(ids[4])
	if n := a.Show(ids[4]); n != 1 || len(c.ids("")) != 10 {
		t.Errorf("showed %d, now listed %d; want 1 and 10", n, len(c.ids("")))
	}
}

func TestHiddenContactsAreAnsweredAsToldByID(t *testing.T) {
	for _, tt := range []struct{ as, otherwise, want int }{
		{0, 0, 200},
		{0, 403, 403},
		{200, 403, 200},
		{403, 0, 403},
		{404, 403, 404},
	} {
		a := nimbletest.New(nimbletest.WithContacts(2))
		a.SetBehaviour(func(b *nimbletest.Behaviour) { b.HiddenStatus = tt.otherwise })
		id := a.IDs()[0]
		a.HideAs(tt.as, id)
		resp, body := call(t, a).raw("contact/" + id)
		if resp.StatusCode != tt.want || strings.Contains(string(body), "first name") {
			t.Errorf("hidden as %d, others %d: %d %s, want %d", tt.as, tt.otherwise, resp.StatusCode, body, tt.want)
		}
		a.Show(id)
		if _, ok := call(t, a).contact(id); !ok {
			t.Errorf("hidden as %d: shown again it cannot be read", tt.as)
		}
	}
}

func TestSpoiltContactsAreKept(t *testing.T) {
	c := newClock()
	a := nimbletest.New(nimbletest.WithClock(c.Now), nimbletest.WithContacts(3))
	id := a.IDs()[0]
	before, _ := call(t, a).contact(id)
	if !a.Spoil(id, `{"id":null}`) || a.Spoil("unknown", "") || a.Mend(a.IDs()[1]) {
		t.Fatal("only contacts can be spoilt, and only spoilt ones mended")
	}
	if got, _ := a.Contact(id); string(got) != `{"id":null}` {
		t.Errorf("shown %s, want what spoilt it", got)
	}
	if s, _ := a.LookAt(id); !s.Spoilt || s.Name == "" {
		t.Errorf("sight = %+v, want it spoilt and with its name", s)
	}
	a.Edit(id, nimbletest.Tags("meanwhile"))
	if !a.Mend(id) || a.Mend(id) {
		t.Error("mending must work, and only once")
	}
	got, _ := call(t, a).contact(id)
	if got.text("first name") != before.text("first name") || !slices.Equal(got.Tags2, []string{"meanwhile"}) || got.Updated <= before.Updated {
		t.Errorf("mended: %+v, want %+v with a tag and a later updated", got, before)
	}
}

func TestPickIsSteadyAndScattered(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(200))
	ids := a.IDs()
	some := a.Pick(20)
	if more := a.Pick(30); len(some) != 20 || !slices.Equal(more[:20], some) {
		t.Errorf("picked %v, then %v; want the same first", some, more)
	}
	newer := 0
	for _, id := range some {
		if id > ids[100] {
			newer++
		}
	}
	if newer < 4 || newer > 16 {
		t.Errorf("%d of 20 are of the newer half", newer)
	}
	if got := a.Pick(1000); len(got) != 200 {
		t.Errorf("picked %d, want all 200", len(got))
	}
	if got := a.Pick(-1); len(got) != 0 {
		t.Errorf("picked %v, want none", got)
	}
}

func TestTagEditsAddAndRemove(t *testing.T) {
	a := nimbletest.New()
	id := a.Create(nimbletest.Tags("one", "two"))
	a.Edit(id, nimbletest.AddTags("two", "three"), nimbletest.RemoveTags("one", "none"))
	got, _ := call(t, a).contact(id)
	if want := []string{"two", "three"}; !slices.Equal(got.Tags2, want) || len(got.Tags) != 2 || got.Updater != nil {
		t.Errorf("tags %v and %v, updater %v; want %v and no updater", got.Tags2, got.Tags, got.Updater, want)
	}
}

func TestBlankLeavesWhatFollows(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(50))
	for range 20 { // Among so many some have an owner, a notice, a reminder.
		got, _ := call(t, a).contact(a.Create(nimbletest.Blank(), nimbletest.Field("first name", "Ada")))
		if len(got.Fields) != 1 || len(got.Tags) != 0 || got.Owner != nil || got.Important != nil || got.text("first name") != "Ada" {
			t.Fatalf("blank contact: %+v", got)
		}
		for _, name := range []string{"notice", "reminder"} {
			if string(got.Raw[name]) != "null" {
				t.Errorf("%s = %s, want null", name, got.Raw[name])
			}
		}
	}
}

func TestPrivacy(t *testing.T) {
	a := nimbletest.New()
	id := a.Create()
	for _, tt := range []struct {
		edit nimbletest.Edit
		want string
	}{
		{nimbletest.Privacy(nil, nil), `{"read":null,"edit":null}`},
		{nimbletest.Privacy(nil, &nimbletest.Audience{}), `{"read":null,"edit":{"user_ids":[],"group_ids":[]}}`},
		{nimbletest.Privacy(&nimbletest.Audience{Users: []string{"u1", "u2"}, Groups: []string{"g"}}, nil), `{"read":{"user_ids":["u1","u2"],"group_ids":["g"]},"edit":null}`},
	} {
		a.Edit(id, tt.edit)
		if got, _ := call(t, a).contact(id); string(got.Raw["privacy"]) != tt.want {
			t.Errorf("privacy = %s, want %s", got.Raw["privacy"], tt.want)
		}
	}
}

func TestModesHaveNames(t *testing.T) {
	roundTrip := func(name string, into interface {
		UnmarshalText([]byte) error
		String() string
	},
	) {
		t.Helper()
		if err := into.UnmarshalText([]byte(name)); err != nil || into.String() != name {
			t.Errorf("%q comes back as %q, %v", name, into.String(), err)
		}
		if err := into.UnmarshalText([]byte("nonsense")); err == nil || !strings.Contains(err.Error(), `"nonsense"`) || into.String() != name {
			t.Errorf("nonsense: %v, and now %q", err, into)
		}
	}
	for _, name := range []string{"honoured", "refused", "ignored"} {
		roundTrip(name, new(nimbletest.SortMode))
		roundTrip(name, new(nimbletest.RangeMode))
	}
	for _, name := range []string{"micros", "seconds", "offset", "rfc3339", "z", "space"} {
		roundTrip(name, new(nimbletest.TimestampForm))
	}
	for _, name := range []string{"empty", "refused", "fails"} {
		roundTrip(name, new(nimbletest.PastEnd))
	}
	for _, name := range []string{"new", "old"} {
		roundTrip(name, new(nimbletest.ErrorShape))
	}
	for _, name := range []string{"", "date,z", "bare,t,fraction"} {
		roundTrip(name, new(nimbletest.RangeForms))
	}
	var forms nimbletest.RangeForms
	if err := forms.UnmarshalText([]byte("z,t")); err != nil || forms != nimbletest.RangeZ|nimbletest.RangeT {
		t.Errorf("z,t = %b, %v, want %b", forms, err, nimbletest.RangeZ|nimbletest.RangeT)
	}
}

func TestServedCountsByEndpointAndStatus(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(3))
	c := call(t, a)
	c.raw("contacts/ids")
	c.raw("contacts")
	c.raw("contacts", "sort", "updated")
	c.raw("nowhere")
	want := []nimbletest.Served{{"", 404, 1}, {"contacts", 200, 1}, {"contacts", 409, 1}, {"ids", 200, 1}}
	if diff := cmp.Diff(want, a.Served()); diff != "" {
		t.Errorf("served (-want +got):\n%s", diff)
	}
	if last := a.LastRequests(2); len(last) != 2 || last[0].Path != "/api/v1/nowhere" || last[1].Query.Get("sort") != "updated" {
		t.Errorf("last requests = %v", last)
	}
	a.Touch(a.IDs()[1])
	a.Delete(a.IDs()[0])
	if last := a.LastEntries(5); len(last) != 2 || last[0].Op != nimbletest.OpDelete || last[1].Op != nimbletest.OpTouch {
		t.Errorf("last entries = %v", last)
	}
	a.ResetRequests()
	if len(a.Served()) != 0 || len(a.LastRequests(9)) != 0 {
		t.Error("the requests are not forgotten")
	}
}

func TestPendingFaultsCanBeSeen(t *testing.T) {
	a := nimbletest.New()
	a.Inject(2, nimbletest.Fault{Status: 429})
	a.Inject(-1, nimbletest.Fault{Endpoint: nimbletest.EndpointIDs, Reset: true})
	call(t, a).raw("contacts")
	want := []nimbletest.PendingFault{{nimbletest.Fault{Status: 429}, 1}, {nimbletest.Fault{Endpoint: nimbletest.EndpointIDs, Reset: true}, -1}}
	if diff := cmp.Diff(want, a.Faults()); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	a.RotateKey("another")
	a.RefuseKey(true)
	if key, refused := a.Key(); key != "another" || !refused {
		t.Errorf("key = %q, %v, want another, refused", key, refused)
	}
	a.SetBehaviour(func(b *nimbletest.Behaviour) { b.TotalCap = 7 })
	if got := a.Behaviour().TotalCap; got != 7 {
		t.Errorf("total cap = %d, want 7", got)
	}
}
