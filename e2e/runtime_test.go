//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/cluster"
)

// realRuntime runs the agent's own tests, and the suite of the fake runtime,
// on a node's containerd. The node's own agent sleeps meanwhile, since it would
// remove pods that the API does not have.
func (s *suite) realRuntime() {
	node := name + "-2"
	init := s.nodeInit(name, node)
	agent := s.agent(init)
	if err := unix.Kill(agent, unix.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := unix.Kill(agent, unix.SIGCONT); err != nil {
			s.t.Error(err)
		}
		s.eventually("the agent that slept is back", time.Minute, s.ready(node, corev1.ConditionTrue))
	}()
	s.onNode(node, init, "./pkg/kubelet", "TestMachine/real")
	s.onNode(node, init, "./pkg/kubelet/crifake", "/real")
}

// onNode builds a package's tests and runs those of a pattern inside a node.
func (s *suite) onNode(node string, init int, pkg, pattern string) {
	s.t.Helper()
	inside := filepath.Join("/tmp", filepath.Base(pkg)+".test")
	program := filepath.Join(cluster.DefaultRoot, name, "nodes", node, "root", inside)
	build := exec.Command("go", "test", "-c", "-o", program, pkg)
	build.Dir = s.root
	if out, err := build.CombinedOutput(); err != nil {
		s.t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	defer os.Remove(program)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := s.start(ctx, "", "nsenter", "-t", strconv.Itoa(init), "-m", "-u", "-i", "-n", "-p", "--wd=/tmp",
		"env", "CORACLE_TEST_CRI=unix:///run/containerd/containerd.sock", inside, "-test.run="+pattern, "-test.v", "-test.timeout=4m")
	if err != nil {
		s.t.Fatalf("the tests of %s on a real runtime: %v\n%s", pkg, err, out)
	}
	s.t.Logf("the tests of %s on a real runtime:\n%s", pkg, s.passed(out))
}

// passed are the lines of the tests that passed on the real runtime. That none
// ran would be a failure too.
func (s *suite) passed(out string) string {
	s.t.Helper()
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "--- PASS") {
			lines = append(lines, line)
		}
	}
	if len(lines) < 2 {
		s.t.Errorf("no test ran on the real runtime:\n%s", out)
	}
	return strings.Join(lines, "")
}

// nodeInit is the process number of the init of a cluster's node.
func (s *suite) nodeInit(cluster, node string) int {
	s.t.Helper()
	for line := range strings.Lines(s.ctl("cluster", "node", "list", cluster)) {
		fields := strings.Fields(line)
		if len(fields) == 4 && fields[0] == node {
			pid, err := strconv.Atoi(fields[3])
			if err != nil {
				s.t.Fatalf("node %s does not run: %s", node, line)
			}
			return pid
		}
	}
	s.t.Fatalf("node %s is not listed", node)
	return 0
}

// agent is the process number of the agent below a node's init. Each thread
// of the init lists the children that it started.
func (s *suite) agent(init int) int {
	s.t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", init))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(data)) {
			exe, err := os.Readlink("/proc/" + child + "/exe")
			if err != nil || filepath.Base(exe) != "kubelet" {
				continue
			}
			pid, err := strconv.Atoi(child)
			if err != nil {
				s.t.Fatal(err)
			}
			return pid
		}
	}
	s.t.Fatalf("process %d has no agent below it", init)
	return 0
}
