package apiserver_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"coracle/pkg/testcluster"
)

// TestMetrics: what clients make up never becomes a label.
func TestMetrics(t *testing.T) {
	s := newServer(t)
	for i := range 50 {
		s.do(t, "GET", fmt.Sprintf("/apis/g%d/v%d/r%d/n/s%d", i, i, i, i), "")
		s.do(t, fmt.Sprintf("VERB%d", i), fmt.Sprintf("/path%d", i), "")
		s.do(t, "GET", fmt.Sprintf("/api/v1/nodes/n%d/sub%d", i, i), "", header{"User-Agent", fmt.Sprintf("agent%d", i)})
	}
	text := string(s.must(t, 200, "GET", "/metrics", "").body)
	for _, want := range []string{
		`apiserver_storage_objects{resource="namespaces"} 4`, `apiserver_request_duration_seconds_bucket{`, `apiserver_current_inflight_requests{`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version=""} 50`,
		`resource="",scope="",subresource="",verb="other",version=""} 50`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, grep(text, "apiserver_request_total"))
		}
	}
	if n := strings.Count(text, "apiserver_request_total{"); n > 30 {
		t.Errorf("%d series", n)
	}
}

func grep(text, part string) (out string) {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, part) {
			out += line + "\n"
		}
	}
	return out
}

// TestMetricNames: the names and labels that dashboards of kube-apiserver use.
func TestMetricNames(t *testing.T) {
	s := newServer(t, testcluster.WithRoles())
	s.makeConfigMap(t, configMap("a"))
	w := s.watch(t, configMaps("?watch=1"))
	w.want("ADDED", "a")
	s.must(t, 200, "PATCH", configMaps("/a?fieldManager=m"), "apiVersion: v1\nkind: ConfigMap\n", contentType("application/apply-patch+yaml"))
	s.must(t, 200, "PATCH", configMaps("/a?dryRun=All"), "{}", contentType("application/merge-patch+json"))
	s.must(t, 200, "GET", configMaps(""), "")
	s.must(t, 200, "GET", "/api/v1/configmaps", "")
	s.must(t, 200, "GET", "/livez", "")
	s.must(t, 200, "GET", "/api/v1/namespaces/default/endpoints", "")
	s.must(t, 404, "POST", "/api/v1/namespaces/nowhere/configmaps", `{"metadata":{"name":"a"}}`, contentType("application/json"))
	rest := `component="apiserver",group="",resource="configmaps",scope="%s",subresource="",verb="%s",version="v1"}`
	request := func(name, code, dry, scope, verb string) string {
		labels := fmt.Sprintf(`component="apiserver",dry_run=%q,group="",resource="configmaps",scope=%q,subresource="",verb=%q,version="v1"}`, dry, scope, verb)
		if code != "" {
			labels = fmt.Sprintf("code=%q,", code) + labels
		}
		return name + "{" + labels
	}
	text := string(s.must(t, 200, "GET", "/metrics", "").body)
	for _, want := range []string{
		request("apiserver_request_total", "201", "", "resource", "POST") + " 1",
		request("apiserver_request_total", "200", "", "resource", "APPLY") + " 1",
		request("apiserver_request_total", "200", "All", "resource", "PATCH") + " 1",
		request("apiserver_request_total", "200", "", "namespace", "LIST") + " 1",
		request("apiserver_request_duration_seconds_count", "", "All", "resource", "PATCH") + " 1",
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="",scope="",subresource="/livez",verb="GET",version=""} 1`,
		"apiserver_request_sli_duration_seconds_count{" + fmt.Sprintf(rest, "namespace", "LIST") + " 1",
		"apiserver_response_sizes_count{" + fmt.Sprintf(rest, "namespace", "LIST") + " 1",
		"apiserver_longrunning_requests{" + fmt.Sprintf(rest, "namespace", "WATCH") + " 1",
		`apiserver_watch_events_total{group="",resource="configmaps",version="v1"} `,
		`apiserver_watch_events_sizes_count{group="",resource="configmaps",version="v1"} `,
		`apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1`,
		`apiserver_current_inflight_requests{request_kind="mutating"} `,
		`apiserver_storage_objects{resource="deployments.apps"} 0`,
		`apiserver_resource_objects{group="apps",resource="deployments"} 0`,
		`apiserver_registered_watchers{group="",kind="ConfigMap",version="v1"} `,
		`etcd_request_duration_seconds_count{group="",operation="create",resource="configmaps"} `,
		`etcd_requests_total{group="rbac.authorization.k8s.io",operation="create",resource="clusterroles"} `,
		`apiserver_admission_step_admission_duration_seconds_count{operation="CREATE",rejected="false",type="admit"} `,
		`apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",operation="CREATE",rejected="true",type="`,
		`authorization_attempts_total{result="allowed"} `,
		`authentication_attempts{result="success"} 0`,
		`kubernetes_build_info{`,
		"process_resident_memory_bytes ", "go_goroutines ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s in\n%s", want, grep(text, strings.SplitN(want, "{", 2)[0]+"{"))
		}
	}
	eventually(t, "the roles' requests are counted", func(context.Context) (bool, error) {
		return strings.Contains(string(s.must(t, 200, "GET", "/metrics", "").body), `rest_client_requests_total{code="200",host="coracle.invalid",method="GET"} `), nil
	})
}

// TestStorageSize: etcd tells how large its file is.
func TestStorageSize(t *testing.T) {
	s := newServer(t, testcluster.WithBackend(startEtcd(t)))
	text := string(s.must(t, 200, "GET", "/metrics", "").body)
	if line := grep(text, "apiserver_storage_size_bytes{"); !strings.HasPrefix(line, `apiserver_storage_size_bytes{storage_cluster_id="etcd-0"} `) || strings.HasSuffix(line, " 0\n") {
		t.Errorf("the store's size is %q", line)
	}
}
