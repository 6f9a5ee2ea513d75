package registry_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"coracle/pkg/admission"
	"coracle/pkg/registry"
	"coracle/pkg/registry/custom"
	"coracle/pkg/registry/fieldtypes"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
	"coracle/pkg/storage/memory"
)

// widgetSchema is that of the comparison in hack/bench.
const widgetSchema = `{"type":"object","required":["spec"],"properties":{
"spec":{"type":"object","required":["size","items"],"properties":{
"size":{"type":"integer","minimum":0,"maximum":1000000},
"color":{"type":"string","enum":["red","green","blue"]},
"note":{"type":"string","maxLength":200000},
"items":{"type":"array","maxItems":64,"items":{"type":"object","required":["name"],"properties":{
"name":{"type":"string","pattern":"^[a-z0-9-]+$"},"weight":{"type":"integer"},"value":{"type":"string"}}}},
"params":{"type":"object","additionalProperties":{"type":"string"}}}},
"status":{"type":"object","properties":{"phase":{"type":"string"}}}}}`

// widget is the body of a create of 1.4 KB as stored.
func widget(name string) []byte {
	note := strings.Repeat("all that is gold does not glitter ", 15)
	return fmt.Appendf(nil, `{"apiVersion":"bench.coracle.dev/v1","kind":"Widget","metadata":{"name":%q,"namespace":"default",`+
		`"labels":{"app":"bench","tier":"backend"},"annotations":{"bench.coracle.dev/owner":"nobody"}},`+
		`"spec":{"size":7,"color":"green","items":[{"name":"first","weight":1,"value":"alpha"},{"name":"second","weight":2,"value":"beta"}],`+
		`"params":{"mode":"fast","retries":"3"},"note":%q}}`, name, note)
}

// benchPod is the body of a create of a pod of 4.6 KB as stored, that of the
// comparison in hack/bench.
func benchPod(name string) []byte {
	container := func(name string, port int, probes string) string {
		return fmt.Sprintf(`{"name":%q,"image":"registry.example.com/team/%s:1.24.3","imagePullPolicy":"IfNotPresent",`+
			`"args":["--listen=:%d"],"ports":[{"name":"http","containerPort":%d,"protocol":"TCP"}],`+
			`"env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"MODE","value":"production"}],`+
			`"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"256Mi"}},`+
			`"volumeMounts":[{"name":"config","mountPath":"/etc/server"},{"name":"scratch","mountPath":"/tmp"}],`+
			`%s"securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true}}`, name, name, port, port, probes)
	}
	const probes = `"livenessProbe":{"httpGet":{"path":"/livez","port":8080},"periodSeconds":10},` +
		`"readinessProbe":{"httpGet":{"path":"/readyz","port":8080},"periodSeconds":5},`
	note := strings.Repeat("all that is gold does not glitter ", 15)
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"default",`+
		`"labels":{"app":"bench","tier":"backend"},"annotations":{"bench.coracle.dev/note":%q}},`+
		`"spec":{"containers":[%s,%s],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"serviceAccountName":"default",`+
		`"securityContext":{"runAsUser":1000},`+
		`"tolerations":[{"key":"dedicated","operator":"Equal","value":"bench","effect":"NoSchedule"}],`+
		`"volumes":[{"name":"config","configMap":{"name":"server"}},{"name":"scratch","emptyDir":{}}]}}`,
		name, note, container("server", 8080, probes), container("sidecar", 9090, ""))
}

// kit serves one kind out of memory.
type kit struct {
	*registry.Registry
	decoder *registry.Decoder
	res     *resource.Resource
	body    func(name string) []byte
	change  func(n int) []byte // a merge patch
}

// newKit serves res, which table has.
func newKit(b testing.TB, table *resource.Table, res *resource.Resource, plugins ...admission.Plugin) *kit {
	b.Helper()
	store := memory.New(memory.Config{})
	c := cache.New(cache.Config{Backend: store, Kinds: []cache.Kind{registry.KindOf(res)}, SoleWriter: true})
	done := make(chan error, 1)
	go func() { done <- c.Run(b.Context()) }()
	b.Cleanup(func() {
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	if err := c.WaitReady(b.Context()); err != nil {
		b.Fatal(err)
	}
	chain, err := admission.NewChain(plugins...)
	if err != nil {
		b.Fatal(err)
	}
	types := func() managedfields.TypeConverter { return fieldtypes.New(table.Scheme()) }
	return &kit{
		Registry: registry.New(registry.Config{Table: table, Cache: c, Chain: chain, Rand: rand.Reader, Types: types}),
		decoder:  registry.NewDecoder(table.Scheme()), res: res,
	}
}

func newPodKit(b testing.TB, plugins ...admission.Plugin) *kit {
	b.Helper()
	table := resource.Builtin()
	res, ok := table.ByGVK(corev1.SchemeGroupVersion.WithKind("Pod"))
	if !ok {
		b.Fatal("there are no pods")
	}
	k := newKit(b, table, res, plugins...)
	k.body = benchPod
	k.change = func(n int) []byte { return fmt.Appendf(nil, `{"metadata":{"labels":{"tier":"t%d"}}}`, n) }
	return k
}

func newCustomKit(b testing.TB, plugins ...admission.Plugin) *kit {
	b.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	crd.Name, crd.UID, crd.Generation = "widgets.bench.coracle.dev", "u", 1
	schema := &apiextensionsv1.JSONSchemaProps{}
	if err := json.Unmarshal([]byte(widgetSchema), schema); err != nil {
		b.Fatal(err)
	}
	names := apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Singular: "widget", Kind: "Widget", ListKind: "WidgetList"}
	crd.Spec = apiextensionsv1.CustomResourceDefinitionSpec{
		Group: "bench.coracle.dev", Scope: apiextensionsv1.NamespaceScoped, Names: names,
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
			Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			Schema:       &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: schema}}},
	}
	crd.Status.AcceptedNames = names
	d, err := custom.New(crd, custom.Source{
		Load:    func() (*apiextensionsv1.CustomResourceDefinition, error) { return crd.DeepCopy(), nil },
		Schemas: &custom.Schemas{Limit: 10 << 20},
	})
	if err != nil {
		b.Fatal(err)
	}
	k := newKit(b, resource.Builtin().With(d.Served()), d.Stored(), plugins...)
	k.body = widget
	k.change = func(n int) []byte { return fmt.Appendf(nil, `{"spec":{"size":%d}}`, n) }
	return k
}

func (k *kit) create(b testing.TB, name string) {
	obj, err := k.decoder.DecodeFor(k.res, k.body(name), registry.JSON, registry.Warn, func(text string) { b.Error(text) })
	if err != nil {
		b.Fatal(err)
	}
	req := registry.Request{Resource: k.res, Namespace: "default"}
	if _, err := k.Create(b.Context(), req, obj, registry.WriteOptions{Manager: "bench"}); err != nil {
		b.Fatal(err)
	}
}

func (k *kit) patch(b testing.TB, name string, n int) {
	req := registry.Request{Resource: k.res, Namespace: "default", Name: name}
	_, _, err := k.Patch(b.Context(), k.decoder, req, k.change(n),
		registry.PatchOptions{Type: types.MergePatchType, WriteOptions: registry.WriteOptions{Manager: "bench"}})
	if err != nil {
		b.Fatal(err)
	}
}

func (k *kit) remove(b testing.TB, name string) {
	req := registry.Request{Resource: k.res, Namespace: "default", Name: name}
	if _, gone, err := k.Delete(b.Context(), req, registry.DeleteOptions{}); err != nil || !gone {
		b.Fatal(gone, err)
	}
}

// processorTime is what the process has used, which a busy machine disturbs
// less than the clock.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCustom measures writes of a custom resource of 1.4 KB, from its body
// to the store in memory, without HTTP.
func BenchmarkCustom(b *testing.B) { benchmarkWrites(b, newCustomKit) }

// BenchmarkPod measures those of a pod of 4.6 KB.
func BenchmarkPod(b *testing.B) { benchmarkWrites(b, newPodKit) }

// BenchmarkAdmittedPod measures those of a pod that is given a token, in a volume
// whose name nobody has had before.
func BenchmarkAdmittedPod(b *testing.B) {
	benchmarkWrites(b, func(t testing.TB, _ ...admission.Plugin) *kit {
		var n atomic.Int64
		suffix := func() (string, error) { return fmt.Sprintf("%05d", n.Add(1)), nil }
		return newPodKit(t, admission.ServiceAccount{Objects: accounts{}, Suffix: suffix})
	})
}

func benchmarkWrites(b *testing.B, start func(b testing.TB, plugins ...admission.Plugin) *kit) {
	const many = 512
	steps := []struct {
		name  string
		setup int // objects that are there, at most; 0 for one of each turn
		do    func(b *testing.B, k *kit, i int)
	}{
		{"Create", -1, func(b *testing.B, k *kit, i int) { k.create(b, fmt.Sprint("w", i)) }},
		{"Patch", many, func(b *testing.B, k *kit, i int) { k.patch(b, fmt.Sprint("w", i%many), i+8) }},
		{"Delete", 0, func(b *testing.B, k *kit, i int) { k.remove(b, fmt.Sprint("w", i)) }},
	}
	for _, step := range steps {
		b.Run(step.name, func(b *testing.B) {
			k := start(b)
			k.create(b, "first") // compiles the schema
			k.patch(b, "first", 1)
			there := step.setup
			if there == 0 {
				there = b.N
			}
			for i := range there {
				k.create(b, fmt.Sprint("w", i))
			}
			b.ReportAllocs()
			b.ResetTimer()
			cpu := processorTime()
			for i := range b.N {
				step.do(b, k, i)
			}
			b.ReportMetric(float64(processorTime()-cpu)/float64(b.N), "cpu-ns/op")
		})
	}
}
