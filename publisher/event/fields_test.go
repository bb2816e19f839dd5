package event_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/publisher/event"
)

func TestFields(t *testing.T) {
	for _, tt := range []struct {
		name, contact string
		want          event.Fields
	}{
		{
			"values", `{"fields":{"email":[{"value":"a@x.example","modifier":"work","label":"email","is_primary":true},{"value":"b@x.example","modifier":""}],"tags":[]},"tags":["x"]}`,
			event.Fields{"email": {{Text: "a@x.example", Modifier: "work", Primary: true}, {Text: "b@x.example"}}},
		},
		{"the company's id", `{"fields":{"parent company":[{"value":"X","extra_value":"6f10"}]}}`, event.Fields{"parent company": {{Text: "X", Extra: "6f10"}}}},
		{
			"other types", `{"fields":{"a":[{"value":17},{"value":true},{"value":null,"modifier":null,"is_primary":null,"extra_value":null}],"b":{"value":1.50},"c":"bare","d":["x",null,[1],2]}}`,
			event.Fields{"a": {{Text: "17"}, {Text: "true"}, {}}, "b": {{Text: "1.50"}}, "c": {{Text: "bare"}}, "d": {{Text: "x"}, {Text: "2"}}},
		},
		{"values of earlier years", `{"fields":{"address":[{"value":{"city": "Gdynia"},"group":"x"}]}}`, event.Fields{"address": {{Text: `{"city": "Gdynia"}`}}}},
		{"what has no value", `{"fields":{"a":[{}],"b":[{"modifier":"work"}],"c":null}}`, event.Fields{}},
		{"a name with escapes", `{"fields":{"J\u00f6rg":[{"value":"\u00fc"}]}}`, event.Fields{"Jörg": {{Text: "ü"}}}},
		{"fields of another shape", `{"fields":[]}`, event.Fields{}},
		{"no fields", `{}`, event.Fields{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := event.ParseFields(jsontext.Value(tt.contact))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, contact := range []string{"", "null", "[]", `{"fields":{"a":[{`, `{}x`} {
		if got, err := event.ParseFields(jsontext.Value(contact)); err == nil {
			t.Errorf("%q has the fields %v", contact, got)
		}
	}
	if got, err := (&event.Data{}).Fields(); got != nil || err != nil {
		t.Errorf("no contact: %v, %v", got, err)
	}
}

func TestFirstIsThePrimaryOne(t *testing.T) {
	f := event.Fields{"phone": {{Text: "1"}, {Text: "2", Primary: true}, {Text: "3", Primary: true}}, "email": {{Text: "a"}, {Text: "b"}}}
	for name, want := range map[string]string{"phone": "2", "email": "a", "skype id": ""} {
		if got := f.Text(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, ok := f.First("skype id"); ok {
		t.Error("a field without values has a first one")
	}
	if got := f.Texts("phone"); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("phones %q", got)
	}
}

func TestAddressIsTakenApart(t *testing.T) {
	whole := event.Address{Street: "4 Quay Rd", City: "Gdynia", Country: "Poland"}
	for _, tt := range []struct {
		name, text string
		want       event.Address
	}{
		{"JSON", `{"street": "4 Quay Rd", "city": "Gdynia", "country": "Poland"}`, whole},
		{"Python", `{'street': '4 Quay Rd', 'city': "Gdynia", 'country': 'Poland', 'state': None}`, whole},
		{"Python, with escapes", `{'street': 'a\'b "c" \\ \xe9\u0142\U0001F600\n\t\r\q', 'city': "it's"}`, event.Address{Street: "a'b \"c\" \\ éł😀\n\t\rq", City: "it's"}},
		{"all parts", `{"street":"a","city":"b","state":"c","zip":"d","country":"e","planet":"f"}`, event.Address{Street: "a", City: "b", State: "c", Zip: "d", Country: "e"}},
		{"a number for a code", `{"zip": 81300, "city": null}`, event.Address{Zip: "81300"}},
		{"plain text", `4 Quay Rd, Gdynia`, event.Address{}},
		{"no object", `["Gdynia"]`, event.Address{}},
		{"half", `{'city': 'Gdy`, event.Address{}},
		{"half an escape", `{'city': '\`, event.Address{}},
		{"half a rune", `{'city': '\u01'}`, event.Address{}},
		{"no rune", `{'city': '\ud800'}`, event.Address{}},
		{"another word", `{'city': Gdynia}`, event.Address{}},
		{"nothing", ``, event.Address{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Text, tt.want.Modifier, tt.want.Primary = tt.text, "home", true
			if diff := cmp.Diff(tt.want, event.Value{Text: tt.text, Modifier: "home", Primary: true}.Address()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEmploymentsAreTakenApart(t *testing.T) {
	fields, err := event.ParseFields(jsontext.Value(`{"fields":{"title":[{"value":"old"}],"contact employment":[
		{"value":"{\"company_name\": \"Brandt Marine\", \"title\": \"CFO\", \"start_date\": \"03/2020\", \"is_present\": true}","is_primary":true,"extra_value":"6f10"},
		{"value":"{'company_name': 'Quay & Co', 'end_date': '02/2020', 'is_present': False}"},
		{"value":"a boat builder"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := fields.Employments()
	for i := range got {
		if got[i].Text == "" {
			t.Errorf("employment %d has no text", i)
		}
		got[i].Text = ""
	}
	want := []event.Employment{
		{Company: "Brandt Marine", Title: "CFO", Start: "03/2020", Present: true, CompanyID: "6f10", Primary: true},
		{Company: "Quay & Co", End: "02/2020"},
		{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	older := event.Fields{"parent company": {{Text: "Old Co", Extra: "6f11"}}, "title": {{Text: "Boss"}}}
	if diff := cmp.Diff([]event.Employment{{Company: "Old Co", Title: "Boss", CompanyID: "6f11", Present: true}}, older.Employments()); diff != "" {
		t.Error(diff)
	}
	if got := (event.Fields{}).Employments(); got != nil {
		t.Errorf("no employment: %v", got)
	}
}

// What the simulated account invents is what has been seen of the real one.
func TestInventedContactsAreTakenApart(t *testing.T) {
	account := nimbletest.New(nimbletest.WithContacts(500))
	addresses, employments := 0, 0
	for _, id := range account.IDs() {
		raw, _ := account.Contact(id)
		fields, err := event.ParseFields(raw)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Fields map[string][]jsontext.Value `json:"fields"`
		}
		if err := json.Unmarshal(raw, &doc); err != nil {
			t.Fatal(err)
		}
		for name, values := range doc.Fields {
			if len(fields[name]) != len(values) {
				t.Errorf("contact %s has %d values of %q, want %d", id, len(fields[name]), name, len(values))
			}
		}
		for _, a := range fields.Addresses() {
			if a.City == "" && a.Country == "" && a.Street == "" {
				t.Errorf("contact %s: address %q is %+v", id, a.Text, a)
			}
			addresses++
		}
		for _, e := range fields.Employments() {
			if e.Company == "" && e.Title == "" {
				t.Errorf("contact %s: employment %q is %+v", id, e.Text, e)
			}
			employments++
		}
	}
	if addresses < 50 || employments < 50 {
		t.Errorf("saw %d addresses and %d employments", addresses, employments)
	}
}

func TestChangeSides(t *testing.T) {
	side := func(s string) jsontext.Value { return jsontext.Value(s) }
	for _, tt := range []struct {
		name                          string
		change                        event.Change
		before, after, added, removed []string
	}{
		{
			"a field",
			event.Change{Before: side(`[{"value":"a"},{"value":"b"}]`), After: side(`[{"value":"b"},{"value":"c","modifier":"work"},{"value":"c"}]`)},
			[]string{"a", "b"},
			[]string{"b", "c", "c"},
			[]string{"c"},
			[]string{"a"},
		},
		{"tags", event.Change{Before: side(`["a"]`), After: side(`[{"tag":"a","id":"6e/a"},{"tag":"hot","id":"6e/hot"}]`)}, []string{"a"}, []string{"a", "hot"}, []string{"hot"}, nil},
		{"a text", event.Change{After: side(`"6e00"`)}, nil, []string{"6e00"}, []string{"6e00"}, nil},
		{"a boolean", event.Change{Before: side(`true`), After: side(`null`)}, []string{"true"}, nil, nil, []string{"true"}},
		{"an object", event.Change{Before: side(`{"read":null}`), After: side(`{}`)}, nil, nil, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, after := tt.change.Texts()
			got := [][]string{before, after, tt.change.Added(), tt.change.Removed()}
			if diff := cmp.Diff([][]string{tt.before, tt.after, tt.added, tt.removed}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	_, after := event.Change{After: side(`[{"value":"c","modifier":"work","is_primary":true}]`)}.Values()
	if diff := cmp.Diff([]event.Value{{Text: "c", Modifier: "work", Primary: true}}, after); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseFields(f *testing.F) {
	f.Add([]byte(contact))
	f.Add([]byte(`{"fields":{"address":[{"value":"{'street': 'a\\'b', 'zip': 1, 'x': True}"},{"value":{"city":"x"}}],"contact employment":"{\"is_present\":true}","a":[null,[1],"x"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fields, err := event.ParseFields(data)
		if (err == nil) != func() bool { _, err := event.Summarize(data); return err == nil }() {
			t.Errorf("fields %v, though the summary says otherwise", err)
		}
		for _, a := range fields.Addresses() {
			if a.Text == "" && a != (event.Address{Modifier: a.Modifier, Primary: a.Primary}) {
				t.Errorf("%+v out of nothing", a)
			}
		}
		_ = fields.Employments()
	})
}

// A dictionary of texts, printed as Python does, reads as what it was.
func FuzzPythonAddress(f *testing.F) {
	f.Add("4 Quay Rd", "it's")
	f.Add(`a\b`, "\n\t\r'\"")
	f.Fuzz(func(t *testing.T, street, city string) {
		street, city = strings.ToValidUTF8(street, "x"), strings.ToValidUTF8(city, "x")
		python := strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\t", `\t`)
		text := "{'street': '" + python.Replace(street) + "', 'city': '" + python.Replace(city) + "'}"
		if got := (event.Value{Text: text}).Address(); got.Street != street || got.City != city {
			t.Errorf("%s is %+v", text, got)
		}
	})
}
