package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthPatience is how long a health check waits for the answer.
const healthPatience = 4 * time.Second

// healthcheckCommand is for container runtimes: an image without a shell has nothing else to ask the bridge with.
func (p *program) healthcheckCommand() *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the bridge on HTTP_ADDR whether it is alive, for container health checks",
		Long: `Asks the bridge that runs beside it on HTTP_ADDR for /healthz, or /readyz with --ready, and
exits 0 when the answer is 200 and 1 otherwise. No other variable is needed.`,
		Example: `  nimble-bridge healthcheck           # may the container go on?
  nimble-bridge healthcheck --ready   # does it do its job?`,
		Hidden: true, // People have "status" and "check".
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			addr, err := healthAddr()
			if err != nil {
				return err
			}
			return p.checkHealth(cmd.Context(), "http://"+addr+path)
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready (polling, or standing by) instead of whether it is alive")
	return cmd
}

// healthAddr is where the bridge on this machine answers.
func healthAddr() (string, error) {
	c, found := parseConfig()
	for _, f := range found {
		if f.name == "HTTP_ADDR" {
			return "", configError{f.problem}
		}
	}
	if c.HTTPAddr == "" {
		return "", configError{{text: "HTTP_ADDR is empty, so that the bridge cannot be asked", hint: "set HTTP_ADDR, for instance to 127.0.0.1:8080"}}
	}
	host, port, err := net.SplitHostPort(c.HTTPAddr)
	if err != nil || !isAddress(c.HTTPAddr) {
		return "", configError{misfit("HTTP_ADDR").problem}
	}
	// Where the bridge listens on every address, it answers on the loopback one.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

// checkHealth returns nil when the answer is 200. Otherwise the error has the answer, which names the reason.
func (p *program) checkHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// No proxy: what is asked is on this machine.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("the bridge does not answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("the bridge does not answer: %w", err)
	}
	answer := strings.Join(strings.Fields(string(body)), " ")
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", url, resp.StatusCode, answer)
	}
	_, err = fmt.Fprintln(p.stdout, answer)
	return err
}
