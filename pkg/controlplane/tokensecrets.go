package controlplane

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/auth"
	"coracle/pkg/auth/policy"
	"coracle/pkg/auth/token"
	"coracle/pkg/registry"
)

const (
	// markLimit is how long a request waits for the mark that its token leaves,
	// and markPause how long nobody tries again after a try.
	markLimit = 2 * time.Second
	markPause = time.Minute
	// maxMarks bounds what is remembered of tries; past it all are forgotten.
	maxMarks = 4096
)

// tokenSecrets reads the Secrets in which tokens are kept, through consistent
// reads, and marks those whose tokens are in use.
type tokenSecrets struct {
	cp *ControlPlane

	mu sync.Mutex
	// tried is when each Secret was last marked, or was tried to be; guarded by
	// mu.
	tried map[types.UID]time.Time
}

var _ token.Secrets = (*tokenSecrets)(nil)

func newTokenSecrets(cp *ControlPlane) *tokenSecrets {
	return &tokenSecrets{cp: cp, tried: map[types.UID]time.Time{}}
}

// TokenSecret implements token.Secrets.
func (t *tokenSecrets) TokenSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return t.cp.secret(ctx, namespace, name)
}

// TokenUsed implements token.Secrets. The mark goes in while the request
// waits, so that whoever has used a token and looks finds it. What the write
// itself leads to may show the same token, and does not wait for itself.
func (t *tokenSecrets) TokenUsed(ctx context.Context, s *corev1.Secret, day string) {
	if !t.mayTry(s.UID, t.cp.cfg.Clock.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(auth.WithUser(context.WithoutCancel(ctx), self()), markLimit)
	defer cancel()
	req := registry.Request{Resource: t.cp.resource(corev1.SchemeGroupVersion.WithResource("secrets")), Namespace: s.Namespace, Name: s.Name}
	_, _, err := t.cp.registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		now, ok := current.(*corev1.Secret)
		if !ok || now.UID != s.UID {
			return nil, apierrors.NewNotFound(corev1.Resource("secrets"), s.Name)
		}
		if now.Labels == nil {
			now.Labels = map[string]string{}
		}
		now.Labels[token.LegacyLastUsed] = day
		return now, nil
	}, registry.UpdateOptions{WriteOptions: registry.WriteOptions{Manager: bootstrapManager, Internal: true}})
	if err != nil {
		t.cp.cfg.Log.Warn("the use of a token in a secret could not be noted", "namespace", s.Namespace, "secret", s.Name, "error", err)
	}
}

// Generated implements token.Secrets.
func (t *tokenSecrets) Generated(ctx context.Context, account string, s *corev1.Secret) (bool, error) {
	obj, err := t.cp.object(ctx, corev1.SchemeGroupVersion.WithResource("serviceaccounts"), s.Namespace, account)
	if err != nil {
		return false, err
	}
	a, ok := obj.(*corev1.ServiceAccount)
	return ok && slices.ContainsFunc(a.Secrets, func(r corev1.ObjectReference) bool { return r.Name == s.Name }), nil
}

func (t *tokenSecrets) mayTry(uid types.UID, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.tried[uid]; ok && now.Sub(at) < markPause {
		return false
	}
	if len(t.tried) >= maxMarks {
		clear(t.tried)
	}
	t.tried[uid] = now
	return true
}

// tokenTracking says since when the use of tokens in Secrets is noted, by which
// an unused one is told from one that was used before.
func (cp *ControlPlane) tokenTracking() []wantedObject {
	if cp.tokens == nil || cp.tokens.verifier == nil {
		return nil
	}
	today := cp.cfg.Clock.Now().UTC().Format(token.LegacyDate)
	return []wantedObject{{
		gvr: corev1.SchemeGroupVersion.WithResource("configmaps"),
		obj: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: token.TrackingName, Namespace: metav1.NamespaceSystem},
			Data: map[string]string{token.TrackingSince: today}},
		merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			m := current.(*corev1.ConfigMap)
			_, err := time.Parse(token.LegacyDate, m.Data[token.TrackingSince])
			if err != nil {
				if m.Data == nil {
					m.Data = map[string]string{}
				}
				m.Data[token.TrackingSince] = today
			}
			return m, updateIf(err != nil)
		},
	}}
}
