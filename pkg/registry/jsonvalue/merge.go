package jsonvalue

// Merge applies a merge patch (RFC 7386) to a decoded object, which stays as it
// is: the result shares nothing with it that can be changed. The patch is used
// up. As kube-apiserver does, it drops the null members of objects that are new,
// those in arrays too, and leaves what takes an object's place as it is.
func Merge(object, patch map[string]any) map[string]any {
	out := make(map[string]any, len(object)+len(patch))
	for name, v := range object {
		wanted, named := patch[name]
		inner, isObject := v.(map[string]any)
		change, both := wanted.(map[string]any)
		switch {
		case !named:
			out[name] = Copy(v)
		case wanted == nil:
		case isObject && both:
			out[name] = Merge(inner, change)
		case isObject:
			out[name] = wanted
		default:
			out[name] = WithoutNulls(wanted)
		}
	}
	for name, v := range patch {
		if _, had := object[name]; !had && v != nil {
			out[name] = WithoutNulls(v)
		}
	}
	return out
}

// Copy is a copy of a decoded value that shares nothing with it that can be
// changed.
func Copy(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return v
		}
		out := make(map[string]any, len(v))
		for name, inner := range v {
			out[name] = Copy(inner)
		}
		return out
	case []any:
		if v == nil {
			return v
		}
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = Copy(inner)
		}
		return out
	}
	return v
}

// WithoutNulls drops the null members of objects, in place; those of arrays stay.
func WithoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if inner == nil {
				delete(v, name)
			} else {
				WithoutNulls(inner)
			}
		}
	case []any:
		for _, inner := range v {
			WithoutNulls(inner)
		}
	}
	return v
}
