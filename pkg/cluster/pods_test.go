package cluster

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/image"
)

const testNetwork = `{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
"ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.9.0/24"}]]}}]}`

// loneNode is one node without a cluster around it.
type loneNode struct {
	f           folder
	s           *Spec
	hierarchies []hierarchy
}

func newLoneNode(t *testing.T, name string) *loneNode {
	t.Helper()
	m, _ := testMachine(t, name)
	f := m.folder(name)
	must(t, os.MkdirAll(string(f), 0o755))
	list, err := hostHierarchies()
	must(t, err)
	subnet, err := chooseSubnet(nil)
	must(t, err)
	s := &Spec{Name: name, Created: time.Now(), Subnet: subnet, Snapshotter: snapshotterFor(string(f)), Programs: m.Programs}
	s.Programs.Kubelet = ""
	s.Nodes = []NodeSpec{{Name: name + "-1", Address: netip.AddrFrom4([4]byte{10, 89, subnet.Addr().As4()[2], firstHostPart})}}
	must(t, connectHost(f, s))
	return &loneNode{f: f, s: s, hierarchies: list}
}

// boot starts the node, which shows only the hierarchies in seen.
func (n *loneNode) boot(t *testing.T, seen []hierarchy) int {
	t.Helper()
	node := &n.s.Nodes[0]
	must(t, prepareNode(n.f, n.s, node, seen))
	must(t, writeFile(n.f.rootfs(node.Name, cniConfDir, "10-test.conflist"), []byte(testNetwork), 0o644))
	cgroups, err := createCgroups(n.hierarchies, n.s.Name, node.Name)
	must(t, err)
	must(t, bootNode(t.Context(), n.f, n.s, 0, cgroups))
	p, err := readProcess(n.f.nodePID(node.Name))
	must(t, err)
	return p.PID
}

// runtime loads the images that pods need and returns the node's CRI.
func (n *loneNode) runtime(t *testing.T) cri.RuntimeServiceClient {
	t.Helper()
	pause, err := image.Pause(runtime.GOARCH)
	must(t, err)
	busybox, err := image.Busybox(t.Context(), "/bin/busybox")
	must(t, err)
	name := n.s.Nodes[0].Name
	blobs, err := image.NewBlobs(string(n.f))
	must(t, err)
	defer blobs.Close()
	_, err = loadInto(t.Context(), n.f, name, []image.Named{{Ref: image.PauseRef, Image: pause}, {Ref: "busybox", Image: busybox}}, blobs)
	must(t, err)
	socket, err := n.f.runtimePath(name)
	must(t, err)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	rt := cri.NewRuntimeServiceClient(conn)
	// containerd answers on its socket before its CRI service does.
	eventually(t, "the container runtime serves CRI", func() bool {
		_, err := rt.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
		return err == nil
	})
	return rt
}

// runPod starts a pod of one busybox container and returns the container.
func runPod(t *testing.T, rt cri.RuntimeServiceClient, name, script string, memory int64) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "test", Uid: name},
		LogDirectory: "/var/log/pods/" + name,
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: "/kubepods/" + name},
	}
	sandbox, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	must(t, err)
	created, err := rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, SandboxConfig: config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"},
			Image:    &cri.ImageSpec{Image: "busybox"},
			Command:  []string{"sh", "-c", script},
			LogPath:  "main.log",
			Linux:    &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: memory}},
		}})
	must(t, err)
	_, err = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId})
	must(t, err)
	return created.ContainerId
}

func (n *loneNode) podLog(name string) string {
	data, err := os.ReadFile(n.f.rootfs(n.s.Nodes[0].Name, "var/log/pods", name, "main.log"))
	if err != nil {
		return ""
	}
	return string(data)
}

// freezeContainers freezes the cgroups of all pods of a cluster.
func freezeContainers(t *testing.T, cluster string) {
	t.Helper()
	dirs, err := findCgroups(cluster)
	must(t, err)
	frozen := 0
	for _, dir := range dirs {
		for file, value := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			matches, err := filepath.Glob(filepath.Join(dir, "*", "kubepods", file))
			must(t, err)
			for _, m := range matches {
				must(t, os.WriteFile(m, []byte(value), 0))
				frozen++
			}
		}
	}
	if frozen == 0 {
		t.Error("no cgroup of a pod could be frozen")
	}
}

// TestPodsOnANode runs real containers, ends the node in both ways, and starts
// it again.
func TestPodsOnANode(t *testing.T) {
	n := newLoneNode(t, "cl-pods")
	pid := n.boot(t, n.hierarchies)
	rt := n.runtime(t)
	runPod(t, rt, "first", "hostname; cat /proc/1/cgroup; echo started; sleep 1000", 64<<20)
	eventually(t, "the container writes its log", func() bool { return strings.Contains(n.podLog("first"), "started") })
	if log := n.podLog("first"); !strings.Contains(log, ":/kubepods/first/") || strings.Contains(log, clusterCgroup("cl-pods")) {
		t.Errorf("the container's cgroups are not relative to the node:\n%s", log)
	}
	if left := leftProcesses(t, "cl-pods", "cl-pods-1"); len(left) < 5 {
		t.Errorf("the node's cgroups hold %d processes; init, containerd, shim, pause and sh were expected", len(left))
	}
	n.checkSharedRoot(t, pid)

	// A runtime that dies while it kills a container leaves its cgroup frozen.
	freezeContainers(t, "cl-pods")
	must(t, powerOff(t.Context(), n.f, n.s, 0))
	if left := leftProcesses(t, "cl-pods", "cl-pods-1"); len(left) > 0 {
		t.Errorf("after a kill there are processes %v", left)
	}

	pid = n.boot(t, n.hierarchies)
	rt = n.runtime(t)
	list, err := rt.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	must(t, err)
	if len(list.Items) != 1 || list.Items[0].State != cri.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("after a power cut the runtime knows %v", list.Items)
	}
	runPod(t, rt, "second", "echo started; sleep 1000", 0)
	eventually(t, "the container writes its log", func() bool { return strings.Contains(n.podLog("second"), "started") })
	begin := time.Now()
	must(t, shutDown(t.Context(), n.f, n.s, 0))
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("an orderly stop took %s", took)
	}
	if there, _ := exists(filepath.Join("/proc", strconv.Itoa(pid))); there {
		t.Error("the init is still there")
	}
	if left := leftProcesses(t, "cl-pods", "cl-pods-1"); len(left) > 0 {
		t.Errorf("after a stop there are processes %v", left)
	}
}

// checkSharedRoot looks for what volumes that propagate out of containers need.
func (n *loneNode) checkSharedRoot(t *testing.T, pid int) {
	t.Helper()
	mounts, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "mountinfo"))
	must(t, err)
	root, _, _ := bytes.Cut(mounts, []byte("\n"))
	if !bytes.Contains(root, []byte(" / / ")) && !bytes.Contains(root, []byte("/root / ")) || !bytes.Contains(root, []byte("shared:")) {
		t.Errorf("the node's root is not a shared mount of its own: %s", root)
	}
	if bytes.Contains(mounts, []byte(n.f.bridgeFile())) {
		t.Error("the node sees the bridge's namespace")
	}
	if here, err := mountsBelow(n.f.rootfs(n.s.Nodes[0].Name)); err != nil || len(here) > 0 {
		t.Errorf("the node's mounts are seen on the host: %v, %v", here, err)
	}
}

// TestNodeOnUnifiedCgroups shows the node nothing but a version 2 hierarchy,
// as on most machines of today. On a machine whose controllers are bound to
// version 1 no pod can run there, so the node's own part is what is looked at.
func TestNodeOnUnifiedCgroups(t *testing.T) {
	n := newLoneNode(t, "cl-unified")
	i := slices.IndexFunc(n.hierarchies, func(h hierarchy) bool { return h.V2 })
	if i < 0 {
		t.Fatal("this machine has no version 2 hierarchy: mount one at /sys/fs/cgroup/unified")
	}
	seen := n.hierarchies[i]
	n.hierarchies = []hierarchy{seen}
	seen.Mount = "/sys/fs/cgroup"
	pid := n.boot(t, []hierarchy{seen})
	var st unix.Statfs_t
	must(t, unix.Statfs(filepath.Join("/proc", strconv.Itoa(pid), "root/sys/fs/cgroup"), &st))
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Errorf("/sys/fs/cgroup is a file system of type %x", st.Type)
	}
	own, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil || !strings.Contains(string(own), clusterCgroup("cl-unified")+"/cl-unified-1/init") {
		t.Errorf("the init's cgroup is %s, %v", own, err)
	}
	n.runtime(t) // containerd runs and takes images
	top := filepath.Join(n.hierarchies[0].parent(), clusterCgroup("cl-unified"), "cl-unified-1")
	if procs, err := os.ReadFile(filepath.Join(top, "cgroup.procs")); err != nil || len(procs) > 0 {
		t.Errorf("the node's top cgroup, which must hand controllers to pods, holds processes %q, %v", procs, err)
	}
	must(t, os.Mkdir(filepath.Join("/proc", strconv.Itoa(pid), "root/sys/fs/cgroup/kubepods"), 0o755))
	if there, _ := exists(filepath.Join(top, "kubepods")); !there {
		t.Error("a cgroup made at the node's top is not in the node's cgroup")
	}
}
