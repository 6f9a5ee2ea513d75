package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pod is what a node remembers of one of its pods. The rest is in the object,
// which is held only while something is to be done about it.
type pod struct {
	place    slot
	machine  *machine
	uid      types.UID
	seen     time.Time // when its node first knew it
	failures uint8     // of the worker that has it

	// Guarded by Fleet.mu.
	namespace, name string
	latest          *corev1.Pod // nil while nothing is under way
	version         uint64      // newest version seen or written
	round           uint32      // of the list that it was last seen in
	address         uint8       // 0 for none
}

func (p *pod) slot() *slot { return &p.place }

// times are those of the fleet.
func (f *Fleet) times() times {
	return times{start: f.cfg.StartTime, run: f.cfg.RunTime, stop: f.cfg.StopTime}
}

// seePod takes the newest version of a pod that is bound to some node.
func (f *Fleet) seePod(obj *corev1.Pod, round uint32) {
	m := f.byName[obj.Spec.NodeName]
	if m == nil {
		return
	}
	now := f.cfg.Clock.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[obj.UID]
	if p == nil {
		if ended(obj) && obj.DeletionTimestamp == nil {
			return
		}
		p = &pod{machine: m, uid: obj.UID, namespace: obj.Namespace, name: obj.Name, seen: now}
		f.pods[obj.UID] = p
		if ip, err := netip.ParseAddr(obj.Status.PodIP); err == nil {
			p.address = m.addresses.claim(ip)
		}
	}
	p.round = round
	version := version64(obj)
	if version < p.version {
		return
	}
	p.version = version
	switch v := decide(obj, f.times(), p.seen, now); {
	case v.remove, v.report != nothing:
		p.latest = obj
		f.work.at(p, now)
	case v.over:
		f.forget(p)
	case !reported(obj), obj.DeletionTimestamp != nil: // it is needed soon
		p.latest = obj
		f.work.at(p, v.next)
	default:
		p.latest = nil
		if !v.next.IsZero() {
			f.work.at(p, v.next)
		}
	}
}

// version64 is an object's version, 0 when it is no number.
func version64(o metav1.Object) uint64 {
	v, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// losePod forgets a pod whose object is gone.
func (f *Fleet) losePod(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pods[uid]; p != nil {
		f.forget(p)
	}
}

// forget needs mu.
func (f *Fleet) forget(p *pod) {
	delete(f.pods, p.uid)
	p.latest = nil
	if p.address != 0 {
		p.machine.addresses.release(p.address)
		p.address = 0
	}
	f.work.drop(p)
}

// sweep forgets the pods that a list did not show.
func (f *Fleet) sweep(round uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pods {
		if p.round != round {
			f.forget(p)
		}
	}
}

// act does what is due for the pod.
func (p *pod) act(ctx context.Context) time.Time {
	f := p.machine.fleet
	call, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	next, err := p.step(call)
	if err != nil {
		return f.retry(ctx, &p.failures, "take the status of a pod", p.namespace+"/"+p.name, err)
	}
	p.failures = 0
	return next
}

// step takes the pod to where it should be now and says when to look again.
func (p *pod) step(ctx context.Context) (time.Time, error) {
	f := p.machine.fleet
	obj, err := p.object(ctx)
	if obj == nil || err != nil {
		return time.Time{}, err
	}
	now := f.cfg.Clock.Now()
	v := decide(obj, f.times(), p.seen, now)
	if v.report != nothing {
		status := v.status(obj, p.ips(obj), now)
		if !apiequality.Semantic.DeepEqual(status, &obj.Status) {
			written, err := p.report(ctx, obj, status)
			if err != nil || written == nil {
				return time.Time{}, err
			}
			obj = written
		}
	}
	if v.remove {
		if err := p.remove(ctx); err != nil {
			return time.Time{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pods[p.uid] != p || p.latest != nil && version64(p.latest) > version64(obj) {
		return v.next, nil // something newer came meanwhile, and has been queued
	}
	p.version = max(p.version, version64(obj))
	if v.over {
		f.forget(p)
		return time.Time{}, nil
	}
	if v.report == running {
		p.latest = nil
		return ending(obj, f.times()), nil
	}
	return v.next, nil
}

// object is the pod as last seen, read again when it was let go; nil when it
// is gone or not this one any more.
func (p *pod) object(ctx context.Context) (*corev1.Pod, error) {
	f := p.machine.fleet
	f.mu.Lock()
	obj, mine := p.latest, f.pods[p.uid] == p
	f.mu.Unlock()
	if obj != nil || !mine {
		return obj, nil
	}
	obj = &corev1.Pod{}
	err := f.as(f.core.Get().Namespace(p.namespace).Resource("pods").Name(p.name), p.machine).Do(ctx).Into(obj)
	if apierrors.IsNotFound(err) || err == nil && obj.UID != p.uid {
		return nil, nil
	}
	return obj, err
}

// ips are the pod's addresses. It gets one when it has none; pods on the host's
// network have none, as the node has none.
func (p *pod) ips(obj *corev1.Pod) []string {
	if obj.Spec.HostNetwork {
		return nil
	}
	if len(obj.Status.PodIPs) > 0 {
		var out []string
		for _, ip := range obj.Status.PodIPs {
			out = append(out, ip.IP)
		}
		return out
	}
	f := p.machine.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.address == 0 && f.pods[p.uid] == p {
		p.address = p.machine.addresses.take()
	}
	if p.address == 0 {
		return nil
	}
	return []string{p.machine.addresses.at(p.address).String()}
}

// report writes a status. All of it goes into the patch: what the agent does
// not own is as it was, and lists merge by their keys. It returns nil when the
// pod is not there any more.
func (p *pod) report(ctx context.Context, obj *corev1.Pod, status *corev1.PodStatus) (*corev1.Pod, error) {
	patch, err := json.Marshal(struct {
		Metadata map[string]string `json:"metadata"`
		Status   *corev1.PodStatus `json:"status"`
	}{map[string]string{"uid": string(p.uid)}, status})
	if err != nil {
		return nil, fmt.Errorf("encoding pod status: %w", err)
	}
	f := p.machine.fleet
	written := &corev1.Pod{}
	err = f.as(f.core.Patch(types.StrategicMergePatchType).Namespace(obj.Namespace).Resource("pods").Name(obj.Name), p.machine).
		SubResource("status").Body(patch).Do(ctx).Into(written)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil, nil // the watch says so too
	}
	return written, err
}

// remove takes the object away.
func (p *pod) remove(ctx context.Context) error {
	f := p.machine.fleet
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(p.uid))
	err := f.as(f.core.Delete().Namespace(p.namespace).Resource("pods").Name(p.name), p.machine).Body(options).Do(ctx).Error()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
