// Package volume gives the containers of a pod their volumes.
package volume
