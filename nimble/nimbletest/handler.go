package nimbletest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Endpoints, as [Fault] names them.
const (
	EndpointContacts = "contacts" // /api/v1/contacts
	EndpointIDs      = "ids"      // /api/v1/contacts/ids
	EndpointContact  = "contact"  // /api/v1/contact
	EndpointMyself   = "myself"   // /api/v1/myself
)

// maxByID is the largest number of ids in one request.
const maxByID = 30

// endpoint tells which resource a path names; ids is what follows /contact/.
func endpoint(path string) (name, ids string) {
	rest, ok := strings.CutPrefix(path, "/api/v1/")
	if !ok {
		return "", ""
	}
	switch strings.TrimSuffix(rest, "/") {
	case "contacts", "contacts/list":
		return EndpointContacts, ""
	case "contacts/ids":
		return EndpointIDs, ""
	case "contact":
		return EndpointContact, ""
	case "myself":
		return EndpointMyself, ""
	}
	if ids, ok := strings.CutPrefix(rest, "contact/"); ok && !strings.Contains(ids, "/") {
		return EndpointContact, ids
	}
	return "", ""
}

// ServeHTTP answers one request.
func (a *Account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, pathIDs := endpoint(r.URL.Path)
	a.mu.Lock()
	a.requests++
	n, hook := a.requests, a.onRequest
	a.mu.Unlock()
	if hook != nil {
		hook(n, r)
	}
	fault, faulty := a.takeFault(name)
	if faulty && !fault.before(r.Context()) {
		a.logRequest(r, name, 0)
		panic(http.ErrAbortHandler)
	}

	answer := a.answer(name, pathIDs, r, fault)
	header := w.Header()
	a.mu.Lock()
	now, b := a.clock(), a.behaviour
	a.mu.Unlock()
	header["Date"] = nil // Keeps net/http from writing its own.
	if !b.NoDate {
		header.Set("Date", now.Add(b.DateSkew).UTC().Format(http.TimeFormat))
	}
	header.Set("Content-Type", answer.contentType)
	if fault.RetryAfter != "" {
		header.Set("Retry-After", fault.RetryAfter)
	}
	body := answer.body
	if b.Gzip && acceptsGzip(r) {
		header.Set("Content-Encoding", "gzip")
		header.Add("Vary", "Accept-Encoding")
		body = compress(body)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	a.logRequest(r, name, answer.status)
	w.WriteHeader(answer.status)
	if r.Method == http.MethodHead {
		return
	}
	fault.write(w, r, body)
}

// answer is a response before it is sent.
type answer struct {
	status      int
	contentType string
	body        []byte
}

func jsonAnswer(status int, body []byte) answer {
	return answer{status, "application/json", body}
}

func htmlAnswer(status int) answer {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return answer{status, "text/html", fmt.Appendf(nil, "<html>\r\n<head><title>%[1]s</title></head>\r\n<body>\r\n"+
		"<center><h1>%[1]s</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n", title)}
}

// answer works out what to say.
func (a *Account) answer(name, pathIDs string, r *http.Request, fault Fault) answer {
	if fault.Status != 0 || fault.Body != "" || fault.HTML {
		return fault.answer()
	}
	if name == "" {
		return htmlAnswer(http.StatusNotFound)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return htmlAnswer(http.StatusMethodNotAllowed)
	}
	a.mu.Lock()
	unlock := a.mu.Unlock
	b := a.behaviour
	if b.URLCap > 0 && len(r.URL.RequestURI()) >= b.URLCap {
		unlock()
		return htmlAnswer(http.StatusRequestURITooLong)
	}
	if !a.authorised(r) {
		unlock()
		return b.failure(badKey(b.BadKeyStatus))
	}
	a.index.settle(micros(a.clock()))
	values := r.URL.Query()
	var render func() []byte
	var problem *apiError
	switch name {
	case EndpointMyself:
		render = a.myself()
	case EndpointContact:
		render, problem = a.byIDs(values, pathIDs)
	default:
		render, problem = a.listingAnswer(values, name == EndpointIDs)
	}
	unlock()
	if problem != nil {
		return b.failure(problem)
	}
	return jsonAnswer(http.StatusOK, render()) // Written without the lock: the versions never change.
}

// authorised looks for the key in the three places where Nimble documents it.
func (a *Account) authorised(r *http.Request) bool {
	key := r.Header.Get("X-Nimble-Token")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		key = bearer
	} else if key == "" {
		key = r.URL.Query().Get("access_token")
	}
	return !a.refuseKey && key != "" && key == a.key
}

func (a *Account) myself() func() []byte {
	body := append([]byte(nil), `{"user_id":"`...)
	body = append(body, userID(0)...)
	body = append(body, `","company_id":`...)
	body = quote(body, a.companyID)
	body = append(body, `,"email":"me@account.example","name":`...)
	body = quote(body, a.me())
	body = append(body, `,"company_size":"`...)
	body = strconv.AppendInt(body, int64(len(userNames)), 10)
	body = append(body, `"}`...)
	return func() []byte { return body }
}

// selection is what of each contact is to be written.
type selection struct {
	fields   []string // nil: everything
	noTags   bool
	contexts []string
}

// parseSelection reads the parameters that listings and reading by id share.
func parseSelection(values url.Values) (s selection, problem *apiError) {
	if values.Has("fields") {
		s.fields = splitEscaped(values.Get("fields"))
	}
	for _, name := range []string{"tags", "last_contacted", "files_data", "leads_data"} {
		if !values.Has(name) {
			continue
		}
		on, err := strconv.ParseBool(values.Get(name))
		if err != nil {
			return s, invalid(name, "must be a boolean")
		}
		if name == "tags" {
			s.noTags = !on
		}
	}
	if values.Get("contexts") != "" {
		s.contexts = strings.Split(values.Get("contexts"), ",")
		for _, c := range s.contexts {
			switch c {
			case "last_contacted_data", "employers_data", "leads_data", "sequences_data", "contact_files":
			default:
				return s, invalid("contexts", fmt.Sprintf("unknown context %q", c))
			}
		}
	}
	return s, nil
}

// splitEscaped splits a comma list in which a backslash escapes.
func splitEscaped(s string) []string {
	var parts []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == ',':
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(parts, b.String())
}

// append writes the selected part of a contact.
func (s *selection) append(b []byte, w *view, r row) []byte {
	if s.fields == nil && !s.noTags && s.contexts == nil {
		return w.append(b, r.record, &r.state)
	}
	members, err := parseObject(w.append(nil, r.record, &r.state))
	if err != nil {
		return w.append(b, r.record, &r.state) // Odd on purpose; there is nothing to select from.
	}
	d := &document{members: members}
	if s.noTags {
		d.remove("tags")
		d.remove("tags2")
	}
	if s.contexts != nil {
		list := []byte{'['}
		for i, c := range s.contexts {
			if i > 0 {
				list = append(list, ',')
			}
			list = append(quote(append(list, `{"context_key":`...), c), `,"context":null}`...)
		}
		d.set("contexts", append(list, ']'))
	}
	if s.fields != nil {
		wanted := func(name string) bool { return slices.Contains(s.fields, name) }
		if d.get("fields") != nil {
			d.setFields(slices.DeleteFunc(d.fields(), func(f field) bool { return !wanted(f.name) }))
		}
		d.members = slices.DeleteFunc(d.members, func(m member) bool {
			return m.name != "id" && m.name != "fields" && !wanted(m.name)
		})
	}
	return append(b, d.plain()...)
}

// byIDs answers /contact.
func (a *Account) byIDs(values url.Values, pathIDs string) (func() []byte, *apiError) {
	list := pathIDs
	if list == "" {
		list = values.Get("id")
	}
	selected, problem := parseSelection(values)
	if problem != nil {
		return nil, problem
	}
	meta := false
	if values.Has("meta") {
		var err error
		if meta, err = strconv.ParseBool(values.Get("meta")); err != nil {
			return nil, invalid("meta", "must be a boolean")
		}
	}
	ids := strings.Split(strings.TrimSuffix(list, "/"), ",")
	if list == "" {
		return nil, invalid("id", "is required")
	}
	if len(ids) > maxByID {
		return nil, invalid("id", fmt.Sprintf("at most %d ids", maxByID))
	}
	var rows []row
	var asked []*record
	for _, id := range ids {
		r := a.find(id)
		switch {
		case r == nil || r.deleted:
			if len(ids) == 1 && a.behaviour.MissingStatus == http.StatusNotFound {
				return nil, notFound(id)
			}
		case r.hidden:
			status := cmp.Or(int(r.hiddenAs), a.behaviour.HiddenStatus, http.StatusOK)
			switch {
			case len(ids) > 1 || status == http.StatusOK:
			case status == http.StatusNotFound:
				return nil, notFound(id)
			default:
				return nil, &apiError{status: status, message: "You have no rights to view this contact"}
			}
		case !slices.Contains(asked, r):
			asked = append(asked, r)
			rows = append(rows, row{r, r.stored, id})
		}
	}
	w := a.view()
	return func() []byte {
		b := append(make([]byte, 0, 64+3000*len(rows)), `{"resources":[`...)
		for i, r := range rows {
			if i > 0 {
				b = append(b, ',')
			}
			b = selected.append(b, w, r)
		}
		b = append(b, ']')
		if meta {
			b = append(b, `,"contacts_meta":{}`...)
		}
		return append(b, '}')
	}, nil
}

// meta is the paging part of a listing.
type meta struct{ page, pages, perPage, total int }

func (m meta) append(b []byte) []byte {
	return fmt.Appendf(b, `{"meta":{"page":%d,"pages":%d,"per_page":%d,"total":%d},"resources":[`, m.page, m.pages, m.perPage, m.total)
}

// listingAnswer answers /contacts and /contacts/ids.
func (a *Account) listingAnswer(values url.Values, idsOnly bool) (func() []byte, *apiError) {
	l, m, problem := a.parseListing(values)
	if problem != nil {
		return nil, problem
	}
	selected, problem := parseSelection(values)
	if problem != nil {
		return nil, problem
	}
	b := &a.behaviour
	extra := 0
	if b.DuplicateRows && m.page > 1 {
		extra = 1
	}
	l.offset -= extra
	l.limit += extra
	if depth := m.page * m.perPage; b.DepthCap > 0 && depth > b.DepthCap {
		if b.DepthStatus != 0 && b.DepthStatus != http.StatusConflict {
			return nil, &apiError{status: b.DepthStatus, message: "Internal error"}
		}
		return nil, invalid("page", "result window is too large")
	}
	rows, total := a.list(l)
	if len(rows) <= extra && m.page > 1 { // The repeated row alone makes no page.
		rows = nil
		switch b.PastEnd {
		case PastEndRefused:
			return nil, invalid("page", "is behind the last page")
		case PastEndFails:
			return nil, &apiError{status: http.StatusInternalServerError, message: "Internal error"}
		}
	}
	m.total = total
	if b.TotalNoise != nil {
		m.total = max(0, b.TotalNoise(total))
	}
	if b.TotalCap > 0 {
		m.total = min(m.total, b.TotalCap)
	}
	// No sample shows an empty listing; that it has no pages is what the others suggest.
	m.pages = (m.total + m.perPage - 1) / m.perPage
	w := a.view()
	if idsOnly {
		return func() []byte {
			out := m.append(make([]byte, 0, 128+27*len(rows)))
			for i, r := range rows {
				if i > 0 {
					out = append(out, ',')
				}
				out = quote(out, r.id)
			}
			return append(out, "]}"...)
		}, nil
	}
	return func() []byte {
		out := m.append(make([]byte, 0, 128+2800*len(rows)))
		for i, r := range rows {
			if i > 0 {
				out = append(out, ',')
			}
			out = selected.append(out, w, r)
		}
		return append(out, "]}"...)
	}, nil
}

// parseListing reads the parameters of a listing. Parameters that it does not know are ignored, as Nimble does;
// values that it does not know are errors.
func (a *Account) parseListing(values url.Values) (*listing, meta, *apiError) {
	b := &a.behaviour
	l := &listing{keyword: values.Get("keyword")}
	m := meta{page: 1, perPage: 30}
	var problem *apiError
	if m.page, problem = count(values, "page", 1); problem != nil {
		return nil, m, problem
	}
	if m.perPage, problem = count(values, "per_page", 30); problem != nil {
		return nil, m, problem
	}
	largest := b.PerPageMax
	if largest <= 0 {
		largest = 200
	}
	sort := values.Get("sort")
	if sort != "" {
		largest = min(largest, 100)
		if l.sort, l.descending, problem = b.parseSort(sort); problem != nil {
			return nil, m, problem
		}
	}
	if m.perPage > largest {
		if !b.PerPageCap {
			return nil, m, invalid("per_page", fmt.Sprintf("must not be greater than %d", largest))
		}
		m.perPage = largest
	}
	l.offset, l.limit = (m.page-1)*m.perPage, m.perPage
	if text := values.Get("query"); text != "" {
		if l.keyword != "" {
			return nil, m, invalid("keyword", "cannot be used together with query")
		}
		q, err := parseQuery(text, b, micros(a.clock()))
		if err != nil {
			return nil, m, invalid("query", err.Error())
		}
		l.query, l.queryText = q, text
		return l, m, nil // record_type does not count beside a query.
	}
	switch kind := values.Get("record_type"); kind {
	case "", "all":
	case "person", "company":
		l.recordType = kind
	default:
		return nil, m, invalid("record_type", fmt.Sprintf("unknown record type %q", kind))
	}
	return l, m, nil
}

// count reads a parameter that counts from 1.
func count(values url.Values, name string, byDefault int) (int, *apiError) {
	if !values.Has(name) {
		return byDefault, nil
	}
	n, err := strconv.ParseInt(values.Get(name), 10, 32)
	if err != nil || n < 1 {
		return 0, invalid(name, "must be a positive integer")
	}
	return int(n), nil
}

// parseSort reads field:order.
func (b *Behaviour) parseSort(sort string) (field string, descending bool, problem *apiError) {
	field, order, _ := strings.Cut(sort, ":")
	if order != "asc" && order != "desc" {
		return "", false, invalid("sort", "must be <field>:asc or <field>:desc")
	}
	mode := SortHonoured
	switch {
	case field == "updated":
		mode = b.UpdatedSort
	case field == "created":
		mode = b.CreatedSort
	case !slices.Contains(sortable, field):
		mode = SortRefused
	}
	switch mode {
	case SortRefused:
		return "", false, invalid("sort", fmt.Sprintf("cannot sort by %q", field))
	case SortIgnored:
		return "", false, nil
	}
	return field, order == "desc", nil
}

// logRequest remembers a request and how it was answered.
func (a *Account) logRequest(r *http.Request, endpoint string, status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.served == nil {
		a.served = make(map[Served]int)
	}
	a.served[Served{Endpoint: endpoint, Status: status}]++
	a.log = keep(append(a.log, Request{
		Time: a.clock().UTC(), Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Status: status,
	}))
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if strings.TrimSpace(coding) == "gzip" && strings.TrimSpace(weight) != "q=0" {
			return true
		}
	}
	return false
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		panic("nimbletest: " + err.Error())
	}
	_, _ = z.Write(body) // A bytes.Buffer takes everything.
	_ = z.Close()
	return b.Bytes()
}

// wait lets d pass, or less when the request ends; it reports whether d passed.
func wait(done <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-done:
		return false
	case <-time.After(d):
		return true
	}
}
