package kubelet

import (
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"coracle/pkg/kubelet/csi"
	"coracle/pkg/kubelet/imageview"
	"coracle/pkg/kubelet/plugins"
	"coracle/pkg/kubelet/server"
	"coracle/pkg/kubelet/volume"
)

// attachPatience is how long a pod waits for the attachment of its volumes
// before its owner is told.
const attachPatience = 2*time.Minute + 3*time.Second

// composeVolumes adds what the pods of a real machine get their volumes from.
func (k *Kubelet) composeVolumes(factory informers.SharedInformerFactory) error {
	k.drivers = newDrivers(k, factory)
	var images volume.Images
	if k.dialled != nil {
		views, err := imageview.New(k.cfg.RuntimeEndpoint)
		if err != nil {
			return err
		}
		k.views, images = views, shownImages{views, k}
	}
	volumes := volume.New(volume.Config{
		RootDir: k.cfg.RootDir, Client: k.cfg.Client, Clock: k.cfg.Clock, Log: k.cfg.Log,
		NodeAllocatable: k.allocatable, OnChange: k.volumeChanged, RecursiveReadOnly: k.recursiveReadOnly,
		NodeName: k.cfg.NodeName, CSI: k.drivers.csi, Images: images, Node: k.nodeSeen,
		ReportInUse: func() { k.node.CheckNow() },
		Event: func(pod *corev1.Pod, eventType, reason, message string) {
			k.event(pod, "", eventType, reason, message)
		},
	})
	k.drivers.volumes = volumes
	k.volumes, k.inUse = volumes, volumes.VolumesInUse
	var err error
	if k.locals, err = newLocals(k, volumes, factory); err != nil {
		return err
	}
	return k.drivers.follow(factory, volumes)
}

// drivers are the plugins of the node: programs that register with the agent.
// A new kind of them is a handler here.
type drivers struct {
	csi     *csi.Drivers
	plugins *plugins.Watcher
	nodes   corelisters.NodeLister
	name    string // of the node
	volumes *volume.Manager
}

func newDrivers(k *Kubelet, factory informers.SharedInformerFactory) *drivers {
	d := &drivers{
		csi:   csi.New(csi.Config{NodeName: k.cfg.NodeName, Client: k.cfg.Client, Clock: k.cfg.Clock, Log: k.log}),
		nodes: factory.Core().V1().Nodes().Lister(), name: k.cfg.NodeName,
	}
	d.plugins = plugins.New(plugins.Config{
		Dir:      filepath.Join(k.cfg.RootDir, "plugins_registry"),
		Handlers: map[string]plugins.Handler{registration.CSIPlugin: d.csi},
		Clock:    k.cfg.Clock, Log: k.log,
	})
	return d
}

// follow has drivers and volumes hear of what becomes of the Node.
func (d *drivers) follow(factory informers.SharedInformerFactory, volumes *volume.Manager) error {
	_, err := factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if node, ok := obj.(*corev1.Node); ok && node.Name == d.name {
				d.csi.NodeChanged()
				volumes.NodeChanged()
			}
		},
		UpdateFunc: func(was, is any) {
			old, ok := was.(*corev1.Node)
			node, alsoOK := is.(*corev1.Node)
			if !ok || !alsoOK || node.Name != d.name {
				return
			}
			if old.UID != node.UID {
				d.csi.NodeChanged()
			}
			if !slices.Equal(old.Status.VolumesAttached, node.Status.VolumesAttached) || !slices.Equal(old.Status.VolumesInUse, node.Status.VolumesInUse) {
				volumes.NodeChanged()
			}
		},
	})
	return err
}

// nodeSeen is the newest version of the Node that was seen, nil before the
// first. The events may lag behind what the agent itself has written: a volume
// that it gave up there must not count as in use because of an older version.
func (k *Kubelet) nodeSeen() *corev1.Node {
	written := k.node.Node()
	node, err := k.drivers.nodes.Get(k.drivers.name)
	if err != nil || written == nil {
		return written
	}
	if order, err := resourceversion.CompareResourceVersion(node.ResourceVersion, written.ResourceVersion); err != nil || order < 0 {
		return written
	}
	return node
}

// volumeStats tells how full a pod's volumes are.
func (d *drivers) volumeStats(namespace string, pod types.UID) []server.VolumeStats {
	var out []server.VolumeStats
	for _, u := range d.volumes.Usages(pod) {
		s := server.VolumeStats{Time: u.At, Name: u.Name}
		if u.Claim != "" {
			s.PVCRef = &server.PVCReference{Namespace: namespace, Name: u.Claim}
		}
		s.CapacityBytes, s.UsedBytes, s.AvailableBytes = amountsOf(u.Bytes)
		s.Inodes, s.InodesUsed, s.InodesFree = amountsOf(u.Inodes)
		out = append(out, s)
	}
	return out
}

func amountsOf(a *csi.Amount) (total, used, available *uint64) {
	if a == nil {
		return nil, nil, nil
	}
	t, u, v := uint64(a.Total), uint64(a.Used), uint64(a.Available)
	return &t, &u, &v
}

// impatient reports, once, that a pod has waited long for the attachment of its
// volumes.
func (w *podLoop) impatient(now time.Time) bool {
	if w.attachSince.IsZero() {
		w.attachSince = now
	}
	if w.attachTold || now.Sub(w.attachSince) < attachPatience {
		return false
	}
	w.attachTold = true
	return true
}
