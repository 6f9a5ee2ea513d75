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
// kubeconfig that uses it, now and each time that the certificate or the authority is another.
func (o *ServeOptions) writeKubeconfig(files *Files) error {
	request := pki.Request{CommonName: auth.UserAdmin, ClientAuth: true}
	if !o.strict.noMasters {
		request.Organization = []string{auth.GroupMasters}
	}
	host := files.Address.Addr()
	if host.IsUnspecified() {
		host = netip.MustParseAddr("127.0.0.1")
	}
	server := "https://" + netip.AddrPortFrom(host, files.Address.Port()).String()
	files.Kubeconfig = filepath.Join(o.DataDir, "admin.kubeconfig")
	return o.keep(files, &pki.Keeper{Dir: files.PKI, Name: "admin", CA: files.CA, Live: &pki.Live{},
		Request: func() pki.Request { return request },
		Renewed: func(pair *pki.Pair) error {
			data, err := Kubeconfig("coracle", server, files.CA.Authorities().Bundle(), pair)
			if err != nil {
				return err
			}
			return pki.WriteFile(files.Kubeconfig, data, 0o600)
		}})
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
