package testcluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/storage"
)

// TestTokensExpire: a list that is not read on within twice the interval of
// compactions goes on with another token, which says that it is inconsistent;
// even of a kind that has not changed, and however often the page was read.
func TestTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := Start(t).Client.CoreV1()
		cms := client.ConfigMaps("default")
		for i := range 3 {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("cm-%d", i)}}
			if _, err := cms.Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		first, err := cms.List(t.Context(), metav1.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		// Something else happens meanwhile, as it always does.
		if _, err := client.Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		second := metav1.ListOptions{Limit: 1, Continue: first.Continue}
		for err == nil && time.Since(began) <= 2*storage.CompactionInterval {
			time.Sleep(20 * time.Second)
			_, err = cms.List(t.Context(), second)
		}
		if !apierrors.IsResourceExpired(err) {
			t.Fatalf("after %v the token gives the error %v", time.Since(began), err)
		}
		second.Continue = err.(apierrors.APIStatus).Status().ListMeta.Continue
		page, err := cms.List(t.Context(), second)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Items) != 1 || page.Items[0].Name != "cm-1" || page.ResourceVersion == first.ResourceVersion {
			t.Errorf("the list goes on with %d objects at %s: %v", len(page.Items), page.ResourceVersion, page.Items)
		}
	})
}
