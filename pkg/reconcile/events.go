package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
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
	// instance tells this process from others of the same source.
	instance string
	clock    clock.PassiveClock
	log      *slog.Logger
	queue    chan *corev1.Event
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
	// maxName is the longest name of an object.
	maxName = 253
	// maxHost leaves room for a source in the 128 bytes of a reporting instance.
	maxHost = 64
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
		client: client, source: source, instance: source + "-" + host(), clock: c, log: log,
		queue: make(chan *corev1.Event, eventQueue),
		known: lru.New(eventMemory),
	}
	// Two sources may speak of one object in the same instant.
	h := fnv.New32a()
	h.Write([]byte(source))
	r.sequence.Store(int64(h.Sum32()))
	return r
}

// host is the machine's name, as far as an Event has room for it.
func host() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name[:min(len(name), maxHost)]
}

// Eventf implements EventSink.
func (r *Recorder) Eventf(obj runtime.Object, eventType, reason, format string, args ...any) {
	now := r.clock.Now()
	e := r.event(obj, now, eventType, reason, fmt.Sprintf(format, args...))
	if e == nil {
		return
	}
	e.Source = corev1.EventSource{Component: r.source}
	e.FirstTimestamp, e.LastTimestamp, e.Count = metav1.NewTime(now), metav1.NewTime(now), 1
	r.put(e)
}

// Deed is something that the source did or tried, in the form of
// events.k8s.io/v1.
type Deed struct {
	// Type is Normal or Warning, Action what was done or tried.
	Type, Reason, Action string
	// Related is a second object that it is about; may be nil.
	Related runtime.Object
}

// Record records a deed that obj is about. It never blocks. One that repeats
// becomes a series.
func (r *Recorder) Record(obj runtime.Object, d Deed, format string, args ...any) {
	if e := r.deed(obj, d, r.clock.Now(), fmt.Sprintf(format, args...)); e != nil {
		r.put(e)
	}
}

// Write writes a deed that happened before, and does not repeat, at once: it is
// for those who have a queue of their own.
func (r *Recorder) Write(ctx context.Context, obj runtime.Object, d Deed, at time.Time, message string) error {
	e := r.deed(obj, d, at, message)
	if e == nil {
		return nil // it was logged
	}
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	_, err := r.client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	return err
}

// deed is a deed as an Event; nil when obj is of no known kind.
func (r *Recorder) deed(obj runtime.Object, d Deed, at time.Time, message string) *corev1.Event {
	e := r.event(obj, at, d.Type, d.Reason, message)
	if e == nil {
		return nil
	}
	e.EventTime, e.Action, e.ReportingInstance = metav1.NewMicroTime(at), d.Action, r.instance
	if d.Related != nil {
		related, err := reference.GetReference(scheme.Scheme, d.Related)
		if err != nil {
			r.log.Error("event related to an object of unknown kind", "reason", d.Reason, "err", err)
		}
		e.Related = related
	}
	return e
}

// event is what both forms have in common; nil when obj is of no known kind.
func (r *Recorder) event(obj runtime.Object, now time.Time, eventType, reason, message string) *corev1.Event {
	ref, err := reference.GetReference(scheme.Scheme, obj)
	if err != nil {
		r.log.Error("event about an object of unknown kind", "reason", reason, "err", err)
		return nil
	}
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name:      EventName(ref.Name, now.UnixNano()+r.sequence.Add(1)),
			Namespace: ref.Namespace,
		},
		InvolvedObject: *ref,
		Type:           eventType, Reason: reason, Message: strings.ToValidUTF8(message[:min(len(message), eventMessage)], ""),
		ReportingController: r.source,
	}
	if e.Namespace == "" {
		e.Namespace = metav1.NamespaceDefault
	}
	return e
}

// EventName is that of an event about an object: as much of the object's as
// leaves room for the number.
func EventName(object string, number int64) string {
	suffix := "." + strconv.FormatInt(number, 16)
	object = object[:min(len(object), maxName-len(suffix))]
	return strings.TrimRight(object, ".-") + suffix
}

func (r *Recorder) put(e *corev1.Event) {
	select {
	case r.queue <- e:
	default:
		r.log.Debug("event dropped: the queue is full", "reason", e.Reason)
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
		again := map[string]any{"count": first.Count + 1, "lastTimestamp": e.LastTimestamp}
		if !e.EventTime.IsZero() {
			again = map[string]any{"series": corev1.EventSeries{Count: seen(first) + 1, LastObservedTime: e.EventTime}}
		}
		patch, err := json.Marshal(again)
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

// seen is how often the deed of an event happened.
func seen(e *corev1.Event) int32 {
	if e.Series == nil {
		return 1
	}
	return e.Series.Count
}

// noEvents is the EventSink that forgets.
type noEvents struct{}

func (noEvents) Eventf(runtime.Object, string, string, string, ...any) {}
