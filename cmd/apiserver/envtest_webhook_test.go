package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// harbour is what an operator does by webhooks: it completes boats and refuses
// some of them.
type harbour struct{}

func (harbour) Default(ctx context.Context, b *boat) error {
	req, err := admission.RequestFromContext(ctx)
	if err != nil {
		return err
	}
	if b.Labels == nil {
		b.Labels = map[string]string{}
	}
	b.Labels["by"] = strings.ReplaceAll(req.UserInfo.Username, ":", "-")
	if b.Spec.Name == "Anna" { // the schema's default
		b.Spec.Name = "Berta"
	}
	return nil
}

func (harbour) ValidateCreate(_ context.Context, b *boat) (admission.Warnings, error) {
	if b.Spec.Crew > 10 {
		return nil, fmt.Errorf("a crew of %d is too many", b.Spec.Crew)
	}
	if b.Spec.Crew == 10 {
		return admission.Warnings{"the boat is full"}, nil
	}
	return nil, nil
}

func (harbour) ValidateUpdate(_ context.Context, old, b *boat) (admission.Warnings, error) {
	if old.Spec.Name != b.Spec.Name {
		return nil, apierrors.NewForbidden(schema.GroupResource{Group: "sail.example.com", Resource: "boats"}, b.Name, errors.New("boats keep their names"))
	}
	return nil, nil
}

func (harbour) ValidateDelete(_ context.Context, b *boat) (admission.Warnings, error) {
	if b.Annotations["anchored"] != "" {
		return nil, errors.New("it is anchored")
	}
	return nil, nil
}

// warningLog keeps the warnings that a client got.
type warningLog struct {
	mu   sync.Mutex
	seen []string // guarded by mu
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (l *warningLog) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, text)
}

func (l *warningLog) texts() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

var (
	_ admission.Defaulter[*boat] = harbour{}
	_ admission.Validator[*boat] = harbour{}
)

// TestEnvtestWithWebhooks is what kubebuilder's scaffold does: definitions and
// webhook configurations from YAML, and a manager that serves the webhooks.
func TestEnvtestWithWebhooks(t *testing.T) {
	types := boatScheme(t)
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets(t), AttachControlPlaneOutput: testing.Verbose(),
		CRDInstallOptions:     envtest.CRDInstallOptions{Paths: []string{filepath.Join("testdata", "crds")}, ErrorIfPathMissing: true},
		WebhookInstallOptions: envtest.WebhookInstallOptions{Paths: []string{filepath.Join("testdata", "webhooks")}},
		Scheme:                types,
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
	serveHarbour(t, config, types, &env.WebhookInstallOptions)
	warnings := &warningLog{}
	config = rest.CopyConfig(config)
	config.WarningHandlerWithContext = warnings
	c, err := client.New(config, client.Options{Scheme: types})
	if err != nil {
		t.Fatal(err)
	}
	make := func(name string, crew int) *boat {
		b := &boat{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
		b.Spec.Crew = crew
		return b
	}
	// The manager's server may not listen yet.
	b := make("b", 10)
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		err := c.Create(ctx, b)
		if apierrors.IsInternalError(err) && strings.Contains(err.Error(), `failed calling webhook "mboat.kb.io"`) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if b.Spec.Name != "Berta" || b.Labels["by"] == "" {
		t.Errorf("the boat was not completed: %+v", b)
	}
	if got := warnings.texts(); len(got) != 1 || got[0] != "the boat is full" {
		t.Errorf("warnings %q", got)
	}
	if err := c.Create(t.Context(), make("c", 11)); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `admission webhook "vboat.kb.io" denied the request: a crew of 11 is too many`) {
		t.Errorf("a large crew: %v", err)
	}
	if err := c.Create(t.Context(), make("d", 3), client.DryRunAll); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	b.Spec.Name = "Carla"
	if err := c.Update(t.Context(), b); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "boats keep their names") {
		t.Errorf("another name: %v", err)
	}
	b.Spec.Name = "Berta"
	b.Annotations = map[string]string{"anchored": "yes"}
	if err := c.Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	b.Status.Afloat = true
	if err := c.Status().Update(t.Context(), b); err != nil {
		t.Errorf("the status, which no webhook is asked about: %v", err)
	}
	if err := c.Delete(t.Context(), b); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "it is anchored") {
		t.Errorf("an anchored boat: %v", err)
	}
	if err := c.Patch(t.Context(), b, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":null}}`))); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteAllOf(t.Context(), &boat{}, client.InNamespace("default")); err != nil {
		t.Errorf("delete all: %v", err)
	}
}

// serveHarbour runs a manager with the webhooks until the test ends.
func serveHarbour(t *testing.T, config *rest.Config, types *runtime.Scheme, installed *envtest.WebhookInstallOptions) {
	t.Helper()
	m, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: types, Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: installed.LocalServingHost, Port: installed.LocalServingPort, CertDir: installed.LocalServingCertDir,
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ctrl.NewWebhookManagedBy(m, &boat{}).WithDefaulter(harbour{}).WithValidator(harbour{}).Complete(); err != nil {
		t.Fatal(err)
	}
	runManager(t, m)
}
