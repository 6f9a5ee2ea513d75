package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestStepTimes(t *testing.T) {
	names, took := stepTimes(`Creating cluster bench: 3 nodes on 10.89.2.0/24
  Issue certificates                   0.01 s
  Load images                          was done
  Start 3 nodes                        1.10 s
Cluster bench is ready after 1.49 s: 3 nodes, API server https://127.0.0.1:6445
`)
	if diff := cmp.Diff([]string{"Issue certificates", "Start 3 nodes"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]float64{"Issue certificates": 0.01, "Start 3 nodes": 1.1}, took); diff != "" {
		t.Error(diff)
	}
}

func TestConfigOf(t *testing.T) {
	got := &runtimeapi.PodSandboxConfig{}
	info := map[string]string{"info": `{"pid":7,"config":{"hostname":"h","linux":{"cgroup_parent":"/p","security_context":{"namespace_options":{"pid":1}}}}}`}
	if err := configOf(info, got); err != nil {
		t.Fatal(err)
	}
	if got.GetHostname() != "h" || got.GetLinux().GetCgroupParent() != "/p" ||
		got.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() != runtimeapi.NamespaceMode_CONTAINER {
		t.Errorf("read %v", got)
	}
	if err := configOf(nil, got); err == nil {
		t.Error("no information gives no error")
	}
}
