package revision

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Keeper reads and writes revisions. Its fields are set once.
type Keeper struct {
	Client   kubernetes.Interface
	Informer cache.SharedIndexInformer // of ControllerRevisions, with the controller index
}

// CollisionError says that the name of a new revision is taken by another one:
// the owner has to record one more collision and try again.
type CollisionError struct{ Name string }

func (e *CollisionError) Error() string {
	return fmt.Sprintf("the name %s is taken by a revision of another template", e.Name)
}

// Sync brings o's revisions up to date. It returns the current one and all
// that remain, the current one among them. live fetches the owner, to confirm
// it before it adopts.
func (k *Keeper) Sync(ctx context.Context, req *reconcile.Request, o Owner, used map[string]bool, live func() (metav1.Object, error)) (*appsv1.ControllerRevision, []*appsv1.ControllerRevision, error) {
	have, err := k.owned(ctx, req, o, live)
	if err != nil {
		return nil, nil, err
	}
	p, err := Compute(o, have, used)
	if err != nil {
		return nil, nil, reconcile.Terminal(err)
	}
	client := k.Client.AppsV1().ControllerRevisions(o.Object.GetNamespace())
	switch {
	case p.Create:
		if p.Current, err = k.create(ctx, o, p.Current); err != nil {
			return nil, nil, err
		}
		req.Wrote(k.Informer, p.Current)
		have = append(have, p.Current)
	case p.Renumber:
		if p.Current, err = client.Update(ctx, p.Current, metav1.UpdateOptions{}); err != nil {
			return nil, nil, fmt.Errorf("renumber revision: %w", err)
		}
		req.Wrote(k.Informer, p.Current)
	}
	for _, r := range p.Remove {
		err := client.Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: podset.Unchanged(r)})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, nil, fmt.Errorf("delete old revision %s: %w", r.Name, err)
		}
		req.Deleted(k.Informer, r)
	}
	return p.Current, have, nil
}

// owned returns o's revisions, adopting those that match its selector and
// belong to nobody.
func (k *Keeper) owned(ctx context.Context, req *reconcile.Request, o Owner, live func() (metav1.Object, error)) ([]*appsv1.ControllerRevision, error) {
	selector, err := metav1.LabelSelectorAsSelector(o.Selector)
	if err != nil {
		return nil, reconcile.Terminal(err)
	}
	have := reconcile.Indexed[*appsv1.ControllerRevision](k.Informer, reconcile.ByController, string(o.Object.GetUID()))
	for _, r := range reconcile.Indexed[*appsv1.ControllerRevision](k.Informer, reconcile.ByController, reconcile.OrphansIn(o.Object.GetNamespace())) {
		if !selector.Matches(labels.Set(r.Labels)) || r.DeletionTimestamp != nil || o.Object.GetDeletionTimestamp() != nil {
			continue
		}
		if err := podset.MayAdopt(o.Object, live); err != nil {
			return nil, err
		}
		got, err := k.Client.AppsV1().ControllerRevisions(r.Namespace).Patch(ctx, r.Name, types.StrategicMergePatchType,
			podset.AdoptPatch(o.Object, o.Kind, r.UID), metav1.PatchOptions{})
		if err != nil {
			return nil, fmt.Errorf("adopt revision %s: %w", r.Name, err)
		}
		req.Wrote(k.Informer, got)
		have = append(have, got)
	}
	return have, nil
}

func (k *Keeper) create(ctx context.Context, o Owner, r *appsv1.ControllerRevision) (*appsv1.ControllerRevision, error) {
	client := k.Client.AppsV1().ControllerRevisions(r.Namespace)
	got, err := client.Create(ctx, r, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		if err != nil {
			return nil, fmt.Errorf("create revision: %w", err)
		}
		return got, nil
	}
	got, err = client.Get(ctx, r.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("look at revision %s, whose name is taken: %w", r.Name, err)
	}
	if metav1.IsControlledBy(got, o.Object) && same(got.Data.Raw, r.Data.Raw) {
		return got, nil // an earlier create succeeded without our knowing
	}
	return nil, &CollisionError{Name: r.Name}
}
