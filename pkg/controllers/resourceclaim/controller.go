// Package resourceclaim makes the ResourceClaims of pods that name a template,
// and takes from claims what nobody uses any more.
//
// A generated claim belongs to its pod; its name is in the pod's status. A
// claim's reservedFor keeps a pod for as long as it may run: only a pod that the
// server says is gone, replaced or done is taken off, since a cache that is
// behind may not know a pod that is about to start. With its last user a claim
// loses its devices and its protection; a generated one whose pod is done is
// deleted.
package resourceclaim

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// fieldManager owns the names of claims in the status of pods.
const fieldManager = "ResourceClaimController"

// ByClaim is the name of the index that AddClaimIndex makes; byTemplate is that
// of pods by the templates that they name.
const (
	ByClaim    = "resource-claim"
	byTemplate = "resource-claim-template"
)

// AddClaimIndex indexes pods by the claims that they use, as namespace/name.
// Adding it twice is harmless.
func AddClaimIndex(pods cache.SharedIndexInformer) error {
	if _, ok := pods.GetIndexer().GetIndexers()[ByClaim]; ok {
		return nil
	}
	return pods.AddIndexers(cache.Indexers{ByClaim: named(ClaimsOf)})
}

// Controller makes and frees claims. Make it with New.
type Controller struct {
	env                     reconcile.Env
	podLoop, claimLoop      *reconcile.Loop
	pods, claims, templates cache.SharedIndexInformer
}

// New makes the controller and registers the informers it reads.
func New(env reconcile.Env) (*Controller, error) {
	env = env.Defaulted()
	resources := env.Informers.Resource().V1()
	c := &Controller{
		env:  env,
		pods: env.Informers.Core().V1().Pods().Informer(), claims: resources.ResourceClaims().Informer(),
		templates: resources.ResourceClaimTemplates().Informer(),
	}
	if err := AddClaimIndex(c.pods); err != nil {
		return nil, fmt.Errorf("index pods by their claims: %w", err)
	}
	if err := c.pods.AddIndexers(cache.Indexers{byTemplate: named(templatesOf)}); err != nil {
		return nil, fmt.Errorf("index pods by their templates: %w", err)
	}
	reconcile.AddControllerIndex(c.claims)
	c.podLoop = env.Loop("resource-claims-of-pods", c.reconcilePod)
	c.claimLoop = env.Loop("resource-claims", c.reconcileClaim)
	reconcile.Watch(c.podLoop, c.pods, func(pod *corev1.Pod) []reconcile.Key {
		if len(pod.Spec.ResourceClaims) == 0 {
			return nil
		}
		return reconcile.Self(pod)
	})
	reconcile.Watch(c.podLoop, c.claims, func(claim *resourcev1.ResourceClaim) []reconcile.Key {
		keys := c.users(ByClaim, claim)
		if ref := owner(claim); ref != nil {
			keys = append(keys, reconcile.Key{Namespace: claim.Namespace, Name: ref.Name})
		}
		return keys
	})
	reconcile.Watch(c.podLoop, c.templates, func(t *resourcev1.ResourceClaimTemplate) []reconcile.Key { return c.users(byTemplate, t) })
	reconcile.Watch(c.claimLoop, c.claims, reconcile.Self[*resourcev1.ResourceClaim])
	c.claimLoop.Handle(c.pods, cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, obj any) {
			if pod, ok := obj.(*corev1.Pod); ok && done(pod) {
				c.free(pod)
			}
		},
		DeleteFunc: func(obj any) {
			if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok {
				c.free(pod)
			}
		},
	})
	return c, nil
}

// named indexes pods by names in their namespace.
func named(names func(*corev1.Pod) []string) cache.IndexFunc {
	return func(obj any) ([]string, error) {
		pod, ok := obj.(*corev1.Pod)
		if !ok || len(pod.Spec.ResourceClaims) == 0 && pod.Status.ExtendedResourceClaimStatus == nil {
			return nil, nil
		}
		keys := names(pod)
		for i := range keys {
			keys[i] = pod.Namespace + "/" + keys[i]
		}
		return keys, nil
	}
}

// users are the keys of the pods that name an object.
func (c *Controller) users(index string, obj metav1.Object) []reconcile.Key {
	var keys []reconcile.Key
	for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, index, obj.GetNamespace()+"/"+obj.GetName()) {
		keys = append(keys, reconcile.KeyOf(pod))
	}
	return keys
}

// free looks at the claims of a pod that needs them no more.
func (c *Controller) free(pod *corev1.Pod) {
	for _, name := range ClaimsOf(pod) {
		c.claimLoop.Add(reconcile.Key{Namespace: pod.Namespace, Name: name})
	}
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.RunAll(ctx, []reconcile.Named{{Name: "pods", Runner: c.podLoop}, {Name: "claims", Runner: c.claimLoop}})
}

func (c *Controller) reconcilePod(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	pod := reconcile.Cached[*corev1.Pod](c.pods, req.Key)
	if pod == nil || pod.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	recorded, err := c.recorded(ctx, pod)
	if err != nil {
		return reconcile.Result{}, err
	}
	found, missing := lacking(pod, recorded, reconcile.Indexed[*resourcev1.ResourceClaim](c.claims, reconcile.ByController, string(pod.UID)))
	for _, ref := range missing {
		if !done(pod) {
			claim, err := c.create(ctx, req, pod, ref)
			if err != nil {
				c.env.Events.Eventf(pod, corev1.EventTypeWarning, "FailedResourceClaimCreation", "PodResourceClaim %s: %v", ref.Name, err)
				return reconcile.Result{}, fmt.Errorf("claim %s of pod %s: %w", ref.Name, req.Key, err)
			}
			found[ref.Name] = claim.Name
		}
	}
	if len(found) > 0 {
		if err := c.record(ctx, req, pod, found); err != nil {
			return reconcile.Result{}, err
		}
	}
	if pod.Spec.NodeName == "" || done(pod) {
		return reconcile.Result{}, nil // until it has a node, reserving is the scheduler's
	}
	return reconcile.Result{}, c.reserve(ctx, req, pod, recorded)
}

// recorded are the claims that a pod's status names, by name. What the cache
// does not show is asked for: a second claim must not be made beside it.
func (c *Controller) recorded(ctx context.Context, pod *corev1.Pod) (map[string]*resourcev1.ResourceClaim, error) {
	out := map[string]*resourcev1.ResourceClaim{}
	for i := range pod.Spec.ResourceClaims {
		ref := &pod.Spec.ResourceClaims[i]
		name, _ := made(pod, ref.Name)
		if ref.ResourceClaimName != nil {
			name = *ref.ResourceClaimName
		}
		if name == "" {
			continue
		}
		claim := reconcile.Cached[*resourcev1.ResourceClaim](c.claims, reconcile.Key{Namespace: pod.Namespace, Name: name})
		if claim == nil && ref.ResourceClaimTemplateName != nil {
			var err error
			claim, err = c.env.Client.ResourceV1().ResourceClaims(pod.Namespace).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("look for claim %s/%s: %w", pod.Namespace, name, err)
			}
		}
		if claim != nil {
			out[name] = claim
		}
	}
	return out, nil
}

func (c *Controller) create(ctx context.Context, req *reconcile.Request, pod *corev1.Pod, ref *corev1.PodResourceClaim) (*resourcev1.ResourceClaim, error) {
	name := *ref.ResourceClaimTemplateName
	template := reconcile.Cached[*resourcev1.ResourceClaimTemplate](c.templates, reconcile.Key{Namespace: pod.Namespace, Name: name})
	if template == nil {
		return nil, fmt.Errorf("resource claim template %q: %w", name, apierrors.NewNotFound(resourcev1.Resource("resourceclaimtemplate"), name))
	}
	got, err := c.env.Client.ResourceV1().ResourceClaims(pod.Namespace).Create(ctx, claimOf(pod, ref.Name, template), metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create ResourceClaim: %w", err)
	}
	req.Wrote(c.claims, got)
	return got, nil
}

// record writes into a pod's status which claims were made for it.
func (c *Controller) record(ctx context.Context, req *reconcile.Request, pod *corev1.Pod, found map[string]string) error {
	status := applycore.PodStatus()
	for _, s := range statuses(pod, found) {
		status.WithResourceClaimStatuses(applycore.PodResourceClaimStatus().WithName(s.Name).WithResourceClaimName(*s.ResourceClaimName))
	}
	apply := applycore.Pod(pod.Name, pod.Namespace).WithUID(pod.UID).WithStatus(status)
	got, err := c.env.Client.CoreV1().Pods(pod.Namespace).ApplyStatus(ctx, apply, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("record the claims of pod %s: %w", req.Key, err)
	}
	req.Wrote(c.pods, got)
	return nil
}

// reserve adds a pod that somebody bound without it to its allocated claims.
func (c *Controller) reserve(ctx context.Context, req *reconcile.Request, pod *corev1.Pod, recorded map[string]*resourcev1.ResourceClaim) error {
	for i := range pod.Spec.ResourceClaims {
		ref := &pod.Spec.ResourceClaims[i]
		name, _ := made(pod, ref.Name)
		if ref.ResourceClaimName != nil {
			name = *ref.ResourceClaimName
		}
		claim := recorded[name]
		if claim == nil {
			continue
		}
		if ref.ResourceClaimTemplateName != nil && !metav1.IsControlledBy(claim, pod) {
			return notTheirs(pod, claim)
		}
		if !unreserved(pod, claim) {
			continue
		}
		got, err := c.env.Client.ResourceV1().ResourceClaims(claim.Namespace).UpdateStatus(ctx, reserved(pod, claim), metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("reserve claim %s/%s for pod %s: %w", claim.Namespace, claim.Name, pod.Name, err)
		}
		req.Wrote(c.claims, got)
		recorded[name] = got
	}
	return nil
}
