package apiserver

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

const (
	// maxDisruptedPods bounds the evictions that a budget's controller has not
	// seen yet.
	maxDisruptedPods = 2000
	// budgetRetrySeconds is when to try again while a budget is being computed.
	budgetRetrySeconds = 10
	// evictionTries bounds how often an eviction of a pod that serves nobody
	// starts again because the pod changed meanwhile.
	evictionTries = 20
)

// serveEviction deletes a pod unless that would break a disruption budget.
func (s *Server) serveEviction(w http.ResponseWriter, r *http.Request, req registry.Request) error {
	rep, opts, eviction, err := readSub(s, w, r, req, &policyv1.Eviction{}, &metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := s.evict(r.Context(), req, eviction, opts); err != nil {
		return err
	}
	sendObject(w, http.StatusCreated, rep, statusGVK, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated})
	return nil
}

func (s *Server) evict(ctx context.Context, req registry.Request, eviction *policyv1.Eviction, opts registry.WriteOptions) error {
	if err := s.cfg.Registry.Admit(ctx, admission.Create, req, eviction, opts, nil); err != nil {
		return err
	}
	del := registry.DeleteOptions{WriteOptions: opts}
	if eviction.DeleteOptions != nil {
		del.DeleteOptions = *eviction.DeleteOptions
	}
	dry, err := dryRun(del.DeleteOptions.DryRun)
	if err != nil {
		return err
	}
	del.WriteOptions.DryRun = opts.DryRun || dry
	del.Options, del.Internal = &del.DeleteOptions, true // the eviction was admitted
	req.Subresource = ""
	pinned := del.Preconditions != nil && del.Preconditions.ResourceVersion != nil
	for range evictionTries {
		pod, err := s.podOf(ctx, req, del.Preconditions)
		if err != nil {
			return err
		}
		p, err := s.permit(ctx, pod, del.WriteOptions.DryRun)
		if err != nil {
			return err
		}
		err = s.dismiss(ctx, req, pod, p.asSeen, del)
		switch {
		case !apierrors.IsConflict(err) || !p.asSeen || pinned:
			return err
		case p.budget != "":
			// It may have become healthy: then it is the budget's to decide.
			return errBudget(budgetRetrySeconds, beingProcessed(p.budget))
		}
	}
	return apierrors.NewConflict(req.Resource.GroupResource(), req.Name, fmt.Errorf("the pod changes all the time: try again"))
}

// permission is why a pod may go.
type permission struct {
	// asSeen is set when it may go for the state that it was seen in: it must
	// not change before it is deleted.
	asSeen bool
	budget string // that lets it go in this state, or ""
}

// permit finds out whether the pod may go, and spends one disruption of its
// budget if it takes one.
func (s *Server) permit(ctx context.Context, pod *corev1.Pod, dryRun bool) (permission, error) {
	switch phase := pod.Status.Phase; {
	case pod.DeletionTimestamp != nil || phase == corev1.PodSucceeded || phase == corev1.PodFailed:
		return permission{}, nil // it serves nobody, and never will
	case phase != corev1.PodRunning && phase != corev1.PodUnknown:
		return permission{asSeen: true}, nil // it serves nobody yet
	}
	free, err := s.spend(ctx, pod, dryRun)
	return permission{asSeen: free != "", budget: free}, err
}

// dismiss says on the pod why it goes, and deletes it.
func (s *Server) dismiss(ctx context.Context, req registry.Request, pod *corev1.Pod, asSeen bool, del registry.DeleteOptions) error {
	// A pod of the same name that came meanwhile is another one.
	pre := metav1.Preconditions{UID: &pod.UID}
	if p := del.Preconditions; asSeen || p != nil && p.ResourceVersion != nil {
		pre.ResourceVersion = &pod.ResourceVersion
	}
	if !del.WriteOptions.DryRun {
		revision, err := s.markDisrupted(ctx, req, pre)
		if err != nil {
			return err
		}
		if pre.ResourceVersion != nil {
			pre.ResourceVersion = &revision
		}
	}
	del.Preconditions = &pre
	_, _, err := s.cfg.Registry.Delete(ctx, req, del)
	return err
}

func (s *Server) podOf(ctx context.Context, req registry.Request, pre *metav1.Preconditions) (*corev1.Pod, error) {
	o, err := s.cfg.Registry.Get(ctx, req, "")
	if err != nil {
		return nil, err
	}
	if err := registry.CheckPreconditions(req, o, pre); err != nil {
		return nil, err
	}
	obj, err := registry.Shared(req.Resource, o)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod %s is a %T", req.Name, obj))
	}
	return pod, nil
}

// spend takes one disruption from the pod's budget, if it has one. A budget
// that lets the pod go without spending anything is returned by name.
func (s *Server) spend(ctx context.Context, pod *corev1.Pod, dryRun bool) (free string, err error) {
	res, ok := s.cfg.Registry.Table().ByGVR(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"))
	if !ok {
		return "", nil
	}
	budget, err := s.budgetOf(ctx, pod, registry.Request{Resource: res, Namespace: pod.Namespace})
	if err != nil || budget == nil {
		return "", err
	}
	if freeToGo(pod, budget) {
		return budget.Name, nil
	}
	// The budget's controller and this server share its status; the store's
	// compare-and-set keeps two evictions from spending the same disruption.
	ctx = auth.WithUser(ctx, &auth.User{Name: auth.UserAPIServer, Groups: []string{auth.GroupMasters, auth.GroupAuthenticated}})
	target := registry.Request{Resource: res, Subresource: "status", Namespace: pod.Namespace, Name: budget.Name}
	now := metav1.Time{Time: s.now()}
	_, _, err = s.cfg.Registry.Update(ctx, target, func(current runtime.Object) (runtime.Object, error) {
		b := current.(*policyv1.PodDisruptionBudget)
		return b, spendOne(b, pod.Name, now)
	}, registry.UpdateOptions{WriteOptions: registry.WriteOptions{DryRun: dryRun, Manager: "kube-apiserver", Internal: true}})
	return "", err
}

// budgetOf finds the one budget that selects the pod.
func (s *Server) budgetOf(ctx context.Context, pod *corev1.Pod, req registry.Request) (*policyv1.PodDisruptionBudget, error) {
	list, err := s.cfg.Registry.List(ctx, req, registry.ListOptions{})
	if err != nil {
		return nil, err
	}
	var found *policyv1.PodDisruptionBudget
	for _, o := range list.Items {
		obj, err := registry.Shared(req.Resource, o)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		budget := obj.(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if found != nil {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		found = budget
	}
	return found, nil
}

// freeToGo says that the pod is not healthy and its budget lets such pods go.
func freeToGo(pod *corev1.Pod, budget *policyv1.PodDisruptionBudget) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	if p := budget.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return budget.Status.DesiredHealthy > 0 && budget.Status.CurrentHealthy >= budget.Status.DesiredHealthy
}

// spendOne changes b's status for the eviction of one pod, or refuses.
func spendOne(b *policyv1.PodDisruptionBudget, pod string, now metav1.Time) error {
	s := &b.Status
	switch {
	case s.ObservedGeneration < b.Generation:
		return errBudget(budgetRetrySeconds, beingProcessed(b.Name))
	case s.DisruptionsAllowed < 0:
		return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), b.Name, fmt.Errorf("pdb disruptions allowed is negative"))
	case len(s.DisruptedPods) > maxDisruptedPods:
		return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), b.Name,
			fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case s.DisruptionsAllowed == 0:
		return errBudget(0, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, s.DesiredHealthy, s.CurrentHealthy))
	}
	s.DisruptionsAllowed--
	if s.DisruptionsAllowed == 0 {
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
			ObservedGeneration: s.ObservedGeneration, LastTransitionTime: now,
		})
	}
	if s.DisruptedPods == nil {
		s.DisruptedPods = map[string]metav1.Time{}
	}
	s.DisruptedPods[pod] = now
	return nil
}

func beingProcessed(budget string) string {
	return fmt.Sprintf("The disruption budget %s is still being processed by the server.", budget)
}

// errBudget is the refusal that drain loops wait on.
func errBudget(retrySeconds int, cause string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retrySeconds)
	err.ErrStatus.Code = http.StatusTooManyRequests
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: cause})
	return err
}

// markDisrupted tells on the pod why it goes (KEP-3329), and returns the
// resourceVersion that it then has.
func (s *Server) markDisrupted(ctx context.Context, req registry.Request, pre metav1.Preconditions) (string, error) {
	req.Subresource = "status"
	now := metav1.Time{Time: s.now().Truncate(1e9)}
	o, _, err := s.cfg.Registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		p := current.(*corev1.Pod)
		target := corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: now,
			Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
		}
		for i := range p.Status.Conditions {
			if p.Status.Conditions[i].Type == corev1.DisruptionTarget {
				if p.Status.Conditions[i].Status != corev1.ConditionTrue {
					p.Status.Conditions[i] = target
				}
				return p, nil
			}
		}
		p.Status.Conditions = append(p.Status.Conditions, target)
		return p, nil
	}, registry.UpdateOptions{Preconditions: &pre, KeepManagers: true, WriteOptions: registry.WriteOptions{Internal: true}})
	if err != nil {
		return "", err
	}
	return fmt.Sprint(int64(o.Revision)), nil
}
