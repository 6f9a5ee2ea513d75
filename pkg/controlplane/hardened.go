package controlplane

import (
	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/auth/policy"
)

// strictness is what hardening sets beside what a Config says for itself.
type strictness struct {
	// locked are admission plugins that cannot be disabled, beside neverDisabled.
	locked []string
	// defaults are the roles and bindings that the cluster begins with.
	defaults func() *policy.Objects
	// noMasters takes the group system:masters from whoever shows credentials,
	// and its right to everything: what RBAC gives, RBAC can take away.
	noMasters bool
	// tokensWhenAsked mounts a service account's token where the pod or the
	// account asks for it.
	tokensWhenAsked bool
	// privileged are the namespaces that pod security leaves alone unless their
	// labels say otherwise.
	privileged []string
	// machinesPerToken is how many machines a bootstrap token lets in that does not
	// say it itself; 0 is any number.
	machinesPerToken int
}

// hardenedPlugins are off otherwise, and cannot be disabled on a hardened
// cluster.
var hardenedPlugins = []string{"AlwaysPullImages", "EventRateLimit", "HardenedContainers"}

// hardening is one thing that a hardened cluster refuses and Kubernetes accepts.
type hardening struct {
	line string // of docs/security.md
	does string
	set  func(*Config)
}

// hardened are all of them.
func hardened() []hardening {
	return []hardening{
		{"H1", "requests without credentials see /livez, /readyz and /version, and get 401 for all else", func(c *Config) {
			c.Anonymous = auth.AnonymousProbes
		}},
		{"H6", "a namespace's events are bounded, in number and in a second", func(c *Config) {
			c.EnableAdmission = append(c.EnableAdmission, "EventRateLimit")
		}},
		{"H7", "an image is pulled with the pod's own credentials, whoever pulled it before", func(c *Config) {
			c.EnableAdmission = append(c.EnableAdmission, "AlwaysPullImages")
		}},
		{"H8", "the admission plugins that hold all this cannot be disabled", func(c *Config) {
			c.strict.locked = append([]string{"ServiceAccount", "PodSecurity"}, hardenedPlugins...)
		}},
		{"H23", "cluster-admin is bound to the user kubernetes-admin alone, and no group is above RBAC", func(c *Config) {
			c.strict.noMasters = true
		}},
		{"H24", "the roles for users neither list secrets nor lead to the rights of others", func(c *Config) {
			c.strict.defaults = policy.Hardened
		}},
		{"H26", "a service account's token is mounted where the pod or the account asks for it", func(c *Config) {
			c.strict.tokensWhenAsked = true
		}},
		{"H27", "pods are held to the baseline standard and warned of the restricted one, outside of kube-system", func(c *Config) {
			c.PodSecurity = admission.PodSecurityLevels{Enforce: "baseline", Warn: "restricted", Audit: "restricted"}
			c.strict.privileged = []string{"kube-system"}
		}},
		{"H28", "containers that do not say otherwise run under the runtime's seccomp profile, cannot gain rights, and send no raw packets (H40)", func(c *Config) {
			c.EnableAdmission = append(c.EnableAdmission, "HardenedContainers")
		}},
		{"H31", "a bootstrap token lets in one machine, unless it says how many", func(c *Config) {
			c.strict.machinesPerToken = 1
		}},
	}
}

// harden applies what Hardened asks for.
func (c *Config) harden() {
	if c.strict.defaults != nil {
		return // it has been done
	}
	c.strict.defaults = policy.Default
	if !c.Hardened {
		return
	}
	for _, h := range hardened() {
		h.set(c)
	}
}
