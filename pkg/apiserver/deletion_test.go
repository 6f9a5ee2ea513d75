package apiserver_test

import (
	"path"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// checkFinalizers: DEL-1, DEL-2.
func checkFinalizers(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, cms := t.Context(), s.Client.CoreV1().ConfigMaps("default")
		cm := configMap("a")
		cm.Finalizers = []string{"example.com/one", "example.com/two"}
		cm = s.makeConfigMap(t, cm)
		w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", cm.ResourceVersion))
		if err := cms.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		e := w.want("MODIFIED", "a")
		if e.Metadata.DeletionTimestamp == nil || *e.Metadata.DeletionGracePeriodSeconds != 0 {
			t.Fatalf("a deleted object with finalizers is %s", e.Object)
		}
		// A second delete changes nothing.
		if err := cms.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		patch := func(body string) (*corev1.ConfigMap, error) {
			return cms.Patch(ctx, "a", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		}
		_, err := patch(`{"metadata":{"finalizers":["example.com/one","example.com/two","example.com/three"]}}`)
		refused(t, err, 422, metav1.StatusReasonInvalid, "no new finalizers can be added")
		for _, body := range []string{`{"metadata":{"deletionTimestamp":null}}`, `{"metadata":{"deletionTimestamp":"2100-01-01T00:00:00Z"}}`} {
			got, err := patch(body)
			if err == nil && !got.DeletionTimestamp.Equal(e.Metadata.DeletionTimestamp) {
				t.Fatalf("%s changed the deletion to %v", body, got.DeletionTimestamp)
			}
		}
		// As upstream notes it, who tried to move the deletion owns its time.
		if tried := w.want("MODIFIED", "a"); !tried.Metadata.DeletionTimestamp.Equal(e.Metadata.DeletionTimestamp) || !strings.Contains(string(tried.Object), `"f:deletionTimestamp"`) {
			t.Fatalf("after a try to put the deletion later: %s", tried.Object)
		}
		if _, err := patch(`{"metadata":{"finalizers":["example.com/two"]}}`); err != nil {
			t.Fatal(err)
		}
		if _, err := patch(`{"metadata":{"finalizers":null}}`); err != nil {
			t.Fatal(err)
		}
		w.want("MODIFIED", "a")
		gone := w.want("DELETED", "a")
		if gone.Metadata.UID != cm.UID {
			t.Errorf("DELETED of %s, want %s", gone.Metadata.UID, cm.UID)
		}
		s.makeConfigMap(t, configMap("a"))
		w.want("ADDED", "a") // exactly one DELETED before
	})
}

// checkPropagation: the policies set the collector's finalizers; contradictory
// and unknown options are refused.
func checkPropagation(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, cms := t.Context(), s.Client.CoreV1().ConfigMaps("default")
		for policy, want := range map[metav1.DeletionPropagation]string{
			metav1.DeletePropagationForeground: "foregroundDeletion", metav1.DeletePropagationOrphan: "orphan", metav1.DeletePropagationBackground: "",
		} {
			s.makeConfigMap(t, configMap("a"))
			if err := cms.Delete(ctx, "a", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
				t.Fatal(err)
			}
			got, err := cms.Get(ctx, "a", metav1.GetOptions{})
			if want == "" {
				if !apierrors.IsNotFound(err) {
					t.Fatalf("%s left %v (%v)", policy, got, err)
				}
				continue
			}
			if err != nil || len(got.Finalizers) != 1 || got.Finalizers[0] != want || got.DeletionTimestamp == nil {
				t.Fatalf("%s: %v (%v)", policy, got, err)
			}
			if _, err := cms.Patch(ctx, "a", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		s.makeConfigMap(t, configMap("a"))
		for _, body := range []string{`{"propagationPolicy":"Sideways"}`, `{"orphanDependents":true,"propagationPolicy":"Orphan"}`} {
			s.must(t, 422, "DELETE", configMaps("/a"), body, contentType("application/json")).status(t)
		}
		s.must(t, 400, "DELETE", configMaps("/a"), `{"kind":"Pod","apiVersion":"v1"}`, contentType("application/json")).status(t)
		s.must(t, 400, "DELETE", configMaps("/a"), `{"gracePeriodSeconds":"x"}`, contentType("application/json")).status(t)
		s.must(t, 200, "DELETE", configMaps("/a?propagationPolicy=Background&gracePeriodSeconds=1"), "")
	})
}

// TestKindsThatOrphan: without a policy, ReplicationControllers and Jobs leave
// their pods, and a delete of a Job warns of it.
func TestKindsThatOrphan(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct{ path, body, warns string }{
		{"/api/v1/namespaces/default/replicationcontrollers", `{"metadata":{"name":"a"},"spec":{"replicas":0,"selector":{"a":"b"},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, ""},
		{"/apis/batch/v1/namespaces/default/jobs", `{"metadata":{"name":"a"},"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`,
			"child pods are preserved by default when jobs are deleted"},
		{"/apis/apps/v1/namespaces/default/replicasets", `{"metadata":{"name":"a"},"spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, ""},
	} {
		t.Run(path.Base(c.path), func(t *testing.T) {
			orphans := path.Base(c.path) != "replicasets"
			s.must(t, 201, "POST", c.path, c.body, contentType("application/json"))
			a := s.must(t, 200, "DELETE", c.path+"/a", "")
			if got := a.header.Get("Warning"); !strings.Contains(got, c.warns) || c.warns == "" && got != "" {
				t.Errorf("the warning %q, want %q", got, c.warns)
			}
			if !orphans {
				s.must(t, 404, "GET", c.path+"/a", "")
				return
			}
			var got metav1.PartialObjectMetadata
			s.must(t, 200, "GET", c.path+"/a", "").decode(t, &got)
			if len(got.Finalizers) == 0 || got.Finalizers[len(got.Finalizers)-1] != metav1.FinalizerOrphanDependents {
				t.Errorf("deleted without a policy, it has the finalizers %v", got.Finalizers)
			}
			s.must(t, 200, "PATCH", c.path+"/a", `{"metadata":{"finalizers":null}}`, contentType("application/merge-patch+json"))
			s.must(t, 404, "GET", c.path+"/a", "")
			s.must(t, 201, "POST", c.path, c.body, contentType("application/json"))
			a = s.must(t, 200, "DELETE", c.path+"/a?propagationPolicy=Background", "")
			if got := a.header.Get("Warning"); got != "" {
				t.Errorf("with a policy it warns %q", got)
			}
			s.must(t, 404, "GET", c.path+"/a", "")
		})
	}
}

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func (s *server) makePod(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	out, err := s.Client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkPodDeletion: DEL-3, DEL-2 for grace periods.
func checkPodDeletion(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, pods := t.Context(), s.Client.CoreV1().Pods("default")
		s.makePod(t, pod("unbound", ""))
		if err := pods.Delete(ctx, "unbound", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Get(ctx, "unbound", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("an unbound pod stays: %v", err)
		}
		bound := s.makePod(t, pod("bound", "n"))
		remove := func(grace *int64, uid *types.UID) error {
			return pods.Delete(ctx, "bound", metav1.DeleteOptions{GracePeriodSeconds: grace, Preconditions: &metav1.Preconditions{UID: uid}})
		}
		before := time.Now()
		if err := remove(nil, nil); err != nil {
			t.Fatal(err)
		}
		got, err := pods.Get(ctx, "bound", metav1.GetOptions{})
		if err != nil || *got.DeletionGracePeriodSeconds != 30 || got.DeletionTimestamp.Sub(before) < 28*time.Second || got.Generation != 2 {
			t.Fatalf("a bound pod after its deletion: %v (%v)", got, err)
		}
		deadline := got.DeletionTimestamp
		if err := remove(new(int64(60)), nil); err != nil {
			t.Fatal(err)
		}
		if got, err = pods.Get(ctx, "bound", metav1.GetOptions{}); err != nil || !got.DeletionTimestamp.Equal(deadline) {
			t.Fatalf("a longer grace period moved the deadline to %v (%v)", got.DeletionTimestamp, err)
		}
		if err := remove(new(int64(5)), nil); err != nil {
			t.Fatal(err)
		}
		if got, err = pods.Get(ctx, "bound", metav1.GetOptions{}); err != nil || *got.DeletionGracePeriodSeconds != 5 || !got.DeletionTimestamp.Before(deadline) {
			t.Fatalf("a shorter grace period: %v (%v)", got, err)
		}
		other := types.UID("other")
		if err := remove(new(int64(0)), &other); !apierrors.IsConflict(err) {
			t.Fatalf("the agent of another pod's end: %v", err)
		}
		if err := remove(new(int64(0)), &bound.UID); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Get(ctx, "bound", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a pod whose agent has confirmed stays: %v", err)
		}
	})
}

// checkDeleteCollection: DEL-8.
func checkDeleteCollection(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, cms := t.Context(), s.Client.CoreV1().ConfigMaps("default")
		for name, label := range map[string]string{"a": "1", "b": "1", "c": "2"} {
			cm := configMap(name)
			cm.Labels = map[string]string{"l": label}
			if name == "b" {
				cm.Finalizers = []string{"example.com/hold"}
			}
			s.makeConfigMap(t, cm)
		}
		names := func() (out string) {
			list, err := cms.List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, cm := range list.Items {
				out += cm.Name
				if cm.DeletionTimestamp != nil {
					out += "!"
				}
			}
			return out
		}
		select1 := metav1.ListOptions{LabelSelector: "l=1"}
		if err := cms.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: []string{"All"}}, select1); err != nil || names() != "abc" {
			t.Fatalf("a dry run leaves %s (%v)", names(), err)
		}
		if err := cms.DeleteCollection(ctx, metav1.DeleteOptions{}, select1); err != nil || names() != "b!c" {
			t.Fatalf("what is selected: %s (%v)", names(), err)
		}
		other := types.UID("other")
		if err := cms.DeleteCollection(ctx, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}, metav1.ListOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("a precondition that does not hold: %v", err)
		}
		if err := cms.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=c"}); err != nil || names() != "b!" {
			t.Fatalf("by field: %s (%v)", names(), err)
		}
		s.must(t, 405, "DELETE", "/api/v1/namespaces", "").status(t)
	})
}

// checkNamespaceDeletion: DEL-7 as far as the API server goes.
func checkNamespaceDeletion(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, namespaces := t.Context(), s.Client.CoreV1().Namespaces()
		s.makeNamespace(t, "a")
		if err := namespaces.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		ns, err := namespaces.Get(ctx, "a", metav1.GetOptions{})
		if err != nil || ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
			t.Fatalf("a deleted namespace: %v (%v)", ns, err)
		}
		_, err = s.Client.CoreV1().ConfigMaps("a").Create(ctx, configMap("x"), metav1.CreateOptions{})
		refused(t, err, 403, metav1.StatusReasonForbidden, "because it is being terminated")
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			t.Errorf("no cause NamespaceTerminating: %v", err)
		}
		_, err = s.Client.CoreV1().ConfigMaps("none").Create(ctx, configMap("x"), metav1.CreateOptions{})
		refused(t, err, 404, metav1.StatusReasonNotFound, `namespaces "none" not found`)
		// What a namespace's finalizers are changes through /finalize only.
		extra := ns.DeepCopy()
		extra.Spec.Finalizers = append(extra.Spec.Finalizers, "example.com/x")
		got, err := namespaces.Update(ctx, extra, metav1.UpdateOptions{})
		if err != nil || len(got.Spec.Finalizers) != 1 {
			t.Fatalf("an update: finalizers %v (%v)", got.Spec.Finalizers, err)
		}
		extra.ResourceVersion = got.ResourceVersion // the try is in managedFields
		if got, err := namespaces.Finalize(ctx, extra, metav1.UpdateOptions{}); err != nil || len(got.Spec.Finalizers) != 2 {
			t.Fatalf("finalize: finalizers %v (%v)", got.Spec.Finalizers, err)
		}
		if ns, err = namespaces.Get(ctx, "a", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		ns.Spec.Finalizers = nil
		if _, err := namespaces.Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := namespaces.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a finalized namespace stays: %v", err)
		}
		err = namespaces.Delete(ctx, "kube-system", metav1.DeleteOptions{})
		refused(t, err, 403, metav1.StatusReasonForbidden, "may not be deleted")
	})
}
