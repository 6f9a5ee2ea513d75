package apiserver_test

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/testcluster"
)

// bomb is a request that is small on the wire and costs as much as it can.
type bomb struct{ name, method, path, content, body string }

// bombBytes is how large a body may be, with room for what is around it.
const bombBytes = 3<<20 - 64

// fill repeats a piece up to a number of times, within the size of a body.
func fill(head, piece, tail string, times int) string {
	times = min(times, (bombBytes-len(head)-len(tail))/len(piece))
	return head + strings.Repeat(piece, times) + tail
}

// numbered is fill of pieces that differ: %d is their number.
func numbered(head, piece, tail string, times int) string {
	var b strings.Builder
	b.WriteString(head)
	for i := range times {
		part := fmt.Sprintf(piece, i)
		if b.Len()+len(part)+len(tail) > bombBytes {
			break
		}
		b.WriteString(part)
	}
	return b.String() + tail
}

// whole is as often as fits into a body.
const whole = 1 << 30

// bombs are requests as wide, deep and long as the server takes, and more so.
func bombs(t testing.TB) []bomb {
	const (
		merge, strategic, operations = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"
		proto                        = "application/vnd.kubernetes.protobuf"
		deployment                   = "/apis/apps/v1/namespaces/default/deployments/a"
		pods                         = "/api/v1/namespaces/default/pods"
		podHead                      = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"b"}`
	)
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		p := string(c - 1)
		laughs += fmt.Sprintf("%c: &%c [*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s]\n", c, c, p, p, p, p, p, p, p, p, p)
	}
	doubling := `[{"op":"add","path":"/metadata/annotations","value":{"a":"` + strings.Repeat("x", 1000) + `"}}`
	for i := range 40 {
		doubling += fmt.Sprintf(`,{"op":"copy","from":"/metadata/annotations","path":"/metadata/annotations/c%d"}`, i)
	}
	var out []bomb
	add := func(name, method, path, content, body string) {
		out = append(out, bomb{name, method, path, content, body})
	}
	for _, n := range []int{39_000, 24_000, 9_900, 490} {
		add(fmt.Sprint("json/lists/", n), "POST", configMaps(""), jsonBody, fill(`{"data":[[]`, ",[]", "]}", n))
		add(fmt.Sprint("json/keys/", n), "POST", configMaps(""), jsonBody, numbered(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"w"},"data":{"a":""`, `,"k%d":""`, "}}", n))
		add(fmt.Sprint("json/containers/", n), "POST", pods, jsonBody, fill(podHead, ",{}", "]}}", n))
		add(fmt.Sprint("json/unknown/", n), "POST", pods+"?fieldValidation=Strict", jsonBody, numbered(podHead+"]", `,"x%d":0`, "}}", n))
		add(fmt.Sprint("json/unknown objects/", n), "POST", pods, jsonBody, numbered(podHead+"]", `,"x%d":{}`, "}}", n))
		add(fmt.Sprint("json/repeated/", n), "POST", pods, jsonBody, fill(podHead+"]", `,"x":0`, "}}", n))
		add(fmt.Sprint("json/env/", n), "POST", pods, jsonBody, fill(strings.TrimSuffix(podHead, "}")+`,"env":[{"name":"a"}`, `,{"name":"a"}`, "]}]}}", n))
		add(fmt.Sprint("json/owners/", n), "POST", configMaps(""), jsonBody, fill(`{"metadata":{"name":"a","ownerReferences":[{}`, `,{}`, `]}}`, n))
		add(fmt.Sprint("json/managers/", n), "POST", configMaps(""), jsonBody, fill(`{"metadata":{"name":"a","managedFields":[{}`, `,{}`, `]}}`, n))
		add(fmt.Sprint("yaml/flow/", n), "POST", configMaps(""), yamlBody, fill("data: [", "a,", "]", n))
		add(fmt.Sprint("yaml/lines/", n), "POST", configMaps(""), yamlBody, fill("kind: ConfigMap\napiVersion: v1\ndata:\n", "- a\n", "", n))
		add(fmt.Sprint("yaml/keys/", n), "POST", configMaps(""), yamlBody, numbered("kind: ConfigMap\napiVersion: v1\nmetadata: {name: w}\ndata:\n", "  k%d: a\n", "", n))
		add(fmt.Sprint("yaml/dashes/", n), "POST", configMaps(""), yamlBody, fill("", "- - -\n", "", n))
		add(fmt.Sprint("apply/keys/", n), "PATCH", configMaps("/w?fieldManager=m"), applyBody, numbered(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"w"},"data":{"a":""`, `,"k%d":""`, "}}", n))
		add(fmt.Sprint("apply/containers/", n), "PATCH", pods+"/w?fieldManager=m", applyBody, numbered(podHead, `,{"name":"n%d"}`, "]}}", n))
		add(fmt.Sprint("apply/yaml/", n), "PATCH", configMaps("/w?fieldManager=m"), applyBody, numbered("kind: ConfigMap\napiVersion: v1\nmetadata: {name: w}\ndata:\n", "  k%d: a\n", "", n))
		add(fmt.Sprint("merge/lists/", n), "PATCH", configMaps("/a"), merge, fill(`{"data":[{}`, ",{}", `]}`, n))
		add(fmt.Sprint("merge/keys/", n), "PATCH", configMaps("/a"), merge, numbered(`{"data":{"a":"b"`, `,"k%d":""`, `}}`, n))
		add(fmt.Sprint("merge/nulls/", n), "PATCH", configMaps("/a"), merge, numbered(`{"data":{"a":"b"`, `,"k%d":null`, `}}`, n))
		add(fmt.Sprint("strategic/containers/", n), "PATCH", deployment, strategic, numbered(`{"spec":{"template":{"spec":{"containers":[{"name":"x"}`, `,{"name":"n%d"}`, `]}}}}`, n))
		add(fmt.Sprint("strategic/order/", n), "PATCH", deployment, strategic, numbered(`{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"x"}`, `,{"name":"n%d"}`, `]}}}}`, n))
		add(fmt.Sprint("strategic/both/", n), "PATCH", deployment, strategic,
			numbered(`{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"x"}`, `,{"name":"n%d"}`, `]`, n/2)+numbered(`,"containers":[{"name":"x"}`, `,{"name":"n%d"}`, `]}}}}`, min(n/2, 60_000)))
		add(fmt.Sprint("strategic/finalizers/", n), "PATCH", deployment, strategic, numbered(`{"metadata":{"finalizers":["x"`, `,"n%d"`, `]}}`, n))
		add(fmt.Sprint("strategic/delete primitives/", n), "PATCH", deployment, strategic, numbered(`{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"`, `,"n%d"`, `]}}`, n))
		add(fmt.Sprint("strategic/delete/", n), "PATCH", deployment, strategic, numbered(`{"spec":{"template":{"spec":{"containers":[{"name":"x"}`, `,{"$patch":"delete","name":"n%d"}`, `]}}}}`, n))
	}
	for _, n := range []int{10_001, 9_990} {
		add(fmt.Sprint("operations/add/", n), "PATCH", configMaps("/a"), operations, fill("[", `{"op":"add","path":"/data/x","value":"1"},`, `{"op":"remove","path":"/data/x"}]`, n))
		add(fmt.Sprint("operations/insert/", n), "PATCH", configMaps("/a"), operations, fill(`[{"op":"add","path":"/metadata/finalizers","value":["a"]}`, `,{"op":"add","path":"/metadata/finalizers/0","value":"1"}`, `]`, n))
		add(fmt.Sprint("operations/insert into much/", n), "PATCH", configMaps("/a"), operations,
			fill(`[{"op":"add","path":"/metadata/finalizers","value":["a"`, `,0`, `]}`, 20_000)+strings.Repeat(`,{"op":"add","path":"/metadata/finalizers/0","value":1}`, n-100)+"]")
		add(fmt.Sprint("operations/test much/", n), "PATCH", configMaps("/a"), operations,
			fill(`[{"op":"add","path":"/x","value":["a"`, `,0`, `]}`, 10_000)+strings.Repeat(`,{"op":"test","path":"/x","value":[1]}`, n-100)+"]")
		add(fmt.Sprint("operations/move/", n), "PATCH", configMaps("/a"), operations,
			fill(`[{"op":"add","path":"/x","value":["a"`, `,0`, `]}`, 20_000)+strings.Repeat(`,{"op":"move","from":"/x/0","path":"/x/-"}`, n-100)+"]")
		add(fmt.Sprint("operations/long path/", n), "PATCH", configMaps("/a"), operations, "["+strings.Repeat(`{"op":"test","path":"`+strings.Repeat("/a", 100)+`","value":1},`, n/2)+`{"op":"remove","path":"/x"}]`)
	}
	add("operations/doubling", "PATCH", configMaps("/a"), operations, doubling+"]")
	add("operations/copies", "PATCH", configMaps("/a"), operations, fill(`[{"op":"add","path":"/data/y","value":"`+strings.Repeat("x", 300)+`"}`, `,{"op":"copy","from":"/data/y","path":"/data/x"}`, `]`, 9_000))
	add("yaml/aliases", "POST", configMaps(""), yamlBody, laughs)
	add("yaml/aliases applied", "PATCH", configMaps("/a?fieldManager=m"), applyBody, laughs)
	add("yaml/aliases flat", "POST", configMaps(""), yamlBody, fill("a: &a ["+strings.Repeat("x,", 99)+"x]\nb: [", "*a,", "]", 3_950))
	add("yaml/aliases few", "POST", configMaps(""), yamlBody, fill("a: &a ["+strings.Repeat("x,", 2_000)+"x]\nb: [", "*a,", "]", 190))
	add("yaml/merges", "POST", configMaps(""), yamlBody, numbered("a: &a {"+strings.Repeat("x: y,", 1)+numbered("", "k%d: y,", "", 400)+"}\n", "m%d: {<<: *a}\n", "", 900))
	add("yaml/anchors", "POST", configMaps(""), yamlBody, numbered("", "- &a%d x\n", "", whole))
	add("delete/aliases", "DELETE", configMaps("/a"), yamlBody, laughs)
	add("delete/wide", "DELETE", configMaps("/a"), yamlBody, fill("{", "a,", "}", whole))
	for _, depth := range []int{whole, 9_000, 900} {
		add(fmt.Sprint("deep/yaml/", depth), "POST", configMaps(""), yamlBody, fill("", "[", "", depth))
		add(fmt.Sprint("deep/yaml objects applied/", depth), "PATCH", configMaps("/a?fieldManager=m"), applyBody, fill("", "{a: ", "", depth))
		add(fmt.Sprint("deep/yaml blocks/", depth), "POST", configMaps(""), yamlBody, fill("", "- ", "", depth))
		add(fmt.Sprint("deep/json/", depth), "POST", configMaps(""), jsonBody, fill(`{"data":`, `{"a":`, "", depth))
		add(fmt.Sprint("deep/json closed/", depth), "POST", configMaps(""), jsonBody, fill(`{"data":`, `{"a":`, "0", min(depth, bombBytes/6-8))+strings.Repeat("}", min(depth, bombBytes/6-8)+1))
		add(fmt.Sprint("deep/json lists/", depth), "POST", configMaps(""), jsonBody, fill(`{"data":`, `[`, "", depth))
		add(fmt.Sprint("deep/merge/", depth), "PATCH", configMaps("/a"), merge, fill("", `{"a":`, "", depth))
		add(fmt.Sprint("deep/merge closed/", depth), "PATCH", configMaps("/a"), merge, fill("", `{"a":`, "0", min(depth, bombBytes/6-8))+strings.Repeat("}", min(depth, bombBytes/6-8)))
		add(fmt.Sprint("deep/strategic closed/", depth), "PATCH", configMaps("/a"), strategic, fill("", `{"a":`, "0", min(depth, bombBytes/6-8))+strings.Repeat("}", min(depth, bombBytes/6-8)))
	}
	quantity := func(digits string) string {
		return strings.TrimSuffix(podHead, "}") + `,"resources":{"requests":{"cpu":"` + digits + `"}}}]}}`
	}
	add("text/digits of a quantity", "POST", pods, jsonBody, quantity(strings.Repeat("7", bombBytes-400)))
	add("text/fraction of a quantity", "POST", pods, jsonBody, quantity("0."+strings.Repeat("7", bombBytes-400)))
	add("text/exponent of a quantity", "POST", pods, jsonBody, quantity("1e999999999"))
	add("text/digits of a number", "POST", pods, jsonBody, podHead+`],"terminationGracePeriodSeconds":`+strings.Repeat("7", bombBytes-400)+"}}")
	add("text/digits in a merge patch", "PATCH", configMaps("/a"), merge, `{"data":`+strings.Repeat("7", bombBytes-400)+"}")
	add("text/digits in YAML", "POST", configMaps(""), yamlBody, `data: `+strings.Repeat("7", bombBytes-400))
	add("text/escapes", "POST", configMaps(""), jsonBody, fill(`{"metadata":{"name":"e"},"data":{"a":"`, `\u0041`, `"}}`, whole))
	add("text/name", "POST", configMaps(""), jsonBody, fill(`{"metadata":{"name":"`, `a`, `"}}`, whole))
	add("text/label", "POST", configMaps(""), jsonBody, fill(`{"metadata":{"name":"a","labels":{"a":"`, `a`, `"}}}`, whole))
	add("text/dots", "POST", configMaps(""), jsonBody, fill(`{"metadata":{"name":"a","generateName":"`, `a.`, `"}}`, whole))
	add("text/container", "POST", pods, jsonBody, fill(`{"metadata":{"name":"p"},"spec":{"containers":[{"name":"`, `a`, `"}]}}`, whole))
	add("text/image", "POST", pods, jsonBody, fill(`{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"`, `a `, `"}]}}`, whole))
	add("text/address", "POST", "/api/v1/namespaces/default/services", jsonBody, fill(`{"metadata":{"name":"p"},"spec":{"externalIPs":["`, `1.`, `"]}}`, whole))
	add("text/cron", "POST", "/apis/batch/v1/namespaces/default/cronjobs", jsonBody, fill(`{"metadata":{"name":"a"},"spec":{"schedule":"*`, ` *`, `"}}`, whole))
	add("text/cron list", "POST", "/apis/batch/v1/namespaces/default/cronjobs", jsonBody, fill(`{"metadata":{"name":"a"},"spec":{"schedule":"* * * * 1`, `,1`, `"}}`, whole))
	out = append(out, protoBombs(t, pods, proto)...)
	selector := func(name, param, head, piece string) {
		add("selector/"+name, "GET", configMaps("?%s=", param)+fill(head, piece, "", 900_000/len(piece)), "", "")
	}
	selector("labels", "labelSelector", "a", ",a")
	selector("label set", "labelSelector", "a+in+(a", ",a")
	selector("label parentheses", "labelSelector", "a+in+(", "(")
	selector("fields", "fieldSelector", "metadata.name=a", ",metadata.name=a")
	selector("field escapes", "fieldSelector", "metadata.name=", "%5c%5c")
	selector("continue", "continue", "", "eyJ2Ijoib")
	selector("version", "resourceVersion", "", "1")
	return out
}

// protoBombs are those in protobuf.
func protoBombs(t testing.TB, pods, proto string) (out []bomb) {
	envelope := func(kind string, raw []byte) string {
		unknown := k8sruntime.Unknown{TypeMeta: k8sruntime.TypeMeta{APIVersion: "v1", Kind: kind}, Raw: raw}
		body, err := unknown.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return "k8s\x00" + string(body)
	}
	field := func(number protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
	}
	meta, err := (&metav1.ObjectMeta{Name: "p"}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := (&corev1.Container{Name: "a"}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{39_000, 24_000, 9_900, 490} {
		repeat := func(piece []byte) []byte { return bytes.Repeat(piece, min(n, (bombBytes-200)/len(piece))) }
		add := func(name, path, kind string, raw ...[]byte) {
			out = append(out, bomb{fmt.Sprint("proto/", name, "/", n), "POST", path, proto, envelope(kind, append(field(1, meta), bytes.Join(raw, nil)...))})
		}
		add("containers", pods, "Pod", field(2, repeat(field(2, nil))))
		add("full containers", pods, "Pod", field(2, repeat(field(2, entry))))
		add("env", pods, "Pod", field(2, field(2, repeat(field(7, nil)))))
		add("data", configMaps(""), "ConfigMap", repeat(field(2, field(1, []byte("a")))))
		add("unknown numbers", configMaps(""), "ConfigMap", repeat([]byte{15 << 3, 1}))
		add("unknown groups", configMaps(""), "ConfigMap", repeat([]byte{15<<3 | 3}))
		add("owners", configMaps(""), "ConfigMap", field(1, repeat(field(13, nil))))
		add("finalizers", configMaps(""), "ConfigMap", field(1, repeat(field(14, nil))))
		deep := []byte{}
		for range min(n, 3_000) {
			deep = field(5, deep)
		}
		add("deep", configMaps(""), "ConfigMap", deep)
	}
	return out
}

// processorTime is the processor time that the process has used.
func processorTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// plant makes the objects that bombs are thrown at.
func plant(t testing.TB, s *server) {
	for _, path := range []string{configMaps("/a"), configMaps("/w"), "/api/v1/namespaces/default/pods/p", "/api/v1/namespaces/default/pods/w", "/apis/apps/v1/namespaces/default/deployments/a"} {
		s.do(t, "PATCH", path, `{"metadata":{"finalizers":null}}`, contentType("application/merge-patch+json"))
		s.do(t, "DELETE", path, "")
	}
	s.makeConfigMap(t, configMap("a", "a", "b"))
	s.must(t, http.StatusCreated, "POST", "/apis/apps/v1/namespaces/default/deployments", `{"metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"x","image":"i"}]}}}}`)
}

// bombMemory bounds what a request may allocate, all together: the promise is
// 64 MiB at a time.
const bombMemory = 96 << 20

// TestBombs: nothing that a body can hold costs much memory, or the server its
// health. BenchmarkBombs shows the time, which decides nothing here.
func TestBombs(t *testing.T) {
	s := newServer(t)
	for _, b := range bombs(t) {
		plant(t, s)
		before, after := runtime.MemStats{}, runtime.MemStats{}
		runtime.ReadMemStats(&before)
		a := s.do(t, b.method, b.path, b.body, contentType(b.content))
		runtime.ReadMemStats(&after)
		if made := after.TotalAlloc - before.TotalAlloc; made > bombMemory {
			t.Errorf("%s: %d MiB were allocated", b.name, made>>20)
		}
		if a.code >= http.StatusInternalServerError {
			t.Errorf("%s: answered %d: %.300s", b.name, a.code, a.body)
		}
		if a.code >= http.StatusBadRequest {
			a.status(t)
		}
	}
}

// BenchmarkBombs measures processor time and memory of each bomb.
func BenchmarkBombs(b *testing.B) {
	s := &server{Cluster: testcluster.Start(b)}
	s.http = s.Admin().Transport
	for _, bomb := range bombs(b) {
		b.Run(bomb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bomb.body)))
			var used time.Duration
			code := 0
			for b.Loop() {
				b.StopTimer()
				plant(b, s)
				before := processorTime(b)
				b.StartTimer()
				code = s.do(b, bomb.method, bomb.path, bomb.body, contentType(bomb.content)).code
				used += processorTime(b) - before
			}
			b.ReportMetric(float64(used.Microseconds())/1e3/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(code), "code")
		})
	}
}
