package volume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/kubelet/podenv"
)

func downwardKind() kind {
	return kind{
		folder: "kubernetes.io~downward-api",
		is:     func(v *corev1.VolumeSource) bool { return v.DownwardAPI != nil },
		live:   true,
		mount: func(_ context.Context, m *Manager, r request) (Source, error) {
			v := r.volume.DownwardAPI
			p := newPayload(v.DefaultMode, v.DefaultUser)
			if err := m.addDownward(r, p, v.Items); err != nil {
				return Source{}, err
			}
			return m.publish(r, p)
		},
	}
}

// addDownward adds a file for each field and resource asked for.
func (m *Manager) addDownward(r request, p *payload, items []corev1.DownwardAPIVolumeFile) error {
	addresses := podenv.Addresses{PodIPs: r.facts.PodIPs, HostIPs: r.facts.HostIPs}
	for i := range items {
		item := &items[i]
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = podenv.Field(r.pod, addresses, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = podenv.ContainerResource(r.pod, nil, item.ResourceFieldRef, m.cfg.NodeAllocatable())
		default:
			err = fmt.Errorf("downward API file %q has no source", item.Path)
		}
		if err != nil {
			return err
		}
		if err := p.add(item.Path, []byte(value), item.Mode, item.User); err != nil {
			return err
		}
	}
	return nil
}
