// Package image brings the images of containers onto the node.
//
// Ensure applies the pull policy, credentials, a bound on parallel pulls, and
// back-off: after a failed pull the same pod waits 10 s, then twice as long
// each time up to 300 s, before the registry is asked again. The wait is told
// to the caller, not slept. Pulls of different images and pods do not hold each
// other up beyond the bound.
package image

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/lifecycle"
)

const (
	firstDelay      = 10 * time.Second
	maxDelay        = 300 * time.Second
	defaultParallel = 8
)

// Config is what a Manager needs.
type Config struct {
	// Runtime holds the images. Required.
	Runtime cri.Images
	// Secret reads a Secret, for credentials. Nil means that there are none.
	Secret func(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Closed says that the node has no way out of its cluster. Policy Always
	// then takes an image that is on the node when the registry cannot be
	// reached: it was loaded there because it cannot be pulled.
	Closed bool
	// Parallel bounds the pulls under way, 8 if 0.
	Parallel int
	// Clock is the real clock if nil, Log discards if nil.
	Clock clock.PassiveClock
	Log   *slog.Logger
}

// Manager brings images. Its methods may be called concurrently.
type Manager struct {
	cfg   Config
	slots chan struct{}

	mu       sync.Mutex
	failures map[key]failure // guarded by mu
}

type key struct {
	pod   types.UID
	image string
}

type failure struct {
	delay   time.Duration
	retryAt time.Time
}

// New makes a Manager.
func New(cfg Config) *Manager {
	if cfg.Parallel == 0 {
		cfg.Parallel = defaultParallel
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Manager{cfg: cfg, slots: make(chan struct{}, cfg.Parallel), failures: map[key]failure{}}
}

// Error says why an image is not there.
type Error struct {
	Reason  string    // a waiting reason: ErrImagePull, ErrImageNeverPull, InvalidImageName, ImageInspectError
	Message string    // for the user
	RetryAt time.Time // when to try again
}

func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Request asks for the image of one container.
type Request struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Sandbox   *runtimeapi.PodSandboxConfig
	// Event reports progress to the user: type, reason, message. May be nil.
	Event func(eventType, reason, message string)
}

// Ensure returns the image of a container once it is on the node. The error is
// an *Error, or that of ctx.
func (m *Manager) Ensure(ctx context.Context, req Request) (*runtimeapi.Image, error) {
	name := req.Container.Image
	ref, err := Normalize(name)
	if err != nil {
		return nil, &Error{Reason: lifecycle.ReasonInvalidImageName, RetryAt: m.cfg.Clock.Now().Add(maxDelay),
			Message: fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", name, name, err)}
	}
	image, err := m.cfg.Runtime.ImageStatus(ctx, ref)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &Error{Reason: "ImageInspectError", Message: fmt.Sprintf("Failed to inspect image %q: %s", name, cri.Reason(err)),
			RetryAt: m.cfg.Clock.Now().Add(firstDelay)}
	}
	policy := Policy(req.Container)
	if image != nil && policy != corev1.PullAlways {
		m.event(req, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", name))
		return image, nil
	}
	if policy == corev1.PullNever {
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", name)
		m.event(req, corev1.EventTypeWarning, "ErrImageNeverPull", message)
		return nil, &Error{Reason: lifecycle.ReasonErrImageNeverPull, Message: message, RetryAt: m.cfg.Clock.Now().Add(firstDelay)}
	}
	return m.pull(ctx, req, ref, image)
}

// pull brings the image; have is the one that is on the node already, or nil.
func (m *Manager) pull(ctx context.Context, req Request, ref string, have *runtimeapi.Image) (*runtimeapi.Image, error) {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-m.slots }()
	name := req.Container.Image
	begin := m.cfg.Clock.Now()
	m.event(req, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", name))
	err := m.tryPull(ctx, req, ref)
	var image *runtimeapi.Image
	if err == nil {
		if image, err = m.cfg.Runtime.ImageStatus(ctx, ref); err == nil && image == nil {
			err = fmt.Errorf("the runtime pulled %q and does not have it", name)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if m.cfg.Closed && have != nil && unreachable(redact(cri.Reason(err))) {
			m.event(req, corev1.EventTypeNormal, "Pulled", fmt.Sprintf(
				"Using the image %q that was loaded into this node: its registry cannot be reached from a closed cluster", name))
			return have, nil
		}
		return nil, m.failed(req, err)
	}
	m.mu.Lock()
	delete(m.failures, key{req.Pod.UID, name})
	m.mu.Unlock()
	m.event(req, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s. Image size: %d bytes.",
		name, m.cfg.Clock.Since(begin).Round(time.Millisecond), image.GetSize()))
	return image, nil
}

// tryPull pulls with each credential that fits the registry, or with none.
func (m *Manager) tryPull(ctx context.Context, req Request, ref string) error {
	auths := m.credentials(ctx, req.Pod, ref)
	if len(auths) == 0 {
		auths = []*runtimeapi.AuthConfig{nil}
	}
	var err error
	for _, auth := range auths {
		if _, err = m.cfg.Runtime.PullImage(ctx, ref, auth, req.Sandbox); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// failed remembers a failed pull and explains it.
func (m *Manager) failed(req Request, err error) *Error {
	name := req.Container.Image
	message := redact(cri.Reason(err))
	if unreachable(message) {
		message += fmt.Sprintf(". The registry cannot be reached from the nodes: clusters are closed unless created with --egress. "+
			"Fetch the image on the host and load it into the nodes with `ctl image pull %s`, or create the cluster with --egress", name)
	}
	now := m.cfg.Clock.Now()
	m.mu.Lock()
	k := key{req.Pod.UID, name}
	f := m.failures[k]
	switch {
	case f.delay == 0 || now.Sub(f.retryAt) > 2*maxDelay:
		f.delay = firstDelay
	default:
		f.delay = min(2*f.delay, maxDelay)
	}
	f.retryAt = now.Add(f.delay)
	m.failures[k] = f
	m.mu.Unlock()
	m.event(req, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", name, message))
	m.event(req, corev1.EventTypeWarning, "Failed", "Error: "+lifecycle.ReasonErrImagePull)
	return &Error{Reason: lifecycle.ReasonErrImagePull, Message: message, RetryAt: f.retryAt}
}

// Forget drops what is remembered about the pulls of a pod.
func (m *Manager) Forget(pod types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.failures {
		if k.pod == pod {
			delete(m.failures, k)
		}
	}
}

func (m *Manager) event(req Request, eventType, reason, message string) {
	if req.Event != nil {
		req.Event(eventType, reason, message)
	}
}

// Policy returns the pull policy of a container, by its tag when it says none.
func Policy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	named, err := reference.ParseNormalizedNamed(c.Image)
	if err != nil {
		return corev1.PullIfNotPresent
	}
	if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok && tagged.Tag() == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// Normalize adds the tag "latest" to a name without tag and digest, and
// refuses what is no image name. An image id ("sha256:...") stays as it is.
func Normalize(name string) (string, error) {
	if strings.HasPrefix(name, "sha256:") {
		return name, nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	if reference.IsNameOnly(named) {
		return name + ":latest", nil
	}
	return name, nil
}

// unreachable tells whether a pull failed because there is no way to the
// registry, as opposed to the registry's saying no.
func unreachable(message string) bool {
	for _, sign := range []string{
		"no such host", "server misbehaving", "name resolution", "network is unreachable", "no route to host",
		"connection refused", "i/o timeout", "dial tcp", "TLS handshake timeout",
	} {
		if strings.Contains(message, sign) {
			return true
		}
	}
	return false
}

// redact removes user names and passwords from URLs.
func redact(message string) string {
	for from := 0; ; {
		i := strings.Index(message[from:], "://")
		if i < 0 {
			return message
		}
		begin := from + i + len("://")
		end := begin + strings.IndexAny(message[begin:]+"/", "/ \"'?#")
		if at := strings.LastIndexByte(message[begin:end], '@'); at >= 0 {
			message = message[:begin] + "***" + message[begin+at:]
			end = begin + len("***")
		}
		from = end
	}
}
