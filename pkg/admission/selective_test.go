package admission_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"

	"coracle/pkg/admission"
	"coracle/pkg/resource"
)

// TestSelective: a plugin does nothing about resources that it says it does not
// handle. None of the plugins here has what it would decide by, so that one that
// looks for it panics.
func TestSelective(t *testing.T) {
	podSecurity, err := admission.NewPodSecurity(nil, admission.PodSecurityLevels{})
	if err != nil {
		t.Fatal(err)
	}
	table := resource.Builtin()
	for _, plugin := range []admission.Selective{
		admission.LimitRanger{}, admission.ServiceAccount{}, admission.TaintNodesByCondition{}, admission.AlwaysPullImages{},
		podSecurity, admission.PodNodeSelector{}, admission.Priority{}, admission.DefaultTolerationSeconds{},
		admission.PodTolerationRestriction{}, admission.ExtendedResourceToleration{}, admission.DefaultStorageClass{},
		admission.StorageObjectInUseProtection{}, admission.PodGroupProtection{}, admission.PersistentVolumeClaimResize{}, admission.RuntimeClass{},
		admission.CertificateApproval{}, admission.CertificateSigning{}, admission.ClusterTrustBundleAttest{},
		admission.CertificateSubjectRestriction{}, admission.DefaultIngressClass{}, admission.DenyServiceExternalIPs{},
		admission.PodTopologyLabels{}, admission.PodResizeValidator{}, admission.CertificateRequester{}, admission.PrivilegeEscalation{},
	} {
		handled := 0
		for _, res := range table.All() {
			if plugin.Handles(res.GroupResource()) {
				handled++
				continue
			}
			if plugin == admission.Selective(podSecurity) {
				continue // it asks nothing else about the resource
			}
			for _, op := range []admission.Operation{admission.Create, admission.Update, admission.Delete, admission.Connect} {
				for _, sub := range []string{"", "status", "approval", "resize", "binding"} {
					a := &admission.Attributes{
						Operation: op, Resource: res, Subresource: sub, Namespace: "n", Name: "x", Object: res.New(), Stored: admission.Known(res.New()),
						Warn: func(string) {}, Annotate: func(string, string) {},
					}
					if m, ok := plugin.(admission.Mutator); ok {
						err = m.Admit(t.Context(), a)
					}
					if v, ok := plugin.(admission.Validator); ok && err == nil {
						err = v.Validate(t.Context(), a)
					}
					if err != nil || !equality.Semantic.DeepEqual(a.Object, res.New()) {
						t.Errorf("%s does something about %s %s/%s: %v", plugin.Name(), op, res.Plural, sub, err)
					}
				}
			}
		}
		if handled == 0 {
			t.Errorf("%s handles nothing that is served", plugin.Name())
		}
	}
}
