package resource

import (
	"sort"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	labelNodeRolePrefix = "node-role.kubernetes.io/"
	labelNodeRole       = "kubernetes.io/role"
)

func nodes() *Resource {
	return define(Resource{
		Version: "v1", Kind: "Node", Plural: "nodes", ShortNames: []string{"no"},
		StoragePath:         "minions",
		HasStatus:           true,
		StatusOnCreate:      true,
		UnconditionalUpdate: true,
		Subresources: []Subresource{{
			Name: "proxy", Kind: schema.GroupVersionKind{Version: "v1", Kind: "NodeProxyOptions"},
			Verbs: []string{"create", "delete", "get", "patch", "update"},
		}},
		New:        func() runtime.Object { return &corev1.Node{} },
		NewList:    func() runtime.Object { return &corev1.NodeList{} },
		FieldNames: []string{"spec.unschedulable"},
		FieldsRead: []string{"spec.unschedulable"},
		Columns: columns("Name", "Status", "Roles", "Age", "Version",
			"+Internal-IP", "+External-IP", "+OS-Image", "+Kernel-Version", "+Container-Runtime"),
	}, hooks[*corev1.Node]{
		Default:        defaultNode,
		Validate:       validateNode,
		ValidateUpdate: validateNodeUpdate,
		ValidateStatus: validateNodeStatus,
		Fields: func(n *corev1.Node) map[string]string {
			return map[string]string{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		},
		Row: nodeRow,
	})
}

func defaultNode(n *corev1.Node) {
	roundUp(n.Status.Capacity)
	roundUp(n.Status.Allocatable)
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	// podCIDR is the first of podCIDRs; the older field wins.
	switch cidrs := n.Spec.PodCIDRs; {
	case n.Spec.PodCIDR == "" && len(cidrs) > 0:
		n.Spec.PodCIDR = cidrs[0]
	case n.Spec.PodCIDR != "" && (len(cidrs) == 0 || cidrs[0] != n.Spec.PodCIDR):
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	}
}

func nodeRow(n *corev1.Node, now time.Time) []any {
	info := n.Status.NodeInfo
	unknown := func(s string) string {
		if s == "" {
			return "<unknown>"
		}
		return s
	}
	return []any{
		n.Name, nodeStatusText(n), nodeRoles(n), age(n.CreationTimestamp, now), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		unknown(info.OSImage), unknown(info.KernelVersion), unknown(info.ContainerRuntimeVersion),
	}
}

func nodeStatusText(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		status = "NotReady"
		if c.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

func nodeRoles(n *corev1.Node) string {
	seen := map[string]bool{}
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, labelNodeRolePrefix); ok && role != "" {
			seen[role] = true
		} else if key == labelNodeRole && value != "" {
			seen[value] = true
		}
	}
	roles := make([]string, 0, len(seen))
	for role := range seen {
		roles = append(roles, role)
	}
	sort.Strings(roles)
	return orNone(strings.Join(roles, ","))
}

func nodeAddress(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return "<none>"
}
