package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cgroup"
	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/eviction"
	"coracle/pkg/kubelet/image"
	"coracle/pkg/kubelet/imageview"
	"coracle/pkg/kubelet/logs"
	"coracle/pkg/kubelet/node"
	"coracle/pkg/kubelet/probe"
	"coracle/pkg/kubelet/server"
	"coracle/pkg/kubelet/status"
	"coracle/pkg/localpath"
)

// Kubelet is one node agent.
type Kubelet struct {
	cfg     Config
	log     *slog.Logger
	runtime cri.Runtime
	dialled *cri.Client // to close at the end; nil when the runtime was given
	// views shows images as volumes, to close at the end; nil like dialled.
	views *imageview.Viewer

	volumes  volumes
	inUse    func() ([]corev1.UniqueVolumeName, bool) // volumes that must not be detached; nil on a simulated node
	cgroups  cgroups
	locals   *locals  // nil on a simulated node
	drivers  *drivers // nil on a simulated node
	images   *image.Manager
	probes   *probe.Manager
	status   *status.Writer
	node     *node.Manager
	server   *server.Server // nil when none is served
	rotator  *logs.Rotator  // nil on a simulated node
	memory   *checkpoints
	env      *envMemory
	grants   grantMemory
	recorder record.EventRecorder
	facts    criconfig.NodeFacts
	cgroupV2 bool

	imageList imageList
	handlers  atomic.Pointer[[]corev1.NodeRuntimeHandler] // what the runtime can do; nil while unknown

	ownFactory     informers.SharedInformerFactory // nil when the factory was given
	serviceLister  corelisters.ServiceLister
	servicesSynced func() bool
	servicesReady  chan struct{} // closed once the Services were read

	// life is the context of Run, for operations that outlive what began them.
	// It is set before the first of them.
	life context.Context
	name atomic.Pointer[string] // of the runtime

	// measure reads what is left of the node's resources.
	measure  func(rootDir string) map[eviction.Signal]eviction.Level
	pressure atomic.Pointer[eviction.Pressure] // never nil

	lastBeat atomic.Int64 // when the agent last knew that it ran, in ns since 1970

	mu      sync.Mutex
	loops   map[types.UID]*podLoop  // guarded by mu
	initial map[types.UID]inventory // what ran when the agent started and nobody has adopted; guarded by mu
	synced  bool                    // the pods of the node were listed; guarded by mu
	// listVersion is that of the newest list made outside the watch; guarded by mu
	listVersion uint64
	// remembered are the pods found on disk at the start; guarded by mu
	remembered []*corev1.Pod
	running    sync.WaitGroup // the loops
	listed     chan struct{}  // closed by the first list of pods
}

// New checks the configuration and composes an agent. It does not touch the
// network or the runtime yet.
func New(cfg Config) (*Kubelet, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	k := &Kubelet{
		cfg: cfg, log: cfg.Log, runtime: cfg.Runtime, recorder: cfg.Events,
		servicesReady: make(chan struct{}), listed: make(chan struct{}),
		loops: map[types.UID]*podLoop{}, initial: map[types.UID]inventory{},
	}
	if k.runtime == nil {
		client, err := cri.Dial(cri.Config{Endpoint: cfg.RuntimeEndpoint, Log: cfg.Log})
		if err != nil {
			return nil, err
		}
		k.runtime, k.dialled = client, client
	}
	k.pressure.Store(&eviction.Pressure{})
	if !cfg.Simulated {
		k.measure = measureNode
	}
	k.status = status.New(status.Config{Client: cfg.Client, Log: cfg.Log})
	k.probes = probe.New(probe.Config{
		Exec: k.execProbe, Clock: cfg.Clock, Log: cfg.Log, OnChange: k.probeChanged, OnFailure: k.probeFailed,
	})
	factory := cfg.Informers
	if factory == nil {
		factory = informers.NewSharedInformerFactory(cfg.Client, 0)
		k.ownFactory = factory
	}
	k.volumes, k.cgroups = noVolumes{cfg.Client}, noCgroups{}
	if !cfg.Simulated {
		if err := k.composeVolumes(factory); err != nil {
			return nil, fmt.Errorf("kubelet: prepare volumes: %w", err)
		}
	}
	k.images = image.New(image.Config{
		Runtime: k.runtime, Secret: k.volumes.Secret, Parallel: cfg.MaxParallelPulls, Closed: cfg.Closed, Clock: cfg.Clock, Log: cfg.Log,
	})
	if err := k.composeMachine(); err != nil {
		return nil, err
	}
	k.serviceLister = factory.Core().V1().Services().Lister()
	k.servicesSynced = factory.Core().V1().Services().Informer().HasSynced
	return k, nil
}

// composeMachine adds the parts that speak for, and to, the machine.
func (k *Kubelet) composeMachine() error {
	cfg := &k.cfg
	port := int32(10250)
	if cfg.Server != nil {
		s, err := k.newServer(cfg.Server)
		if err != nil {
			return err
		}
		k.server = s
		port = cfg.Server.port()
	}
	var annotations map[string]string
	if k.locals != nil {
		annotations = map[string]string{localpath.Folder: k.locals.volumes.LocalDir()}
	}
	k.node = node.New(node.Config{
		Annotations: annotations,
		Name:        cfg.NodeName, IPs: cfg.NodeIPs, Client: cfg.Client, Capacity: cfg.Capacity, Reserved: cfg.Reserved, MaxPods: cfg.MaxPods,
		RootDir: cfg.RootDir, Labels: cfg.Labels, Taints: cfg.Taints, Port: port, Version: Version,
		VolumesInUse: k.inUse,
		Check:        k.check, Simulated: cfg.Simulated, Clock: cfg.Clock, Log: cfg.Log,
	})
	checkpointDir := ""
	if !cfg.Simulated {
		checkpointDir = filepath.Join(cfg.RootDir, "desired")
		k.rotator = logs.NewRotator(logs.RotatorConfig{
			Containers: k.loggedContainers, Reopen: k.runtime.ReopenContainerLog, Clock: cfg.Clock, Log: cfg.Log,
		})
		k.cgroupV2 = cgroup.V2("/sys/fs/cgroup")
		if !cfg.NoCgroups {
			m, err := cgroup.New(cgroup.Config{Root: cfg.CgroupRoot, Log: cfg.Log})
			if err != nil {
				k.log.Warn("pods get no cgroups of their own; the runtime's default is used", "error", err)
			} else {
				k.cgroups = m
			}
		}
	}
	k.remember(checkpointDir)
	k.facts = k.nodeFacts()
	return nil
}

// Run is the agent's life. It returns once everything it started has ended;
// the containers stay. The end of ctx is not an error.
func (k *Kubelet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.life = ctx
	defer k.record(ctx)()
	var parts sync.WaitGroup
	errs := make(chan error, 16)
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				errs <- fmt.Errorf("kubelet: %s: %w", name, err)
				cancel()
			}
		})
	}
	part("status", k.status.Run)
	part("probes", k.probes.Run)
	part("volumes", k.volumes.Run)
	part("services", k.readServices)
	part("checkpoints", k.memory.run)
	part("heartbeat", k.beat)
	part("node", k.node.Run)
	part("pods", k.runPods)
	if k.server != nil {
		part("server", k.server.Run)
	}
	if k.locals != nil {
		part("local volumes", k.locals.run)
	}
	if k.drivers != nil {
		part("plugins", k.drivers.plugins.Run)
		part("csi drivers", k.drivers.csi.Run)
	}
	if k.measure != nil {
		part("resources", k.guard)
	}
	if k.rotator != nil {
		part("log rotation", k.rotator.Run)
	}
	parts.Wait()
	k.running.Wait()
	if k.dialled != nil {
		_ = k.dialled.Close()
	}
	if k.views != nil {
		_ = k.views.Close()
	}
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// runPods connects to the runtime, takes over what runs there, and follows the
// pods of the node.
func (k *Kubelet) runPods(ctx context.Context) error {
	if !k.connect(ctx) {
		return nil
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	var watchErr error
	parts.Go(func() { watchErr = k.runtime.Watch(ctx, k.runtimeChanged) })
	if !k.takeStock(ctx) {
		return nil
	}
	parts.Go(func() { k.followPods(ctx) })
	parts.Go(func() { k.startOffline(ctx) })
	k.relistLoop(ctx)
	parts.Wait()
	return watchErr
}

// connect waits until the runtime answers.
func (k *Kubelet) connect(ctx context.Context) bool {
	for ctx.Err() == nil {
		v, err := k.runtime.Version(ctx)
		if err == nil {
			name := v.GetRuntimeName()
			k.name.Store(&name)
			k.log.Info("container runtime answers", "runtime", name, "version", v.GetRuntimeVersion())
			return true
		}
		k.log.Warn("container runtime does not answer, waiting for it", "error", err)
		k.pause(ctx, time.Second)
	}
	return false
}

func (k *Kubelet) runtimeName() string {
	if name := k.name.Load(); name != nil {
		return *name
	}
	return ""
}

// pause lets d pass, or ctx end.
func (k *Kubelet) pause(ctx context.Context, d time.Duration) {
	t := k.cfg.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	}
}

// teardown takes down what the agent has made for a pod on the node.
func (k *Kubelet) teardown(ctx context.Context, uid types.UID) error {
	ctx, cancel := context.WithTimeout(ctx, mountTimeout)
	defer cancel()
	err := k.volumes.Unmount(ctx, uid)
	if err == nil {
		k.locals.look() // a volume may have waited for this pod
	}
	return errors.Join(err, k.cgroups.Remove(uid))
}

// loop finds the loop of a pod.
func (k *Kubelet) loop(uid types.UID) *podLoop {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.loops[uid]
}

func (k *Kubelet) execProbe(ctx context.Context, id string, cmd []string, timeout time.Duration) (int, []byte, error) {
	resp, err := k.runtime.ExecSync(ctx, id, cmd, timeout)
	if err != nil {
		return 0, nil, deadline(err)
	}
	return int(resp.GetExitCode()), append(resp.GetStdout(), resp.GetStderr()...), nil
}

func (k *Kubelet) probeChanged(uid types.UID, _ string) {
	if w := k.loop(uid); w != nil {
		w.post(func() {})
	}
}

func (k *Kubelet) probeFailed(pod *corev1.Pod, container string, _ probe.Kind, message string) {
	k.event(pod, container, corev1.EventTypeWarning, "Unhealthy", message)
}

// volumeChanged is called when something changed that a pod's volumes show, or
// wait for.
func (k *Kubelet) volumeChanged(uid types.UID) {
	if w := k.loop(uid); w != nil {
		w.post(func() {
			w.refreshed = time.Time{}
			w.retryNow()
		})
	}
}

// allocatable is what the node offers to pods.
func (k *Kubelet) allocatable() corev1.ResourceList { return k.node.Allocatable() }

// runtimeHandler finds the runtime's handler for the pod's RuntimeClass.
func (k *Kubelet) runtimeHandler(ctx context.Context, pod *corev1.Pod) (string, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	class, err := k.cfg.Client.NodeV1().RuntimeClasses().Get(ctx, *name, getOptions())
	if err != nil {
		return "", fmt.Errorf("reading RuntimeClass %q: %w", *name, err)
	}
	return class.Handler, nil
}

// inventory is a listing of what the runtime has of one pod.
type inventory struct {
	sandboxes  map[string]bool // id -> ready
	containers map[string]containerState
	labels     map[string]string // of any of them
	grace      string            // the pod's grace as its containers carry it
	resources  map[string]made   // by container name, of the newest attempt that tells
}

// made is what an attempt of a container was made with.
type made struct {
	attempt   uint32
	resources corev1.ResourceRequirements
}

// remember makes the agent keep in a folder what must outlive it; none if dir
// is empty.
func (k *Kubelet) remember(dir string) {
	k.memory, k.env, k.grants = newCheckpoints(dir, k.log), newEnvMemory(dir), grantMemory{dir}
}

// survey lists what the runtime has of one pod. A runtime that does not answer
// shows nothing; the next relist will.
func (k *Kubelet) survey(ctx context.Context, uid types.UID) inventory {
	selector := map[string]string{cri.LabelPodUID: string(uid)}
	all, err := k.list(ctx, selector)
	if err != nil {
		k.log.Warn("runtime does not list a pod's containers", "uid", uid, "error", err)
	}
	return all[uid]
}

// list lists sandboxes and containers by pod.
func (k *Kubelet) list(ctx context.Context, selector map[string]string) (map[types.UID]inventory, error) {
	sandboxes, err := k.runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	containers, err := k.runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	out := map[types.UID]inventory{}
	of := func(labels map[string]string) (inventory, types.UID, bool) {
		uid := types.UID(labels[cri.LabelPodUID])
		inv, ok := out[uid]
		if !ok {
			inv = inventory{sandboxes: map[string]bool{}, containers: map[string]containerState{}, labels: labels, resources: map[string]made{}}
		}
		return inv, uid, uid != ""
	}
	for _, s := range sandboxes {
		if inv, uid, ok := of(s.GetLabels()); ok {
			inv.sandboxes[s.GetId()] = s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
			out[uid] = inv
		}
	}
	for _, c := range containers {
		if inv, uid, ok := of(c.GetLabels()); ok {
			inv.containers[c.GetId()] = stateOf(c.GetState())
			inv.grace = c.GetAnnotations()[cri.AnnotationPodGrace]
			name, attempt := c.GetMetadata().GetName(), c.GetMetadata().GetAttempt()
			if r := criconfig.MadeWith(c.GetAnnotations()); r != nil && attempt >= inv.resources[name].attempt {
				inv.resources[name] = made{attempt, *r}
			}
			out[uid] = inv
		}
	}
	return out, nil
}
