package backscroll

import "os"

// backscrollCommand is the command that starts daemons: the environment variable BACKSCROLL, or what is on the PATH.
func backscrollCommand() string {
	if command := os.Getenv("BACKSCROLL"); command != "" {
		return command
	}
	return "backscroll"
}
