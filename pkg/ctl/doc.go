// Package ctl is the user's tool: the kubectl verbs, and local clusters and
// their images.
//
// Main runs one command line over the streams it is given and returns the
// exit code; it keeps no state and writes to nothing else, so that any number
// of command lines run in one process. A verb is one file and one line in the
// list in ctl.go: a function that takes the *tool of this run and returns its
// cobra command.
//
// Exit codes: 0, or 1 after an error, which is printed as one sentence that
// says what to do; the code of the remote command for exec, attach and run;
// 1 for diff when there are differences.
//
// Text from the cluster that goes to a terminal as part of a table or a
// description has its control characters escaped.
package ctl
