// Command reference is the API server that the project is compared with:
// k8s.io/apiextensions-apiserver, unchanged, with what it would ask a whole
// cluster for answered here.
//
// Clients are known by their certificates; every user may do everything, which
// is cheaper than RBAC. Admission is the library's default chain (namespace
// lifecycle, webhooks, validating policies) over a fake client that knows one
// namespace and no hooks. Priority and fairness is off, so that the library's plain
// limits of requests under way apply.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/webhook"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
)

// flags are where it listens and what it is made of.
type flags struct {
	port                int
	etcd, cert, key, ca string
}

func main() {
	var f flags
	flag.IntVar(&f.port, "port", 0, "port on 127.0.0.1")
	flag.StringVar(&f.etcd, "etcd", "", "URL of etcd")
	flag.StringVar(&f.cert, "cert", "", "serving certificate")
	flag.StringVar(&f.key, "key", "", "its key")
	flag.StringVar(&f.ca, "ca", "", "authority of client certificates")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) error {
	config, err := configure(f)
	if err != nil {
		return err
	}
	server, err := config.Complete().New(genericserver.NewEmptyDelegate())
	if err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	return server.GenericAPIServer.PrepareRun().RunWithContext(ctx)
}

// configure does what the library's own command does, but for the parts that
// need a cluster.
func configure(f flags) (*apiserver.Config, error) {
	o := options.NewCustomResourceDefinitionsServerOptions(io.Discard, io.Discard)
	rec := o.RecommendedOptions
	rec.Etcd.StorageConfig.Transport.ServerList = []string{f.etcd}
	rec.SecureServing.BindAddress = []byte{127, 0, 0, 1}
	rec.SecureServing.BindPort = f.port
	rec.SecureServing.ServerCert.CertKey.CertFile = f.cert
	rec.SecureServing.ServerCert.CertKey.KeyFile = f.key
	if err := o.Complete(); err != nil {
		return nil, err
	}
	c := genericserver.NewRecommendedConfig(apiserver.Codecs)
	clients := fake.NewClientset(&corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	})
	c.SharedInformerFactory = informers.NewSharedInformerFactory(clients, 10*time.Minute)
	for _, apply := range []func() error{
		func() error { return o.ServerRunOptions.ApplyTo(&c.Config) },
		func() error { return rec.Etcd.ApplyTo(&c.Config) },
		func() error { return rec.SecureServing.ApplyToConfig(&c.Config) },
		func() error { return authenticate(c, f.ca) },
		func() error { return rec.Audit.ApplyTo(&c.Config) },
		func() error {
			rec.Features.EnablePriorityAndFairness = false
			return rec.Features.ApplyTo(&c.Config, clients, c.SharedInformerFactory)
		},
		func() error {
			// It asks for OpenAPI, which the fake client has not.
			rec.Admission.DisablePlugins = []string{"MutatingAdmissionPolicy"}
			return rec.Admission.ApplyTo(&c.Config, c.SharedInformerFactory, clients,
				dynamicfake.NewSimpleDynamicClient(scheme.Scheme), feature.DefaultFeatureGate, c.EffectiveVersion)
		},
		func() error {
			return o.APIEnablement.ApplyTo(&c.Config, apiserver.DefaultAPIResourceConfigSource(), apiserver.Scheme)
		},
	} {
		if err := apply(); err != nil {
			return nil, err
		}
	}
	c.OpenAPIV3Config = genericserver.DefaultOpenAPIV3Config(
		openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generatedopenapi.GetOpenAPIDefinitions),
		openapinamer.NewDefinitionNamer(apiserver.Scheme, scheme.Scheme))
	return &apiserver.Config{GenericConfig: c, ExtraConfig: apiserver.ExtraConfig{
		CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(*rec.Etcd, c.ResourceTransformers, c.StorageObjectCountTracker),
		AuthResolverWrapper:  webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, c.LoopbackClientConfig, noop.NewTracerProvider()),
	}}, nil
}

// authenticate knows clients by their certificates and lets everyone in.
func authenticate(c *genericserver.RecommendedConfig, ca string) error {
	roots, err := dynamiccertificates.NewDynamicCAContentFromFile("clients", ca)
	if err != nil {
		return fmt.Errorf("read the authority of clients: %w", err)
	}
	c.Authentication.Authenticator, _, err = authenticatorfactory.DelegatingAuthenticatorConfig{
		ClientCertificateCAContentProvider: roots,
	}.New()
	if err != nil {
		return err
	}
	if err := c.Authentication.ApplyClientCert(roots, c.SecureServing); err != nil {
		return err
	}
	c.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	return nil
}
