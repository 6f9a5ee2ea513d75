package apiserver

import (
	"net/http"
	"slices"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/auth"
)

// Defaults of how many requests are served at once (upstream's).
const (
	DefaultMaxReading  = 400
	DefaultMaxMutating = 200
	// inflightRetrySeconds is when a request that found no place may come again.
	inflightRetrySeconds = 1
)

// inflight counts the requests under way, and bounds them where priority and
// fairness does not. Streams and health checks do not count: the ones last, the
// others have to be answered under load above all.
type inflight struct {
	reading, mutating       atomic.Int64
	maxReading, maxMutating int64
}

func newInflight(reading, mutating int) *inflight {
	if reading == 0 {
		reading = DefaultMaxReading
	}
	if mutating == 0 {
		mutating = DefaultMaxMutating
	}
	return &inflight{maxReading: int64(reading), maxMutating: int64(mutating)}
}

// kind is the count that a verb belongs to, and its bound.
func (f *inflight) kind(verb string) (count *atomic.Int64, most int64) {
	switch verb {
	case "get", "list", "watch", "head", "options":
		return &f.reading, f.maxReading
	}
	return &f.mutating, f.maxMutating
}

// enter takes a place for a request; whoever has it takes one off the count
// when it is served. It fails with 429 when there is none. Administrators
// always get in, uncounted: they are who can end an overload.
func (f *inflight) enter(verb string, user *auth.User) (count *atomic.Int64, err error) {
	if slices.Contains(user.Groups, auth.GroupMasters) {
		return nil, nil
	}
	count, most := f.kind(verb)
	if count.Add(1) > most {
		count.Add(-1)
		return nil, errTooMany("the server is busy with as many requests as it takes at once: try again later", inflightRetrySeconds)
	}
	return count, nil
}

func errTooMany(message string, retry int) error {
	err := apierrors.NewTooManyRequests(message, retry)
	err.ErrStatus.Code = http.StatusTooManyRequests
	return err
}
