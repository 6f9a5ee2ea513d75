package controlplane

import (
	"net/netip"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/auth"
	"coracle/pkg/pki"
)

// writeKubeconfig issues the administrator's certificate and writes the
// kubeconfig that uses it.
func (o *ServeOptions) writeKubeconfig(files *Files) error {
	request := pki.Request{CommonName: auth.UserAdmin, ClientAuth: true}
	if !o.strict.noMasters {
		request.Organization = []string{auth.GroupMasters}
	}
	pair, err := pki.LoadOrCreate(files.PKI, "admin", files.CA, request, o.Clock.Now(), o.Rand)
	if err != nil {
		return err
	}
	host := files.Address.Addr()
	if host.IsUnspecified() {
		host = netip.MustParseAddr("127.0.0.1")
	}
	data, err := Kubeconfig("coracle", "https://"+netip.AddrPortFrom(host, files.Address.Port()).String(), files.CA.CertPEM(), pair)
	if err != nil {
		return err
	}
	files.Kubeconfig = filepath.Join(o.DataDir, "admin.kubeconfig")
	return pki.WriteFile(files.Kubeconfig, data, 0o600)
}

// Kubeconfig makes a kubeconfig of one context that authenticates by
// certificate.
func Kubeconfig(name, server string, ca []byte, pair *pki.Pair) ([]byte, error) {
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.CertPEM, ClientKeyData: pair.KeyPEM}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	return clientcmd.Write(*c)
}
