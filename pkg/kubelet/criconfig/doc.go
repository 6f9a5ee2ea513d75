// Package criconfig translates a pod and its containers into what a container
// runtime is asked for. It is pure: what depends on the node comes in as
// arguments, and the caller makes the folders and files that are mounted.
package criconfig
