// Package status reports the status of pods to the API server.
//
// A Writer takes the newest status of each pod with Set and writes it as soon
// as it can, as a patch of exactly what changed since the version of the pod
// that was last seen. Only the newest status of a pod waits; older ones are
// never written after newer ones. A failed write is tried again with back-off
// until it succeeds or the pod is gone. Every write names the pod's UID, so
// that a new pod of the same name is never touched.
//
// Delete writes the last status and then removes the object, which frees its
// name.
package status

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
)

const (
	defaultWorkers = 8
	requestTimeout = 15 * time.Second
	firstRetry     = 50 * time.Millisecond
	maxRetry       = 10 * time.Second
)

// Config is what a Writer needs.
type Config struct {
	Client  kubernetes.Interface // required
	Workers int                  // parallel writes, 8 if 0
	Log     *slog.Logger         // nil discards
}

// Writer writes statuses. Its methods never block on the network.
type Writer struct {
	cfg   Config
	queue workqueue.TypedRateLimitingInterface[types.UID]

	mu   sync.Mutex
	pods map[types.UID]*entry // guarded by mu
}

// entry is what is known about one pod. Its fields are guarded by Writer.mu;
// the objects they point to are never changed.
type entry struct {
	base    *corev1.Pod       // newest version seen from the server
	desired *corev1.PodStatus // nil until the first Set
	own     bool              // reason and message were written by this agent
	deleted func()            // set by Delete: what to call at the end
}

// New makes a Writer.
func New(cfg Config) *Writer {
	if cfg.Workers == 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Writer{
		cfg:  cfg,
		pods: map[types.UID]*entry{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](firstRetry, maxRetry)),
	}
}

// Observe tells the Writer what the API server has. It repairs a status that
// someone else has overwritten.
func (w *Writer) Observe(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.pods[pod.UID]
	if e == nil {
		w.pods[pod.UID] = &entry{base: pod}
		return
	}
	if !newer(pod, e.base) {
		return
	}
	e.base = pod
	if e.desired != nil && !apiequality.Semantic.DeepEqual(e.merged(), &pod.Status) {
		w.queue.Add(pod.UID)
	}
}

// newer compares versions; ones that are no numbers count as newer.
func newer(a, b *corev1.Pod) bool {
	x, errX := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, errY := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errX != nil || errY != nil || x >= y
}

// Set makes status the newest one of a pod that was observed.
func (w *Writer) Set(uid types.UID, status corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.pods[uid]
	if e == nil {
		return
	}
	e.desired = &status
	w.queue.Add(uid)
}

// Delete removes the pod's object after its newest status was written, and
// calls done, once, when the object is gone or not this pod's any more.
func (w *Writer) Delete(uid types.UID, done func()) {
	w.mu.Lock()
	e := w.pods[uid]
	if e != nil {
		e.deleted = done
	}
	w.mu.Unlock()
	if e == nil {
		done()
		return
	}
	w.queue.Add(uid)
}

// Forget drops a pod.
func (w *Writer) Forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, uid)
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range w.cfg.Workers {
		workers.Go(func() {
			for {
				uid, stop := w.queue.Get()
				if stop {
					return
				}
				w.handle(ctx, uid)
				w.queue.Done(uid)
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	workers.Wait()
	return nil
}

func (w *Writer) handle(ctx context.Context, uid types.UID) {
	err := w.write(ctx, uid)
	switch {
	case err == nil:
		w.queue.Forget(uid)
	case ctx.Err() != nil:
	default:
		w.cfg.Log.Warn("pod status not written, will try again", "pod", uid, "error", err)
		w.queue.AddRateLimited(uid)
	}
}

// write brings the server's object to the newest status and, when asked to,
// deletes it.
func (w *Writer) write(ctx context.Context, uid types.UID) error {
	w.mu.Lock()
	e := w.pods[uid]
	if e == nil {
		w.mu.Unlock()
		return nil
	}
	base, desired, done := e.base, e.merged(), e.deleted
	w.mu.Unlock()

	gone := false
	if desired != nil {
		patch, err := diff(base, desired)
		if err != nil {
			return err
		}
		if patch != nil {
			if gone, err = w.patch(ctx, base, patch, desired); err != nil {
				return err
			}
		}
	}
	if done == nil {
		return nil
	}
	if !gone {
		if err := w.remove(ctx, base); err != nil {
			return err
		}
	}
	w.mu.Lock()
	if e := w.pods[uid]; e != nil {
		e.deleted = nil
	}
	w.mu.Unlock()
	done()
	return nil
}

// merged needs Writer.mu. It is the desired status, with a reason and message
// that others wrote kept as long as the agent has none of its own.
func (e *entry) merged() *corev1.PodStatus {
	if e.desired == nil {
		return nil
	}
	out := *e.desired
	if out.Reason == "" && out.Message == "" && !e.own {
		out.Reason, out.Message = e.base.Status.Reason, e.base.Status.Message
	}
	return &out
}

// diff returns the patch from the object's status to desired, nil if there is
// no difference.
func diff(base *corev1.Pod, desired *corev1.PodStatus) ([]byte, error) {
	if apiequality.Semantic.DeepEqual(&base.Status, desired) {
		return nil, nil
	}
	before, err := json.Marshal(corev1.Pod{Status: base.Status})
	if err != nil {
		return nil, fmt.Errorf("encoding pod status: %w", err)
	}
	if bytes.Equal(before, statusOnly(desired)) {
		return nil, nil // the difference is below what the API keeps, such as parts of a second
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: base.UID}, Status: *desired})
	if err != nil {
		return nil, fmt.Errorf("encoding pod status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("comparing pod status: %w", err)
	}
	return patch, nil
}

func statusOnly(s *corev1.PodStatus) []byte {
	data, err := json.Marshal(corev1.Pod{Status: *s})
	if err != nil {
		return nil
	}
	return data
}

func (w *Writer) patch(ctx context.Context, base *corev1.Pod, patch []byte, desired *corev1.PodStatus) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pod, err := w.cfg.Client.CoreV1().Pods(base.Namespace).Patch(ctx, base.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return true, nil // not this pod any more; the watch says so too
	case err != nil:
		return false, fmt.Errorf("writing the status of pod %s/%s: %w", base.Namespace, base.Name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.pods[base.UID]; e != nil && pod.UID == base.UID && newer(pod, e.base) {
		e.base = pod
		e.own = desired.Reason != "" || desired.Message != ""
	}
	return false, nil
}

func (w *Writer) remove(ctx context.Context, base *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(base.UID))
	err := w.cfg.Client.CoreV1().Pods(base.Namespace).Delete(ctx, base.Name, *options)
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("deleting pod %s/%s: %w", base.Namespace, base.Name, err)
}
