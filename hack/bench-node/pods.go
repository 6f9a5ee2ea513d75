package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"coracle/hack/report"
)

const namespace = metav1.NamespaceDefault

// podTimes are the moments of one pod's start, from before the request that
// creates it.
type podTimes struct {
	created time.Duration // the API server has answered
	bound   time.Duration // the watch shows its node
	running time.Duration // the watch shows it running
}

// podWatch is one watch on the pods, shared by everything that waits for one.
type podWatch struct {
	lab   *lab
	watch watch.Interface
	done  sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]chan podEvent // by pod; guarded by mu
	err     error                    // why the watch ended; guarded by mu
}

type podEvent struct {
	at   time.Time
	pod  *corev1.Pod
	gone bool
}

func (l *lab) watchPods(ctx context.Context) (*podWatch, error) {
	w, err := l.client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	p := &podWatch{lab: l, watch: w, waiting: map[string]chan podEvent{}}
	p.done.Go(p.run)
	return p, nil
}

func (p *podWatch) stop() {
	p.watch.Stop()
	p.done.Wait()
}

// run hands events to whoever waits for the pod.
func (p *podWatch) run() {
	for e := range p.watch.ResultChan() {
		now := time.Now()
		pod, ok := e.Object.(*corev1.Pod)
		if !ok {
			continue // the stream's end says the rest
		}
		p.mu.Lock()
		if ch := p.waiting[pod.Name]; ch != nil {
			select {
			case ch <- podEvent{at: now, pod: pod, gone: e.Type == watch.Deleted}:
			default: // nobody reads any more
			}
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = fmt.Errorf("the watch on pods has ended")
	for _, ch := range p.waiting {
		close(ch)
	}
	p.waiting = nil
}

// expect begins to collect the events of a pod. The returned function ends it.
func (p *podWatch) expect(name string) (<-chan podEvent, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, nil, p.err
	}
	ch := make(chan podEvent, 64)
	p.waiting[name] = ch
	return ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, name)
	}, nil
}

// await reads events until one is what is wanted.
func await(ctx context.Context, name, what string, events <-chan podEvent, want func(podEvent) bool) error {
	var last corev1.PodStatus
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return fmt.Errorf("pod %s is not %s: the watch on pods has ended", name, what)
			}
			if want(e) {
				return nil
			}
			last = e.pod.Status
		case <-ctx.Done():
			return fmt.Errorf("pod %s is not %s, its last status is %v: %w", name, what, last, ctx.Err())
		}
	}
}

// start creates a pod and returns when the watch shows it running.
func (p *podWatch) start(ctx context.Context, pod *corev1.Pod) (podTimes, error) {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	var t podTimes
	events, end, err := p.expect(pod.Name)
	if err != nil {
		return t, err
	}
	defer end()
	begin := time.Now()
	for {
		_, err = p.lab.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		if err == nil {
			break
		}
		if !notYet(err) || ctx.Err() != nil {
			return t, fmt.Errorf("create pod %s: %w", pod.Name, err)
		}
		rest(ctx, 2*time.Millisecond)
	}
	t.created = time.Since(begin)
	return t, await(ctx, pod.Name, "running", events, func(e podEvent) bool {
		if t.bound == 0 && e.pod.Spec.NodeName != "" {
			t.bound = e.at.Sub(begin)
		}
		t.running = e.at.Sub(begin)
		return e.pod.Status.Phase == corev1.PodRunning
	})
}

// remove deletes a pod and returns when the watch shows that it is gone.
func (p *podWatch) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	events, end, err := p.expect(name)
	if err != nil {
		return err
	}
	defer end()
	if err := p.lab.client.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return await(ctx, name, "gone", events, func(e podEvent) bool { return e.gone })
}

// startAll starts pods, parallel at a time, and returns how many seconds it
// took until the last ran.
func (p *podWatch) startAll(ctx context.Context, pods []*corev1.Pod, parallel int) (float64, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	begin := time.Now()
	for _, pod := range pods {
		g.Go(func() error {
			_, err := p.start(ctx, pod)
			return err
		})
	}
	err := g.Wait()
	return time.Since(begin).Seconds(), err
}

func (p *podWatch) removeAll(ctx context.Context, pods []*corev1.Pod) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, pod := range pods {
		g.Go(func() error { return p.remove(ctx, pod.Name) })
	}
	return g.Wait()
}

// batchOf names a batch of pods.
func batchOf(prefix string, n int) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range n {
		pods = append(pods, benchPod(fmt.Sprintf("%s-%d", prefix, i)))
	}
	return pods
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// measurePods lets pods and bare containers take turns on one node.
func (l *lab) measurePods(ctx context.Context, r *report.Report) error {
	node := l.cluster + "-1"
	if err := l.cordon(ctx, node); err != nil {
		return err
	}
	w, err := l.watchPods(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	if _, err := w.start(ctx, benchPod("template")); err != nil {
		return err
	}
	bare, err := l.dialBare(ctx, node, "template")
	if err != nil {
		return err
	}
	defer bare.close()
	if err := l.oneByOne(ctx, r, w, bare); err != nil {
		return err
	}
	if err := l.sustained(ctx, r, w, bare); err != nil {
		return err
	}
	return w.remove(ctx, "template")
}

func (l *lab) oneByOne(ctx context.Context, r *report.Report, w *podWatch, bare *bare) error {
	fmt.Fprintf(l.log, "Starting %d pods one by one, each beside a bare container\n", l.pods)
	var created, bound, running, raw, rawSandbox []float64
	for i := -1; i < l.pods; i++ { // the first pair warms up
		t, err := w.start(ctx, benchPod(fmt.Sprintf("one-%d", i+1)))
		if err != nil {
			return err
		}
		if err := w.remove(ctx, fmt.Sprintf("one-%d", i+1)); err != nil {
			return err
		}
		if err := bare.quiet(ctx); err != nil {
			return err
		}
		b, err := bare.start(ctx)
		if err != nil {
			return err
		}
		if err := bare.removeAll(ctx); err != nil {
			return err
		}
		if i < 0 {
			continue
		}
		created, bound, running = append(created, report.Millis(t.created)), append(bound, report.Millis(t.bound)), append(running, report.Millis(t.running))
		raw, rawSandbox = append(raw, report.Millis(b.started)), append(rawSandbox, report.Millis(b.sandbox))
	}
	part := fmt.Sprintf("Pod start, image present, %d one after another", l.pods)
	source := "the bare CRI calls, same container, same run"
	r.Add(report.Row{Part: part, Name: "create to Running by watch, p50", Unit: "ms", Value: report.Median(running), Samples: running,
		Reference: report.Ptr(report.Median(raw)), Source: source, Goal: report.Ptr(report.Median(raw) + 25)},
		report.Row{Part: part, Name: "create to Running by watch, p99", Unit: "ms", Value: report.Quantile(running, 0.99),
			Reference: report.Ptr(report.Quantile(raw, 0.99)), Source: source, Goal: report.Ptr(report.Quantile(raw, 0.99) + 100)},
		report.Row{Part: part, Name: "- create answered, p50", Unit: "ms", Value: report.Median(created), Samples: created},
		report.Row{Part: part, Name: "- bound by the scheduler, p50", Unit: "ms", Value: report.Median(bound), Samples: bound},
		report.Row{Part: part, Name: "- bare RunPodSandbox alone, p50", Unit: "ms", Value: report.Median(rawSandbox), Samples: rawSandbox})
	return nil
}

func (l *lab) sustained(ctx context.Context, r *report.Report, w *podWatch, bare *bare) error {
	var pods, raw []float64
	for i := range l.runs {
		fmt.Fprintf(l.log, "Starting %d pods, %d at a time, then as many bare containers (%d of %d)\n", l.batch, l.parallel, i+1, l.runs)
		batch := batchOf(fmt.Sprint("many-", i), l.batch)
		took, err := w.startAll(ctx, batch, l.parallel)
		if err != nil {
			return err
		}
		pods = append(pods, float64(l.batch)/took)
		if err := w.removeAll(ctx, batch); err != nil {
			return err
		}
		if err := bare.quiet(ctx); err != nil {
			return err
		}
		if took, err = bare.startAll(ctx, l.batch, l.parallel); err != nil {
			return err
		}
		raw = append(raw, float64(l.batch)/took)
		if err := bare.removeAll(ctx); err != nil {
			return err
		}
	}
	part := fmt.Sprintf("Sustained pod starts, %d with %d at a time (median of %d)", l.batch, l.parallel, l.runs)
	r.Add(report.Row{Part: part, Name: "pods per second", Unit: "/s", Value: report.Median(pods), Samples: pods, AtLeast: true,
		Reference: report.Ptr(report.Median(raw)), Source: "a loop of the bare CRI calls, as parallel", Goal: report.Ptr(0.7 * report.Median(raw))})
	return nil
}
