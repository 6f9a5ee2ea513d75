package resource

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// Bounds of an APIService's priorities, and the port of its Service when it
// names none.
const (
	maxGroupPriority   = 20000
	maxVersionPriority = 1000
	aggregatedPort     = 443
)

func apiServices() *Resource {
	return define(Resource{
		Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService", Plural: "apiservices",
		StoragePath: "apiregistration.k8s.io/apiservices",
		Categories:  []string{"api-extensions"},
		StoredJSON:  true,
		HasStatus:   true,
		New:         func() runtime.Object { return &apiregistrationv1.APIService{} },
		NewList:     func() runtime.Object { return &apiregistrationv1.APIServiceList{} },
		// The check of the whole object compares the name with the spec.
		ValidateName: func(name string, _ bool) []string { return content.IsPathSegmentName(name) },
		Columns:      columns("Name", "Service", "Available", "Age"),
	}, hooks[*apiregistrationv1.APIService]{
		Default: func(s *apiregistrationv1.APIService) {
			if s.Spec.Service != nil && s.Spec.Service.Port == nil {
				s.Spec.Service.Port = new(int32(aggregatedPort))
			}
		},
		Prepare: func(s, old *apiregistrationv1.APIService) {
			if old == nil && s.Spec.Service == nil {
				s.Status.Conditions = []apiregistrationv1.APIServiceCondition{LocalAPIService(s.CreationTimestamp)}
			}
		},
		PrepareStatus: func(s, old *apiregistrationv1.APIService) {
			s.Labels, s.Annotations = old.Labels, old.Annotations
			s.Finalizers, s.OwnerReferences = old.Finalizers, old.OwnerReferences
		},
		Validate: validateAPIService,
		ValidateStatus: func(s, _ *apiregistrationv1.APIService) field.ErrorList {
			return validateAPIServiceConditions(field.NewPath("status", "conditions"), s.Status.Conditions)
		},
		Row: func(s *apiregistrationv1.APIService, now time.Time) []any {
			return []any{s.Name, apiServiceBackend(s), apiServiceAvailable(s), age(s.CreationTimestamp, now)}
		},
	})
}

// LocalAPIService is the condition of a group version that the API server
// serves itself.
func LocalAPIService(since metav1.Time) apiregistrationv1.APIServiceCondition {
	return apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: since,
		Reason: "Local", Message: "Local APIServices are always available",
	}
}

func apiServiceBackend(s *apiregistrationv1.APIService) string {
	if s.Spec.Service == nil {
		return "Local"
	}
	return s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
}

func apiServiceAvailable(s *apiregistrationv1.APIService) string {
	for _, c := range s.Status.Conditions {
		switch {
		case c.Type != apiregistrationv1.Available:
		case c.Status == apiregistrationv1.ConditionTrue || c.Reason == "":
			return string(c.Status)
		default:
			return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
		}
	}
	return string(apiregistrationv1.ConditionUnknown)
}

func validateAPIService(s *apiregistrationv1.APIService) field.ErrorList {
	var errs field.ErrorList
	spec, at := &s.Spec, field.NewPath("spec")
	if wanted := spec.Version + "." + spec.Group; s.Name != wanted && len(content.IsPathSegmentName(s.Name)) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), s.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", wanted)))
	}
	switch {
	case spec.Group != "":
		for _, text := range utilvalidation.IsDNS1123Subdomain(spec.Group) {
			errs = append(errs, field.Invalid(at.Child("group"), spec.Group, text))
		}
	case spec.Version != "v1":
		errs = append(errs, field.Required(at.Child("group"), "only the core group's v1 has no group"))
	}
	for _, text := range utilvalidation.IsDNS1035Label(spec.Version) {
		errs = append(errs, field.Invalid(at.Child("version"), spec.Version, text))
	}
	if spec.GroupPriorityMinimum <= 0 || spec.GroupPriorityMinimum > maxGroupPriority {
		errs = append(errs, field.Invalid(at.Child("groupPriorityMinimum"), spec.GroupPriorityMinimum, "must be positive and less than 20000"))
	}
	if spec.VersionPriority <= 0 || spec.VersionPriority > maxVersionPriority {
		errs = append(errs, field.Invalid(at.Child("versionPriority"), spec.VersionPriority, "must be positive and less than 1000"))
	}
	return append(errs, validateAPIServiceBackend(at, spec)...)
}

// validateAPIServiceBackend checks where the requests go, and how it is
// verified that they arrive there.
func validateAPIServiceBackend(at *field.Path, spec *apiregistrationv1.APIServiceSpec) field.ErrorList {
	var errs field.ErrorList
	if spec.Service == nil {
		if len(spec.CABundle) > 0 {
			errs = append(errs, field.Invalid(at.Child("caBundle"), fmt.Sprintf("%d bytes", len(spec.CABundle)), "local APIServices may not have a caBundle"))
		}
		if spec.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), true, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	service := at.Child("service")
	if spec.Service.Namespace == "" {
		errs = append(errs, field.Required(service.Child("namespace"), ""))
	}
	if spec.Service.Name == "" {
		errs = append(errs, field.Required(service.Child("name"), ""))
	}
	if port := spec.Service.Port; port != nil {
		for _, text := range utilvalidation.IsValidPortNum(int(*port)) {
			errs = append(errs, field.Invalid(service.Child("port"), *port, "port is not valid: "+text))
		}
	}
	if spec.InsecureSkipTLSVerify && len(spec.CABundle) > 0 {
		errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present"))
	}
	return errs
}

func validateAPIServiceConditions(at *field.Path, conditions []apiregistrationv1.APIServiceCondition) field.ErrorList {
	var errs field.ErrorList
	allowed := []apiregistrationv1.ConditionStatus{apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown}
	for i, c := range conditions {
		if c.Status != allowed[0] && c.Status != allowed[1] && c.Status != allowed[2] {
			errs = append(errs, field.NotSupported(at.Index(i).Child("status"), c.Status, allowed))
		}
	}
	return errs
}
