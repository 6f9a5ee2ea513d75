// Package crifake is a container runtime without containers: it keeps
// sandboxes, containers and images in memory and lets "processes" run in the
// time of its clock. With it a node agent is a simulated node.
//
// What a container does follows from its command: "sleep 5" ends after five
// seconds, "sh -c" understands a few words (exit, sleep, echo with
// redirection, true, false, trap), everything else runs until it is stopped.
// Images whose repository begins with "fake/" say how a pull ends:
// fake/missing, fake/denied, fake/unreachable.
//
// A test scripts faults with [Runtime.Intercept] (fail or hang any call),
// [Runtime.SetDown], [Runtime.Exit], [Runtime.KillSandbox], [Runtime.Reboot]
// and [Runtime.Lie].
//
// Timers and waits use the clock of the configuration or the time package, so
// the runtime works inside a testing/synctest bubble.
package crifake
