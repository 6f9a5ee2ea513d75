package resource

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Paths into objects as JSON has them: "spec.containers[0].ports[0]", or with
// dots throughout, "spec.containers.0.ports.0". A key that itself has dots
// stands in brackets: "metadata.labels[example.com/x]".

func splitPath(path string) []string {
	var out []string
	for path != "" {
		var step string
		if path[0] == '[' {
			step, path, _ = strings.Cut(path[1:], "]")
			path = strings.TrimPrefix(path, ".")
		} else {
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			step = path[:end]
			path = strings.TrimPrefix(path[end:], ".")
		}
		out = append(out, step)
	}
	return out
}

// setPath puts value at path below node and returns the new node; a nil value
// removes what is there. Objects and lists on the way are made; a list grows
// by one at most.
func setPath(node any, path []string, value any) (any, error) {
	if len(path) == 0 {
		return value, nil
	}
	list, isList := node.([]any)
	index, err := strconv.Atoi(path[0])
	if isList || (node == nil && err == nil) {
		if err != nil || index < 0 || index > len(list) {
			return nil, fmt.Errorf("a list of %d has no place %q", len(list), path[0])
		}
		if index == len(list) {
			list = append(list, nil)
		}
		v, err := setPath(list[index], path[1:], value)
		if v == nil && len(path) == 1 {
			return append(list[:index], list[index+1:]...), err
		}
		list[index] = v
		return list, err
	}
	if node == nil {
		node = map[string]any{}
	}
	m, ok := node.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%q is below %v, which is neither an object nor a list", path[0], node)
	}
	v, err := setPath(m[path[0]], path[1:], value)
	if v == nil && len(path) == 1 {
		delete(m, path[0])
		return m, err
	}
	m[path[0]] = v
	return m, err
}

// longText is what stands for a text of so many letters.
var longText = regexp.MustCompile(`<[0-9]+>`)

// applyPatch changes obj, a decoded JSON object, by a patch in YAML without
// its outer braces. Each key is a path from position, or from the object when
// it starts with /. <300> is a text of 300 letters.
func applyPatch(obj any, position, patch string) (any, error) {
	if patch == "" {
		return obj, nil
	}
	patch = longText.ReplaceAllStringFunc(patch, func(m string) string {
		n, _ := strconv.Atoi(m[1 : len(m)-1])
		return strings.Repeat("a", n)
	})
	data, err := yaml.YAMLToJSON([]byte("{" + patch + "}"))
	if err != nil {
		return nil, fmt.Errorf("the patch {%s}: %w", patch, err)
	}
	var keys map[string]any
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, fmt.Errorf("the patch {%s}: %w", patch, err)
	}
	values := map[string]any{}
	for key, value := range keys {
		full, absolute := strings.CutPrefix(key, "/")
		steps := splitPath(full)
		if !absolute {
			steps = append(splitPath(position), steps...)
		}
		values[strings.Join(steps, "\x00")] = value
	}
	// In order, what holds others comes before them, and first elements before
	// second ones.
	for _, path := range slices.Sorted(maps.Keys(values)) {
		if obj, err = setPath(obj, strings.Split(path, "\x00"), values[path]); err != nil {
			return nil, fmt.Errorf("the patch {%s}: %w", patch, err)
		}
	}
	return obj, nil
}

// typeName is the name under which rule files know a struct type.
func typeName(t reflect.Type) string {
	pkg := strings.TrimPrefix(t.PkgPath(), "k8s.io/api/")
	pkg = strings.TrimPrefix(pkg, "k8s.io/apimachinery/pkg/apis/")
	pkg = strings.TrimPrefix(pkg, "k8s.io/kube-aggregator/pkg/apis/")
	return pkg + "." + t.Name()
}

// isLeaf says that a type writes its own JSON: a time, a quantity, a port.
func isLeaf(t reflect.Type) bool {
	m := reflect.TypeFor[json.Marshaler]()
	return t.Implements(m) || reflect.PointerTo(t).Implements(m)
}

// jsonField is the name of a struct's field in JSON; inline says that its own
// fields stand in its place.
func jsonField(f reflect.StructField) (name string, inline bool) {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name, name == "" && (f.Anonymous || strings.Contains(options, "inline"))
}

// structsIn calls visit once for every struct type that values of t can
// contain, t included.
func structsIn(t reflect.Type, seen map[reflect.Type]bool, visit func(reflect.Type)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		structsIn(t.Elem(), seen, visit)
	case reflect.Struct:
		if seen[t] || isLeaf(t) {
			return
		}
		seen[t] = true
		visit(t)
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				structsIn(f.Type, seen, visit)
			}
		}
	}
}

// step finds what a path's step leads to from a value of type t, and the
// struct that the field is of ("" for an element of a list or map).
func step(t reflect.Type, name string) (to reflect.Type, owner string, err error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Map:
		return t.Elem(), "", nil
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			switch n, inline := jsonField(f); {
			case inline:
				if to, owner, err := step(f.Type, name); err == nil {
					return to, owner, nil
				}
			case n == name:
				return f.Type, typeName(t), nil
			}
		}
	}
	return nil, "", fmt.Errorf("type %s has no field %q", t, name)
}
