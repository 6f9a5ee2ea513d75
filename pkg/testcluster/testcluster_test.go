package testcluster

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestConfigMapRoundTrip(t *testing.T) {
	c := Start(t)
	ctx := t.Context()
	cms := c.Client.CoreV1().ConfigMaps("default")
	w, err := cms.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	made, err := cms.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ev := <-w.ResultChan()
	if got := ev.Object.(*corev1.ConfigMap); got.ResourceVersion != made.ResourceVersion || ev.Type != "ADDED" {
		t.Errorf("event %s at %s, want ADDED at %s", ev.Type, got.ResourceVersion, made.ResourceVersion)
	}
	list, err := cms.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Data["k"] != "v" {
		t.Errorf("listed %v", list.Items)
	}
	if err := cms.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if ev := <-w.ResultChan(); ev.Type != "DELETED" {
		t.Errorf("event %s, want DELETED", ev.Type)
	}
}
