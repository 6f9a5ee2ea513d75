package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// boat is the custom type of an operator.
type boat struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Crew int    `json:"crew"`
		Name string `json:"name,omitempty"`
	} `json:"spec"`
	Status struct {
		Afloat bool `json:"afloat,omitempty"`
	} `json:"status,omitempty"`
}

// DeepCopyObject implements runtime.Object.
func (b *boat) DeepCopyObject() runtime.Object {
	out := *b
	b.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

type boatList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []boat `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *boatList) DeepCopyObject() runtime.Object {
	out := &boatList{TypeMeta: l.TypeMeta, ListMeta: l.ListMeta}
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*boat))
	}
	return out
}

func boatScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := scheme.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	gv := schema.GroupVersion{Group: "sail.example.com", Version: "v1"}
	s.AddKnownTypeWithName(gv.WithKind("Boat"), &boat{})
	s.AddKnownTypeWithName(gv.WithKind("BoatList"), &boatList{})
	metav1.AddToGroupVersion(s, gv)
	return s
}

// shipyard gives each boat a config map of its own and floats it then.
type shipyard struct{ client.Client }

func (y shipyard) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	b := &boat{}
	if err := y.Get(ctx, req.NamespacedName, b); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	log := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: b.Name + "-log", Namespace: b.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, y, log, func() error {
		log.Data = map[string]string{"name": b.Spec.Name}
		return controllerutil.SetControllerReference(b, log, y.Scheme())
	})
	if err != nil || b.Status.Afloat {
		return ctrl.Result{}, err
	}
	b.Status.Afloat = true
	return ctrl.Result{}, y.Status().Update(ctx, b)
}

// TestEnvtestWithCustomResources is what an operator's own tests do: install
// definitions from YAML, run a manager, use the type.
func TestEnvtestWithCustomResources(t *testing.T) {
	types := boatScheme(t)
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets(t), AttachControlPlaneOutput: testing.Verbose(),
		CRDInstallOptions: envtest.CRDInstallOptions{Paths: []string{filepath.Join("testdata", "crds")}, ErrorIfPathMissing: true, CleanUpAfterUse: true},
		Scheme:            types,
	}
	config, err := env.Start()
	if err != nil {
		t.Fatalf("start envtest: %v", err)
	}
	defer func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop envtest: %v", err)
		}
	}()
	runShipyard(t, config, types)
	c, err := client.New(config, client.Options{Scheme: types})
	if err != nil {
		t.Fatal(err)
	}
	b := &boat{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "default"}}
	if err := c.Create(t.Context(), b); !apierrors.IsInvalid(err) {
		t.Errorf("a boat without a crew: %v", err)
	}
	b.Spec.Crew = 3
	if err := c.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		return b.Status.Afloat, c.Get(ctx, client.ObjectKeyFromObject(b), b)
	})
	if err != nil || b.Spec.Name != "Anna" || b.Generation != 1 {
		t.Fatalf("the boat %+v: %v", b, err)
	}
	log := &corev1.ConfigMap{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "b-log"}, log); err != nil || !metav1.IsControlledBy(log, b) || log.Data["name"] != "Anna" {
		t.Errorf("the boat's log %+v: %v", log, err)
	}
	list := &boatList{}
	if err := c.List(t.Context(), list); err != nil || len(list.Items) != 1 {
		t.Errorf("%d boats: %v", len(list.Items), err)
	}
	if err := c.Patch(t.Context(), b, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"crew":5}}`))); err != nil || b.Generation != 2 {
		t.Errorf("generation %d after a patch: %v", b.Generation, err)
	}
	if err := c.Delete(t.Context(), b); err != nil {
		t.Error(err)
	}
}

// runShipyard runs a manager until the test ends.
func runShipyard(t *testing.T, config *rest.Config, types *runtime.Scheme) {
	t.Helper()
	m, err := ctrl.NewManager(config, ctrl.Options{Scheme: types, Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	err = ctrl.NewControllerManagedBy(m).For(&boat{}).Owns(&corev1.ConfigMap{}).Complete(shipyard{m.GetClient()})
	if err != nil {
		t.Fatal(err)
	}
	runManager(t, m)
}

// runManager runs a manager until the test ends.
func runManager(t *testing.T, m ctrl.Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the manager: %v", err)
		}
	})
}
