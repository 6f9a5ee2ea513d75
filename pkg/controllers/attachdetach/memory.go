package attachdetach

import (
	"hash/fnv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// memory is what the objects do not say. All of it may be lost: then a node
// that does not answer keeps a volume for longer, and users hear things twice.
type memory struct {
	mu      sync.Mutex
	since   map[types.UID]time.Time // attachments that nobody needs, from when on; guarded by mu
	leaving map[types.UID]bool      // attachments that are about to be deleted; guarded by mu
	told    map[string]string       // the last line by pod and volume; guarded by mu
	ages    []string                // of told, the oldest first; guarded by mu
}

// maxTold bounds the lines that are remembered.
const maxTold = 10_000

func newMemory() *memory {
	return &memory{since: map[types.UID]time.Time{}, leaving: map[types.UID]bool{}, told: map[string]string{}}
}

// unwanted says since when nobody needs the attachment; from now if that is
// new.
func (m *memory) unwanted(uid types.UID, now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.since[uid]; !known {
		m.since[uid] = now
	}
	return m.since[uid]
}

// leave notes that the attachment is about to be deleted: from now on no node
// is told that it may mount the volume.
func (m *memory) leave(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaving[uid] = true
}

func (m *memory) isLeaving(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leaving[uid]
}

// stay takes leave back and reports whether it had been said.
func (m *memory) stay(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.leaving[uid]
	delete(m.leaving, uid)
	return was
}

// wanted says that somebody needs the attachment again.
func (m *memory) wanted(uid types.UID) (was bool) {
	m.mu.Lock()
	delete(m.since, uid)
	m.mu.Unlock()
	return m.stay(uid)
}

// forget is for attachments that are gone.
func (m *memory) forget(uid types.UID) { m.wanted(uid) }

// isNew notes a line and reports whether it differs from the last one.
func (m *memory) isNew(volume string, l line) bool {
	key, text := string(l.pod.UID)+"/"+volume, l.at.String()+l.message
	m.mu.Lock()
	defer m.mu.Unlock()
	have, known := m.told[key]
	if known && have == text {
		return false
	}
	if !known {
		if len(m.ages) >= maxTold {
			delete(m.told, m.ages[0])
			m.ages = m.ages[1:]
		}
		m.ages = append(m.ages, key)
	}
	m.told[key] = text
	return true
}

// locks are one lock per node, more or less: nodes may share one.
type locks [64]sync.Mutex

func (l *locks) of(node string) *sync.Mutex {
	h := fnv.New32a()
	h.Write([]byte(node))
	return &l[h.Sum32()%uint32(len(l))]
}
