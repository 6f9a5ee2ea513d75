package fairness

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"coracle/pkg/auth"
)

// Request is what a request is classified by. Without Resource only Verb and
// Path count beside the user.
type Request struct {
	User      *auth.User
	Verb      string
	Namespace string // empty for what has none
	Group     string // of the API
	Plural    string // the resource's name; empty outside the API groups
	Sub       string // subresource
	Path      string
	Resource  bool
}

// rule is a PolicyRulesWithSubjects: any of its subjects, any of its rules.
type rule struct {
	subjects  subjects
	resources []flowcontrolv1.ResourcePolicyRule
	paths     []flowcontrolv1.NonResourcePolicyRule
}

// subjects are the users that a rule is about.
type subjects struct {
	everyone bool
	users    []string
	groups   []string
	prefixes []string // of user names: all service accounts of a namespace
}

func compileRules(in []flowcontrolv1.PolicyRulesWithSubjects) []rule {
	out := make([]rule, len(in))
	for i := range in {
		out[i] = rule{compileSubjects(in[i].Subjects), in[i].ResourceRules, in[i].NonResourceRules}
	}
	return out
}

func compileSubjects(in []flowcontrolv1.Subject) subjects {
	var s subjects
	for i := range in {
		switch subject := &in[i]; {
		case subject.Kind == flowcontrolv1.SubjectKindUser && subject.User != nil:
			s.everyone = s.everyone || subject.User.Name == flowcontrolv1.NameAll
			s.users = append(s.users, subject.User.Name)
		case subject.Kind == flowcontrolv1.SubjectKindGroup && subject.Group != nil:
			s.everyone = s.everyone || subject.Group.Name == flowcontrolv1.NameAll
			s.groups = append(s.groups, subject.Group.Name)
		case subject.Kind == flowcontrolv1.SubjectKindServiceAccount && subject.ServiceAccount != nil:
			a := subject.ServiceAccount
			if a.Name == flowcontrolv1.NameAll {
				s.prefixes = append(s.prefixes, auth.ServiceAccountName(a.Namespace, ""))
			} else {
				s.users = append(s.users, auth.ServiceAccountName(a.Namespace, a.Name))
			}
		}
	}
	return s
}

func (s *subjects) match(u *auth.User) bool {
	if s.everyone || slices.Contains(s.users, u.Name) {
		return true
	}
	for _, p := range s.prefixes {
		if strings.HasPrefix(u.Name, p) {
			return true
		}
	}
	for _, g := range s.groups {
		if slices.Contains(u.Groups, g) {
			return true
		}
	}
	return false
}

func matchRules(rules []rule, r *Request) bool {
	for i := range rules {
		if rules[i].match(r) {
			return true
		}
	}
	return false
}

func (u *rule) match(r *Request) bool {
	if !u.subjects.match(r.User) {
		return false
	}
	if r.Resource {
		for i := range u.resources {
			if matchResource(&u.resources[i], r) {
				return true
			}
		}
		return false
	}
	for i := range u.paths {
		if anyOf(u.paths[i].Verbs, r.Verb, flowcontrolv1.VerbAll) && matchPath(u.paths[i].NonResourceURLs, r.Path) {
			return true
		}
	}
	return false
}

func matchResource(p *flowcontrolv1.ResourcePolicyRule, r *Request) bool {
	if !anyOf(p.Verbs, r.Verb, flowcontrolv1.VerbAll) || !anyOf(p.APIGroups, r.Group, flowcontrolv1.APIGroupAll) || !namesResource(p.Resources, r) {
		return false
	}
	if r.Namespace == "" {
		return p.ClusterScope
	}
	return anyOf(p.Namespaces, r.Namespace, flowcontrolv1.NamespaceEvery)
}

// namesResource looks for resource or resource/subresource.
func namesResource(list []string, r *Request) bool {
	if len(list) == 1 && list[0] == flowcontrolv1.ResourceAll {
		return true
	}
	for _, name := range list {
		if r.Sub == "" {
			if name == r.Plural {
				return true
			}
			continue
		}
		// An allocation would be needed to compare with the joined name.
		if len(name) == len(r.Plural)+1+len(r.Sub) && strings.HasPrefix(name, r.Plural) && name[len(r.Plural)] == '/' && strings.HasSuffix(name, r.Sub) {
			return true
		}
	}
	return false
}

// anyOf: the wildcard stands alone in its list, as validation sees to.
func anyOf(list []string, value, wildcard string) bool {
	return len(list) == 1 && list[0] == wildcard || slices.Contains(list, value)
}

// matchPath: each path stands for those below it as well.
func matchPath(list []string, path string) bool {
	for _, want := range list {
		if want == flowcontrolv1.NonResourceAll || want == path {
			return true
		}
		below := strings.TrimSuffix(strings.TrimSuffix(want, "*"), "/")
		if len(path) > len(below) && strings.HasPrefix(path, below) && path[len(below)] == '/' {
			return true
		}
	}
	return false
}
