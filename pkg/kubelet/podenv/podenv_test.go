package podenv

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func ptr[T any](v T) *T { return &v }

func testPod(mutate ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-0", Namespace: "shop", UID: "uid-1",
			Labels:      map[string]string{"app": "web"},
			Annotations: map[string]string{"note": `say "hi"`, "b": "2"},
		},
		Spec: corev1.PodSpec{
			NodeName: "node-a", ServiceAccountName: "robot",
			Containers: []corev1.Container{{Name: "app"}},
		},
	}
	for _, m := range mutate {
		m(pod)
	}
	return pod
}

func lines(env []*runtimeapi.KeyValue) []string {
	var out []string
	for _, kv := range env {
		out = append(out, kv.Key+"="+string(kv.Value))
	}
	return out
}

func keyFrom(cm, secret string, key string, optional *bool) *corev1.EnvVarSource {
	if cm != "" {
		return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: cm}, Key: key, Optional: optional}}
	}
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: key, Optional: optional}}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func TestEnvironment(t *testing.T) {
	configMaps := map[string]*corev1.ConfigMap{"cm": {Data: map[string]string{"B": "cm-b", "A": "cm-a"}}}
	secrets := map[string]*corev1.Secret{"sec": {Data: map[string][]byte{"PASS": []byte("s3cret")}}}
	cmRef := corev1.LocalObjectReference{Name: "cm"}
	gone := corev1.LocalObjectReference{Name: "gone"}
	tests := []struct {
		name    string
		from    []corev1.EnvFromSource
		env     []corev1.EnvVar
		want    []string
		wantErr string
	}{
		{
			name: "literals expand earlier variables only",
			env: []corev1.EnvVar{
				{Name: "A", Value: "a"}, {Name: "B", Value: "$(A);;$(C)"}, {Name: "C", Value: "$$(A) $(A"},
			},
			want: []string{"A=a", "B=a;;$(C)", "C=$(A) $(A"},
		},
		{
			name: "env wins over envFrom and keeps its place",
			from: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: cmRef}}},
			env:  []corev1.EnvVar{{Name: "A", Value: "own"}, {Name: "C", Value: "$(A)$(B)"}},
			want: []string{"A=own", "B=cm-b", "C=owncm-b"},
		},
		{
			name: "prefix, and a later source wins",
			from: []corev1.EnvFromSource{
				{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: cmRef}},
				{Prefix: "P_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}},
			},
			want: []string{"P_A=cm-a", "P_B=cm-b", "P_PASS=s3cret"},
		},
		{
			name:    "missing envFrom",
			from:    []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: gone}}},
			wantErr: `secret "gone" not found`,
		},
		{
			name: "missing but optional",
			from: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: gone, Optional: ptr(true)}}},
			env: []corev1.EnvVar{
				{Name: "X", ValueFrom: keyFrom("gone", "", "k", ptr(true))},
				{Name: "Y", ValueFrom: keyFrom("", "sec", "nokey", ptr(true))},
				{Name: "Z", ValueFrom: keyFrom("", "sec", "PASS", nil)},
			},
			want: []string{"Z=s3cret"},
		},
		{
			name:    "missing key",
			env:     []corev1.EnvVar{{Name: "X", ValueFrom: keyFrom("cm", "", "nokey", nil)}},
			wantErr: "environment variable X: couldn't find key nokey in configmap shop/cm",
		},
		{
			name: "fields",
			env: []corev1.EnvVar{
				{Name: "NAME", ValueFrom: field("metadata.name")}, {Name: "NS", ValueFrom: field("metadata.namespace")},
				{Name: "UID", ValueFrom: field("metadata.uid")}, {Name: "LABEL", ValueFrom: field("metadata.labels['app']")},
				{Name: "NOTE", ValueFrom: field("metadata.annotations['note']")}, {Name: "NODE", ValueFrom: field("spec.nodeName")},
				{Name: "SA", ValueFrom: field("spec.serviceAccountName")}, {Name: "IP", ValueFrom: field("status.podIP")},
				{Name: "IPS", ValueFrom: field("status.podIPs")}, {Name: "HOST", ValueFrom: field("status.hostIP")},
				{Name: "HOSTS", ValueFrom: field("status.hostIPs")},
			},
			want: []string{"NAME=web-0", "NS=shop", "UID=uid-1", "LABEL=web", `NOTE=say "hi"`, "NODE=node-a", "SA=robot",
				"IP=10.0.0.1", "IPS=10.0.0.1,fd00::1", "HOST=192.168.0.1", "HOSTS=192.168.0.1"},
		},
		{
			name:    "unknown field",
			env:     []corev1.EnvVar{{Name: "X", ValueFrom: field("spec.hostname")}},
			wantErr: `environment variable X: field "spec.hostname" is not one that a pod can be told`,
		},
		{
			name: "file",
			env: []corev1.EnvVar{
				{Name: "F", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "v", Path: "env", Key: "K"}}},
				{Name: "G", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "v", Path: "none", Key: "K", Optional: ptr(true)}}},
			},
			want: []string{"F=from file"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Environment(Input{
				Pod: testPod(), Container: &corev1.Container{Name: "app", EnvFrom: tt.from, Env: tt.env},
				ConfigMaps: configMaps, Secrets: secrets,
				PodIPs: []string{"10.0.0.1", "fd00::1"}, HostIPs: []string{"192.168.0.1"},
				EnvFile: func(_, path string) ([]byte, error) {
					if path != "env" {
						return nil, fs.ErrNotExist
					}
					return []byte("K='from file'\n"), nil
				},
			})
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, lines(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResources(t *testing.T) {
	c := &corev1.Container{Name: "app", Resources: corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("1250m"), "memory": resource.MustParse("64Mi")},
		Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("32Mi")},
	}}
	bare := &corev1.Container{Name: "bare"}
	allocatable := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi")}
	tests := []struct {
		c              *corev1.Container
		name, divisor  string
		want, fragment string
	}{
		{c, "limits.cpu", "0", "2", ""},
		{c, "limits.cpu", "1m", "1250", ""},
		{c, "requests.cpu", "1", "1", ""},
		{c, "requests.cpu", "1m", "250", ""},
		{c, "limits.memory", "1Mi", "64", ""},
		{c, "limits.memory", "", "67108864", ""},
		{c, "requests.memory", "1Gi", "1", ""},
		{bare, "limits.cpu", "1", "4", ""},
		{bare, "limits.memory", "1Mi", "8192", ""},
		{bare, "requests.cpu", "1", "0", ""},
		{bare, "limits.ephemeral-storage", "1", "0", ""},
		{bare, "limits.pods", "1", "", "not one that a container can be told"},
		{bare, "share.cpu", "1", "", "neither a limit nor a request"},
	}
	for _, tt := range tests {
		ref := &corev1.ResourceFieldSelector{Resource: tt.name}
		if tt.divisor != "" {
			ref.Divisor = resource.MustParse(tt.divisor)
		}
		got, err := ContainerResource(testPod(), tt.c, ref, allocatable)
		if tt.fragment != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fragment) {
				t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.fragment)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%s of %s by %q = %q, %v; want %q", tt.name, tt.c.Name, tt.divisor, got, err, tt.want)
		}
	}
}

func TestServiceVariables(t *testing.T) {
	svc := func(namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	}
	services := []*corev1.Service{
		svc("shop", "foo-service", "10.96.1.1", corev1.ServicePort{Port: 8765}, corev1.ServicePort{Name: "dns-udp", Port: 53, Protocol: corev1.ProtocolUDP}),
		svc("shop", "headless", "None", corev1.ServicePort{Port: 1}),
		svc("other", "elsewhere", "10.96.1.2", corev1.ServicePort{Port: 1}),
		svc("default", "kubernetes", "10.96.0.1", corev1.ServicePort{Name: "https", Port: 443}),
		svc("default", "unrelated", "10.96.1.3", corev1.ServicePort{Port: 1}),
	}
	kubernetes := []string{
		"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443",
		"KUBERNETES_PORT=tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
		"KUBERNETES_PORT_443_TCP_PROTO=tcp", "KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
	}
	foo := []string{
		"FOO_SERVICE_SERVICE_HOST=10.96.1.1", "FOO_SERVICE_SERVICE_PORT=8765", "FOO_SERVICE_SERVICE_PORT_DNS_UDP=53",
		"FOO_SERVICE_PORT=tcp://10.96.1.1:8765", "FOO_SERVICE_PORT_8765_TCP=tcp://10.96.1.1:8765",
		"FOO_SERVICE_PORT_8765_TCP_PROTO=tcp", "FOO_SERVICE_PORT_8765_TCP_PORT=8765", "FOO_SERVICE_PORT_8765_TCP_ADDR=10.96.1.1",
		"FOO_SERVICE_PORT_53_UDP=udp://10.96.1.1:53", "FOO_SERVICE_PORT_53_UDP_PROTO=udp",
		"FOO_SERVICE_PORT_53_UDP_PORT=53", "FOO_SERVICE_PORT_53_UDP_ADDR=10.96.1.1",
	}
	own := "OWN=$(NOPE) 10.96.1.1"
	container := &corev1.Container{Env: []corev1.EnvVar{{Name: "OWN", Value: "$(NOPE) $(FOO_SERVICE_SERVICE_HOST)"}}}
	for _, links := range []*bool{nil, ptr(true), ptr(false)} {
		pod := testPod(func(p *corev1.Pod) { p.Spec.EnableServiceLinks = links })
		got, err := Environment(Input{Pod: pod, Container: container, Services: services})
		if err != nil {
			t.Fatal(err)
		}
		want := append([]string{own}, append(append([]string{}, foo...), kubernetes...)...)
		if links != nil && !*links {
			want = append([]string{"OWN=$(NOPE) $(FOO_SERVICE_SERVICE_HOST)"}, kubernetes...)
		}
		if diff := cmp.Diff(want, lines(got)); diff != "" {
			t.Error(diff)
		}
	}
	shadow := append([]*corev1.Service{svc("shop", "kubernetes", "10.96.9.9", corev1.ServicePort{Port: 1})}, services...)
	got, err := Environment(Input{Pod: testPod(), Container: &corev1.Container{}, Services: shadow})
	if err != nil {
		t.Fatal(err)
	}
	if v := asMap(got)["KUBERNETES_SERVICE_HOST"]; v != "10.96.9.9" {
		t.Errorf("a Service of the pod's namespace must win over default/kubernetes, got %q", v)
	}
}

func TestReferences(t *testing.T) {
	pod := testPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: keyFrom("c2", "", "k", nil)}, {Name: "B", Value: "x"}}
		p.Spec.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c1"}}}}}}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Env: []corev1.EnvVar{{Name: "A", ValueFrom: keyFrom("", "s1", "k", nil)}}}}}
	})
	cms, secrets := References(pod)
	if diff := cmp.Diff([]string{"c1", "c2"}, cms); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"s1"}, secrets); diff != "" {
		t.Error(diff)
	}
}
