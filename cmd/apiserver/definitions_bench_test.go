package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// BenchmarkInstalledDefinition measures what an installed definition costs the
// API server's heap: after it was created, an object of it was written and its
// OpenAPI was read. The store is a process of its own. It reports bytes per
// definition and the size of the definition's compressed JSON:
//
//	go test ./cmd/apiserver -run - -bench InstalledDefinition -benchtime 1x -timeout 30m
func BenchmarkInstalledDefinition(b *testing.B) {
	for _, size := range []struct{ kilobytes, count int }{{1, 1000}, {20, 1000}, {300, 1000}} {
		b.Run(fmt.Sprintf("%dKB", size.kilobytes), func(b *testing.B) {
			for range b.N {
				measureDefinitions(b, size.kilobytes<<10, size.count)
			}
		})
	}
}

func measureDefinitions(b *testing.B, size, count int) {
	env := &envtest.Environment{BinaryAssetsDirectory: assets(b)}
	config, err := env.Start()
	if err != nil {
		b.Fatalf("start envtest: %v", err)
	}
	defer func() {
		if err := env.Stop(); err != nil {
			b.Errorf("stop envtest: %v", err)
		}
	}()
	config.QPS = -1
	useDefinition(b, config, 0, size) // what is made once for all
	before := heapOf(b, config)
	packed := 0
	for i := 1; i <= count; i++ {
		packed += useDefinition(b, config, i, size)
	}
	b.ReportMetric(float64(heapOf(b, config)-before)/float64(count), "heap-B/definition")
	b.ReportMetric(float64(packed)/float64(count), "gzip-B/definition")
}

// useDefinition installs a definition, writes an object of it and reads its
// OpenAPI. It returns the size of its compressed JSON.
func useDefinition(b *testing.B, config *rest.Config, n, size int) int {
	b.Helper()
	group := fmt.Sprintf("g%d.example.com", n)
	crd := definitionOf(group, size, n)
	client := crdclient.NewForConfigOrDie(config).ApiextensionsV1().CustomResourceDefinitions()
	if _, err := client.Create(b.Context(), crd, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	things := dynamic.NewForConfigOrDie(config).Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: "things"})
	err := wait.PollUntilContextTimeout(b.Context(), 2*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": group + "/v1", "kind": "Thing",
			"metadata": map[string]any{"name": "a"}, "spec": map[string]any{"field0": "x"}}}
		_, err := things.Create(ctx, u, metav1.CreateOptions{})
		return err == nil, nil
	})
	if err != nil {
		b.Fatal(err)
	}
	read(b, config, "/openapi/v3/apis/"+group+"/v1")
	text, err := json.Marshal(crd)
	if err != nil {
		b.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(text); err != nil {
		b.Fatal(err)
	}
	if err := z.Close(); err != nil {
		b.Fatal(err)
	}
	return packed.Len()
}

// words makes descriptions that compress as prose does.
var words = strings.Fields(`a pod is scheduled onto one node unless its affinity or the taints of all nodes forbid it while
	the certificate that an issuer renews before it expires names every host which the ingress routes to some service port`)

func definitionOf(group string, size, seed int) *apiextensionsv1.CustomResourceDefinition {
	random := rand.New(rand.NewSource(int64(seed)))
	spec := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{}}
	for n := 0; n < size; {
		var about []string
		for range 12 {
			about = append(about, words[random.Intn(len(words))])
		}
		p := apiextensionsv1.JSONSchemaProps{Type: "string", Description: strings.Join(about, " ")}
		if len(spec.Properties)%4 == 3 {
			p = apiextensionsv1.JSONSchemaProps{Type: "array", Description: p.Description, Items: &apiextensionsv1.JSONSchemaPropsOrArray{
				Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
					"name": {Type: "string"}, "port": {Type: "integer", Format: "int32"}}}}}
			n += 100
		}
		spec.Properties["field"+strconv.Itoa(len(spec.Properties))] = p
		n += len(p.Description) + 50
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things." + group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Kind: "Thing"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": spec}}}}},
		},
	}
}

// heapOf is the API server's heap after a collection.
func heapOf(b *testing.B, config *rest.Config) int {
	b.Helper()
	for range 2 {
		read(b, config, "/debug/pprof/heap?gc=1")
	}
	for line := range strings.Lines(string(read(b, config, "/metrics"))) {
		if value, ok := strings.CutPrefix(line, "go_memstats_heap_alloc_bytes "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				b.Fatal(err)
			}
			return int(n)
		}
	}
	b.Fatal("/metrics does not tell the size of the heap")
	return 0
}

func read(b *testing.B, config *rest.Config, path string) []byte {
	b.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		b.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, strings.TrimSuffix(config.Host, "/")+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			b.Error(err)
		}
	}()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s: %v", path, resp.Status, err)
	}
	return body
}
