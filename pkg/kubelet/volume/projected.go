package volume

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
)

func projectedKind() kind {
	return kind{
		folder: "kubernetes.io~projected",
		is:     func(v *corev1.VolumeSource) bool { return v.Projected != nil },
		live:   true,
		mount: func(ctx context.Context, m *Manager, r request) (Source, error) {
			v := r.volume.Projected
			p := newPayload(v.DefaultMode, v.DefaultUser)
			// Whatever is in it today, a Secret or token may be tomorrow.
			p.inMemory = true
			for i := range v.Sources {
				if err := m.addProjection(ctx, r, p, i); err != nil {
					return Source{}, err
				}
			}
			return m.publish(r, p)
		},
	}
}

func (m *Manager) addProjection(ctx context.Context, r request, p *payload, index int) error {
	src := &r.volume.Projected.Sources[index]
	switch {
	case src.ConfigMap != nil:
		return m.addConfigMap(ctx, r, p, src.ConfigMap.Name, src.ConfigMap.Items, src.ConfigMap.Optional)
	case src.Secret != nil:
		return m.addSecret(ctx, r, p, src.Secret.Name, src.Secret.Items, src.Secret.Optional)
	case src.DownwardAPI != nil:
		return m.addDownward(r, p, src.DownwardAPI.Items)
	case src.ServiceAccountToken != nil:
		return m.addToken(ctx, r, p, src.ServiceAccountToken)
	case src.ClusterTrustBundle != nil:
		return m.addTrustBundle(ctx, p, src.ClusterTrustBundle)
	case src.PodCertificate != nil:
		return m.addPodCertificate(ctx, r, p, index, src.PodCertificate)
	}
	return errors.New("a projected source is of a kind that this node does not support")
}
