package examples_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/nimble/nimbletest"
)

var natsCommand = flag.String("nats", "nats", "the nats command, for the recipes")

// A recipe is a heading of nats-cli.md and the commands below it.
type recipe struct{ title, script string }

func recipes(t *testing.T) []recipe {
	t.Helper()
	doc, err := os.ReadFile("nats-cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []recipe
	for _, m := range regexp.MustCompile("(?s)### ([^\n]+)\n(.*?)```sh\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		all = append(all, recipe{m[1], m[3]})
	}
	if n := strings.Count(string(doc), "```sh"); n != len(all) {
		t.Fatalf("%d recipes in %d blocks", len(all), n)
	}
	return all
}

// Each recipe runs as it stands, in the order of the document, and prints what it should.
func TestRecipesOfTheNATSCommand(t *testing.T) {
	command, err := exec.LookPath(*natsCommand)
	if err != nil {
		t.Skipf("the nats command is not here: %v", err)
	}
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skipf("jq is not here: %v", err)
	}
	w := newWorld(t, 0)
	w.poll() // What is created later is new.
	id := w.account.Create(nimbletest.Field("first name", "Tomasz"), nimbletest.Field("last name", "Brandt"),
		nimbletest.Field("email", "t.brandt@brandt.example"), nimbletest.Tags("supplier"))
	gone := w.account.Create(nimbletest.Field("first name", "Ines"), nimbletest.Field("last name", "Okafor"), nimbletest.Tags("hot"))
	w.poll()
	w.account.Edit(id, nimbletest.Field("email", "tomasz@brandt.example"), nimbletest.Tags("supplier", "hot"))
	w.account.Delete(gone)
	w.poll()
	w.reconcile()
	w.account.PutRaw("bad", `{"id":"a b"}`)
	w.poll()
	letter := &nats.Msg{
		Subject: "nimble-dead.crm.letter.acme." + id, Header: nats.Header{"Nimble-Dead-Consumer": {"crm"}, "Nimble-Dead-Error": {"out of paper"}},
		Data: w.events()[0].Encode(),
	}
	if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "nimble-dead", Subjects: []string{"nimble-dead.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.js.PublishMsg(t.Context(), letter); err != nil {
		t.Fatal(err)
	}
	checks := map[string]struct{ has, hasNot []string }{
		"What there is": {has: []string{"nimble.acme.contact.created." + id, "nimble.acme.bridge.rejected"}},
		"New contacts, the whole history of them": {has: []string{"Tomasz Brandt\nInes Okafor"}},
		"Everything about one contact, in order":  {has: []string{"1 com.nimble.contact.created\n2 com.nimble.contact.updated"}, hasNot: []string{"deleted"}},
		"What changed, without the bodies":        {has: []string{"Nimble-Changed: fields.email,tags", "Nimble-Revision: 2"}},
		"Changed e-mail addresses, before and after": {has: []string{
			`{"name":"Tomasz Brandt","email":{"before":["t.brandt@brandt.example"],"after":["tomasz@brandt.example"]}}`,
		}},
		"From a time":               {has: []string{"nimble.acme.contact.created." + id, "nimble.acme.contact.deleted." + gone}},
		"From a sequence":           {has: []string{"nimble.acme.contact.updated." + id}, hasNot: []string{"created"}},
		"One event by its sequence": {has: []string{"NIMBLE#1", `"com.nimble.contact.created"`}},
		"The last event of one contact, from the stream": {has: []string{`"com.nimble.contact.updated"`, "tomasz@brandt.example"}},
		"Looking a contact up":                           {has: []string{`"name": "Tomasz Brandt"`}},
		"Who has a tag":                                  {has: []string{"Tomasz Brandt"}, hasNot: []string{"Ines"}},
		"All keys":                                       {has: []string{"acme." + id}, hasNot: []string{gone}},
		"Creating one":                                   {has: []string{"new-contacts", "Max Ack Pending: 1"}},
		"The next event, acknowledged":                   {has: []string{"Tomasz Brandt"}, hasNot: []string{"Ines"}},
		"How far it is":                                  {has: []string{`"handled": 1`, `"waiting": 1`}},
		"Removing it":                                    {},
		"When Nimble and the stream last agreed":         {has: []string{"com.nimble.bridge.reconciled"}},
		"Records that could not be understood":           {has: []string{"no usable id"}},
		"What was given up, and why":                     {has: []string{"Nimble-Dead-Consumer: crm", "Nimble-Dead-Error: out of paper"}},
		"The contact of each":                            {has: []string{id + " Tomasz Brandt"}},
		"Dropping one that is settled":                   {},
	}
	path := t.TempDir()
	if err := os.Symlink(command, path+"/nats"); err != nil {
		t.Fatal(err)
	}
	ran := 0
	bounded, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, r := range recipes(t) {
		check, ok := checks[r.title]
		if !ok {
			t.Errorf("no check for the recipe %q", r.title)
			continue
		}
		ran++
		cmd := exec.CommandContext(bounded, "bash", "-euo", "pipefail", "-c", r.script)
		cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "HOME="+t.TempDir(), "NATS_URL="+w.url, "ACCOUNT=acme", "CONTACT="+id)
		cmd.WaitDelay = time.Second // For what a script has started.
		out, err := cmd.CombinedOutput()
		complain := func(what string) { t.Errorf("%s: %s\n%s\n%s", r.title, what, r.script, out) }
		if err != nil {
			complain(err.Error())
		}
		for _, text := range check.has {
			if !strings.Contains(string(out), text) {
				complain(fmt.Sprintf("no %q", text))
			}
		}
		for _, text := range check.hasNot {
			if strings.Contains(string(out), text) {
				complain(fmt.Sprintf("%q should not be there", text))
			}
		}
	}
	if ran != len(checks) {
		t.Errorf("ran %d recipes, and there are checks for %d", ran, len(checks))
	}
	if s, err := w.js.Stream(t.Context(), "nimble-dead"); err != nil || s.CachedInfo().State.Msgs != 0 {
		t.Errorf("the dead letter is still there, or: %v", err)
	}
}
