package apiserver_test

import (
	"strings"
	"testing"
)

// checkFieldValidationDoors: FV-1 at each way in: create, update, the patch
// types, subresources, and through a view.
func checkFieldValidationDoors(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.makeConfigMap(t, configMap("a", "k", "v"))
		const deployments = "/apis/apps/v1/namespaces/default/deployments"
		s.must(t, 201, "POST", deployments, `{"metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},
			"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, contentType(jsonBody))
		const hpa = `"spec":{"maxReplicas":3,"scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"}}`
		for _, c := range []struct {
			name, method, path, kind, body, want string
			code                                 int
		}{
			{"create", "POST", configMaps(""), jsonBody, `{"metadata":{"name":"b"},"unknown":1}`, `unknown field "unknown"`, 201},
			{"update", "PUT", configMaps("/a"), jsonBody, `{"metadata":{"name":"a","unknown":1},"data":{"k":"v","k":"v"}}`, `unknown field "metadata.unknown"`, 200},
			{"update in YAML", "PUT", configMaps("/a"), yamlBody, "metadata: {name: a}\ndata: {k: v}\nunknown: 1\n", `unknown field "unknown"`, 200},
			{"repeated in YAML", "PUT", configMaps("/a"), yamlBody, "metadata: {name: a}\ndata:\n  k: v\n  k: v\n", `key "k" already set in map`, 200},
			{"merge patch", "PATCH", configMaps("/a"), "application/merge-patch+json", `{"unknown":1}`, `unknown field "unknown"`, 200},
			{"repeated in a merge patch", "PATCH", configMaps("/a"), "application/merge-patch+json", `{"data":{"k":"v"},"data":{"k":"v"}}`, `duplicate field "data"`, 200},
			{"strategic patch", "PATCH", configMaps("/a"), "application/strategic-merge-patch+json", `{"unknown":1}`, `unknown field "unknown"`, 200},
			{"repeated in a strategic patch", "PATCH", configMaps("/a"), "application/strategic-merge-patch+json", `{"data":{"k":"v"},"data":{"k":"v"}}`, `duplicate field "data"`, 200},
			{"JSON patch", "PATCH", configMaps("/a"), "application/json-patch+json", `[{"op":"add","path":"/unknown","value":1}]`, `unknown field "unknown"`, 200},
			{"repeated in a JSON patch", "PATCH", configMaps("/a"), "application/json-patch+json", `[{"op":"add","path":"/data/k","path":"/data/k","value":"v"}]`, `duplicate field`, 200},
			{"apply", "PATCH", configMaps("/a?fieldManager=m"), applyBody, "kind: ConfigMap\napiVersion: v1\ndata:\n  k: v\n  k: v\n", `key "k" already set in map`, 200},
			{"status", "PATCH", deployments + "/a/status", "application/merge-patch+json", `{"status":{"unknown":1}}`, `unknown field "status.unknown"`, 200},
			{"scale", "PATCH", deployments + "/a/scale", "application/merge-patch+json", `{"spec":{"unknown":1}}`, `unknown field "spec.unknown"`, 200},
			{"scale update", "PUT", deployments + "/a/scale", jsonBody, `{"metadata":{"name":"a","namespace":"default"},"spec":{"replicas":1,"unknown":1}}`, `unknown field "spec.unknown"`, 200},
			{"view", "POST", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", jsonBody, `{"metadata":{"name":"a"},"unknown":1,` + hpa + `}`, `unknown field "unknown"`, 201},
			{"view patch", "PATCH", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/a", "application/merge-patch+json", `{"spec":{"metrics":[]}}`, `unknown field "spec.metrics"`, 200},
		} {
			join := "?"
			if strings.Contains(c.path, "?") {
				join = "&"
			}
			strict := s.do(t, c.method, c.path+join+"fieldValidation=Strict", c.body, contentType(c.kind))
			if strict.code != 400 && strict.code != 422 || !strings.Contains(strict.status(t).Message, c.want) || !strings.Contains(strict.status(t).Message, "strict decoding error: ") {
				t.Errorf("%s, Strict: %d %s", c.name, strict.code, strict.body)
			}
			for _, level := range []string{"", "Warn", "Ignore"} {
				path := c.path + join + "fieldValidation=" + level
				if c.code == 201 && level != "Ignore" {
					path += "&dryRun=All"
				}
				a := s.do(t, c.method, path, c.body, contentType(c.kind))
				warned := strings.Contains(strings.ReplaceAll(strings.Join(a.header.Values("Warning"), "\n"), `\"`, `"`), c.want)
				if a.code != c.code || warned != (level != "Ignore") {
					t.Errorf("%s, %q: %d with warnings %q: %s", c.name, level, a.code, a.header.Values("Warning"), a.body)
				}
			}
		}
	})
}
