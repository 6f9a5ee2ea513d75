package volume

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// defaultTokenSeconds is how long a token lives that says nothing about it.
const defaultTokenSeconds = 3600

// maxTokenAge makes long-lived tokens new every day.
const maxTokenAge = 24 * time.Hour

// addToken adds a service account token bound to the pod.
func (m *Manager) addToken(ctx context.Context, r request, p *payload, src *corev1.ServiceAccountTokenProjection) error {
	key := podToken(r.pod, src.Audience, src.ExpirationSeconds)
	token, _, err := m.tokens.get(ctx, key)
	if err != nil {
		return fmt.Errorf("token of service account %q: %w", key.account, err)
	}
	mode, user := p.secret(r.pod, src.User)
	return p.add(src.Path, []byte(token), &mode, user)
}

// secret is the mode and the owner of a file that is the pod's identity: it is
// readable by its one user, the one who is asked for or the one that all
// containers run as; otherwise, as the volume says, since the containers run as
// users that only their images name.
func (p *payload) secret(pod *corev1.Pod, asked *int64) (mode int32, user *int64) {
	mode, user = p.mode, p.user
	if asked != nil {
		user = asked
	}
	if user == nil {
		user = singleUser(pod)
	}
	if user != nil || fsGroup(pod) != nil {
		mode = 0o600
	}
	return mode, user
}

// podToken is a token of the pod's service account, bound to the pod.
func podToken(pod *corev1.Pod, audience string, seconds *int64) tokenKey {
	key := tokenKey{
		pod: pod.UID, namespace: pod.Namespace, podName: pod.Name,
		account: pod.Spec.ServiceAccountName, audience: audience, seconds: defaultTokenSeconds,
	}
	if key.account == "" {
		key.account = "default"
	}
	if seconds != nil {
		key.seconds = *seconds
	}
	return key
}

// singleUser is the user that all containers of the pod run as, nil if they
// differ or if one leaves it to its image.
func singleUser(pod *corev1.Pod) *int64 {
	var user *int64
	containers := append(append([]corev1.Container(nil), pod.Spec.InitContainers...), pod.Spec.Containers...)
	for i := range containers {
		own := containers[i].SecurityContext
		var as *int64
		if pod.Spec.SecurityContext != nil {
			as = pod.Spec.SecurityContext.RunAsUser
		}
		if own != nil && own.RunAsUser != nil {
			as = own.RunAsUser
		}
		if as == nil || user != nil && *user != *as {
			return nil
		}
		user = as
	}
	return user
}

// tokenKey is what makes two uses of a token the same token.
type tokenKey struct {
	pod                types.UID
	namespace, podName string
	account, audience  string
	seconds            int64
}

type token struct {
	mu      sync.Mutex // held while the token is fetched
	value   string
	issued  time.Time
	expires time.Time
}

// tokens hands out service account tokens and renews each when four fifths of
// its life, or a day, have passed.
type tokens struct {
	client kubernetes.Interface
	clock  clock.PassiveClock
	log    *slog.Logger

	mu     sync.Mutex
	tokens map[tokenKey]*token // guarded by mu
}

func newTokens(client kubernetes.Interface, clock clock.PassiveClock, log *slog.Logger) *tokens {
	return &tokens{client: client, clock: clock, log: log, tokens: make(map[tokenKey]*token)}
}

// get gives a token and when it expires.
func (t *tokens) get(ctx context.Context, key tokenKey) (string, time.Time, error) {
	t.mu.Lock()
	tok := t.tokens[key]
	if tok == nil {
		tok = new(token)
		t.tokens[key] = tok
	}
	t.mu.Unlock()

	tok.mu.Lock()
	defer tok.mu.Unlock()
	now := t.clock.Now()
	if tok.value != "" && !due(tok.issued, tok.expires, now) {
		return tok.value, tok.expires, nil
	}
	fresh, err := t.request(ctx, key)
	if err != nil {
		if tok.value != "" && now.Before(tok.expires) {
			t.log.Warn("a token could not be renewed and stays in use", "namespace", key.namespace, "serviceAccount", key.account, "err", err)
			return tok.value, tok.expires, nil
		}
		return "", time.Time{}, err
	}
	tok.value, tok.issued, tok.expires = fresh.Status.Token, now, fresh.Status.ExpirationTimestamp.Time
	return tok.value, tok.expires, nil
}

// due reports whether a token should be renewed.
func due(issued, expires, now time.Time) bool {
	life := expires.Sub(issued)
	return now.Sub(issued) > maxTokenAge || !now.Before(issued.Add(life*4/5))
}

func (t *tokens) request(ctx context.Context, key tokenKey) (*authenticationv1.TokenRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &key.seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: key.podName, UID: key.pod,
		},
	}}
	if key.audience != "" {
		req.Spec.Audiences = []string{key.audience}
	}
	fresh, err := t.client.CoreV1().ServiceAccounts(key.namespace).CreateToken(ctx, key.account, req, metav1.CreateOptions{})
	return fresh, answered(err)
}

// forget drops the tokens of a pod.
func (t *tokens) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.tokens {
		if key.pod == uid {
			delete(t.tokens, key)
		}
	}
}
