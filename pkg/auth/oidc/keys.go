package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/utils/clock"
)

const (
	// fetchLimit is how long both documents of an issuer may take together, and
	// maxDocument how large each may be.
	fetchLimit  = 5 * time.Second
	maxDocument = 1 << 20
	// maxKeys bounds the keys that one issuer may have.
	maxKeys = 64
	// fetchPause is the time between two fetches, whatever tokens ask for.
	fetchPause = 10 * time.Second
	// keysAge is when keys are fetched anew, so that a key that the issuer
	// withdrew does not count for ever.
	keysAge = time.Hour
)

// keyring holds the keys of one issuer. They are fetched when a token first
// needs them, when a token names an unknown one, and when they have become old;
// never more often than every fetchPause.
type keyring struct {
	config Config
	client *http.Client
	clock  clock.PassiveClock

	mu      sync.Mutex
	keys    []jose.JSONWebKey // of the last fetch that succeeded
	fetched time.Time         // when that was; zero for never
	tried   time.Time         // when the last fetch began
	err     error             // why it failed
	running chan struct{}     // closed when the fetch under way has ended; nil for none
}

func newKeyring(c Config, clk clock.PassiveClock) (*keyring, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(c.CA) > 0 {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, fmt.Errorf("the authority of the issuer %s holds no certificate in PEM", c.IssuerURL)
		}
	}
	return &keyring{config: c, clock: clk, client: &http.Client{
		Timeout: fetchLimit,
		Transport: &http.Transport{
			TLSClientConfig: t, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
			Proxy: http.ProxyFromEnvironment,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("issuers are not followed to other addresses")
		},
	}}, nil
}

// find returns the keys that a token with this header may be signed with. It
// waits for a fetch where one may help, as long as ctx lets it.
func (k *keyring) find(ctx context.Context, id, algorithm string) ([]jose.JSONWebKey, error) {
	for range 2 {
		found, wait, err := k.look(id, algorithm)
		if wait == nil {
			return found, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the keys of the issuer %s: %w", k.config.IssuerURL, ctx.Err())
		}
	}
	found, _, err := k.look(id, algorithm)
	return found, err
}

// look returns what is known, or a channel to wait on before it is worth asking
// again. Old keys serve while new ones are fetched.
func (k *keyring) look(id, algorithm string) ([]jose.JSONWebKey, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := candidates(k.keys, id, algorithm)
	now := k.clock.Now()
	old := k.fetched.IsZero() || now.Sub(k.fetched) > keysAge
	if (len(found) == 0 || old) && k.running == nil && (k.tried.IsZero() || now.Sub(k.tried) >= fetchPause) {
		k.tried, k.running = now, make(chan struct{})
		go k.fetch(k.running)
	}
	switch {
	case len(found) > 0:
		return found, nil, nil
	case k.running != nil:
		return nil, k.running, nil
	case k.err != nil:
		return nil, nil, fmt.Errorf("the keys of the issuer %s could not be fetched: %w", k.config.IssuerURL, k.err)
	default:
		return nil, nil, fmt.Errorf("%w: the issuer %s has no key %q for %s", ErrInvalid, k.config.IssuerURL, id, algorithm)
	}
}

// candidates are the keys of this id, all when the token names none, that fit
// the algorithm.
func candidates(keys []jose.JSONWebKey, id, algorithm string) []jose.JSONWebKey {
	var out []jose.JSONWebKey
	for _, key := range keys {
		if (id == "" || key.KeyID == id) && (key.Algorithm == "" || key.Algorithm == algorithm) && fits(key.Key, algorithm) {
			out = append(out, key)
		}
	}
	return out
}

// fits keeps an algorithm from being used with a key of another kind.
func fits(key any, algorithm string) bool {
	switch key.(type) {
	case *rsa.PublicKey:
		return algorithm[0] == 'R' || algorithm[0] == 'P'
	case *ecdsa.PublicKey:
		return algorithm[0] == 'E'
	}
	return false // a shared secret verifies nothing here
}

// fetch asks the issuer. It outlives the request that began it, since others
// wait for it too, and ends within fetchLimit.
func (k *keyring) fetch(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	keys, err := k.ask(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err == nil {
		k.keys, k.fetched = keys, k.clock.Now()
	}
	k.running = nil
	close(done)
}

func (k *keyring) ask(ctx context.Context) ([]jose.JSONWebKey, error) {
	var doc struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := k.get(ctx, k.config.discovery(), &doc); err != nil {
		return nil, err
	}
	if doc.Issuer != k.config.IssuerURL {
		return nil, fmt.Errorf("its discovery document is of the issuer %.200q", doc.Issuer)
	}
	if err := checkURL(doc.JWKSURI); err != nil {
		return nil, fmt.Errorf("the address of its keys: %w", err)
	}
	// One key of a kind that is not known here takes no other with it.
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := k.get(ctx, doc.JWKSURI, &raw); err != nil {
		return nil, err
	}
	if len(raw.Keys) > maxKeys {
		return nil, fmt.Errorf("it has %d keys: at most %d are read", len(raw.Keys), maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, text := range raw.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(text) == nil && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no keys to verify signatures with")
	}
	return keys, nil
}

func (k *keyring) get(ctx context.Context, address string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("read %s: %w", address, err)
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers with status %d", address, resp.StatusCode)
	case len(body) > maxDocument:
		return fmt.Errorf("%s answers with more than %d bytes", address, maxDocument)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s does not answer with the JSON expected", address)
	}
	return nil
}
