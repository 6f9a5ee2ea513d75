package resource

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ResetFields are those that a write to the object ("") or to a subresource
// cannot set, so that nobody comes to own them by trying. Each is given as the
// names that lead to it.
func (r *Resource) ResetFields(subresource string) [][]string {
	if special, ok := specialResets[reset{r.GroupResource(), subresource}]; ok {
		return special
	}
	switch {
	case !r.HasStatus:
		return nil
	case subresource == "":
		return [][]string{{"status"}}
	case subresource == "status" && slices.Contains(wholeStatus, r.GroupResource()):
		return [][]string{{"metadata"}, {"spec"}}
	case subresource == "status":
		return [][]string{{"spec"}}
	}
	return nil
}

type reset struct {
	schema.GroupResource
	subresource string
}

// specialResets are those of the kinds that differ from the others.
var specialResets = map[reset][][]string{
	{schema.GroupResource{Resource: "namespaces"}, "finalize"}: {{"status"}},
	{schema.GroupResource{Resource: "pods"}, "status"}: {
		{"spec"}, {"metadata", "deletionTimestamp"}, {"metadata", "ownerReferences"},
	},
	{schema.GroupResource{Group: "apps", Resource: "deployments"}, "status"}: {{"spec"}, {"metadata", "labels"}},
	{signingRequests, ""}:         {{"spec"}, {"status"}},
	{signingRequests, "status"}:   {{"spec"}, {"status", "conditions"}},
	{signingRequests, "approval"}: {{"spec"}, {"status", "certificate"}},
}

var signingRequests = schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}

// wholeStatus are the kinds whose /status takes nothing but the status.
var wholeStatus = []schema.GroupResource{
	{Group: admissionGroup, Resource: "validatingadmissionpolicies"},
	{Group: "apiregistration.k8s.io", Resource: "apiservices"},
	{Group: "certificates.k8s.io", Resource: "podcertificaterequests"},
	{Group: flowcontrolGroup, Resource: "flowschemas"},
	{Group: flowcontrolGroup, Resource: "prioritylevelconfigurations"},
	{Group: "networking.k8s.io", Resource: "servicecidrs"},
	{Group: deviceGroup, Resource: "devicetaintrules"},
	{Group: deviceGroup, Resource: "resourceclaims"},
	{Group: "scheduling.k8s.io", Resource: "podgroups"},
	{Group: "storage.k8s.io", Resource: "volumeattachments"},
	{Group: "storagemigration.k8s.io", Resource: "storageversionmigrations"},
}
