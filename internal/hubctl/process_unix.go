//go:build unix

package hubctl

import (
	"os"
	"syscall"
)

// ownGroup starts a process that the terminal's interrupts don't reach.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// terminate asks a process to end in order.
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
