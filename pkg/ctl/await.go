package ctl

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/resource"
)

// statusUID reads status.details.uid of an untyped Status.
func statusUID(answer any) types.UID {
	u, ok := answer.(*unstructured.Unstructured)
	if !ok {
		return ""
	}
	uid, _, err := unstructured.NestedString(u.Object, "details", "uid")
	if err != nil {
		return ""
	}
	return types.UID(uid)
}

// awaitObject watches one object until done says so. done is called with the
// object, which is an *unstructured.Unstructured, or with nil when there is
// none. A watch that ends is begun anew; when ctx ends, its cause is returned.
func (t *tool) awaitObject(ctx context.Context, info *resource.Info, done func(metav1.Object) (bool, error)) error {
	cfg, err := t.dynamic()
	if err != nil {
		return err
	}
	client := cfg.Resource(info.Mapping.Resource).Namespace(info.Namespace)
	field := "metadata.name=" + info.Name
	for {
		list, err := client.List(ctx, metav1.ListOptions{FieldSelector: field})
		if err == nil {
			var now metav1.Object
			if len(list.Items) > 0 {
				now = &list.Items[0]
			}
			if ok, err := done(now); ok || err != nil {
				return err
			}
			var w watch.Interface
			if w, err = client.Watch(ctx, metav1.ListOptions{FieldSelector: field, ResourceVersion: list.GetResourceVersion()}); err == nil {
				ok, err := drain(ctx, w, done)
				if ok || err != nil {
					return err
				}
			}
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !apierrors.IsServerTimeout(err) && !apierrors.IsTooManyRequests(err):
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond): // an ended watch is not begun anew in a hot loop
		}
	}
}

// drain reads events until done says so or the watch ends.
func drain(ctx context.Context, w watch.Interface, done func(metav1.Object) (bool, error)) (bool, error) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case e, ok := <-w.ResultChan():
			if !ok || e.Type == watch.Error {
				return false, nil
			}
			if e.Type == watch.Bookmark {
				continue
			}
			now := accessor(e.Object)
			if e.Type == watch.Deleted {
				now = nil
			}
			if ok, err := done(now); ok || err != nil {
				return ok, err
			}
		}
	}
}

// limited gives a context its time limit; zero means none, and below zero a
// week, as for kubectl wait.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	switch {
	case limit == 0:
		return context.WithCancel(ctx)
	case limit < 0:
		limit = 7 * 24 * time.Hour
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w after %s", errWaited, limit))
}
