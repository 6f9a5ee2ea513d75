package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/kubelet/csi"
)

// Usage is how full a volume of a pod was when its driver was last asked.
type Usage struct {
	// Name is the volume's in the pod, Claim the claim's; empty without one.
	Name, Claim string
	At          time.Time
	csi.Usage
}

// Usages tells how full the CSI volumes of a pod are, by the pod's names for
// them. It asks nobody: Refresh does, so that a driver that hangs delays no reader.
func (m *Manager) Usages(pod types.UID) []Usage {
	var out []Usage
	for _, t := range m.csi.published(pod) {
		if t.usage != nil {
			out = append(out, *t.usage)
		}
	}
	slices.SortFunc(out, func(a, b Usage) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// measureCSI asks the drivers how full the volumes of a pod are.
func (m *Manager) measureCSI(ctx context.Context, pod types.UID) error {
	var errs []error
	for _, t := range m.csi.published(pod) {
		errs = append(errs, m.measureOne(ctx, &t.volume))
	}
	return errors.Join(errs...)
}

func (m *Manager) measureOne(ctx context.Context, v *csiVolume) error {
	driver, err := m.cfg.CSI.Find(v.Driver)
	if err != nil {
		return err
	}
	caps, err := driver.Capabilities(ctx)
	if err != nil || !caps.Stats {
		return err
	}
	staging := ""
	if caps.Stage && v.persistent() {
		staging = m.csiStaging(&v.csiUse)
	}
	used, err := driver.Usage(ctx, v.Handle, m.csiTarget(&v.csiUse), staging)
	if err != nil {
		return fmt.Errorf("asking how full volume %q is: %w", v.Name, err)
	}
	m.csi.setUsage(&v.csiUse, Usage{Name: v.inPod, Claim: v.claim, At: m.cfg.Clock.Now(), Usage: used})
	return nil
}
