// Package storagemigration rewrites all objects of a resource for whom a
// StorageVersionMigration asks, so that each is stored in the form that the API
// server would give it now.
//
// A rewrite is a patch that changes nothing, of the object's very version: what
// others write meanwhile is stored in the new form by them. Migrations of one
// resource run one after the other. One that cannot be done ends with the
// condition Failed, which says why; a server that is busy or does not answer is
// asked again.
package storagemigration

import (
	"context"
	"fmt"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

const (
	// fieldManager is whom patches come from.
	fieldManager = "storage-version-migrator-controller"
	// pageSize bounds what one list holds.
	pageSize = 500
	// longest bounds one attempt. The next begins from the start.
	longest = time.Hour
	// lookAgain is how soon a resource that is not served yet is looked for
	// again.
	lookAgain = 5 * time.Second
)

// Controller reconciles StorageVersionMigrations. Make it with New.
type Controller struct {
	env        reconcile.Env
	metadata   metadata.Interface
	migrations cache.SharedIndexInformer
	loop       *reconcile.Loop
}

// New registers the controller's informers. client lists and patches objects of
// any type, under the controller's own identity.
func New(env reconcile.Env, client metadata.Interface) *Controller {
	env = env.Defaulted()
	c := &Controller{env: env, metadata: client, migrations: env.Informers.Storagemigration().V1().StorageVersionMigrations().Informer()}
	c.loop = reconcile.New(reconcile.Config{
		Name: "storage-migration", Reconcile: c.reconcile, Timeout: longest, Clock: env.Clock, Log: env.Log,
	})
	reconcile.Watch(c.loop, c.migrations, func(m *migrationv1.StorageVersionMigration) []reconcile.Key {
		keys := reconcile.Self(m)
		for _, other := range c.all() {
			if other.Spec.Resource == m.Spec.Resource && !ended(other) {
				keys = append(keys, reconcile.KeyOf(other))
			}
		}
		return keys
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) all() []*migrationv1.StorageVersionMigration {
	var out []*migrationv1.StorageVersionMigration
	for _, obj := range c.migrations.GetStore().List() {
		if m, ok := obj.(*migrationv1.StorageVersionMigration); ok {
			out = append(out, m)
		}
	}
	return out
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	m := reconcile.Cached[*migrationv1.StorageVersionMigration](c.migrations, req.Key)
	if m == nil || m.DeletionTimestamp != nil || ended(m) || !turn(m, c.all()) {
		return reconcile.Result{}, nil
	}
	_, lists, err := c.env.Client.Discovery().ServerGroupsAndResources()
	gvr, verbs, ok := find(lists, m.Spec.Resource)
	switch {
	case !ok && err != nil:
		return reconcile.Result{}, fmt.Errorf("discovery: %w", err)
	case !ok && c.env.Clock.Since(m.CreationTimestamp.Time) < patience:
		return reconcile.Result{RequeueAfter: lookAgain}, nil
	case !ok:
		return reconcile.Result{}, c.write(ctx, req, finished(m, fmt.Errorf("resource %s does not exist in discovery", m.Spec.Resource.String()), c.env.Clock.Now()))
	case !migratable(verbs):
		return reconcile.Result{}, c.write(ctx, req, finished(m, fmt.Errorf("resource %s cannot be listed and patched", gvr), c.env.Clock.Now()))
	}
	if !running(m) || m.Status.ResourceVersion == "" {
		page, err := c.metadata.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("latest version of %s: %w", gvr, err)
		}
		// The echo of this brings the key back.
		return reconcile.Result{}, c.write(ctx, req, started(m, page.ResourceVersion, c.env.Clock.Now()))
	}
	failure, err := c.rewriteAll(ctx, gvr, m.Status.ResourceVersion)
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, c.write(ctx, req, finished(m, failure, c.env.Clock.Now()))
}

func (c *Controller) write(ctx context.Context, req *reconcile.Request, m *migrationv1.StorageVersionMigration) error {
	got, err := c.env.Client.StoragemigrationV1().StorageVersionMigrations().UpdateStatus(ctx, m, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.migrations, got)
	return nil
}

// rewriteAll patches what is stored up to version. failure is what no repeat
// would cure, err what one may.
func (c *Controller) rewriteAll(ctx context.Context, gvr schema.GroupVersionResource, version string) (failure, err error) {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := c.metadata.Resource(gvr).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", gvr, err)
		}
		for i := range page.Items {
			o := &page.Items[i]
			if !due(o.ResourceVersion, version) {
				continue
			}
			err := c.rewrite(ctx, gvr, o)
			switch {
			case err == nil, apierrors.IsConflict(err), apierrors.IsNotFound(err):
				// Who was faster has stored it anew, or deleted it.
			case reconcile.Lost(err), reconcile.Transient(err), apierrors.IsTimeout(err):
				return nil, fmt.Errorf("rewrite %s %s/%s: %w", gvr.Resource, o.Namespace, o.Name, err)
			default:
				return fmt.Errorf("%s %s/%s: %w", gvr.Resource, o.Namespace, o.Name, err), nil
			}
		}
		if page.Continue == "" {
			return nil, nil
		}
		options.Continue = page.Continue
	}
}

func (c *Controller) rewrite(ctx context.Context, gvr schema.GroupVersionResource, o *metav1.PartialObjectMetadata) error {
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"resourceVersion":%q}}`, o.UID, o.ResourceVersion)
	_, err := c.metadata.Resource(gvr).Namespace(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return err
}
