package csi

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/kubelet/plugins"
)

func ptr[T any](v T) *T { return &v }

func TestNodePatch(t *testing.T) {
	zone := map[string]string{"topology.x/zone": "a"}
	for _, tt := range []struct {
		name, ids string
		labels    map[string]string
		wanted    map[string]*Info
		want      string // "null" for no patch
		err       bool
	}{
		{"first", "", nil, map[string]*Info{"x": {NodeID: "n", Topology: zone}},
			`{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"{\"x\":\"n\"}"},"labels":{"topology.x/zone":"a"}}}`, false},
		{"known", `{"x":"n"}`, zone, map[string]*Info{"x": {NodeID: "n", Topology: zone}}, `null`, false},
		{"others stay", `{"y":"m"}`, nil, map[string]*Info{"x": {NodeID: "n"}},
			`{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"{\"x\":\"n\",\"y\":\"m\"}"}}}`, false},
		{"gone", `{"x":"n","y":"m"}`, zone, map[string]*Info{"x": nil},
			`{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"{\"y\":\"m\"}"}}}`, false},
		{"the last gone", `{"x":"n"}`, zone, map[string]*Info{"x": nil},
			`{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":null}}}`, false},
		{"never there", "", nil, map[string]*Info{"x": nil}, `null`, false},
		{"garbage", "{", nil, map[string]*Info{"x": {NodeID: "n"}},
			`{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"{\"x\":\"n\"}"}}}`, false},
		{"collision", "", map[string]string{"topology.x/zone": "b"}, map[string]*Info{"x": {NodeID: "n", Topology: zone}}, "", true},
		{"collision of two", "", nil, map[string]*Info{"x": {NodeID: "n", Topology: zone}, "y": {NodeID: "n", Topology: map[string]string{"topology.x/zone": "b"}}}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: tt.labels}}
			if tt.ids != "" {
				node.Annotations = map[string]string{annotationNodeIDs: tt.ids}
			}
			patch, err := nodePatch(node, tt.wanted)
			if (err != nil) != tt.err {
				t.Fatal(err)
			}
			if tt.err {
				return
			}
			data, err := json.Marshal(patch)
			if err != nil || string(data) != tt.want {
				t.Errorf("%s, %v; want %s", data, err, tt.want)
			}
		})
	}
}

func TestNextDrivers(t *testing.T) {
	entry := func(name, id string, count *int32, keys ...string) storagev1.CSINodeDriver {
		d := storagev1.CSINodeDriver{Name: name, NodeID: id, TopologyKeys: keys}
		if count != nil {
			d.Allocatable = &storagev1.VolumeNodeResources{Count: count}
		}
		return d
	}
	x := &Info{NodeID: "n", MaxVolumes: 7, Topology: map[string]string{"b": "1", "a": "2"}}
	for _, tt := range []struct {
		name   string
		have   []storagev1.CSINodeDriver
		wanted map[string]*Info
		want   []storagev1.CSINodeDriver
		same   bool
	}{
		{"new", nil, map[string]*Info{"x": x}, []storagev1.CSINodeDriver{entry("x", "n", ptr(int32(7)), "a", "b")}, false},
		{"known", []storagev1.CSINodeDriver{entry("x", "n", ptr(int32(7)), "b", "a")}, map[string]*Info{"x": x},
			[]storagev1.CSINodeDriver{entry("x", "n", ptr(int32(7)), "b", "a")}, true},
		{"limit changes", []storagev1.CSINodeDriver{entry("x", "n", nil, "a", "b"), entry("y", "m", nil)}, map[string]*Info{"x": x},
			[]storagev1.CSINodeDriver{entry("x", "n", ptr(int32(7)), "a", "b"), entry("y", "m", nil)}, false},
		{"another id leaves first", []storagev1.CSINodeDriver{entry("x", "old", nil)}, map[string]*Info{"x": x}, []storagev1.CSINodeDriver{}, false},
		{"gone", []storagev1.CSINodeDriver{entry("x", "n", nil), entry("y", "m", nil)}, map[string]*Info{"x": nil},
			[]storagev1.CSINodeDriver{entry("y", "m", nil)}, false},
		{"not there anyway", []storagev1.CSINodeDriver{entry("y", "m", nil)}, map[string]*Info{"x": nil}, []storagev1.CSINodeDriver{entry("y", "m", nil)}, true},
		{"unbounded limit", nil, map[string]*Info{"x": {NodeID: "n", MaxVolumes: 1 << 40}}, []storagev1.CSINodeDriver{entry("x", "n", ptr(int32(1<<31-1)))}, false},
	} {
		next, same := nextDrivers(tt.have, tt.wanted)
		if diff := cmp.Diff(tt.want, next); diff != "" || same != tt.same {
			t.Errorf("%s: same %v, -want +got:\n%s", tt.name, same, diff)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		p  plugins.Plugin
		ok bool
	}{
		{plugins.Plugin{Name: "hostpath.csi.k8s.io", Endpoint: "/csi/csi.sock", Versions: []string{"1.0.0"}}, true},
		{plugins.Plugin{Name: "Upper.Example", Endpoint: "/csi/csi.sock", Versions: []string{"0.3.0", "1.9.0"}}, true},
		{plugins.Plugin{Name: "x", Endpoint: "/s", Versions: nil}, false},
		{plugins.Plugin{Name: "x", Endpoint: "/s", Versions: []string{"0.3.0", "2.0.0", "odd"}}, false},
		{plugins.Plugin{Name: "../x", Endpoint: "/s", Versions: []string{"1.0.0"}}, false},
		{plugins.Plugin{Name: "", Endpoint: "/s", Versions: []string{"1.0.0"}}, false},
		{plugins.Plugin{Name: "x", Endpoint: "relative", Versions: []string{"1.0.0"}}, false},
	} {
		if err := check(tt.p); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.p, err)
		}
	}
}
