package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"coracle/hack/lab"
	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler"
)

// schedulerUser is the scheduler's identity, as in a local cluster.
const schedulerUser = "system:kube-scheduler"

// stage is the control plane that one shape is measured on.
type stage struct {
	options
	lab       *lab.Lab
	admin     kubernetes.Interface
	nodeNames []string
	// change, set by a shape's preparation, changes the i-th measured pod.
	change func(*corev1.Pod, int)
	bound  *bindings
}

// newStage starts an empty control plane. Its nodes are not kept, so that they
// are not tainted until somebody says that they are ready.
func newStage(ctx context.Context, o options) (*stage, error) {
	l, err := lab.Start(ctx, lab.Options{Dir: o.dir, DisableAdmission: []string{"TaintNodesByCondition"}})
	if err != nil {
		return nil, err
	}
	s := &stage{options: o, lab: l, admin: l.Admin, bound: &bindings{at: map[string]span{}}}
	for name, value := range map[string]int32{low: 0, high: 10} {
		c := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
		if _, err := s.admin.SchedulingV1().PriorityClasses().Create(ctx, c, metav1.CreateOptions{}); err != nil {
			return s, fmt.Errorf("create priority class %s: %w", name, err)
		}
	}
	return s, nil
}

func (s *stage) each(ctx context.Context, n int, fn func(context.Context, int) error) error {
	return lab.Each(ctx, n, s.clients, fn)
}

// scaled is a number of pods or nodes of this run.
func (s *stage) scaled(n int) int { return max(1, int(float64(n)*s.scale)) }

// set makes what a shape is about before pods are created.
func (s *stage) set(ctx context.Context, sh *shape) error {
	for _, name := range sh.namespaces {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if strings.HasPrefix(name, "team-") {
			ns.Labels = map[string]string{"team": "devops"}
		}
		if _, err := s.admin.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	for _, batch := range sh.nodes {
		count := batch.count
		if !batch.fixed {
			if count = s.scaled(count); s.nodes > 0 && len(sh.nodes) == 1 {
				count = s.nodes
			}
		}
		made := make([]string, count)
		err := s.each(ctx, count, func(ctx context.Context, i int) error {
			n := batch.make(i)
			made[i] = n.Name
			_, err := s.admin.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
			return err
		})
		if err != nil {
			return fmt.Errorf("create nodes: %w", err)
		}
		s.nodeNames = append(s.nodeNames, made...)
	}
	if sh.prepare != nil {
		if err := sh.prepare(ctx, s); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	return nil
}

// create creates a batch of pods, whose names begin with the prefix, and what
// volumes they have. It returns how many.
func (s *stage) create(ctx context.Context, prefix string, b pods, change func(*corev1.Pod, int)) (int, error) {
	count := s.scaled(b.count)
	err := s.each(ctx, count, func(ctx context.Context, i int) error {
		p := b.make()
		p.Name, p.Namespace = fmt.Sprintf("%s-%d", prefix, i), b.namespace
		if b.over > 0 {
			p.Namespace = fmt.Sprintf(b.namespace, i%b.over)
		}
		if p.Namespace == "" {
			p.Namespace = metav1.NamespaceDefault
		}
		if change != nil {
			change(p, i)
		}
		if b.claims != noClaims {
			if err := s.provide(ctx, p, b.claims == inTreeClaims); err != nil {
				return err
			}
		}
		_, err := s.admin.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("create pods %s: %w", prefix, err)
	}
	return count, nil
}

// provide makes a pod's volume and claim, bound to each other.
func (s *stage) provide(ctx context.Context, p *corev1.Pod, inTree bool) error {
	name := p.Namespace + "-" + p.Name
	claimVolume(p, p.Name)
	core := s.admin.CoreV1()
	v, err := core.PersistentVolumes().Create(ctx, volume(name, p.Namespace, p.Name, inTree), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	c, err := core.PersistentVolumeClaims(p.Namespace).Create(ctx, claim(p.Name, p.Namespace, name), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	v.Spec.ClaimRef.UID = c.UID
	if v, err = core.PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{}); err != nil {
		return err
	}
	v.Status.Phase = corev1.VolumeBound
	if _, err := core.PersistentVolumes().UpdateStatus(ctx, v, metav1.UpdateOptions{}); err != nil {
		return err
	}
	c.Status.Phase, c.Status.AccessModes, c.Status.Capacity = corev1.ClaimBound, c.Spec.AccessModes, v.Spec.Capacity
	_, err = core.PersistentVolumeClaims(p.Namespace).UpdateStatus(ctx, c, metav1.UpdateOptions{})
	return err
}

// running is a scheduler over informers of its own.
type running struct {
	factory informers.SharedInformerFactory
	synced  time.Duration // how long the informers took to have everything
	began   time.Time     // when the scheduler was told to run
	cpu     time.Duration // of the process, then
	cancel  context.CancelFunc
	done    chan error
}

// start fills the informers of a scheduler and then runs it.
func (s *stage) start(ctx context.Context) (*running, error) {
	client, err := kubernetes.NewForConfig(s.lab.Config(schedulerUser, s.bound.watch))
	if err != nil {
		return nil, err
	}
	reader, err := kubernetes.NewForConfig(s.lab.Config("system:kube-controller-manager", nil))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &running{factory: reconcile.NewInformers(reader), cancel: cancel, done: make(chan error, 1)}
	sched, err := scheduler.New(scheduler.Config{Client: client, Informers: r.factory})
	if err != nil {
		cancel()
		return nil, err
	}
	begin := time.Now()
	r.factory.StartWithContext(ctx)
	for kind, ok := range r.factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			cancel()
			return nil, fmt.Errorf("the informer of %s is not filled", kind)
		}
	}
	r.synced = time.Since(begin)
	runtime.GC() // what was garbage before does not count
	r.cpu, r.began = lab.CPU(), time.Now()
	go func() { r.done <- sched.Run(ctx) }()
	return r, nil
}

func (r *running) stop() error {
	r.cancel()
	err := <-r.done
	r.factory.Shutdown()
	return err
}

// place has pods bound by a scheduler, before it is measured.
func (s *stage) place(ctx context.Context, prefix string, batches []pods) (int, error) {
	total := 0
	for i, b := range batches {
		n, err := s.create(ctx, fmt.Sprintf("%s%d", prefix, i), b, nil)
		if err != nil {
			return 0, err
		}
		total += n
	}
	if total == 0 {
		return 0, nil
	}
	r, err := s.start(ctx)
	if err != nil {
		return 0, err
	}
	s.await(ctx, prefix, total)
	if err := r.stop(); err != nil {
		return 0, err
	}
	if n, _ := s.bound.count(prefix); n < total {
		return 0, fmt.Errorf("%d of the first %d pods were bound within %s", n, total, s.timeout)
	}
	return total, nil
}

// refuse has the parked pods, which fit nowhere, tried by a scheduler until each
// says so.
func (s *stage) refuse(ctx context.Context, sh *shape) error {
	want := 0
	for _, b := range sh.parked {
		want += s.scaled(b.count)
	}
	r, err := s.start(ctx)
	if err != nil {
		return err
	}
	until, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	told := 0
	for told < want && until.Err() == nil {
		lab.Rest(until, 100*time.Millisecond)
		if told, err = s.told(ctx); err != nil {
			break
		}
	}
	if err := errors.Join(err, r.stop()); err != nil {
		return err
	}
	if told < want {
		return fmt.Errorf("%d of %d parked pods were refused within %s", told, want, s.timeout)
	}
	return nil
}

// told is how many pods say that they fit nowhere.
func (s *stage) told(ctx context.Context) (int, error) {
	list, err := s.admin.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName="})
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list.Items {
		for _, c := range list.Items[i].Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
				n++
			}
		}
	}
	return n, nil
}

// await waits until pods whose names begin with the prefix are bound.
func (s *stage) await(ctx context.Context, prefix string, want int) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for ctx.Err() == nil {
		if n, _ := s.bound.count(prefix); n >= want {
			return
		}
		lab.Rest(ctx, time.Millisecond)
	}
}

// bindings notes when the API server has answered which binding, from between
// the scheduler and its transport.
type bindings struct {
	mu sync.Mutex
	at map[string]span // by NAMESPACE/NAME; guarded by mu
	// by the first letter of the names: how many, and when the last. Guarded by
	// mu.
	counts [256]int
	last   [256]time.Time
}

func (b *bindings) watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		began := time.Now()
		answer, err := next.RoundTrip(r)
		if err == nil && r.Method == http.MethodPost && answer.StatusCode < 300 && strings.HasSuffix(r.URL.Path, "/binding") {
			b.add(r.URL.Path, span{began, time.Now()})
		}
		return answer, err
	})
}

// span is when a binding was under way.
type span struct{ began, answered time.Time }

func (s span) overlaps(o span) bool { return s.began.Before(o.answered) && o.began.Before(s.answered) }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// add takes /api/v1/namespaces/NAMESPACE/pods/NAME/binding.
func (b *bindings) add(path string, s span) {
	parts := strings.Split(path, "/")
	if len(parts) != 8 || parts[6] == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := parts[4] + "/" + parts[6]
	if _, twice := b.at[key]; twice {
		return
	}
	b.at[key] = s
	b.counts[parts[6][0]]++
	if s.answered.After(b.last[parts[6][0]]) {
		b.last[parts[6][0]] = s.answered
	}
}

// count is how many pods were bound whose names begin with the first letter of
// the prefix, and when the last.
func (b *bindings) count(prefix string) (int, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[prefix[0]], b.last[prefix[0]]
}

// bareInformers fills informers of pods and nodes that nobody listens to.
func (s *stage) bareInformers(ctx context.Context) (informers.SharedInformerFactory, error) {
	reader, err := kubernetes.NewForConfig(s.lab.Config("system:kube-controller-manager", nil))
	if err != nil {
		return nil, err
	}
	f := reconcile.NewInformers(reader)
	f.Core().V1().Pods().Informer()
	f.Core().V1().Nodes().Informer()
	f.StartWithContext(ctx)
	f.WaitForCacheSync(ctx.Done())
	return f, nil
}
