//go:build !unix

package backscroll

import "syscall"

// isOwn tells whether a directory belongs to this user, which is not known here.
func isOwn(string) bool { return false }

// detached does nothing on this platform.
func detached() *syscall.SysProcAttr { return nil }
