package hook

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/publisher/consumer"
	"nimble-bridge/publisher/event"
)

// Condition chooses events by an expression.
type Condition struct {
	program *vm.Program
	// uses are the variables that are costly to provide, and in the expression.
	uses map[string]bool
}

// facts is what an expression can ask for. The names in it are those of the event.
type facts struct {
	// Type is the verb, "updated" for instance.
	Type       string    `expr:"type"`
	ID         string    `expr:"id"`
	ContactID  string    `expr:"contact_id"`
	Account    string    `expr:"account"`
	RecordType string    `expr:"record_type"`
	Revision   uint64    `expr:"revision"`
	Time       time.Time `expr:"time"`
	Observed   time.Time `expr:"observed"`
	FoundBy    string    `expr:"found_by"`
	Reason     string    `expr:"reason"`
	Restored   bool      `expr:"restored"`
	Erased     bool      `expr:"erased"`
	Truncated  bool      `expr:"truncated"`
	Summary    summary   `expr:"summary"`
	// Fields has the texts of each field, by its name.
	Fields map[string][]string `expr:"fields"`
	// Contact is the whole document, whose values have no type before the expression runs.
	Contact map[string]any `expr:"contact"`
	// Changes has an element for each key of the event's changes; one that is not there has nothing in it.
	Changes map[string]change `expr:"changes"`
	// Changed tells whether one of the keys changed, or something below it.
	Changed func(keys ...string) bool `expr:"changed"`
}

type summary struct {
	Name    string   `expr:"name"`
	Company string   `expr:"company"`
	Title   string   `expr:"title"`
	Emails  []string `expr:"emails"`
	Phones  []string `expr:"phones"`
	Tags    []string `expr:"tags"`
}

type change struct {
	Before []string `expr:"before"`
	After  []string `expr:"after"`
	// Added and Removed are what one side has and the other has not.
	Added   []string `expr:"added"`
	Removed []string `expr:"removed"`
}

// ListContains is what "contains" means for lists; for texts it is a part of them.
func (facts) ListContains(list []string, s string) bool { return slices.Contains(list, s) }

// Compile reads an expression, which must be true or false. It can use
//
//	type, id, contact_id, account, record_type, revision, time, observed, found_by, reason, restored, erased, truncated
//	summary.name, .company, .title, .emails, .phones, .tags     the lists are of texts
//	fields["lead status"]                                        the texts of a field, a list
//	contact                                                      the whole document: contact.owner_id == "…"
//	changed("tags", "fields.email")                              whether one of these changed
//	changes["tags"].added, .removed, .before, .after             lists of texts, empty for what did not change
//
// where "contains" looks for an element in a list and for a part in a text. The error says where the expression makes no sense.
func Compile(source string) (*Condition, error) {
	program, err := expr.Compile(source, expr.Env(facts{}), expr.AsBool(), expr.Operator("contains", "ListContains"))
	if err != nil {
		return nil, fmt.Errorf("%s", goNames.ReplaceAllString(err.Error(), "$1"))
	}
	c := &Condition{program: program, uses: make(map[string]bool)}
	root := program.Node()
	ast.Walk(&root, c)
	return c, nil
}

// goNames are types of this package in the messages of the compiler.
var goNames = regexp.MustCompile(`(?:type )?hook\.(\w+)`)

// Visit implements [ast.Visitor].
func (c *Condition) Visit(node *ast.Node) {
	if name, ok := (*node).(*ast.IdentifierNode); ok {
		c.uses[name.Value] = true
	}
}

// Holds tells whether the expression is true of an event. An error says that it makes no sense for this one: it asks for an element of what is not there, for instance.
func (c *Condition) Holds(e *event.Event) (bool, error) {
	f, err := c.factsOf(e)
	if err != nil {
		return false, err
	}
	result, err := expr.Run(c.program, f)
	if err != nil {
		return false, c.senseless(err)
	}
	holds, ok := result.(bool)
	if !ok {
		return false, c.senseless(fmt.Errorf("%T is neither true nor false", result))
	}
	return holds, nil
}

// senseless is the error of an expression that makes no sense for an event. Only such messages are repeated as have nothing of the contact in them.
func (c *Condition) senseless(err error) error {
	source := c.program.Source().String()
	if failed, ok := errors.AsType[*file.Error](err); ok {
		message := "it makes no sense for this event"
		for _, known := range []string{"cannot fetch ", "index out of range", "interface conversion"} {
			if strings.HasPrefix(failed.Message, known) {
				message = failed.Message
			}
		}
		return fmt.Errorf("condition %s: %s, at character %d", source, message, failed.Column+1)
	}
	return fmt.Errorf("condition %s: %w", source, err)
}

func (c *Condition) factsOf(e *event.Event) (facts, error) {
	d := &e.Data
	f := facts{
		Type: string(e.Verb()), ID: e.ID, ContactID: e.Subject, Account: d.Account, RecordType: d.RecordType, Revision: d.Revision,
		Time: e.Time, Observed: d.Observed, FoundBy: d.FoundBy, Reason: d.Reason, Restored: d.Restored, Erased: d.Erased, Truncated: d.Truncated,
		Summary: summary(d.Summary), Changed: e.Changed,
	}
	if c.uses["changes"] {
		f.Changes = make(map[string]change, len(d.Changes))
		for key, ch := range d.Changes {
			before, after := ch.Texts()
			f.Changes[key] = change{before, after, ch.Added(), ch.Removed()}
		}
	}
	if c.uses["fields"] {
		fields, err := d.Fields()
		if err != nil {
			return f, fmt.Errorf("condition: %w", err)
		}
		f.Fields = make(map[string][]string, len(fields))
		for name := range fields {
			f.Fields[name] = fields.Texts(name)
		}
	}
	if c.uses["contact"] {
		if err := json.Unmarshal(d.Contact, &f.Contact, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
			return f, fmt.Errorf("condition: contact document: %w", err)
		}
	}
	return f, nil
}

// Filter makes a handler that gets only those events of which the condition holds. Where it makes no sense for an event, that becomes a dead letter. A nil condition holds always.
func (c *Condition) Filter(handle consumer.Handler) consumer.Handler {
	if c == nil {
		return handle
	}
	return func(ctx context.Context, d *consumer.Delivery) error {
		holds, err := c.Holds(d.Event)
		if err != nil {
			return consumer.Permanent(err)
		}
		if !holds {
			return nil
		}
		return handle(ctx, d)
	}
}
