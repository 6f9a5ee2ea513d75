package registry

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/storage"
)

// soundSlots is how many objects are remembered, at eight bytes each.
const soundSlots = 1 << 13

// sound remembers at which revision objects were last found valid as a whole.
// It may forget; what it says holds but for a clash of 64 bits under a seed that
// nobody knows.
type sound struct {
	seed  maphash.Seed // set by newSound
	slots [soundSlots]atomic.Uint64
}

func newSound() *sound { return &sound{seed: maphash.MakeSeed()} }

func (s *sound) note(uid types.UID, rev storage.Revision) {
	slot, mark := s.place(uid, rev)
	slot.Store(mark)
}

func (s *sound) holds(uid types.UID, rev storage.Revision) bool {
	slot, mark := s.place(uid, rev)
	return slot.Load() == mark
}

// place is where an object is remembered, and what stands there for a revision.
func (s *sound) place(uid types.UID, rev storage.Revision) (*atomic.Uint64, uint64) {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(string(uid))
	slot := &s.slots[h.Sum64()%soundSlots]
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(rev))
	_, _ = h.Write(b[:])
	return slot, h.Sum64() | 1 // an empty slot is 0
}
