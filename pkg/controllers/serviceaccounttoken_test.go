package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"coracle/pkg/auth/node"
	"coracle/pkg/controllers"
	"coracle/pkg/controllers/serviceaccounttoken"
	"coracle/pkg/reconcile"
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

// TestTokenCleaner: a token that was made with its account, and that nobody
// uses, is marked after a year and goes after another; no other is touched.
func TestTokenCleaner(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		secrets := c.Client.CoreV1().Secrets("default")
		for _, name := range []string{"listed", "used", "mounted", "by-hand"} {
			c.makeTokenSecret(name, "robot", func(s *corev1.Secret) {
				if name == "used" {
					s.Labels = map[string]string{"kubernetes.io/legacy-token-last-used": time.Now().AddDate(2, 0, 0).Format(time.DateOnly)}
				}
			})
		}
		if _, err := c.Client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"},
			Secrets: []corev1.ObjectReference{{Name: "listed"}, {Name: "used"}, {Name: "mounted"}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := podLike("user", "user")
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}})
		if _, err := c.Client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.CoreV1().ConfigMaps("kube-system").Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "kube-apiserver-legacy-service-account-token-tracking"},
			Data:       map[string]string{"since": time.Now().Format(time.DateOnly)}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		ahead := clocktesting.NewFakeClock(time.Now().AddDate(2, 0, 0))
		stop := c.startCleaner(ahead)
		t.Cleanup(stop)
		marked := func(name string) bool {
			s, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return s.Labels["kubernetes.io/legacy-token-invalid-since"] == ahead.Now().UTC().Format(time.DateOnly)
		}
		c.eventually("the unused one is marked", func() error {
			if !marked("listed") {
				return errors.New("it is not")
			}
			return nil
		})
		for _, name := range []string{"used", "mounted", "by-hand"} {
			if marked(name) {
				t.Errorf("%s is marked", name)
			}
		}
		ahead.Step(300 * 24 * time.Hour)
		time.Sleep(time.Minute)
		if _, err := secrets.Get(t.Context(), "listed", metav1.GetOptions{}); err != nil {
			t.Errorf("after less than a year: %v", err)
		}
		ahead.Step(66 * 24 * time.Hour)
		c.wantNoSecret("listed")
	})
}

// startCleaner runs the cleaner alone, under its own identity.
func (c *cluster) startCleaner(now clock.WithTicker) (stop func()) {
	factory := reconcile.NewInformers(c.Client)
	as := c.As("system:serviceaccount:kube-system:legacy-service-account-token-cleaner", "system:serviceaccounts", "system:serviceaccounts:kube-system")
	mounts := func(p *corev1.Pod) []string {
		pull, others := node.Secrets(p)
		return append(pull, others...)
	}
	cleaner := serviceaccounttoken.NewCleaner(reconcile.Env{Client: kubernetes.NewForConfigOrDie(as), Informers: factory, Clock: now}, mounts)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	factory.StartWithContext(ctx)
	done := make(chan error, 1)
	go func() { done <- cleaner.Run(ctx) }()
	return func() {
		cancel()
		factory.Shutdown()
		if err := <-done; err != nil {
			c.t.Errorf("run the cleaner: %v", err)
		}
	}
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
