package rbac

import (
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"

	"coracle/pkg/auth"
)

// verbBit gives each common verb a bit, so that a set of them is one word.
// Bit 0 is every verb.
func verbBit(verb string) uint16 {
	switch verb {
	case "*":
		return allVerbs
	case "get":
		return 1 << 1
	case "list":
		return 1 << 2
	case "watch":
		return 1 << 3
	case "create":
		return 1 << 4
	case "update":
		return 1 << 5
	case "patch":
		return 1 << 6
	case "delete":
		return 1 << 7
	case "deletecollection":
		return 1 << 8
	case "proxy":
		return 1 << 9
	case "impersonate":
		return 1 << 10
	case "bind":
		return 1 << 11
	case "escalate":
		return 1 << 12
	case "use":
		return 1 << 13
	case "approve":
		return 1 << 14
	case "sign":
		return 1 << 15
	default:
		return 0
	}
}

const allVerbs uint16 = 1

// grant is the verbs that one rule adds to one key.
type grant struct {
	common uint16
	// other are the verbs without a bit.
	other []string
	// from tells which binding of a subject the grant is from; 0 in the rules
	// of a role.
	from int32
}

func newGrant(verbs []string) grant {
	var g grant
	for _, v := range verbs {
		if bit := verbBit(v); bit != 0 {
			g.common |= bit
		} else {
			g.other = append(g.other, v)
		}
	}
	return g
}

func (g *grant) allows(verb string, bit uint16) bool {
	return g.common&(bit|allVerbs) != 0 || (bit == 0 && slices.Contains(g.other, verb))
}

// covers says that everything h allows, g allows too.
func (g *grant) covers(h *grant) bool {
	if g.common&allVerbs != 0 {
		return true
	}
	return h.common&^g.common == 0 && !slices.ContainsFunc(h.other, func(v string) bool { return !slices.Contains(g.other, v) })
}

type resourceKey struct{ group, resource string }

// entry is all that is granted on one group and resource as rules name them.
type entry struct {
	// all are the grants on every name, named those on one.
	all   []grant
	named map[string][]grant
}

type urlGrant struct {
	prefix string
	grant  grant
}

// ruleSet is rules in the form decisions are looked up in. It is immutable
// once compiled.
type ruleSet struct {
	resources map[resourceKey]*entry
	urls      map[string][]grant
	prefixes  []urlGrant
}

func newRuleSet() *ruleSet {
	return &ruleSet{resources: map[resourceKey]*entry{}, urls: map[string][]grant{}}
}

// compile makes a ruleSet of a role's rules.
func compile(rules []rbacv1.PolicyRule) *ruleSet {
	s := newRuleSet()
	for i := range rules {
		r := &rules[i]
		g := newGrant(r.Verbs)
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				s.addResource(resourceKey{group, resource}, r.ResourceNames, g)
			}
		}
		for _, url := range r.NonResourceURLs {
			s.addURL(url, g)
		}
	}
	return s
}

func (s *ruleSet) entry(k resourceKey) *entry {
	e := s.resources[k]
	if e == nil {
		e = &entry{}
		s.resources[k] = e
	}
	return e
}

func (s *ruleSet) addResource(k resourceKey, names []string, g grant) {
	e := s.entry(k)
	if len(names) == 0 {
		e.all = addGrant(e.all, g)
		return
	}
	if e.named == nil {
		e.named = map[string][]grant{}
	}
	for _, n := range names {
		e.named[n] = addGrant(e.named[n], g)
	}
}

func (s *ruleSet) addURL(url string, g grant) {
	// The URL as it stands is matched as well: "/a*" is also the path "/a*",
	// which its prefix covers.
	if strings.HasSuffix(url, "*") {
		s.prefixes = append(s.prefixes, urlGrant{strings.TrimRight(url, "*"), g})
		return
	}
	s.urls[url] = addGrant(s.urls[url], g)
}

// addGrant appends g unless one of the grants already allows all of it.
func addGrant(grants []grant, g grant) []grant {
	for i := range grants {
		if grants[i].covers(&g) {
			return grants
		}
	}
	return append(grants, g)
}

// merge adds all of t, as coming from binding number from.
func (s *ruleSet) merge(t *ruleSet, from int32) {
	for k, e := range t.resources {
		into := s.entry(k)
		for _, g := range e.all {
			g.from = from
			into.all = addGrant(into.all, g)
		}
		for name, grants := range e.named {
			if into.named == nil {
				into.named = map[string][]grant{}
			}
			for _, g := range grants {
				g.from = from
				into.named[name] = addGrant(into.named[name], g)
			}
		}
	}
	for url, grants := range t.urls {
		for _, g := range grants {
			g.from = from
			s.urls[url] = addGrant(s.urls[url], g)
		}
	}
	for _, p := range t.prefixes {
		p.grant.from = from
		s.prefixes = append(s.prefixes, p)
	}
}

// generation is the number of revisions after which compiled roles that were
// not asked for are forgotten.
const generation = 64

// compiler compiles the rules of each role once.
type compiler struct {
	mu sync.Mutex
	// recent holds what was asked for in this generation, former what was in
	// the one before; turns counts the revisions of this one. Guarded by mu.
	recent, former map[rulesKey]*ruleSet
	turns          int
}

// turn tells of a new revision.
func (c *compiler) turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turns++; c.turns >= generation {
		c.recent, c.former, c.turns = map[rulesKey]*ruleSet{}, c.recent, 0
	}
}

// compile returns the set of the role's rules, nil when it has none.
func (c *compiler) compile(r *resolvedRole) *ruleSet {
	if len(r.rules) == 0 {
		return nil
	}
	key := r.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.recent[key]; ok {
		return s
	}
	s, ok := c.former[key]
	if !ok {
		s = compile(r.rules)
	}
	if c.recent == nil {
		c.recent = map[rulesKey]*ruleSet{}
	}
	c.recent[key] = s
	return s
}

// request is what of a request the look-up needs, computed once.
type request struct {
	attributes *auth.Attributes
	bit        uint16
	// keys are those under which a rule for the request may be filed.
	keys [6]resourceKey
	n    int
}

func newRequest(a *auth.Attributes) request {
	r := request{attributes: a, bit: verbBit(a.Verb)}
	if !a.ResourceRequest {
		return r
	}
	full := fullResource(a.Resource, a.Subresource)
	r.keys = [6]resourceKey{{a.APIGroup, full}, {"*", full}, {a.APIGroup, "*"}, {"*", "*"}}
	r.n = 4
	if a.Subresource != "" {
		sub := "*/" + a.Subresource
		r.keys[4], r.keys[5] = resourceKey{a.APIGroup, sub}, resourceKey{"*", sub}
		r.n = 6
	}
	return r
}

// allows returns the number of the binding that allows the request.
func (s *ruleSet) allows(r *request) (from int32, ok bool) {
	if !r.attributes.ResourceRequest {
		return s.allowsURL(r)
	}
	for i := range r.n {
		e := s.resources[r.keys[i]]
		if e == nil {
			continue
		}
		if from, ok := firstAllowing(e.all, r); ok {
			return from, true
		}
		if len(e.named) > 0 {
			if from, ok := firstAllowing(e.named[r.attributes.Name], r); ok {
				return from, true
			}
		}
	}
	return 0, false
}

func (s *ruleSet) allowsURL(r *request) (int32, bool) {
	path := r.attributes.Path
	if from, ok := firstAllowing(s.urls[path], r); ok {
		return from, true
	}
	for i := range s.prefixes {
		p := &s.prefixes[i]
		if strings.HasPrefix(path, p.prefix) && p.grant.allows(r.attributes.Verb, r.bit) {
			return p.grant.from, true
		}
	}
	return 0, false
}

func firstAllowing(grants []grant, r *request) (int32, bool) {
	for i := range grants {
		if grants[i].allows(r.attributes.Verb, r.bit) {
			return grants[i].from, true
		}
	}
	return 0, false
}
