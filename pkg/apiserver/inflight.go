package apiserver

import (
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/auth"
)

// Defaults of how many requests are served at once (upstream's).
const (
	defaultMaxReading  = 400
	defaultMaxMutating = 200
	// inflightRetrySeconds is when a request that found no place may come again.
	inflightRetrySeconds = 1
)

// inflight bounds the requests under way. Streams and health checks do not
// count: the ones last, the others have to be answered under load above all.
type inflight struct {
	reading, mutating chan struct{} // one element for each request under way
}

func newInflight(reading, mutating int) *inflight {
	if reading == 0 {
		reading = defaultMaxReading
	}
	if mutating == 0 {
		mutating = defaultMaxMutating
	}
	return &inflight{reading: make(chan struct{}, reading), mutating: make(chan struct{}, mutating)}
}

// enter takes a place for a request and returns how to give it back. It fails
// with 429 when there is none. Administrators always get in: they are who
// can end an overload.
func (f *inflight) enter(verb string, user *auth.User) (leave func(), err error) {
	if slices.Contains(user.Groups, auth.GroupMasters) {
		return func() {}, nil
	}
	places := f.mutating
	switch verb {
	case "get", "list", "watch", "head", "options":
		places = f.reading
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		return nil, errTooMany()
	}
}

func errTooMany() error {
	err := apierrors.NewTooManyRequests("the server is busy with as many requests as it takes at once: try again later", inflightRetrySeconds)
	err.ErrStatus.Code = http.StatusTooManyRequests
	return err
}
