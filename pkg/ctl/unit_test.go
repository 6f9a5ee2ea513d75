package ctl

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/image"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 漢 \t\n": "plain ü 漢 \t\n",
		"\x1b[31mred":    "^[[31mred",
		"a\rb\ac":        "a^Mb^Gc",
		"del\x7f":        `del\x7f`,
		"c1\u009b31m":    `c1\x9b31m`,
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzEscape proves that nothing that drives a terminal is left, and that
// escaping twice is escaping once.
func FuzzEscape(f *testing.F) {
	f.Add("a\x1b]0;title\a\xff\u009d")
	f.Fuzz(func(t *testing.T, in string) {
		out := escape(in)
		for _, r := range out {
			if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q is left in %q", r, out)
			}
		}
		if again := escape(out); again != out {
			t.Errorf("escaped twice: %q, once: %q", again, out)
		}
	})
}

func TestEscaperCountsWhatItTook(t *testing.T) {
	var b bytes.Buffer
	n, err := escaper{&b}.Write([]byte("a\x1bb"))
	if n != 3 || err != nil || b.String() != "a^[b" {
		t.Errorf("wrote %d, %v, %q", n, err, b.String())
	}
}

func TestNearest(t *testing.T) {
	names := []string{"pods", "po", "services", "svc", "deployments", "deploy"}
	for word, want := range map[string]string{
		"podz": "pods", "Pods": "pods", "serivces": "services", "depoly": "deploy", "deploymets": "deployments", "xylophone": "", "": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestCompareOrdersByMeaning(t *testing.T) {
	for _, tt := range [][]any{
		{nil, int64(2), int64(10), float64(10.5)},
		{nil, "100m", "1", "2Gi", "10Gi"},
		{"2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
		{"alpha", "beta"},
	} {
		shuffled := slices.Clone(tt)
		slices.Reverse(shuffled)
		slices.SortStableFunc(shuffled, compare)
		if diff := cmp.Diff(tt, shuffled); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	}
}

func TestContainerName(t *testing.T) {
	for image, want := range map[string]string{
		"nginx": "nginx", "reg.example:5000/a/Big_App:1.2": "big-app", "x@sha256:abc": "x",
	} {
		if got := containerName(image); got != want {
			t.Errorf("containerName(%q) = %q, want %q", image, got, want)
		}
	}
}

func TestServicePort(t *testing.T) {
	p, err := servicePort("80:http")
	if err != nil || p.Port != 80 || p.TargetPort != intstr.FromString("http") || p.Name != "80-http" {
		t.Errorf("80:http is %+v, %v", p, err)
	}
	for _, bad := range []string{"", "0", "x", "70000", ":80"} {
		if _, err := servicePort(bad); err == nil {
			t.Errorf("servicePort(%q) gives no error", bad)
		}
	}
}

func TestRemotePortOfServices(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}}}
	svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []corev1.ServicePort{
		{Name: "web", Port: 80, TargetPort: intstr.FromString("http")}, {Name: "raw", Port: 9, TargetPort: intstr.FromInt32(99)}}}}
	for name, want := range map[string]int32{"80": 8080, "web": 8080, "9": 99} {
		if got, err := remotePort(name, svc, pod); err != nil || got != want {
			t.Errorf("port %s of the service is %d, %v, want %d", name, got, err, want)
		}
	}
	svc.Spec.ClusterIP = corev1.ClusterIPNone
	if got, err := remotePort("80", svc, pod); err != nil || got != 80 {
		t.Errorf("a headless service's port is %d, %v; its clients use the port itself", got, err)
	}
	if got, err := remotePort("http", nil, pod); err != nil || got != 8080 {
		t.Errorf("the named port is %d, %v", got, err)
	}
	if _, err := remotePort("0", nil, pod); err == nil {
		t.Error("port 0 gives no error")
	}
}

func TestSplitPairs(t *testing.T) {
	objects, values, err := splitPairs([]string{"pod", "web-0", "a=b", "c-"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"pod", "web-0"}, objects); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"a": "b", "c": nil}, values); diff != "" {
		t.Error(diff)
	}
	if _, _, err := splitPairs([]string{"pod", "a=b", "web-0"}); err == nil {
		t.Error("an object after a pair gives no error")
	}
}

func TestFlattenKeepsSentencesWhole(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	if got := flatten(errors.Join(a, errors.Join(b, nil))); len(got) != 2 {
		t.Errorf("joined errors flatten to %v", got)
	}
	tl := &tool{}
	if got := tl.explain(errors.Join(a, b, a)); got != "a\nError: b" {
		t.Errorf("explained as %q", got)
	}
}

func TestWrap(t *testing.T) {
	text := wrap(strings.Repeat("word ", 40)+"\nnext", "  ")
	for _, line := range strings.Split(text, "\n") {
		if len(line) > textWidth || !strings.HasPrefix(line, "  ") {
			t.Errorf("line %q", line)
		}
	}
	if !strings.HasSuffix(text, "\n  next") {
		t.Errorf("the line end in the text is lost: %q", text)
	}
}

func TestByteSize(t *testing.T) {
	for n, want := range map[int64]string{0: "-", 2335: "2.3 KiB", 2128715: "2.0 MiB"} {
		if got := byteSize(n); got != want {
			t.Errorf("byteSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestImageRowsCountNodes(t *testing.T) {
	// The same reference with two digests is two images.
	rows := imageRows(map[string][]image.Info{
		"n1": {{Ref: "a", Digest: "1"}, {Ref: "b", Digest: "1"}},
		"n2": {{Ref: "a", Digest: "1"}, {Ref: "b", Digest: "2"}},
	})
	var got []int
	for _, r := range rows {
		got = append(got, r.nodes)
	}
	if diff := cmp.Diff([]int{2, 1, 1}, got); diff != "" {
		t.Errorf("nodes by image (-want +got):\n%s", diff)
	}
}
