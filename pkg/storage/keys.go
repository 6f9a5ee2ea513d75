package storage

import (
	"fmt"
	"strings"
)

// Root is the prefix of all keys.
const Root = "/registry/"

// Key is the key of an object: /registry/<resource>/<namespace>/<name>, or
// without the namespace for a cluster-scoped one. The resource is the path
// below Root that the kind's table entry names, for example "pods" or
// "services/specs". Example: Key("pods", "default", "web-0").
// The error wraps ErrInvalidKey when a part could leave its prefix.
func Key(resource, namespace, name string) (string, error) {
	prefix, err := Prefix(resource, namespace)
	if err != nil {
		return "", err
	}
	if err := CheckSegment(name); err != nil {
		return "", fmt.Errorf("name %q: %w", name, err)
	}
	return prefix + name, nil
}

// Prefix is the prefix of the keys of a resource, or of its objects in one
// namespace when namespace is not empty. It always ends with a slash, so that
// namespace ns1 never covers ns10.
func Prefix(resource, namespace string) (string, error) {
	for part := range strings.SplitSeq(resource, "/") {
		if err := CheckSegment(part); err != nil {
			return "", fmt.Errorf("resource %q: %w", resource, err)
		}
	}
	if namespace == "" {
		return Root + resource + "/", nil
	}
	if err := CheckSegment(namespace); err != nil {
		return "", fmt.Errorf("namespace %q: %w", namespace, err)
	}
	return Root + resource + "/" + namespace + "/", nil
}

// CheckSegment says whether s can stand between two slashes of a key without
// changing what the key means: it is not empty, not "." or "..", and has no
// slash, percent sign, NUL or other control character. It is a guard below the
// validation of names, which is stricter. The error wraps ErrInvalidKey.
func CheckSegment(s string) error {
	switch s {
	case "":
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	case ".", "..":
		return fmt.Errorf("%w: it may not be %q", ErrInvalidKey, s)
	}
	if len(s) > 1024 {
		return fmt.Errorf("%w: it is longer than 1024 bytes", ErrInvalidKey)
	}
	for i := range len(s) {
		if c := s[i]; c == '/' || c == '%' || c < 0x20 || c == 0x7f {
			return fmt.Errorf("%w: it may not contain %q", ErrInvalidKey, c)
		}
	}
	return nil
}

// CheckAfter says whether key can be the StartAfter of a page under prefix: it
// begins with the prefix and every segment after it is valid. It guards
// continue tokens, which come from clients. The error wraps ErrInvalidKey.
func CheckAfter(prefix, key string) error {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return fmt.Errorf("%w: %q is not under %q", ErrInvalidKey, key, prefix)
	}
	for part := range strings.SplitSeq(rest, "/") {
		if err := CheckSegment(part); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}
