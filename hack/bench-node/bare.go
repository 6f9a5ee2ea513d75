package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
)

// bare starts containers on a node by calls to its runtime alone. They have the
// configuration of a pod's container that the agent has started there, so that
// the runtime does the same work: the same mounts, cgroup, network and security
// settings. Only the labels by which the agent knows its own are missing.
type bare struct {
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient

	sandbox   *runtimeapi.PodSandboxConfig
	container *runtimeapi.ContainerConfig

	prefix string // of the names, unlike those of earlier runs
	count  atomic.Int64

	mu   sync.Mutex
	made []string // ids of sandboxes; guarded by mu
}

// bareTimes are the moments of one start.
type bareTimes struct{ sandbox, started time.Duration }

// dialBare connects to the runtime of a node and takes the named pod, which
// must run there until the end, as the pattern.
func (l *lab) dialBare(ctx context.Context, node, pod string) (*bare, error) {
	procs, err := processes(l.cluster)
	if err != nil {
		return nil, err
	}
	pid := 0
	for _, p := range procs {
		if p.program == "containerd" && p.node == node {
			pid = p.pid
		}
	}
	if pid == 0 {
		return nil, fmt.Errorf("node %s has no containerd", node)
	}
	conn, err := grpc.NewClient(fmt.Sprintf("unix:///proc/%d/root/run/containerd/containerd.sock", pid), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the runtime of node %s: %w", node, err)
	}
	b := &bare{conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), prefix: fmt.Sprintf("bare-%d-", time.Now().UnixNano())}
	if err := b.learn(ctx, pod); err != nil {
		return nil, errors.Join(fmt.Errorf("take pod %s as a pattern: %w", pod, err), conn.Close())
	}
	return b, nil
}

func (b *bare) close() { _ = b.conn.Close() }

// learn reads how the agent configured a pod and its container.
func (b *bare) learn(ctx context.Context, pod string) error {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	containers, err := b.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{LabelSelector: map[string]string{cri.LabelPodName: pod}},
	})
	if err != nil {
		return err
	}
	if n := len(containers.GetContainers()); n != 1 {
		return fmt.Errorf("it has %d containers, not 1", n)
	}
	c := containers.GetContainers()[0]
	sandbox, err := b.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: c.GetPodSandboxId(), Verbose: true})
	if err != nil {
		return err
	}
	container, err := b.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.GetId(), Verbose: true})
	if err != nil {
		return err
	}
	b.sandbox, b.container = &runtimeapi.PodSandboxConfig{}, &runtimeapi.ContainerConfig{}
	if err := configOf(sandbox.GetInfo(), b.sandbox); err != nil {
		return err
	}
	if err := configOf(container.GetInfo(), b.container); err != nil {
		return err
	}
	if b.sandbox.GetLinux().GetSecurityContext() == nil || len(b.container.GetMounts()) == 0 {
		return errors.New("the runtime does not tell its configuration")
	}
	b.sandbox.Labels, b.container.Labels = nil, nil
	return nil
}

// configOf reads the configuration out of a verbose status.
func configOf(info map[string]string, into any) error {
	var verbose struct {
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal([]byte(info["info"]), &verbose); err != nil {
		return fmt.Errorf("the runtime's verbose status is not readable: %w", err)
	}
	if err := json.Unmarshal(verbose.Config, into); err != nil {
		return fmt.Errorf("the configuration in the runtime's verbose status is not readable: %w", err)
	}
	return nil
}

// start makes one sandbox with one running container.
func (b *bare) start(ctx context.Context) (bareTimes, error) {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	name := fmt.Sprint(b.prefix, b.count.Add(1))
	sandbox := proto.Clone(b.sandbox).(*runtimeapi.PodSandboxConfig)
	sandbox.Metadata = &runtimeapi.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: name}
	container := proto.Clone(b.container).(*runtimeapi.ContainerConfig)
	container.LogPath = name + ".log" // in the pattern's folder
	var t bareTimes
	begin := time.Now()
	s, err := b.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return t, fmt.Errorf("bare RunPodSandbox: %w", err)
	}
	t.sandbox = time.Since(begin)
	b.mu.Lock()
	b.made = append(b.made, s.GetPodSandboxId())
	b.mu.Unlock()
	c, err := b.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: s.GetPodSandboxId(), Config: container, SandboxConfig: sandbox})
	if err != nil {
		return t, fmt.Errorf("bare CreateContainer: %w", err)
	}
	if _, err := b.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.GetContainerId()}); err != nil {
		return t, fmt.Errorf("bare StartContainer: %w", err)
	}
	t.started = time.Since(begin)
	return t, nil
}

// startAll starts n, parallel at a time, and returns how many seconds it took.
func (b *bare) startAll(ctx context.Context, n, parallel int) (float64, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	begin := time.Now()
	for range n {
		g.Go(func() error {
			_, err := b.start(ctx)
			return err
		})
	}
	err := g.Wait()
	return time.Since(begin).Seconds(), err
}

// removeAll ends and removes what start has made.
func (b *bare) removeAll(ctx context.Context) error {
	b.mu.Lock()
	made := b.made
	b.made = nil
	b.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(10)
	for _, id := range made {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, podTimeout)
			defer cancel()
			if _, err := b.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
				return fmt.Errorf("bare StopPodSandbox: %w", err)
			}
			if _, err := b.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
				return fmt.Errorf("bare RemovePodSandbox: %w", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// quiet waits until the runtime has nothing left but the pattern.
func (b *bare) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	for {
		list, err := b.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			return fmt.Errorf("wait for the runtime to come to rest: %w", err)
		}
		if len(list.GetItems()) <= 1 {
			return nil
		}
		rest(ctx, 5*time.Millisecond)
	}
}
