package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The pause after a driver's refusal, twice as long after each.
const (
	csiFirstRetry = 500 * time.Millisecond
	csiMaxRetry   = 2*time.Minute + 2*time.Second
)

// csiState is what the agent remembers of CSI volumes. None of it is needed: an
// agent that starts asks the drivers again, which is no change to them, and
// reads the uses from disk.
type csiState struct {
	// locks are held for a volume while it is staged, unstaged or noted, and for
	// a pod's volume while it is set up; in the other order.
	locks keyLocks

	mu     sync.Mutex
	loaded bool // inUse has what was on disk; guarded by mu
	// inUse are the persistent volumes of this node's pods, by name; guarded by mu.
	inUse map[corev1.UniqueVolumeName]map[types.UID]bool
	// staged are those that this agent has staged; guarded by mu.
	staged map[corev1.UniqueVolumeName]bool
	// tries are what this agent has tried for each pod, by the name of the
	// volume's folder; guarded by mu.
	tries map[types.UID]map[string]*csiTry
	// waiting are the pods that wait for an attachment; guarded by mu.
	waiting map[types.UID]bool
}

// csiTry is what came of setting up one volume for one pod.
type csiTry struct {
	volume    csiVolume
	published bool
	republish bool // the driver wants to be told again
	failures  int
	notBefore time.Time
	err       error
	usage     *Usage // of a published volume, nil until the driver was asked
}

func newCSIState() csiState {
	return csiState{
		locks:  keyLocks{held: map[string]*keyLock{}},
		inUse:  map[corev1.UniqueVolumeName]map[types.UID]bool{},
		staged: map[corev1.UniqueVolumeName]bool{}, tries: map[types.UID]map[string]*csiTry{}, waiting: map[types.UID]bool{},
	}
}

func (s *csiState) try(u *csiUse) *csiTry {
	if s.tries[u.pod] == nil {
		s.tries[u.pod] = map[string]*csiTry{}
	}
	t := s.tries[u.pod][u.Name]
	if t == nil {
		t = &csiTry{}
		s.tries[u.pod][u.Name] = t
	}
	return t
}

// due gives the last refusal while it is too early for another try. A volume
// that is not there any more is not published.
func (s *csiState) due(u *csiUse, there bool, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.try(u)
	t.published = t.published && there
	if now.Before(t.notBefore) {
		return t.err
	}
	return nil
}

func (s *csiState) isPublished(u *csiUse) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.try(u).published
}

// tried books the end of a try.
func (s *csiState) tried(v csiVolume, republish bool, now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.try(&v.csiUse)
	t.volume = v
	if err == nil {
		*t = csiTry{volume: v, published: true, republish: republish}
		return
	}
	if _, refused := asType[csiError](err); refused {
		t.notBefore, t.err = now.Add(min(csiFirstRetry<<min(t.failures, 10), csiMaxRetry)), err
		t.failures++
	}
}

// published lists the volumes of a pod that are published.
func (s *csiState) published(pod types.UID) []csiTry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []csiTry
	for _, t := range s.tries[pod] {
		if t.published {
			out = append(out, *t)
		}
	}
	return out
}

// setUsage keeps how full a volume is, as long as it is published.
func (s *csiState) setUsage(u *csiUse, usage Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tries[u.pod][u.Name]; t != nil && t.published {
		t.usage = &usage
	}
}

func (s *csiState) isStaged(name corev1.UniqueVolumeName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.staged[name]
}

func (s *csiState) setStaged(name corev1.UniqueVolumeName, staged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if staged {
		s.staged[name] = true
	} else {
		delete(s.staged, name)
	}
}

// use books that a pod has a volume, or is about to, and reports whether that is news.
func (s *csiState) use(name corev1.UniqueVolumeName, pod types.UID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := len(s.inUse[name]) == 0
	if s.inUse[name] == nil {
		s.inUse[name] = map[types.UID]bool{}
	}
	s.inUse[name][pod] = true
	return news
}

// release books that a pod has a volume no more.
func (s *csiState) release(name corev1.UniqueVolumeName, pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inUse[name], pod)
	if len(s.inUse[name]) == 0 {
		delete(s.inUse, name)
	}
}

// unpublished books that a volume is about to be taken down.
func (s *csiState) unpublished(u *csiUse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tries[u.pod], u.Name)
}

// forget drops all that is known of a pod, and reports whether a volume was in
// use by it.
func (s *csiState) forget(pod types.UID) (used bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tries, pod)
	delete(s.waiting, pod)
	for name, pods := range s.inUse {
		used = used || pods[pod]
		if delete(pods, pod); len(pods) == 0 {
			delete(s.inUse, name)
		}
	}
	return used
}

func (s *csiState) setWaiting(pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[pod] = true
}

func (s *csiState) takeWaiting() []types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pods []types.UID
	for pod := range s.waiting {
		pods = append(pods, pod)
	}
	clear(s.waiting)
	return pods
}

// VolumesInUse lists the volumes that may not be detached from the node, for its
// status: those that pods have mounted, also pods of an earlier agent, and those
// that pods wait for. It is not known as long as the pods' folders cannot be read.
func (m *Manager) VolumesInUse() (names []corev1.UniqueVolumeName, known bool) {
	m.loadCSIUses()
	s := &m.csi
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.inUse {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, s.loaded
}

// loadCSIUses reads, once, what earlier agents have mounted.
func (m *Manager) loadCSIUses() {
	s := &m.csi
	s.mu.Lock()
	loaded := s.loaded
	s.mu.Unlock()
	if loaded {
		return
	}
	entries, err := os.ReadDir(filepath.Join(m.cfg.RootDir, "pods"))
	if err != nil && !os.IsNotExist(err) {
		m.cfg.Log.Warn("volumes of earlier pods are not known", "err", err)
		return
	}
	var found []csiUse
	for _, e := range entries {
		uses, err := m.csiUses(types.UID(e.Name()))
		if err != nil {
			m.cfg.Log.Warn("volumes of an earlier pod are not known", "pod", e.Name(), "err", err)
			return
		}
		found = append(found, uses...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return
	}
	s.loaded = true
	for _, u := range found {
		if u.persistent() {
			if s.inUse[u.unique()] == nil {
				s.inUse[u.unique()] = map[types.UID]bool{}
			}
			s.inUse[u.unique()][u.pod] = true
		}
	}
}

// keyLocks are locks by name, which one may wait for no longer than its context.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock // guarded by mu
}

type keyLock struct {
	free  chan struct{} // holds one token while nobody has the lock
	users int           // guarded by keyLocks.mu
}

func (k *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.held[key]
	if l == nil {
		l = &keyLock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case <-l.free:
		return func() { l.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("another operation on the volume is still under way: %w", context.Cause(ctx))
	}
}
