//go:build unix

package hook

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// runGroup runs a command in a process group of its own, and ends all of that when the command's context ends: politely first.
func runGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = killDelay
	signal := func(s syscall.Signal) error {
		err := syscall.Kill(-cmd.Process.Pid, s)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	var killing *time.Timer
	cmd.Cancel = func() error {
		killing = time.AfterFunc(killDelay, func() { _ = signal(syscall.SIGKILL) })
		return signal(syscall.SIGTERM)
	}
	err := cmd.Run()
	if killing != nil {
		// The command is gone; what it has started goes too.
		killing.Stop()
		_ = signal(syscall.SIGKILL)
	}
	return err
}
