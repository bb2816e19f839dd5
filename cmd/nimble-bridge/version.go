package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

// version and commit can be set by the linker, where the build does not see the repository.
var version, commit string

// buildInfo is what is known of this binary.
type buildInfo struct {
	Version    string `json:"version"`
	Commit     string `json:"commit"`
	Go         string `json:"go"`
	NATSClient string `json:"nats_client"`
	NATSServer string `json:"nats_server"`
}

func thisBuild() buildInfo {
	b := buildInfo{Version: version, Commit: commit, Go: runtime.Version(), NATSClient: nats.Version, NATSServer: server.VERSION}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "(devel)" {
			b.Version = cmp.Or(b.Version, info.Main.Version)
		}
		settings := make(map[string]string)
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		if revision := settings["vcs.revision"]; b.Commit == "" && revision != "" {
			b.Commit = revision[:min(12, len(revision))]
			if settings["vcs.modified"] == "true" {
				b.Commit += " (modified)"
			}
		}
	}
	b.Version, b.Commit = cmp.Or(b.Version, "devel"), cmp.Or(b.Commit, "unknown")
	return b
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go and NATS versions",
		Long: `version prints the version and commit of this build, and the versions of Go, of the NATS client library and of the
embedded NATS server in it.`,
		Example: "  nimble-bridge version",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			_, err := fmt.Fprintf(p.stdout, "nimble-bridge %s\ncommit        %s\ngo            %s %s/%s\nnats client   %s\nnats server   %s (embedded)\n",
				b.Version, b.Commit, b.Go, runtime.GOOS, runtime.GOARCH, b.NATSClient, b.NATSServer)
			return err
		},
	}
}
