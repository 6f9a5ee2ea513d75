package certificate

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	typedcertificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"

	"coracle/pkg/pki"
)

// errRefused ends a request for good: the next has a new key.
var errRefused = errors.New("the request was refused")

// callTimeout bounds one call of the API server.
const callTimeout = 30 * time.Second

// renew asks for a certificate, waits for it, and puts it into file and Live.
func (m *Manager) renew(ctx context.Context, want *x509.CertificateRequest) error {
	current := m.cfg.Live.Leaf()
	if unfit(current, nil, m.cfg.Clock.Now()) != "" {
		current = nil
	}
	client, err := m.cfg.Client(current)
	if err != nil {
		return fmt.Errorf("make the client that asks for a certificate: %w", err)
	}
	key, keyPEM, err := m.store.pendingKey(m.cfg.Rand)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	request, err := m.request(want, key)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	certPEM, err := ask(waiting, client.CertificatesV1().CertificateSigningRequests(), request)
	if err == nil {
		err = m.accept(certPEM, keyPEM, want)
	}
	if errors.Is(err, errRefused) {
		return errors.Join(err, m.store.forget())
	}
	return err
}

// request is the object that is created.
func (m *Manager) request(want *x509.CertificateRequest, key crypto.Signer) (*certificatesv1.CertificateSigningRequest, error) {
	der, err := x509.CreateCertificateRequest(m.cfg.Rand, want, key)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	r := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: requestName(m.cfg.Signer, csr)},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: m.cfg.Signer, Usages: m.cfg.Usages,
		},
	}
	if m.cfg.Lifetime > 0 {
		seconds := int32(m.cfg.Lifetime / time.Second)
		r.Spec.ExpirationSeconds = &seconds
	}
	return r, nil
}

// accept puts a certificate into force, if it is what was asked for.
func (m *Manager) accept(certPEM, keyPEM []byte, want *x509.CertificateRequest) error {
	pair, err := pki.ParsePair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("%w: its certificate is not for its key: %w", errRefused, err)
	}
	if why := unfit(pair.Cert, want, m.cfg.Clock.Now()); why != "" {
		return fmt.Errorf("%w: its certificate is not the one that was asked for: %s", errRefused, why)
	}
	if err := m.store.save(pair); err != nil {
		return fmt.Errorf("keep the new certificate: %w", err)
	}
	return m.cfg.Live.Set(pair.CertPEM, pair.KeyPEM)
}

// ask creates the request, unless it was created before, and waits until it is
// decided.
func ask(ctx context.Context, client typedcertificatesv1.CertificateSigningRequestInterface, request *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	_, err := client.Create(calling, request, metav1.CreateOptions{})
	cancel()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("create a CertificateSigningRequest: %w", err)
	}
	for {
		calling, cancel := context.WithTimeout(ctx, callTimeout)
		r, err := client.Get(calling, request.Name, metav1.GetOptions{})
		cancel()
		if err != nil {
			return nil, fmt.Errorf("read CertificateSigningRequest %s: %w", request.Name, err)
		}
		cert, err := outcome(r)
		if len(cert) == 0 && err == nil {
			cert, err = follow(ctx, client, r)
		}
		if len(cert) > 0 || err != nil {
			return cert, err
		}
	}
}

// follow watches a request until it is decided, or the watch ends, which is
// nobody's fault.
func follow(ctx context.Context, client typedcertificatesv1.CertificateSigningRequestInterface, r *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	seconds := int64(waitFor / time.Second)
	w, err := client.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, r.Name).String(),
		ResourceVersion: r.ResourceVersion, TimeoutSeconds: &seconds,
	})
	if err != nil {
		return nil, fmt.Errorf("watch CertificateSigningRequest %s: %w", r.Name, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("CertificateSigningRequest %s is not decided yet: is there somebody who approves and signs? (%w)", r.Name, ctx.Err())
		case e, open := <-w.ResultChan():
			if !open {
				return nil, fmt.Errorf("the watch of CertificateSigningRequest %s ended before it was decided", r.Name)
			}
			now, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
			switch {
			case !ok:
				return nil, fmt.Errorf("watch CertificateSigningRequest %s: %w", r.Name, apierrors.FromObject(e.Object))
			case e.Type == watch.Deleted:
				return nil, fmt.Errorf("%w: CertificateSigningRequest %s was deleted", errRefused, r.Name)
			}
			if cert, err := outcome(now); len(cert) > 0 || err != nil {
				return cert, err
			}
		}
	}
}
