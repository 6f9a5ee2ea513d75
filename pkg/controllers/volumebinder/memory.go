package volumebinder

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
	"coracle/pkg/volumebinding"
)

// latest shows volumes as this controller last wrote them, where the informer
// is behind, and keeps claims that are looked at together from choosing one
// volume. Both only save tries: the versions of the objects decide.
type latest struct {
	mu       sync.Mutex
	written  map[string]*corev1.PersistentVolume // by name, newer than the informer's; guarded by mu
	reserved map[string]types.UID                // volume to claim, while that is being bound; guarded by mu
}

func newLatest() *latest {
	return &latest{written: map[string]*corev1.PersistentVolume{}, reserved: map[string]types.UID{}}
}

func (l *latest) put(v *corev1.PersistentVolume) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.written[v.Name]; have == nil || newer(v, have) {
		l.written[v.Name] = v
	}
}

// get returns the volume of that name, nil if there is none.
func (l *latest) get(informer cache.SharedIndexInformer, name string) *corev1.PersistentVolume {
	if name == "" {
		return nil
	}
	seen := reconcile.Cached[*corev1.PersistentVolume](informer, reconcile.Key{Name: name})
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pick(name, seen)
}

// pick needs mu. What the informer has reached is forgotten, and so is a
// volume that is gone: only volumes that the informer showed are written.
func (l *latest) pick(name string, seen *corev1.PersistentVolume) *corev1.PersistentVolume {
	own := l.written[name]
	if own == nil {
		return seen
	}
	if seen == nil || !newer(own, seen) {
		delete(l.written, name)
		return seen
	}
	return own
}

func newer(a, b *corev1.PersistentVolume) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order > 0
}

// reserve finds a volume for a claim and keeps it from others until release.
func (l *latest) reserve(informer cache.SharedIndexInformer, q volumebinding.Query) (*corev1.PersistentVolume, error) {
	volumes := all[*corev1.PersistentVolume](informer)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.written) > 0 {
		for i, v := range volumes {
			volumes[i] = l.pick(v.Name, v)
		}
	}
	q.Reserved = func(name string) bool { _, taken := l.reserved[name]; return taken }
	found, err := volumebinding.Find(q, volumes)
	if found != nil {
		l.reserved[found.Name] = q.Claim.UID
	}
	return found, err
}

func (l *latest) release(claim types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, uid := range l.reserved {
		if uid == claim {
			delete(l.reserved, name)
		}
	}
}

// maxSaid bounds the objects whose last event is remembered.
const maxSaid = 10_000

// said remembers the last event of each waiting object, so that what users
// know already is not written again each time something else changes.
type said struct {
	mu   sync.Mutex
	last map[types.UID]event // guarded by mu
	ages []types.UID         // of last, the oldest first; guarded by mu
}

func newSaid() *said { return &said{last: map[types.UID]event{}} }

// isNew notes the event and reports whether it differs from the last one.
func (s *said) isNew(uid types.UID, e event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, known := s.last[uid]
	if known && have == e {
		return false
	}
	if !known {
		if len(s.ages) >= maxSaid {
			delete(s.last, s.ages[0])
			s.ages = s.ages[1:]
		}
		s.ages = append(s.ages, uid)
	}
	s.last[uid] = e
	return true
}

func (s *said) forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.last[uid]; known {
		delete(s.last, uid)
		s.ages = slices.DeleteFunc(s.ages, func(u types.UID) bool { return u == uid })
	}
}
