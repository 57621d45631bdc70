package backscroll

import (
	"os"
	"path/filepath"
	"regexp"
)

// sidecarName matches the directory of the daemon's tar file, for the platform that it is made for.
var sidecarName = regexp.MustCompile(`^backscroll-.*-linux-x64-gnu$`)

// daemonProgram is a program that starts a daemon, and what to do if it cannot be started.
type daemonProgram struct {
	command []string
	advice  string
}

// findProgram returns the command if one is given; or else the program of a sidecar beside this program, which is the
// unpacked tar file of the daemon; or else backscroll on the PATH.
func findProgram(command []string) daemonProgram {
	if len(command) > 0 {
		return daemonProgram{command: command, advice: "check the option Command"}
	}
	if own, err := os.Executable(); err == nil {
		if sidecar := findSidecar(filepath.Dir(own)); sidecar != "" {
			return daemonProgram{command: []string{sidecar}, advice: "unpack the sidecar again; it needs a Linux with glibc"}
		}
	}
	return daemonProgram{command: []string{"backscroll"}, advice: "install the Python package `backscroll`, or unpack its " +
		"sidecar beside this program, or name a program in the option Command"}
}

// findSidecar returns the program of an unpacked sidecar in a directory; empty if there is none. Of several it is the one
// whose name is last.
func findSidecar(directory string) (program string) {
	entries, err := os.ReadDir(directory) // which sorts them
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		inside := filepath.Join(directory, entry.Name(), "backscroll")
		info, err := os.Stat(inside)
		if sidecarName.MatchString(entry.Name()) && err == nil && info.Mode().IsRegular() {
			program = inside
		}
	}
	return program
}
