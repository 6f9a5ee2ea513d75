package volume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func configMapKind() kind {
	return kind{
		folder: "kubernetes.io~configmap",
		is:     func(v *corev1.VolumeSource) bool { return v.ConfigMap != nil },
		live:   true,
		mount: func(ctx context.Context, m *Manager, r request) (Source, error) {
			v := r.volume.ConfigMap
			p := newPayload(v.DefaultMode, v.DefaultUser)
			if err := m.addConfigMap(ctx, r, p, v.Name, v.Items, v.Optional); err != nil {
				return Source{}, err
			}
			return m.publish(r, p)
		},
	}
}

// addConfigMap adds the keys of a ConfigMap, binary ones too.
func (m *Manager) addConfigMap(ctx context.Context, r request, p *payload, name string, items []corev1.KeyToPath, optional *bool) error {
	cm, err := cached[*corev1.ConfigMap](ctx, m.objects, objectKey{configMaps, r.pod.Namespace, name})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("configmap %q: %w", name, err)
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	if err := p.addKeys(data, items, isTrue(optional)); err != nil {
		return fmt.Errorf("configmap %q: %w", name, err)
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }
