package validate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"nimble-bridge/nimble/nimbletest"
)

// given are the labels that a scrape adds, and the metrics.
var (
	given      = []string{"job", "instance", "namespace"}
	prometheus = map[string][]string{"up": nil}
)

// TestQueriesNameWhatTheBridgeHas runs the bridge and holds the metrics and labels of every alert and panel against what it shows.
func TestQueriesNameWhatTheBridgeHas(t *testing.T) {
	has := seriesOf(t, scrapeBridge(t))
	maps.Copy(has, prometheus)

	queries := make(map[string]string)
	for _, a := range alerts(t) {
		queries["alert "+a.Alert] = a.Expr
	}
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries[fmt.Sprintf("panel %q, query %s", p.Title, target.RefID)] = grafanaVariables.Replace(target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		// label_values(<query>, <label>) is Grafana's; what is in it is a query.
		if inner, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			at := strings.LastIndex(inner, ",")
			queries["variable "+v.Name] = fmt.Sprintf("count by (%s) (%s)", strings.Trim(inner[at+1:], " )"), grafanaVariables.Replace(inner[:at]))
		}
	}
	if len(queries) < 40 {
		t.Fatalf("only %d queries found", len(queries))
	}
	used := make(map[string]bool)
	for where, query := range queries {
		for _, problem := range unknown(t, query, has, used) {
			t.Errorf("%s: %s in\n%s", where, problem, query)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(has)) {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "nimble_bridge_") && !used[name] && !used[base+"_bucket"] {
			t.Errorf("no alert and no panel shows %s", name)
		}
	}
}

// unknown lists the metrics and labels of a query that nothing has.
func unknown(t *testing.T, query string, has map[string][]string, used map[string]bool) []string {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return []string{err.Error()}
	}
	var problems []string
	labels := slices.Clone(given)
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		own, ok := has[selector.Name]
		if !ok {
			problems = append(problems, "there is no metric "+strconv.Quote(selector.Name))
		}
		used[selector.Name] = true
		labels = append(labels, own...)
		for _, m := range selector.LabelMatchers {
			if m.Name != model.MetricNameLabel && !slices.Contains(own, m.Name) && !slices.Contains(given, m.Name) {
				problems = append(problems, selector.Name+" has no label "+m.Name)
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		var grouping []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			grouping = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				grouping = n.VectorMatching.MatchingLabels
			}
		}
		for _, label := range grouping {
			if !slices.Contains(labels, label) {
				problems = append(problems, "no metric in it has the label "+label)
			}
		}
		return nil
	})
	return problems
}

// seriesOf returns the labels of each series, by the names that queries use.
func seriesOf(t *testing.T, exposition []byte) map[string][]string {
	t.Helper()
	textParser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := textParser.TextToMetricFamilies(bytes.NewReader(exposition))
	if err != nil {
		t.Fatal(err)
	}
	has := make(map[string][]string)
	for name, family := range families {
		var labels []string
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
		}
		has[name] = labels
		if family.GetType() == dto.MetricType_HISTOGRAM {
			delete(has, name)
			has[name+"_bucket"], has[name+"_sum"], has[name+"_count"] = append(labels, "le"), labels, labels
		}
	}
	return has
}

// scrapeBridge runs the bridge, with an account in which everything happens that is counted, until its metrics show it.
func scrapeBridge(t *testing.T) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nimble-bridge")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/nimble-bridge")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	account := nimbletest.New(nimbletest.WithContacts(30))
	nimble := httptest.NewServer(breaking(account, account.IDs()[3]))
	t.Cleanup(nimble.Close)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bridge := exec.CommandContext(ctx, program, "run")
	bridge.Env = append(os.Environ(),
		"NIMBLE_API_KEY=test-key", "NIMBLE_BASE_URL="+nimble.URL, "NIMBLE_ACCOUNT=acme", "NIMBLE_RATE_LIMIT=1000", "POLL_INTERVAL=50ms", "RECONCILE_INTERVAL=100ms",
		"HTTP_ADDR=127.0.0.1:0", "EMBEDDED_NATS_ADDR=127.0.0.1:0", "EMBEDDED_NATS_DIR="+t.TempDir(), "LOG_FORMAT=json", "LOG_LEVEL=info",
	)
	var log buffer
	bridge.Stdout, bridge.Stderr = &log, &log
	if err := bridge.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = bridge.Process.Signal(syscall.SIGTERM) // The end of ctx follows, should it not be enough.
		_ = bridge.Wait()
		if t.Failed() {
			t.Logf("the bridge:\n%s", log.String())
		}
	}()

	serving := regexp.MustCompile(`"url":"(http://[^"]+)"`)
	var page []byte
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if url := serving.FindStringSubmatch(log.String()); url != nil {
			page = get(ctx, t, url[1]+"/metrics")
			if bytes.Contains(page, []byte("nimble_bridge_rejected_records_total{")) && bytes.Contains(page, []byte("nimble_bridge_last_reconcile_timestamp_seconds{")) {
				return page
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no reconciliation and no rejected record in the metrics:\n%s", page)
		}
	}
}

// breaking is an account one of whose contacts has an id that is none, when it is listed.
func breaking(account http.Handler, id string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		account.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(answer.Code)
		_, _ = w.Write(bytes.ReplaceAll(answer.Body.Bytes(), []byte(`"id":"`+id+`"`), []byte(`"id":{"$oid":"`+id+`"}`)))
	})
}

func get(ctx context.Context, t *testing.T, url string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// buffer is what a process has written so far.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
