package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	podsecurity "k8s.io/pod-security-admission/admission"
	podsecurityconfig "k8s.io/pod-security-admission/admission/api"
	podsecurityapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"
)

// PodSecurityLevels are what counts in namespaces whose labels say nothing:
// privileged, baseline or restricted, in the server's own version.
type PodSecurityLevels struct{ Enforce, Warn, Audit string }

// PodSecurity holds pods to the Pod Security Standards, by the labels of their
// namespace: it refuses them, warns of them, or has them noted in the audit
// log.
type PodSecurity struct {
	standards *podsecurity.Admission
	// unlabelled is the same without defaults, for the namespaces of privileged.
	unlabelled *podsecurity.Admission
	privileged []string
}

// NewPodSecurity makes the plugin. An empty level is privileged. In the
// namespaces of privileged, levels count only where their labels say so.
func NewPodSecurity(objects Objects, levels PodSecurityLevels, privileged ...string) (*PodSecurity, error) {
	standards, err := newStandards(objects, levels)
	if err != nil {
		return nil, err
	}
	if len(privileged) == 0 {
		return &PodSecurity{standards: standards}, nil
	}
	unlabelled, err := newStandards(objects, PodSecurityLevels{})
	return &PodSecurity{standards, unlabelled, privileged}, err
}

func newStandards(objects Objects, levels PodSecurityLevels) (*podsecurity.Admission, error) {
	for _, l := range []*string{&levels.Enforce, &levels.Warn, &levels.Audit} {
		if *l == "" {
			*l = string(podsecurityapi.LevelPrivileged)
		}
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("read the Pod Security Standards: %w", err)
	}
	latest := podsecurityapi.VersionLatest
	standards := &podsecurity.Admission{
		Configuration: &podsecurityconfig.PodSecurityConfiguration{Defaults: podsecurityconfig.PodSecurityDefaults{
			Enforce: levels.Enforce, EnforceVersion: latest, Warn: levels.Warn, WarnVersion: latest, Audit: levels.Audit, AuditVersion: latest,
		}},
		Evaluator: evaluator, Metrics: unrecorded{}, PodSpecExtractor: podsecurity.DefaultPodSpecExtractor{},
		NamespaceGetter: podSecurityObjects{objects}, PodLister: podSecurityObjects{objects},
	}
	if err := standards.CompleteConfiguration(); err != nil {
		return nil, fmt.Errorf("pod security levels %+v: %w", levels, err)
	}
	if err := standards.ValidateConfiguration(); err != nil {
		return nil, fmt.Errorf("pod security levels %+v: %w", levels, err)
	}
	return standards, nil
}

// Name implements Plugin.
func (*PodSecurity) Name() string { return "PodSecurity" }

// Handles implements Selective.
func (p *PodSecurity) Handles(r schema.GroupResource) bool {
	return r == corev1.Resource("namespaces") || p.standards.PodSpecExtractor.HasPodSpec(r)
}

// Validate implements Validator.
func (p *PodSecurity) Validate(ctx context.Context, a *Attributes) error {
	if a.Operation != Create && a.Operation != Update {
		return nil
	}
	namespace := a.Namespace
	if a.Resource.GroupResource() == corev1.Resource("namespaces") {
		namespace = a.Name // a Namespace is in itself
	}
	asked := &podsecurityapi.AttributesRecord{
		Name: a.Name, Namespace: namespace, Kind: a.Resource.GVK(), Resource: a.Resource.GVR(), Subresource: a.Subresource,
		Operation: admissionv1.Operation(a.Operation), Object: a.Object, OldObject: a.Old(),
	}
	if a.User != nil {
		asked.Username = a.User.Name
	}
	standards := p.standards
	if slices.Contains(p.privileged, namespace) {
		standards = p.unlabelled
	}
	answer := p.answer(ctx, standards, a, asked)
	for _, text := range answer.Warnings {
		a.Warn(text)
	}
	for key, value := range answer.AuditAnnotations {
		a.Annotate(podsecurityapi.AuditAnnotationPrefix+key, value)
	}
	if answer.Allowed {
		return nil
	}
	return refusalOf(a.Resource.GroupResource(), a.Name, answer)
}

// verdict is the key under which a template has the answer for all its pods.
type verdict struct {
	standards *podsecurity.Admission
	policy    podsecurityapi.Policy // of the namespace
}

// answer asks the library, or takes what it said of another pod of the template.
// Only that a pod is let in is said of the spec alone, where annotations have
// nothing to say: a refusal names the pod.
func (p *PodSecurity) answer(ctx context.Context, standards *podsecurity.Admission, a *Attributes, asked podsecurityapi.Attributes) *admissionv1.AdmissionResponse {
	pod, isPod := a.Object.(*corev1.Pod)
	if a.Template == nil || a.Operation != Create || a.Subresource != "" || !isPod || speaksOfProfiles(pod.Annotations) {
		return standards.Validate(ctx, asked)
	}
	namespace, err := standards.NamespaceGetter.GetNamespace(ctx, a.Namespace)
	if err != nil {
		return standards.Validate(ctx, asked)
	}
	policy, errs := standards.PolicyToEvaluate(namespace.Labels)
	if len(errs) > 0 || policy.FullyPrivileged() {
		return standards.Validate(ctx, asked)
	}
	key := verdict{standards, policy}
	if known, ok := a.Template.Fact(key); ok {
		return known.(*admissionv1.AdmissionResponse)
	}
	// By this policy, and not by what the namespace's may have become by now.
	answer := standards.EvaluatePod(ctx, policy, nil, &pod.ObjectMeta, &pod.Spec, asked, true)
	if answer.Allowed {
		a.Template.Note(key, answer)
	}
	return answer
}

// speaksOfProfiles says that a pod's annotations may have what belongs into its
// security context.
func speaksOfProfiles(annotations map[string]string) bool {
	for key := range annotations {
		if strings.Contains(key, "seccomp") || strings.Contains(key, "apparmor") {
			return true
		}
	}
	return false
}

// refusalOf is the answer's own status, as far as it has one.
func refusalOf(gr schema.GroupResource, name string, answer *admissionv1.AdmissionResponse) error {
	//lint:ignore ST1005 clients know this sentence
	err := apierrors.NewForbidden(gr, name, errors.New("Not allowed by PodSecurity"))
	if r := answer.Result; r != nil {
		if r.Message != "" {
			err.ErrStatus.Message = r.Message
		}
		if r.Reason != "" {
			err.ErrStatus.Reason = r.Reason
		}
		if r.Details != nil {
			err.ErrStatus.Details = r.Details
		}
		if r.Code != 0 {
			err.ErrStatus.Code = r.Code
		}
	}
	return err
}

// podSecurityObjects reads for the library.
type podSecurityObjects struct{ objects Objects }

// GetNamespace implements podsecurity.NamespaceGetter.
func (o podSecurityObjects) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	return get[*corev1.Namespace](ctx, o.objects, namespaceGVR, "", name)
}

// ListPods implements podsecurity.PodLister.
func (o podSecurityObjects) ListPods(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	return list[*corev1.Pod](ctx, o.objects, podGVR, namespace)
}

// unrecorded keeps no metrics: those of the chain have the plugin's times and
// refusals.
type unrecorded struct{}

func (unrecorded) RecordEvaluation(metrics.Decision, podsecurityapi.LevelVersion, metrics.Mode, podsecurityapi.Attributes) {
}
func (unrecorded) RecordExemption(podsecurityapi.Attributes)   {}
func (unrecorded) RecordError(bool, podsecurityapi.Attributes) {}
