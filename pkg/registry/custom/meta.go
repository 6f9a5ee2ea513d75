package custom

import "time"

// plainMeta says that decoded metadata is as the Go type would be encoded
// again: nothing unknown, nothing empty, everything of its type.
func plainMeta(v any) bool {
	m, ok := v.(map[string]any)
	if !ok {
		return false
	}
	for name, v := range m {
		ok := false
		switch name {
		case "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion":
			ok = someText(v)
		case "generation":
			n, is := v.(int64)
			ok = is && n != 0
		case "deletionGracePeriodSeconds":
			_, ok = v.(int64)
		case "creationTimestamp", "deletionTimestamp":
			ok = plainTime(v)
		case "labels", "annotations":
			ok = plainTexts(v)
		case "finalizers":
			ok = plainList(v, someOrNoText)
		case "ownerReferences":
			ok = plainList(v, plainOwner)
		case "managedFields":
			ok = plainList(v, plainEntry)
		}
		if !ok {
			return false
		}
	}
	return true
}

func someText(v any) bool {
	s, ok := v.(string)
	return ok && s != ""
}

func someOrNoText(v any) bool {
	_, ok := v.(string)
	return ok
}

// plainTime says that v is a time of whole seconds in UTC.
func plainTime(v any) bool {
	s, ok := v.(string)
	if !ok || len(s) != len("2006-01-02T15:04:05Z") || s[len(s)-1] != 'Z' {
		return false
	}
	t, err := time.Parse(time.RFC3339, s)
	return err == nil && !t.IsZero()
}

func plainTexts(v any) bool {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		return false
	}
	for _, v := range m {
		if !someOrNoText(v) {
			return false
		}
	}
	return true
}

func plainList(v any, ok func(any) bool) bool {
	list, is := v.([]any)
	return is && len(list) > 0 && all(list, ok)
}

func plainOwner(v any) bool {
	m, ok := v.(map[string]any)
	if !ok {
		return false
	}
	needed := 0
	for name, v := range m {
		switch name {
		case "apiVersion", "kind", "name", "uid":
			needed++
			ok = someOrNoText(v)
		case "controller", "blockOwnerDeletion":
			_, ok = v.(bool)
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return needed == 4
}

func plainEntry(v any) bool {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		return false
	}
	for name, v := range m {
		switch name {
		case "manager", "operation", "apiVersion", "fieldsType", "subresource":
			ok = someText(v)
		case "time":
			ok = plainTime(v)
		case "fieldsV1":
			_, ok = v.(map[string]any)
			ok = ok && noFloat(v)
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

// noFloat says that no number in v would be another type after encoding and
// decoding it.
func noFloat(v any) bool {
	switch v := v.(type) {
	case float64:
		return false
	case map[string]any:
		for _, e := range v {
			if !noFloat(e) {
				return false
			}
		}
	case []any:
		return all(v, noFloat)
	}
	return true
}
