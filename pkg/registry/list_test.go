package registry

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// TestReadErrors: what a client can do about a failed read is in its status.
func TestReadErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		code  int32
		retry int32 // seconds that Retry-After names
	}{
		"ahead":     {&cache.TooLargeError{Asked: 9, Current: 3}, http.StatusGatewayTimeout, 1},
		"behind":    {fmt.Errorf("start a watch: %w", cache.ErrNotReached), http.StatusGatewayTimeout, 1},
		"expired":   {&cache.ExpiredError{Revision: 3}, http.StatusGone, 0},
		"compacted": {storage.ErrCompacted, http.StatusGone, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var status *apierrors.StatusError
			if err := ReadError(tc.err, nil); !errors.As(err, &status) {
				t.Fatalf("%v has no status", err)
			}
			got := status.ErrStatus
			retry := int32(0)
			if got.Details != nil {
				retry = got.Details.RetryAfterSeconds
			}
			if got.Code != tc.code || retry != tc.retry {
				t.Errorf("code %d and retry after %d s, want %d and %d: %+v", got.Code, retry, tc.code, tc.retry, got)
			}
		})
	}
}
