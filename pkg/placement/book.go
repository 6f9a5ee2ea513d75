package placement

import (
	"container/list"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Budget is a sensible number of bytes for a Book: the verdicts of some 50,000
// pods.
const Budget = 16 << 20

// Book keeps the last verdict about each pod within a budget; what has not been
// renewed for longest goes first. It is safe for concurrent use.
type Book struct {
	budget int
	mu     sync.Mutex
	pods   map[types.NamespacedName]*list.Element // of *page; guarded by mu
	order  *list.List                             // oldest first; guarded by mu
	size   int                                    // guarded by mu
}

// page is one verdict.
type page struct {
	key    types.NamespacedName
	uid    types.UID
	status *Status // never changed
	size   int
}

// NewBook makes a Book that takes about as many bytes as budget says.
func NewBook(budget int) *Book {
	return &Book{budget: budget, pods: map[types.NamespacedName]*list.Element{}, order: list.New()}
}

// Put keeps a verdict in place of the last one about the pod. It must not be
// changed afterwards.
func (b *Book) Put(namespace, name string, uid types.UID, s *Status) {
	p := &page{key: types.NamespacedName{Namespace: namespace, Name: name}, uid: uid, status: s}
	p.size = p.bytes()
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.pods[p.key]; old != nil {
		b.drop(old)
	}
	b.pods[p.key] = b.order.PushBack(p)
	b.size += p.size
	for b.size > b.budget {
		b.drop(b.order.Front())
	}
}

// Forget drops the verdict about a pod that is gone.
func (b *Book) Forget(namespace, name string, uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.pods[types.NamespacedName{Namespace: namespace, Name: name}]; e != nil && e.Value.(*page).uid == uid {
		b.drop(e)
	}
}

// drop takes a page out. b.mu is held.
func (b *Book) drop(e *list.Element) {
	p := b.order.Remove(e).(*page)
	delete(b.pods, p.key)
	b.size -= p.size
}

// Get is what is known of a pod, with advice.
func (b *Book) Get(namespace, name string) (*PodPlacement, bool) {
	b.mu.Lock()
	e := b.pods[types.NamespacedName{Namespace: namespace, Name: name}]
	b.mu.Unlock()
	if e == nil {
		return nil, false
	}
	page := e.Value.(*page) // pages never change
	out := &PodPlacement{
		TypeMeta:   metav1.TypeMeta{APIVersion: GroupVersion().String(), Kind: Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: page.uid, CreationTimestamp: page.status.Time},
		Status:     *page.status,
	}
	if out.Status.Result != Placed {
		out.Status.Advice = advise(out.Status.Refusals)
	}
	return out, true
}

// Size of what a page is made of beside its strings: the list's element, the
// map's entry and the structures.
const (
	pageOverhead    = 450
	refusalOverhead = 130
	scoreOverhead   = 64
	pluginOverhead  = 32
	stringOverhead  = 16
)

// bytes estimates the memory of a page. Names of nodes and plugins and reasons
// are shared with the scheduler's records and count as references.
func (p *page) bytes() int {
	n := pageOverhead + len(p.key.Namespace) + len(p.key.Name) + len(p.uid) + len(p.status.Message)
	for i := range p.status.Refusals {
		r := &p.status.Refusals[i]
		n += refusalOverhead + stringOverhead*(len(r.Reasons)+len(r.Examples))
		for _, l := range r.Lacks {
			n += 2*stringOverhead + len(l.Amount)
		}
	}
	for i := range p.status.Scores {
		n += scoreOverhead + pluginOverhead*len(p.status.Scores[i].Plugins)
	}
	return n
}
