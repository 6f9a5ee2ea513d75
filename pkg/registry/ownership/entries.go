package ownership

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Upstream's bound on the entries of updates, and the name of the one that
// takes the oldest.
const (
	maxUpdateEntries = 10
	ancientManager   = "ancient-changes"
)

// entry is an entry of managedFields with its set.
type entry struct {
	metav1.ManagedFieldsEntry
	set set
	// same says that FieldsV1 is set as the library writes it.
	same bool
	// item is the entry as an object of decoded JSON has it; nil for one that
	// comes of a Go type or is new. It is shared and not changed.
	item map[string]any
}

// is says that two entries are of the same manager: the version does not count
// for those who apply.
func (e *entry) is(o *metav1.ManagedFieldsEntry) bool {
	return e.Manager == o.Manager && e.Operation == o.Operation && e.Subresource == o.Subresource &&
		(e.APIVersion == o.APIVersion || e.Operation == metav1.ManagedFieldsOperationApply)
}

// before returns the entries that a write starts from: those the client sends,
// since it may edit them, unless it sends none or ones that are not valid, or
// writes a subresource; one empty entry or an empty list gives them all up.
// ok is false when they cannot be followed.
func (k *Kind) before(live, obj metav1.Object, subresource bool) (entries []entry, ok bool) {
	if entries, plain := plainEntries(obj); plain && !subresource {
		entries, valid, ok := k.follow(entries)
		if !ok || valid && len(entries) > 0 {
			return entries, ok
		}
	} else if !subresource {
		sent := obj.GetManagedFields()
		if sent != nil && len(sent) == 0 || len(sent) == 1 && reflect.DeepEqual(sent[0], metav1.ManagedFieldsEntry{}) {
			return nil, true
		}
		entries, valid, ok := k.read(sent)
		if !ok || valid && len(entries) > 0 {
			return entries, ok
		}
	}
	var valid bool
	if plain, isPlain := plainEntries(live); isPlain {
		entries, valid, ok = k.follow(plain)
	} else {
		entries, valid, ok = k.read(live.GetManagedFields())
	}
	if !valid {
		return nil, ok
	}
	return entries, ok
}

// read reads entries. One that is not valid makes all of them so; ok is false
// when they cannot be followed.
func (k *Kind) read(in []metav1.ManagedFieldsEntry) (entries []entry, valid, ok bool) {
	entries = make([]entry, 0, len(in)+1)
	for i := range in {
		entries = append(entries, entry{ManagedFieldsEntry: in[i]})
	}
	return k.follow(entries)
}

// follow is read of entries whose sets are still to be read.
func (k *Kind) follow(in []entry) (entries []entry, valid, ok bool) {
	for i := range in {
		e := &in[i]
		applied := e.Operation == metav1.ManagedFieldsOperationApply
		if !applied && e.Operation != metav1.ManagedFieldsOperationUpdate || e.APIVersion == "" || e.FieldsType != "FieldsV1" {
			return nil, false, true
		}
	}
	var buf []byte
	entries = in[:0]
	for _, e := range in {
		if e.APIVersion != k.version || !utf8.ValidString(e.Manager) || !utf8.ValidString(e.Subresource) {
			return nil, false, false
		}
		if e.item != nil && buf == nil {
			buf = make([]byte, 0, 1<<10)
		}
		if raw := e.raw(buf); len(raw) > 0 {
			known := k.memo.get(raw, k.readSet)
			if known == nil || !known.fits {
				return nil, false, false
			}
			e.set, e.same = known.set, known.sorted
		} else if e.FieldsV1 != nil || e.item != nil {
			return nil, false, false // not JSON
		}
		if j := slices.IndexFunc(entries, func(o entry) bool { return o.is(&e.ManagedFieldsEntry) }); j >= 0 {
			entries[j] = e // the last one counts
		} else {
			entries = append(entries, e)
		}
	}
	return entries, true, true
}

func (k *Kind) readSet(raw string) *known {
	s, sorted, ok := parse(raw)
	if !ok {
		return nil
	}
	return &known{set: s, sorted: sorted, fits: k.node.fits(s, false)}
}

// after returns the entries of an object whose fields were changed and removed
// as given.
func (k *Kind) after(w *walker, entries []entry, changed, removed set, write Write) (out []entry, ok bool) {
	self := metav1.ManagedFieldsEntry{
		Manager: write.Manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: k.version,
		FieldsType: "FieldsV1", Subresource: write.Subresource,
	}
	if self.Manager == "" {
		self.Manager = "unknown"
	}
	if !utf8.ValidString(self.Manager) || !utf8.ValidString(self.Subresource) {
		return nil, false
	}
	own := w.minus(changed, k.unowned)
	// What is at once changed and owned stays with its owner when that is who
	// writes.
	lost := changed
	found := false
	kept := entries[:0]
	for i := range entries {
		e := entries[i]
		if len(own) > 0 && e.is(&self) {
			found = true
			e.Time = &metav1.Time{Time: write.Now.UTC()}
			if !e.set.overlaps(removed) && e.set.contains(own) && (len(own) == len(lost) && &own[0] == &lost[0] || !e.set.overlaps(k.unowned)) {
				kept = append(kept, e)
				continue
			}
			e.set = w.union(w.minus(w.minus(e.set, lost), removed), own)
			e.same = false
			kept = append(kept, e)
			continue
		}
		if e.set.overlaps(lost) || e.set.overlaps(removed) {
			e.set, e.same = w.minus(w.minus(e.set, lost), removed), false
		}
		if len(e.set) > 0 {
			kept = append(kept, e)
		}
	}
	if len(own) > 0 && !found {
		self.Time = &metav1.Time{Time: write.Now.UTC()}
		kept = append(kept, entry{ManagedFieldsEntry: self, set: own})
	}
	return w.capped(kept), true
}

// encode returns entries as objects carry them, in the library's order.
func (w *walker) encode(entries []entry) []metav1.ManagedFieldsEntry {
	if len(entries) == 0 {
		return nil
	}
	sortEntries(entries)
	out := make([]metav1.ManagedFieldsEntry, len(entries))
	for i := range entries {
		e := &entries[i]
		if !e.same || e.item != nil {
			w.text = appendSet(w.text[:0], e.set, false)
			e.FieldsV1 = &metav1.FieldsV1{}
			e.FieldsV1.SetRawBytes(w.text) // a copy
		}
		out[i] = e.ManagedFieldsEntry
	}
	return out
}

func sortEntries(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(a.Operation, b.Operation), cmp.Compare(seconds(a.Time), seconds(b.Time)),
			cmp.Compare(a.Manager, b.Manager), cmp.Compare(a.APIVersion, b.APIVersion), cmp.Compare(a.Subresource, b.Subresource),
		)
	})
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

// capped folds the oldest entries of updates into one when there are more than
// the bound, step by step as the library does: the oldest entry becomes the
// bucket when there is none yet, and else stays.
func (w *walker) capped(entries []entry) []entry {
	var updates []int
	for i := range entries {
		if entries[i].Operation == metav1.ManagedFieldsOperationUpdate {
			updates = append(updates, i)
		}
	}
	count := len(updates)
	if count <= maxUpdateEntries {
		return entries
	}
	slices.SortFunc(updates, func(a, b int) int {
		return cmp.Or(cmp.Compare(seconds(entries[a].Time), seconds(entries[b].Time)), cmp.Compare(identifier(&entries[a]), identifier(&entries[b])))
	})
	ancient := metav1.ManagedFieldsEntry{
		Manager: ancientManager, Operation: metav1.ManagedFieldsOperationUpdate,
		APIVersion: entries[updates[0]].APIVersion, FieldsType: "FieldsV1",
	}
	bucket := slices.IndexFunc(entries, func(e entry) bool { return e.is(&ancient) })
	oldest := updates[0]
	gone := make([]bool, len(entries), len(entries)+1)
	for _, i := range updates[1:] {
		if count <= maxUpdateEntries {
			break
		}
		if bucket < 0 || gone[bucket] {
			gone[oldest] = true
			bucket = len(entries)
			entries = append(entries, entry{ManagedFieldsEntry: ancient, set: entries[oldest].set})
			gone = append(gone, false)
		}
		b := &entries[bucket]
		b.set, b.Time, b.same = w.union(entries[i].set, b.set), entries[i].Time, false
		gone[i] = true
		count--
	}
	kept := entries[:0]
	for i := range entries {
		if !gone[i] {
			kept = append(kept, entries[i])
		}
	}
	return kept
}

// identifier is the text by which the library sorts entries of one age.
func identifier(e *entry) string {
	id := e.ManagedFieldsEntry
	id.FieldsType, id.FieldsV1, id.Time = "", nil, (*metav1.Time)(nil)
	text, err := json.Marshal(&id)
	if err != nil {
		return ""
	}
	return string(text)
}
