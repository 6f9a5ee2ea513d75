package controlplane

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"coracle/pkg/apiserver"
	"coracle/pkg/apiserver/aggregate"
	"coracle/pkg/apiserver/nodeproxy"
	"coracle/pkg/apiserver/openapi"
	"coracle/pkg/auth"
	"coracle/pkg/placement"
	"coracle/pkg/registry"
	"coracle/pkg/storage/cache"
)

var apiServiceGVR = apiregistrationv1.SchemeGroupVersion.WithResource("apiservices")

// placementPriority puts explain.coracle.dev behind all groups of Kubernetes.
const placementPriority = 100

// newAggregator composes what passes group versions on to other servers, which
// it reaches as requests to Services' endpoints are.
func (cp *ControlPlane) newAggregator(proxy *nodeproxy.Proxy) (*aggregate.Aggregator, error) {
	cfg := aggregate.Config{
		Dial: proxy.DialService, Slices: cp.slices, SetStatus: cp.setAvailable,
		Clock: cp.cfg.Clock, Rand: cp.cfg.Rand, Log: cp.cfg.Log,
		Service: func(ctx context.Context, namespace, name string) (*corev1.Service, error) {
			obj, err := cp.object(ctx, corev1.SchemeGroupVersion.WithResource("services"), namespace, name)
			if err != nil {
				return nil, err
			}
			return obj.(*corev1.Service), nil
		},
	}
	if cp.placements != nil {
		cfg.Beside = map[schema.GroupVersion]apiserver.AggregatedVersion{placement.GroupVersion(): {
			Backend: placement.Handler(cp.placements), Resources: placement.Discovery(),
			GroupPriority: placementPriority, VersionPriority: placementPriority,
		}}
		section := "apis/" + placement.GroupVersion().String()
		described, err := openapi.Fixed(section, placement.OpenAPI())
		if err != nil {
			return nil, err
		}
		cfg.BesideOpenAPI = map[string]openapi.Remote{section: described}
	}
	if id := cp.cfg.Identity; id != nil && id.FrontProxy != nil {
		cfg.Certificate = id.FrontProxy.Client.GetClientCertificate
	}
	return aggregate.New(cfg)
}

// object reads an object consistently. It is shared.
func (cp *ControlPlane) object(ctx context.Context, gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, error) {
	res := cp.resource(gvr)
	o, err := cp.registry.Get(ctx, registry.Request{Resource: res, Namespace: namespace, Name: name}, "")
	if err != nil {
		return nil, err
	}
	return registry.Shared(res, o)
}

// setAvailable stores the condition of an APIService.
func (cp *ControlPlane) setAvailable(ctx context.Context, s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) error {
	ctx = auth.WithUser(ctx, self())
	req := registry.Request{Resource: cp.resource(apiServiceGVR), Subresource: "status", Name: s.Name}
	_, _, err := cp.registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		now := current.(*apiregistrationv1.APIService)
		if now.UID != s.UID {
			return nil, apierrors.NewNotFound(apiServiceGVR.GroupResource(), s.Name)
		}
		aggregate.SetCondition(&now.Status, c, metav1.NewTime(cp.cfg.Clock.Now().Truncate(1e9)))
		return now, nil
	}, registry.UpdateOptions{WriteOptions: cp.registrar.options()})
	if apierrors.IsNotFound(err) {
		return nil // it is gone, and with it the question
	}
	return err
}

// aggregations feed the aggregator.
func (cp *ControlPlane) aggregations() []registry.Projection {
	services := registry.Projection{
		Resource: cp.resource(corev1.SchemeGroupVersion.WithResource("services")),
		Raw: func(o *cache.Object) error {
			cp.aggregator.ServiceChanged(o.Namespace, o.Name)
			return nil
		},
		Delete: cp.aggregator.ServiceChanged,
	}
	slices := registry.Projection{
		Resource: cp.resource(discoveryv1.SchemeGroupVersion.WithResource("endpointslices")),
		Raw: func(o *cache.Object) error {
			if name := o.Labels[discoveryv1.LabelServiceName]; name != "" {
				cp.aggregator.ServiceChanged(o.Namespace, name)
			}
			return nil
		},
		Delete: func(string, string) {}, // a look is taken every half minute
	}
	return []registry.Projection{
		cp.projection(apiServiceGVR,
			func(o runtime.Object) {
				cp.aggregator.Set(o.(*apiregistrationv1.APIService))
				cp.registrar.look()
			},
			func(_, name string) {
				cp.aggregator.Delete(name)
				cp.registrar.look()
			}),
		services, slices,
	}
}
