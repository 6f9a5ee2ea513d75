package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
)

// maxCheckpoint bounds one remembered pod, in bytes.
const maxCheckpoint = 4 << 20

// checkpoints remembers on disk which pods the node was last told to run, one
// file each. Files appear whole or not at all: they are written beside their
// place, synced and renamed. Writing happens behind the agent's back, so that
// no pod waits for the disk.
type checkpoints struct {
	dir string // empty remembers nothing
	log *slog.Logger

	mu      sync.Mutex
	saved   map[types.UID]*corev1.Pod // what is, or will be, on disk; guarded by mu
	pending map[types.UID]bool        // to be written or removed; guarded by mu
	signal  chan struct{}
}

func newCheckpoints(dir string, log *slog.Logger) *checkpoints {
	return &checkpoints{
		dir: dir, log: log, saved: map[types.UID]*corev1.Pod{}, pending: map[types.UID]bool{}, signal: make(chan struct{}, 1),
	}
}

// save remembers a pod, unless nothing but its status has changed.
func (c *checkpoints) save(pod *corev1.Pod) {
	if c.dir == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.saved[pod.UID]; old != nil && apiequality.Semantic.DeepEqual(old.Spec, pod.Spec) &&
		apiequality.Semantic.DeepEqual(old.Labels, pod.Labels) && apiequality.Semantic.DeepEqual(old.Annotations, pod.Annotations) &&
		old.DeletionTimestamp.Equal(pod.DeletionTimestamp) && old.Status.Phase == pod.Status.Phase {
		return
	}
	c.saved[pod.UID] = pod
	c.mark(pod.UID)
}

// drop forgets a pod.
func (c *checkpoints) drop(uid types.UID) {
	if c.dir == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.saved, uid)
	c.mark(uid)
}

// mark needs mu.
func (c *checkpoints) mark(uid types.UID) {
	c.pending[uid] = true
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is still to be written.
func (c *checkpoints) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			c.flush()
			return nil
		case <-c.signal:
			c.flush()
		}
	}
}

func (c *checkpoints) flush() {
	c.mu.Lock()
	todo := map[types.UID]*corev1.Pod{}
	for uid := range c.pending {
		todo[uid] = c.saved[uid]
	}
	clear(c.pending)
	c.mu.Unlock()
	for uid, pod := range todo {
		var err error
		if pod == nil {
			if err = os.Remove(c.file(uid)); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else {
			err = c.write(pod)
		}
		if err != nil {
			c.log.Warn("pod not remembered on disk; it will not come back by itself after a reboot", "uid", uid, "error", err)
		}
	}
}

func (c *checkpoints) file(uid types.UID) string {
	return filepath.Join(c.dir, filepath.Base(string(uid))+".pod")
}

func (c *checkpoints) write(pod *corev1.Pod) error {
	data, err := pod.Marshal()
	if err != nil {
		return fmt.Errorf("encoding pod: %w", err)
	}
	return replaceFile(c.file(pod.UID), data, true)
}

// load reads what is remembered. A file that is broken is passed over.
func (c *checkpoints) load() []*corev1.Pod {
	if c.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil
	}
	var out []*corev1.Pod
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".pod") {
			continue
		}
		pod, err := readCheckpoint(filepath.Join(c.dir, e.Name()))
		if err != nil {
			c.log.Warn("a remembered pod cannot be read", "file", e.Name(), "error", err)
			continue
		}
		c.saved[pod.UID] = pod
		out = append(out, pod)
	}
	return out
}

func readCheckpoint(name string) (*corev1.Pod, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCheckpoint+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCheckpoint {
		return nil, fmt.Errorf("it has more than %d bytes", maxCheckpoint)
	}
	pod := &corev1.Pod{}
	if err := pod.Unmarshal(data); err != nil {
		return nil, err
	}
	if pod.UID == "" || pod.Name == "" {
		return nil, errors.New("it holds no pod")
	}
	return pod, nil
}
