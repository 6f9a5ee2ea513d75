package volume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func secretKind() kind {
	return kind{
		folder: "kubernetes.io~secret",
		is:     func(v *corev1.VolumeSource) bool { return v.Secret != nil },
		live:   true,
		mount: func(ctx context.Context, m *Manager, r request) (Source, error) {
			v := r.volume.Secret
			p := newPayload(v.DefaultMode, v.DefaultUser)
			p.inMemory = true
			if err := m.addSecret(ctx, r, p, v.SecretName, v.Items, v.Optional); err != nil {
				return Source{}, err
			}
			return m.publish(r, p)
		},
	}
}

func (m *Manager) addSecret(ctx context.Context, r request, p *payload, name string, items []corev1.KeyToPath, optional *bool) error {
	secret, err := cached[*corev1.Secret](ctx, m.objects, objectKey{secrets, r.pod.Namespace, name})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("secret %q: %w", name, err)
	}
	if err := p.addKeys(secret.Data, items, isTrue(optional)); err != nil {
		return fmt.Errorf("secret %q: %w", name, err)
	}
	return nil
}
