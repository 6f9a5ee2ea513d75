package podset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Manager executes what an owner's core decided about its pods. Its fields are
// set once.
type Manager struct {
	Client   kubernetes.Interface
	Events   reconcile.EventSink
	Informer cache.SharedIndexInformer // of pods
	Kind     schema.GroupVersionKind   // of the owner
	// Finalizers are on the owner's pods: adopting adds them, releasing removes
	// them.
	Finalizers []string
	// Say words the event about a create or delete of a pod, and err is what
	// went wrong; nil words it as ReplicaSets do.
	Say func(verb Verb, owner Owner, pod *corev1.Pod, err error) string
}

// Verb is what is done to a pod.
type Verb string

// The verbs that events are about.
const (
	VerbCreate Verb = "create"
	VerbDelete Verb = "delete"
)

// Owner is the object that pods belong to.
type Owner interface {
	metav1.Object
	runtime.Object
}

// maxParallel bounds the requests that one reconcile has in flight.
const maxParallel = 64

// batchLimit bounds the pods that one reconcile creates or deletes.
const batchLimit = 500

// Create makes all pods, in batches that double while they succeed, so that a
// cause that fails every pod costs one request and not hundreds. It stops at
// the first failing batch and reports how many pods were made. A namespace
// that is going away is no error: there is nothing left to do in it.
func (m *Manager) Create(ctx context.Context, req *reconcile.Request, owner Owner, pods []*corev1.Pod) (int, error) {
	pods = pods[:min(len(pods), batchLimit)]
	made := 0
	for size := 1; made < len(pods); size = min(size*2, maxParallel) {
		batch := pods[made:min(made+size, len(pods))]
		var told sync.Once // one event about a batch that fails
		errs := each(batch, func(pod *corev1.Pod) error {
			got, err := m.Client.CoreV1().Pods(owner.GetNamespace()).Create(ctx, pod, metav1.CreateOptions{})
			if err != nil {
				told.Do(func() { m.tell(VerbCreate, owner, pod, err) })
				return err
			}
			req.Wrote(m.Informer, got)
			m.tell(VerbCreate, owner, got, nil)
			return nil
		})
		made += len(batch) - len(errs)
		if slices.ContainsFunc(errs, reconcile.Lost) {
			req.Unsure(m.lookFor(owner.GetNamespace(), batch[0].Labels))
		}
		if len(errs) > 0 {
			if apierrors.HasStatusCause(errs[0], corev1.NamespaceTerminatingCause) {
				return made, nil
			}
			return made, fmt.Errorf("create pods: %w", errors.Join(errs...))
		}
	}
	return made, nil
}

// lookFor finds the pods with these labels that the server has: one of them may
// be what a lost answer was about.
func (m *Manager) lookFor(namespace string, with map[string]string) reconcile.Look {
	return func(ctx context.Context, req *reconcile.Request) error {
		list, err := m.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(with).String()})
		if err != nil {
			return err
		}
		for i := range list.Items {
			req.Wrote(m.Informer, &list.Items[i])
		}
		return nil
	}
}

// lookAfter finds out whether the delete of pod happened.
func (m *Manager) lookAfter(pod *corev1.Pod) reconcile.Look {
	return func(ctx context.Context, req *reconcile.Request) error {
		// The roles of these controllers allow a list, and no get.
		list, err := m.Client.CoreV1().Pods(pod.Namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String()})
		if err != nil {
			return err
		}
		if len(list.Items) == 0 || list.Items[0].UID != pod.UID {
			req.Deleted(m.Informer, pod)
			return nil
		}
		req.Wrote(m.Informer, &list.Items[0])
		return nil
	}
}

// tell records the event about a create or delete. Races with another writer
// are no news: they are cured by the next reconcile.
func (m *Manager) tell(verb Verb, owner Owner, pod *corev1.Pod, err error) {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return
	}
	say := m.Say
	if say == nil {
		say = sayAsReplicaSet
	}
	eventType, reason := corev1.EventTypeNormal, "Successful"
	if err != nil {
		eventType, reason = corev1.EventTypeWarning, "Failed"
	}
	switch verb {
	case VerbCreate:
		reason += "Create"
	case VerbDelete:
		reason += "Delete"
	}
	m.Events.Eventf(owner, eventType, reason, "%s", say(verb, owner, pod, err))
}

func sayAsReplicaSet(verb Verb, _ Owner, pod *corev1.Pod, err error) string {
	switch {
	case verb == VerbCreate && err == nil:
		return "Created pod: " + pod.Name
	case verb == VerbCreate:
		return "Error creating: " + err.Error()
	case err == nil:
		return "Deleted pod: " + pod.Name
	default:
		return "Error deleting: " + err.Error()
	}
}

// Delete deletes pods, each only if it is still what the caller saw: the UID
// and resourceVersion are preconditions. A pod already gone is a success.
func (m *Manager) Delete(ctx context.Context, req *reconcile.Request, owner Owner, pods []*corev1.Pod) error {
	pods = pods[:min(len(pods), batchLimit)]
	var errs []error
	for len(pods) > 0 {
		batch := pods[:min(len(pods), maxParallel)]
		pods = pods[len(batch):]
		errs = append(errs, each(batch, func(pod *corev1.Pod) error {
			err := m.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
				Preconditions: Unchanged(pod),
			})
			if err != nil && !apierrors.IsNotFound(err) {
				if reconcile.Lost(err) {
					req.Unsure(m.lookAfter(pod))
				}
				m.tell(VerbDelete, owner, pod, err)
				return fmt.Errorf("delete pod %s: %w", pod.Name, err)
			}
			req.Deleted(m.Informer, pod)
			m.tell(VerbDelete, owner, pod, nil)
			return nil
		})...)
	}
	return errors.Join(errs...)
}

// Settle adopts and releases pods as c says and returns the owned ones with
// the adopted among them. live fetches the owner from the server: nothing is
// adopted by an owner that is gone, replaced or being deleted.
func (m *Manager) Settle(ctx context.Context, req *reconcile.Request, owner Owner, c Claims[*corev1.Pod], live func() (metav1.Object, error)) ([]*corev1.Pod, error) {
	owned := c.Owned
	if len(c.Adopt) > 0 {
		if err := MayAdopt(owner, live); err != nil {
			return nil, err
		}
	}
	for _, pod := range c.Adopt {
		got, err := m.patch(ctx, req, pod, AdoptPatch(owner, m.Kind, pod.UID, m.Finalizers...))
		if err != nil {
			return nil, fmt.Errorf("adopt pod %s: %w", pod.Name, err)
		}
		if got != nil {
			owned = append(owned, got)
		}
	}
	for _, pod := range c.Release {
		if _, err := m.patch(ctx, req, pod, ReleasePatch(owner.GetUID(), pod.UID, m.Finalizers...)); err != nil {
			return nil, fmt.Errorf("release pod %s: %w", pod.Name, err)
		}
	}
	return owned, nil
}

// Unfinalize removes the manager's finalizers from pods and returns them as they
// are then, without those that are gone; those that failed are missing too. If
// exact, a pod that has changed since the caller saw it is left alone, which is
// an error.
func (m *Manager) Unfinalize(ctx context.Context, req *reconcile.Request, pods []*corev1.Pod, exact bool) (done []*corev1.Pod, err error) {
	var (
		mu   sync.Mutex
		errs []error
	)
	for batch := range slices.Chunk(pods, maxParallel) {
		errs = append(errs, each(batch, func(pod *corev1.Pod) error {
			version := ""
			if exact {
				version = pod.ResourceVersion
			}
			got, err := m.patch(ctx, req, pod, unfinalizePatch(pod.UID, version, m.Finalizers))
			if err != nil {
				return fmt.Errorf("remove finalizers of pod %s: %w", pod.Name, err)
			}
			if got != nil {
				mu.Lock()
				defer mu.Unlock()
				done = append(done, got)
			}
			return nil
		})...)
	}
	return done, errors.Join(errs...)
}

// patch returns nil without an error when the pod is gone.
func (m *Manager) patch(ctx context.Context, req *reconcile.Request, pod *corev1.Pod, data []byte) (*corev1.Pod, error) {
	got, err := m.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	req.Wrote(m.Informer, got)
	return got, nil
}

// MayAdopt asks the server whether owner is still itself and not being
// deleted, and returns an error otherwise.
func MayAdopt(owner metav1.Object, live func() (metav1.Object, error)) error {
	fresh, err := live()
	if err != nil {
		return fmt.Errorf("check owner %s before adopting: %w", owner.GetName(), err)
	}
	if fresh.GetUID() != owner.GetUID() || fresh.GetDeletionTimestamp() != nil {
		return fmt.Errorf("owner %s was replaced or is being deleted: it adopts nothing", owner.GetName())
	}
	return nil
}

// Unchanged makes the preconditions that obj is still what the caller saw.
func Unchanged(obj metav1.Object) *metav1.Preconditions {
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	return &metav1.Preconditions{UID: &uid, ResourceVersion: &version}
}

// each calls fn for all items at once and returns the errors.
func each[T any](items []T, fn func(T) error) []error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error // guarded by mu
	)
	for _, item := range items {
		wg.Go(func() {
			if err := fn(item); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errs
}
