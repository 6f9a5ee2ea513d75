package controlplane_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	authorizationv1 "k8s.io/api/authorization/v1"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/auth"
	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// serve runs a control plane on a port of the loopback until the test ends and
// returns the administrator's client configuration.
func serve(t *testing.T, dir string, change func(*controlplane.ServeOptions)) *rest.Config {
	t.Helper()
	opts := controlplane.ServeOptions{
		Config:  controlplane.Config{Backend: memory.New(memory.Config{}), SoleWriter: true},
		DataDir: dir, BindAddress: "127.0.0.1",
	}
	if change != nil {
		change(&opts)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- controlplane.Serve(ctx, opts) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	var config *rest.Config
	within(t, "the kubeconfig is there", func() (err error) {
		config, err = clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "admin.kubeconfig"))
		return err
	})
	config.QPS = -1
	// Whether a stranger may see health is a role, which has to be there first.
	within(t, "the server is ready", func() error {
		_, err := kubernetes.NewForConfigOrDie(config).Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			_, err = kubernetes.NewForConfigOrDie(config).Discovery().ServerVersion()
		}
		return err
	})
	return config
}

// ask sends a request without a body and returns the answer's code and header.
func ask(t *testing.T, c *rest.Config, method, path string, headers ...string) (int, http.Header) {
	t.Helper()
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, c.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header
}

// variables of a path that the server's root names.
var variables = regexp.MustCompile(`\{[^}]*\}`)

// everyPath are the paths that a server says it has, and those that it does not
// tell of.
func everyPath(t *testing.T, admin *rest.Config) []string {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(admin)
	var root struct{ Paths []string }
	data, err := client.Discovery().RESTClient().Get().AbsPath("/").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	decode(t, data, &root)
	if len(root.Paths) < 20 {
		t.Fatalf("the server tells of %v only", root.Paths)
	}
	doc, err := client.Discovery().RESTClient().Get().AbsPath("/openapi/v2").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var described struct{ Paths map[string]any }
	decode(t, doc, &described)
	if len(described.Paths) < 300 {
		t.Fatalf("%d paths are described", len(described.Paths))
	}
	out := append(root.Paths, "/", "/openapi", "/debug/pprof", "/debug/pprof/heap", "/logs/", "/metrics/slis", "/configz", "/flagz", "/statusz", "/nothing",
		"/api/v1/namespaces/kube-public/configmaps/cluster-info", "/livez/../metrics", "/livez/etcd", "//livez/../api")
	for path := range described.Paths {
		out = append(out, variables.ReplaceAllString(path, "a"))
	}
	return out
}

// TestAnonymous: who shows no credentials gets 401 on a hardened cluster and 403
// by default, on every path and by every verb, but for health and version.
func TestAnonymous(t *testing.T) {
	for _, c := range []struct {
		name     string
		hardened bool
		refused  int
		open     []string
	}{
		{"default", false, 403, []string{"/livez", "/readyz", "/healthz", "/version", "/version/"}},
		{"hardened", true, 401, []string{"/livez", "/readyz", "/version"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			admin := serve(t, t.TempDir(), func(o *controlplane.ServeOptions) { o.Hardened = c.hardened })
			stranger := rest.AnonymousClientConfig(admin)
			for _, path := range c.open {
				if code, _ := ask(t, stranger, "GET", path); code != 200 {
					t.Errorf("GET %s: %d", path, code)
				}
			}
			for i, path := range everyPath(t, admin) {
				if strings.HasSuffix(path, "z") && path != "/configz" && path != "/flagz" && path != "/statusz" || strings.HasPrefix(path, "/version") {
					continue // among the above
				}
				methods := []string{"GET"}
				if i%5 == 0 {
					methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
				}
				for _, method := range methods {
					if code, _ := ask(t, stranger, method, path); code != c.refused {
						t.Errorf("%s %s: %d, want %d", method, path, code, c.refused)
					}
				}
			}
		})
	}
}

// hardenedCluster is one in memory; its administrator is a user, not a group.
func hardenedCluster(t *testing.T, change func(*controlplane.Config)) (*testcluster.Cluster, kubernetes.Interface) {
	t.Helper()
	c := testcluster.Start(t, testcluster.WithConfig(func(cfg *controlplane.Config) {
		cfg.Hardened = true
		if change != nil {
			change(cfg)
		}
	}))
	return c, kubernetes.NewForConfigOrDie(c.As(auth.UserAdmin))
}

// TestHardenedMasters: the group that is above RBAC elsewhere is not here,
// neither in a certificate nor by impersonation, and cluster-admin is one
// user's.
func TestHardenedMasters(t *testing.T) {
	dir := t.TempDir()
	admin := serve(t, dir, func(o *controlplane.ServeOptions) { o.Hardened = true })
	client := kubernetes.NewForConfigOrDie(admin)
	if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the administrator: %v", err)
	}
	bound, err := client.RbacV1().ClusterRoleBindings().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bound.Items {
		if b.RoleRef.Name == "cluster-admin" && (len(b.Subjects) != 1 || b.Subjects[0].Kind != rbacv1.UserKind || b.Subjects[0].Name != auth.UserAdmin) {
			t.Errorf("%s binds cluster-admin to %+v", b.Name, b.Subjects)
		}
	}
	pair := issued(t, dir, pki.Request{CommonName: "old-admin", Organization: []string{auth.GroupMasters}, ClientAuth: true})
	old := rest.AnonymousClientConfig(admin)
	old.CertData, old.KeyData, old.QPS = pair.CertPEM, pair.KeyPEM, -1
	if _, err := kubernetes.NewForConfigOrDie(old).CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a certificate of system:masters: %v", err)
	}
	inMemory := testcluster.Start(t, testcluster.WithConfig(func(c *controlplane.Config) { c.Hardened = true }))
	if _, err := inMemory.Client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a member of system:masters: %v", err)
	}
}

// TestHardenedPods: what the standards and the defaults make of pods, and that
// the cluster's own namespace is left alone.
func TestHardenedPods(t *testing.T) {
	_, admin := hardenedCluster(t, nil)
	ctx := t.Context()
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "asks"}, AutomountServiceAccountToken: new(true)}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	create := func(namespace string, change func(*corev1.Pod)) (*corev1.Pod, error) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", ImagePullPolicy: corev1.PullNever}}}}
		change(pod)
		return admin.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
	}
	for name, change := range map[string]func(*corev1.Pod){
		"host path": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		},
		"host port": func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
		},
		"host network": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"host PID":     func(p *corev1.Pod) { p.Spec.HostPID = true },
		"host IPC":     func(p *corev1.Pod) { p.Spec.HostIPC = true },
		"privileged": func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
		},
		"privileged init container": func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i", SecurityContext: &corev1.SecurityContext{Privileged: new(true)}}}
		},
		"added capability": func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}}
		},
		"raw packets": func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_RAW"}}}
		},
		"no seccomp": func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}
		},
		"sysctl": func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		},
	} {
		if _, err := create("default", change); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "host path" || name == "privileged" || name == "host network" {
			if _, err := create("kube-system", change); err != nil {
				t.Errorf("%s in kube-system: %v", name, err)
			}
		}
	}
	plain, err := create("default", func(*corev1.Pod) {})
	if err != nil {
		t.Fatal(err)
	}
	c := &plain.Spec.Containers[0]
	if s := plain.Spec.SecurityContext.SeccompProfile; s == nil || s.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("seccomp %+v", s)
	}
	if c.SecurityContext == nil || c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation ||
		fmt.Sprint(c.SecurityContext.Capabilities.Drop) != "[NET_RAW]" {
		t.Errorf("security context %+v", c.SecurityContext)
	}
	if c.ImagePullPolicy != corev1.PullAlways {
		t.Errorf("the image is pulled %s", c.ImagePullPolicy)
	}
	if len(plain.Spec.Volumes) != 0 {
		t.Errorf("a token that nobody asked for: %+v", plain.Spec.Volumes)
	}
	asks, err := create("default", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "asks" })
	if err != nil || len(asks.Spec.Volumes) != 1 {
		t.Errorf("the token that its account asks for: %+v %v", asks, err)
	}
	asks, err = create("default", func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = new(true) })
	if err != nil || len(asks.Spec.Volumes) != 1 {
		t.Errorf("the token that the pod asks for: %+v %v", asks, err)
	}
	if _, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "open", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := create("open", func(p *corev1.Pod) { p.Spec.HostNetwork = true }); err != nil {
		t.Errorf("a namespace whose label allows it: %v", err)
	}
}

// TestHardenedPlugins: what holds the lines cannot be switched off.
func TestHardenedPlugins(t *testing.T) {
	for _, name := range []string{"ServiceAccount", "NamespaceLifecycle", "NodeRestriction", "PodSecurity", "PrivilegeEscalation", "AlwaysPullImages", "HardenedContainers", "EventRateLimit"} {
		backend := memory.New(memory.Config{})
		_, err := controlplane.New(controlplane.Config{Backend: backend, Hardened: true, DisableAdmission: []string{name}})
		if err == nil || !strings.Contains(err.Error(), "cannot be disabled") && !strings.Contains(err.Error(), "both enabled and disabled") {
			t.Errorf("%s without: %v", name, err)
		}
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestHardenedDefaultAccount: a service account that nobody gave anything may
// see what everybody may, and nothing else.
func TestHardenedDefaultAccount(t *testing.T) {
	c, _ := hardenedCluster(t, nil)
	account := kubernetes.NewForConfigOrDie(c.As(auth.ServiceAccountName("default", "default"), auth.ServiceAccountGroups("default")...))
	may := map[string]bool{
		"create selfsubjectaccessreviews": true, "create selfsubjectrulesreviews": true, "create selfsubjectreviews": true,
		"get clustertrustbundles": true, "list clustertrustbundles": true, "watch clustertrustbundles": true,
	}
	rules := rulesOf(t, account)
	if len(rules) == 0 {
		t.Fatal("no rules are told")
	}
	for _, r := range rules {
		for _, verb := range r.Verbs {
			for _, resource := range r.Resources {
				if !may[verb+" "+resource] {
					t.Errorf("it may %s %s", verb, resource)
				}
			}
		}
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// issued is a certificate of a server's own authority.
func issued(t *testing.T, dir string, r pki.Request) *pki.Pair {
	t.Helper()
	ca, err := pki.LoadOrCreateCA(filepath.Join(dir, "pki"), "ca", "coracle", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(r, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// rulesOf is what a client may do in the namespace default.
func rulesOf(t *testing.T, c kubernetes.Interface) []authorizationv1.ResourceRule {
	t.Helper()
	r, err := c.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.ResourceRules
}
