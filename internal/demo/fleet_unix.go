//go:build unix && !linux

package demo

import "syscall"

func lockThread() {}

// ownGroup keeps Ctrl-C, which the terminal sends to the whole group, from ending the brokers before
// everything is counted. That they end with this process is left to the end of their standard input.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
