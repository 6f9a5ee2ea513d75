package controllers_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/controllers"
)

// signPlainly makes tokens that tell what they are of.
func signPlainly(cfg *controllers.Config) {
	cfg.TokenOf = func(a *corev1.ServiceAccount, secret string) (string, error) {
		return "token of " + a.Name + " " + string(a.UID) + " in " + secret, nil
	}
}

func (c *cluster) makeAccount(name string) *corev1.ServiceAccount {
	c.t.Helper()
	a, err := c.Client.CoreV1().ServiceAccounts("default").Create(c.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *cluster) makeTokenSecret(name, account string, change ...func(*corev1.Secret)) {
	c.t.Helper()
	s := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, ObjectMeta: metav1.ObjectMeta{
		Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account},
	}}
	for _, f := range change {
		f(s)
	}
	if _, err := c.Client.CoreV1().Secrets("default").Create(c.t.Context(), s, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) wantTokenSecret(name string, account *corev1.ServiceAccount) {
	c.t.Helper()
	want := map[string][]byte{
		"ca.crt": []byte("a certificate"), "namespace": []byte("default"),
		"token": []byte("token of " + account.Name + " " + string(account.UID) + " in " + name),
	}
	c.eventually("the secret "+name+" is filled", func() error {
		s, err := c.Client.CoreV1().Secrets("default").Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, s.Data); diff != "" {
			return fmt.Errorf("data (-want +got):\n%s", diff)
		}
		if got := s.Annotations[corev1.ServiceAccountUIDKey]; got != string(account.UID) {
			return fmt.Errorf("the UID is %q", got)
		}
		return nil
	})
}

func (c *cluster) wantNoSecret(name string) {
	c.t.Helper()
	c.wantNot("secret "+name, func() error {
		_, err := c.Client.CoreV1().Secrets("default").Get(c.t.Context(), name, metav1.GetOptions{})
		return err
	})
}

func (c *cluster) deleteAccount(name string) {
	c.t.Helper()
	if err := c.Client.CoreV1().ServiceAccounts("default").Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// TestTokenSecrets: a token Secret is filled, repaired, and goes with its
// account; an account forgets a Secret that went.
func TestTokenSecrets(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		robot := c.makeAccount("robot")
		c.makeTokenSecret("a", "robot")
		c.wantTokenSecret("a", robot)
		secrets := c.Client.CoreV1().Secrets("default")
		patch := func(name, text string) {
			t.Helper()
			if _, err := secrets.Patch(t.Context(), name, types.MergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		patch("a", `{"data":{"token":null,"ca.crt":"eA=="}}`)
		c.wantTokenSecret("a", robot)

		c.makeTokenSecret("lost", "nobody")
		c.wantNoSecret("lost")
		c.makeTokenSecret("old", "robot", func(s *corev1.Secret) { s.Annotations[corev1.ServiceAccountUIDKey] = "another" })
		c.wantNoSecret("old")
		c.makeTokenSecret("sealed", "robot", func(s *corev1.Secret) { s.Immutable = new(true) })

		list := []byte(`{"secrets":[{"name":"a"},{"name":"b"}]}`)
		accounts := c.Client.CoreV1().ServiceAccounts("default")
		if _, err := accounts.Patch(t.Context(), "robot", types.MergePatchType, list, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := secrets.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the account names b alone", func() error {
			a, err := accounts.Get(t.Context(), "robot", metav1.GetOptions{})
			if err != nil || len(a.Secrets) != 1 || a.Secrets[0].Name != "b" {
				return fmt.Errorf("it names %v (%w)", a.Secrets, err)
			}
			return nil
		})

		// An account of the same name is another account.
		c.makeTokenSecret("b", "robot")
		c.wantTokenSecret("b", robot)
		c.deleteAccount("robot")
		again := c.makeAccount("robot")
		c.wantNoSecret("b")
		c.makeTokenSecret("b", "robot")
		c.wantTokenSecret("b", again)
		c.deleteAccount("robot")
		c.wantNoSecret("b")
		c.wantNoSecret("sealed")
	}, signPlainly)
}

func scriptsOfTokens() []script {
	var robot *corev1.ServiceAccount
	return []script{{
		name:  "token secrets",
		start: func(c *cluster, via transports) func() { return c.startControllers(via, signPlainly) },
		steps: []func(*cluster){
			func(c *cluster) {
				robot = c.makeAccount("robot")
				c.makeTokenSecret("a", "robot")
				c.wantTokenSecret("a", robot)
			},
			func(c *cluster) {
				c.makeTokenSecret("b", "robot")
				c.wantTokenSecret("b", robot)
			},
			func(c *cluster) {
				c.deleteAccount("robot")
				c.wantNoSecret("a")
				c.wantNoSecret("b")
			},
		},
	}}
}
