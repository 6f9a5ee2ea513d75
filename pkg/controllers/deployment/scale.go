package deployment

import (
	"cmp"
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// bounds returns how many pods d may have beyond its replicas, and how many of
// them may be unavailable, during a rolling update. They are never both zero,
// or nothing could move.
func bounds(d *appsv1.Deployment) (surge, unavailable int32) {
	r := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || r == nil {
		return 0, 0
	}
	total := int(*d.Spec.Replicas)
	surge = scaled(r.MaxSurge, total, true)
	unavailable = min(scaled(r.MaxUnavailable, total, false), *d.Spec.Replicas)
	if surge == 0 && scaled(r.MaxUnavailable, total, false) == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

func scaled(v *intstr.IntOrString, total int, up bool) int32 {
	if v == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, total, up)
	if err != nil {
		return 0 // validated on write
	}
	return int32(n)
}

func replicas(rs *appsv1.ReplicaSet) int32 {
	if rs == nil || rs.Spec.Replicas == nil {
		return 0
	}
	return *rs.Spec.Replicas
}

func sum(sets []*appsv1.ReplicaSet, of func(*appsv1.ReplicaSet) int32) (n int32) {
	for _, rs := range sets {
		n += of(rs)
	}
	return n
}

func available(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }

// activeOf returns the sets that want pods.
func activeOf(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, rs := range sets {
		if replicas(rs) > 0 {
			out = append(out, rs)
		}
	}
	return out
}

// scaleTo gives rs n replicas and records d's size on it.
func scaleTo(d *appsv1.Deployment, rs *appsv1.ReplicaSet, n int32) {
	rs.Spec.Replicas = &n
	setSize(d, rs)
}

// resized reports whether d's replicas changed since its active sets were last
// scaled.
func resized(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) bool {
	for _, rs := range activeOf(sets) {
		if n, ok := sizeAnnotation(rs, desiredAnnotation); ok && n != *d.Spec.Replicas {
			return true
		}
	}
	return false
}

// targetOfNew is how many replicas the current set may have now.
func targetOfNew(d *appsv1.Deployment, current *appsv1.ReplicaSet, all []*appsv1.ReplicaSet) int32 {
	want := *d.Spec.Replicas
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || replicas(current) >= want {
		return want
	}
	surge, _ := bounds(d)
	room := want + surge - sum(all, replicas)
	if room <= 0 {
		return replicas(current)
	}
	return replicas(current) + min(room, want-replicas(current))
}

// rescale spreads a change of d's replicas over its sets without rolling: all
// of it to the only active set, nothing to the old ones once the current one
// is complete, else in proportion to their sizes.
func rescale(d *appsv1.Deployment, current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) {
	all := withCurrent(current, old)
	if only := onlyActive(current, old); only != nil {
		if replicas(only) != *d.Spec.Replicas {
			scaleTo(d, only, *d.Spec.Replicas)
		} else {
			setSize(d, only)
		}
		return
	}
	if saturated(d, current) {
		for _, rs := range activeOf(old) {
			scaleTo(d, rs, 0)
		}
		return
	}
	// A paused rollout whose size did not change stays exactly where it is.
	if d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType && resized(d, all) {
		spread(d, activeOf(all))
	}
}

func withCurrent(current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	if current == nil {
		return old
	}
	return append(slices.Clone(old), current)
}

// onlyActive returns the one set to scale: the only active one, or if none is
// active the current or else the newest. It is nil when several are active.
func onlyActive(current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	active := activeOf(withCurrent(current, old))
	switch {
	case len(active) == 1:
		return active[0]
	case len(active) > 1:
		return nil
	case current != nil:
		return current
	case len(old) > 0:
		return old[len(old)-1]
	default:
		return nil
	}
}

// saturated reports whether the current set alone satisfies d.
func saturated(d *appsv1.Deployment, current *appsv1.ReplicaSet) bool {
	if current == nil {
		return false
	}
	desired, ok := sizeAnnotation(current, desiredAnnotation)
	want := *d.Spec.Replicas
	return ok && desired == want && replicas(current) == want && available(current) == want
}

// spread scales active sets in proportion, the largest first; what rounding
// leaves over goes to the largest. Among equals the newer grows and the older
// shrinks first.
func spread(d *appsv1.Deployment, active []*appsv1.ReplicaSet) {
	var allowed int32
	if *d.Spec.Replicas > 0 {
		surge, _ := bounds(d)
		allowed = *d.Spec.Replicas + surge
	}
	change := allowed - sum(active, replicas)
	slices.SortFunc(active, func(a, b *appsv1.ReplicaSet) int {
		age := byAge(a, b)
		if change > 0 {
			age = -age
		}
		return cmp.Or(-cmp.Compare(replicas(a), replicas(b)), age)
	})
	sizes := make([]int32, len(active))
	var done int32
	for i, rs := range active {
		part := share(d, rs, allowed)
		if change > 0 {
			part = min(max(part, 0), change-done)
		} else {
			part = max(min(part, 0), change-done)
		}
		sizes[i] = replicas(rs) + part
		done += part
	}
	if len(sizes) > 0 {
		sizes[0] = max(sizes[0]+change-done, 0)
	}
	for i, rs := range active {
		scaleTo(d, rs, sizes[i])
	}
}

// share is by how much rs grows when d's allowed total goes from what it was
// when rs was last scaled to what it is now.
func share(d *appsv1.Deployment, rs *appsv1.ReplicaSet, allowed int32) int32 {
	if allowed == 0 {
		return -replicas(rs)
	}
	before, ok := sizeAnnotation(rs, maxAnnotation)
	if !ok || before <= 0 {
		before = d.Status.Replicas
	}
	if before <= 0 {
		return 0
	}
	size := float64(replicas(rs)) * float64(allowed) / float64(before)
	return int32(math.Round(size)) - replicas(rs)
}
