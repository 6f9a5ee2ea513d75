package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"

	"coracle/pkg/auth"
	"coracle/pkg/auth/rbac"
)

// Authorizer decides on the requests of node agents and has no opinion on
// those of others.
type Authorizer struct {
	graph *Graph
	rules []rbacv1.PolicyRule
}

// New returns an Authorizer. rules are those of the system:node role.
func New(graph *Graph, rules []rbacv1.PolicyRule) *Authorizer {
	return &Authorizer{graph: graph, rules: rules}
}

var (
	_ auth.Authorizer   = (*Authorizer)(nil)
	_ auth.RuleResolver = (*Authorizer)(nil)
)

// RulesFor implements auth.RuleResolver: what a node may do depends on its
// pods and is not listed.
func (z *Authorizer) RulesFor(_ context.Context, u *auth.User, _ string) (auth.Rules, error) {
	if _, isNode := auth.NodeName(u); isNode {
		return auth.Rules{Incomplete: true}, errors.New("node authorizer does not support user rule resolution")
	}
	return auth.Rules{}, nil
}

// Authorize implements auth.Authorizer. It allows or has no opinion.
func (z *Authorizer) Authorize(_ context.Context, a auth.Attributes) (auth.Decision, string, error) {
	node, isNode := auth.NodeName(a.User)
	if !isNode {
		return auth.NoOpinion, "", nil
	}
	if node == "" {
		return auth.NoOpinion, fmt.Sprintf("unknown node for user %q", a.User.Name), nil
	}
	why, allowed := z.decide(node, &a)
	if allowed {
		return auth.Allow, "", nil
	}
	return auth.NoOpinion, why, nil
}

// decide says no with a reason, or yes.
func (z *Authorizer) decide(node string, a *auth.Attributes) (why string, allowed bool) {
	if a.ResourceRequest {
		switch (schema.GroupResource{Group: a.APIGroup, Resource: a.Resource}) {
		case corev1.Resource("secrets"):
			return z.readNamespaced(node, secret, a)
		case corev1.Resource("configmaps"):
			return z.readNamespaced(node, configMap, a)
		case corev1.Resource("persistentvolumeclaims"):
			if a.Subresource == "status" {
				return z.updateStatus(node, persistentVolumeClaim, a)
			}
			return z.get(node, persistentVolumeClaim, a)
		case corev1.Resource("persistentvolumes"):
			return z.get(node, persistentVolume, a)
		case resourcev1.Resource("resourceclaims"):
			return z.get(node, resourceClaim, a)
		case storagev1.Resource("volumeattachments"):
			return z.get(node, volumeAttachment, a)
		case corev1.Resource("serviceaccounts"):
			return z.serviceAccount(node, a)
		case coordinationv1.Resource("leases"):
			return ownLease(node, a)
		case storagev1.Resource("csinodes"):
			return ownCSINode(node, a)
		case resourcev1.Resource("resourceslices"):
			return z.slice(node, a)
		case corev1.Resource("nodes"):
			return ownNode(node, a)
		case corev1.Resource("pods"):
			return z.ownPods(node, a)
		}
	}
	return "", rbac.RulesAllow(a, z.rules)
}

func (z *Authorizer) related(node string, k kind, a *auth.Attributes) (string, bool) {
	if a.Name == "" {
		return "No Object name found", false
	}
	r := ref{kind: k, namespace: a.Namespace, name: a.Name}
	if k == persistentVolume || k == volumeAttachment || k == resourceSlice {
		r.namespace = ""
	}
	if !z.graph.related(node, r) {
		return fmt.Sprintf("no relationship found between node '%s' and this object", node), false
	}
	return "", true
}

func (z *Authorizer) get(node string, k kind, a *auth.Attributes) (string, bool) {
	if a.Verb != "get" {
		return "can only get individual resources of this type", false
	}
	if a.Subresource != "" {
		return "cannot get subresource", false
	}
	return z.related(node, k, a)
}

// readNamespaced lets a node also list and watch single objects: a selector by
// name arrives here as the request's name.
func (z *Authorizer) readNamespaced(node string, k kind, a *auth.Attributes) (string, bool) {
	switch {
	case !a.ReadOnly():
		return "can only read resources of this type", false
	case a.Subresource != "":
		return "cannot read subresource", false
	case a.Namespace == "":
		return "can only read namespaced object of this type", false
	}
	return z.related(node, k, a)
}

func (z *Authorizer) updateStatus(node string, k kind, a *auth.Attributes) (string, bool) {
	if a.Verb != "update" && a.Verb != "patch" {
		return "can only update/patch the status of this type", false
	}
	return z.related(node, k, a)
}

func (z *Authorizer) serviceAccount(node string, a *auth.Attributes) (string, bool) {
	if a.Verb == "get" && a.Subresource == "" {
		return z.related(node, serviceAccount, a)
	}
	if a.Verb != "create" || a.Name == "" {
		return "can only create tokens for individual service accounts", false
	}
	if a.Subresource != "token" {
		return "can only create token subresource of serviceaccount", false
	}
	return z.related(node, serviceAccount, a)
}

var keepVerbs = []string{"get", "create", "update", "patch", "delete"}

// ownLease and ownCSINode do not see the name on create: Restrict does.
func ownLease(node string, a *auth.Attributes) (string, bool) {
	switch {
	case !slices.Contains(keepVerbs, a.Verb):
		return "can only get, create, update, patch, or delete a node lease", false
	case a.Namespace != corev1.NamespaceNodeLease:
		return fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease), false
	case a.Verb != "create" && a.Name != node:
		return "can only access node lease with the same name as the requesting node", false
	}
	return "", true
}

func ownCSINode(node string, a *auth.Attributes) (string, bool) {
	switch {
	case !slices.Contains(keepVerbs, a.Verb):
		return "can only get, create, update, patch, or delete a CSINode", false
	case a.Subresource != "":
		return "cannot authorize CSINode subresources", false
	case a.Verb != "create" && a.Name != node:
		return "can only access CSINode with the same name as the requesting node", false
	}
	return "", true
}

func (z *Authorizer) slice(node string, a *auth.Attributes) (string, bool) {
	if a.Subresource != "" {
		return "cannot authorize ResourceSlice subresources", false
	}
	switch a.Verb {
	case "create":
		return "", true
	case "get", "update", "patch", "delete":
		return z.related(node, resourceSlice, a)
	case "list", "watch", "deletecollection":
		if selects(a, resourcev1.ResourceSliceSelectorNodeName, node) {
			return "", true
		}
		return "can only list/watch/deletecollection resourceslices with spec.nodeName field selector", false
	default:
		return "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection", false
	}
}

// selects says whether the request's field selector wants field = value.
func selects(a *auth.Attributes, field, value string) bool {
	for _, r := range a.FieldSelector {
		if r.Field == field && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) && r.Value == value {
			return true
		}
	}
	return false
}

// ownNode compares names and does not ask the graph: an agent looks for its
// Node before that exists.
func ownNode(node string, a *auth.Attributes) (string, bool) {
	switch a.Subresource {
	case "":
		switch a.Verb {
		case "create", "update", "patch":
			return "", true
		case "get", "list", "watch":
			if a.Name == node {
				return "", true
			}
			if a.Name == "" {
				return fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node), false
			}
			return fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, a.Name), false
		}
	case "status":
		return "", a.Verb == "update" || a.Verb == "patch"
	}
	return "", false
}

func (z *Authorizer) ownPods(node string, a *auth.Attributes) (string, bool) {
	switch a.Subresource {
	case "":
		switch a.Verb {
		case "get":
			return z.get(node, pod, a)
		case "list", "watch":
			if selects(a, "spec.nodeName", node) {
				return "", true
			}
			if a.Name != "" {
				return z.related(node, pod, a)
			}
			return "can only list/watch pods with spec.nodeName field selector", false
		case "create", "delete":
			return "", true
		}
	case "status":
		return "", a.Verb == "update" || a.Verb == "patch"
	case "eviction":
		return "", a.Verb == "create"
	}
	return "", false
}
