package component

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
	"coracle/pkg/pki"
)

const (
	// remembered is how long an answer of the API server holds, and maxRemembered
	// how many are kept.
	remembered    = 10 * time.Second
	maxRemembered = 1024
	// askTimeout bounds each question to the API server, trustPeriod is the time
	// between looks at whom it trusts.
	askTimeout  = 10 * time.Second
	trustPeriod = time.Minute
)

// trust knows who asks and what they may, as the API server says.
type trust struct {
	role   *Role
	own    []byte // authorities of --client-ca-file, PEM
	access memory[authorizationv1.SubjectAccessReviewStatus]
	tokens memory[*auth.TokenInfo]
	// known authenticates by what the API server published last.
	known atomic.Pointer[auth.Authenticator]
}

func newTrust(r *Role) (*trust, error) {
	t := &trust{role: r}
	if r.ClientCAFile != "" {
		var err error
		if t.own, err = os.ReadFile(r.ClientCAFile); err != nil {
			return nil, fmt.Errorf("read --client-ca-file: %w", err)
		}
		if _, err := pki.ParseCertificates(t.own); err != nil {
			return nil, fmt.Errorf("read --client-ca-file %s: %w", r.ClientCAFile, err)
		}
	}
	return t, t.believe(nil)
}

// believe takes over whom the API server trusts, as it publishes it for servers
// behind it.
func (t *trust) believe(published map[string]string) error {
	config := auth.Config{Tokens: t, Anonymous: auth.AnonymousEverywhere}
	if bundle := append(append([]byte{}, t.own...), published["client-ca-file"]...); len(bundle) > 0 {
		var clients pki.LivePool
		if err := clients.Set(bundle); err != nil {
			return fmt.Errorf("read the authorities of clients: %w", err)
		}
		config.Certificates = &auth.ClientCertificates{Roots: clients.Pool}
	}
	if bundle := published["requestheader-client-ca-file"]; bundle != "" {
		var proxies pki.LivePool
		if err := proxies.Set([]byte(bundle)); err != nil {
			return fmt.Errorf("read the authorities of front proxies: %w", err)
		}
		f := &auth.FrontProxy{Roots: proxies.Pool}
		for key, into := range map[string]*[]string{
			"requestheader-allowed-names": &f.AllowedNames, "requestheader-username-headers": &f.UserHeaders,
			"requestheader-uid-headers": &f.UIDHeaders, "requestheader-group-headers": &f.GroupHeaders,
			"requestheader-extra-headers-prefix": &f.ExtraPrefixes,
		} {
			if text := published[key]; text != "" {
				if err := json.Unmarshal([]byte(text), into); err != nil {
					return fmt.Errorf("read %s: %w", key, err)
				}
			}
		}
		config.FrontProxy = f
	}
	made := auth.New(config)
	t.known.Store(&made)
	return nil
}

// run follows whom the API server trusts until ctx ends.
func (t *trust) run(ctx context.Context) error {
	tick := time.NewTicker(trustPeriod)
	defer tick.Stop()
	var had map[string]string
	for {
		published, err := t.published(ctx)
		if err == nil && !maps.Equal(had, published) {
			if err = t.believe(published); err == nil {
				had = published
			}
		}
		if err != nil && ctx.Err() == nil {
			t.role.Log.Warn("whom the API server trusts could not be read: the last that was read holds", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (t *trust) published(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	m, err := t.role.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

// AuthenticateToken implements auth.TokenAuthenticator by asking the API server.
func (t *trust) AuthenticateToken(ctx context.Context, token string, _ []string) (*auth.TokenInfo, bool, error) {
	info, err := t.tokens.get(token, time.Now(), func() (*auth.TokenInfo, error) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
		answer, err := t.role.Client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("ask the API server about a token: %w", err)
		}
		if !answer.Status.Authenticated {
			return nil, nil
		}
		u := answer.Status.User
		user := &auth.User{Name: u.Username, UID: u.UID, Groups: u.Groups, Extra: map[string][]string{}}
		for k, v := range u.Extra {
			user.Extra[k] = v
		}
		return &auth.TokenInfo{User: user}, nil
	})
	return info, info != nil, err
}

// may asks the API server for permission.
func (t *trust) may(ctx context.Context, a auth.Attributes) (allowed bool, reason string, err error) {
	spec := authorizationv1.SubjectAccessReviewSpec{User: a.User.Name, UID: a.User.UID, Groups: a.User.Groups, Extra: map[string]authorizationv1.ExtraValue{}}
	for k, v := range a.User.Extra {
		spec.Extra[k] = v
	}
	if a.ResourceRequest {
		spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Namespace: a.Namespace, Verb: a.Verb, Group: a.APIGroup, Version: a.APIVersion, Resource: a.Resource, Name: a.Name,
		}
	} else {
		spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: a.Path, Verb: a.Verb}
	}
	key, err := json.Marshal(spec)
	if err != nil {
		return false, "", err
	}
	status, err := t.access.get(string(key), time.Now(), func() (authorizationv1.SubjectAccessReviewStatus, error) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		answer, err := t.role.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			return authorizationv1.SubjectAccessReviewStatus{}, err
		}
		return answer.Status, nil
	})
	return status.Allowed && !status.Denied, status.Reason, err
}

// memory keeps answers for a while. Its zero value is ready; it is safe for
// concurrent use.
type memory[V any] struct {
	mu    sync.Mutex
	known map[string]answer[V] // guarded by mu
}

type answer[V any] struct {
	value V
	until time.Time
}

// get returns what is remembered for a key, or asks. Errors are not remembered.
func (m *memory[V]) get(key string, now time.Time, ask func() (V, error)) (V, error) {
	m.mu.Lock()
	had, ok := m.known[key]
	m.mu.Unlock()
	if ok && now.Before(had.until) {
		return had.value, nil
	}
	value, err := ask()
	if err != nil {
		return value, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= maxRemembered || m.known == nil {
		m.known = map[string]answer[V]{}
	}
	m.known[key] = answer[V]{value, now.Add(remembered)}
	return value, nil
}
