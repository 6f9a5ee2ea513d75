package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/kubelet/podenv"
)

// fetchTimeout bounds the reading of what environment variables come from.
const fetchTimeout = 10 * time.Second

// envSources are the objects that the environments of a pod's containers were
// last made from. They let a container restart while the API server is away.
type envSources struct {
	ConfigMaps map[string]*corev1.ConfigMap `json:"configMaps,omitempty"`
	Services   []*corev1.Service            `json:"services,omitempty"`
	// Secrets stay in memory: no Secret is written to the node's disk.
	Secrets map[string]*corev1.Secret `json:"-"`
}

// envMemory remembers the sources by pod, on disk as well where dir is set.
type envMemory struct {
	dir string

	mu   sync.Mutex
	pods map[types.UID]*envSources // guarded by mu; what it points to is never changed
}

func newEnvMemory(dir string) *envMemory {
	return &envMemory{dir: dir, pods: map[types.UID]*envSources{}}
}

func (m *envMemory) file(uid types.UID) string {
	return filepath.Join(m.dir, filepath.Base(string(uid))+".env.json")
}

// put remembers sources; it writes them only if there is anything to write.
func (m *envMemory) put(uid types.UID, s *envSources) error {
	m.mu.Lock()
	old := m.pods[uid]
	m.pods[uid] = s
	m.mu.Unlock()
	if m.dir == "" || old != nil && sameVersions(old, s) {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return replaceFile(m.file(uid), data, false)
}

// sameVersions tells whether two sets hold the same versions of the same
// objects, so that the disk need not be touched.
func sameVersions(a, b *envSources) bool {
	if len(a.ConfigMaps) != len(b.ConfigMaps) || len(a.Services) != len(b.Services) {
		return false
	}
	for name, cm := range a.ConfigMaps {
		if other := b.ConfigMaps[name]; other == nil || other.ResourceVersion != cm.ResourceVersion {
			return false
		}
	}
	versions := map[string]bool{}
	for _, s := range a.Services {
		versions[s.Namespace+"/"+s.Name+"/"+s.ResourceVersion] = true
	}
	for _, s := range b.Services {
		if !versions[s.Namespace+"/"+s.Name+"/"+s.ResourceVersion] {
			return false
		}
	}
	return true
}

// get returns what is remembered, nil if nothing is.
func (m *envMemory) get(uid types.UID) *envSources {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.pods[uid]; s != nil || m.dir == "" {
		return s
	}
	f, err := os.Open(m.file(uid))
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCheckpoint))
	if err != nil {
		return nil
	}
	s := &envSources{}
	if json.Unmarshal(data, s) != nil {
		return nil
	}
	m.pods[uid] = s
	return s
}

func (m *envMemory) drop(uid types.UID) {
	m.mu.Lock()
	delete(m.pods, uid)
	m.mu.Unlock()
	if m.dir != "" {
		_ = os.Remove(m.file(uid))
	}
}

// envSources reads what the pod's environments come from. When the API server
// cannot be reached, what was read the last time stands in.
func (k *Kubelet) envSources(ctx context.Context, pod *corev1.Pod) (*envSources, error) {
	s, err := k.fetchSources(ctx, pod)
	if err == nil {
		if err := k.env.put(pod.UID, s); err != nil {
			k.log.Warn("a pod's environment is not remembered on disk", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		}
		return s, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if old := k.env.get(pod.UID); old != nil {
		k.log.Warn("the API server cannot be read; a container gets the environment last known", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		return old, nil
	}
	return nil, err
}

func (k *Kubelet) fetchSources(ctx context.Context, pod *corev1.Pod) (*envSources, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s := &envSources{ConfigMaps: map[string]*corev1.ConfigMap{}, Secrets: map[string]*corev1.Secret{}}
	var err error
	if s.Services, err = k.services(ctx, pod); err != nil {
		return nil, err
	}
	configMaps, secrets := podenv.References(pod)
	for _, name := range configMaps {
		object, err := k.volumes.ConfigMap(ctx, pod.Namespace, name)
		if err == nil {
			s.ConfigMaps[name] = object
		} else if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading configmap %q: %w", name, err)
		}
	}
	for _, name := range secrets {
		object, err := k.volumes.Secret(ctx, pod.Namespace, name)
		if err == nil {
			s.Secrets[name] = object
		} else if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading secret %q: %w", name, err)
		}
	}
	return s, nil
}

// replaceFile puts data at name, whole or not at all: it is written beside its
// place and renamed. With durable it is on disk when the call returns.
func replaceFile(name string, data []byte, durable bool) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if durable {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(name + ".new")
		return err
	}
	if err := os.Rename(name+".new", name); err != nil || !durable {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
