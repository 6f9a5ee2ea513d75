package fleet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// pageSize bounds what a list holds in memory at a time.
const pageSize = 500

// source is a kind that the fleet follows. Unlike an informer it keeps no
// object: each is handed on and forgotten.
type source struct {
	what    string
	options metav1.ListOptions
	list    func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch   func(context.Context, metav1.ListOptions) (watch.Interface, error)
	set     func(runtime.Object)
	drop    func(runtime.Object)
	// listed is called at the end of each list.
	listed func()
}

// followNodes keeps the machines in step with their Nodes.
func (f *Fleet) followNodes(ctx context.Context) {
	nodes := f.cfg.Client.CoreV1().Nodes()
	listed := map[string]bool{}
	f.follow(ctx, source{
		what: "nodes", options: metav1.ListOptions{LabelSelector: labels.Set{Label: f.cfg.Prefix}.String()},
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return nodes.List(ctx, o) },
		watch: nodes.Watch,
		set: func(obj runtime.Object) {
			if n, ok := obj.(*corev1.Node); ok {
				if listed != nil {
					listed[n.Name] = true
				}
				f.seeNode(n)
			}
		},
		drop: func(obj runtime.Object) {
			if n, ok := obj.(*corev1.Node); ok {
				f.loseNode(n.Name)
			}
		},
		listed: func() {
			for _, m := range f.nodes {
				if !listed[m.name] {
					f.loseNode(m.name)
				}
			}
			clear(listed)
		},
	})
}

// followPods keeps the pods in step with those bound to the fleet's nodes: one
// watch on all that are bound to any node, for none can name thousands.
func (f *Fleet) followPods(ctx context.Context) {
	pods := f.cfg.Client.CoreV1().Pods(metav1.NamespaceAll)
	round := uint32(0)
	f.follow(ctx, source{
		what: "pods", options: metav1.ListOptions{FieldSelector: fields.OneTermNotEqualSelector("spec.nodeName", "").String()},
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return pods.List(ctx, o) },
		watch: pods.Watch,
		set: func(obj runtime.Object) {
			if p, ok := obj.(*corev1.Pod); ok {
				f.seePod(p, round)
			}
		},
		drop: func(obj runtime.Object) {
			if p, ok := obj.(*corev1.Pod); ok {
				f.losePod(p.UID)
			}
		},
		listed: func() {
			f.sweep(round)
			round++
		},
	})
}

// follow lists and watches until ctx ends. A broken watch is resumed where it
// ended; when the server no longer knows that moment, all is listed again.
func (f *Fleet) follow(ctx context.Context, s source) {
	version := ""
	failures := uint8(0)
	for ctx.Err() == nil {
		var err error
		if version == "" {
			version, err = s.all(ctx)
		} else {
			began := f.cfg.Clock.Now()
			version, err = s.changes(ctx, version)
			if f.cfg.Clock.Now().Sub(began) > maxRetry {
				failures = 0
			}
		}
		if err == nil {
			continue
		}
		again := f.retry(ctx, &failures, "show "+s.what, "", err)
		timer := f.cfg.Clock.NewTimer(max(again.Sub(f.cfg.Clock.Now()), time.Millisecond))
		select {
		case <-ctx.Done():
		case <-timer.C():
		}
		timer.Stop()
	}
}

// all lists the kind page by page and returns the list's version.
func (s *source) all(ctx context.Context) (string, error) {
	options := s.options
	options.Limit = pageSize
	for {
		call, cancel := context.WithTimeout(ctx, requestTimeout)
		page, err := s.list(call, options)
		cancel()
		if err != nil {
			return "", err
		}
		list, err := meta.ListAccessor(page)
		if err != nil {
			return "", err
		}
		if err := meta.EachListItem(page, func(obj runtime.Object) error { s.set(obj); return nil }); err != nil {
			return "", err
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			s.listed()
			return list.GetResourceVersion(), nil
		}
	}
}

// changes watches from a version on. It returns the version of the last event,
// or nothing when a list is needed, and an error unless the watch just ended.
func (s *source) changes(ctx context.Context, version string) (string, error) {
	options := s.options
	options.ResourceVersion, options.AllowWatchBookmarks = version, true
	w, err := s.watch(ctx, options)
	if err != nil {
		return resumable(version, err), err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			err := apierrors.FromObject(e.Object)
			return resumable(version, err), err
		}
		o, err := meta.Accessor(e.Object)
		if err != nil {
			return "", fmt.Errorf("the API server sent what is no object: %w", err)
		}
		version = o.GetResourceVersion()
		switch e.Type {
		case watch.Added, watch.Modified:
			s.set(e.Object)
		case watch.Deleted:
			s.drop(e.Object)
		}
	}
	return version, nil
}

// resumable is the version to watch from after an error.
func resumable(version string, err error) string {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsTimeout(err) && version == "0" {
		return ""
	}
	return version
}
