package resource

import (
	"strings"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxSignerName = 253 + 1 + 63*9 // domain, slash, path as upstream bounds it
)

// checkSignerName wants "domain/path": a domain of two labels at least, and
// dot-separated labels after the slash.
func checkSignerName(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return field.ErrorList{field.Invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	errs = append(errs, invalid(path, name, utilvalidation.IsDNS1123Subdomain(domain))...)
	if len(strings.Split(domain, ".")) < 2 {
		errs = append(errs, field.Invalid(path, name, "should be a domain with at least two segments separated by dots"))
	}
	for _, label := range strings.Split(rest, ".") {
		errs = append(errs, invalid(path, name, utilvalidation.IsDNS1123Subdomain(label))...)
	}
	if len(name) > maxSignerName {
		errs = append(errs, field.TooLong(path, name, maxSignerName))
	}
	return errs
}
