package crifake_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/crifake"
)

// image must be on the real runtime and have sh and sleep.
const image = "docker.io/library/busybox:1"

// runtimes are those the suite runs on: always the fake, and the real one
// whose socket CORACLE_TEST_CRI names.
func runtimes(t *testing.T) map[string]cri.Runtime {
	fake := crifake.New(crifake.Config{})
	fake.AddImage(image)
	out := map[string]cri.Runtime{"fake": fake}
	if endpoint := os.Getenv("CORACLE_TEST_CRI"); endpoint != "" {
		client, err := cri.Dial(cri.Config{Endpoint: endpoint})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		out["real"] = client
	}
	return out
}

// suite is one runtime with a watch on it.
type suite struct {
	t       *testing.T
	runtime cri.Runtime
	changes chan cri.Change
	sandbox string
	pod     *runtimeapi.PodSandboxConfig
}

func newSuite(t *testing.T, runtime cri.Runtime) *suite {
	s := &suite{t: t, runtime: runtime, changes: make(chan cri.Change, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		if err := runtime.Watch(ctx, func(c cri.Change) { s.changes <- c }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); watch.Wait() })
	uid := "suite-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	s.pod = &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: uid},
		Labels:       map[string]string{cri.LabelPodUID: uid},
		LogDirectory: t.TempDir(),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{}},
	}
	id, err := runtime.RunPodSandbox(t.Context(), s.pod, "")
	if err != nil {
		t.Fatal(err)
	}
	s.sandbox = id
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := runtime.StopPodSandbox(ctx, id); err != nil {
			t.Error(err)
		}
		if err := runtime.RemovePodSandbox(ctx, id); err != nil {
			t.Error(err)
		}
		left, err := runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: s.pod.Labels})
		if err != nil || len(left) > 0 {
			t.Errorf("after the sandbox is removed: %v, %v", left, err)
		}
	})
	return s
}

func (s *suite) start(name string, command ...string) string {
	s.t.Helper()
	id, err := s.runtime.CreateContainer(s.t.Context(), s.sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: image},
		Command: command, Labels: map[string]string{cri.LabelPodUID: s.pod.Metadata.Uid}, LogPath: name + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{},
	}, s.pod)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.runtime.StartContainer(s.t.Context(), id); err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *suite) status(id string) *runtimeapi.ContainerStatus {
	s.t.Helper()
	st, err := s.runtime.ContainerStatus(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// waitChange waits for a change of id after which ok holds.
func (s *suite) waitChange(id string, ok func() bool) {
	s.t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case c := <-s.changes:
			if c.ID == id && ok() {
				return
			}
		case <-limit:
			s.t.Fatalf("no change of %s was reported", id)
		}
	}
}

func TestSuite(t *testing.T) {
	for name, runtime := range runtimes(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("exit is reported with its code", func(t *testing.T) {
				s := newSuite(t, runtime)
				id := s.start("c", "sh", "-c", "sleep 0.3; exit 7")
				if st := s.status(id).State; st != runtimeapi.ContainerState_CONTAINER_RUNNING {
					t.Errorf("state %v", st)
				}
				s.waitChange(id, func() bool { return s.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED })
				if st := s.status(id); st.ExitCode != 7 || st.FinishedAt < st.StartedAt || st.Labels[cri.LabelPodUID] != s.pod.Metadata.Uid {
					t.Errorf("status %v", st)
				}
			})
			t.Run("stop ends a container", func(t *testing.T) {
				s := newSuite(t, runtime)
				id := s.start("c", "sleep", "1000")
				if err := s.runtime.StopContainer(t.Context(), id, time.Second); err != nil {
					t.Fatal(err)
				}
				if st := s.status(id); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode == 0 {
					t.Errorf("status %v", st)
				}
				if err := s.runtime.StopContainer(t.Context(), id, time.Second); err != nil {
					t.Errorf("a second stop fails: %v", err)
				}
			})
			t.Run("exec answers with the exit code", func(t *testing.T) {
				s := newSuite(t, runtime)
				id := s.start("c", "sleep", "1000")
				for _, code := range []int32{0, 5} {
					resp, err := s.runtime.ExecSync(t.Context(), id, []string{"sh", "-c", "echo hi; exit " + strconv.Itoa(int(code))}, 5*time.Second)
					if err != nil || resp.ExitCode != code || string(resp.Stdout) != "hi\n" {
						t.Errorf("answer %v, %v", resp, err)
					}
				}
			})
			t.Run("what is not there is not found", func(t *testing.T) {
				if _, err := runtime.ContainerStatus(t.Context(), "0123456789"); !cri.IsNotFound(err) {
					t.Errorf("container: %v", err)
				}
				if _, err := runtime.PodSandboxStatus(t.Context(), "0123456789"); !cri.IsNotFound(err) {
					t.Errorf("sandbox: %v", err)
				}
				if i, err := runtime.ImageStatus(t.Context(), "docker.io/library/absent:1"); i != nil || err != nil {
					t.Errorf("image: %v, %v", i, err)
				}
			})
			t.Run("listing shows what runs", func(t *testing.T) {
				s := newSuite(t, runtime)
				id := s.start("c", "sleep", "1000")
				list, err := runtime.ListContainers(t.Context(), &runtimeapi.ContainerFilter{LabelSelector: s.pod.Labels})
				if err != nil || len(list) != 1 || list[0].Id != id || list[0].PodSandboxId != s.sandbox {
					t.Errorf("containers %v, %v", list, err)
				}
				all, err := runtime.ListPodSandbox(t.Context(), nil)
				if err != nil || !slices.ContainsFunc(all, func(b *runtimeapi.PodSandbox) bool { return b.Id == s.sandbox }) {
					t.Errorf("sandboxes %v, %v", all, err)
				}
			})
			t.Run("a log is written", func(t *testing.T) {
				s := newSuite(t, runtime)
				id := s.start("c", "sh", "-c", "echo hello; sleep 0.2")
				s.status(id) // from here on its end is watched
				s.waitChange(id, func() bool { return s.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED })
				data, err := os.ReadFile(s.pod.LogDirectory + "/c.log")
				if err != nil || !strings.HasSuffix(string(data), " stdout F hello\n") {
					t.Errorf("log %q, %v", data, err)
				}
			})
		})
	}
}
