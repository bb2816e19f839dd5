package validate

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	disruption "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// decoder reads manifests strictly: a field that the API's type does not have is an error, and so is one that is given twice.
var decoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, core.AddToScheme, networking.AddToScheme, disruption.AddToScheme, monitoring.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	return serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme, serializer.SerializerOptions{Yaml: true, Strict: true})
}()

func decode(t *testing.T, manifest []byte) runtime.Object {
	t.Helper()
	object, _, err := decoder.Decode(manifest, nil, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	return object
}

// build is "kustomize build".
func build(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("kustomize build %s: %v", dir, err)
	}
	var objects []runtime.Object
	for _, r := range resources.Resources() {
		manifest, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, decode(t, manifest))
	}
	return objects
}

// the returns the one object of a type.
func the[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	var found []T
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, want one", len(found), *new(T))
	}
	return found[0]
}

func TestManifestsFitTheAPI(t *testing.T) {
	files, err := filepath.Glob("../kubernetes/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../kubernetes/*/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range slices.Concat(files, more) {
		if filepath.Base(file) == "kustomization.yaml" {
			continue // Kustomize reads those, and is as strict.
		}
		manifest, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		decode(t, manifest)
		count++
	}
	if count < 8 {
		t.Errorf("only %d manifests found", count)
	}
	if _, _, err := decoder.Decode([]byte("apiVersion: v1\nkind: Service\nspec: {port: 1}\n"), nil, nil); err == nil {
		t.Error("a field that does not exist passes")
	}
}

func TestBaseIsWhatAClusterWants(t *testing.T) {
	objects := build(t, "../kubernetes/base")
	deployment := the[*apps.Deployment](t, objects)
	pod := deployment.Spec.Template

	t.Run("two, and each allowed under the restricted standard", func(t *testing.T) {
		if got := *deployment.Spec.Replicas; got != 2 {
			t.Errorf("%d replicas, want 2", got)
		}
		evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
		if err != nil {
			t.Fatal(err)
		}
		restricted := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
		for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
	})
	t.Run("more than the standard demands", func(t *testing.T) {
		account := the[*core.ServiceAccount](t, objects)
		if pod.Spec.ServiceAccountName != account.Name || *account.AutomountServiceAccountToken || *pod.Spec.AutomountServiceAccountToken {
			t.Error("the pod gets a token, or another account's")
		}
		c := pod.Spec.Containers[0]
		if !*c.SecurityContext.ReadOnlyRootFilesystem {
			t.Error("the root file system can be written to")
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("resources %+v", c.Resources)
		}
		if limit := envOf(c)["GOMEMLIMIT"]; limit == "" {
			t.Error("no GOMEMLIMIT, so that the kernel kills before the collector works harder")
		}
	})
	t.Run("probes ask what the bridge answers", func(t *testing.T) {
		c := pod.Spec.Containers[0]
		if got := c.LivenessProbe.HTTPGet.Path; got != "/healthz" {
			t.Errorf("liveness asks %s: a restart mends nothing that /readyz is about", got)
		}
		if got := c.ReadinessProbe.HTTPGet.Path; got != "/readyz" {
			t.Errorf("readiness asks %s", got)
		}
	})
	t.Run("selectors find the pods, ports the container's", func(t *testing.T) {
		budget := the[*disruption.PodDisruptionBudget](t, objects)
		rules := the[*networking.NetworkPolicy](t, objects)
		service := the[*core.Service](t, objects)
		for name, selector := range map[string]*meta.LabelSelector{
			"deployment": deployment.Spec.Selector, "budget": budget.Spec.Selector, "network policy": &rules.Spec.PodSelector,
			"service": {MatchLabels: service.Spec.Selector}, "spread": pod.Spec.TopologySpreadConstraints[0].LabelSelector,
		} {
			s, err := meta.LabelSelectorAsSelector(selector)
			if err != nil || s.Empty() || !s.Matches(labels.Set(pod.Labels)) {
				t.Errorf("%s selects %v, %v; the pods have %v", name, s, err, pod.Labels)
			}
		}
		port := pod.Spec.Containers[0].Ports[0]
		if address := envOf(pod.Spec.Containers[0])["HTTP_ADDR"]; address != "0.0.0.0:8080" || port.ContainerPort != 8080 {
			t.Errorf("the bridge listens on %s, the container on %d", address, port.ContainerPort)
		}
		if got := service.Spec.Ports[0].TargetPort.StrVal; got != port.Name {
			t.Errorf("the service's port leads to %s", got)
		}
		if got := rules.Spec.Ingress[0].Ports[0].Port.StrVal; got != port.Name {
			t.Errorf("the network policy lets in to %s", got)
		}
	})
	t.Run("secrets are files, settings variables of the bridge", func(t *testing.T) {
		config := the[*core.ConfigMap](t, objects)
		c := pod.Spec.Containers[0]
		if got := c.EnvFrom[0].ConfigMapRef.Name; got != config.Name || config.Name == "nimble-bridge" {
			t.Errorf("the pod reads %s, the generated one is %s", got, config.Name)
		}
		known := variables(t)
		set := envOf(c)
		maps.Copy(set, config.Data)
		for name, value := range set {
			if !slices.Contains(known, name) && name != "GOMEMLIMIT" {
				t.Errorf("the bridge has no variable %s", name)
			}
			if path, isPath := strings.CutPrefix(value, "/run/secrets/"); isPath {
				if !strings.HasPrefix(path, "nimble-bridge/") || c.VolumeMounts[0].MountPath != "/run/secrets/nimble-bridge" {
					t.Errorf("%s is %s, where no secret is mounted", name, value)
				}
			}
		}
		if set["NIMBLE_API_KEY_FILE"] == "" || set["NIMBLE_API_KEY"] != "" {
			t.Errorf("the key comes from %v", set)
		}
		if set["NATS_URL"] == "" {
			t.Error("no NATS_URL: two processes cannot share the embedded server")
		}
		for _, v := range pod.Spec.Volumes {
			// Readable for the group that the pod has, and nobody else.
			if v.Secret != nil && (*v.Secret.DefaultMode != 0o440 || *pod.Spec.SecurityContext.FSGroup != 65532) {
				t.Errorf("secret files have mode %o", *v.Secret.DefaultMode)
			}
		}
	})
}

func envOf(c core.Container) map[string]string {
	set := make(map[string]string)
	for _, e := range c.Env {
		set[e.Name] = e.Value
	}
	return set
}

// variables are the bridge's, as the README has them, which another test holds against the code.
func variables(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := bytes.Cut(readme, []byte("<!-- variables -->"))
	table, _, _ = bytes.Cut(table, []byte("<!-- /variables -->"))
	var names []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)`").FindAllSubmatch(table, -1) {
		names = append(names, string(row[1]))
	}
	if len(names) < 30 {
		t.Fatalf("only %d variables in the README", len(names))
	}
	return names
}

func TestExampleWithTheOperator(t *testing.T) {
	objects := build(t, "../kubernetes/example")
	deployment := the[*apps.Deployment](t, objects)
	service := the[*core.Service](t, objects)
	monitor := the[*monitoring.ServiceMonitor](t, objects)
	rule := the[*monitoring.PrometheusRule](t, objects)
	config := the[*core.ConfigMap](t, objects)
	namespace := the[*core.Namespace](t, objects)
	if got := deployment.Spec.Template.Spec.Containers[0].Image; got != "registry.example/nimble-bridge:0.1.0" {
		t.Errorf("image %s", got)
	}
	if config.Data["POLL_INTERVAL"] != "15s" || config.Data["LOG_FORMAT"] != "json" {
		t.Errorf("configuration %v, want that of the base and of the example", config.Data)
	}
	for _, o := range []meta.Object{deployment, service, monitor, rule, config} {
		if o.GetNamespace() != namespace.Name {
			t.Errorf("%T is in namespace %q", o, o.GetNamespace())
		}
	}
	selector, err := meta.LabelSelectorAsSelector(&monitor.Spec.Selector)
	if err != nil || !selector.Matches(labels.Set(service.Labels)) {
		t.Errorf("the monitor selects %v, %v; the service has %v", selector, err, service.Labels)
	}
	if got := monitor.Spec.Endpoints[0].Port; got != service.Spec.Ports[0].Name {
		t.Errorf("the monitor scrapes port %s", got)
	}
}
