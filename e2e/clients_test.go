//go:build e2e

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"time"
)

// stockClients uses the cluster with clients that know nothing of it: kubectl
// and Helm, built from their published modules (hack/clients).
func (s *suite) stockClients() {
	s.kubectl()
	s.custom()
	s.explain()
	s.helm()
}

// kubectl types every verb that a person learns first.
func (s *suite) kubectl() {
	s.follow("kubectl", []line{
		{"version", "Server Version: v1.37"},
		{"cluster-info", "control plane.* is running"},
		{"api-resources", "deployments +deploy +apps/v1 +true +Deployment"},
		{"run stock --image=busybox --restart=Never -- sh -c echo${IFS}hello;sleep${IFS}1000000", "created"},
		{"wait --for=condition=Ready pod/stock --timeout=60s", "condition met"},
		{"logs stock", "hello"},
		{"exec stock -- cat /etc/hostname", "stock"},
		{"describe pod stock", "Started +.*Container"},
		{"get pod stock -o wide", "1/1 +Running"},
		{"get nodes -o wide", "e2e-1 +Ready +.*containerd"},
		{"get all", "pod/stock"},
		{"label pod stock tier=front", "labeled"},
		{"annotate pod stock note=x", "annotated"},
		{"cp go.mod stock:/tmp/copy", ""},
		{"exec stock -- head -1 /tmp/copy", "module coracle"},
		{"create deployment stock --image=busybox --replicas=2 -- sleep 1000000", "created"},
		{"rollout status deployment/stock --timeout=60s", "successfully rolled out"},
		{"scale deployment stock --replicas=1", "scaled"},
		{"set env deployment/stock A=b", "updated"},
		{"rollout status deployment/stock --timeout=60s", "successfully rolled out"},
		{"rollout history deployment/stock", "2 "},
		{"rollout undo deployment/stock", "rolled back"},
		{"rollout restart deployment/stock", "restarted"},
		{"expose deployment stock --port=80", "exposed"},
		{"get endpoints,endpointslices", "stock"},
		{"apply --server-side -f e2e/testdata/tour.yaml --dry-run=server", "serverside-applied"},
		{"apply -f e2e/testdata/tour.yaml --dry-run=server --validate=strict", "created .server dry run."},
		{"create token default", "^ey"},
		{"auth can-i create pods", "yes"},
		{"auth whoami", "system:masters"},
		{"get --raw /readyz", "^ok$"},
		{"drain e2e-3 --pod-selector=app=stock --ignore-daemonsets --delete-emptydir-data --timeout=60s", "drained"},
		{"get node e2e-3", "SchedulingDisabled"},
		{"uncordon e2e-3", "uncordoned"},
		{"delete deployment,service stock", "deleted"},
		{"delete pod stock --now --ignore-not-found", ""},
	})
}

// custom brings a kind of its own, and takes it away.
func (s *suite) custom() {
	s.follow("kubectl", []line{
		{"apply -f e2e/testdata/custom/definition.yaml", "created"},
		{"wait --for=condition=Established crd/boats.example.com --timeout=30s", "condition met"},
		{"apply -f e2e/testdata/custom/boat.yaml", "boat.example.com/coracle created"},
		{"get bt", "coracle +1"},
		{"get boat coracle -o jsonpath={.spec.colour}", "^black$"},
		{"explain boat.spec.seats", "How many people"},
		{"patch boat coracle --type=merge -p {\"spec\":{\"seats\":2}}", "patched"},
		{"apply --server-side --force-conflicts -f e2e/testdata/custom/boat.yaml", "serverside-applied"},
	})
	out, err := s.program("", "kubectl", "patch", "boat", "coracle", "--type=merge", "-p", `{"spec":{"seats":20}}`)
	if err == nil || !strings.Contains(out, "big boats are white") {
		s.t.Errorf("a boat against the rules: %v\n%s", err, out)
	}
	s.follow("kubectl", []line{{"delete crd boats.example.com --timeout=60s", "deleted"}})
	if out, err := s.program("", "kubectl", "get", "boats"); err == nil || !strings.Contains(out, "could not find the requested resource") {
		s.t.Errorf("the kind is gone, and: %v\n%s", err, out)
	}
}

// explain asks for the documentation of every kind there is.
func (s *suite) explain() {
	out, err := s.program("", "kubectl", "api-resources", "--no-headers")
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	kinds := 0
	for line := range strings.Lines(out) {
		fields := strings.Fields(line) // name, perhaps short names, version, namespaced, kind
		if len(fields) < 4 {
			s.t.Fatalf("a line of api-resources: %q", line)
		}
		version := fields[len(fields)-3]
		doc, err := s.program("", "kubectl", "explain", fields[0], "--api-version", version, "--recursive")
		if err != nil || !strings.Contains(doc, "FIELDS:") {
			s.t.Errorf("explain %s of %s: %v\n%s", fields[0], version, err, doc)
		}
		kinds++
	}
	if kinds < 50 {
		s.t.Errorf("only %d kinds are listed", kinds)
	}
}

// helm takes one release through its life.
func (s *suite) helm() {
	chart := filepath.Join("e2e", "testdata", "chart")
	s.follow("helm", []line{
		{"install greeter " + chart + " --wait --timeout 60s", "STATUS: deployed"},
		{"upgrade greeter " + chart + " --set greeting=welcome --set replicas=2 --wait --timeout 60s", "REVISION: 2"},
		{"get manifest greeter", "welcome"},
	})
	s.eventually("the release's page says what the upgrade set", 30*time.Second, func(context.Context) error {
		_, err := s.program("", "kubectl", "exec", "deployment/greeter", "--", "sh", "-c", "wget -q -O - http://greeter | grep welcome")
		return err
	})
	s.follow("kubectl", []line{
		{"get --raw /api/v1/namespaces/default/services/greeter:80/proxy/", "welcome"},
		{"get ipaddresses", "10.96.0.1 "},
		{"get servicecidrs", "kubernetes +10.96.0.0/16"},
		{"get componentstatuses", "etcd-0 +Healthy"},
		{"get --raw /api/v1/nodes/" + name + "-1/proxy/metrics/resource", `node_cpu_usage_seconds_total [0-9.]+ [0-9]+\n(.*\n)*node_memory_working_set_bytes [0-9.e+]+ `},
	})
	s.follow("helm", []line{
		{"rollback greeter 1 --wait --timeout 60s", "Rollback was a success"},
		{"history greeter", "Rollback to 1"},
		{"list", "greeter.*deployed"},
		{"uninstall greeter --wait --timeout 60s", "uninstalled"},
	})
}
