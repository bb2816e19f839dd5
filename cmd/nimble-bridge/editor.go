package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"nimble-bridge/nimble/nimbletest"
)

// editor is somebody at work in a simulated account: adding contacts, correcting and tagging them. It deletes nothing.
type editor struct {
	account *nimbletest.Account
	rand    *rand.Rand
	ids     []string
	edits   int
}

func newEditor(account *nimbletest.Account, seed uint64) *editor {
	return &editor{account: account, rand: rand.New(rand.NewPCG(seed, 0x6e696d626c65)), ids: account.IDs()}
}

// work makes an edit after each pause, until ctx ends.
func (e *editor) work(ctx context.Context, pause func() time.Duration, done func(what string)) {
	timer := time.NewTimer(pause())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			done(e.edit())
			timer.Reset(pause())
		}
	}
}

var (
	editorTags   = []string{"supplier", "customer", "VIP", "newsletter", "partner", "press", "warm lead", "renewal", "trade fair", "reseller"}
	editorTitles = []string{"CEO", "CFO", "Head of Purchasing", "Sales Director", "Plant Manager", "Chief Engineer", "Buyer", "Legal Counsel", "Partner", "Board Member"}
	editorMail   = []string{"harbourline.example", "fennwick.example", "northmole.example", "saltmarsh.example", "quayside.example"}
)

// sketch is what the editor sees of a contact.
type sketch struct {
	Fields map[string][]struct {
		Value string `json:"value"`
	} `json:"fields"`
	Tags []struct {
		Tag string `json:"tag"`
	} `json:"tags"`
	Starred bool `json:"is_important"`
}

func (s sketch) field(name string) string {
	if values := s.Fields[name]; len(values) > 0 {
		return values[0].Value
	}
	return ""
}

// edit does one thing and says what, in words.
func (e *editor) edit() string {
	// The second edit and then every fifth adds somebody, so that a short demonstration shows that too.
	if e.edits++; len(e.ids) == 0 || e.edits%5 == 2 {
		id := e.account.Create()
		e.ids = append(e.ids, id)
		return "added " + id
	}
	id := e.ids[e.rand.IntN(len(e.ids))]
	raw, _ := e.account.Contact(id)
	var now sketch
	if err := json.Unmarshal(raw, &now); err != nil {
		now = sketch{} // A document that a test or a person has put there; it can still be edited.
	}
	switch e.rand.IntN(6) {
	case 0, 1:
		return e.tag(id, now)
	case 2:
		title := e.another(editorTitles, now.field("title"))
		e.account.Edit(id, nimbletest.Field("title", title))
		return fmt.Sprintf("made %s %s", id, title)
	case 3:
		address := strings.ToLower(strings.Join(strings.FieldsFunc(now.field("first name")+"."+now.field("last name"), notPlain), "."))
		if address == "" {
			address = "office"
		}
		address += "@" + e.another(editorMail, afterAt(now.field("email")))
		e.account.Edit(id, nimbletest.Field("email", address))
		return "changed the address of " + id
	case 4:
		e.account.Edit(id, nimbletest.Field("phone", fmt.Sprintf("+44 1632 960%03d", e.rand.IntN(1000))))
		return "changed the phone of " + id
	default:
		e.account.Edit(id, nimbletest.Star(!now.Starred))
		return "starred or unstarred " + id
	}
}

// tag adds a tag that the contact does not have, or takes one away when it has many.
func (e *editor) tag(id string, now sketch) string {
	var tags []string
	for _, t := range now.Tags {
		tags = append(tags, t.Tag)
	}
	if len(tags) > 2 {
		gone := e.rand.IntN(len(tags))
		e.account.Edit(id, nimbletest.Tags(slices.Delete(tags, gone, gone+1)...))
		return "untagged " + id
	}
	added := editorTags[e.rand.IntN(len(editorTags))]
	for slices.Contains(tags, added) {
		added = editorTags[e.rand.IntN(len(editorTags))]
	}
	e.account.Edit(id, nimbletest.Tags(append(tags, added)...))
	return "tagged " + id
}

// another draws a text that differs from the present one, so that each edit is a change.
func (e *editor) another(texts []string, now string) string {
	for {
		if text := texts[e.rand.IntN(len(texts))]; text != now {
			return text
		}
	}
}

func notPlain(r rune) bool { return r > 'z' || r < 'A' || r > 'Z' && r < 'a' }

func afterAt(address string) string {
	_, host, _ := strings.Cut(address, "@")
	return host
}
