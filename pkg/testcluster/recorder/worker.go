package recorder

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"coracle/pkg/testcluster/history"
)

// requestTimeout bounds one request. It is far above what a request takes.
const requestTimeout = 10 * time.Second

const finalizer = "example.com/held"

// The values that selectors ask for.
var colors = []string{"red", "blue", "green"}

// seenObject is an object as a worker saw it last.
type seenObject struct {
	obj   runtime.Object
	state *history.State
}

// worker sends one request after another.
type worker struct {
	run    *run
	name   string
	random *rand.Rand
	ctx    context.Context
	known  map[history.Key]seenObject
	made   int   // tokens so far
	newest int64 // the greatest revision seen
}

// work sends n random requests.
func (w *worker) work(n int) {
	actions := []struct {
		weight int
		act    func()
	}{
		{18, w.create}, {20, w.update}, {16, w.patch}, {4, w.patchNothing}, {8, w.apply}, {8, w.delete},
		{12, w.get}, {14, w.list}, {6, w.release}, {1, w.deleteCollection},
	}
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	for range n {
		pick := w.random.IntN(total)
		for _, a := range actions {
			if pick -= a.weight; pick < 0 {
				a.act()
				break
			}
		}
		w.run.record.ops.Add(1)
		w.breathe()
	}
}

// breathe waits while the server that the worker would use is restarting.
func (w *worker) breathe() {
	if w.ctx.Err() != nil || w.run.anyServer(w.random).alive.Err() == nil {
		return
	}
	timer := time.NewTimer(2 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
}

// key is any object of the workload.
func (w *worker) key() history.Key {
	n := w.random.IntN(w.run.cfg.Objects)
	switch w.random.IntN(5) {
	case 0:
		return history.Key{Resource: nodes, Name: fmt.Sprintf("n%d", n)}
	case 1:
		return history.Key{Resource: configMaps, Namespace: "ns10", Name: fmt.Sprintf("c%d", n)}
	}
	return history.Key{Resource: configMaps, Namespace: "ns1", Name: fmt.Sprintf("c%d", n)}
}

// knownKey is preferably an object that the worker has seen.
func (w *worker) knownKey() history.Key {
	key := w.key()
	for range 4 {
		if _, ok := w.known[key]; ok {
			return key
		}
		key = w.key()
	}
	return key
}

func (w *worker) token() string {
	w.made++
	return fmt.Sprintf("%s-%d", w.name, w.made)
}

func (w *worker) color() string { return colors[w.random.IntN(len(colors))] }

// client is any server, in any encoding.
func (w *worker) client() (*server, rest.Interface) {
	srv := w.run.anyServer(w.random)
	if w.random.IntN(2) == 0 {
		return srv, srv.proto
	}
	return srv, srv.json
}

// at points a request at an object.
func at(r *rest.Request, key history.Key) *rest.Request {
	return collection(r, key).Name(key.Name)
}

// collection points a request at what an object is in.
func collection(r *rest.Request, key history.Key) *rest.Request {
	r = r.Resource(key.Resource).MaxRetries(0)
	if key.Namespace != "" {
		r = r.Namespace(key.Namespace)
	}
	return r
}

// send runs a request and records it with its answer.
func (w *worker) send(srv *server, q *history.Request, r *rest.Request) {
	ctx, cancel := context.WithTimeout(w.ctx, requestTimeout)
	defer cancel()
	q.Client, q.Server = w.name, srv.name
	q.Call = w.run.record.tick()
	result := r.Do(ctx)
	obj, err := result.Get()
	q.Return = w.run.record.tick()
	q.Outcome, q.Detail = outcome(err)
	if q.Outcome == history.Unknown {
		q.Return = 0
	}
	if _, status := obj.(*metav1.Status); err == nil && obj != nil && !status {
		state, err := stateOf(obj)
		if err != nil {
			q.Outcome, q.Detail = history.Refused, err.Error()
		} else {
			q.Result = state
			w.saw(seenObject{obj, state})
		}
	}
	if q.Outcome == history.NotFound {
		delete(w.known, q.Key)
	}
	w.run.record.request(q)
}

func (w *worker) saw(o seenObject) {
	w.known[o.state.Key] = o
	w.newest = max(w.newest, o.state.Revision)
}

// blank is an object of a key with nothing in it.
func blank(key history.Key) protoObject {
	meta := metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
	if key.Resource == nodes {
		return &corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: meta}
	}
	return &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, ObjectMeta: meta}
}

// fill gives an object new content and says what that is.
func (w *worker) fill(obj protoObject, token string) *history.Content {
	content := &history.Content{
		Annotations: map[string]string{w.name: token},
		Labels:      map[string]string{"color": w.color()},
	}
	obj.SetAnnotations(content.Annotations)
	obj.SetLabels(content.Labels)
	switch o := obj.(type) {
	case *corev1.Node:
		o.Spec.Unschedulable = w.random.IntN(2) == 0
		content.Fields = map[string]string{unschedulable: fmt.Sprint(o.Spec.Unschedulable)}
	case *corev1.ConfigMap:
		o.Data = map[string]string{"padding": fmt.Sprintf("%0*d", w.random.IntN(600), w.made)}
	}
	return content
}

func (w *worker) create() {
	key, token := w.key(), w.token()
	obj := blank(key)
	content := w.fill(obj, token)
	if w.random.IntN(4) == 0 {
		content.Finalizers = []string{finalizer}
		obj.SetFinalizers(content.Finalizers)
	}
	srv, client := w.client()
	w.send(srv, &history.Request{Op: history.Create, Key: key, Token: token, Effect: history.Effect{Replace: content}},
		collection(client.Post(), key).Body(obj))
}

// update puts an object as the worker last saw it, changed.
func (w *worker) update() {
	key := w.knownKey()
	known, ok := w.known[key]
	if !ok {
		return
	}
	token := w.token()
	obj := known.obj.DeepCopyObject().(protoObject)
	content := w.fill(obj, token)
	srv, client := w.client()
	w.send(srv, &history.Request{Op: history.Update, Key: key, Token: token, Effect: history.Effect{Replace: content},
		Expect: known.state.Revision, ExpectUID: known.state.UID}, at(client.Put(), key).Body(obj))
}

func (w *worker) get() {
	key := w.key()
	read, version := history.Read{}, ""
	switch w.random.IntN(4) {
	case 0:
		version = "0"
	case 1:
		read.Revision = w.newest
		if w.newest > 0 {
			version = fmt.Sprint(w.newest)
		}
	}
	read.Version = version
	srv, client := w.client()
	r := at(client.Get(), key)
	if version != "" {
		r = r.Param("resourceVersion", version)
	}
	w.send(srv, &history.Request{Op: history.Get, Key: key, Read: read}, r)
}

// delete deletes with or without a precondition.
func (w *worker) delete() {
	key := w.knownKey()
	q := &history.Request{Op: history.Delete, Key: key}
	opts := &metav1.DeleteOptions{}
	if known, ok := w.known[key]; ok {
		uid, rv := known.obj.(protoObject).GetUID(), known.obj.(protoObject).GetResourceVersion()
		switch w.random.IntN(3) {
		case 0:
			q.ExpectUID, opts.Preconditions = string(uid), &metav1.Preconditions{UID: &uid}
		case 1:
			q.Expect, opts.Preconditions = known.state.Revision, &metav1.Preconditions{ResourceVersion: &rv}
		}
	}
	srv, client := w.client()
	w.send(srv, q, at(client.Delete(), key).Body(opts))
}
