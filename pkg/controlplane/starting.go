package controlplane

import (
	"context"

	"coracle/pkg/auth"
)

// whileStarting is the server's authorizer. Until the default roles have been
// read, which let everybody see health and version, it does so itself: what
// watches over the server asks it from the first moment, and a refusal would
// say nothing about its health.
type whileStarting struct{ cp *ControlPlane }

// Authorize implements auth.Authorizer.
func (w whileStarting) Authorize(ctx context.Context, a auth.Attributes) (auth.Decision, string, error) {
	if !a.ResourceRequest && a.Verb == "get" && auth.AnonymousHealth(a.Path) && !w.cp.started() {
		return auth.Allow, "the server is starting", nil
	}
	return w.cp.authz.Authorize(ctx, a)
}

// started says whether WaitReady would return at once.
func (cp *ControlPlane) started() bool {
	for _, ch := range cp.waits() {
		select {
		case <-ch:
		default:
			return false
		}
	}
	return true
}
