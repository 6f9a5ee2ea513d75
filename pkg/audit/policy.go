package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"coracle/pkg/auth"
)

// Level says how much of a request is recorded.
type Level string

// The levels, each with all that the one before has.
const (
	LevelNone            Level = "None"
	LevelMetadata        Level = "Metadata"
	LevelRequest         Level = "Request"         // and the body of the request
	LevelRequestResponse Level = "RequestResponse" // and that of the answer
)

// Stage is how far a request has come.
type Stage string

// The stages.
const (
	StageRequestReceived  Stage = "RequestReceived"
	StageResponseStarted  Stage = "ResponseStarted" // of watches and streams only
	StageResponseComplete Stage = "ResponseComplete"
	StagePanic            Stage = "Panic"
)

var (
	levels = []Level{LevelNone, LevelMetadata, LevelRequest, LevelRequestResponse}
	stages = []Stage{StageRequestReceived, StageResponseStarted, StageResponseComplete, StagePanic}
)

// Policy is audit.k8s.io/v1's. The first rule that a request fits decides; one
// that fits none is not recorded.
type Policy struct {
	APIVersion        string         `json:"apiVersion"`
	Kind              string         `json:"kind"`
	Metadata          map[string]any `json:"metadata,omitempty"`
	Rules             []Rule         `json:"rules"`
	OmitStages        []Stage        `json:"omitStages,omitempty"`
	OmitManagedFields bool           `json:"omitManagedFields,omitempty"`
}

// Rule is one rule of a Policy. An empty list fits everything.
type Rule struct {
	Level             Level       `json:"level"`
	Users             []string    `json:"users,omitempty"`
	UserGroups        []string    `json:"userGroups,omitempty"`
	Verbs             []string    `json:"verbs,omitempty"`
	Resources         []Resources `json:"resources,omitempty"`
	Namespaces        []string    `json:"namespaces,omitempty"` // "" is that of cluster-scoped objects
	NonResourceURLs   []string    `json:"nonResourceURLs,omitempty"`
	OmitStages        []Stage     `json:"omitStages,omitempty"`
	OmitManagedFields *bool       `json:"omitManagedFields,omitempty"`
}

// Resources are resources of one group: pods, pods/log, pods/*, */scale or *.
type Resources struct {
	Group         string   `json:"group,omitempty"`
	Resources     []string `json:"resources,omitempty"`
	ResourceNames []string `json:"resourceNames,omitempty"`
}

// maxPolicyBytes bounds a policy file.
const maxPolicyBytes = 1 << 20

// ParsePolicy reads a policy file.
func ParsePolicy(data []byte) (*Policy, error) {
	if len(data) > maxPolicyBytes {
		return nil, fmt.Errorf("the audit policy is larger than %d bytes", maxPolicyBytes)
	}
	p := &Policy{}
	if err := yaml.UnmarshalStrict(data, p); err != nil {
		return nil, fmt.Errorf("the audit policy cannot be read: %w", err)
	}
	return p, p.check()
}

func (p *Policy) check() error {
	if p.APIVersion != "audit.k8s.io/v1" || p.Kind != "Policy" {
		return fmt.Errorf("the audit policy is %q %q, want apiVersion audit.k8s.io/v1 and kind Policy", p.APIVersion, p.Kind)
	}
	if len(p.Rules) == 0 {
		return errors.New("the audit policy has no rules: add at least one")
	}
	errs := []error{checkStages("omitStages", p.OmitStages)}
	for i, r := range p.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		if !slices.Contains(levels, r.Level) {
			errs = append(errs, fmt.Errorf("%s.level %q of the audit policy: use one of %v", at, r.Level, levels))
		}
		if len(r.NonResourceURLs) > 0 && (len(r.Resources) > 0 || len(r.Namespaces) > 0) {
			errs = append(errs, fmt.Errorf("%s of the audit policy is about nonResourceURLs and about resources or namespaces: make two rules", at))
		}
		for _, u := range r.NonResourceURLs {
			if star := strings.IndexByte(u, '*'); u != "*" && (!strings.HasPrefix(u, "/") || star >= 0 && star != len(u)-1) {
				errs = append(errs, fmt.Errorf("%s.nonResourceURLs of the audit policy: %q must begin with a slash and have * at its end only", at, u))
			}
		}
		errs = append(errs, checkStages(at+".omitStages", r.OmitStages))
	}
	return errors.Join(errs...)
}

func checkStages(at string, given []Stage) error {
	for _, s := range given {
		if !slices.Contains(stages, s) {
			return fmt.Errorf("%s of the audit policy: %q is not one of %v", at, s, stages)
		}
	}
	return nil
}

// decision is what a policy says of one request.
type decision struct {
	level             Level
	omit              [4]bool // by the index of the stage in stages
	omitManagedFields bool
}

func (p *Policy) decide(a *auth.Attributes) decision {
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.fits(a) {
			continue
		}
		d := decision{level: r.Level, omitManagedFields: p.OmitManagedFields}
		if r.OmitManagedFields != nil {
			d.omitManagedFields = *r.OmitManagedFields
		}
		for i, s := range stages {
			d.omit[i] = slices.Contains(p.OmitStages, s) || slices.Contains(r.OmitStages, s)
		}
		return d
	}
	return decision{level: LevelNone}
}

func (r *Rule) fits(a *auth.Attributes) bool {
	if len(r.Users) > 0 && (a.User == nil || !slices.Contains(r.Users, a.User.Name)) {
		return false
	}
	if len(r.UserGroups) > 0 && !slices.ContainsFunc(r.UserGroups, a.User.InGroup) {
		return false
	}
	if len(r.Verbs) > 0 && !slices.Contains(r.Verbs, a.Verb) && !slices.Contains(r.Verbs, "*") {
		return false
	}
	switch {
	case len(r.Resources) > 0 || len(r.Namespaces) > 0:
		return a.ResourceRequest && r.fitsResource(a)
	case len(r.NonResourceURLs) > 0:
		return !a.ResourceRequest && slices.ContainsFunc(r.NonResourceURLs, func(u string) bool {
			prefix, star := strings.CutSuffix(u, "*")
			return u == a.Path || star && strings.HasPrefix(a.Path, prefix)
		})
	}
	return true
}

func (r *Rule) fitsResource(a *auth.Attributes) bool {
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, a.Namespace) {
		return false
	}
	return len(r.Resources) == 0 || slices.ContainsFunc(r.Resources, func(g Resources) bool {
		if g.Group != a.APIGroup {
			return false
		}
		if len(g.Resources) == 0 {
			return true
		}
		return slices.ContainsFunc(g.Resources, func(want string) bool { return fitsName(want, a) }) &&
			(len(g.ResourceNames) == 0 || slices.Contains(g.ResourceNames, a.Name))
	})
}

func fitsName(want string, a *auth.Attributes) bool {
	if want == "*" {
		return true
	}
	resource, subresource, _ := strings.Cut(want, "/")
	return (resource == a.Resource || resource == "*") && (subresource == a.Subresource || subresource == "*" && a.Subresource != "")
}

// DefaultPolicy records who changed what and who read secrets, without any
// body, and leaves out what the cluster does by itself all the time.
func DefaultPolicy() *Policy {
	core := func(names ...string) Resources { return Resources{Resources: names} }
	quiet := []Resources{core("events"), {Group: "events.k8s.io", Resources: []string{"events"}}, {Group: "coordination.k8s.io", Resources: []string{"leases"}}}
	secret := []Resources{core("secrets", "configmaps", "serviceaccounts/token"), {Group: "authentication.k8s.io"}}
	reads := []string{"get", "list", "watch"}
	no := func(r Rule) Rule { r.Level = LevelNone; return r }
	return &Policy{APIVersion: "audit.k8s.io/v1", Kind: "Policy", OmitStages: []Stage{StageRequestReceived}, Rules: []Rule{
		no(Rule{Resources: quiet}),
		no(Rule{NonResourceURLs: []string{"/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*", "/api", "/api/*", "/apis", "/apis/*", "/metrics"}, Verbs: []string{"get", "head"}}),
		no(Rule{Verbs: reads, UserGroups: []string{auth.GroupNodes}}),
		no(Rule{Verbs: reads, UserGroups: []string{auth.GroupServiceAccounts + ":kube-system"}}),
		no(Rule{Verbs: reads, Users: []string{auth.UserScheduler, auth.UserManager, auth.UserAPIServer, auth.UserProxy}}),
		no(Rule{Verbs: []string{"patch", "update"}, UserGroups: []string{auth.GroupNodes}, Resources: []Resources{core("nodes/status", "pods/status")}}),
		{Level: LevelMetadata, Resources: secret},
		no(Rule{Verbs: []string{"watch"}}),
		no(Rule{Resources: []Resources{{Group: "authorization.k8s.io"}}}),
		{Level: LevelMetadata},
	}}
}
