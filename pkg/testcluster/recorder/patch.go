package recorder

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/testcluster/history"
)

// patch changes one annotation and perhaps more, in one of three languages.
func (w *worker) patch() {
	key, token := w.knownKey(), w.token()
	q := &history.Request{Op: history.Patch, Key: key, Token: token,
		Effect: history.Effect{Annotate: map[string]string{w.name: token}}}
	kind, body := types.MergePatchType, []byte(nil)
	switch w.random.IntN(3) {
	case 0:
		kind = types.JSONPatchType
		body = fmt.Appendf(nil, `[{"op":"add","path":"/metadata/annotations/%s","value":%q}]`, w.name, token)
	case 1:
		kind = types.StrategicMergePatchType
		fallthrough
	default:
		body = w.merge(q)
	}
	srv, client := w.client()
	w.send(srv, q, at(client.Patch(kind), key).Body(body))
}

// merge writes a patch of the request's annotations, and sometimes of a label,
// a field and a precondition, which it adds to the request.
func (w *worker) merge(q *history.Request) []byte {
	meta := map[string]any{"annotations": q.Effect.Annotate}
	doc := map[string]any{"metadata": meta}
	if w.random.IntN(2) == 0 {
		q.Effect.Label = map[string]string{"color": w.color()}
		meta["labels"] = q.Effect.Label
	}
	if q.Key.Resource == nodes && w.random.IntN(2) == 0 {
		on := w.random.IntN(2) == 0
		q.Effect.Field = map[string]string{unschedulable: fmt.Sprint(on)}
		doc["spec"] = map[string]any{"unschedulable": on}
	}
	if known, ok := w.known[q.Key]; ok && w.random.IntN(4) == 0 {
		q.Expect = known.state.Revision
		meta["resourceVersion"] = fmt.Sprint(q.Expect)
	}
	return encode(doc)
}

// encode writes maps and strings, which always works.
func encode(doc any) []byte {
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return b
}

// patchNothing sends a patch that leaves the object as it is.
func (w *worker) patchNothing() {
	key := w.knownKey()
	srv, client := w.client()
	w.send(srv, &history.Request{Op: history.Patch, Key: key}, at(client.Patch(types.MergePatchType), key).Body([]byte(`{}`)))
}

// release removes the finalizers, which lets a deleted object go.
func (w *worker) release() {
	key, token := w.knownKey(), w.token()
	q := &history.Request{Op: history.Patch, Key: key, Token: token,
		Effect: history.Effect{Annotate: map[string]string{w.name: token}, Unfinalize: true}}
	body := fmt.Appendf(nil, `{"metadata":{"finalizers":null,"annotations":{%q:%q}}}`, w.name, token)
	srv, client := w.client()
	w.send(srv, q, at(client.Patch(types.MergePatchType), key).Body(body))
}

// apply applies one annotation, under a manager of the worker's own; an object
// that is not there is made.
func (w *worker) apply() {
	key, token := w.key(), w.token()
	q := &history.Request{Op: history.Apply, Key: key, Token: token,
		Effect: history.Effect{Annotate: map[string]string{w.name: token}}}
	meta := map[string]any{"name": key.Name, "annotations": q.Effect.Annotate}
	doc := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
	if key.Namespace != "" {
		meta["namespace"] = key.Namespace
	}
	if key.Resource == nodes {
		on := w.random.IntN(2) == 0
		q.Effect.Field = map[string]string{unschedulable: fmt.Sprint(on)}
		doc["kind"], doc["spec"] = "Node", map[string]any{"unschedulable": on}
	}
	srv, client := w.client()
	w.send(srv, q, at(client.Patch(types.ApplyPatchType), key).
		Param("fieldManager", w.name).Param("force", "true").Body(encode(doc)))
}
