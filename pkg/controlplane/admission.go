package controlplane

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/admission"
	"coracle/pkg/admission/celpolicy"
	"coracle/pkg/admission/deviceselector"
	"coracle/pkg/auth"
	"coracle/pkg/auth/rbac"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

// placed is a plugin at its place in the chain.
type placed struct {
	admission.Plugin
	// off says that the plugin works only where the configuration enables it.
	off bool
}

// plugins are all admission plugins, in the order in which they run, which is
// upstream's.
func (cp *ControlPlane) plugins() ([]placed, error) {
	objects, policies := cachedObjects{cp}, cp.policyConfig()
	mutating, validating := cp.webhooks(objects)
	podSecurity, err := admission.NewPodSecurity(objects, cp.cfg.PodSecurity, cp.cfg.strict.privileged...)
	if err != nil {
		return nil, err
	}
	return []placed{
		{Plugin: admission.NamespaceLifecycle{Objects: objects}},
		{Plugin: admission.LimitRanger{Objects: objects}},
		{Plugin: admission.ServiceAccount{Objects: objects, CreateDefault: cp.createDefaultAccount, Suffix: cp.nameSuffix, WhenAsked: cp.cfg.strict.tokensWhenAsked}},
		{Plugin: admission.NodeRestriction{Objects: objects}},
		{Plugin: admission.TaintNodesByCondition{}},
		{Plugin: admission.AlwaysPullImages{}, off: true},
		{Plugin: admission.HardenedContainers{Exempt: cp.cfg.strict.privileged}, off: true},
		{Plugin: podSecurity},
		{Plugin: admission.PodNodeSelector{Objects: objects}, off: true},
		{Plugin: admission.Priority{Objects: objects}},
		{Plugin: admission.DefaultTolerationSeconds{NotReady: *cp.cfg.NotReadySeconds, Unreachable: *cp.cfg.UnreachableSeconds}},
		{Plugin: admission.PodTolerationRestriction{Objects: objects}, off: true},
		{Plugin: admission.ExtendedResourceToleration{}, off: true},
		{Plugin: admission.DefaultStorageClass{Objects: objects}},
		{Plugin: admission.StorageObjectInUseProtection{}},
		{Plugin: admission.PodGroupProtection{}},
		{Plugin: admission.OwnerReferencesPermissionEnforcement{Authorizer: cp.authz, Kinds: cp.kind}, off: true},
		{Plugin: admission.PersistentVolumeClaimResize{Objects: objects}},
		{Plugin: admission.RuntimeClass{Objects: objects}},
		{Plugin: admission.CertificateApproval{Authorizer: cp.authz}},
		{Plugin: admission.CertificateSigning{Authorizer: cp.authz}},
		{Plugin: admission.ClusterTrustBundleAttest{Authorizer: cp.authz}},
		{Plugin: admission.CertificateSubjectRestriction{}},
		{Plugin: admission.DefaultIngressClass{Objects: objects}},
		{Plugin: admission.DenyServiceExternalIPs{}, off: cp.cfg.AllowExternalIPs},
		{Plugin: admission.PodTopologyLabels{NodeLabels: objects.nodeLabels}},
		{Plugin: admission.PodResizeValidator{Objects: objects}},
		{Plugin: admission.DeviceTaintTimes{Now: cp.cfg.Clock.Now}},
		{Plugin: admission.NewEventRateLimit(cp.cfg.Clock.Now), off: true},
		// What others than the server decide goes here: policies and webhooks,
		// first those that change objects. After them come the server's own
		// words on what was changed.
		{Plugin: celpolicy.NewMutating(policies, cp.fieldTypes)},
		{Plugin: mutating},
		{Plugin: celpolicy.NewValidating(policies)},
		{Plugin: validating},
		{Plugin: deviceselector.Plugin{}},
		{Plugin: admission.CertificateRequester{}},
		{Plugin: admission.PrivilegeEscalation{Guard: &rbac.Guard{Authorizer: cp.authz, Rules: cp.rbac}}},
		{Plugin: cp.bootstrapTokenUse()},
		// Last: what it charges, nobody may refuse any more.
		{Plugin: admission.NewResourceQuota(quotaStore{cp}, cp.cfg.Clock.Now)},
	}, nil
}

// neverDisabled are the plugins without which a cluster is not safe (CIS
// 1.2.12-1.2.14); envtest asks for ServiceAccount to be left out, which is
// about convenience there.
var neverDisabled = []string{"NamespaceLifecycle", "NodeRestriction", "PrivilegeEscalation", "CertificateRequester", "BootstrapTokenUse"}

// admission is the chain of the plugins that are on by default or enabled, and
// not disabled.
func (cp *ControlPlane) admission() (*admission.Chain, error) {
	for _, name := range cp.cfg.DisableAdmission {
		if slices.Contains(neverDisabled, name) || slices.Contains(cp.cfg.strict.locked, name) {
			return nil, fmt.Errorf("admission plugin %s cannot be disabled: take it out of --disable-admission-plugins", name)
		}
		if slices.Contains(cp.cfg.EnableAdmission, name) {
			return nil, fmt.Errorf("admission plugin %s is both enabled and disabled: take it out of --enable-admission-plugins or --disable-admission-plugins", name)
		}
	}
	all, err := cp.plugins()
	if err != nil {
		return nil, err
	}
	for _, name := range cp.cfg.EnableAdmission {
		if !slices.ContainsFunc(all, func(p placed) bool { return p.Name() == name }) {
			return nil, fmt.Errorf("admission plugin %s is not offered: take it out of --enable-admission-plugins", name)
		}
	}
	var list []admission.Plugin
	for _, p := range all {
		enabled := !p.off || slices.Contains(cp.cfg.EnableAdmission, p.Name())
		if enabled && !slices.Contains(cp.cfg.DisableAdmission, p.Name()) {
			list = append(list, p.Plugin)
		}
	}
	return admission.NewChain(list...)
}

// kind finds what is served under a kind.
func (cp *ControlPlane) kind(gvk schema.GroupVersionKind) (*resource.Resource, bool) {
	return cp.registry.Table().ByGVK(gvk)
}

// createDefaultAccount makes a namespace's default service account.
func (cp *ControlPlane) createDefaultAccount(ctx context.Context, namespace string) error {
	ctx = auth.WithUser(ctx, self())
	_, err := cp.registry.Create(ctx,
		registry.Request{Resource: cp.resource(corev1.SchemeGroupVersion.WithResource("serviceaccounts")), Namespace: namespace},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		registry.WriteOptions{Manager: bootstrapManager, Internal: true})
	return err
}

// nameSuffix is a random end for names made by admission.
func (cp *ControlPlane) nameSuffix() (string, error) { return cp.registry.NameSuffix() }

// cachedObjects reads for admission: from the cache, and from the store what
// the cache does not have.
type cachedObjects struct{ cp *ControlPlane }

// Get implements admission.Objects.
func (c cachedObjects) Get(ctx context.Context, gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, error) {
	return c.get(ctx, c.cp.resource(gvr), namespace, name)
}

// List implements admission.Objects.
func (c cachedObjects) List(ctx context.Context, gvr schema.GroupVersionResource, namespace string) ([]runtime.Object, error) {
	return c.list(ctx, c.cp.resource(gvr), namespace, labels.Everything())
}

var _ admission.Objects = cachedObjects{}
