package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// PullOptions say how a registry is reached.
type PullOptions struct {
	// PlainHTTP allows a registry without TLS. Loopback registries never
	// need it.
	PlainHTTP bool
	// Transport is used for all requests; nil means the default.
	Transport http.RoundTripper
	// Arch is a GOARCH; empty means this machine's.
	Arch string
}

// Pull finds ref in its registry, with the credentials of the user's Docker
// configuration. Layers are fetched when the image is loaded or saved, within
// ctx.
func Pull(ctx context.Context, ref string, opts PullOptions) (Named, error) {
	full, err := Reference(ref)
	if err != nil {
		return Named{}, err
	}
	var nameOpts []name.Option
	if opts.PlainHTTP {
		nameOpts = append(nameOpts, name.Insecure)
	}
	r, err := name.ParseReference(full, nameOpts...)
	if err != nil {
		return Named{}, fmt.Errorf("image reference %q is not valid: %w", ref, err)
	}
	arch := opts.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	remoteOpts := []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}),
	}
	if opts.Transport != nil {
		remoteOpts = append(remoteOpts, remote.WithTransport(opts.Transport))
	}
	img, err := remote.Image(r, remoteOpts...)
	if err != nil {
		return Named{}, pullError(full, err)
	}
	return Named{Ref: full, Image: img}, nil
}

// pullError says what a registry's refusal means for the user.
func pullError(ref string, err error) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("pull image %s: %w", ref, err)
	}
	switch refused.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("pull image %s: the registry has no such image; check the name and the tag", ref)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("pull image %s: the registry refuses access; the image may not exist, or log in with \"docker login\" or another tool that writes ~/.docker/config.json: %w", ref, err)
	default:
		return fmt.Errorf("pull image %s: %w", ref, err)
	}
}
