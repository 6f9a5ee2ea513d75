package proxy

// tracked is a map that knows how it differs from what was last taken.
type tracked[K, V comparable] struct {
	now map[K]V
	// was holds, for each key touched since the last take, its value then.
	was map[K]before[V]
}

type before[V comparable] struct {
	value  V
	exists bool
}

// Diff is how to get from one map to another: all of Del first, then all of
// Add. A key whose value changes is in both.
type Diff[K, V comparable] struct {
	Del []K
	Add []Entry[K, V]
}

// Entry is one key and value of a map.
type Entry[K, V comparable] struct {
	Key   K
	Value V
}

func newTracked[K, V comparable]() tracked[K, V] {
	return tracked[K, V]{now: map[K]V{}, was: map[K]before[V]{}}
}

func (t *tracked[K, V]) set(k K, v V) {
	if old, ok := t.now[k]; ok && old == v {
		return
	}
	t.touch(k)
	t.now[k] = v
}

func (t *tracked[K, V]) del(k K) {
	if _, ok := t.now[k]; ok {
		t.touch(k)
		delete(t.now, k)
	}
}

func (t *tracked[K, V]) touch(k K) {
	if _, ok := t.was[k]; !ok {
		v, exists := t.now[k]
		t.was[k] = before[V]{v, exists}
	}
}

// take returns the difference since the last take or takeAll.
func (t *tracked[K, V]) take() Diff[K, V] {
	var d Diff[K, V]
	for k, old := range t.was {
		v, ok := t.now[k]
		if ok == old.exists && v == old.value {
			continue
		}
		if old.exists {
			d.Del = append(d.Del, k)
		}
		if ok {
			d.Add = append(d.Add, Entry[K, V]{k, v})
		}
	}
	clear(t.was)
	return d
}

// takeAll returns the whole map as additions.
func (t *tracked[K, V]) takeAll() Diff[K, V] {
	d := Diff[K, V]{Add: make([]Entry[K, V], 0, len(t.now))}
	for k, v := range t.now {
		d.Add = append(d.Add, Entry[K, V]{k, v})
	}
	clear(t.was)
	return d
}
