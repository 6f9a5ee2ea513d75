package bootstrap

import (
	"errors"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/auth/bootstraptoken"
)

// sign returns cluster-info with the signatures of all tokens that sign now and
// no others, or nil when have is right; next is the time at which a signature
// has to go, zero when none has. A secret that is no valid token is in problems
// and signs nothing.
func sign(have *corev1.ConfigMap, secrets []*corev1.Secret, now time.Time) (want *corev1.ConfigMap, next time.Time, problems error) {
	data := make(map[string]string, len(have.Data))
	for k, v := range have.Data {
		if !strings.HasPrefix(k, bootstraptoken.SignaturePrefix) {
			data[k] = v
		}
	}
	content, ok := data[bootstraptoken.KubeconfigKey]
	var errs []error
	for _, s := range secrets {
		t, err := bootstraptoken.Parse(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !ok || !t.Signing || s.DeletionTimestamp != nil || t.Expired(now) {
			continue
		}
		if !t.Expires.IsZero() && (next.IsZero() || t.Expires.Before(next)) {
			next = t.Expires
		}
		signature, err := t.Sign(content)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		data[bootstraptoken.SignaturePrefix+t.ID] = signature
	}
	if maps.Equal(data, have.Data) {
		return nil, next, errors.Join(errs...)
	}
	want = have.DeepCopy()
	want.Data = data
	return want, next, errors.Join(errs...)
}

// remaining is how long a token lives on: never ends, or a time that is zero or
// less when it has ended. An expiration that cannot be read has passed.
func remaining(s *corev1.Secret, now time.Time) (left time.Duration, ends bool) {
	at, err := bootstraptoken.Expiration(s)
	switch {
	case err != nil:
		return 0, true
	case at.IsZero():
		return 0, false
	default:
		return at.Sub(now), true
	}
}
