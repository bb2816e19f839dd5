package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/nimble/nimbletest/admin"
)

// openPage gives the page as a browser gets it.
func openPage(t *testing.T) (header http.Header, text string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:8090/admin/", nil)
	req.Header.Set("Sec-Fetch-Site", "cross-site") // A link in somebody's notes leads here.
	w := httptest.NewRecorder()
	admin.New(nimbletest.New()).ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Fatalf("the page answers %d", w.Code)
	}
	return w.Header(), w.Body.String()
}

func TestPageLoadsNothingFromElsewhere(t *testing.T) {
	header, text := openPage(t)
	if got := header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type = %q", got)
	}
	for _, pattern := range []string{`https?://[a-z]`, `(?i)<link[^>]*href="[^d]`, `(?i)\bsrc=`, `@import`, `\burl\(`, `innerHTML`, `\sstyle="`, `\son[a-z]+="`} {
		if found := regexp.MustCompile(pattern).FindString(text); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	policy := header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none';", "style-src 'sha256-", "script-src 'sha256-", "connect-src 'self';", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q has no %s", policy, want)
		}
	}
	for _, element := range []string{"style", "script"} {
		if n := strings.Count(text, "<"+element); n != 1 {
			t.Errorf("the page has %d of %s, and the policy allows one", n, element)
		}
	}
}

// The page calls endpoints and names settings by their texts; a renamed one would be found out by a click only.
func TestPageKnowsTheEndpointsAndSettings(t *testing.T) {
	_, text := openPage(t)
	c := open(t, nimbletest.New())
	calls := regexp.MustCompile(`act\("(POST|PUT|PATCH|DELETE)", "([a-z-]+)(/?)"`).FindAllStringSubmatch(text, -1)
	calls = append(calls, regexp.MustCompile(`on\((")([a-z-]+)(")`).FindAllStringSubmatch(text, -1)...)
	calls = append(calls, regexp.MustCompile(`ask\((")([a-z-]+)(/?)`).FindAllStringSubmatch(text, -1)...)
	if len(calls) < 30 {
		t.Fatalf("found only the calls %q", calls)
	}
	for _, call := range calls {
		method, path := call[1], call[2]
		if method == `"` && strings.HasPrefix(call[0], "ask") {
			method = "GET"
		} else if method == `"` {
			method = "POST"
		}
		if call[3] == "/" {
			path += "/x"
		}
		// Asked with a body that is no JSON an endpoint does nothing, but says that it is there.
		if status, answer := c.try(method, path, "?"); status == http.StatusMethodNotAllowed || strings.Contains(answer, "there is no /admin/") {
			t.Errorf("%s %s: %d %s", method, path, status, answer)
		}
	}

	_, answer := c.try("GET", "behaviour", "")
	var known map[string]any
	if err := json.Unmarshal([]byte(answer), &known); err != nil {
		t.Fatal(err)
	}
	table := between(t, text, "const settings = [", "\n];")
	var shown []string
	for _, found := range regexp.MustCompile(`(?:\[|\], |\n\s+)\["([a-z_]+)", "`).FindAllStringSubmatch(table, -1) {
		shown = append(shown, found[1])
	}
	for name := range known {
		if !slices.Contains(shown, name) {
			t.Errorf("the page does not show %s", name)
		}
	}
	for _, name := range shown {
		if _, ok := known[name]; !ok {
			t.Errorf("the page shows %s, which is no behaviour", name)
		}
	}
	for _, found := range regexp.MustCompile(`(\w+): ("[^"]*")`).FindAllStringSubmatch(between(t, text, "const usually = {", "}"), -1) {
		if got := fmt.Sprintf("%q", known[found[1]]); got != found[2] {
			t.Errorf("by default %s is %s, the page thinks %s", found[1], got, found[2])
		}
	}
}

func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, from)
	part, _, closed := strings.Cut(rest, to)
	if !ok || !closed {
		t.Fatalf("the page has no %s … %s", from, to)
	}
	return part
}
