package validate

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func TestComposeFile(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"}, cli.WithEnv([]string{"NIMBLE_API_KEY_FILE=" + key}), cli.WithInterpolation(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := variables(t)
	for name, service := range project.Services {
		if service.HealthCheck == nil || len(service.HealthCheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
		if !service.ReadOnly || !slices.Contains(service.CapDrop, "ALL") || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: read-only %v, capabilities dropped %v, %v", name, service.ReadOnly, service.CapDrop, service.SecurityOpt)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is reachable at %q:%s, want this machine alone", name, port.HostIP, port.Published)
			}
		}
	}
	bridge := project.Services["bridge"]
	for name := range bridge.Environment {
		if !slices.Contains(known, name) {
			t.Errorf("the bridge has no variable %s", name)
		}
	}
	if file := bridge.Environment["NIMBLE_API_KEY_FILE"]; file == nil || !slices.ContainsFunc(bridge.Secrets, func(s types.ServiceSecretConfig) bool {
		return *file == "/run/secrets/"+s.Source
	}) {
		t.Errorf("the key is at %v, the secrets are %v", file, bridge.Secrets)
	}
	if secret := project.Secrets["nimble_api_key"]; secret.File != key {
		t.Errorf("the key's file is %s, want %s", secret.File, key)
	}
	if !slices.ContainsFunc(project.Services["nats"].Volumes, func(v types.ServiceVolumeConfig) bool { return v.Type == "volume" && v.Target == "/data" }) {
		t.Error("the streams are in no volume")
	}
}

func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed, and nothing else knows what systemd accepts")
	}
	unit, err := os.ReadFile("../systemd/nimble-bridge.service")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// It complains of programs that are not installed.
	path := filepath.Join(t.TempDir(), "nimble-bridge.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(unit), "/usr/local/bin/nimble-bridge", program)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", path},
		// In tenths: of 10 for a service that may do everything.
		{"security", "--offline=true", "--threshold=15", "--no-pager", path},
	} {
		if out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput(); err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %v: %v\n%s", args, err, out)
		}
	}
}

func TestSystemdEnvironment(t *testing.T) {
	known := variables(t)
	for _, file := range []string{"../systemd/env", "../systemd/nimble-bridge.service"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for line := range strings.Lines(string(content)) {
			line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "#"), "Environment=")
			name, _, isVariable := strings.Cut(line, "=")
			if !isVariable || name != strings.ToUpper(name) || strings.Contains(name, " ") {
				continue
			}
			if found++; !slices.Contains(known, name) {
				t.Errorf("%s: the bridge has no variable %s", file, name)
			}
		}
		if found < 2 {
			t.Errorf("%s: only %d variables", file, found)
		}
	}
}
