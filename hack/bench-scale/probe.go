package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/hack/lab"
	"coracle/hack/report"
)

// probeTimeout is when a probe is given up; it counts as having taken that long.
const probeTimeout = 60 * time.Second

// kinds of probes, in the order of the table.
var kinds = []string{"get a pod", "list 500 pods", "create a ConfigMap", "patch a ConfigMap", "get a node"}

// probes are the latencies of a client, by phase and kind.
type probes struct {
	mu      sync.Mutex
	phase   string                          // guarded by mu
	took    map[string]map[string][]float64 // in milliseconds; guarded by mu
	refused map[string]int                  // errors by phase; guarded by mu
	err     error                           // the last; guarded by mu
}

func (p *probes) enter(phase string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase, p.took[phase] = phase, map[string][]float64{}
}

func (p *probes) note(kind string, took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took[p.phase][kind] = append(p.took[p.phase][kind], report.Millis(took))
	if err != nil {
		p.refused[p.phase]++
		p.err = fmt.Errorf("%s: %w", kind, err)
	}
}

// run makes one request after another until ctx ends, each on its own so that a
// slow one delays no other.
func (p *probes) run(ctx context.Context, c *cluster) {
	var under sync.WaitGroup
	defer under.Wait()
	slots := make(chan struct{}, 64)
	for i := 0; ctx.Err() == nil; i++ {
		kind, name := kinds[i%len(kinds)], fmt.Sprintf("probe-%d", i/len(kinds))
		select {
		case slots <- struct{}{}:
			under.Go(func() {
				defer func() { <-slots }()
				call, cancel := context.WithTimeout(ctx, probeTimeout)
				defer cancel()
				begin := time.Now()
				err := c.probe(call, kind, name)
				if ctx.Err() == nil {
					p.note(kind, time.Since(begin), err)
				}
			})
		default: // 64 hang: the next one waits for its turn
		}
		lab.Rest(ctx, c.every)
	}
}

// probe makes one request.
func (c *cluster) probe(ctx context.Context, kind, name string) error {
	maps := c.client.CoreV1().ConfigMaps("default")
	var err error
	switch kind {
	case "get a pod":
		_, err = c.client.CoreV1().Pods("default").Get(ctx, "probed", metav1.GetOptions{})
	case "list 500 pods":
		_, err = c.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: 500})
	case "create a ConfigMap":
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
	case "patch a ConfigMap":
		_, err = maps.Patch(ctx, "patched", types.MergePatchType, []byte(`{"data":{"k":"`+name+`"}}`), metav1.PatchOptions{})
	case "get a node":
		_, err = c.client.CoreV1().Nodes().Get(ctx, "sim-0", metav1.GetOptions{})
	}
	return err
}
