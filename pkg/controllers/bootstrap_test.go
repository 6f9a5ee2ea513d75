package controllers_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/controllers"
)

func (c *cluster) bootstrapToken(id string, expires time.Time, signing bool) *corev1.Secret {
	c.t.Helper()
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id}, Type: bootstraptoken.SecretType,
		StringData: map[string]string{"token-id": id, "token-secret": "0123456789" + id, "usage-bootstrap-signing": fmt.Sprint(signing)},
	}
	if !expires.IsZero() {
		s.StringData["expiration"] = expires.UTC().Format(time.RFC3339)
	}
	s, err := c.Client.CoreV1().Secrets("kube-system").Create(c.t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// signedBy wants cluster-info to have this content, and the signatures of exactly
// these tokens.
func (c *cluster) signedBy(content string, ids ...string) func() error {
	return func() error {
		m, err := c.Client.CoreV1().ConfigMaps("kube-public").Get(c.t.Context(), "cluster-info", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(m.Data) != len(ids)+1 {
			return fmt.Errorf("cluster-info has %v", m.Data)
		}
		for _, id := range ids {
			tok := bootstraptoken.Token{ID: id, Secret: "0123456789" + id}
			if !tok.Verify(content, m.Data["jws-kubeconfig-"+id]) {
				return fmt.Errorf("the signature of %s in %v is not good", id, m.Data)
			}
		}
		return nil
	}
}

// TestBootstrapTokens: cluster-info is signed by exactly the tokens that are
// there, and a token goes when it ends, unless it was prolonged.
func TestBootstrapTokens(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		secrets, maps := c.Client.CoreV1().Secrets("kube-system"), c.Client.CoreV1().ConfigMaps("kube-public")
		_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-info"},
			Data: map[string]string{"kubeconfig": "the way in", "jws-kubeconfig-gone00": "forged"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.bootstrapToken("aaaaaa", time.Time{}, true)
		c.bootstrapToken("bbbbbb", time.Now().Add(time.Minute), true)
		c.bootstrapToken("cccccc", time.Time{}, false)
		c.eventually("cluster-info is signed", c.signedBy("the way in", "aaaaaa", "bbbbbb"))
		m, err := maps.Get(t.Context(), "cluster-info", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m.Data["kubeconfig"] = "another way"
		if _, err := maps.Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("what changed is signed anew", c.signedBy("another way", "aaaaaa", "bbbbbb"))
		c.eventually("the token that ended is gone", func() error {
			if _, err := secrets.Get(t.Context(), "bootstrap-token-bbbbbb", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("got %w", errors.Join(err, errors.New("it is there")))
			}
			return nil
		})
		c.eventually("and so is its signature", c.signedBy("another way", "aaaaaa"))
		if _, err := secrets.Get(t.Context(), "bootstrap-token-aaaaaa", metav1.GetOptions{}); err != nil {
			t.Errorf("a token without an end: %v", err)
		}
		// Prolonged before it ends, a token stays.
		s := c.bootstrapToken("dddddd", time.Now().Add(time.Minute), false)
		s.Data["expiration"] = []byte(time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		if _, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		if _, err := secrets.Get(t.Context(), s.Name, metav1.GetOptions{}); err != nil {
			t.Errorf("a prolonged token: %v", err)
		}
	}, func(cfg *controllers.Config) { cfg.BootstrapTokens = true })
}
