package ctl

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/pki"
)

// told is what a cluster with these authorities says of itself, signed with the
// tokens.
func told(t *testing.T, bundle []byte, tokens ...bootstraptoken.Token) *corev1.ConfigMap {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters[""] = &clientcmdapi.Cluster{Server: "https://192.0.2.1:6443", CertificateAuthorityData: bundle}
	text, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	m := &corev1.ConfigMap{Data: map[string]string{bootstraptoken.KubeconfigKey: string(text)}}
	for _, token := range tokens {
		signature, err := token.Sign(string(text))
		if err != nil {
			t.Fatal(err)
		}
		m.Data[bootstraptoken.SignaturePrefix+token.ID] = signature
	}
	return m
}

func authorityOf(t *testing.T, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name, time.Hour, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestJoinIsPinned: a machine believes a cluster whose word its token signs and
// whose authorities are all named by a hash, and no other; nor a server that
// passes that word on and has another certificate.
func TestJoinIsPinned(t *testing.T) {
	mine, other := authorityOf(t, "mine"), authorityOf(t, "other")
	token := bootstraptoken.Token{ID: "abcdef", Secret: "0123456789abcdef"}
	forged := bootstraptoken.Token{ID: "abcdef", Secret: "fedcba9876543210"}
	j := joining{token: token, hashes: []string{keyHash(mine.Cert)}}
	good := told(t, mine.CertPEM(), token)
	if got, err := j.check(good); err != nil || string(got) != string(mine.CertPEM()) {
		t.Errorf("the true cluster: %v", err)
	}
	both := append(append([]byte{}, mine.CertPEM()...), other.CertPEM()...)
	changed := told(t, mine.CertPEM(), token)
	changed.Data[bootstraptoken.KubeconfigKey] += "\n"
	for want, m := range map[string]*corev1.ConfigMap{
		"does not know the token":        told(t, mine.CertPEM()),
		"it is another server":           told(t, mine.CertPEM(), forged),
		"or the token's secret is wrong": changed,
		`authority "other" has the hash`: told(t, both, token),
		"authority cannot be read":       told(t, nil, token),
	} {
		if _, err := j.check(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := j.check(told(t, mine.CertPEM())); !errors.Is(err, errUnsigned) {
		t.Errorf("before the cluster has signed: %v", err)
	}

	asked := 0
	between := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		if err := json.NewEncoder(w).Encode(good); err != nil {
			t.Error(err)
		}
	}))
	defer between.Close()
	j.server = strings.TrimPrefix(between.URL, "https://")
	if _, err := j.discover(t.Context()); err == nil || !strings.Contains(err.Error(), "is not of the cluster that the hash is of") || asked != 1 {
		t.Errorf("a server in between: %v, asked %d times", err, asked)
	}
}
