package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// AlwaysPullImages makes every container's image be pulled with the pod's own
// credentials, so that nobody runs a private image because it is there.
type AlwaysPullImages struct{}

// Name implements Plugin.
func (AlwaysPullImages) Name() string { return "AlwaysPullImages" }

// Handles implements Selective.
func (AlwaysPullImages) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// concerned returns the pod when a brings an image that it did not have.
func (AlwaysPullImages) concerned(a *Attributes) (*corev1.Pod, bool) {
	p, ok := bringsContainers(a)
	if !ok || a.Operation != Create && a.Operation != Update {
		return nil, false
	}
	old, ok := a.Old().(*corev1.Pod)
	if !ok || a.Operation == Create {
		return p, true
	}
	had := map[string]bool{}
	visitImages(a, &old.Spec, func(_ *field.Path, image string, _ *corev1.PullPolicy) { had[image] = true })
	changed := false
	visitImages(a, &p.Spec, func(_ *field.Path, image string, _ *corev1.PullPolicy) { changed = changed || !had[image] })
	return p, changed
}

// visitImages calls f with the image and the policy of each container and of
// each image volume: those that the request may bring.
func visitImages(a *Attributes, spec *corev1.PodSpec, f func(path *field.Path, image string, policy *corev1.PullPolicy)) {
	path := field.NewPath("spec")
	for i := range spec.EphemeralContainers {
		c := &spec.EphemeralContainers[i]
		f(path.Child("ephemeralContainers").Index(i).Child("imagePullPolicy"), c.Image, &c.ImagePullPolicy)
	}
	if a.Subresource != "" {
		return
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		f(path.Child("initContainers").Index(i).Child("imagePullPolicy"), c.Image, &c.ImagePullPolicy)
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		f(path.Child("containers").Index(i).Child("imagePullPolicy"), c.Image, &c.ImagePullPolicy)
	}
	for i := range spec.Volumes {
		if v := spec.Volumes[i].Image; v != nil {
			f(path.Child("volumes").Index(i).Child("image", "pullPolicy"), v.Reference, &v.PullPolicy)
		}
	}
}

// Admit implements Mutator.
func (p AlwaysPullImages) Admit(_ context.Context, a *Attributes) error {
	if pod, ok := p.concerned(a); ok {
		visitImages(a, &pod.Spec, func(_ *field.Path, _ string, policy *corev1.PullPolicy) { *policy = corev1.PullAlways })
	}
	return nil
}

// Validate implements Validator.
func (p AlwaysPullImages) Validate(_ context.Context, a *Attributes) error {
	pod, ok := p.concerned(a)
	if !ok {
		return nil
	}
	var errs []error
	visitImages(a, &pod.Spec, func(path *field.Path, _ string, policy *corev1.PullPolicy) {
		if *policy != corev1.PullAlways {
			errs = append(errs, field.NotSupported(path, *policy, []corev1.PullPolicy{corev1.PullAlways}))
		}
	})
	if err := utilerrors.NewAggregate(errs); err != nil {
		return forbidden(a, err)
	}
	return nil
}
