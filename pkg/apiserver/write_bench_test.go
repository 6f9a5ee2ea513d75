package apiserver_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/testcluster"
)

// writeKit sends writes to the handler of a control plane, as a user whom RBAC
// lets do pods: all that a request costs but the socket and the store's disk.
type writeKit struct {
	*testcluster.Cluster
	handler http.Handler
	state   *tls.ConnectionState
}

func newWriteKit(b *testing.B) *writeKit {
	b.Helper()
	now := time.Now()
	ca, err := pki.NewCA("bench", time.Hour, now, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "bench", ClientAuth: true}, now, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	block, _ := pem.Decode(pair.CertPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		b.Fatal(err)
	}
	pool := &pki.LivePool{}
	if err := pool.Set(ca.CertPEM()); err != nil {
		b.Fatal(err)
	}
	c := testcluster.Start(b, testcluster.WithConfig(func(cfg *controlplane.Config) {
		cfg.Identity = &controlplane.Identity{Clients: pool}
	}))
	rules := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps", "pods"}, Verbs: []string{"*"}}}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "bench"}, Rules: rules}
	if _, err := c.Client.RbacV1().ClusterRoles().Create(b.Context(), role, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Client.RbacV1().ClusterRoleBindings().Create(b.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "bench"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "bench"}},
	}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	k := &writeKit{Cluster: c, handler: c.Handler(), state: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
	until(b, "RBAC knows the user", func() bool { return k.try(b, "GET", "/api/v1/pods", jsonMedia, nil).code == http.StatusOK })
	return k
}

// until waits for what comes soon.
func until(b *testing.B, what string, ok func() bool) {
	b.Helper()
	if err := wait.PollUntilContextTimeout(b.Context(), time.Millisecond, patience, true, func(context.Context) (bool, error) { return ok(), nil }); err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

// sink takes an answer and keeps nothing of it but the status.
type sink struct {
	header http.Header
	code   int
	fault  []byte // of an answer that is none of the good ones
}

func (s *sink) Header() http.Header  { return s.header }
func (s *sink) WriteHeader(code int) { s.code = code }
func (s *sink) Write(p []byte) (int, error) {
	if s.code >= 300 {
		s.fault = append(s.fault, p...)
	}
	return len(p), nil
}

// try makes one request; as over HTTP/2, each has a goroutine of its own.
func (k *writeKit) try(b *testing.B, method, path, contentType string, body []byte) *sink {
	r := &http.Request{
		Method: method, URL: &url.URL{Path: path}, Proto: "HTTP/2.0", ProtoMajor: 2, Host: "127.0.0.1", TLS: k.state,
		Header: http.Header{"Accept": {jsonMedia}, "Content-Type": {contentType}, "User-Agent": {"bench"}},
		Body:   io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), RemoteAddr: "127.0.0.1:1",
	}
	w := &sink{header: http.Header{}, code: http.StatusOK}
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.handler.ServeHTTP(w, r.WithContext(b.Context()))
	}()
	<-done
	return w
}

// send makes a request that must be served.
func (k *writeKit) send(b *testing.B, method, path, contentType string, body []byte) {
	if w := k.try(b, method, path, contentType, body); w.code >= 300 {
		b.Fatalf("%s %s: %d %s", method, path, w.code, w.fault)
	}
}

// benchPod is the pod of the comparison in hack/bench, 4.6 KB as stored.
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
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"default",`+
		`"labels":{"app":"bench","tier":"backend"},"annotations":{"bench.coracle.dev/note":%q}},`+
		`"spec":{"containers":[%s,%s],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"serviceAccountName":"default",`+
		`"securityContext":{"runAsUser":1000},`+
		`"tolerations":[{"key":"dedicated","operator":"Equal","value":"bench","effect":"NoSchedule"}],`+
		`"volumes":[{"name":"config","configMap":{"name":"server"}},{"name":"scratch","emptyDir":{}}]}}`,
		name, strings.Repeat("all that is gold does not glitter ", 15), container("server", 8080, probes), container("sidecar", 9090, ""))
}

// BenchmarkWritePod measures what the server does for a write of a pod of
// 4.6 KB, with authentication, RBAC and admission, over the store in memory.
func BenchmarkWritePod(b *testing.B) {
	const path, many = "/api/v1/namespaces/default/pods", 512
	create := func(b *testing.B, k *writeKit, i int) {
		k.send(b, "POST", path, jsonMedia, benchPod(fmt.Sprint("w", i)))
	}
	for _, step := range []struct {
		name  string
		there int // objects before it begins; 0 for one of each turn
		do    func(b *testing.B, k *writeKit, i int)
	}{
		{"Create", 1, func(b *testing.B, k *writeKit, i int) { create(b, k, i+1) }},
		{"Patch", many, func(b *testing.B, k *writeKit, i int) {
			k.send(b, "PATCH", fmt.Sprint(path, "/w", i%many), "application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"labels":{"tier":"t%d"}}}`, i))
		}},
		{"Delete", 0, func(b *testing.B, k *writeKit, i int) { k.send(b, "DELETE", fmt.Sprint(path, "/w", i), jsonMedia, nil) }},
	} {
		b.Run(step.name, func(b *testing.B) {
			k := newWriteKit(b)
			there := step.there
			if there == 0 {
				there = b.N
			}
			for i := range there {
				create(b, k, i)
			}
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime(b)
			for i := range b.N {
				step.do(b, k, i)
			}
			b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
		})
	}
}
