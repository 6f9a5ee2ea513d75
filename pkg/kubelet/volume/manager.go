package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"coracle/pkg/kubelet/csi"
)

// Config is what a Manager needs. The zero value of a field has the stated meaning.
type Config struct {
	// RootDir is the folder of the agent, "/var/lib/kubelet" if empty. Pods
	// have their folders in RootDir/pods/<uid>.
	RootDir string
	// Client fetches ConfigMaps, Secrets, claims, volumes and tokens. Required.
	Client kubernetes.Interface
	// Clock is the real clock if nil.
	Clock clock.PassiveClock
	// Log discards if nil.
	Log *slog.Logger
	// NodeAllocatable gives what the node offers to pods, the upper bound of
	// memory-backed volumes and the stand-in for missing limits. May be nil.
	NodeAllocatable func() corev1.ResourceList
	// OnChange is called, from the Manager's goroutines, when a ConfigMap or
	// Secret that a pod's volumes use has changed, so that the caller can
	// Refresh that pod soon. It must not block. May be nil.
	OnChange func(podUID types.UID)
	// RecursiveReadOnly reports whether the runtime handler of that name
	// ("" is the default one) can make mounts read-only recursively. Nil means no.
	RecursiveReadOnly func(runtimeHandler string) bool

	// NodeName is this node's name, for CSI volumes.
	NodeName string
	// CSI finds the node's CSI drivers. Nil means that the node has none.
	CSI CSIDrivers
	// Images shows images as volumes. Nil means that the node cannot.
	Images Images
	// Node gives the newest version of the Node that was seen, nil if none was.
	// Nil means the same.
	Node func() *corev1.Node
	// ReportInUse is called when VolumesInUse gives another answer, so that the
	// caller can tell the API server soon. It must not block. May be nil.
	ReportInUse func()
	// Event makes an Event about a pod. May be nil.
	Event func(pod *corev1.Pod, eventType, reason, message string)
}

// CSIDrivers finds drivers by name.
type CSIDrivers interface {
	// Find's error matches csi.ErrUnknown for one that has not registered yet.
	Find(name string) (*csi.Driver, error)
}

// PodFacts is what volumes need to know of a pod beyond its object.
type PodFacts struct {
	// PodIPs and HostIPs are the addresses of the pod and its node.
	PodIPs, HostIPs []string
}

// Mounted maps the name of each volume of a pod to where it is on the node.
type Mounted map[string]Source

// Source is one volume that is set up on the node.
type Source struct {
	// HostPath is the volume's root on the node.
	HostPath string
	// ReadOnly is set when containers must not write to the volume, whatever
	// their volumeMounts say.
	ReadOnly bool
	// Block is set for a device, which containers use as volumeDevices.
	Block bool `json:",omitempty"`
	// published is set when the volume shows API objects.
	published bool
}

// Folders below a pod's folder.
const (
	volumesDir  = "volumes"
	subPathsDir = "volume-subpaths"
)

// Bounds of one call.
const (
	// fetchTimeout bounds each request to the API server.
	fetchTimeout = 30 * time.Second
	// mountWorkers is how many volumes of one pod are set up at a time.
	mountWorkers = 8
)

// Manager sets up and tears down the volumes of the node's pods.
type Manager struct {
	cfg     Config
	objects *objects
	tokens  *tokens
	// podCertificates are those that projected volumes show.
	podCertificates *podCertificates
	csi             csiState

	// local is held while a folder of LocalDir comes into use or is taken away.
	local sync.Mutex

	mu   sync.Mutex
	pods map[types.UID]*sync.Mutex // guarded by mu; held while a pod's folder changes
}

// New makes a Manager.
func New(cfg Config) *Manager {
	if cfg.RootDir == "" {
		cfg.RootDir = "/var/lib/kubelet"
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.NodeAllocatable == nil {
		cfg.NodeAllocatable = func() corev1.ResourceList { return nil }
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(types.UID) {}
	}
	if cfg.Node == nil {
		cfg.Node = func() *corev1.Node { return nil }
	}
	if cfg.ReportInUse == nil {
		cfg.ReportInUse = func() {}
	}
	if cfg.Event == nil {
		cfg.Event = func(*corev1.Pod, string, string, string) {}
	}
	return &Manager{
		cfg:     cfg,
		objects: newObjects(cfg.Client, cfg.Log, cfg.OnChange),
		tokens:  newTokens(cfg.Client, cfg.Clock, cfg.Log),

		podCertificates: newPodCertificates(cfg.Client, cfg.Clock, cfg.Log),
		csi:             newCSIState(),
		pods:            make(map[types.UID]*sync.Mutex),
	}
}

// Run watches the ConfigMaps and Secrets that mounted pods use, each by its
// name, and calls OnChange for them, until ctx ends. Without it volumes still
// work: each Mount and Refresh then asks the API server.
func (m *Manager) Run(ctx context.Context) error { return m.objects.run(ctx) }

// PodDir is the folder of a pod on the node. Its owner may keep files of the
// pod there under names that the package does not use; Unmount
// removes them too.
func (m *Manager) PodDir(uid types.UID) string {
	return filepath.Join(m.cfg.RootDir, "pods", string(uid))
}

// ConfigMap reads a ConfigMap afresh, sharing the request with others that ask
// for it at the same time. The error is the API server's, NotFound among them.
// The object must not be changed.
func (m *Manager) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return fetch[*corev1.ConfigMap](ctx, m.objects, objectKey{configMaps, namespace, name})
}

// Secret is ConfigMap for a Secret.
func (m *Manager) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return fetch[*corev1.Secret](ctx, m.objects, objectKey{secrets, namespace, name})
}

// Mount sets up all volumes of the pod and brings those that show API objects
// up to date. On error it gives the volumes that did succeed beside an error
// that names each that did not, and may be called again. While the API server
// cannot be reached, a volume that was set up before stays as it is, so that
// the containers of a pod can be started again without it.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod, facts PodFacts) (Mounted, error) {
	if err := checkElement(string(pod.UID)); err != nil {
		return nil, fmt.Errorf("pod UID: %w", err)
	}
	defer m.lock(pod.UID)()
	if err := os.MkdirAll(m.PodDir(pod.UID), 0o750); err != nil {
		return nil, fmt.Errorf("making the pod's folder: %w", err)
	}
	m.objects.use(pod.UID, references(pod))
	return m.mountAll(ctx, pod, facts, false)
}

// Refresh brings the volumes of a mounted pod that show ConfigMaps, Secrets,
// tokens and fields up to date, and leaves all others alone. Call it about
// once a minute for each pod, on OnChange, and when the pod's labels or
// annotations changed. A volume whose source is missing keeps its content.
func (m *Manager) Refresh(ctx context.Context, pod *corev1.Pod, facts PodFacts) error {
	if err := checkElement(string(pod.UID)); err != nil {
		return fmt.Errorf("pod UID: %w", err)
	}
	// How full volumes are may be asked while the pod is worked on.
	return errors.Join(m.refresh(ctx, pod, facts), m.measureCSI(ctx, pod.UID))
}

func (m *Manager) refresh(ctx context.Context, pod *corev1.Pod, facts PodFacts) error {
	defer m.lock(pod.UID)()
	if _, err := os.Stat(m.PodDir(pod.UID)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err := m.mountAll(ctx, pod, facts, true)
	return errors.Join(err, m.refreshCSI(ctx, pod))
}

func (m *Manager) mountAll(ctx context.Context, pod *corev1.Pod, facts PodFacts, liveOnly bool) (Mounted, error) {
	volumes := pod.Spec.Volumes
	sources := make([]Source, len(volumes))
	errs := make([]error, len(volumes))
	var group errgroup.Group
	group.SetLimit(mountWorkers)
	for i := range volumes {
		group.Go(func() error {
			sources[i], errs[i] = m.mountOne(ctx, pod, &volumes[i], facts, liveOnly)
			return nil
		})
	}
	_ = group.Wait()
	mounted := make(Mounted, len(volumes))
	for i := range volumes {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("volume %q: %w", volumes[i].Name, errs[i])
		} else if sources[i].HostPath != "" {
			mounted[volumes[i].Name] = sources[i]
		}
	}
	return mounted, errors.Join(errs...)
}

func (m *Manager) mountOne(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, facts PodFacts, liveOnly bool) (Source, error) {
	k, err := find(v)
	if err != nil || liveOnly && !k.live {
		return Source{}, err
	}
	r, err := m.request(pod, v, k, facts)
	if err != nil {
		return Source{}, err
	}
	src, err := k.mount(ctx, m, r)
	if err != nil && k.live && !liveOnly && isUnreachable(err) && isPublished(r.dir) {
		m.cfg.Log.Warn("a volume keeps its content, since the API server cannot be reached",
			"pod", pod.Name, "namespace", pod.Namespace, "volume", v.Name, "err", err)
		return publishedAt(r.dir), nil
	}
	return src, err
}

// Unmount takes down all mounts in the pod's folder and removes the folder with
// everything in it. Call it when no container of the pod is left. It goes by
// what it finds on disk and needs no earlier Mount.
func (m *Manager) Unmount(ctx context.Context, podUID types.UID) error {
	if err := checkElement(string(podUID)); err != nil {
		return fmt.Errorf("pod UID: %w", err)
	}
	unlock := m.lock(podUID)
	defer unlock()
	m.objects.use(podUID, nil)
	m.tokens.forget(podUID)
	m.podCertificates.forget(podUID)
	if err := m.unmountCSI(ctx, podUID); err != nil {
		return err
	}
	dir := m.PodDir(podUID)
	if err := unmountBeneath(ctx, dir); err != nil {
		return err
	}
	if err := m.dropImages(ctx, podUID); err != nil {
		return err
	}
	if err := removeTree(filepath.Dir(dir), filepath.Base(dir)); err != nil {
		return fmt.Errorf("removing the pod's folder: %w", err)
	}
	m.mu.Lock()
	delete(m.pods, podUID)
	m.mu.Unlock()
	return nil
}

// Orphans lists the pods that have a folder on the node and that keep does not
// want, for the caller to Unmount once none of their containers is left.
func (m *Manager) Orphans(keep func(types.UID) bool) ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(m.cfg.RootDir, "pods"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the pods' folders: %w", err)
	}
	var orphans []types.UID
	for _, e := range entries {
		if uid := types.UID(e.Name()); e.IsDir() && !keep(uid) {
			orphans = append(orphans, uid)
		}
	}
	return orphans, nil
}

// lock serialises the calls for one pod; the result unlocks.
func (m *Manager) lock(uid types.UID) (unlock func()) {
	for {
		m.mu.Lock()
		mu := m.pods[uid]
		if mu == nil {
			mu = new(sync.Mutex)
			m.pods[uid] = mu
		}
		m.mu.Unlock()
		mu.Lock()
		// An Unmount that ended meanwhile has dropped this lock: the next
		// caller would not see it, so take the one that everybody sees.
		m.mu.Lock()
		current := m.pods[uid] == mu
		m.mu.Unlock()
		if current {
			return mu.Unlock
		}
		mu.Unlock()
	}
}

// checkElement refuses what is not a plain name of one file.
func checkElement(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q cannot be the name of a folder", name)
	}
	return nil
}
