package recorder

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"coracle/pkg/testcluster/history"
)

// outcome reads an error of client-go.
func outcome(err error) (history.Outcome, string) {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return history.OK, ""
	case !errors.As(err, &status) || status.Status().Code >= 500 || status.Status().Code == 0:
		return history.Unknown, err.Error()
	case apierrors.IsAlreadyExists(err):
		return history.Exists, ""
	case apierrors.IsConflict(err):
		return history.Conflict, err.Error()
	case apierrors.IsNotFound(err):
		return history.NotFound, ""
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		return history.Expired, err.Error()
	}
	return history.Refused, err.Error()
}

// options are the parameters that select a scope.
func options(scope history.Scope) metav1.ListOptions {
	var opts metav1.ListOptions
	if scope.Label != "" {
		opts.LabelSelector = scope.Label + "=" + scope.LabelValue
	}
	switch {
	case scope.Name != "":
		opts.FieldSelector = "metadata.name=" + scope.Name
	case scope.Field != "":
		opts.FieldSelector = scope.Field + "=" + scope.FieldValue
	}
	return opts
}

// in points a request at a collection.
func in(r *rest.Request, scope history.Scope, opts metav1.ListOptions) *rest.Request {
	r = r.Resource(scope.Resource).MaxRetries(0).VersionedParams(&opts, scheme.ParameterCodec)
	if scope.Namespace != "" {
		r = r.Namespace(scope.Namespace)
	}
	return r
}

// scopes are what lists and watches select.
func scopes() []history.Scope {
	return []history.Scope{
		{Resource: configMaps},
		{Resource: configMaps, Namespace: "ns1"},
		{Resource: configMaps, Namespace: "ns10"},
		{Resource: configMaps, Label: "color", LabelValue: "red"},
		{Resource: configMaps, Namespace: "ns1", Label: "color", LabelValue: "blue"},
		{Resource: configMaps, Namespace: "ns1", Name: "c0"},
		{Resource: nodes},
		{Resource: nodes, Label: "color", LabelValue: "blue"},
		{Resource: nodes, Field: unschedulable, FieldValue: "true"},
		{Resource: nodes, Field: unschedulable, FieldValue: "false", Label: "color", LabelValue: "red"},
	}
}

// lister sends lists and records them.
type lister struct {
	record *record
	name   string
	ctx    context.Context
}

// page sends one page of a list and records it. next is the token to go on
// with.
func (l *lister) page(srv *server, client rest.Interface, page *history.List, opts metav1.ListOptions) (next string, items []runtime.Object) {
	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	page.Client, page.Server = l.name, srv.name
	page.Call = l.record.tick()
	obj, err := in(client.Get(), page.Scope, opts).Do(ctx).Get()
	page.Return = l.record.tick()
	page.Outcome, page.Detail = outcome(err)
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		if m := status.Status().ListMeta; m.Continue != "" {
			next = m.Continue
		}
	}
	if err == nil {
		if next, items, err = readPage(obj, page); err != nil {
			page.Outcome, page.Detail = history.Refused, err.Error()
		}
	}
	page.Continue = next != ""
	l.record.list(page)
	return next, items
}

func readPage(obj runtime.Object, page *history.List) (next string, items []runtime.Object, err error) {
	acc, err := meta.ListAccessor(obj)
	if err != nil {
		return "", nil, err
	}
	if page.Revision, err = strconv.ParseInt(acc.GetResourceVersion(), 10, 64); err != nil {
		return "", nil, fmt.Errorf("the list has the resourceVersion %q", acc.GetResourceVersion())
	}
	page.Remaining = acc.GetRemainingItemCount()
	switch list := obj.(type) {
	case *corev1.ConfigMapList:
		for i := range list.Items {
			items = append(items, &list.Items[i])
		}
	case *corev1.NodeList:
		for i := range list.Items {
			items = append(items, &list.Items[i])
		}
	default:
		return "", nil, fmt.Errorf("a %T is no list of the workload's kinds", obj)
	}
	for _, item := range items {
		state, err := stateOf(item)
		if err != nil {
			return "", nil, err
		}
		page.Items = append(page.Items, state.Version)
	}
	return acc.GetContinue(), items, nil
}

// list reads a collection, whole or in pages.
func (w *worker) list() {
	all := scopes()
	first := &history.List{Scope: all[w.random.IntN(len(all))]}
	opts := options(first.Scope)
	if w.random.IntN(2) == 0 {
		first.Limit = 1 + w.random.IntN(3)
		opts.Limit = int64(first.Limit)
	}
	switch w.random.IntN(6) {
	case 0:
		opts.ResourceVersion = "0"
	case 1, 2:
		if w.newest == 0 {
			break
		}
		first.Read.Revision = w.newest
		opts.ResourceVersion, opts.ResourceVersionMatch = fmt.Sprint(w.newest), metav1.ResourceVersionMatchNotOlderThan
		if w.random.IntN(2) == 0 {
			first.Read.Exact, opts.ResourceVersionMatch = true, metav1.ResourceVersionMatchExact
		}
	}
	first.Read.Version = opts.ResourceVersion
	w.pages(first, opts)
}

// pages follows a chain to its end, on any server.
func (w *worker) pages(page *history.List, opts metav1.ListOptions) {
	l := &lister{record: w.run.record, name: w.name, ctx: w.ctx}
	for w.ctx.Err() == nil {
		srv, client := w.client()
		next, items := l.page(srv, client, page, opts)
		for _, item := range items {
			if state, err := stateOf(item); err == nil {
				w.saw(seenObject{item, state})
			}
		}
		w.newest = max(w.newest, page.Revision)
		if next == "" {
			return
		}
		following := &history.List{Scope: page.Scope, Read: page.Read, Limit: page.Limit, Before: page, After: page.After}
		if n := len(page.Items); n > 0 {
			following.After = page.Items[n-1].Key.Path()
		}
		page = following
		opts.ResourceVersion, opts.ResourceVersionMatch, opts.Continue = "", "", next
	}
}

// deleteCollection deletes what a selector selects. The answer tells which
// objects were met, not which of them were still there.
func (w *worker) deleteCollection() {
	all := scopes()
	scope := all[w.random.IntN(len(all))]
	if scope.Namespace == "" && scope.Resource == configMaps || !scope.Selective() {
		return // too much at once, or not allowed
	}
	srv, client := w.client()
	ctx, cancel := context.WithTimeout(w.ctx, requestTimeout)
	defer cancel()
	call := w.run.record.tick()
	obj, err := in(client.Delete(), scope, options(scope)).Body(&metav1.DeleteOptions{}).Do(ctx).Get()
	done := w.run.record.tick()
	result, detail := outcome(err)
	var met []history.Key
	switch {
	case err == nil:
		page := &history.List{}
		if _, _, err := readPage(obj, page); err != nil {
			result, detail = history.Refused, err.Error()
		}
		for _, item := range page.Items {
			met = append(met, item.Key)
		}
	case result == history.Unknown:
		met, done = w.run.keys(scope), 0
	default:
		met = w.run.keys(scope)
	}
	for _, key := range met {
		w.run.record.request(&history.Request{Client: w.name, Server: srv.name, Op: history.Collected, Key: key,
			Call: call, Return: done, Outcome: result, Detail: detail})
	}
}
