package image

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry returns a registry that keeps its images in memory, for tests: serve
// it with net/http/httptest.
func Registry() http.Handler {
	return registry.New(registry.Logger(log.New(io.Discard, "", 0)))
}

// Push uploads an image to the registry in its reference.
func Push(ctx context.Context, n Named) error {
	r, err := name.ParseReference(n.Ref)
	if err != nil {
		return fmt.Errorf("image reference %q is not valid: %w", n.Ref, err)
	}
	if err := remote.Write(r, n.Image, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push image %s: %w", n.Ref, err)
	}
	return nil
}
