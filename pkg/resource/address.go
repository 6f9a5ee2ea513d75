package resource

import (
	"net/netip"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func isIPv6(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && a.Is6() && !a.Is4In6()
}

// checkDestination wants an address that traffic may be sent to on behalf of
// somebody else: none of the node's own and none that the cloud's metadata
// service listens on. It is the one check for every kind that yields
// destinations; an IPv4 address in IPv6 clothes is judged as what it is.
func checkDestination(path *field.Path, ip string) field.ErrorList {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return utilvalidation.IsValidIP(path, ip)
	}
	a = a.Unmap()
	errs := utilvalidation.IsValidIPForLegacyField(path, ip, false, nil)
	for _, r := range []struct {
		is   bool
		what string
	}{
		{a.IsUnspecified(), "may not be unspecified (0.0.0.0 or ::)"},
		{a.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"},
		{a.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"},
		{a.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
	} {
		if r.is {
			errs = append(errs, field.Invalid(path, ip, r.what))
		}
	}
	return errs
}
