package apiserver_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// untilAllowed waits until the roles that were written count.
func (s *server) untilAllowed(t *testing.T, path string) {
	t.Helper()
	eventually(t, "GET "+path+" is allowed", func(context.Context) (bool, error) { return s.do(t, "GET", path, "").code == 200, nil })
}

const rbacPath = "/apis/rbac.authorization.k8s.io/v1"

// TestEscalation: who may write roles and bindings, but not read secrets, makes
// nobody read secrets, by no kind of write (H25). A tenant who administrates one
// namespace binds nothing in the system's (H34).
func TestEscalation(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.makeNamespace(t, "team")
	post := func(path, body string) {
		t.Helper()
		s.must(t, 201, "POST", path, body, contentType(jsonBody))
	}
	role := func(kind, name, rules string) string {
		return fmt.Sprintf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":%q,"metadata":{"name":%q},"rules":[%s]}`, kind, name, rules)
	}
	binding := func(kind, name, refKind, ref, user string) string {
		return fmt.Sprintf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":%q,"metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":%q,"name":%q},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":%q}]}`,
			kind, name, refKind, ref, user)
	}
	const (
		secrets = `{"verbs":["get"],"apiGroups":[""],"resources":["secrets"]}`
		pods    = `{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}`
		every   = `{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}`
		writer  = `{"verbs":["get","list","create","update","patch","delete"],"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles","rolebindings","clusterroles","clusterrolebindings"]}`
	)
	post(rbacPath+"/clusterroles", role("ClusterRole", "writer", writer+","+pods))
	post(rbacPath+"/clusterroles", role("ClusterRole", "reader", secrets))
	post(rbacPath+"/clusterrolebindings", binding("ClusterRoleBinding", "writer", "ClusterRole", "writer", "mallory"))
	post(rbacPath+"/namespaces/team/roles", role("Role", "reader", secrets))
	post(rbacPath+"/namespaces/team/roles", role("Role", "plain", pods))
	post(rbacPath+"/clusterroles", role("ClusterRole", "plain", pods))
	post(rbacPath+"/namespaces/team/rolebindings", binding("RoleBinding", "tenant", "ClusterRole", "admin", "tenant"))
	mallory, tenant := &server{Cluster: s.Cluster, http: s.As("mallory").Transport}, &server{Cluster: s.Cluster, http: s.As("tenant").Transport}
	mallory.untilAllowed(t, rbacPath+"/clusterroles")
	tenant.untilAllowed(t, rbacPath+"/namespaces/team/roles")
	// What they may do is done: all else is refused for what it grants.
	mallory.must(t, 201, "POST", rbacPath+"/namespaces/team/roles", role("Role", "own", pods), contentType(jsonBody))
	mallory.must(t, 201, "POST", rbacPath+"/namespaces/team/rolebindings", binding("RoleBinding", "own", "ClusterRole", "plain", "friend"), contentType(jsonBody))
	tenant.must(t, 201, "POST", rbacPath+"/namespaces/team/roles", role("Role", "tenants", pods), contentType(jsonBody))

	const merge, strategic, operations = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"
	var doors []door
	for _, scope := range []struct{ kind, bound, path string }{{"Role", "RoleBinding", rbacPath + "/namespaces/team"}, {"ClusterRole", "ClusterRoleBinding", rbacPath}} {
		roles, bindings := scope.path+"/"+strings.ToLower(scope.kind)+"s", scope.path+"/"+strings.ToLower(scope.bound)+"s"
		for _, rule := range []string{secrets, every, pods + "," + secrets} {
			doors = append(doors,
				door{"POST", roles, role(scope.kind, "new", rule), jsonBody},
				door{"POST", roles + "?dryRun=All", role(scope.kind, "new", rule), jsonBody},
				door{"PUT", roles + "/plain", role(scope.kind, "plain", rule), jsonBody},
				door{"PATCH", roles + "/plain", `{"rules":[` + rule + `]}`, merge},
				door{"PATCH", roles + "/plain", `{"rules":[` + rule + `]}`, strategic},
				door{"PATCH", roles + "/plain", `[{"op":"replace","path":"/rules","value":[` + rule + `]}]`, operations},
				door{"PATCH", roles + "/plain", `[{"op":"add","path":"/rules/-","value":` + strings.TrimPrefix(rule, pods+",") + `}]`, operations},
				door{"PATCH", roles + "/plain?fieldManager=m&force=true", role(scope.kind, "plain", rule), applyBody},
				door{"PATCH", roles + "/new?fieldManager=m", role(scope.kind, "new", rule), applyBody})
		}
		for _, ref := range []string{"reader", "cluster-admin"} {
			if ref == "cluster-admin" && scope.kind == "Role" {
				continue
			}
			doors = append(doors,
				door{"POST", bindings, binding(scope.bound, "new", scope.kind, ref, "mallory"), jsonBody},
				door{"PATCH", bindings + "/new?fieldManager=m", binding(scope.bound, "new", scope.kind, ref, "mallory"), applyBody})
		}
	}
	// Bindings in a namespace reach the roles of the cluster too, and those that
	// exist get further subjects.
	post(rbacPath+"/namespaces/team/rolebindings", binding("RoleBinding", "readers", "ClusterRole", "reader", "friend"))
	post(rbacPath+"/clusterrolebindings", binding("ClusterRoleBinding", "readers", "ClusterRole", "reader", "friend"))
	before := s.revisionNow(t)
	subject := `{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"mallory"}`
	for _, one := range []string{rbacPath + "/namespaces/team/rolebindings/readers", rbacPath + "/clusterrolebindings/readers"} {
		doors = append(doors,
			door{"PATCH", one, `{"subjects":[` + subject + `]}`, merge},
			door{"PATCH", one, `{"subjects":[` + subject + `]}`, strategic},
			door{"PATCH", one, `[{"op":"add","path":"/subjects/-","value":` + subject + `}]`, operations})
	}
	doors = append(doors,
		door{"PUT", rbacPath + "/namespaces/team/rolebindings/readers", binding("RoleBinding", "readers", "ClusterRole", "reader", "mallory"), jsonBody},
		door{"PUT", rbacPath + "/clusterrolebindings/readers", binding("ClusterRoleBinding", "readers", "ClusterRole", "reader", "mallory"), jsonBody},
		door{"POST", rbacPath + "/namespaces/team/rolebindings", binding("RoleBinding", "new", "ClusterRole", "cluster-admin", "mallory"), jsonBody},
		door{"POST", rbacPath + "/namespaces/kube-system/rolebindings", binding("RoleBinding", "new", "ClusterRole", "edit", "mallory"), jsonBody},
		door{"POST", rbacPath + "/clusterroles", `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"new"},"aggregationRule":{"clusterRoleSelectors":[{}]}}`, jsonBody},
		door{"PATCH", rbacPath + "/clusterroles/plain", `{"aggregationRule":{"clusterRoleSelectors":[{}]}}`, merge})
	for _, d := range doors {
		a := mallory.do(t, d.method, d.path, d.body, contentType(d.content))
		if a.code != 403 || !strings.Contains(string(a.body), "attempting to grant") && !strings.Contains(string(a.body), "must have cluster-admin") {
			t.Errorf("%s %s (%s) %s: %d %s", d.method, d.path, d.content, d.body, a.code, a.body)
		}
	}
	for _, namespace := range []string{"kube-system", "kube-public", "default"} {
		for _, d := range []door{
			{"POST", rbacPath + "/namespaces/" + namespace + "/rolebindings", binding("RoleBinding", "new", "ClusterRole", "view", "tenant"), jsonBody},
			{"POST", rbacPath + "/namespaces/" + namespace + "/roles", role("Role", "new", pods), jsonBody},
			{"GET", "/api/v1/namespaces/" + namespace + "/secrets", "", jsonBody},
			{"POST", "/api/v1/namespaces/" + namespace + "/pods", `{}`, jsonBody},
		} {
			if a := tenant.do(t, d.method, d.path, d.body, contentType(d.content)); a.code != 403 {
				t.Errorf("the tenant: %s %s: %d %s", d.method, d.path, a.code, a.body)
			}
		}
	}
	if now := s.revisionNow(t); now != before {
		t.Errorf("something was written: the store went from %d to %d", before, now)
	}
}

// TestExternalIPs: by default no Service takes an address of its choice, by no
// kind of write, and who edits a namespace gives a load balancer none either
// (CVE-2020-8554).
func TestExternalIPs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const services = "/api/v1/namespaces/default/services"
	body := func(name, more string) string {
		return fmt.Sprintf(`{"kind":"Service","apiVersion":"v1","metadata":{"name":%q},"spec":{"ports":[{"port":80}]%s}}`, name, more)
	}
	s.must(t, 201, "POST", services, body("a", `,"type":"LoadBalancer"`), contentType(jsonBody))
	const external = `"externalIPs":["192.0.2.1"]`
	for _, d := range []door{
		{"POST", services, body("b", ","+external), jsonBody},
		{"PATCH", services + "/a", `{"spec":{` + external + `}}`, "application/merge-patch+json"},
		{"PATCH", services + "/a", `{"spec":{` + external + `}}`, "application/strategic-merge-patch+json"},
		{"PATCH", services + "/a", `[{"op":"add","path":"/spec/externalIPs","value":["192.0.2.1"]}]`, "application/json-patch+json"},
		{"PATCH", services + "/a?fieldManager=m", body("a", ","+external), applyBody},
		{"PATCH", services + "/b?fieldManager=m", body("b", ","+external), applyBody},
	} {
		if a := s.do(t, d.method, d.path, d.body, contentType(d.content)); a.code != 403 || !strings.Contains(string(a.body), "external IPs is denied") {
			t.Errorf("%s %s (%s): %d %s", d.method, d.path, d.content, a.code, a.body)
		}
	}
	s.must(t, 201, "POST", rbacPath+"/namespaces/default/rolebindings",
		`{"metadata":{"name":"editor"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"admin"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"editor"}]}`, contentType(jsonBody))
	editor := &server{Cluster: s.Cluster, http: s.As("editor").Transport}
	editor.untilAllowed(t, services+"/a")
	editor.must(t, 200, "PATCH", services+"/a", `{"metadata":{"labels":{"a":"b"}}}`, contentType("application/merge-patch+json"))
	status := `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`
	if a := editor.do(t, "PATCH", services+"/a/status", status, contentType("application/merge-patch+json")); a.code != 403 {
		t.Errorf("an editor gives a load balancer its address: %d %s", a.code, a.body)
	}
	a := editor.must(t, 200, "PATCH", services+"/a", status, contentType("application/merge-patch+json"))
	if strings.Contains(string(a.body), "192.0.2.1") {
		t.Errorf("an editor sets the status beside the spec: %s", a.body)
	}
	for path, content := range map[string]string{"/api/v1/namespaces/default/endpoints": `{"metadata":{"name":"e"}}`,
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": `{"metadata":{"name":"e"},"addressType":"IPv4","endpoints":[]}`} {
		if a := editor.do(t, "POST", path, content, contentType(jsonBody)); a.code != 403 {
			t.Errorf("an editor writes %s: %d %s", path, a.code, a.body)
		}
	}
}
