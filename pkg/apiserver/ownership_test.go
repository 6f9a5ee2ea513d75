package apiserver_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	applyautoscalingv1 "k8s.io/client-go/applyconfigurations/autoscaling/v1"
	"k8s.io/client-go/util/csaupgrade"
)

// managers are an object's field managers as "manager operation version
// subresource" with their fields.
func managers(t *testing.T, doc []byte) map[string]string {
	t.Helper()
	obj := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(doc, obj); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range obj.ManagedFields {
		key := strings.TrimSpace(fmt.Sprintf("%s %s %s %s", e.Manager, e.Operation, e.APIVersion, e.Subresource))
		out[key] = e.FieldsV1.GetRawString()
	}
	return out
}

// checkClientSideMigration: SSA-3. What kubectl's client-side apply wrote goes
// over to server-side apply, and nothing stays behind.
func checkClientSideMigration(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		const last = `{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\",\"namespace\":\"default\"},\"data\":{\"k\":\"1\",\"old\":\"1\"}}`
		made := s.must(t, 201, "POST", configMaps("?fieldManager=kubectl-client-side-apply"),
			`{"metadata":{"name":"a","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"`+last+`\n"}},"data":{"k":"1","old":"1"}}`, contentType(jsonBody))
		cm := configMap("a")
		made.decode(t, cm)
		patch, err := csaupgrade.UpgradeManagedFieldsPatch(cm, sets.New("kubectl-client-side-apply"), "kubectl")
		if err != nil {
			t.Fatal(err)
		}
		s.must(t, 200, "PATCH", configMaps("/a"), string(patch), contentType("application/json-patch+json"))
		got := s.must(t, 200, "PATCH", configMaps("/a?fieldManager=kubectl"), `{"kind":"ConfigMap","apiVersion":"v1","data":{"k":"2"}}`, contentType(applyBody))
		cm = &corev1.ConfigMap{}
		got.decode(t, cm)
		if len(cm.Data) != 1 || cm.Data["k"] != "2" {
			t.Errorf("after the migration the data are %v", cm.Data)
		}
		if m := managers(t, got.body); len(m) != 1 || !strings.Contains(m["kubectl Apply v1"], "f:k") {
			t.Errorf("after the migration the managers are %v", m)
		}
	})
}

// checkApplyThroughViews: SSA-3. An object that is served at two versions can
// be applied at both, and each manager owns the fields of its version.
func checkApplyThroughViews(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		const one, two = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/a", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/a"
		v1 := func(manager, spec string, code int) *answer {
			return s.must(t, code, "PATCH", one+"?fieldManager="+manager,
				`{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1","spec":{`+spec+`}}`, contentType(applyBody))
		}
		const target = `"scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"},`
		made := v1("m", target+`"maxReplicas":5,"targetCPUUtilizationPercentage":60`, 201)
		if m := managers(t, made.body); !strings.Contains(m["m Apply autoscaling/v1"], "f:targetCPUUtilizationPercentage") || len(m) != 1 {
			t.Errorf("the managers are %v", m)
		}
		again := v1("m", target+`"maxReplicas":5,"targetCPUUtilizationPercentage":60`, 200)
		if string(again.body) != string(made.body) {
			t.Errorf("applied again:\n%s\nafter\n%s", again.body, made.body)
		}
		stored := s.must(t, 200, "GET", two, "")
		if !strings.Contains(string(stored.body), `"averageUtilization":60`) {
			t.Errorf("through autoscaling/v2: %s", stored.body)
		}
		conflict := s.must(t, 409, "PATCH", two+"?fieldManager=n", `{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2","spec":{"maxReplicas":7}}`, contentType(applyBody)).status(t)
		if !strings.Contains(conflict.Message, `conflict with "m" using autoscaling/v1`) && !strings.Contains(conflict.Message, `conflict with "m"`) {
			t.Errorf("the conflict across versions is %s", conflict.Message)
		}
		s.must(t, 200, "PATCH", two+"?fieldManager=n&force=true", `{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2","spec":{"maxReplicas":7}}`, contentType(applyBody))
		taken := v1("m", target+`"targetCPUUtilizationPercentage":60`, 200)
		if !strings.Contains(string(taken.body), `"maxReplicas":7`) {
			t.Errorf("given up by one of two owners: %s", taken.body)
		}
		v1("m", target+`"maxReplicas":9`, 409).status(t)
		s.must(t, 400, "PATCH", one+"?fieldManager=m", `{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2","spec":{}}`, contentType(applyBody)).status(t)

		const event = "/apis/events.k8s.io/v1/namespaces/default/events/e"
		body := `{"kind":"Event","apiVersion":"events.k8s.io/v1","eventTime":"2026-01-02T03:04:05.000006Z","reportingController":"example.com/c","reportingInstance":"i",
			"action":"Do","reason":"Because","type":"Normal","note":"a note","regarding":{"kind":"ConfigMap","name":"a","namespace":"default"}}`
		first := s.must(t, 201, "PATCH", event+"?fieldManager=m", body, contentType(applyBody))
		if m := managers(t, first.body); !strings.Contains(m["m Apply events.k8s.io/v1"], "f:note") {
			t.Errorf("the managers of the event are %v", m)
		}
		if second := s.must(t, 200, "PATCH", event+"?fieldManager=m", body, contentType(applyBody)); string(second.body) != string(first.body) {
			t.Errorf("the event applied again:\n%s\nafter\n%s", second.body, first.body)
		}
		core := s.must(t, 409, "PATCH", "/api/v1/namespaces/default/events/e?fieldManager=n", `{"kind":"Event","apiVersion":"v1","message":"another"}`, contentType(applyBody)).status(t)
		if len(core.Details.Causes) != 1 || core.Details.Causes[0].Field != ".note" {
			t.Errorf("the conflict through core/v1 is %v", core)
		}
	})
}

// checkApplyOfScale: SSA-3, the number of replicas applied through /scale.
func checkApplyOfScale(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		const path = "/apis/apps/v1/namespaces/default/deployments"
		s.must(t, 201, "POST", path+"?fieldManager=maker", `{"metadata":{"name":"a"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},
			"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, contentType(jsonBody))
		deployments := s.Client.AppsV1().Deployments("default")
		scale := applyautoscalingv1.Scale().WithName("a").WithSpec(applyautoscalingv1.ScaleSpec().WithReplicas(3))
		_, err := deployments.ApplyScale(t.Context(), "a", scale, metav1.ApplyOptions{FieldManager: "scaler"})
		refused(t, err, 409, metav1.StatusReasonConflict, `conflict with "maker"`)
		var got *autoscalingv1.Scale
		if got, err = deployments.ApplyScale(t.Context(), "a", scale, metav1.ApplyOptions{FieldManager: "scaler", Force: true}); err != nil || got.Spec.Replicas != 3 {
			t.Fatalf("a forced apply of the scale: %v (%v)", got, err)
		}
		m := managers(t, s.must(t, 200, "GET", path+"/a", "").body)
		if m["scaler Apply apps/v1 scale"] != `{"f:spec":{"f:replicas":{}}}` || strings.Contains(m["maker Update apps/v1"], "f:replicas") {
			t.Errorf("the managers are %v", m)
		}
		_, err = deployments.ApplyScale(t.Context(), "none", applyautoscalingv1.Scale().WithName("none"), metav1.ApplyOptions{FieldManager: "scaler"})
		refused(t, err, 404, metav1.StatusReasonNotFound, "")
	})
}

// TestOwnersOfBoundPod: nobody owns the node that a pod is bound to, nor the
// note that it is being evicted.
func TestOwnersOfBoundPod(t *testing.T) {
	s := newServer(t)
	const pods = "/api/v1/namespaces/default/pods"
	made := s.must(t, 201, "POST", pods, `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`, contentType(jsonBody))
	s.must(t, 201, "POST", pods+"/p/binding", `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}`, contentType(jsonBody))
	s.must(t, 201, "POST", pods+"/p/eviction", `{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"p"}}`, contentType(jsonBody))
	got := s.must(t, 200, "GET", pods+"/p", "")
	if !strings.Contains(string(got.body), `"nodeName":"n"`) || !strings.Contains(string(got.body), "EvictionByEvictionAPI") {
		t.Fatalf("the pod is %s", got.body)
	}
	if d := cmp.Diff(managers(t, made.body), managers(t, got.body)); d != "" {
		t.Errorf("the owners changed:\n%s", d)
	}
}
