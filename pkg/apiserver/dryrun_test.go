package apiserver_test

import (
	"fmt"
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// checkDryRunOfEveryVerb: DR-1. No verb and no subresource writes when it is
// asked not to.
func checkDryRunOfEveryVerb(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx := t.Context()
		const deployments, pods, services = "/apis/apps/v1/namespaces/default/deployments", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services"
		s.must(t, 201, "POST", deployments, `{"metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},
			"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, contentType(jsonBody))
		s.makePod(t, pod("free", ""))
		s.makePod(t, pod("bound", "n"))
		s.makeNamespace(t, "ns")
		if _, err := s.Client.PolicyV1().PodDisruptionBudgets("default").Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"},
			Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		end := s.makeConfigMap(t, configMap("a", "k", "v"))
		before, err := s.Registry().Cache().Current(ctx)
		if err != nil {
			t.Fatal(err)
		}
		merge, strategic, ops := contentType("application/merge-patch+json"), contentType("application/strategic-merge-patch+json"), contentType("application/json-patch+json")
		for _, c := range []struct {
			method, path, body string
			kind               header
			code               int
		}{
			{"POST", configMaps(""), `{"metadata":{"generateName":"x-"}}`, contentType(jsonBody), 201},
			{"PUT", configMaps("/a"), fmt.Sprintf(`{"metadata":{"name":"a","resourceVersion":%q},"data":{"k":"w"}}`, end.ResourceVersion), contentType(jsonBody), 200},
			{"PATCH", configMaps("/a"), `{"data":{"k":"w"}}`, merge, 200},
			{"PATCH", configMaps("/a"), `{"data":{"k":"w"}}`, strategic, 200},
			{"PATCH", configMaps("/a"), `[{"op":"replace","path":"/data/k","value":"w"}]`, ops, 200},
			{"PATCH", configMaps("/new?fieldManager=m"), `{"kind":"ConfigMap","apiVersion":"v1"}`, contentType(applyBody), 201},
			{"PATCH", configMaps("/a?fieldManager=m&force=true"), `{"kind":"ConfigMap","apiVersion":"v1","data":{"k":"w"}}`, contentType(applyBody), 200},
			{"DELETE", configMaps("/a"), "", contentType(jsonBody), 200},
			{"DELETE", configMaps(""), "", contentType(jsonBody), 200},
			{"DELETE", configMaps("/a?propagationPolicy=Foreground"), "", contentType(jsonBody), 200},
			{"DELETE", "/api/v1/namespaces/ns", "", contentType(jsonBody), 200},
			{"DELETE", pods + "/bound", "", contentType(jsonBody), 200},
			{"DELETE", pods + "/bound", `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"dryRun":["All"]}`, contentType(jsonBody), 200},
			{"PUT", "/api/v1/namespaces/ns/finalize", `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"ns"},"spec":{"finalizers":["example.com/x"]}}`, contentType(jsonBody), 200},
			{"PATCH", "/api/v1/namespaces/ns/status", `{"metadata":{"annotations":{"x":"y"}}}`, merge, 200},
			{"PATCH", deployments + "/a/status", `{"status":{"replicas":3}}`, merge, 200},
			{"PATCH", deployments + "/a/scale", `{"spec":{"replicas":3}}`, merge, 200},
			{"PATCH", deployments + "/a/scale?fieldManager=m&force=true", `{"kind":"Scale","apiVersion":"autoscaling/v1","spec":{"replicas":3}}`, contentType(applyBody), 200},
			{"PUT", deployments + "/a/scale", `{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"a","namespace":"default"},"spec":{"replicas":3}}`, contentType(jsonBody), 200},
			{"POST", pods + "/free/binding", `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"free"},"target":{"kind":"Node","name":"n"}}`, contentType(jsonBody), 201},
			{"POST", pods + "/free/eviction", `{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"free"}}`, contentType(jsonBody), 201},
			{"PATCH", pods + "/bound/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"e","image":"i"}]}}`, strategic, 200},
			{"POST", services, `{"metadata":{"name":"s"},"spec":{"type":"NodePort","ports":[{"port":1}]}}`, contentType(jsonBody), 201},
			{"DELETE", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b", "", contentType(jsonBody), 200},
		} {
			join := "?"
			for _, r := range c.path {
				if r == '?' {
					join = "&"
				}
			}
			a := s.do(t, c.method, c.path+join+"dryRun=All", c.body, c.kind)
			if a.code != c.code {
				t.Errorf("%s %s: %d, want %d: %s", c.method, c.path, a.code, c.code, a.body)
			}
			after, err := s.Registry().Cache().Current(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if after != before {
				t.Errorf("%s %s wrote at %d", c.method, c.path, after)
				before = after
			}
		}
	})
}
