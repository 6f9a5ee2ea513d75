//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/cluster"
)

// ready says whether a node's Ready condition has a status.
func (s *suite) ready(node string, want corev1.ConditionStatus) func(context.Context) error {
	return func(ctx context.Context) error {
		n, err := s.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == want {
				return nil
			}
		}
		return fmt.Errorf("node %s: conditions %+v", node, n.Status.Conditions)
	}
}

// survivesPartition cuts the third node off: the others notice and answer on,
// its containers run on, and the same pods are there when it is healed.
func (s *suite) survivesPartition() {
	third := name + "-3"
	s.ctl("cluster", "node", "partition", name, third)
	if out := s.ctl("cluster", "node", "list", name); !strings.Contains(out, "partitioned") {
		s.t.Errorf("the node is cut off and the list says\n%s", out)
	}
	s.eventually("the cut-off node is unknown", 2*time.Minute, s.ready(third, corev1.ConditionUnknown))
	s.eventually("the page answers meanwhile", 30*time.Second, s.page("hello from the test"))
	s.ctl("cluster", "node", "heal", name, third)
	s.eventually("the healed node is ready", time.Minute, s.ready(third, corev1.ConditionTrue))
	// A node can also be stopped in order and started.
	s.ctl("cluster", "node", "stop", name, third)
	s.ctl("cluster", "node", "start", name, third)
	s.eventually("the stopped node is back", time.Minute, s.ready(third, corev1.ConditionTrue))
}

// survivesPowerCut ends everything of the cluster at once and takes away what
// a reboot of the machine takes away: processes, links, firewall rules. The
// process files then name numbers of a boot that is over.
func (s *suite) survivesPowerCut() {
	s.run("bare", "sleep", "1000000") // the first one may have gone with a node that was away
	s.eventually("a bare pod runs", time.Minute, s.running("default", "bare"))
	folder := filepath.Join(cluster.DefaultRoot, name)
	files, err := filepath.Glob(filepath.Join(folder, "nodes", "*", "init.pid"))
	if err != nil || len(files) != 3 {
		s.t.Fatalf("process files %v, %v", files, err)
	}
	for _, file := range append(files, filepath.Join(folder, "apiserver.pid")) {
		s.cutPower(file)
	}
	for _, undo := range [][]string{
		{"umount", filepath.Join(folder, "bridge.netns")}, // with it goes the link to the host
		{"nft", "delete", "table", "inet", "coracle_cluster_" + name},
	} {
		if out, err := exec.Command(undo[0], undo[1:]...).CombinedOutput(); err != nil {
			s.t.Fatalf("%v: %v\n%s", undo, err, out)
		}
	}
	if out := s.ctl("cluster", "list"); !strings.Contains(out, "stopped") {
		s.t.Errorf("after the power cut the list says\n%s", out)
	}
	s.ctl("cluster", "start", name)
	s.eventually("the demo and its data are back after the power cut", 2*time.Minute, func(ctx context.Context) error {
		if err := s.available(ctx); err != nil {
			return err
		}
		return s.page("hello from the test")(ctx)
	})
	s.eventually("a bare pod is back after the power cut", time.Minute, s.running("default", "bare"))
}

// cutPower kills the process that a process file names and makes the file one
// of an earlier boot.
func (s *suite) cutPower(file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	var process map[string]any
	if err := json.Unmarshal(data, &process); err != nil {
		s.t.Fatalf("%s: %v", file, err)
	}
	pid, ok := process["pid"].(float64)
	if !ok || pid <= 1 {
		s.t.Fatalf("%s names no process: %s", file, data)
	}
	if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	s.eventually(filepath.Base(file)+"'s process has ended", 10*time.Second, func(context.Context) error {
		if err := unix.Kill(int(pid), 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("process %d is still there: %w", int(pid), err)
		}
		return nil
	})
	process["pid"], process["bootID"] = os.Getpid(), "an earlier one"
	if data, err = json.Marshal(process); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}
