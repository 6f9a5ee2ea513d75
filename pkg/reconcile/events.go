package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/reference"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
)

// EventSink takes what a controller wants users to read about an object.
type EventSink interface {
	// Eventf records that something of the given type (Normal or Warning) and
	// reason happened to obj. It never blocks.
	Eventf(obj runtime.Object, eventType, reason, format string, args ...any)
}

// Recorder is an EventSink that writes Events to the API server. It keeps a
// bounded queue and drops events when that is full: they are news, not state.
// An event that repeats raises the count of the first one.
type Recorder struct {
	client kubernetes.Interface
	source string
	clock  clock.PassiveClock
	log    *slog.Logger
	queue  chan *corev1.Event
	// sequence keeps the names of events of one instant apart.
	sequence atomic.Int64
	known    *lru.Cache // eventKey -> *corev1.Event as last written; Run's own
}

const (
	eventQueue   = 1000
	eventMemory  = 2048
	eventTimeout = 10 * time.Second
	// eventMessage is the longest message that the API accepts.
	eventMessage = 1024
)

// eventKey is what makes two events the same.
type eventKey struct {
	uid                        types.UID
	eventType, reason, message string
}

// NewRecorder makes a Recorder that writes as source. Nothing is written
// before Run.
func NewRecorder(client kubernetes.Interface, source string, c clock.PassiveClock, log *slog.Logger) *Recorder {
	if c == nil {
		c = clock.RealClock{}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{
		client: client, source: source, clock: c, log: log,
		queue: make(chan *corev1.Event, eventQueue),
		known: lru.New(eventMemory),
	}
	// Two sources may speak of one object in the same instant.
	h := fnv.New32a()
	h.Write([]byte(source))
	r.sequence.Store(int64(h.Sum32()))
	return r
}

// Eventf implements EventSink.
func (r *Recorder) Eventf(obj runtime.Object, eventType, reason, format string, args ...any) {
	ref, err := reference.GetReference(scheme.Scheme, obj)
	if err != nil {
		r.log.Error("event about an object of unknown kind", "reason", reason, "err", err)
		return
	}
	now := metav1.Time{Time: r.clock.Now()}
	message := fmt.Sprintf(format, args...)
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name:      ref.Name + "." + strconv.FormatInt(now.UnixNano()+r.sequence.Add(1), 16),
			Namespace: ref.Namespace,
		},
		InvolvedObject: *ref,
		Type:           eventType, Reason: reason, Message: strings.ToValidUTF8(message[:min(len(message), eventMessage)], ""),
		Source: corev1.EventSource{Component: r.source}, ReportingController: r.source,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if e.Namespace == "" {
		e.Namespace = metav1.NamespaceDefault
	}
	select {
	case r.queue <- e:
	default:
		r.log.Debug("event dropped: the queue is full", "reason", reason)
	}
}

// Run writes events until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-r.queue:
			if err := r.write(ctx, e); err != nil && ctx.Err() == nil {
				r.log.Debug("event not written", "reason", e.Reason, "err", err)
			}
		}
	}
}

func (r *Recorder) write(ctx context.Context, e *corev1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	key := eventKey{e.InvolvedObject.UID, e.Type, e.Reason, e.Message}
	events := r.client.CoreV1().Events(e.Namespace)
	if have, ok := r.known.Get(key); ok {
		first := have.(*corev1.Event)
		patch, err := json.Marshal(map[string]any{"count": first.Count + 1, "lastTimestamp": e.LastTimestamp})
		if err != nil {
			return err
		}
		got, err := events.Patch(ctx, first.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err == nil {
			r.known.Add(key, got)
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	got, err := events.Create(ctx, e, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	r.known.Add(key, got)
	return nil
}

// noEvents is the EventSink that forgets.
type noEvents struct{}

func (noEvents) Eventf(runtime.Object, string, string, string, ...any) {}
