package registry_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"coracle/pkg/registry"
	"coracle/pkg/registry/fieldtypes"
	"coracle/pkg/resource"
)

// write is one of a sequence on one object.
type write struct {
	manager, subresource string
	put                  bool   // the stored object with the patch applied is sent as a whole
	patch                string // a merge patch; the first write's is the object
}

// pathsReset is what upstream's strategies reset, in their own words.
type pathsReset map[string][]fieldpath.Path

func path(parts ...any) fieldpath.Path { return fieldpath.MakePathOrDie(parts...) }

// TestOwnersAsUpstream: what a write sends is what its client owns, less what
// it cannot set, whatever the server makes of it afterwards. The expectation is
// the library's, asked as upstream's handlers do: before admission and before
// the object is prepared.
func TestOwnersAsUpstream(t *testing.T) {
	usual := pathsReset{"": {path("status")}, "status": {path("spec")}}
	for _, c := range []struct {
		kind   schema.GroupVersionKind
		reset  pathsReset
		writes []write
	}{
		{schema.GroupVersionKind{Version: "v1", Kind: "Pod"},
			pathsReset{"": {path("status")}, "status": {path("spec"), path("metadata", "deletionTimestamp"), path("metadata", "ownerReferences")}},
			[]write{
				{"a", "", true, `{"metadata":{"labels":{"a":"b"},"deletionTimestamp":"2030-01-01T00:00:00Z","generation":7},"spec":{"containers":[{"name":"c","image":"i"}]},"status":{"phase":"Running"}}`},
				{"b", "", true, `{"metadata":{"annotations":{"x":"y"}},"status":{"message":"not so"}}`},
				{"k", "status", false, `{"metadata":{"labels":{"l":"m"},"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}]},"spec":{"priority":3},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`},
				{"e", "ephemeralcontainers", false, `{"metadata":{"labels":{"e":"f"}},"spec":{"ephemeralContainers":[{"name":"d","image":"i","imagePullPolicy":"Always","terminationMessagePolicy":"File"}]}}`},
				{"a", "", true, `{"metadata":{"uid":null,"creationTimestamp":null,"annotations":null},"spec":{"containers":[{"name":"c","image":"j"}]}}`},
			}},
		{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"},
			pathsReset{"": {path("status")}, "status": {path("spec"), path("metadata", "labels")}},
			[]write{
				{"a", "", true, `{"metadata":{"labels":{"a":"b"}},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`},
				{"k", "status", true, `{"metadata":{"labels":{"a":"c","d":"e"},"annotations":{"r":"1"}},"spec":{"replicas":4},"status":{"replicas":2}}`},
				{"b", "", false, `{"spec":{"replicas":5},"status":{"replicas":9}}`},
			}},
		{schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}, usual, []write{
			{"a", "", true, `{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`},
			{"b", "", true, `{"spec":{"suspend":true}}`},
		}},
		{schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, pathsReset{"": {path("status")}, "finalize": {path("status")}}, []write{
			{"a", "", true, `{"metadata":{"labels":{"a":"b"}}}`},
			{"b", "", true, `{"spec":{"finalizers":["kubernetes","example.com/x"]}}`},
			{"c", "finalize", true, `{"spec":{"finalizers":["kubernetes","example.com/y"]},"status":{"phase":"Terminating"}}`},
		}},
		{schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest"},
			pathsReset{"": {path("spec"), path("status")}, "approval": {path("spec"), path("status", "certificate")}, "status": {path("spec"), path("status", "conditions")}},
			[]write{
				{"a", "", true, signingRequest},
				{"b", "approval", true, `{"status":{"conditions":[{"type":"Approved","status":"True","reason":"r"}],"certificate":"eA=="}}`},
				{"c", "", true, `{"metadata":{"labels":{"a":"b"}},"status":{"conditions":null}}`},
			}},
		{schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "ServiceCIDR"},
			pathsReset{"": {path("status")}, "status": {path("metadata"), path("spec")}},
			[]write{
				{"a", "", true, `{"spec":{"cidrs":["10.0.0.0/24"]}}`},
				{"b", "status", true, `{"metadata":{"labels":{"a":"b"}},"status":{"conditions":[{"type":"Ready","status":"True","reason":"r","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`},
			}},
	} {
		t.Run(c.kind.Kind, func(t *testing.T) {
			table := resource.Builtin()
			res, ok := table.ByGVK(c.kind)
			if !ok {
				t.Fatalf("no %s", c.kind)
			}
			k := newKit(t, table, res, policy{})
			var live runtime.Object
			for i, w := range c.writes {
				live = k.writeAsUpstream(t, c.reset, live, w)
				if t.Failed() {
					t.Fatalf("write %d", i)
				}
			}
		})
	}
}

// signingRequest asks for a node's certificate.
const signingRequest = `{"spec":{"signerName":"kubernetes.io/kube-apiserver-client-kubelet","usages":["digital signature","client auth"],"request":"` +
	`LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIck1JR1NBZ0VBTURBeEZUQVRCZ05WQkFvTURITjVjM1JsYlRwdWIyUmxjekVYTUJVR0ExVUVBd3dPYzNsegpkR1Z0T201dlpHVTZiakV3V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQkJ3TkNBQVJMYzNPUWVzQkJUcGRXCjdwdGcyQnJ4UnFtdVZndzBTbHkvK2xmbFc5UkFvTjFrWTl6b1BtQ2Eyd2l6TUJOVUErK3EzYm0weU13aEFjU3cKbnhqUm5sdHJvQUF3Q2dZSUtvWkl6ajBFQXdJRFNBQXdSUUlnWWsrZGlEZ2dkV1doWGxmUDFtY2xPTWtsM0JzZgpTUVJndUx0WkN1S1l2Yk1DSVFEbXh6MDRLUmt4c0FXcHVIcVNpdFVmN2JROFJSTkJuTTlmVzcvd2FLcXA5UT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo="}}`

// writeAsUpstream makes one write and compares the owners; it returns what is
// stored afterwards.
func (k *kit) writeAsUpstream(t *testing.T, reset pathsReset, live runtime.Object, w write) runtime.Object {
	t.Helper()
	var base runtime.Object = k.res.New()
	if live != nil {
		base = live.DeepCopyObject()
	}
	sent, err := registry.PatchObject(k.decoder, k.res.GVK(), base, []byte(w.patch), registry.PatchOptions{Type: types.MergePatchType})
	if err != nil {
		t.Fatal(err)
	}
	acc, err := meta.Accessor(sent)
	if err != nil {
		t.Fatal(err)
	}
	if live == nil {
		acc.SetName("a")
	}
	want := k.libraryOwners(t, reset, live, sent, w)

	req := registry.Request{Resource: k.res, Subresource: w.subresource, Name: "a"}
	if k.res.Namespaced {
		req.Namespace = "default"
	}
	opts := registry.WriteOptions{Manager: w.manager}
	var stored []byte
	switch {
	case live == nil:
		o, err := k.Create(t.Context(), req, sent, opts)
		if err != nil {
			t.Fatal(err)
		}
		stored = o.Value
	case w.put:
		change := func(runtime.Object) (runtime.Object, error) { return sent.DeepCopyObject(), nil }
		o, _, err := k.Update(t.Context(), req, change, registry.UpdateOptions{WriteOptions: opts})
		if err != nil {
			t.Fatal(err)
		}
		stored = o.Value
	default:
		o, _, err := k.Patch(t.Context(), k.decoder, req, []byte(w.patch), registry.PatchOptions{Type: types.MergePatchType, WriteOptions: opts})
		if err != nil {
			t.Fatal(err)
		}
		stored = o.Value
	}
	now, err := registry.Decode(k.res, stored)
	if err != nil {
		t.Fatal(err)
	}
	if acc, err = meta.Accessor(now); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, plainEntries(acc.GetManagedFields())); d != "" {
		t.Errorf("the owners after %+v (-upstream +ours):\n%s", w, d)
	}
	return now
}

// libraryOwners are the entries that upstream's handlers leave in sent.
func (k *kit) libraryOwners(t *testing.T, reset pathsReset, live, sent runtime.Object, w write) map[string]string {
	t.Helper()
	scheme, gvk := k.decoder.Scheme(), k.res.GVK()
	var filters map[fieldpath.APIVersion]fieldpath.Filter
	if paths := reset[w.subresource]; paths != nil {
		set := fieldpath.NewSet(paths...)
		filters = fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(gvk.GroupVersion().String()): set})
	}
	m, err := managedfields.NewDefaultFieldManager(fieldtypes.New(scheme), scheme, scheme, scheme, gvk, gvk.GroupVersion(), w.subresource, filters)
	if err != nil {
		t.Fatal(err)
	}
	obj := sent.DeepCopyObject()
	if k.res.Default != nil {
		k.res.Default(obj)
	}
	if live == nil { // wiped by the handler
		live = k.res.New()
		acc, err := meta.Accessor(obj)
		if err != nil {
			t.Fatal(err)
		}
		acc.SetDeletionTimestamp(nil)
		acc.SetDeletionGracePeriodSeconds(nil)
	}
	live = live.DeepCopyObject()
	live.GetObjectKind().SetGroupVersionKind(gvk)
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	acc, err := meta.Accessor(m.UpdateNoErrors(live, obj, w.manager))
	if err != nil {
		t.Fatal(err)
	}
	return plainEntries(acc.GetManagedFields())
}

// plainEntries are the sets by who owns them.
func plainEntries(entries []metav1.ManagedFieldsEntry) map[string]string {
	out := map[string]string{}
	for _, e := range entries {
		out[e.Manager+" "+string(e.Operation)+" "+e.APIVersion+" "+e.Subresource] = string(e.FieldsV1.GetRawBytes())
	}
	return out
}
