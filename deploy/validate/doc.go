// Package validate holds the files of deploy against those who will read them: the Kubernetes manifests against the types of its API and the Pod Security
// Standards, the compose file against the Compose Specification, the alerts and the dashboard's queries against Prometheus' parser and the metrics
// of a bridge that runs, the systemd unit against systemd.
//
// It is a module of its own, and tests only, so that the bridge itself does not depend on Kubernetes and Prometheus:
//
//	cd deploy/validate && go test ./...
package validate
