package controllers_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (c *cluster) makeConfigMap(namespace, name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
	c.t.Helper()
	m, err := c.Client.CoreV1().ConfigMaps(namespace).Create(c.t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: owners},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func ownedBy(kind, name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: name, UID: uid}
}

func (c *cluster) hasConfigMap(namespace, name string) bool {
	c.t.Helper()
	_, err := c.Client.CoreV1().ConfigMaps(namespace).Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
	return err == nil
}

// TestOwnersAreMatchedInFull checks that an owner counts only with its UID,
// kind, name and namespace, and that nothing is concluded about kinds that
// the server does not know.
func TestOwnersAreMatchedInFull(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		owner := c.makeConfigMap("default", "owner")
		c.makeConfigMap("default", "right", ownedBy("ConfigMap", "owner", owner.UID))
		c.makeConfigMap("default", "wrong-uid", ownedBy("ConfigMap", "owner", "00000000-0000-0000-0000-000000000000"))
		c.makeConfigMap("default", "wrong-kind", ownedBy("Secret", "owner", owner.UID))
		c.makeConfigMap("default", "wrong-name", ownedBy("ConfigMap", "other", owner.UID))
		c.makeConfigMap("kube-public", "wrong-namespace", ownedBy("ConfigMap", "owner", owner.UID))
		c.makeConfigMap("default", "unknown-kind", ownedBy("Widget", "owner", owner.UID))
		c.makeConfigMap("default", "one-of-two", ownedBy("ConfigMap", "owner", owner.UID), ownedBy("ConfigMap", "owner2", "00000000-0000-0000-0000-000000000000"))
		time.Sleep(2 * time.Minute)
		for name, want := range map[string]bool{
			"right": true, "wrong-uid": false, "wrong-kind": false, "wrong-name": false, "unknown-kind": true, "one-of-two": true,
		} {
			if c.hasConfigMap("default", name) != want {
				t.Errorf("%s: there is %v, want %v", name, !want, want)
			}
		}
		if c.hasConfigMap("kube-public", "wrong-namespace") {
			t.Error("an owner in another namespace keeps its dependent")
		}
		two, err := c.Client.CoreV1().ConfigMaps("default").Get(t.Context(), "one-of-two", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(two.OwnerReferences) != 1 || two.OwnerReferences[0].UID != owner.UID {
			t.Errorf("owners are %v, want only the living one", two.OwnerReferences)
		}
		if err := c.Client.CoreV1().ConfigMaps("default").Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		for _, name := range []string{"right", "one-of-two"} {
			if c.hasConfigMap("default", name) {
				t.Errorf("%s is there without its owner", name)
			}
		}
	})
}

// TestOwnersDeletedUnseen deletes an owner while nobody watches.
func TestOwnersDeletedUnseen(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		owner := c.makeConfigMap("default", "owner")
		c.makeConfigMap("default", "dependent", ownedBy("ConfigMap", "owner", owner.UID))
		if err := c.Client.CoreV1().ConfigMaps("default").Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.startControllers(transports{}))
		time.Sleep(time.Minute)
		if c.hasConfigMap("default", "dependent") {
			t.Error("the dependent of an owner deleted before the start is still there")
		}
	})
}

// TestStaleGraphDeletesNothing: an owner goes, and its dependent has let go of
// it before, which the collector has not seen yet.
func TestStaleGraphDeletesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateOnly("configmaps")}))
		owner, err := c.Client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"free", "owned"} {
			c.makeConfigMap("default", name, ownedBy("Secret", "owner", owner.UID))
		}
		time.Sleep(time.Minute)
		if _, err := c.Client.CoreV1().ConfigMaps("default").Patch(t.Context(), "free", types.MergePatchType, []byte(`{"metadata":{"ownerReferences":null}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.Client.CoreV1().Secrets("default").Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !c.hasConfigMap("default", "free") {
			t.Error("what no longer had an owner is gone")
		}
		if c.hasConfigMap("default", "owned") {
			t.Error("what was owned is there without its owner")
		}
	})
}
