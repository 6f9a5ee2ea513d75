//lint:file-ignore SA1019 the kubernetes Service has Endpoints for those who still read them.

package controlplane

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/auth"
	"coracle/pkg/auth/policy"
	"coracle/pkg/registry"
)

// bootstrapWriters bounds the writes under way at once: together they share
// the store's log syncs.
const bootstrapWriters = 32

// bootstrapManager owns the fields of the default objects.
const bootstrapManager = "kube-apiserver"

// self is the identity of what the API server does itself.
func self() *auth.User {
	return &auth.User{Name: auth.UserAPIServer, Groups: []string{auth.GroupMasters, auth.GroupAuthenticated}}
}

// wantedObject is one default object: merge adds to what is stored what is
// missing there, and says what that needs. A nil merge leaves it alone.
type wantedObject struct {
	gvr   schema.GroupVersionResource
	obj   runtime.Object
	merge func(current runtime.Object) (runtime.Object, policy.Action)
}

// bootstrap creates what every cluster has, and repairs it after an upgrade.
// It goes on trying while the store is unavailable.
func (cp *ControlPlane) bootstrap(ctx context.Context) error {
	ctx = auth.WithUser(ctx, self())
	if err := cp.ensureAll(ctx, namespaces()); err != nil {
		return err
	}
	if err := cp.serviceRange(ctx); err != nil {
		return err
	}
	if err := cp.ips.Repair(ctx); err != nil {
		return err
	}
	rest := append(roles(cp.cfg.strict.defaults()), priorityClasses()...)
	rest = append(rest, cp.kubernetesService()...)
	rest = append(append(rest, cp.localAPIServices()...), flowControl()...)
	config, err := cp.authenticationConfig()
	if err != nil {
		return err
	}
	info, err := cp.clusterInfo()
	if err != nil {
		return err
	}
	rest = append(append(append(rest, config...), info...), cp.nodeCertificates()...)
	rest = append(rest, cp.tokenTracking()...)
	if err := cp.ensureAll(ctx, rest); err != nil {
		return err
	}
	if !cp.cfg.NoFairness {
		cp.bindDefaults(ctx)
	}
	return nil
}

func (cp *ControlPlane) ensureAll(ctx context.Context, objects []wantedObject) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(bootstrapWriters)
	for _, w := range objects {
		g.Go(func() error { return cp.ensure(ctx, w) })
	}
	return g.Wait()
}

// ensureTries and ensureWait bound how long a default object is tried for.
const (
	ensureTries = 50
	ensureWait  = 200 * time.Millisecond
)

func (cp *ControlPlane) ensure(ctx context.Context, w wantedObject) (err error) {
	for range ensureTries {
		if err = cp.ensureOnce(ctx, w); err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-cp.cfg.Clock.After(ensureWait):
		}
	}
	return fmt.Errorf("create the default %s: %w", w.gvr.Resource, err)
}

func (cp *ControlPlane) ensureOnce(ctx context.Context, w wantedObject) error {
	acc, err := meta.Accessor(w.obj)
	if err != nil {
		return err
	}
	req := registry.Request{Resource: cp.resource(w.gvr), Namespace: acc.GetNamespace(), Name: acc.GetName()}
	opts := registry.WriteOptions{Manager: bootstrapManager, Internal: true}
	stored, err := cp.registry.Get(ctx, req, "")
	if apierrors.IsNotFound(err) {
		obj := w.obj.DeepCopyObject()
		if req.Resource.Default != nil {
			req.Resource.Default(obj)
		}
		_, err = cp.registry.Create(ctx, req, obj, opts)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	if err != nil || w.merge == nil {
		return err
	}
	current, err := registry.Shared(req.Resource, stored)
	if err != nil {
		return err
	}
	switch _, action := w.merge(current.DeepCopyObject()); action {
	case policy.None:
		return nil
	case policy.Recreate:
		// A binding's role cannot change: the next try creates it anew.
		uid := stored.UID
		_, _, err := cp.registry.Delete(ctx, req, registry.DeleteOptions{WriteOptions: opts,
			DeleteOptions: metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		return cp.ensureOnce(ctx, w)
	}
	_, _, err = cp.registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		merged, _ := w.merge(current)
		return merged, nil
	}, registry.UpdateOptions{WriteOptions: opts})
	return err
}

func namespaces() []wantedObject {
	var out []wantedObject
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		out = append(out, wantedObject{
			gvr: corev1.SchemeGroupVersion.WithResource("namespaces"),
			obj: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		})
	}
	return out
}

// Priorities of the two classes that every cluster has (API doc of
// PriorityClass: user classes end at one billion).
const (
	systemCriticalPriority = 2_000_000_000
	nodeCriticalPriority   = systemCriticalPriority + 1000
)

func priorityClasses() []wantedObject {
	class := func(name string, value int32, description string) wantedObject {
		return wantedObject{
			gvr: schedulingv1.SchemeGroupVersion.WithResource("priorityclasses"),
			obj: &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: description},
		}
	}
	return []wantedObject{
		class("system-node-critical", nodeCriticalPriority,
			"Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", systemCriticalPriority,
			"Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

// roles are the default roles and bindings, to which missing rules and
// subjects are added.
func roles(defaults *policy.Objects) []wantedObject {
	var out []wantedObject
	add := func(plural string, obj runtime.Object, merge func(runtime.Object) (runtime.Object, policy.Action)) {
		out = append(out, wantedObject{gvr: rbacGVR(plural), obj: obj, merge: merge})
	}
	for _, o := range defaults.ClusterRoles {
		add("clusterroles", o, merging(o, policy.ReconcileClusterRole))
	}
	for _, o := range defaults.ClusterRoleBindings {
		add("clusterrolebindings", o, merging(o, policy.ReconcileClusterRoleBinding))
	}
	for _, o := range defaults.Roles {
		add("roles", o, merging(o, policy.ReconcileRole))
	}
	for _, o := range defaults.RoleBindings {
		add("rolebindings", o, merging(o, policy.ReconcileRoleBinding))
	}
	return out
}

func rbacGVR(plural string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: plural}
}

func merging[T runtime.Object](wanted T, reconcile func(existing, wanted T) (T, policy.Action)) func(runtime.Object) (runtime.Object, policy.Action) {
	return func(current runtime.Object) (runtime.Object, policy.Action) { return reconcile(current.(T), wanted) }
}

func updateIf(changed bool) policy.Action {
	if changed {
		return policy.Update
	}
	return policy.None
}

// kubernetesService is the Service through which pods reach the API, with its
// endpoints where the API server says where it is.
func (cp *ControlPlane) kubernetesService() []wantedObject {
	meta := metav1.ObjectMeta{
		Name: "kubernetes", Namespace: metav1.NamespaceDefault,
		Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"},
	}
	port := int32(cp.cfg.Advertise.Port())
	if port == 0 {
		port = 6443
	}
	out := []wantedObject{{
		gvr: corev1.SchemeGroupVersion.WithResource("services"),
		obj: &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: cp.cfg.ServiceCIDR.Masked().Addr().Next().String(),
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports:           []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(port)}},
		}},
		merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			svc := current.(*corev1.Service)
			changed := len(svc.Spec.Ports) != 1 || svc.Spec.Ports[0].TargetPort.IntVal != port
			if changed {
				svc.Spec.Ports = []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(port)}}
			}
			return svc, updateIf(changed)
		},
	}}
	if !cp.cfg.Advertise.IsValid() {
		return out
	}
	return append(out, cp.kubernetesEndpoints(port)...)
}

func (cp *ControlPlane) kubernetesEndpoints(port int32) []wantedObject {
	address := cp.cfg.Advertise.Addr().String()
	subsets := []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: address}},
		Ports:     []corev1.EndpointPort{{Name: "https", Port: port, Protocol: corev1.ProtocolTCP}},
	}}
	endpoints := []discoveryv1.Endpoint{{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}}
	ports := []discoveryv1.EndpointPort{{Name: new("https"), Port: &port, Protocol: new(corev1.ProtocolTCP)}}
	return []wantedObject{{
		gvr: corev1.SchemeGroupVersion.WithResource("endpoints"),
		obj: &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
			Name: "kubernetes", Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"},
		}, Subsets: subsets},
		merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			e := current.(*corev1.Endpoints)
			changed := len(e.Subsets) != 1 || len(e.Subsets[0].Addresses) != 1 || len(e.Subsets[0].Ports) != 1 ||
				e.Subsets[0].Addresses[0].IP != address || e.Subsets[0].Ports[0].Port != port
			e.Subsets = subsets
			return e, updateIf(changed)
		},
	}, {
		gvr: discoveryv1.SchemeGroupVersion.WithResource("endpointslices"),
		obj: &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Name: "kubernetes", Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"},
		}, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints, Ports: ports},
		merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			e := current.(*discoveryv1.EndpointSlice)
			changed := len(e.Endpoints) != 1 || len(e.Ports) != 1 || len(e.Endpoints[0].Addresses) != 1 ||
				e.Endpoints[0].Addresses[0] != address || e.Ports[0].Port == nil || *e.Ports[0].Port != port
			e.Endpoints, e.Ports = endpoints, ports
			return e, updateIf(changed)
		},
	}}
}
