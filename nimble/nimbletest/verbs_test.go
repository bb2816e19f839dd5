package nimbletest_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nimble-bridge/nimble/nimbletest"
)

func TestCreatedContactCarriesItsSecondInItsID(t *testing.T) {
	c := newClock()
	a := nimbletest.New(nimbletest.WithClock(c.Now))
	id := a.Create()
	second, err := strconv.ParseInt(id[:8], 16, 64)
	if err != nil || second != c.Now().Unix() {
		t.Errorf("id %s carries second %d, %v, want %d", id, second, err, c.Now().Unix())
	}
	got, ok := call(t, a).contact(id)
	if !ok {
		t.Fatal("the created contact cannot be read")
	}
	if want := "2031-05-04T10:00:00.250000"; got.Created != want || got.Updated != want {
		t.Errorf("created, updated = %s, %s, want %s", got.Created, got.Updated, want)
	}
	if got.RecordType != "person" || got.text("first name") == "" || got.text("email") == "" {
		t.Errorf("created %+v, want an invented person", got)
	}
	company, _ := call(t, a).contact(a.CreateCompany())
	if company.RecordType != "company" || company.text("company name") == "" {
		t.Errorf("created %+v, want an invented company", company)
	}
}

func TestUpdatedIsStrictlyIncreasingWhileTheClockStands(t *testing.T) {
	a := nimbletest.New(nimbletest.WithClock(newClock().Now), nimbletest.WithContacts(10))
	var last time.Time
	for i, id := range slices.Concat(a.IDs(), a.IDs(), []string{a.Create()}) {
		if i%2 == 0 {
			a.Touch(id)
		} else {
			a.Edit(id, nimbletest.Star(true))
		}
		_, updated := a.Times(id)
		if !updated.After(last) {
			t.Fatalf("edit %d: updated = %v, want after %v", i, updated, last)
		}
		last = updated
	}
}

func TestImportSharesOneWholeSecond(t *testing.T) {
	a := nimbletest.New(nimbletest.WithClock(newClock().Now), nimbletest.WithContacts(30))
	ids := a.Import(150)
	if len(ids) != 150 || a.Len() != 180 {
		t.Fatalf("imported %d into an account of now %d, want 150 and 180", len(ids), a.Len())
	}
	for _, id := range ids {
		if got, _ := call(t, a).contact(id); got.Created != "2031-05-04T10:00:00" || got.Updated != got.Created {
			t.Fatalf("created, updated = %s, %s, want the whole second", got.Created, got.Updated)
		}
	}
}

func TestEdits(t *testing.T) {
	a := nimbletest.New(nimbletest.WithClock(newClock().Now))
	id := a.Create()
	before, _ := call(t, a).contact(id)
	a.Edit(
		id,
		nimbletest.Field("email", "new@mail.example"),
		nimbletest.Field("Favourite colour", "teal"),
		nimbletest.FieldValues("phone", nimbletest.Value{Value: "+1 2", Modifier: "work", Primary: true}, nimbletest.Value{Value: "+3 4", Extra: "x"}),
		nimbletest.RemoveField("first name"),
		nimbletest.Tags("a", `b "quoted"`),
		nimbletest.Owner("6e00000000000000000000ff"),
		nimbletest.Star(true),
		nimbletest.Key("something new", `{"deep": [1, 2]}`),
	)
	got, _ := call(t, a).contact(id)
	want := map[string][]map[string]any{
		"Favourite colour": {{"value": "teal", "modifier": "", "label": "Favourite colour", "is_primary": false}},
		"phone": {
			{"value": "+1 2", "modifier": "work", "label": "phone", "is_primary": true},
			{"value": "+3 4", "modifier": "", "label": "phone", "is_primary": false, "extra_value": "x"},
		},
		"email": {{"value": "new@mail.example", "modifier": "work", "label": "email", "is_primary": true}},
	}
	for name, values := range before.Fields {
		if _, edited := want[name]; !edited && name != "first name" {
			want[name] = values
		}
	}
	if diff := cmp.Diff(want, got.Fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if len(got.Tags) != 2 || got.Tags[1].Tag != `b "quoted"` || got.Tags[1].ID[24:] != `/b "quoted"` {
		t.Errorf("tags = %v", got.Tags)
	}
	if *got.Owner != "6e00000000000000000000ff" || !*got.Important || string(got.Raw["something new"]) != `{"deep": [1, 2]}` {
		t.Errorf("owner, star, key = %v, %v, %s", *got.Owner, *got.Important, got.Raw["something new"])
	}
	if got.Updated <= before.Updated || got.Created != before.Created || got.Updater == nil {
		t.Errorf("times = %s, %s, updater %v; before %s, %s", got.Created, got.Updated, got.Updater, before.Created, before.Updated)
	}
	a.Edit(id, nimbletest.Owner(""))
	if got, _ := call(t, a).contact(id); got.Owner != nil {
		t.Errorf("owner = %v, want none", *got.Owner)
	}
}

func TestWhatMovesUpdated(t *testing.T) {
	for _, tt := range []struct {
		name           string
		do             func(a *nimbletest.Account, id string)
		moves, changes bool
	}{
		{"edit", func(a *nimbletest.Account, id string) { a.Edit(id, nimbletest.Field("title", "X")) }, true, true},
		{"tags", func(a *nimbletest.Account, id string) { a.Edit(id, nimbletest.Tags("X")) }, true, true},
		{"silent edit", func(a *nimbletest.Account, id string) { a.EditSilently(id, nimbletest.Field("title", "X")) }, false, true},
		{"touch", func(a *nimbletest.Account, id string) { a.Touch(id) }, true, false},
		{"countdown", func(a *nimbletest.Account, _ string) { a.CountDown() }, false, true},
		{"rename user", func(a *nimbletest.Account, _ string) { a.RenameUser("Some One", "Some Two") }, false, true},
		{"rename tag", func(a *nimbletest.Account, _ string) { a.RenameTag("old", "new") }, false, true},
		{"hide and show", func(a *nimbletest.Account, id string) { a.Hide(id); a.Show(id) }, false, false},
		{"delete and restore", func(a *nimbletest.Account, id string) { a.Delete(id); a.Restore(id) }, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := nimbletest.New(nimbletest.WithClock(newClock().Now))
			id := a.Create(
				nimbletest.Tags("old"), nimbletest.Key("creator", `"Some One"`),
				nimbletest.Key("reminder", `{"period":"7","days_till_triggered":3,"active":true,"triggered":false}`),
			)
			before, _ := a.Contact(id)
			tt.do(a, id)
			after, ok := a.Contact(id)
			if !ok {
				t.Fatal("the contact is gone")
			}
			b, g := parseContact(t, before), parseContact(t, after)
			if moved := b.Updated != g.Updated; moved != tt.moves {
				t.Errorf("updated moved: %v, want %v", moved, tt.moves)
			}
			delete(b.Raw, "updated")
			delete(g.Raw, "updated")
			if changed := !cmp.Equal(b.Raw, g.Raw); changed != tt.changes {
				t.Errorf("content changed: %v, want %v\n%s\n%s", changed, tt.changes, before, after)
			}
		})
	}
}

func TestTagReplacementLeavesTheUpdaterNull(t *testing.T) {
	a := nimbletest.New()
	id := a.Create()
	a.Edit(id, nimbletest.Tags("vip"))
	if got, _ := call(t, a).contact(id); got.Updater != nil {
		t.Errorf("updater = %q, want null", *got.Updater)
	}
}

func TestDeletedAndHiddenContactsAreNowhere(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(20))
	c := call(t, a)
	ids := a.IDs()
	deleted, hidden := ids[3], ids[5]
	a.Delete(deleted, deleted, "unknown")
	a.Hide(hidden)
	if got, want := c.ids(""), slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == deleted || id == hidden }); !slices.Equal(got, want) {
		t.Errorf("ids = %v, want %v", got, want)
	}
	for _, id := range []string{deleted, hidden} {
		if _, ok := c.contact(id); ok {
			t.Errorf("%s can be read by id", id)
		}
		if _, ok := a.Contact(id); ok {
			t.Errorf("Contact(%s) is ok", id)
		}
	}
	if a.Edit(deleted, nimbletest.Star(true)) {
		t.Error("a deleted contact was edited")
	}
	if n := a.Restore(deleted, hidden); n != 1 {
		t.Errorf("restored %d, want 1", n)
	}
	if n := a.Show(deleted, hidden); n != 1 {
		t.Errorf("showed %d, want 1", n)
	}
	if got := c.ids(""); !slices.Equal(got, ids) || a.Len() != len(ids) {
		t.Errorf("ids = %v, want all %v again", got, ids)
	}
}

func TestMergeKeepsWhatTheSurvivorLacks(t *testing.T) {
	a := nimbletest.New(nimbletest.WithClock(newClock().Now))
	survivor := a.Create(nimbletest.Field("first name", "Ana"), nimbletest.FieldValues("email", nimbletest.Value{Value: "a@x.example"}), nimbletest.Tags("one"), nimbletest.RemoveField("twitter"))
	loser := a.Create(nimbletest.Field("first name", "Anna"), nimbletest.FieldValues("email", nimbletest.Value{Value: "a@x.example"}, nimbletest.Value{Value: "b@x.example"}), nimbletest.Field("twitter", "@ana"), nimbletest.Tags("one", "two"))
	before, _ := call(t, a).contact(survivor)
	if !a.Merge(survivor, loser) || a.Merge(survivor, loser) {
		t.Fatal("merging must work, and only once")
	}
	got, _ := call(t, a).contact(survivor)
	if got.text("first name") != "Ana" || len(got.Fields["first name"]) != 1 || len(got.Fields["email"]) != 2 || got.text("twitter") != "@ana" || !slices.Equal(got.Tags2, []string{"one", "two"}) {
		t.Errorf("survivor = %+v", got)
	}
	if got.Updated <= before.Updated {
		t.Errorf("updated = %s, want after %s", got.Updated, before.Updated)
	}
	if want := []string{survivor}; !slices.Equal(a.IDs(), want) || !slices.Equal(call(t, a).ids(""), want) {
		t.Errorf("ids = %v, want %v", a.IDs(), want)
	}
}

func TestPutShowsTheDocumentAsItIs(t *testing.T) {
	a := nimbletest.New(nimbletest.WithClock(newClock().Now))
	raw := `{"id":"6f10a0c2d4e5b6a7c8d9e0f1","updated":"2030-01-02T03:04:05+0300","odd":[null,1.50,"é"],"fields":null,"created":null}`
	if err := a.Put(raw); err != nil {
		t.Fatal(err)
	}
	if got, ok := a.Contact("6f10a0c2d4e5b6a7c8d9e0f1"); !ok || string(got) != raw {
		t.Errorf("contact = %s, %v, want %s", got, ok, raw)
	}
	if got := call(t, a).ids(`{"updated":{"range":{"start_datetime":"2030-01-02T00:04:05Z","end_datetime":"2030-01-02T00:04:05Z"}}}`); len(got) != 1 {
		t.Errorf("the index places it at %v, want at its own updated", got)
	}
	a.Touch("6f10a0c2d4e5b6a7c8d9e0f1")
	if got, _ := a.Contact("6f10a0c2d4e5b6a7c8d9e0f1"); string(got) != `{"id":"6f10a0c2d4e5b6a7c8d9e0f1","updated":"2031-05-04T10:00:00.250001","odd":[null,1.50,"é"],"fields":null,"created":null}` {
		t.Errorf("after a touch: %s", got)
	}
	a.Delete("6f10a0c2d4e5b6a7c8d9e0f1")
	if err := a.Put(raw); err != nil {
		t.Fatal(err)
	}
	if got, ok := a.Contact("6f10a0c2d4e5b6a7c8d9e0f1"); !ok || string(got) != raw || !a.Touch("6f10a0c2d4e5b6a7c8d9e0f1") || a.Len() != 1 {
		t.Errorf("put after a deletion: %s, %v", got, ok)
	}
	for _, bad := range []string{``, `{`, `[]`, `null`, `{}`, `{"id":5}`, `{"id":""}`, `{"id":"a"} {}`} {
		if err := a.Put(bad); err == nil {
			t.Errorf("Put(%s) succeeded", bad)
		}
	}
}

func TestPutRawShowsAnything(t *testing.T) {
	a := nimbletest.New()
	c := call(t, a)
	for id, raw := range map[string]string{"6f10a0c2d4e5b6a7c8d9e0f1": `null`, "no id of ours!": `{"id":7}`, "x.y": `"text"`} {
		a.PutRaw(id, raw)
		if got := c.list("contact", "id", id).Resources; len(got) != 1 || string(got[0]) != raw {
			t.Errorf("by id: %s, want %s", got, raw)
		}
	}
	if got := c.list("contacts", "sort", "updated:asc"); got.Meta.Total != 3 || len(got.Resources) != 3 {
		t.Errorf("listed %d of %d rows, want 3", len(got.Resources), got.Meta.Total)
	}
	if want := []string{"6f10a0c2d4e5b6a7c8d9e0f1", "no id of ours!", "x.y"}; !slices.Equal(a.IDs(), want) {
		t.Errorf("ids = %q, want %q", a.IDs(), want)
	}
	a.PutRaw("broken", `{"id":`)
	if resp, body := c.raw("contacts"); resp.StatusCode != 200 || len(body) == 0 {
		t.Errorf("%s with %d bytes", resp.Status, len(body))
	}
	a.Delete("broken", "x.y")
	if a.Len() != 2 {
		t.Errorf("Len = %d, want 2", a.Len())
	}
}

func TestSetTimesDatesIntoTheFuture(t *testing.T) {
	a := nimbletest.New(nimbletest.WithClock(newClock().Now), nimbletest.WithContacts(5))
	id := a.IDs()[2]
	future := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	a.SetTimes(id, time.Time{}, future)
	p := call(t, a).list("contacts", "sort", "updated:desc", "per_page", "1")
	if got := parseContact(t, p.Resources[0]); got.ID != id || got.Updated != "2099-01-01T00:00:00" {
		t.Errorf("newest = %s at %s", got.ID, got.Updated)
	}
	a.Touch(id)
	if _, updated := a.Times(id); updated.Year() != 2031 {
		t.Errorf("touched at %v, want now", updated)
	}
}

func TestRenameUserAndTagReachInventedAndEditedContacts(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(200))
	ids := a.IDs()
	for _, id := range ids[:20] {
		a.Edit(id, nimbletest.Star(true))
	}
	a.RenameUser("Henrik Vale", "Henrik Storm")
	a.RenameUser("Henrik Storm", "Henrik Gale")
	had := len(call(t, a).ids(`{"tag":{"is":"supplier"}}`))
	if n := a.RenameTag("supplier", "Lieferant"); n != had || had == 0 {
		t.Errorf("renamed %d tags, want %d", n, had)
	}
	if got := len(call(t, a).ids(`{"tag":{"is":"lieferant"}}`)); got != had {
		t.Errorf("%d contacts have the new tag, want %d", got, had)
	}
	gales := 0
	for _, id := range ids {
		c, _ := call(t, a).contact(id)
		switch c.Creator {
		case "Henrik Vale", "Henrik Storm":
			t.Fatalf("%s still shows %q", id, c.Creator)
		case "Henrik Gale":
			gales++
		}
		if slices.Contains(c.Tags2, "supplier") {
			t.Fatalf("%s still has the old tag", id)
		}
	}
	if gales == 0 {
		t.Error("nobody shows the new name")
	}
}

func TestCountDownMovesInventedReminders(t *testing.T) {
	a := nimbletest.New(nimbletest.WithContacts(300))
	moved := 0
	before := make(map[string]contact)
	for _, id := range a.IDs() {
		before[id], _ = call(t, a).contact(id)
	}
	a.CountDown()
	for id, was := range before {
		is, _ := call(t, a).contact(id)
		if is.Updated != was.Updated {
			t.Fatalf("updated moved from %s to %s", was.Updated, is.Updated)
		}
		if string(is.Raw["reminder"]) != string(was.Raw["reminder"]) {
			moved++
		}
	}
	if moved < 5 {
		t.Errorf("%d reminders moved, want about 18", moved)
	}
}

func TestJournal(t *testing.T) {
	c := newClock()
	a := nimbletest.New(nimbletest.WithClock(c.Now), nimbletest.WithContacts(5))
	id := a.Create()
	c.Advance(time.Minute)
	a.Touch(id)
	a.Delete(id)
	at := time.Date(2031, 5, 4, 10, 0, 0, 250_000_000, time.UTC)
	want := []nimbletest.Entry{
		{Time: at, Op: nimbletest.OpCreate, ID: id},
		{Time: at.Add(time.Minute), Op: nimbletest.OpTouch, ID: id},
		{Time: at.Add(time.Minute + time.Microsecond), Op: nimbletest.OpDelete, ID: id},
	}
	if diff := cmp.Diff(want, a.Journal()); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

func TestKeyRefusesWhatIsNoJSON(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Key accepted broken JSON")
		}
	}()
	nimbletest.Key("x", `{"a":`)
}
