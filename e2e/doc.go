// Package e2e holds the end-to-end run on a real cluster; its tests need root
// and the build tag e2e ("make e2e").
package e2e
