package demo

import (
	"runtime"
	"syscall"
)

// lockThread keeps the calling goroutine on its thread; it never gives it back, so that the thread ends
// with the goroutine and not before.
func lockThread() { runtime.LockOSThread() }

// ownGroup keeps Ctrl-C, which the terminal sends to the whole group, from ending the brokers before
// everything is counted, and kills them when this process dies.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
