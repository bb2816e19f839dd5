package admin

import (
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nimble-bridge/nimble/nimbletest"
)

// Handler changes one account by what it is asked over HTTP. Make it with [New].
type Handler struct {
	account *nimbletest.Account
	handler http.Handler

	mu sync.Mutex
	// totalError is what cannot be read back from the account's behaviour, which has a function for it.
	totalError string
}

// New makes the handler for an account. It serves paths below /admin/.
func New(account *nimbletest.Account) *Handler {
	h := &Handler{account: account}
	mux := http.NewServeMux()
	for pattern, do := range map[string]func(*http.Request) (any, error){
		"GET /admin/status":        h.status,
		"GET /admin/contacts":      h.list,
		"POST /admin/contacts":     h.create,
		"GET /admin/contacts/{id}": h.show,
		"GET /admin/ids":           h.ids,

		"PATCH /admin/contacts/{id}":  h.editOne,
		"PUT /admin/contacts/{id}":    h.put,
		"DELETE /admin/contacts/{id}": h.deleteOne,
		"POST /admin/edit":            h.edit,
		"POST /admin/tag":             h.tag,
		"POST /admin/untag":           h.untag,
		"POST /admin/star":            h.star,
		"POST /admin/touch":           h.touch,
		"POST /admin/times":           h.times,
		"POST /admin/merge":           h.merge,
		"POST /admin/import":          h.importMany,
		"POST /admin/rename-tag":      h.renameTag,
		"POST /admin/rename-user":     h.renameUser,
		"POST /admin/count-down":      h.countDown,

		"POST /admin/delete":  h.delete,
		"POST /admin/hide":    h.hide,
		"POST /admin/vanish":  h.vanish,
		"POST /admin/restore": h.restore,
		"POST /admin/spoil":   h.spoil,
		"POST /admin/mend":    h.mend,

		"GET /admin/behaviour":    h.behaviour,
		"PATCH /admin/behaviour":  h.behave,
		"DELETE /admin/behaviour": h.behaveWell,
		"GET /admin/faults":       h.faults,
		"POST /admin/faults":      h.fault,
		"DELETE /admin/faults":    h.clearFaults,
		"GET /admin/key":          h.key,
		"PUT /admin/key":          h.setKey,

		"GET /admin/requests":    h.requests,
		"DELETE /admin/requests": h.resetRequests,
		"GET /admin/journal":     h.journal,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if status := r.Header.Get("Sec-Fetch-Site"); status == "cross-site" || status == "same-site" {
				reply(w, http.StatusForbidden, problem{Error: crossSite})
				return
			}
			answer, err := do(r)
			if err != nil {
				fail(w, err)
				return
			}
			status := http.StatusOK
			if _, created := answer.(created); created {
				status = http.StatusCreated
			}
			reply(w, status, answer)
		})
	}
	mux.HandleFunc("GET /admin/{$}", servePage)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			reply(w, http.StatusMethodNotAllowed, problem{Error: fmt.Sprintf("%s takes %s, not %s", r.URL.Path, strings.Join(allowed, " or "), r.Method)})
			return
		}
		reply(w, http.StatusNotFound, problem{Error: fmt.Sprintf("there is no %s here", r.URL.Path)})
	})
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusForbidden, problem{Error: crossSite})
	}))
	h.handler = guard.Handler(mux)
	return h
}

const crossSite = "this request comes from another site's page, which may not change the account"

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !local(r) {
		// A foreign page whose name was made to lead here is of the same origin to the browser; only the name tells.
		reply(w, http.StatusForbidden, problem{Error: fmt.Sprintf("the name %q does not belong to this machine alone; ask for 127.0.0.1 or localhost", r.Host)})
		return
	}
	h.handler.ServeHTTP(w, r)
}

// local tells whether a request that came over the loopback interface also named it.
func local(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !at.IP.IsLoopback() {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err == nil {
		return true // An address is not a name that somebody else could have given.
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// problem is the answer to a request that was not done.
type problem struct {
	Error string `json:"error"`
}

// refusal is an error with the status of its answer.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error {
	return refuse(http.StatusBadRequest, format, args...)
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if r, ok := errors.AsType[*refusal](err); ok {
		status = r.status
	}
	reply(w, status, problem{Error: err.Error()})
}

func reply(w http.ResponseWriter, status int, answer any) {
	body, err := json.Marshal(answer, json.Deterministic(true), jsontext.Multiline(true), json.FormatNilSliceAsNull(false), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		status, body = http.StatusInternalServerError, fmt.Appendf(nil, `{"error":%q}`, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // The reader may be gone.
}

// maxBody is the largest request.
const maxBody = 16 << 20

// read decodes a request's body. Members that it does not know are refused: a misspelt one would go unnoticed.
func read(r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		// No page of another site can send this type without asking first, and nobody would answer.
		return refuse(http.StatusUnsupportedMediaType, "the Content-Type is %q, want application/json (curl --json)", r.Header.Get("Content-Type"))
	}
	err := json.UnmarshalRead(http.MaxBytesReader(nil, r.Body, maxBody), into, json.RejectUnknownMembers(true))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*json.SemanticError](err)
	switch {
	case !ok:
		return invalid("the body is no JSON: %v", err)
	case errors.Is(err, json.ErrUnknownName):
		return invalid("there is no member %q here", wrong.JSONPointer.LastToken())
	case wrong.JSONPointer == "":
		return invalid("the body is not an object as wanted: %v", cause(wrong))
	}
	return invalid("%s: %v", wrong.JSONPointer, cause(wrong))
}

func cause(wrong *json.SemanticError) string {
	if wrong.Err != nil {
		return wrong.Err.Error()
	}
	return fmt.Sprintf("a %v does not fit", wrong.JSONKind)
}

// done is the answer to a request that was done.
type done struct {
	// Done says what, in words.
	Done  string   `json:"done"`
	Count int      `json:"count"`
	IDs   []string `json:"ids,omitempty"`
}

// number reads a parameter that counts.
func number(r *http.Request, name string, byDefault int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, invalid("%s is %q, want a number of 0 or more", name, text)
	}
	return n, nil
}

// contacts is a number of contacts in words.
func contacts(n int) string {
	if n == 1 {
		return "1 contact"
	}
	return fmt.Sprintf("%d contacts", n)
}
