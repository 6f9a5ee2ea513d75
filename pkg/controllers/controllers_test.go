package controllers_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"coracle/pkg/controllers"
	"coracle/pkg/controllers/podset"
	"coracle/pkg/pki"
	"coracle/pkg/reconcile"
	"coracle/pkg/testcluster"
)

// TestMain takes the pause out of the client library's handling of errors: it
// remembers the time of the last error, against which a bubble's virtual time
// lies decades in the past, so that the next error would wait for as long.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	os.Exit(m.Run())
}

// TestErrorsTakeNoTime: what a bubble's clients could not do does not stop them.
func TestErrorsTakeNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		utilruntime.HandleErrorWithContext(t.Context(), errors.New("made by a test"), "an error in virtual time")
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to note an error", took)
		}
	})
}

// cluster is a control plane with all controllers and a simulated node.
type cluster struct {
	*testcluster.Cluster
	t    testing.TB
	node *simulator
	// patience is how long eventually waits; 0 for two minutes.
	patience time.Duration
	// stale is set when controllers are shown an old state as if it were new.
	stale bool
}

// scenario runs body against a cluster in a synctest bubble: time passes only
// when everything waits.
func scenario(t *testing.T, body func(t *testing.T, c *cluster), change ...func(*controllers.Config)) {
	t.Helper()
	bubble(t, func(t *testing.T, c *cluster) {
		stop := c.startControllers(transports{}, change...)
		t.Cleanup(stop)
		body(t, c)
	})
}

// bubble is scenario without controllers.
func bubble(t *testing.T, body func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tc := testcluster.Start(t)
		c := &cluster{Cluster: tc, t: t}
		c.node = simulate(t, tc.Client, "node-1", "node-2", "node-3")
		body(t, c)
	})
}

// transports changes how controllers reach the API server; nil means not.
type transports struct {
	read  func(http.RoundTripper) http.RoundTripper // of the informers
	write func(http.RoundTripper) http.RoundTripper // of everything else
}

// startControllers runs all controllers until stop, which waits for their end.
func (c *cluster) startControllers(via transports, change ...func(*controllers.Config)) (stop func()) {
	as := func(name string) *rest.Config {
		config := c.As("system:serviceaccount:kube-system:"+name, "system:serviceaccounts", "system:serviceaccounts:kube-system")
		config.WarningHandler = rest.NoWarnings{} // Endpoints are deprecated: we know
		if via.write != nil {
			config.Wrap(via.write)
		}
		return config
	}
	reader := c.As("system:kube-controller-manager")
	reader.WarningHandler = rest.NoWarnings{}
	if via.read != nil {
		reader.Wrap(via.read)
	}
	cfg := controllers.Config{
		ClientFor:   func(name string) kubernetes.Interface { return kubernetes.NewForConfigOrDie(as(name)) },
		MetadataFor: func(name string) metadata.Interface { return metadata.NewForConfigOrDie(as(name)) },
		Informers:   reconcile.NewInformers(kubernetes.NewForConfigOrDie(reader)),
		CABundle:    pki.NewBundle([]byte("a certificate")),
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		Log:         slog.New(slog.NewTextHandler(testWriter{c.t}, &slog.HandlerOptions{Level: logLevel()})),
	}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	done := make(chan error, 1)
	go func() { done <- controllers.Run(ctx, cfg) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("run the controllers: %v", err)
		}
	}
}

// logLevel shows more with CONTROLLERS_LOG=debug.
func logLevel() slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(os.Getenv("CONTROLLERS_LOG"))) != nil {
		l = slog.LevelWarn
	}
	return l
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

// eventually waits, in virtual time, until check returns nil.
func (c *cluster) eventually(what string, check func() error) {
	c.t.Helper()
	var err error
	patience := c.patience
	if patience == 0 {
		patience = 2 * time.Minute
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		synctest.Wait()
		if err = check(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatalf("%s: %v", what, err)
}

// readyPods returns the ready pods of a namespace by image.
func (c *cluster) readyPods(namespace string) map[string]int {
	pods, err := c.Client.CoreV1().Pods(namespace).List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]int{}
	for i := range pods.Items {
		if p := &pods.Items[i]; podset.Active(p) && podset.Ready(p) {
			out[p.Spec.Containers[0].Image]++
		}
	}
	return out
}
