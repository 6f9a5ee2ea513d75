package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/scheduler/plugin"
	"coracle/pkg/volumebinding"
)

// settlement is the work on a pod's volumes that comes before its binding: what
// has been chosen is written, and then all is waited for.
type settlement struct {
	volumes *volumes
	client  kubernetes.Interface
	pod     *plugin.Pod
	node    *plugin.Facts
	work    plugin.VolumeWork
	// gone says that the pod is not to be bound any more.
	gone func() bool
	// written are the versions that this settlement wrote, by the claim's or
	// the volume's name.
	written map[string]string
}

// podKey is woken when a pod goes. Keys of claims have one slash.
func podKey(uid types.UID) string { return "pod//" + string(uid) }

// run returns when pods on the node can use all claims, or why they cannot.
func (s *settlement) run(ctx context.Context) error {
	keys := []string{podKey(s.pod.UID)}
	for _, m := range s.work.Bind {
		keys = append(keys, m.Claim.Namespace+"/"+m.Claim.Name)
	}
	for _, c := range s.work.Provision {
		keys = append(keys, c.Namespace+"/"+c.Name)
	}
	woken, stop := s.volumes.watch(keys)
	defer stop()
	if err := s.write(ctx); err != nil {
		return fmt.Errorf("binding volumes: %w", err)
	}
	for {
		done, err := s.look()
		if err != nil {
			return fmt.Errorf("binding volumes: %w", err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("binding volumes: %w", ctx.Err())
		case <-woken:
		}
	}
}

func (s *settlement) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	s.written = map[string]string{}
	for _, m := range s.work.Bind {
		next, changed := volumebinding.Bind(m.Volume, m.Claim)
		if !changed {
			continue
		}
		got, err := s.client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("give volume %s to claim %s: %w", m.Volume.Name, m.Claim.Name, err)
		}
		s.written[m.Volume.Name] = got.ResourceVersion
	}
	for _, claim := range s.work.Provision {
		if claim.Annotations[volumebinding.SelectedNode] == s.node.Name {
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": claim.UID, "annotations": map[string]string{volumebinding.SelectedNode: s.node.Name}}})
		if err != nil {
			return err
		}
		got, err := s.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			return fmt.Errorf("choose node %s for claim %s: %w", s.node.Name, claim.Name, err)
		}
		s.written[claim.Namespace+"/"+claim.Name] = got.ResourceVersion
	}
	return nil
}

// seen says that a cache shows what was written under a key.
func (s *settlement) seen(key string, obj metav1.Object) bool {
	version, wrote := s.written[key]
	if !wrote {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(obj.GetResourceVersion(), version)
	return err != nil || order >= 0
}

// look reports whether all claims are bound, or why they will not be.
func (s *settlement) look() (bool, error) {
	if s.gone() {
		return false, errors.New("pod does not exist any more")
	}
	done := true
	for _, m := range s.work.Bind {
		v := s.volumes.Volume(m.Volume.Name)
		if v == nil {
			return false, fmt.Errorf("volume %s is gone", m.Volume.Name)
		}
		if !s.seen(v.Name, v) {
			done = false
			continue
		}
		if ref := v.Spec.ClaimRef; ref == nil || ref.UID != m.Claim.UID {
			return false, fmt.Errorf("ClaimRef got reset for pv %q", v.Name)
		}
		bound, err := s.claimBound(m.Claim, false)
		if err != nil {
			return false, err
		}
		done = done && bound
	}
	for _, claim := range s.work.Provision {
		bound, err := s.claimBound(claim, true)
		if err != nil {
			return false, err
		}
		done = done && bound
	}
	return done, nil
}

// claimBound reports whether a claim has a volume that the node reaches. made
// says that the volume is made for the claim.
func (s *settlement) claimBound(was *corev1.PersistentVolumeClaim, made bool) (bool, error) {
	claim := s.volumes.Claim(was.Namespace, was.Name)
	if claim == nil || claim.UID != was.UID {
		return false, fmt.Errorf("claim %s is gone", was.Name)
	}
	if !s.seen(claim.Namespace+"/"+claim.Name, claim) {
		return false, nil
	}
	// A provisioner that cannot serve the node takes it off the claim.
	if made && claim.Annotations[volumebinding.SelectedNode] != s.node.Name {
		return false, fmt.Errorf("provisioning failed for PVC %q", claim.Name)
	}
	if !volumebinding.FullyBound(claim) {
		return false, nil
	}
	v := s.volumes.Volume(claim.Spec.VolumeName)
	if v == nil {
		return false, nil // its event comes
	}
	if !volumebinding.Reaches(v, s.node.Object) {
		return false, fmt.Errorf("pv %q node affinity doesn't match node %q", v.Name, s.node.Name)
	}
	return true, nil
}

// maxSettling bounds the pods that wait for volumes at a node.
const maxSettling = 1024

// settle does the work on a pod's devices and volumes and then binds it. A pod
// whose devices or volumes cannot be had is undone and says why.
func (s *Scheduler) settle(ctx context.Context, e *entry, o *outcome) {
	defer s.volumes.release(&o.volumes)
	defer s.devices.Release(o.devices.Grant)
	if err := s.grant(ctx, e.Pod, &o.devices); err != nil {
		s.unsettled(ctx, e, o, "DynamicResources", err)
		return
	}
	if o.volumes.Empty() {
		s.conclude(ctx, e, o)
		return
	}
	timeout := s.cfg.VolumeTimeout
	if timeout <= 0 {
		timeout = time.Duration(*o.profile.Args.VolumeBinding.BindTimeoutSeconds) * time.Second
	}
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	job := settlement{
		volumes: s.volumes, client: s.cfg.Client, pod: e.Pod, node: o.facts, work: o.volumes,
		gone: func() bool { return !s.cluster.isAssumed(e.Pod.UID) },
	}
	err := job.run(wait)
	if err == nil {
		s.conclude(ctx, e, o)
		return
	}
	s.unsettled(ctx, e, o, "VolumeBinding", err)
}

// unsettled takes a pod back for which a plugin could not do its work.
func (s *Scheduler) unsettled(ctx context.Context, e *entry, o *outcome, by string, err error) {
	if ctx.Err() == nil && s.cluster.isAssumed(e.Pod.UID) {
		s.report(ctx, e, fmt.Sprintf("running PreBind plugin %q: %v", by, err), plan{})
	}
	s.giveBack(ctx, e.Pod, o)
	s.meters.count(e, resultError, o.began, s.cfg.Clock.Now())
	s.cluster.undo(e, s.cfg.Clock.Now())
}
