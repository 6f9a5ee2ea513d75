package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// amounts makes a list of "name", "quantity", ...
func amounts(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

// limit makes a quota in namespace ns and waits until it is counted.
func (c *cluster) limit(name string, spec corev1.ResourceQuotaSpec) {
	c.t.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if _, err := c.Client.CoreV1().ResourceQuotas("ns").Create(c.t.Context(), q, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.eventually("quota "+name+" is counted", func() error {
		got := c.quota(name)
		if len(got.Status.Used) != len(spec.Hard) {
			return fmt.Errorf("its status is %+v", got.Status)
		}
		return nil
	})
}

func (c *cluster) quota(name string) *corev1.ResourceQuota {
	c.t.Helper()
	q, err := c.Client.CoreV1().ResourceQuotas("ns").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return q
}

// wantUsed waits until a quota's usage says "name", "quantity", ...
func (c *cluster) wantUsed(name string, pairs ...string) {
	c.t.Helper()
	c.eventually("usage of quota "+name, func() error {
		q := c.quota(name)
		for key, want := range amounts(pairs...) {
			if got, ok := q.Status.Used[key]; !ok || got.Cmp(want) != 0 {
				return fmt.Errorf("%s is %s (%v), want %s", key, got.String(), ok, want.String())
			}
		}
		return nil
	})
}

// inQuotas runs body in a cluster that has a namespace ns.
func inQuotas(t *testing.T, body func(t *testing.T, c *cluster)) {
	scenario(t, func(t *testing.T, c *cluster) {
		if _, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		body(t, c)
	})
}

func quotaPod(name string, requests, limits corev1.ResourceList, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		NodeSelector: map[string]string{"no": "node"},
		Containers:   []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func exceeds(t *testing.T, err error, part string) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want a refusal with %q", err, part)
	}
}

// TestQuotaFollowsPods: APIM-072, and what is resized.
func TestQuotaFollowsPods(t *testing.T) {
	inQuotas(t, func(t *testing.T, c *cluster) {
		ctx, pods := t.Context(), c.Client.CoreV1().Pods("ns")
		c.limit("q", corev1.ResourceQuotaSpec{Hard: amounts("pods", "2", "cpu", "1", "memory", "500Mi", "requests.example.com/gpu", "3")})
		c.wantUsed("q", "pods", "0", "cpu", "0")
		first, err := pods.Create(ctx, quotaPod("a", amounts("cpu", "500m", "memory", "252Mi", "example.com/gpu", "2"), amounts("example.com/gpu", "2")), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		used := []string{"pods", "1", "cpu", "500m", "memory", "252Mi", "requests.example.com/gpu", "2"}
		c.wantUsed("q", used...)
		_, err = pods.Create(ctx, quotaPod("b", amounts("cpu", "600m", "memory", "100Mi"), nil), metav1.CreateOptions{})
		exceeds(t, err, `pods "b" is forbidden: exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1`)
		_, err = pods.Create(ctx, quotaPod("b", amounts("cpu", "100m", "memory", "1Mi", "example.com/gpu", "2"), amounts("example.com/gpu", "2")), metav1.CreateOptions{})
		exceeds(t, err, "exceeded quota: q, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=2, limited: requests.example.com/gpu=3")
		_, err = pods.Create(ctx, quotaPod("b", amounts("cpu", "100m"), nil), metav1.CreateOptions{})
		exceeds(t, err, "failed quota: q: must specify memory for: c")
		_, err = pods.Create(ctx, quotaPod("b", amounts("cpu", "100m", "memory", "1Mi"), nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Errorf("a dry run that fits: %v", err)
		}
		first.Spec.Containers[0].Resources.Requests = amounts("cpu", "100m", "memory", "100Mi")
		if _, err = pods.Update(ctx, first, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("editing a pod's requests: %v", err)
		}
		resize := func(cpu string) error {
			_, err := pods.Patch(ctx, "a", types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":%q}}}]}}`, cpu), metav1.PatchOptions{}, "resize")
			return err
		}
		exceeds(t, resize("1100m"), "exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1")
		c.wantUsed("q", used...)
		if err := resize("800m"); err != nil {
			t.Fatal(err)
		}
		c.wantUsed("q", "cpu", "800m", "pods", "1")
		if err := pods.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantUsed("q", "pods", "0", "cpu", "0", "memory", "0", "requests.example.com/gpu", "0")
	})
}

// TestQuotaFollowsObjects: APIM-071 and 073 to 077.
func TestQuotaFollowsObjects(t *testing.T) {
	inQuotas(t, func(t *testing.T, c *cluster) {
		ctx, core := t.Context(), c.Client.CoreV1()
		c.eventually("the namespace has its authority", func() error {
			_, err := core.ConfigMaps("ns").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			return err
		})
		c.limit("q", corev1.ResourceQuotaSpec{Hard: amounts("configmaps", "5", "secrets", "5", "resourcequotas", "1", "services", "5", "services.nodeports", "2",
			"services.loadbalancers", "1", "replicationcontrollers", "1", "count/replicasets.apps", "1", "persistentvolumeclaims", "1", "requests.storage", "5Gi",
			"gold.storageclass.storage.k8s.io/requests.storage", "1Gi")})
		c.wantUsed("q", "configmaps", "1", "secrets", "0", "resourcequotas", "1", "services", "0", "count/replicasets.apps", "0")
		_, err := core.ResourceQuotas("ns").Create(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "second"}}, metav1.CreateOptions{})
		exceeds(t, err, "exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1, limited: resourcequotas=1")
		service := func(name string, kind corev1.ServiceType, ports ...int32) error {
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: kind}}
			for _, p := range ports {
				s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", p), Port: p})
			}
			_, err := core.Services("ns").Create(ctx, s, metav1.CreateOptions{})
			return err
		}
		labels := map[string]string{"a": "b"}
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template}}
		rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ReplicationControllerSpec{Replicas: new(int32(0)), Selector: labels, Template: &template}}
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: new("gold"),
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "1Gi")}}}
		big := claim.DeepCopy()
		big.Spec.Resources.Requests = amounts("storage", "2Gi")
		_, err = core.PersistentVolumeClaims("ns").Create(ctx, big, metav1.CreateOptions{})
		exceeds(t, err, "exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests.storage=2Gi, used: gold.storageclass.storage.k8s.io/requests.storage=0, limited: gold.storageclass.storage.k8s.io/requests.storage=1Gi")
		for _, make := range []func() error{
			func() error { return service("a", corev1.ServiceTypeClusterIP, 80) },
			func() error { return service("b", corev1.ServiceTypeNodePort, 80) },
			func() error {
				_, err := core.Secrets("ns").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{})
				return err
			},
			func() error {
				_, err := c.Client.AppsV1().ReplicaSets("ns").Create(ctx, set, metav1.CreateOptions{})
				return err
			},
			func() error {
				_, err := core.ReplicationControllers("ns").Create(ctx, rc, metav1.CreateOptions{})
				return err
			},
			func() error {
				_, err := core.PersistentVolumeClaims("ns").Create(ctx, claim, metav1.CreateOptions{})
				return err
			},
		} {
			if err := make(); err != nil {
				t.Fatal(err)
			}
		}
		exceeds(t, service("c", corev1.ServiceTypeLoadBalancer, 80, 443), "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=1, limited: services.nodeports=2")
		c.wantUsed("q", "services", "2", "services.nodeports", "1", "services.loadbalancers", "0", "secrets", "1", "count/replicasets.apps", "1",
			"replicationcontrollers", "1", "persistentvolumeclaims", "1", "requests.storage", "1Gi", "gold.storageclass.storage.k8s.io/requests.storage", "1Gi", "configmaps", "1")
		background := metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}
		for what, err := range map[string]error{
			"service": core.Services("ns").Delete(ctx, "a", background), "node port": core.Services("ns").Delete(ctx, "b", background),
			"secret": core.Secrets("ns").Delete(ctx, "s", background), "set": c.Client.AppsV1().ReplicaSets("ns").Delete(ctx, "s", background),
			"controller": core.ReplicationControllers("ns").Delete(ctx, "s", background), "claim": core.PersistentVolumeClaims("ns").Delete(ctx, "s", background),
		} {
			if err != nil {
				t.Errorf("delete the %s: %v", what, err)
			}
		}
		c.wantUsed("q", "services", "0", "services.nodeports", "0", "secrets", "0", "count/replicasets.apps", "0", "replicationcontrollers", "0",
			"persistentvolumeclaims", "0", "requests.storage", "0")
	})
}

// TestQuotaScopes: APIM-079 and 080.
func TestQuotaScopes(t *testing.T) {
	inQuotas(t, func(t *testing.T, c *cluster) {
		ctx, pods := t.Context(), c.Client.CoreV1().Pods("ns")
		for name, scope := range map[string]corev1.ResourceQuotaScope{"best": "BestEffort", "not-best": "NotBestEffort", "ends": "Terminating", "stays": "NotTerminating"} {
			c.limit(name, corev1.ResourceQuotaSpec{Hard: amounts("pods", "5"), Scopes: []corev1.ResourceQuotaScope{scope}})
		}
		c.limit("high", corev1.ResourceQuotaSpec{Hard: amounts("pods", "0"), ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"system-node-critical"}}}}})
		want := func(best, notBest, ends, stays string) {
			t.Helper()
			c.wantUsed("best", "pods", best)
			c.wantUsed("not-best", "pods", notBest)
			c.wantUsed("ends", "pods", ends)
			c.wantUsed("stays", "pods", stays)
		}
		_, err := pods.Create(ctx, quotaPod("critical", nil, nil, func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" }), metav1.CreateOptions{})
		exceeds(t, err, "exceeded quota: high, requested: pods=1, used: pods=0, limited: pods=0")
		for _, p := range []*corev1.Pod{
			quotaPod("best", nil, nil), quotaPod("busy", amounts("cpu", "1"), nil, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(3600)) }),
		} {
			if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		want("1", "1", "1", "1")
		best, err := pods.Get(ctx, "best", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		best.Spec.ActiveDeadlineSeconds = new(int64(7200))
		if _, err := pods.Update(ctx, best, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		want("1", "1", "2", "0")
		for _, name := range []string{"best", "busy"} {
			if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		want("0", "0", "0", "0")
	})
}

// TestQuotaStatusIsTheControllers: APIM-069, and usage that somebody made up.
func TestQuotaStatusIsTheControllers(t *testing.T) {
	inQuotas(t, func(t *testing.T, c *cluster) {
		ctx, quotas := t.Context(), c.Client.CoreV1().ResourceQuotas("ns")
		c.limit("q", corev1.ResourceQuotaSpec{Hard: amounts("secrets", "5")})
		if _, err := quotas.Patch(ctx, "q", types.MergePatchType, []byte(`{"status":{"hard":{"secrets":"1"},"used":{"secrets":"3"}}}`), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		c.eventually("the status is as counted", func() error {
			s := c.quota("q").Status
			hard, used := s.Hard["secrets"], s.Used["secrets"]
			if hard.Value() != 5 || used.Value() != 0 {
				return fmt.Errorf("hard %s, used %s", hard.String(), used.String())
			}
			return nil
		})
		if _, err := quotas.Patch(ctx, "q", types.MergePatchType, []byte(`{"spec":{"hard":{"configmaps":"9","secrets":null}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantUsed("q", "configmaps", "1")
		if s := c.quota("q").Status; len(s.Hard) != 1 || len(s.Used) != 1 {
			t.Errorf("what is not bounded any more is in the status: %+v", s)
		}
		// A write that fails after it was charged leaves nothing behind.
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}}
		if _, err := c.Client.CoreV1().ConfigMaps("ns").Create(ctx, cm, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			t.Errorf("a second one of a name: %v", err)
		}
		if used := c.quota("q").Status.Used["configmaps"]; used.Value() != 1 {
			t.Errorf("after a failed write %s are used, want 1", used.String())
		}
	})
}

// TestQuotaOfCustomResources: a kind that comes after its quota is counted.
func TestQuotaOfCustomResources(t *testing.T) {
	inQuotas(t, func(t *testing.T, c *cluster) {
		ctx, raw := t.Context(), c.Client.Discovery().RESTClient()
		c.limit("q", corev1.ResourceQuotaSpec{Hard: amounts("count/widgets.example.com", "1")})
		definition := `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets.example.com"},"spec":{"group":"example.com",
			"scope":"Namespaced","names":{"plural":"widgets","kind":"Widget"},"versions":[{"name":"v1","served":true,"storage":true,
			"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`
		if err := raw.Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").SetHeader("Content-Type", "application/json").Body([]byte(definition)).Do(ctx).Error(); err != nil {
			t.Fatal(err)
		}
		make := func(name string) error {
			body := fmt.Appendf(nil, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":%q}}`, name)
			return raw.Post().AbsPath("/apis/example.com/v1/namespaces/ns/widgets").SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
		}
		c.eventually("a widget can be made", func() error { return make("a") })
		exceeds(t, make("b"), "exceeded quota: q, requested: count/widgets.example.com=1, used: count/widgets.example.com=1, limited: count/widgets.example.com=1")
		time.Sleep(time.Minute) // what was charged is there: no count takes it back
		synctest.Wait()
		c.wantUsed("q", "count/widgets.example.com", "1")
		if err := raw.Delete().AbsPath("/apis/example.com/v1/namespaces/ns/widgets/a").Do(ctx).Error(); err != nil {
			t.Fatal(err)
		}
		c.wantUsed("q", "count/widgets.example.com", "0")
		if err := make("b"); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
	})
}

// TestDefaultsOfLimitRangesCount: what a LimitRange adds is what a quota
// charges.
func TestDefaultsOfLimitRangesCount(t *testing.T) {
	inQuotas(t, func(t *testing.T, c *cluster) {
		ctx := context.WithoutCancel(t.Context())
		c.limit("q", corev1.ResourceQuotaSpec{Hard: amounts("requests.memory", "1Gi", "limits.memory", "2Gi")})
		_, err := c.Client.CoreV1().Pods("ns").Create(ctx, quotaPod("a", nil, nil), metav1.CreateOptions{})
		exceeds(t, err, "failed quota: q: must specify limits.memory for: c; requests.memory for: c")
		limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Default: amounts("memory", "512Mi"), DefaultRequest: amounts("memory", "256Mi")}}}}
		if _, err := c.Client.CoreV1().LimitRanges("ns").Create(ctx, limits, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.CoreV1().Pods("ns").Create(ctx, quotaPod("a", nil, nil), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantUsed("q", "requests.memory", "256Mi", "limits.memory", "512Mi")
	})
}
