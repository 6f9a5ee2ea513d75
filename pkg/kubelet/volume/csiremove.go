package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
)

// noteCSIUse writes down that the pod is about to use the volume. The volume's
// lock must be held, so that nobody unstages it meanwhile.
func (m *Manager) noteCSIUse(u *csiUse) error {
	if err := writeCSIUse(m.csiUseData(u), *u); err != nil {
		return err
	}
	if !u.block {
		return nil
	}
	link := m.csiUsePath(u)
	if err := makeParent(link); err != nil {
		return err
	}
	if err := os.Symlink(m.csiTarget(u), link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// makeStaging makes the place where a volume is staged, noted first.
func (m *Manager) makeStaging(u *csiUse) error {
	if !u.block {
		note := csiUse{Handle: u.Handle, Driver: u.Driver}
		if err := writeCSIUse(m.csiStagingData(u), note); err != nil {
			return err
		}
	}
	return os.MkdirAll(m.csiStaging(u), 0o750)
}

// forgetFailedStage takes back what was noted for a volume that the driver has
// refused to stage, unless something is mounted or another pod has it.
func (m *Manager) forgetFailedStage(u *csiUse) error {
	shared, err := m.csiShared(u)
	if err != nil || shared {
		return err
	}
	for _, path := range []string{m.csiStaging(u), m.csiTarget(u)} {
		if mounted, err := isMount(path); mounted || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(m.removeCSIUse(u), m.removeStaging(u))
}

func (m *Manager) removeStaging(u *csiUse) error {
	data := m.csiStagingData(u)
	if err := removeEmpty(m.csiStaging(u), data, data+".new", filepath.Dir(data)); err != nil || !u.block {
		return err
	}
	return removeEmpty(filepath.Dir(m.csiTarget(u)), filepath.Dir(filepath.Dir(data)))
}

// removeCSIUse removes the note of a pod's use, last of all.
func (m *Manager) removeCSIUse(u *csiUse) error {
	if u.block {
		return removeEmpty(m.csiTarget(u), m.csiUsePath(u))
	}
	data := m.csiUseData(u)
	return removeEmpty(m.csiTarget(u), data+".new", data, m.csiUsePath(u))
}

func makeParent(path string) error { return os.MkdirAll(filepath.Dir(path), 0o750) }

// unmountCSI has the drivers take down the CSI volumes of a pod, by what is on
// disk, and what nobody else on the node uses altogether.
func (m *Manager) unmountCSI(ctx context.Context, pod types.UID) error {
	uses, err := m.csiUses(pod)
	if err != nil {
		return err
	}
	if len(uses) > 0 {
		// Containers' subPaths would keep the driver's file system busy.
		if err := unmountBeneath(ctx, filepath.Join(m.PodDir(pod), subPathsDir)); err != nil {
			return err
		}
	}
	errs := make([]error, len(uses))
	var group errgroup.Group
	group.SetLimit(mountWorkers)
	for i := range uses {
		group.Go(func() error {
			errs[i] = m.tearDownCSI(ctx, &uses[i])
			return nil
		})
	}
	_ = group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if m.csi.forget(pod) || len(uses) > 0 {
		m.cfg.ReportInUse()
	}
	return nil
}

func (m *Manager) tearDownCSI(ctx context.Context, u *csiUse) error {
	if m.cfg.CSI == nil {
		return errors.New("this node has no CSI drivers, but a pod has a CSI volume")
	}
	driver, err := m.cfg.CSI.Find(u.Driver)
	if err != nil {
		return fmt.Errorf("UnmountVolume.TearDown failed for volume %q : kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: %w", u.Name, err)
	}
	target := m.csiTarget(u)
	m.csi.unpublished(u)
	if err := driver.Unpublish(ctx, u.Handle, target); err != nil {
		return fmt.Errorf("UnmountVolume.TearDown failed for volume %q : %w", u.Name, err)
	}
	if err := unmountBeneath(ctx, target); err != nil {
		return err
	}
	unlock, err := m.csi.locks.lock(ctx, string(u.unique()))
	if err != nil {
		return err
	}
	defer unlock()
	shared, err := m.csiShared(u)
	if err != nil {
		return err
	}
	if !shared && u.persistent() {
		if err := m.unstageCSI(ctx, driver, u); err != nil {
			return fmt.Errorf("UnmountDevice failed for volume %q : %w", u.Name, err)
		}
	}
	// Only now: until here another look at the disk would do all of it again.
	if err := m.removeCSIUse(u); err != nil {
		return err
	}
	if u.block && !shared {
		if err := m.removeStaging(u); err != nil {
			return err
		}
	}
	m.csi.release(u.unique(), u.pod)
	return nil
}

// unstager is what unstageCSI needs of a driver.
type unstager interface {
	Unstage(ctx context.Context, volume, path string) error
}

// unstageCSI takes down a volume for the whole node, if it was staged.
func (m *Manager) unstageCSI(ctx context.Context, driver unstager, u *csiUse) error {
	path := m.csiStaging(u)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return m.removeUnstaged(u)
	}
	m.csi.setStaged(u.unique(), false)
	if err := driver.Unstage(ctx, u.Handle, path); err != nil {
		return err
	}
	if err := unmountBeneath(ctx, path); err != nil {
		return err
	}
	return m.removeUnstaged(u)
}

// removeUnstaged leaves the shared note of a device, which tells of the pod too.
func (m *Manager) removeUnstaged(u *csiUse) error {
	if u.block {
		return removeEmpty(m.csiStaging(u))
	}
	return m.removeStaging(u)
}
