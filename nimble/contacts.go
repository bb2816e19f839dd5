package nimble

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The endpoints as [RequestInfo] and errors name them.
const (
	endpointContacts = "contacts"
	endpointIDs      = "ids"
	endpointContact  = "contact"
	endpointMyself   = "myself"
)

const (
	// maxIDs is how many contacts one request by id may ask for.
	maxIDs = 30
	// defaultPerPage is how many contacts to a page [Client.Contacts] asks for; Nimble sorts no larger pages. Nimble's own default is 30.
	defaultPerPage = 100
)

// ListOptions choose and order what a listing holds. The zero value is everything in no particular order.
type ListOptions struct {
	// Query is a condition; the zero value is none.
	Query Query
	// Sort is a field and a direction, such as "updated:asc". Nimble sorts by one field only, and only pages of up to
	// 100. Without it the order is undefined.
	Sort string
	// Page counts from 1; 0 is 1.
	Page int
	// PerPage is the size of a page; 0 leaves it to Nimble, or is 100 in [Client.Contacts].
	PerPage int
	// RecordType is "person" or "company"; empty is both.
	RecordType string
}

func (o ListOptions) values() (url.Values, error) {
	if o.Page < 0 || o.PerPage < 0 {
		return nil, fmt.Errorf("page %d of %d contacts each: neither may be negative", o.Page, o.PerPage)
	}
	values := url.Values{"page": {strconv.Itoa(max(o.Page, 1))}}
	if o.PerPage > 0 {
		values.Set("per_page", strconv.Itoa(o.PerPage))
	}
	if o.Sort != "" {
		values.Set("sort", o.Sort)
	}
	query := o.Query
	if o.RecordType != "" {
		// Nimble ignores the parameter next to a query.
		if query.IsZero() {
			values.Set("record_type", o.RecordType)
		} else {
			query = And(query, RecordTypeIs(o.RecordType))
		}
	}
	if !query.IsZero() {
		values.Set("query", query.String())
	}
	return values, nil
}

// expect is how many resources to make room for.
func (o ListOptions) expect() int {
	if o.PerPage == 0 {
		return 30
	}
	return min(o.PerPage, 200)
}

// Meta is what Nimble says of a listing. Numbers that it does not send are 0. Total may be approximate or capped in large accounts.
type Meta struct {
	Page, Pages, PerPage, Total int
}

// Page is one page of contacts.
type Page struct {
	Meta     Meta
	Contacts []Contact
	// Malformed are the records that are in the listing but cannot be understood. The others are not affected by them.
	Malformed []Malformed
	// Date is Nimble's clock when it answered, to the second; zero if it did not tell.
	Date time.Time
}

// IDPage is one page of ids.
type IDPage struct {
	Meta Meta
	IDs  []string
	// Malformed counts the entries that are no usable id.
	Malformed int
	// Date is as in [Page].
	Date time.Time
}

// Count is how many contacts meet a condition.
type Count struct {
	Total int
	// Date is as in [Page].
	Date time.Time
}

// Myself is the user whom the API key belongs to.
type Myself struct {
	UserID string
	// CompanyID identifies the account.
	CompanyID   string
	Email, Name string
}

// Myself asks whom the key belongs to, which is the cheapest way to see whether Nimble accepts it.
func (c *Client) Myself(ctx context.Context) (Myself, error) {
	var me Myself
	err := c.get(ctx, endpointMyself, "/myself", nil, func(resp *response) error {
		members, ok := objectMembers(resp.body)
		if !ok {
			return resp.bodyError(objectError(resp.body))
		}
		me = Myself{
			UserID:    stringValue(members["user_id"]),
			CompanyID: stringValue(members["company_id"]),
			Email:     stringValue(members["email"]),
			Name:      stringValue(members["name"]),
		}
		if me.UserID == "" && me.CompanyID == "" {
			return resp.bodyError(shapeError("JSON without user_id and company_id"))
		}
		return nil
	})
	if err != nil {
		return Myself{}, fmt.Errorf("myself: %w", err)
	}
	return me, nil
}

// ContactsPage lists one page of contacts.
func (c *Client) ContactsPage(ctx context.Context, opts ListOptions) (*Page, error) {
	values, err := opts.values()
	if err != nil {
		return nil, err
	}
	var page *Page
	err = c.get(ctx, endpointContacts, "/contacts", values, func(resp *response) error {
		l, err := decodeListing(resp, contactResources, opts.expect())
		if err != nil {
			return err
		}
		page = &Page{Meta: l.meta, Contacts: l.contacts, Malformed: l.malformed, Date: resp.date()}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("contacts page %s: %w", values.Get("page"), err)
	}
	return page, nil
}

// Contacts lists all pages from opts.Page on, requesting each when the loop comes to it. A record that cannot be understood comes as a
// [*RecordError], after the good ones of its page, and the loop may go on; after any other error the sequence ends.
//
// Nimble pages by number and has no snapshots: what is changed, created or deleted meanwhile can move contacts across page
// boundaries, so that some are seen twice and others not at all. Whoever needs every contact walks along a sort key
// with [Client.ContactsPage] instead.
func (c *Client) Contacts(ctx context.Context, opts ListOptions) iter.Seq2[Contact, error] {
	return func(yield func(Contact, error) bool) {
		opts.Page = max(opts.Page, 1)
		if opts.PerPage == 0 {
			opts.PerPage = defaultPerPage
		}
		var first string
		for {
			page, err := c.ContactsPage(ctx, opts)
			if err != nil {
				yield(Contact{}, err)
				return
			}
			for _, contact := range page.Contacts {
				if !yield(contact, nil) {
					return
				}
			}
			for _, m := range page.Malformed {
				if !yield(Contact{}, &RecordError{m}) {
					return
				}
			}
			if opts.last(page) {
				return
			}
			// A server that ignores the page number would keep the loop going for ever.
			if len(page.Contacts) > 0 {
				if page.Meta.Pages == 0 && page.Contacts[0].ID == first {
					return
				}
				first = page.Contacts[0].ID
			}
			opts.Page++
		}
	}
}

// last tells whether a page is the last one, by its size where Nimble does not say how many there are. Nothing is known of pages past the
// end, so none is asked for.
func (o ListOptions) last(page *Page) bool {
	rows := len(page.Contacts) + len(page.Malformed)
	if rows == 0 {
		return true
	}
	if page.Meta.Pages > 0 {
		return o.Page >= page.Meta.Pages
	}
	size := o.PerPage
	if page.Meta.PerPage > 0 {
		size = page.Meta.PerPage
	}
	return rows < size
}

// ContactIDsPage lists one page of ids, which costs Nimble and the network much less than the contacts.
func (c *Client) ContactIDsPage(ctx context.Context, opts ListOptions) (*IDPage, error) {
	values, err := opts.values()
	if err != nil {
		return nil, err
	}
	var page *IDPage
	err = c.get(ctx, endpointIDs, "/contacts/ids", values, func(resp *response) error {
		l, err := decodeListing(resp, idResources, opts.expect())
		if err != nil {
			return err
		}
		page = &IDPage{Meta: l.meta, IDs: l.ids, Malformed: l.oddities, Date: resp.date()}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("contact ids page %s: %w", values.Get("page"), err)
	}
	return page, nil
}

// Count returns how many contacts meet the query, all of them for the zero query. It costs one small request. The number is
// Nimble's; see [Meta].
func (c *Client) Count(ctx context.Context, query Query) (Count, error) {
	opts := ListOptions{Query: query, PerPage: 1}
	values, err := opts.values()
	if err != nil {
		return Count{}, err
	}
	var count Count
	err = c.get(ctx, endpointIDs, "/contacts/ids", values, func(resp *response) error {
		l, err := decodeListing(resp, idResources, 1)
		if err != nil {
			return err
		}
		if !l.hasTotal {
			// A missing number must not pass for zero.
			return resp.bodyError(shapeError("JSON without meta.total"))
		}
		count = Count{Total: l.meta.Total, Date: resp.date()}
		return nil
	})
	if err != nil {
		return Count{}, fmt.Errorf("count of contacts: %w", err)
	}
	return count, nil
}

// ContactsByID fetches any number of contacts, 30 a request, in the order of the ids. Those that Nimble does not have or
// does not show are left out, and repeated ids count once. Records that cannot be understood are not missing: the error joins a [*RecordError]
// for each, beside the contacts that could be read. With any other error there are no contacts.
func (c *Client) ContactsByID(ctx context.Context, ids ...string) ([]Contact, error) {
	for _, id := range ids {
		if err := checkID(id); err != nil {
			return nil, err
		}
	}
	found := make(map[string]Contact, len(ids))
	var malformed []error
	for batch := range slices.Chunk(ids, maxIDs) {
		contacts, errs, err := c.fetch(ctx, batch)
		if err != nil {
			return nil, fmt.Errorf("contacts by id: %w", err)
		}
		for _, contact := range contacts {
			found[contact.ID] = contact
		}
		malformed = append(malformed, errs...)
	}
	contacts := make([]Contact, 0, len(found))
	for _, id := range ids {
		if contact, ok := found[id]; ok {
			contacts = append(contacts, contact)
			delete(found, id)
		}
	}
	return contacts, errors.Join(malformed...)
}

// fetch makes one request for up to 30 ids. Should Nimble answer for all of them that one is missing, the halves are asked for
// separately, down to the single id.
func (c *Client) fetch(ctx context.Context, ids []string) ([]Contact, []error, error) {
	var l *listing
	values := url.Values{"id": {strings.Join(ids, ",")}}
	err := c.get(ctx, endpointContact, "/contact", values, func(resp *response) (err error) {
		l, err = decodeListing(resp, contactResources, len(ids))
		return err
	})
	switch {
	case err == nil:
	case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrForbidden):
		return nil, nil, err
	case len(ids) == 1:
		return nil, nil, nil
	default:
		half := len(ids) / 2
		contacts, malformed, err := c.fetch(ctx, ids[:half])
		if err != nil {
			return nil, nil, err
		}
		more, moreMalformed, err := c.fetch(ctx, ids[half:])
		return append(contacts, more...), append(malformed, moreMalformed...), err
	}
	var malformed []error
	for _, m := range l.malformed {
		malformed = append(malformed, &RecordError{m})
	}
	return l.contacts, malformed, nil
}

// ContactByID fetches one contact. The error wraps [ErrNotFound] when Nimble has no such contact or does not show it, [ErrForbidden] when
// it says that the key's user may not see it, and is a [*RecordError] when the record cannot be understood.
func (c *Client) ContactByID(ctx context.Context, id string) (Contact, error) {
	if err := checkID(id); err != nil {
		return Contact{}, err
	}
	var contact Contact
	err := c.get(ctx, endpointContact, "/contact", url.Values{"id": {id}}, func(resp *response) error {
		l, err := decodeListing(resp, contactResources, 1)
		if err != nil {
			return err
		}
		contact, err = l.only(id)
		if errors.Is(err, errShape) {
			return resp.bodyError(shapeError("JSON with other contacts than the one asked for"))
		}
		return err
	})
	if err != nil {
		return Contact{}, fmt.Errorf("contact %s: %w", id, err)
	}
	return contact, nil
}

// only picks the contact asked for out of an answer that should hold nothing else.
func (l *listing) only(id string) (Contact, error) {
	for _, contact := range l.contacts {
		if contact.ID == id {
			return contact, nil
		}
	}
	switch {
	case len(l.malformed) > 0:
		return Contact{}, &RecordError{l.malformed[0]}
	case len(l.contacts) > 0:
		return Contact{}, errShape
	}
	return Contact{}, ErrNotFound
}

func checkID(id string) error {
	if !validID(id) {
		return fmt.Errorf("contact id %q: must have 1 to %d letters, digits, _ or -", id, maxIDLength)
	}
	return nil
}
