package resource

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const admissionGroup = "admissionregistration.k8s.io"

func mutatingWebhookConfigurations() *Resource {
	return define(Resource{
		Group: admissionGroup, Version: "v1", Kind: "MutatingWebhookConfiguration", Plural: "mutatingwebhookconfigurations",
		Categories: []string{"api-extensions"},
		New:        func() runtime.Object { return &admissionv1.MutatingWebhookConfiguration{} },
		NewList:    func() runtime.Object { return &admissionv1.MutatingWebhookConfigurationList{} },
		Columns:    columns("Name", "Webhooks:integer", "Age"),
	}, hooks[*admissionv1.MutatingWebhookConfiguration]{
		Default: func(c *admissionv1.MutatingWebhookConfiguration) {
			for i := range c.Webhooks {
				w := &c.Webhooks[i]
				defaultWebhook(&webhook{&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds, &w.ClientConfig, w.Rules})
				if w.ReinvocationPolicy == nil {
					w.ReinvocationPolicy = new(admissionv1.NeverReinvocationPolicy)
				}
			}
		},
		Prepare: func(c, old *admissionv1.MutatingWebhookConfiguration) {
			if old == nil {
				c.Generation = 1
			} else if !equality.Semantic.DeepEqual(c.Webhooks, old.Webhooks) {
				c.Generation = old.Generation + 1
			}
		},
		Validate: func(c *admissionv1.MutatingWebhookConfiguration) field.ErrorList {
			var errs field.ErrorList
			names := map[string]bool{}
			for i := range c.Webhooks {
				w, p := &c.Webhooks[i], field.NewPath("webhooks").Index(i)
				// The two kinds of webhook differ in one field only.
				v := admissionv1.ValidatingWebhook{
					Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy,
					NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects,
					TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
				}
				errs = append(errs, checkWebhook(p, &v, names)...)
				errs = append(errs, checkOptional(p.Child("reinvocationPolicy"), w.ReinvocationPolicy,
					admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
			}
			return errs
		},
		Row: func(c *admissionv1.MutatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), age(c.CreationTimestamp, now)}
		},
	})
}

func validatingWebhookConfigurations() *Resource {
	return define(Resource{
		Group: admissionGroup, Version: "v1", Kind: "ValidatingWebhookConfiguration", Plural: "validatingwebhookconfigurations",
		Categories: []string{"api-extensions"},
		New:        func() runtime.Object { return &admissionv1.ValidatingWebhookConfiguration{} },
		NewList:    func() runtime.Object { return &admissionv1.ValidatingWebhookConfigurationList{} },
		Columns:    columns("Name", "Webhooks:integer", "Age"),
	}, hooks[*admissionv1.ValidatingWebhookConfiguration]{
		Default: func(c *admissionv1.ValidatingWebhookConfiguration) {
			for i := range c.Webhooks {
				w := &c.Webhooks[i]
				defaultWebhook(&webhook{&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds, &w.ClientConfig, w.Rules})
			}
		},
		Prepare: func(c, old *admissionv1.ValidatingWebhookConfiguration) {
			if old == nil {
				c.Generation = 1
			} else if !equality.Semantic.DeepEqual(c.Webhooks, old.Webhooks) {
				c.Generation = old.Generation + 1
			}
		},
		Validate: func(c *admissionv1.ValidatingWebhookConfiguration) field.ErrorList {
			var errs field.ErrorList
			names := map[string]bool{}
			for i := range c.Webhooks {
				errs = append(errs, checkWebhook(field.NewPath("webhooks").Index(i), &c.Webhooks[i], names)...)
			}
			return errs
		},
		Row: func(c *admissionv1.ValidatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), age(c.CreationTimestamp, now)}
		},
	})
}

// webhook points at the fields that both kinds of webhook default alike.
type webhook struct {
	failure           **admissionv1.FailurePolicyType
	match             **admissionv1.MatchPolicyType
	namespace, object **metav1.LabelSelector
	timeout           **int32
	client            *admissionv1.WebhookClientConfig
	rules             []admissionv1.RuleWithOperations
}

// webhookTimeout is how long a webhook may take, in seconds, if it does not say.
const webhookTimeout = 10

func defaultWebhook(w *webhook) {
	if *w.failure == nil {
		*w.failure = new(admissionv1.Fail)
	}
	defaultMatch(w.match, w.namespace, w.object)
	defaultCount(w.timeout, webhookTimeout)
	if s := w.client.Service; s != nil {
		defaultCount(&s.Port, 443)
	}
	for i := range w.rules {
		defaultScope(&w.rules[i].Rule)
	}
}

func defaultMatch(match **admissionv1.MatchPolicyType, namespace, object **metav1.LabelSelector) {
	if *match == nil {
		*match = new(admissionv1.Equivalent)
	}
	for _, s := range []**metav1.LabelSelector{namespace, object} {
		if *s == nil {
			*s = &metav1.LabelSelector{}
		}
	}
}

func defaultScope(r *admissionv1.Rule) {
	if r.Scope == nil {
		r.Scope = new(admissionv1.AllScopes)
	}
}
