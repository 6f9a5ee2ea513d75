package image

import (
	"fmt"

	"github.com/distribution/reference"
)

// Reference returns the full form of an image reference, as a node's runtime
// knows it: busybox becomes docker.io/library/busybox:latest.
func Reference(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image reference %q is not valid: %w", ref, err)
	}
	return named.String(), nil
}
