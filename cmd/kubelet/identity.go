package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/kubelet/certificate"
	"coracle/pkg/nodeconfig"
	"coracle/pkg/pki"
)

const (
	clientName  = "kubelet-client"
	servingName = "kubelet-server"
	userAgent   = "kubelet/coracle"
)

// identity is what the agent is known by: to the API server by its client, to
// those who call it by its serving certificate.
type identity struct {
	client  kubernetes.Interface
	serving *tls.Config
	trust   *trust
	// managers renew the certificates; empty when files of others are used.
	managers []*certificate.Manager
	log      *slog.Logger
}

// newIdentity reads what is there. It makes no request.
func newIdentity(conf *nodeconfig.Kubelet, log *slog.Logger) (*identity, error) {
	believed, err := newTrust(conf, log)
	if err != nil {
		return nil, err
	}
	id := &identity{serving: &tls.Config{MinVersion: tls.VersionTLS12, ClientCAs: believed.callers.Pool()}, trust: believed, log: log}
	if conf.RotateCertificates {
		return id, id.rotating(conf)
	}
	cert, err := tls.LoadX509KeyPair(conf.ServingCertFile, conf.ServingKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the node's serving certificate: %w", err)
	}
	id.serving.Certificates = []tls.Certificate{cert}
	id.client, err = newClient(conf.Kubeconfig)
	return id, err
}

// rotating sets up certificates that the agent asks for itself.
func (id *identity) rotating(conf *nodeconfig.Kubelet) error {
	dir := conf.CertDir
	if dir == "" {
		root := conf.RootDir
		if root == "" {
			root = "/var/lib/kubelet"
		}
		dir = filepath.Join(root, "pki")
	}
	if err := writeKubeconfig(conf, certificate.File(dir, clientName)); err != nil {
		return err
	}
	own, err := ownConfig(conf.Kubeconfig)
	if err == nil {
		err = id.trust.readServer()
	}
	if err != nil {
		return err
	}
	if err := id.clientManager(conf, dir, own); err != nil {
		return err
	}
	return id.servingManager(conf, dir)
}

func (id *identity) clientManager(conf *nodeconfig.Kubelet, dir string, own *rest.Config) error {
	seed, err := certificate.Seed(own)
	if err != nil {
		return fmt.Errorf("read the client certificate of %s: %w", conf.Kubeconfig, err)
	}
	live := &pki.Live{}
	config, err := certificate.ClientConfig(own, live, id.trust.roots)
	if err != nil {
		return fmt.Errorf("the node's kubeconfig %s: %w", conf.Kubeconfig, err)
	}
	if id.client, err = clientOf(config); err != nil {
		return err
	}
	m, err := certificate.New(certificate.Config{
		Dir: dir, Name: clientName, Signer: certificatesv1.KubeAPIServerClientKubeletSignerName,
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		Want:   func() *x509.CertificateRequest { return &x509.CertificateRequest{Subject: subject(conf)} },
		Client: func(current *x509.Certificate) (kubernetes.Interface, error) {
			if current == nil && conf.BootstrapKubeconfig != "" {
				return newClient(conf.BootstrapKubeconfig)
			}
			return id.client, nil
		},
		Authorities: id.trust.authorities, Seed: seed, Live: live, Log: id.log,
	})
	id.managers = append(id.managers, m)
	return err
}

func (id *identity) servingManager(conf *nodeconfig.Kubelet, dir string) error {
	seed, err := certificate.Seed(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CertFile: conf.ServingCertFile, KeyFile: conf.ServingKeyFile}})
	if err != nil {
		return fmt.Errorf("read the node's serving certificate: %w", err)
	}
	live := &pki.Live{}
	id.serving.GetCertificate = live.GetCertificate
	m, err := certificate.New(certificate.Config{
		Dir: dir, Name: servingName, Signer: certificatesv1.KubeletServingSignerName,
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		// What the agent says of itself in the Node object, which the approver reads.
		Want: func() *x509.CertificateRequest {
			return &x509.CertificateRequest{Subject: subject(conf), DNSNames: []string{conf.NodeName}, IPAddresses: []net.IP{conf.NodeIP.AsSlice()}}
		},
		Client: func(*x509.Certificate) (kubernetes.Interface, error) { return id.client, nil },
		Seed:   seed, Live: live, Log: id.log, Authorities: id.trust.authorities,
	})
	id.managers = append(id.managers, m)
	return err
}

func subject(conf *nodeconfig.Kubelet) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + conf.NodeName, Organization: []string{"system:nodes"}}
}

// start has the certificates renewed, and the authorities followed, until ctx ends.
func (id *identity) start(ctx context.Context, g *errgroup.Group) {
	id.trust.changed = func() {
		for _, m := range id.managers {
			m.Look()
		}
	}
	g.Go(func() error { return id.trust.run(ctx, id.client) })
	for _, m := range id.managers {
		g.Go(func() error { return m.Run(ctx) })
	}
}

// await waits until the agent has an identity at the API server. It is false when
// ctx ends before.
func (id *identity) await(ctx context.Context) bool {
	if len(id.managers) == 0 {
		return true
	}
	select {
	case <-id.managers[0].Ready():
		return true
	case <-ctx.Done():
		return false
	}
}

// newClient is a client of the API server with the identity of a kubeconfig.
func newClient(file string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", file, err)
	}
	return clientOf(config)
}

func clientOf(config *rest.Config) (kubernetes.Interface, error) {
	config.ContentConfig = rest.ContentConfig{
		ContentType:        "application/vnd.kubernetes.protobuf",
		AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
	}
	config.QPS = -1 // the server bounds its clients
	config.UserAgent = userAgent
	return kubernetes.NewForConfig(config)
}

// ownConfig reads the node's kubeconfig, whose certificate need not be there yet.
func ownConfig(file string) (*rest.Config, error) {
	cluster, user, err := current(file)
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: cluster.Server, TLSClientConfig: rest.TLSClientConfig{
		ServerName: cluster.TLSServerName, Insecure: cluster.InsecureSkipTLSVerify,
		CAFile: cluster.CertificateAuthority, CAData: cluster.CertificateAuthorityData,
		CertFile: user.ClientCertificate, CertData: user.ClientCertificateData, KeyFile: user.ClientKey, KeyData: user.ClientKeyData,
	}}, nil
}

// current is the cluster and the user of a kubeconfig's current context.
func current(file string) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	config, err := clientcmd.LoadFromFile(file)
	if err == nil {
		err = clientcmd.ResolveLocalPaths(config)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the kubeconfig %s: %w", file, err)
	}
	if ctx := config.Contexts[config.CurrentContext]; ctx != nil {
		if c, u := config.Clusters[ctx.Cluster], config.AuthInfos[ctx.AuthInfo]; c != nil && u != nil {
			return c, u, nil
		}
	}
	return nil, nil, fmt.Errorf("the kubeconfig %s has no current context with a cluster and a user", file)
}

// writeKubeconfig makes the node's kubeconfig, where there is none, out of the one
// that it joins with: the same cluster, and the certificate that it is going to
// have.
func writeKubeconfig(conf *nodeconfig.Kubelet, pair string) error {
	if _, err := os.Stat(conf.Kubeconfig); !errors.Is(err, fs.ErrNotExist) || conf.BootstrapKubeconfig == "" {
		return err
	}
	cluster, _, err := current(conf.BootstrapKubeconfig)
	if err != nil {
		return err
	}
	const name = "default"
	to := clientcmdapi.NewConfig()
	to.Clusters[name] = cluster
	to.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificate: pair, ClientKey: pair}
	to.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	to.CurrentContext = name
	data, err := clientcmd.Write(*to)
	if err != nil {
		return err
	}
	return pki.WriteFile(conf.Kubeconfig, data, 0o600)
}
