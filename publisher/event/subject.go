package event

import (
	"fmt"
	"strings"
)

// SubjectError says why a text cannot be a subject, or a token of one.
type SubjectError struct {
	// Part is what the text was to be: "prefix", "account", "verb", "contact id" or "subject".
	Part string
	Text string
}

// Error implements error.
func (e *SubjectError) Error() string {
	switch e.Part {
	case "subject":
		return fmt.Sprintf("subject %q is not <prefix>.<account>.contact.<verb>.<contact id>", e.Text)
	case "prefix":
		return fmt.Sprintf("prefix %q is not one or more tokens of letters, digits, - and _ with dots between", e.Text)
	default:
		return fmt.Sprintf("%s %q has other characters than letters, digits, - and _", e.Part, e.Text)
	}
}

// ValidToken tells whether s may stand as one token of a subject and as part of a bucket key: letters, digits, "-" and "_". NATS itself accepts more,
// and would store a subject with a literal wildcard in it, which no filter tells from the wildcard.
func ValidToken(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '_', b == '-':
		default:
			return false
		}
	}
	return s != ""
}

// ValidPrefix tells whether s may stand in front of every subject: one or more valid tokens with dots between.
func ValidPrefix(s string) bool {
	for token := range strings.SplitSeq(s, ".") {
		if !ValidToken(token) {
			return false
		}
	}
	return true
}

// Subject is a contact event's subject, taken apart.
type Subject struct {
	Prefix, Account string
	Verb            Verb
	ContactID       string
}

// String is the subject as it stands on a message. It checks nothing; see [Subject.Check].
func (s Subject) String() string {
	return s.Prefix + "." + s.Account + ".contact." + string(s.Verb) + "." + s.ContactID
}

// Check returns a [*SubjectError] unless all parts are valid.
func (s Subject) Check() error {
	switch {
	case !ValidPrefix(s.Prefix):
		return &SubjectError{Part: "prefix", Text: s.Prefix}
	case !ValidToken(s.Account):
		return &SubjectError{Part: "account", Text: s.Account}
	case !s.Verb.Valid():
		return &SubjectError{Part: "verb", Text: string(s.Verb)}
	case !ValidToken(s.ContactID):
		return &SubjectError{Part: "contact id", Text: s.ContactID}
	}
	return nil
}

// ParseSubject takes a contact event's subject apart. The error is a [*SubjectError].
func ParseSubject(subject string) (Subject, error) {
	var s Subject
	fail := func() (Subject, error) { return Subject{}, &SubjectError{Part: "subject", Text: subject} }
	rest, id, ok := cutLast(subject)
	if !ok {
		return fail()
	}
	rest, verb, ok := cutLast(rest)
	if !ok {
		return fail()
	}
	rest, word, ok := cutLast(rest)
	if !ok || word != "contact" {
		return fail()
	}
	s.Prefix, s.Account, ok = cutLast(rest)
	if !ok {
		return fail()
	}
	s.Verb, s.ContactID = Verb(verb), id
	if s.Check() != nil {
		return fail()
	}
	return s, nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// ContactSubjects is the filter for everything about one contact, whatever the verb.
func ContactSubjects(prefix, account, contactID string) string {
	return prefix + "." + account + ".contact.*." + contactID
}

// ReconciledSubject is the subject of an account's receipts.
func ReconciledSubject(prefix, account string) string {
	return prefix + "." + account + ".bridge.reconciled"
}

// RejectedSubject is the subject of an account's notices of rejected records.
func RejectedSubject(prefix, account string) string {
	return prefix + "." + account + ".bridge.rejected"
}
