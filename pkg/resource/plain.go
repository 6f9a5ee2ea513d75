package resource

import (
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
)

// Names that are fine, told in one pass: the library's regular expressions are
// asked about the others, and say what is wrong with them. They cost a tenth of
// a small object's creation.

// plainName says that s is made of letters, digits and what else inner takes,
// and neither begins nor ends with that.
func plainName(s string, inner func(c byte) bool) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || i == len(s)-1 || !inner(c)) {
			return false
		}
	}
	return s != ""
}

// plainLabelName says that s is a label's value, or its key without a prefix,
// and not empty.
func plainLabelName(s string) bool {
	return len(s) <= utilvalidation.LabelValueMaxLength &&
		plainName(s, func(c byte) bool { return c == '-' || c == '_' || c == '.' })
}

// plainLabelKey says that s is a label's key.
func plainLabelKey(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '/' {
			return plainSubdomain(s[:i]) && plainLabelName(s[i+1:])
		}
	}
	return plainLabelName(s)
}

// plainSubdomain says that s is a DNS subdomain in lower case (RFC 1123).
func plainSubdomain(s string) bool {
	if len(s) > utilvalidation.DNS1123SubdomainMaxLength {
		return false
	}
	return plainLower(s, true)
}

// plainDNSLabel says that s is a DNS label in lower case (RFC 1123).
func plainDNSLabel(s string) bool {
	return len(s) <= utilvalidation.DNS1123LabelMaxLength && plainLower(s, false)
}

func plainLower(s string, dots bool) bool {
	before := byte('.')
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' && before != '.':
		case c == '.' && dots && before != '.' && before != '-':
		default:
			return false
		}
		before = c
	}
	return before != '.' && before != '-'
}

// isLabel is the library's IsDNS1123Label.
func isLabel(s string) []string {
	if plainDNSLabel(s) {
		return nil
	}
	return utilvalidation.IsDNS1123Label(s)
}

// isSubdomain is the library's IsDNS1123Subdomain.
func isSubdomain(s string) []string {
	if plainSubdomain(s) {
		return nil
	}
	return utilvalidation.IsDNS1123Subdomain(s)
}

// nameIsSubdomain is the library's NameIsDNSSubdomain.
func nameIsSubdomain(name string, prefix bool) []string {
	if !prefix && plainSubdomain(name) {
		return nil
	}
	return validation.NameIsDNSSubdomain(name, prefix)
}

// plainLabel says that nothing is wrong with a label.
func plainLabel(key, value string) bool {
	return plainLabelKey(key) && (value == "" || plainLabelName(value))
}

// plainAnnotation says that nothing is wrong with an annotation: its key is a
// label's in either case.
func plainAnnotation(key, _ string) bool { return plainLabelKey(key) }
