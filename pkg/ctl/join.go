package ctl

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/pki"
)

const (
	// joinTimeout is how long a cluster may take to tell of itself, which a new
	// token has to be signed for, and joinPause the time between two tries.
	joinTimeout = 30 * time.Second
	joinPause   = 500 * time.Millisecond
	// maxClusterInfo bounds what an unknown server may answer.
	maxClusterInfo = 1 << 20
	// hashPrefix begins the hash of an authority's key.
	hashPrefix = "sha256:"
)

// joining is what a machine knows of a cluster that it wants to join.
type joining struct {
	server string // HOST:PORT
	token  bootstraptoken.Token
	hashes []string // of the keys of the cluster's authorities
}

func (t *tool) join() *cobra.Command {
	var token, out string
	j := joining{}
	cmd := &cobra.Command{
		Use:   "join HOST:PORT --token TOKEN --ca-cert-hash HASH",
		Short: "Prepare this machine to join a cluster as a node",
		Long: "Ask the cluster for its authority, check that against the hash, and write a kubeconfig with which the\n" +
			"kubelet asks for its own certificate. \"ctl token create\" on the other side prints the whole command line.",
		Example: "  ctl join 192.0.2.1:6443 --token abcdef.0123456789abcdef --ca-cert-hash sha256:... -f /etc/coracle/bootstrap.kubeconfig",
		Args:    between(1, 1, "the address of the API server, as HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var ok bool
			if j.token.ID, j.token.Secret, ok = bootstraptoken.Split(token); !ok {
				return usagef("--token must have the form abcdef.0123456789abcdef: \"ctl token create\" makes one")
			}
			if len(j.hashes) == 0 {
				return usagef("--ca-cert-hash is missing: without it anybody between here and the cluster could be the cluster")
			}
			j.server = strings.TrimPrefix(args[0], "https://")
			if _, _, err := net.SplitHostPort(j.server); err != nil {
				return usagef("%q is no HOST:PORT: %v", args[0], err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), joinTimeout)
			defer cancel()
			authority, err := j.discover(ctx)
			if err != nil {
				return err
			}
			config, err := clientcmd.Write(*j.kubeconfig(authority))
			if err != nil {
				return err
			}
			if err := pki.WriteFile(out, config, 0o600); err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "The cluster at %s is the one that was named. Start the kubelet with bootstrapKubeconfig: %s in its configuration\n", j.server, out)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&token, "token", "", "token of \"ctl token create\"")
	f.StringSliceVar(&j.hashes, "ca-cert-hash", nil, "sha256:HEX of the public key of the cluster's authority, as \"ctl token create\" prints it")
	f.StringVarP(&out, "output-file", "f", "bootstrap.kubeconfig", "where the kubeconfig is written")
	return cmd
}

// discover asks the cluster for its authority, again while it has not signed
// for the token yet.
func (j *joining) discover(ctx context.Context) ([]byte, error) {
	for {
		authority, err := j.authority(ctx)
		if !errors.Is(err, errUnsigned) {
			return authority, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(joinPause):
		}
	}
}

// errUnsigned says that the cluster has nothing signed with the token.
var errUnsigned = errors.New("the cluster does not know the token: it may have ended, or be of another cluster")

// authority is the cluster's, in PEM. Nothing that the server says is believed
// but what the token signs and what the hashes name; then the server is asked
// again, and has to show a certificate of that authority.
func (j *joining) authority(ctx context.Context) ([]byte, error) {
	// The certificate cannot be verified yet: what comes is checked instead.
	m, err := j.clusterInfo(ctx, &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	bundle, err := j.check(m)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	if _, err := j.clusterInfo(ctx, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}); err != nil {
		return nil, fmt.Errorf("the server at %s is not of the cluster that the hash is of: %w", j.server, err)
	}
	return bundle, nil
}

// check returns the authorities in a cluster-info that the token has signed, all
// of which the hashes must name.
func (j *joining) check(m *corev1.ConfigMap) ([]byte, error) {
	text, signature := m.Data[bootstraptoken.KubeconfigKey], m.Data[bootstraptoken.SignaturePrefix+j.token.ID]
	if signature == "" {
		return nil, errUnsigned
	}
	if !j.token.Verify(text, signature) {
		return nil, errors.New("what the server says of its cluster is not signed with the token: it is another server, or the token's secret is wrong")
	}
	config, err := clientcmd.Load([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("what the server says of its cluster cannot be read: %w", err)
	}
	for _, c := range config.Clusters {
		certs, err := pki.ParseCertificates(c.CertificateAuthorityData)
		if err != nil {
			return nil, fmt.Errorf("the cluster's authority cannot be read: %w", err)
		}
		for _, cert := range certs {
			if !j.named(cert) {
				return nil, fmt.Errorf("the cluster's authority %q has the hash %s, which is not the one given: this may be another cluster", cert.Subject.CommonName, keyHash(cert))
			}
		}
		return c.CertificateAuthorityData, nil
	}
	return nil, errors.New("the server does not say who its cluster's authority is")
}

func (j *joining) named(cert *x509.Certificate) bool {
	for _, h := range j.hashes {
		if strings.EqualFold(h, keyHash(cert)) {
			return true
		}
	}
	return false
}

// keyHash is the hash of an authority's public key, in the form that kubeadm
// uses.
func keyHash(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hashPrefix + hex.EncodeToString(sum[:])
}

// clusterInfo reads the ConfigMap that a cluster shows to everybody.
func (j *joining) clusterInfo(ctx context.Context, config *tls.Config) (m *corev1.ConfigMap, err error) {
	path := "/api/v1/namespaces/" + bootstraptoken.ClusterInfoNamespace + "/configmaps/" + bootstraptoken.ClusterInfoName
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+j.server+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", j.server, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden, http.StatusUnauthorized:
		return nil, fmt.Errorf("the server at %s tells strangers nothing of its cluster (%s): it has to run with --enable-bootstrap-token-auth", j.server, resp.Status)
	default:
		return nil, fmt.Errorf("the server at %s answers %s", j.server, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxClusterInfo+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxClusterInfo {
		return nil, fmt.Errorf("the server at %s answers with more than %d bytes", j.server, maxClusterInfo)
	}
	m = &corev1.ConfigMap{}
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("the server at %s answers with what is no ConfigMap: %w", j.server, err)
	}
	return m, nil
}

// kubeconfig is what the kubelet begins with.
func (j *joining) kubeconfig(authority []byte) *clientcmdapi.Config {
	const name, user = "kubernetes", "tls-bootstrap-token-user"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + j.server, CertificateAuthorityData: authority}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: j.token.ID + "." + j.token.Secret}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	return config
}
