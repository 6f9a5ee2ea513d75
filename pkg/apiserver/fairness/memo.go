package fairness

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"

	"coracle/pkg/auth"
)

// memoSlots bounds what is remembered of classifications.
const memoSlots = 2048

// memo remembers which flow requests belong to, as long as one configuration
// lasts. It is read and written without a lock; two kinds of requests that
// share a slot push each other out.
type memo struct {
	seed maphash.Seed
	// named are the namespaces that some rule names: all others are alike.
	named map[string]bool
	slots [memoSlots]atomic.Pointer[memoEntry]
}

// memoEntry is never changed.
type memoEntry struct {
	user, verb, namespace, group, plural, sub string
	groups                                    []string
	flow                                      *Flow
}

// anyNamespace stands for those that no rule names; no namespace is named so.
const anyNamespace = "*"

func (m *memo) namespace(r *Request) string {
	if r.Namespace != "" && !m.named[r.Namespace] {
		return anyNamespace
	}
	return r.Namespace
}

// hash mixes what the answer depends on. An empty string counts too, so that
// neighbours do not run together.
func (m *memo) hash(r *Request, namespace string) uint64 {
	const prime = 0x9E3779B97F4A7C15
	h := maphash.String(m.seed, r.User.Name)
	for _, s := range [...]string{r.Verb, namespace, r.Group, r.Plural, r.Sub} {
		h = (h ^ maphash.String(m.seed, s)) * prime
	}
	for _, g := range r.User.Groups {
		h = (h ^ maphash.String(m.seed, g)) * prime
	}
	return h ^ h>>32
}

// find returns the flow remembered for r, and the slot for it.
func (m *memo) find(r *Request) (*Flow, *atomic.Pointer[memoEntry]) {
	ns := m.namespace(r)
	slot := &m.slots[m.hash(r, ns)%memoSlots]
	e := slot.Load()
	if e == nil || e.user != r.User.Name || e.verb != r.Verb || e.plural != r.Plural || e.namespace != ns ||
		e.group != r.Group || e.sub != r.Sub || !slices.Equal(e.groups, r.User.Groups) {
		return nil, slot
	}
	return e.flow, slot
}

// keep remembers. The strings are copied, since they are parts of what is
// larger: a request's URL, a certificate.
func (m *memo) keep(slot *atomic.Pointer[memoEntry], r *Request, flow *Flow) {
	slot.Store(&memoEntry{
		user: strings.Clone(r.User.Name), verb: strings.Clone(r.Verb), namespace: strings.Clone(m.namespace(r)),
		group: strings.Clone(r.Group), plural: strings.Clone(r.Plural), sub: strings.Clone(r.Sub),
		groups: cloneGroups(r.User), flow: flow,
	})
}

func cloneGroups(u *auth.User) []string {
	out := make([]string, len(u.Groups))
	for i, g := range u.Groups {
		out[i] = strings.Clone(g)
	}
	return out
}
