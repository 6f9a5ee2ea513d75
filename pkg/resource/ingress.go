package resource

import (
	"fmt"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

func ingresses() *Resource {
	return define(Resource{
		Group: "networking.k8s.io", Version: "v1", Kind: "Ingress", Plural: "ingresses", ShortNames: []string{"ing"},
		StoragePath:         "ingress",
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &networkingv1.Ingress{} },
		NewList:             func() runtime.Object { return &networkingv1.IngressList{} },
		Columns:             columns("Name", "Class", "Hosts", "Address", "Ports", "Age"),
	}, hooks[*networkingv1.Ingress]{
		Validate:       validateIngress,
		ValidateCreate: checkIngressAnnotation,
		ValidateStatus: func(in, _ *networkingv1.Ingress) field.ErrorList {
			var errs field.ErrorList
			for i, l := range in.Status.LoadBalancer.Ingress {
				p := field.NewPath("status", "loadBalancer", "ingress").Index(i)
				if l.IP != "" {
					errs = append(errs, utilvalidation.IsValidIPForLegacyField(p.Child("ip"), l.IP, false, nil)...)
				}
				if l.Hostname != "" {
					errs = append(errs, invalid(p.Child("hostname"), l.Hostname, utilvalidation.IsDNS1123Subdomain(l.Hostname))...)
					errs = append(errs, checkNoAddress(p.Child("hostname"), l.Hostname)...)
				}
			}
			return errs
		},
		Row: ingressRow,
	})
}

func validateIngress(in *networkingv1.Ingress) field.ErrorList {
	path, spec := field.NewPath("spec"), &in.Spec
	var errs field.ErrorList
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(path, spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		errs = append(errs, checkBackend(path.Child("defaultBackend"), spec.DefaultBackend)...)
	}
	for i := range spec.Rules {
		errs = append(errs, checkIngressRule(path.Child("rules").Index(i), &spec.Rules[i])...)
	}
	for i, tls := range spec.TLS {
		if tls.SecretName != "" {
			errs = append(errs, invalid(path.Child("tls").Index(i).Child("secretName"), tls.SecretName, utilvalidation.IsDNS1123Subdomain(tls.SecretName))...)
		}
		for j, h := range tls.Hosts {
			errs = append(errs, checkHost(path.Child("tls").Index(i).Child("hosts").Index(j), h)...)
		}
	}
	if c := spec.IngressClassName; c != nil {
		errs = append(errs, invalid(path.Child("ingressClassName"), *c, utilvalidation.IsDNS1123Subdomain(*c))...)
	}
	return errs
}

// checkIngressAnnotation: the class stood in an annotation once, and of the two
// only one can be meant.
func checkIngressAnnotation(in *networkingv1.Ingress) field.ErrorList {
	const key = "kubernetes.io/ingress.class"
	old, ok := in.Annotations[key]
	if class := in.Spec.IngressClassName; ok && class != nil && *class != old {
		return field.ErrorList{field.Invalid(field.NewPath("annotations").Child(key), old, "must match `ingressClassName` when both are specified")}
	}
	return nil
}

func checkNoAddress(path *field.Path, host string) field.ErrorList {
	if netutils.ParseIPSloppy(host) != nil {
		return field.ErrorList{field.Invalid(path, host, "must be a DNS name, not an IP address")}
	}
	return nil
}

func checkHost(path *field.Path, host string) field.ErrorList {
	if strings.Contains(host, "*") {
		return invalid(path, host, utilvalidation.IsWildcardDNS1123Subdomain(host))
	}
	return invalid(path, host, utilvalidation.IsDNS1123Subdomain(host))
}

func checkIngressRule(path *field.Path, r *networkingv1.IngressRule) field.ErrorList {
	var errs field.ErrorList
	if r.Host != "" {
		errs = append(errs, checkNoAddress(path.Child("host"), r.Host)...)
		errs = append(errs, checkHost(path.Child("host"), r.Host)...)
	}
	if r.HTTP == nil {
		return errs
	}
	p := path.Child("http", "paths")
	if len(r.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(p, ""))
	}
	for i := range r.HTTP.Paths {
		errs = append(errs, checkIngressPath(p.Index(i), &r.HTTP.Paths[i])...)
	}
	return errs
}

func checkIngressPath(path *field.Path, h *networkingv1.HTTPIngressPath) field.ErrorList {
	if h.PathType == nil {
		return field.ErrorList{field.Required(path.Child("pathType"), "pathType must be specified")}
	}
	errs := checkOptional(path.Child("pathType"), h.PathType, networkingv1.PathTypeExact,
		networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific)
	strict := *h.PathType == networkingv1.PathTypeExact || *h.PathType == networkingv1.PathTypePrefix
	if strict || *h.PathType == networkingv1.PathTypeImplementationSpecific && h.Path != "" {
		errs = append(errs, checkURLPath(path.Child("path"), h.Path, strict)...)
	}
	return append(errs, checkBackend(path.Child("backend"), &h.Backend)...)
}

// checkURLPath: steps and encoded separators would let a rule mean another
// path than it shows.
func checkURLPath(path *field.Path, value string, strict bool) field.ErrorList {
	var errs field.ErrorList
	if !strings.HasPrefix(value, "/") {
		errs = append(errs, field.Invalid(path, value, "must be an absolute path"))
	}
	if !strict {
		return errs
	}
	for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(value, bad) {
			errs = append(errs, field.Invalid(path, value, fmt.Sprintf("must not contain '%s'", bad)))
		}
	}
	for _, bad := range []string{"/..", "/."} {
		if strings.HasSuffix(value, bad) {
			errs = append(errs, field.Invalid(path, value, fmt.Sprintf("cannot end with '%s'", bad)))
		}
	}
	return errs
}

func checkBackend(path *field.Path, b *networkingv1.IngressBackend) field.ErrorList {
	switch {
	case b.Service != nil && b.Resource != nil:
		return field.ErrorList{field.Invalid(path, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return checkTypedReference(path.Child("resource"), b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name)
	case b.Service == nil:
		return field.ErrorList{field.Invalid(path, "", "resource or service backend is required")}
	}
	p := path.Child("service")
	errs := checkName(p.Child("name"), b.Service.Name, utilvalidation.IsDNS1035Label)
	port := b.Service.Port
	switch {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(path, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, invalid(p.Child("port", "name"), port.Name, utilvalidation.IsValidPortName(port.Name))...)
	case port.Number != 0:
		errs = append(errs, checkPortNumber(p.Child("port", "number"), port.Number)...)
	default:
		errs = append(errs, field.Required(path, "port name or number is required"))
	}
	return errs
}

// checkTypedReference wants a reference whose parts can stand in a URL.
func checkTypedReference(path *field.Path, group *string, kind, name string) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, invalid(path.Child("apiGroup"), *group, utilvalidation.IsDNS1123Subdomain(*group))...)
	}
	for _, f := range []struct{ name, value string }{{"kind", kind}, {"name", name}} {
		if f.value == "" {
			errs = append(errs, field.Required(path.Child(f.name), f.name+" is required"))
		} else {
			errs = append(errs, invalid(path.Child(f.name), f.value, content.IsPathSegmentName(f.value))...)
		}
	}
	return errs
}

func ingressRow(in *networkingv1.Ingress, now time.Time) []any {
	class := "<none>"
	if in.Spec.IngressClassName != nil {
		class = *in.Spec.IngressClassName
	}
	var hosts []string
	total := 0
	for _, r := range in.Spec.Rules {
		if r.Host == "" {
			continue
		}
		if total++; total <= shownEndpoints {
			hosts = append(hosts, r.Host)
		}
	}
	host := "*"
	if total > 0 {
		host = withMore(hosts, total)
	}
	var addresses []string
	for _, l := range in.Status.LoadBalancer.Ingress {
		if l.IP != "" {
			addresses = append(addresses, l.IP)
		} else if l.Hostname != "" {
			addresses = append(addresses, l.Hostname)
		}
	}
	ports := "80"
	if len(in.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	return []any{in.Name, class, host, strings.Join(addresses, ","), ports, age(in.CreationTimestamp, now)}
}

func ingressClasses() *Resource {
	return define(Resource{
		Group: "networking.k8s.io", Version: "v1", Kind: "IngressClass", Plural: "ingressclasses",
		HasGeneration:       true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &networkingv1.IngressClass{} },
		NewList:             func() runtime.Object { return &networkingv1.IngressClassList{} },
		Columns:             columns("Name", "Controller", "Parameters", "Age"),
	}, hooks[*networkingv1.IngressClass]{
		Default: func(c *networkingv1.IngressClass) {
			if p := c.Spec.Parameters; p != nil && p.Scope == nil {
				p.Scope = new(networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		},
		Validate: validateIngressClass,
		ValidateUpdate: func(c, old *networkingv1.IngressClass) field.ErrorList {
			return checkImmutable(field.NewPath("spec", "controller"), c.Spec.Controller, old.Spec.Controller)
		},
		Row: func(c *networkingv1.IngressClass, now time.Time) []any {
			params := "<none>"
			if p := c.Spec.Parameters; p != nil {
				params = p.Kind
				if p.APIGroup != nil {
					params += "." + *p.APIGroup
				}
				params += "/" + p.Name
			}
			return []any{c.Name, c.Spec.Controller, params, age(c.CreationTimestamp, now)}
		},
	})
}

func validateIngressClass(c *networkingv1.IngressClass) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if n := len(c.Spec.Controller); n > 250 {
		errs = append(errs, field.TooLong(path.Child("controller"), c.Spec.Controller, 250))
	}
	errs = append(errs, utilvalidation.IsDomainPrefixedPath(path.Child("controller"), c.Spec.Controller)...)
	p := c.Spec.Parameters
	if p == nil {
		return errs
	}
	pp := path.Child("parameters")
	errs = append(errs, checkTypedReference(pp, p.APIGroup, p.Kind, p.Name)...)
	scope := ""
	if p.Scope == nil {
		errs = append(errs, field.Required(pp.Child("scope"), ""))
	} else {
		scope = *p.Scope
		errs = append(errs, checkOptional(pp.Child("scope"), p.Scope, networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace)...)
	}
	switch {
	case scope == networkingv1.IngressClassParametersReferenceScopeNamespace && p.Namespace == nil:
		errs = append(errs, field.Required(pp.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
	case scope == networkingv1.IngressClassParametersReferenceScopeNamespace:
		errs = append(errs, invalid(pp.Child("namespace"), *p.Namespace, utilvalidation.IsDNS1123Label(*p.Namespace))...)
	case scope == networkingv1.IngressClassParametersReferenceScopeCluster && p.Namespace != nil:
		errs = append(errs, field.Forbidden(pp.Child("namespace"), "`parameters.scope` is set to 'Cluster'"))
	}
	return errs
}
