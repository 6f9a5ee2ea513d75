package controlplane

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth/node"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// maxLag is how far the cache may trail the store before the server calls
// itself not ready (api-semantics W-8).
const maxLag = 5 * time.Second

// projections feed the authorizers: RBAC with roles and bindings, the node
// authorizer with pods and volumes.
func (cp *ControlPlane) projections() []registry.Projection {
	roles, nodes := cp.roles, cp.nodes
	return []registry.Projection{
		cp.projection(rbacGVR("clusterroles"),
			func(o runtime.Object) { roles.SetClusterRole(o.(*rbacv1.ClusterRole)) },
			func(_, name string) { roles.DeleteClusterRole(name) }),
		cp.projection(rbacGVR("roles"),
			func(o runtime.Object) { roles.SetRole(o.(*rbacv1.Role)) }, roles.DeleteRole),
		cp.projection(rbacGVR("clusterrolebindings"),
			func(o runtime.Object) { roles.SetClusterRoleBinding(o.(*rbacv1.ClusterRoleBinding)) },
			func(_, name string) { roles.DeleteClusterRoleBinding(name) }),
		cp.projection(rbacGVR("rolebindings"),
			func(o runtime.Object) { roles.SetRoleBinding(o.(*rbacv1.RoleBinding)) }, roles.DeleteRoleBinding),
		cp.podProjection(),
		cp.projection(corev1.SchemeGroupVersion.WithResource("persistentvolumes"),
			func(o runtime.Object) { nodes.SetPersistentVolume(o.(*corev1.PersistentVolume)) },
			func(_, name string) { nodes.DeletePersistentVolume(name) }),
		cp.projection(storagev1.SchemeGroupVersion.WithResource("volumeattachments"),
			func(o runtime.Object) {
				nodes.SetVolumeAttachment(o.(*storagev1.VolumeAttachment).Name, o.(*storagev1.VolumeAttachment).Spec.NodeName)
			},
			func(_, name string) { nodes.DeleteVolumeAttachment(name) }),
		cp.projection(resourcev1.SchemeGroupVersion.WithResource("resourceslices"),
			func(o runtime.Object) {
				slice, node := o.(*resourcev1.ResourceSlice), ""
				if slice.Spec.NodeName != nil {
					node = *slice.Spec.NodeName
				}
				nodes.SetResourceSlice(slice.Name, node)
			},
			func(_, name string) { nodes.DeleteResourceSlice(name) }),
	}
}

func (cp *ControlPlane) projection(gvr schema.GroupVersionResource, set func(runtime.Object), del func(namespace, name string)) registry.Projection {
	synced, done := make(chan struct{}), false
	cp.synced = append(cp.synced, synced)
	return registry.Projection{
		Resource: cp.resource(gvr), Set: set, Delete: del,
		Synced: func() { // called by the projection's one goroutine
			if !done {
				done = true
				close(synced)
			}
		},
	}
}

// podProjection feeds the node authorizer. A pod without a node is no node's
// business and need not be decoded; of one that has a node only the fields that
// name other objects are, and not kept, since nobody else reads them.
func (cp *ControlPlane) podProjection() registry.Projection {
	nodes := cp.nodes
	p := cp.projection(corev1.SchemeGroupVersion.WithResource("pods"), nil, nodes.DeletePod)
	fields, err := registry.NewPartial(p.Resource, node.PodFields()...)
	if err != nil {
		panic("the node authorizer reads what pods do not have: " + err.Error()) // a bug: the list's own test fails first
	}
	var pod corev1.Pod // used again and again: the calls are ordered, and nothing of it is kept
	p.Raw = func(o *cache.Object) error {
		if o.Fields["spec.nodeName"] == "" {
			nodes.DeletePod(o.Namespace, o.Name)
			return nil
		}
		err := fields.Decode(o, &pod)
		if err == nil {
			nodes.SetPod(&pod)
		}
		return err
	}
	return p
}

// resource returns a kind that every table has.
func (cp *ControlPlane) resource(gvr schema.GroupVersionResource) *resource.Resource {
	res, ok := cp.registry.Table().ByGVR(gvr)
	if !ok {
		panic("the table lacks " + gvr.String()) // a bug: the table's own test fails first
	}
	return res
}

// serviceHook gives Services their addresses and ports around their writes.
func (cp *ControlPlane) serviceHook() registry.Hook {
	return registry.Hook{
		Create: func(ctx context.Context, obj runtime.Object, dryRun bool) (func(), error) {
			return cp.ips.Complete(ctx, obj.(*corev1.Service), nil, dryRun)
		},
		Update: func(ctx context.Context, obj, old runtime.Object, dryRun bool) (func(), error) {
			return cp.ips.Complete(ctx, obj.(*corev1.Service), old.(*corev1.Service), dryRun)
		},
		Updated: func(ctx context.Context, obj, old runtime.Object) {
			cp.ips.Settle(ctx, obj.(*corev1.Service), old.(*corev1.Service))
		},
		Deleted: func(ctx context.Context, obj runtime.Object) { cp.ips.Release(ctx, obj.(*corev1.Service)) },
	}
}
