package validate

import (
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

const (
	rulesFile     = "../prometheus/nimble-bridge.rules.yaml"
	unitTests     = "../prometheus/nimble-bridge.rules_test.yaml"
	operatorRules = "../kubernetes/components/prometheus-operator/prometheusrule.yaml"
	dashboardFile = "../grafana/nimble-bridge.json"
	runbookFile   = "../RUNBOOK.md"
)

var update = flag.Bool("update", false, "write the operator's copy of the alerts")

func alerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil || len(groups.Groups) != 1 || len(groups.Groups[0].Rules) == 0 {
		t.Fatalf("%s: want one group of rules", rulesFile)
	}
	return groups.Groups[0].Rules
}

func TestAlertsSayWhatAPersonNeeds(t *testing.T) {
	for _, a := range alerts(t) {
		if s := a.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has severity %q", a.Alert, s)
		}
		if a.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", a.Alert)
		}
		if got, want := a.Annotations["runbook_url"], "deploy/RUNBOOK.md#"+strings.ToLower(a.Alert); got != want {
			t.Errorf("%s has runbook_url %q, want %q", a.Alert, got, want)
		}
	}
}

func TestRunbookHasASectionForEachAlert(t *testing.T) {
	runbook, err := os.ReadFile(runbookFile)
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string]string)
	var order []string
	for _, section := range strings.Split(string(runbook), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		if title == "First look" {
			continue
		}
		sections[title] = text
		order = append(order, title)
	}
	var names []string
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		for _, part := range []string{"**Means.**", "**Look.**", "**Do.**"} {
			if !strings.Contains(sections[a.Alert], part) {
				t.Errorf("the section of %s has no %s", a.Alert, part)
			}
		}
	}
	slices.Sort(names)
	slices.Sort(order)
	if diff := cmp.Diff(names, order); diff != "" {
		t.Errorf("alerts and sections of the runbook (-alert +section):\n%s", diff)
	}
	for _, link := range regexp.MustCompile(`\]\(#(\w+)\)`).FindAllStringSubmatch(string(runbook), -1) {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.ToLower(name) == link[1] }) {
			t.Errorf("the runbook points to #%s, which is no section", link[1])
		}
	}
}

// Whether the unit tests hold is for promtool to say, see .ci/run; here it counts that they leave no alert out.
func TestUnitTestsHaveEachAlertFiringAndNot(t *testing.T) {
	content, err := os.ReadFile(unitTests)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tests []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert    string `json:"alertname"`
				Expected []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, test := range file.Tests {
		for _, rule := range test.Rules {
			if len(rule.Expected) > 0 {
				fires[rule.Alert] = true
			} else if test.Name == "all is well" {
				silent[rule.Alert] = true
			}
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] || !silent[a.Alert] {
			t.Errorf("%s: tested to fire %v, tested not to while all is well %v; want both", a.Alert, fires[a.Alert], silent[a.Alert])
		}
	}
}

// The operator reads the alerts from an object of its own, which kustomize cannot make of a file.
func TestOperatorHasTheSameAlerts(t *testing.T) {
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		var b strings.Builder
		b.WriteString("# A copy of deploy/prometheus/nimble-bridge.rules.yaml, written by \"go test -run Operator -update\" in deploy/validate.\n" +
			"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: nimble-bridge\n  labels:\n    app.kubernetes.io/name: nimble-bridge\nspec:\n")
		_, groups, _ := strings.Cut(string(rules), "\ngroups:")
		for line := range strings.Lines("groups:" + groups) {
			if strings.TrimSpace(line) != "" {
				line = "  " + line
			}
			b.WriteString(line)
		}
		if err := os.WriteFile(operatorRules, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var want monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(rules, &want); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(operatorRules)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := decode(t, manifest).(*monitoring.PrometheusRule)
	if !ok {
		t.Fatalf("%s is no PrometheusRule", operatorRules)
	}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("%s is not %s; \"go test -run Operator -update\" writes it (-rules +operator):\n%s", operatorRules, rulesFile, diff)
	}
}

// dashboard is what the test needs to know of Grafana's format.
type dashboard struct {
	UID        string  `json:"uid"`
	Title      string  `json:"title"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct {
		RefID string `json:"refId"`
		Expr  string `json:"expr"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	content, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// What Grafana puts in for its variables.
var grafanaVariables = strings.NewReplacer("$__rate_interval", "1m", "$job", "nimble-bridge", "$account", ".*")

func TestDashboardIsSound(t *testing.T) {
	d := readDashboard(t)
	ids, taken := make(map[int]string), make(map[[2]int]string)
	for _, p := range d.Panels {
		if other, twice := ids[p.ID]; twice {
			t.Errorf("panels %q and %q have the id %d", other, p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		for y := range p.GridPos.H {
			for x := range p.GridPos.W {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, twice := taken[at]; twice {
					t.Fatalf("panels %q and %q overlap", other, p.Title)
				}
				taken[at] = p.Title
			}
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q reaches beyond the grid's 24 columns", p.Title)
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			query := grafanaVariables.Replace(target.Expr)
			if strings.Contains(query, "$") {
				t.Errorf("panel %q, query %s: a variable that the dashboard does not have in %s", p.Title, target.RefID, target.Expr)
			}
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(query); err != nil {
				t.Errorf("panel %q, query %s: %v in %s", p.Title, target.RefID, err, target.Expr)
			}
		}
	}
}
