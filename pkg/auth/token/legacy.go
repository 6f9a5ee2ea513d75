package token

import (
	"errors"

	"coracle/pkg/auth"
)

// LegacyIssuer is the "iss" of tokens that are kept in Secrets. They do not
// expire: what ends one is the end of its Secret or of its account.
const LegacyIssuer = "kubernetes/serviceaccount"

// LegacyClaims are the claims of a token that is kept in a Secret.
type LegacyClaims struct {
	Namespace          string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	SecretName         string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	ServiceAccountName string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	ServiceAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
}

// IssueLegacy signs the token of an account that is kept in the named Secret
// of its namespace.
func (i *Issuer) IssueLegacy(namespace string, account Ref, secret string) (string, error) {
	if namespace == "" || account.Name == "" || account.UID == "" || secret == "" {
		return "", errors.New("a token in a secret needs a namespace, an account with its UID and the secret's name")
	}
	return i.sign(&Claims{
		Issuer:  LegacyIssuer,
		Subject: auth.ServiceAccountName(namespace, account.Name),
		LegacyClaims: LegacyClaims{
			Namespace: namespace, SecretName: secret, ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
		},
	})
}
