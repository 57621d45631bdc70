//go:build unix

package backscroll

import (
	"os"
	"syscall"
)

// isOwn tells whether a directory belongs to this user: others can make one of any name below that for temporary files.
func isOwn(directory string) bool {
	info, err := os.Lstat(directory)
	if err != nil || !info.IsDir() {
		return false
	}
	status, isUnix := info.Sys().(*syscall.Stat_t)
	return isUnix && int(status.Uid) == os.Getuid()
}

// detached makes a process the first of a session of its own, so that what stops this program does not stop it.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
