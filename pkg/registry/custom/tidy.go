package custom

import (
	"k8s.io/apimachinery/pkg/runtime"
)

// tidy says that there is nothing in a decoded JSON value that pruning would
// drop: no field that the schema does not have, no null that means "unset". A
// nil shape has no fields.
func (n *shape) tidy(v any) bool { return n.tidyAs(v, false) }

// tidyAs is tidy; kept says that unknown fields stay, by what is around the
// value.
func (n *shape) tidyAs(v any, kept bool) bool {
	switch v := v.(type) {
	case map[string]any:
		if n == nil {
			return kept || len(v) == 0
		}
		return n.tidyFields(v, kept || n.preserve)
	case []any:
		var item *shape
		if n != nil {
			kept = kept || n.preserve
			if n.list != nil {
				item = n.list.item
			}
		}
		for _, e := range v {
			if !item.tidyAs(e, kept) {
				return false
			}
		}
	}
	return true
}

func (n *shape) tidyFields(m map[string]any, kept bool) bool {
	o := n.object
	for name, v := range m {
		var child *shape
		known := false
		if o != nil {
			if child, known = o.fields[name]; !known && o.others {
				child, known = o.other, true
			}
		}
		switch {
		case n.embedded && (name == "metadata" || name == "kind" || name == "apiVersion"):
			// It is not pruned, but nulls that the schema knows of are dropped.
			if child != nil && hasNull(v) {
				return false
			}
			continue
		case !known && kept:
			continue
		case !known:
			return false
		case v == nil && child != nil && !child.nullable && child.def == nil:
			return false
		}
		if !child.tidyAs(v, false) {
			return false
		}
	}
	return true
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	}
	return false
}

// fill puts defaults into a decoded JSON value, as the library does.
func (n *shape) fill(v any) {
	if n == nil || !n.fills {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if n.object == nil {
			return
		}
		n.object.fill(v)
	case []any:
		if n.list == nil || n.list.item == nil {
			return
		}
		item := n.list.item
		for i := range v {
			if v[i] == nil && !item.nullable {
				v[i] = runtime.DeepCopyJSONValue(item.def)
			}
			item.fill(v[i])
		}
	}
}

func (o *objectShape) fill(m map[string]any) {
	for _, name := range o.defaults {
		child := o.fields[name]
		if v, ok := m[name]; !ok || v == nil && !child.nullable {
			m[name] = runtime.DeepCopyJSONValue(child.def)
		}
	}
	for name, v := range m {
		child, ok := o.fields[name]
		if !ok && o.others && o.other != nil {
			if child = o.other; v == nil && !child.nullable {
				v = runtime.DeepCopyJSONValue(child.def)
				m[name] = v
			}
		}
		child.fill(v)
	}
}

// maxCompared bounds the lists whose items are compared with each other; longer
// ones are left to the library.
const maxCompared = 64

// unique says that no set in a decoded JSON value has an item twice and no map
// two items of one key.
func (n *shape) unique(v any) bool {
	if n == nil || !n.listed {
		return true
	}
	switch v := v.(type) {
	case map[string]any:
		if n.object == nil {
			return true
		}
		for name, e := range v {
			child, ok := n.object.fields[name]
			if !ok {
				child = n.object.other
			}
			if !child.unique(e) {
				return false
			}
		}
	case []any:
		if n.list == nil {
			return true
		}
		if !n.list.distinct(v) {
			return false
		}
		for _, e := range v {
			if !n.list.item.unique(e) {
				return false
			}
		}
	}
	return true
}

func (l *listShape) distinct(list []any) bool {
	if !l.set && l.keys == nil || len(list) == 0 {
		return true
	}
	if len(list) > maxCompared {
		return false
	}
	for i, v := range list {
		if !l.comparable(v) {
			return false
		}
		for _, before := range list[:i] {
			if l.same(before, v) {
				return false
			}
		}
	}
	return true
}

// comparable says that an item, or its key, is of plain scalars. The library
// tells floats and integers apart in some places and in others not.
func (l *listShape) comparable(v any) bool {
	if l.set {
		return plainKey(v)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return false
	}
	for _, key := range l.keys {
		if k, ok := m[key]; ok && !plainKey(k) {
			return false
		}
	}
	return true
}

func plainKey(v any) bool {
	switch v.(type) {
	case string, int64, bool:
		return true
	}
	return false
}

func (l *listShape) same(a, b any) bool {
	if l.set {
		return a == b
	}
	ma, mb := a.(map[string]any), b.(map[string]any)
	for _, key := range l.keys {
		ka, oka := ma[key]
		kb, okb := mb[key]
		if oka != okb || ka != kb {
			return false
		}
	}
	return true
}
