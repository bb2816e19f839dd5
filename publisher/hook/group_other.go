//go:build !unix

package hook

import "os/exec"

// runGroup runs a command, which is killed when its context ends.
func runGroup(cmd *exec.Cmd) error {
	cmd.WaitDelay = killDelay
	return cmd.Run()
}
