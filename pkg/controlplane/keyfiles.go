package controlplane

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"coracle/pkg/auth"
	"coracle/pkg/pki"
)

// identity gathers the authorities and keys that clients are known by.
func (o *ServeOptions) identity(files *Files) (*Identity, error) {
	id := &Identity{Clients: &pki.LivePool{}, Issuer: defaultIssuer, Audiences: o.APIAudiences,
		JWKSURI: o.ServiceAccountJWKSURI, MaxTokenLife: o.MaxTokenLife}
	if len(o.ServiceAccountIssuers) > 0 {
		id.Issuer, id.OldIssuers = o.ServiceAccountIssuers[0], o.ServiceAccountIssuers[1:]
	}
	if files.CA != nil {
		id.RootCA, id.CA = pki.NewBundle(files.CA.Authorities().Bundle()), files.CA
	}
	bundle, err := o.clientAuthorities(files)
	if err != nil {
		return nil, err
	}
	if len(bundle) == 0 {
		id.Clients = nil
	} else if err := id.Clients.Set(bundle); err != nil {
		return nil, fmt.Errorf("read the authorities of client certificates: %w", err)
	}
	id.ClientCA = bundle
	if o.ClientCAFile != "" {
		files.reloads = append(files.reloads, &reload{what: "the authorities of client certificates", files: []string{o.ClientCAFile},
			apply: func(ctx context.Context, cp *ControlPlane) error {
				bundle, err := o.clientAuthorities(files)
				if err != nil {
					return err
				}
				return cp.setClientCA(ctx, bundle)
			}})
	}
	if id.Revoked, err = o.revoked(files); err != nil {
		return nil, err
	}
	if id.FrontProxy, err = o.frontProxy(files); err != nil {
		return nil, err
	}
	if err := id.ask(bundle); err != nil {
		return nil, fmt.Errorf("read the authorities of client certificates: %w", err)
	}
	if files.CA != nil {
		if id.Kubelet, err = o.kubeletClient(files); err != nil {
			return nil, err
		}
	}
	if id.TokenFile, err = o.tokenFile(); err != nil {
		return nil, err
	}
	if id.TokenKey, id.OldTokenKeys, err = o.tokenKeys(files); err != nil {
		return nil, err
	}
	if id.TokenKey == nil {
		return id, nil
	}
	named := slices.Clone(o.ServiceAccountKeyFiles)
	if o.ServiceAccountSigningKeyFile != "" {
		named = append(named, o.ServiceAccountSigningKeyFile)
	} else if files.CA != nil {
		named = append(named, filepath.Join(files.PKI, tokenKeyFile))
	}
	files.reloads = append(files.reloads, &reload{what: "the keys of service account tokens", files: named,
		apply: func(_ context.Context, cp *ControlPlane) error {
			key, old, err := o.tokenKeys(files)
			if err != nil {
				return err
			}
			return cp.setTokenKeys(key, old)
		}})
	return id, nil
}

// tokenFile are the tokens of the flag.
func (o *ServeOptions) tokenFile() (*auth.TokenFile, error) {
	if o.TokenFile == "" {
		return nil, nil
	}
	if o.Hardened { // H2
		return nil, fmt.Errorf("--token-auth-file %s is refused by --hardened: its tokens have no end; give out tokens of service accounts", o.TokenFile)
	}
	data, err := readKeyFile(o.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read --token-auth-file: %w", err)
	}
	f, err := auth.ParseTokenFile(data)
	if err != nil {
		return nil, fmt.Errorf("read --token-auth-file %s: %w", o.TokenFile, err)
	}
	return f, nil
}

// clientAuthorities are those of the cluster and of the flag.
func (o *ServeOptions) clientAuthorities(files *Files) ([]byte, error) {
	var bundle []byte
	if files.CA != nil {
		bundle = files.CA.Authorities().Bundle()
	}
	if o.ClientCAFile == "" {
		return bundle, nil
	}
	data, err := readKeyFile(o.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read --client-ca-file: %w", err)
	}
	if _, err := pki.ParseCertificates(data); err != nil {
		return nil, fmt.Errorf("read --client-ca-file: %w", err)
	}
	return append(bundle, data...), nil
}

// revoked are the client certificates that are refused, by a list that is
// followed. Its own folder has one from the start, empty, which says how it is
// written.
func (o *ServeOptions) revoked(files *Files) (*pki.Revoked, error) {
	path := o.RevokedFile
	if path == "" && files.CA != nil {
		path = filepath.Join(files.PKI, pki.RevokedFile)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := pki.WriteFile(path, []byte(pki.RevokedHead), 0o600); err != nil {
				return nil, fmt.Errorf("make the list of refused certificates: %w", err)
			}
		}
	}
	if path == "" {
		return nil, nil
	}
	read := func() (*pki.Revoked, error) {
		data, err := readKeyFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the list of refused certificates: %w", err)
		}
		return pki.ParseRevoked(data)
	}
	files.reloads = append(files.reloads, &reload{what: "the list of refused certificates", files: []string{path},
		apply: func(_ context.Context, cp *ControlPlane) error {
			list, err := read()
			if err != nil {
				return err
			}
			cp.revoked.Store(list)
			if n := cp.connections.end(list.Has); n > 0 {
				o.Log.Info("connections of refused certificates are closed", "connections", n)
			}
			return nil
		}})
	return read()
}

// loadPair puts the certificate of two files into force.
func loadPair(live *pki.Live, cert, key string) error {
	certPEM, err := readKeyFile(cert)
	if err != nil {
		return fmt.Errorf("read a certificate: %w", err)
	}
	keyPEM, err := readKeyFile(key)
	if err != nil {
		return fmt.Errorf("read the key of a certificate: %w", err)
	}
	return live.Set(certPEM, keyPEM)
}

// tokenKeyFile is the signing key that the server makes itself.
const tokenKeyFile = "sa.key"

// tokenKeys are the key that signs service account tokens, nil for none, and
// those that verify them besides.
func (o *ServeOptions) tokenKeys(files *Files) (key crypto.Signer, old []crypto.PublicKey, err error) {
	switch {
	case o.ServiceAccountSigningKeyFile != "":
		data, readErr := readKeyFile(o.ServiceAccountSigningKeyFile)
		if readErr != nil {
			return nil, nil, fmt.Errorf("read --service-account-signing-key-file: %w", readErr)
		}
		key, err = pki.ParsePrivateKey(data)
	case files.CA != nil:
		key, err = pki.LoadOrCreateKey(filepath.Join(files.PKI, tokenKeyFile), o.Rand)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the signing key of service account tokens: %w", err)
	}
	for _, f := range o.ServiceAccountKeyFiles {
		data, err := readKeyFile(f)
		if err != nil {
			return nil, nil, fmt.Errorf("read --service-account-key-file: %w", err)
		}
		keys, err := pki.ParsePublicKeys(data)
		if err != nil {
			return nil, nil, fmt.Errorf("read --service-account-key-file %s: %w", f, err)
		}
		old = append(old, keys...)
	}
	return key, old, nil
}
