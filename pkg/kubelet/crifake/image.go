package crifake

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// AddImage puts an image on the node, as a load would.
func (r *Runtime) AddImage(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[name] = &runtimeapi.Image{Id: reference(name), RepoTags: []string{name}, Size: 1 << 20}
}

// reference makes a digest out of a name.
func reference(name string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))) }

// image needs mu. It finds an image by name or by id.
func (r *Runtime) image(name string) *runtimeapi.Image {
	if i := r.images[name]; i != nil {
		return i
	}
	for _, i := range r.images {
		if i.Id == name {
			return i
		}
	}
	return nil
}

// ListImages implements cri.Images.
func (r *Runtime) ListImages(ctx context.Context) ([]*runtimeapi.Image, error) {
	if err := r.enter(ctx, Call{Method: "ListImages"}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*runtimeapi.Image, 0, len(r.images))
	for _, i := range r.images {
		out = append(out, i)
	}
	return out, nil
}

// ImageStatus implements cri.Images.
func (r *Runtime) ImageStatus(ctx context.Context, image string) (*runtimeapi.Image, error) {
	if err := r.enter(ctx, Call{Method: "ImageStatus", Image: image}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.image(image), nil
}

// PullImage implements cri.Images.
func (r *Runtime) PullImage(ctx context.Context, image string, _ *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	if err := r.enter(ctx, Call{Method: "PullImage", Image: image, PodUID: sandbox.GetMetadata().GetUid()}); err != nil {
		return "", err
	}
	if err := r.wait(ctx, r.cfg.PullLatency); err != nil {
		return "", err
	}
	switch name, _, _ := strings.Cut(image, ":"); {
	case strings.HasSuffix(name, "fake/missing"):
		return "", status.Errorf(codes.NotFound, "failed to resolve reference %q: %s: not found", image, image)
	case strings.HasSuffix(name, "fake/denied"):
		return "", status.Errorf(codes.Unknown, "pull access denied, repository does not exist or may require authorization: authorization failed")
	case strings.HasSuffix(name, "fake/unreachable"):
		return "", status.Errorf(codes.Unknown, "failed to do request: Head %q: dial tcp: lookup registry.invalid: no such host", image)
	}
	r.AddImage(image)
	return reference(image), nil
}

// RemoveImage implements cri.Images.
func (r *Runtime) RemoveImage(ctx context.Context, image string) error {
	if err := r.enter(ctx, Call{Method: "RemoveImage", Image: image}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, i := range r.images {
		if name == image || i.Id == image {
			delete(r.images, name)
		}
	}
	return nil
}

// ImageFsInfo implements cri.Images.
func (r *Runtime) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{}, r.enter(ctx, Call{Method: "ImageFsInfo"})
}

// noStreams is the answer to what needs a process.
func noStreams(what string) error {
	return status.Errorf(codes.Unimplemented, "%s needs a real container; this node is simulated", what)
}

// Exec implements cri.Streams.
func (r *Runtime) Exec(context.Context, *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return nil, noStreams("exec")
}

// Attach implements cri.Streams.
func (r *Runtime) Attach(context.Context, *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return nil, noStreams("attach")
}

// PortForward implements cri.Streams.
func (r *Runtime) PortForward(context.Context, *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return nil, noStreams("port-forward")
}
