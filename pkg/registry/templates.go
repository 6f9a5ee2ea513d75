package registry

import (
	"hash/maphash"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/resource"
)

// templateSlots is how many templates are known at a time: about 10 KB each.
const templateSlots = 128

// templates remembers specs in which validation found nothing wrong. It may
// forget; a spec that comes once is not kept.
type templates struct {
	seed  maphash.Seed // set by newTemplates
	slots [templateSlots]templateSlot
}

type templateSlot struct {
	// seen is the key of the last object that was good and of no template.
	seen atomic.Uint64
	// known is the template that is kept, nil while there is none.
	known atomic.Pointer[template]
}

// template is one of a resource.
type template struct {
	resource.Template
	res *resource.Resource
}

func newTemplates() *templates { return &templates{seed: maphash.MakeSeed()} }

func (t *templates) slot(res *resource.Resource, obj runtime.Object) (*templateSlot, uint64) {
	var h maphash.Hash
	h.SetSeed(t.seed)
	res.Templates.Key(obj, func(text string) {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0)
	})
	key := h.Sum64()
	return &t.slots[key%templateSlots], key
}

// find returns the template that obj is of, nil when none is known.
func (t *templates) find(res *resource.Resource, obj runtime.Object) *resource.Template {
	if res.Templates == nil {
		return nil
	}
	slot, _ := t.slot(res, obj)
	if k := slot.known.Load(); k != nil && k.res == res && res.Templates.Alike(obj, k.Object) {
		return &k.Template
	}
	return nil
}

// note remembers an object with which nothing is wrong, the second time that one
// like it comes.
func (t *templates) note(res *resource.Resource, obj runtime.Object) {
	if res.Templates == nil {
		return
	}
	slot, key := t.slot(res, obj)
	if slot.seen.Swap(key) == key {
		slot.known.Store(&template{Template: resource.Template{Object: res.Templates.Of(obj)}, res: res})
	}
}
