package apiserver

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

// ownHandlers are the subresources that this package serves beside those in
// Config.
func (s *Server) ownHandlers() map[string]Handler {
	h := map[string]Handler{
		"pods/binding":  answering(s.serveBinding),
		"pods/eviction": answering(s.serveEviction),
	}
	if s.cfg.Tokens != nil {
		h["serviceaccounts/token"] = answering(s.serveToken)
	}
	return h
}

// answering makes a Handler of a function that leaves its error to be written.
func answering(serve func(http.ResponseWriter, *http.Request, registry.Request) error) Handler {
	return func(w http.ResponseWriter, r *http.Request, req registry.Request, _ string) {
		if err := serve(w, r, req); err != nil {
			WriteError(w, err)
		}
	}
}

// createUnstored serves the kinds that are created under their own name but
// stored as something else: a v1 Binding binds a pod.
func (s *Server) createUnstored(ctx context.Context, sv served, req registry.Request, obj runtime.Object, opts registry.WriteOptions) error {
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return methodNotSupported(sv.res.GroupResource(), "create")
	}
	pods, ok := s.cfg.Registry.Table().ByGVR(corev1.SchemeGroupVersion.WithResource("pods"))
	if !ok {
		return methodNotSupported(sv.res.GroupResource(), "create")
	}
	target := registry.Request{Resource: pods, Subresource: "binding", Namespace: req.Namespace, Name: binding.Name}
	return s.bind(ctx, target, binding, opts)
}

func (s *Server) serveBinding(w http.ResponseWriter, r *http.Request, req registry.Request) error {
	rep, opts, binding, err := readSub(s, w, r, req, &corev1.Binding{}, &metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := s.bind(r.Context(), req, binding, opts); err != nil {
		return err
	}
	sendObject(w, http.StatusCreated, rep, statusGVK, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated})
	return nil
}

// readSub reads the body of a create on a subresource that takes a kind of
// its own.
func readSub[T runtime.Object](s *Server, w http.ResponseWriter, r *http.Request, req registry.Request, into T, options runtime.Object) (representation, registry.WriteOptions, T, error) {
	var none T
	rep, err := negotiate(r, false)
	if err != nil {
		return rep, registry.WriteOptions{}, none, err
	}
	if r.Method != http.MethodPost {
		return rep, registry.WriteOptions{}, none, methodNotSupported(req.Resource.GroupResource(), r.Method)
	}
	opts, validation, err := writeOptions(r, options)
	if err != nil {
		return rep, opts, none, err
	}
	obj, err := decodeAs(s, w, r, into, validation)
	if err != nil {
		return rep, opts, none, err
	}
	return rep, opts, obj, checkName(req, obj)
}

// bind gives a pod its node, once.
func (s *Server) bind(ctx context.Context, req registry.Request, b *corev1.Binding, opts registry.WriteOptions) error {
	err := s.cfg.Registry.Admit(ctx, admission.Create, req, b, opts, func() error {
		if errs := resource.CheckBinding(b); len(errs) > 0 {
			return registry.Invalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), b.Name, errs)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var pre *metav1.Preconditions
	if b.UID != "" || b.ResourceVersion != "" {
		pre = &metav1.Preconditions{}
		if b.UID != "" {
			pre.UID = &b.UID
		}
		if b.ResourceVersion != "" {
			pre.ResourceVersion = &b.ResourceVersion
		}
	}
	opts.Internal = true // the binding was admitted
	now := metav1.Time{Time: s.now()}
	_, _, err = s.cfg.Registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		pod := current.(*corev1.Pod)
		return pod, assign(pod, b, now)
	}, registry.UpdateOptions{WriteOptions: opts, Preconditions: pre, Verbatim: true, KeepManagers: true, Splice: bindSplice(b, now)}) // nobody owns a node's name
	return err
}

// assign changes pod as the binding says.
func assign(pod *corev1.Pod, b *corev1.Binding, now metav1.Time) error {
	refuse := func(format string, args ...any) error {
		return apierrors.NewConflict(corev1.Resource("pods/binding"), pod.Name, fmt.Errorf(format, args...))
	}
	switch {
	case pod.DeletionTimestamp != nil:
		return refuse("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return refuse("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return refuse("pod %s has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = b.Target.Name
	pod.Status.NominatedNodeName = "" // it has what was promised to it, or better
	for k, v := range b.Annotations {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, k, v)
	}
	for k, v := range b.Labels {
		metav1.SetMetaDataLabel(&pod.ObjectMeta, k, v)
	}
	scheduled := scheduledCondition(now)
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodScheduled {
			pod.Status.Conditions[i] = scheduled
			return nil
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, scheduled)
	return nil
}

// scheduledCondition is what a pod says that has a node since now.
func scheduledCondition(now metav1.Time) corev1.PodCondition {
	return corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Time{Time: now.Truncate(1e9)}}
}
