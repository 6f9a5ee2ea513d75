package registry

import (
	"bytes"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Bounds of how many values a body may hold. An object of the largest size
// that the store takes has some ten thousand; a few megabytes of brackets
// would have a million, of which each costs a hundred times its bytes to read.
const (
	maxValues = 100_000
	// maxYAMLValues is for documents that are not JSON, which cost more. It
	// counts in text too, as only a parser could tell what is text there.
	maxYAMLValues  = 60_000
	maxPatchValues = 50_000
)

// checkWidth refuses a body with too many values before anything is made of
// it.
func checkWidth(body []byte, media MediaType) error {
	switch {
	case media == Protobuf:
		return nil
	case looksLikeJSON(body):
		return bound(countJSON(body), maxValues, "use fewer fields and list entries")
	case media == YAML:
		return bound(countYAML(body), maxYAMLValues, "use fewer fields and list entries, or send it as JSON if that is text")
	}
	return nil
}

// checkPatchWidth is checkWidth of a patch, of which more is made.
func checkPatchWidth(patch []byte) error {
	return bound(countJSON(patch), maxPatchValues, "use several patches")
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

// countJSON counts what begins a value of a JSON document, outside of strings.
func countJSON(body []byte) (values int) {
	inText := false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case !inText && (c == ',' || c == '[' || c == '{'):
			values++
		}
	}
	return values
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
