package registry

import (
	"bytes"
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Bounds of how many values a body may hold. An object of the largest size
// that the store takes has some ten thousand; a few megabytes of brackets
// would have a million, of which each costs a hundred times its bytes to read.
const (
	maxValues = 40_000
	// maxObjects bounds the objects among them, each of which can become a
	// struct of a kilobyte; maxNodes does where they become nodes of a tree.
	maxObjects = 10_000
	maxNodes   = 30_000
	// maxYAMLValues is for documents that are not JSON, which cost more. It
	// counts in text too, as only a parser could tell what is text there.
	maxYAMLValues  = 40_000
	maxPatchValues = 25_000
	// maxSquares bounds the sum of the squares of the members of each object and
	// list that is applied, as the library's work grows with it: one of five
	// thousand, or any number of small ones.
	maxSquares = 25_000_000
	// maxPairs bounds for the lists of a strategic merge patch how many pairs
	// they have with the entries of the object: each is compared.
	maxPairs = 300_000
	// maxDigits bounds a number, as text or not: to read one takes a time that
	// grows with the square of its length. It bounds the root of the sum of the
	// squares of long ones.
	maxDigits = 30_000
)

// checkWidth refuses a body with too many values before anything is made of
// it.
func checkWidth(body []byte, media MediaType, objects int) error {
	if err := checkDigits(body); err != nil {
		return err
	}
	switch {
	case looksLikeJSON(body):
		if len(body) <= min(maxValues, objects) {
			return nil // each value takes a byte
		}
		return checkExtent(extentOf(body), maxValues, objects)
	case media == YAML:
		if err := bound(countYAML(body), maxYAMLValues, "use fewer fields and list entries, or send it as JSON if that is text"); err != nil {
			return err
		}
		return checkAliases(body)
	}
	return nil
}

func checkExtent(e extent, values, objects int) error {
	if err := bound(e.values, values, "use fewer fields and list entries"); err != nil {
		return err
	}
	if e.objects > objects {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the body holds more than %d objects: use fewer list entries", objects))
	}
	return nil
}

// checkPatchWidth is checkWidth of a patch, of which more is made.
func checkPatchWidth(patch []byte) error {
	if err := checkDigits(patch); err != nil {
		return err
	}
	if len(patch) <= maxPatchValues {
		return nil // each value takes a byte
	}
	return bound(extentOf(patch).values, maxPatchValues, "use several patches")
}

func bound(values, limit int, advice string) error {
	if values <= limit {
		return nil
	}
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the body holds more than %d values: %s", limit, advice))
}

func looksLikeJSON(body []byte) bool {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	return len(trimmed) > 1 && trimmed[0] == '{' && (bytes.HasPrefix(bytes.TrimLeft(trimmed[1:], " \t\r\n"), []byte{'"'}) || trimmed[1] == '}')
}

// extent is what one look at a JSON document counts, outside of strings: what
// begins a value, and the objects among them.
type extent struct{ values, objects int }

func extentOf(body []byte) (e extent) {
	inText := false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{':
			e.values++
			e.objects++
		case c == ',' || c == '[':
			e.values++
		}
	}
	return e
}

// countYAML counts what may begin a value of a YAML document.
func countYAML(body []byte) (values int) {
	for i, c := range body {
		switch c {
		case ',', '[', '{', '\n':
			values++
		case '-', '?', ':':
			if i+1 < len(body) && (body[i+1] == ' ' || body[i+1] == '\t') {
				values++
			}
		}
	}
	return values
}

// checkAliases refuses a YAML document that becomes too wide when its aliases
// are replaced by what they stand for. Only documents that may have some are
// parsed for it.
func checkAliases(body []byte) error {
	if bytes.IndexByte(body, '&') < 0 || bytes.IndexByte(body, '*') < 0 {
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(body, &doc); err != nil {
		return apierrors.NewBadRequest("the body is not valid YAML: " + err.Error())
	}
	known := map[*yaml.Node]int{}
	if expanded(&doc, known) > maxYAMLValues {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the aliases of the body stand for more than %d values: write it without them", maxYAMLValues))
	}
	return nil
}

// expanded counts the values of a node without aliases, up to just above the
// bound. known are those counted; a node that is being counted is too large,
// for it holds itself.
func expanded(n *yaml.Node, known map[*yaml.Node]int) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if count, ok := known[n]; ok {
		return count
	}
	const tooMany = maxYAMLValues + 1
	known[n] = tooMany
	count := 1
	for _, child := range n.Content {
		if count += expanded(child, known); count >= tooMany {
			return tooMany
		}
	}
	known[n] = count
	return count
}

// checkDigits refuses a body with numbers that are far too long.
func checkDigits(body []byte) error {
	const stride = 512 // no shorter number matters
	sum := 0
	for at := stride; at < len(body); {
		end := numberEnd(body, at)
		if run := end - at + stride; end > at {
			if sum += run * run; sum > maxDigits*maxDigits {
				return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the body holds a number of more than %d digits", maxDigits))
			}
		}
		at = end + stride
	}
	return nil
}

// numberEnd returns where the number ends that the byte at i may be a part of:
// i itself if it is none. Escapes may stand for digits, and in YAML for a line
// that goes on.
func numberEnd(body []byte, i int) int {
	for ; i < len(body); i++ {
		c := body[i]
		if c >= '0' && c <= '9' || c == '.' {
			continue
		}
		if c != '\\' || i+1 == len(body) {
			return i
		}
		i++
		switch body[i] {
		case 'u', 'x':
		case '\r', '\n':
			for i+1 < len(body) && (body[i+1] == ' ' || body[i+1] == '\t' || body[i+1] == '\r' || body[i+1] == '\n') {
				i++
			}
		default:
			return i
		}
	}
	return i
}

// checkPairs refuses a strategic merge patch whose lists are too long for the
// lists of the object.
func checkPairs(patch, object any) error {
	_, longest := lists(reflect.ValueOf(object))
	sum, own := lists(reflect.ValueOf(patch))
	if sum*(own+longest) <= maxPairs {
		return nil
	}
	return apierrors.NewRequestEntityTooLargeError(
		"the lists of the strategic merge patch are too long: use a merge patch, which replaces them")
}

// lists counts the entries of all lists in v, and those of the longest.
func lists(v reflect.Value) (sum, longest int) {
	add := func(v reflect.Value) {
		n, long := lists(v)
		sum, longest = sum+n, max(longest, long)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			add(v.Elem())
		}
	case reflect.Map:
		if flat(v.Type().Elem()) {
			break
		}
		for it := v.MapRange(); it.Next(); {
			add(it.Value())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			break
		}
		sum, longest = v.Len(), v.Len()
		for i := 0; i < v.Len() && !flat(v.Type().Elem()); i++ {
			add(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				add(v.Field(i))
			}
		}
	}
	return sum, longest
}

// checkSquares refuses an object with so many members in one place that work
// which grows with their square would take too long.
func checkSquares(v any) error {
	if squares(reflect.ValueOf(v)) <= maxSquares {
		return nil
	}
	return apierrors.NewRequestEntityTooLargeError(
		"the object has too many fields or entries in one place to be applied: use an update or a merge patch")
}

// squares adds up the squares of how many members objects and lists have.
func squares(v reflect.Value) (sum int) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return squares(v.Elem())
		}
	case reflect.Map:
		sum = v.Len() * v.Len()
		if flat(v.Type().Elem()) {
			return sum
		}
		for it := v.MapRange(); it.Next(); {
			sum += squares(it.Value())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return 0
		}
		sum = v.Len() * v.Len()
		if flat(v.Type().Elem()) {
			return sum
		}
		for i := range v.Len() {
			sum += squares(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				sum += squares(v.Field(i))
			}
		}
	}
	return sum
}

// flat says that values of a type have no members.
func flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice, reflect.Struct:
		return false
	}
	return true
}
