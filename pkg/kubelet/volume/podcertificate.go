package volume

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// addPodCertificate adds a key and the certificate that a signer issued for it.
// Until it is issued the volume cannot be mounted; afterwards a look at the volume
// renews it in time.
func (m *Manager) addPodCertificate(ctx context.Context, r request, p *payload, index int, src *corev1.PodCertificateProjection) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	c, err := m.podCertificates.get(ctx, certificateKey{r.pod.UID, r.volume.Name, index}, r.pod, src)
	if err != nil {
		return fmt.Errorf("certificate of signer %q: %w", src.SignerName, err)
	}
	mode, user := p.secret(r.pod, src.User)
	for path, data := range map[string][]byte{
		src.CredentialBundlePath: bytes.Join([][]byte{c.key, c.chain}, nil), src.KeyPath: c.key, src.CertificateChainPath: c.chain,
	} {
		if path != "" {
			if err := p.add(path, data, &mode, user); err != nil {
				return err
			}
		}
	}
	return nil
}

type certificateKey struct {
	pod    types.UID
	volume string
	index  int
}

// credential is a key and its certificate chain, as PEM.
type credential struct {
	key, chain []byte
	refresh    time.Time // when the signer wants it renewed
}

// podCertificate is one source of one volume.
type podCertificate struct {
	mu      sync.Mutex  // held while the API server is asked
	current *credential // nil until the first is issued
	// asked names the request that waits, "" for none; its key is pending.
	asked   string
	pending []byte
	refused error // for good: neither asked again nor mounted
}

// podCertificates get certificates for pods by PodCertificateRequests.
type podCertificates struct {
	client kubernetes.Interface
	clock  clock.PassiveClock
	log    *slog.Logger

	mu  sync.Mutex
	all map[certificateKey]*podCertificate // guarded by mu
}

func newPodCertificates(client kubernetes.Interface, clock clock.PassiveClock, log *slog.Logger) *podCertificates {
	return &podCertificates{client: client, clock: clock, log: log, all: map[certificateKey]*podCertificate{}}
}

func (s *podCertificates) get(ctx context.Context, key certificateKey, pod *corev1.Pod, src *corev1.PodCertificateProjection) (*credential, error) {
	s.mu.Lock()
	c := s.all[key]
	if c == nil {
		c = new(podCertificate)
		s.all[key] = c
	}
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil && (c.current == nil || !s.clock.Now().Before(c.current.refresh)) {
		// What is there stays in use while a new one cannot be had.
		if err := s.advance(ctx, c, pod, src); err != nil {
			if c.current == nil {
				return nil, err
			}
			s.log.Warn("a pod's certificate could not be renewed yet and stays in use", "namespace", pod.Namespace, "pod", pod.Name, "signer", src.SignerName, "err", err)
		}
	}
	return c.current, c.refused
}

// advance asks for a certificate, or looks what became of the request.
func (s *podCertificates) advance(ctx context.Context, c *podCertificate, pod *corev1.Pod, src *corev1.PodCertificateProjection) error {
	if c.asked == "" {
		if err := s.ask(ctx, c, pod, src); err != nil {
			return err
		}
	}
	r, err := s.client.CertificatesV1().PodCertificateRequests(pod.Namespace).Get(ctx, c.asked, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		c.asked = "" // somebody deleted it
	}
	if err != nil {
		return fmt.Errorf("read the PodCertificateRequest: %w", answered(err))
	}
	for _, cond := range r.Status.Conditions {
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			c.current, c.refused = nil, fmt.Errorf("PodCertificateRequest %s is %s: %s: %s", r.Name, cond.Type, cond.Reason, cond.Message)
			return c.refused
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			if r.Status.BeginRefreshAt == nil {
				return fmt.Errorf("PodCertificateRequest %s does not say when its certificate is to be renewed", r.Name)
			}
			c.current = &credential{key: c.pending, chain: cleanChain(r.Status.CertificateChain), refresh: r.Status.BeginRefreshAt.Time}
			c.asked, c.pending = "", nil
			return nil
		}
	}
	return fmt.Errorf("PodCertificateRequest %s has no certificate yet: is there a controller for its signer?", r.Name)
}

func (s *podCertificates) ask(ctx context.Context, c *podCertificate, pod *corev1.Pod, src *corev1.PodCertificateProjection) error {
	account, err := s.client.CoreV1().ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the pod's service account: %w", answered(err))
	}
	node, err := s.client.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the pod's node: %w", answered(err))
	}
	keyPEM, proof, err := newPodKey(src.KeyType)
	if err != nil {
		return err
	}
	r, err := s.client.CertificatesV1().PodCertificateRequests(pod.Namespace).Create(ctx, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "req-" + strings.ToLower(rand.Text()[:10]), OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: src.SignerName, PodName: pod.Name, PodUID: pod.UID, ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID, MaxExpirationSeconds: src.MaxExpirationSeconds,
			StubPKCS10Request: proof, UnverifiedUserAnnotations: src.UserAnnotations,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create a PodCertificateRequest: %w", answered(err))
	}
	c.asked, c.pending = r.Name, keyPEM
	return nil
}

// newPodKey makes a key and the proof that the node has it.
func newPodKey(kind string) (keyPEM, proof []byte, err error) {
	var key crypto.Signer
	switch kind {
	case "RSA3072":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("the key type " + kind + " is not known")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	if proof, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return nil, nil, fmt.Errorf("make a signing request: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), proof, nil
}

// cleanChain keeps the certificates alone, without headers and what is between.
func cleanChain(text string) []byte {
	var out []byte
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})...)
	}
	return out
}

// forget drops the certificates of a pod.
func (s *podCertificates) forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.all {
		if key.pod == uid {
			delete(s.all, key)
		}
	}
}
