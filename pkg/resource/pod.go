package resource

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func pods() *Resource {
	return define(Resource{
		Version: "v1", Kind: "Pod", Plural: "pods", ShortNames: []string{"po"},
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		Subresources:        podSubresources(),
		Templates:           templatesOfPods(),
		Graceless:           gracelessPod,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &corev1.Pod{} },
		NewList:             func() runtime.Object { return &corev1.PodList{} },
		FieldsRead: []string{
			"spec.hostNetwork", "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
			"status.nominatedNodeName", "status.phase", "status.podIP", "status.podIPs",
		},
		FieldNames: []string{
			"spec.hostNetwork", "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
			"status.nominatedNodeName", "status.phase", "status.podIP", "status.podIPs",
		},
		Columns: columns("Name", "Ready", "Status", "Restarts", "Age",
			"+IP", "+Node", "+Nominated Node", "+Readiness Gates"),
	}, hooks[*corev1.Pod]{
		Default:        defaultPod,
		Prepare:        preparePod,
		PrepareStatus:  preparePodStatus,
		Validate:       validatePod,
		ValidateSame:   validateSamePod,
		ValidateUpdate: validatePodUpdate,
		ValidateStatus: validatePodStatus,
		Warnings: func(pod, old *corev1.Pod) []string {
			// People change workloads, not pods; controllers read no warnings.
			if old != nil {
				return nil
			}
			return podSpecWarnings(field.NewPath("spec"), &pod.Spec)
		},
		Fields: podFields,
		Grace:  podGrace,
		Row:    podRow,
	})
}

func podSubresources() []Subresource {
	kind := func(group, version, kind string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
	}
	proxyVerbs := []string{"create", "delete", "get", "patch", "update"}
	stream := []string{"create", "get"}
	return []Subresource{
		{Name: "attach", Kind: kind("", "v1", "PodAttachOptions"), Verbs: stream},
		{Name: "binding", Kind: kind("", "v1", "Binding"), Verbs: []string{"create"}},
		{Name: "ephemeralcontainers", Verbs: []string{"get", "patch", "update"},
			Prepare: two(prepareEphemeralContainers), Validate: twoResult(validateEphemeralContainers)},
		{Name: "eviction", Kind: kind("policy", "v1", "Eviction"), Verbs: []string{"create"}},
		{Name: "exec", Kind: kind("", "v1", "PodExecOptions"), Verbs: stream},
		{Name: "log", Verbs: []string{"get"}},
		{Name: "portforward", Kind: kind("", "v1", "PodPortForwardOptions"), Verbs: stream},
		{Name: "proxy", Kind: kind("", "v1", "PodProxyOptions"), Verbs: proxyVerbs},
		{Name: "resize", Verbs: []string{"get", "patch", "update"},
			Prepare: two(prepareResize), Validate: twoResult(validateResize)},
	}
}

func defaultPod(pod *corev1.Pod) {
	spec := &pod.Spec
	defaultPodSpec(spec)
	requestsFromLimits(spec.Containers)
	requestsFromLimits(spec.InitContainers)
	defaultPodLevelResources(pod)
	if spec.EnableServiceLinks == nil {
		spec.EnableServiceLinks = new(corev1.DefaultEnableServiceLinks)
	}
	if spec.HostNetwork {
		hostPortsFromPorts(spec.Containers)
		hostPortsFromPorts(spec.InitContainers)
	}
	syncPodIPs(&pod.Status)
}

// hostPortsFromPorts: on the host's network a container's port is the host's.
func hostPortsFromPorts(containers []corev1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			if p := &containers[i].Ports[j]; p.HostPort == 0 {
				p.HostPort = p.ContainerPort
			}
		}
	}
}

// syncPodIPs keeps the singular and the plural fields of addresses the same;
// where they differ the singular one, which every client knows, wins.
func syncPodIPs(s *corev1.PodStatus) {
	switch {
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
}

func preparePod(pod, old *corev1.Pod) {
	if old != nil {
		return
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: QOSClass(&pod.Spec)}
	if len(pod.Spec.SchedulingGates) > 0 {
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	matchOwnLabels(pod)
}

// matchOwnLabels turns matchLabelKeys of pod affinity and topology spread
// into expressions on the values that this pod's labels have (KEP-3633,
// KEP-3243).
func matchOwnLabels(pod *corev1.Pod) {
	term := func(t *corev1.PodAffinityTerm) {
		matchKeys(pod.Labels, t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		matchKeys(pod.Labels, t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			term(&required[i])
		}
		for i := range preferred {
			term(&preferred[i].PodAffinityTerm)
		}
	}
	if a := pod.Spec.Affinity; a != nil {
		if p := a.PodAffinity; p != nil {
			terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if p := a.PodAntiAffinity; p != nil {
			terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		matchKeys(pod.Labels, c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}

func matchKeys(labels map[string]string, sel *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
	if sel == nil {
		return
	}
	for _, key := range keys {
		if value, ok := labels[key]; ok {
			sel.MatchExpressions = append(sel.MatchExpressions,
				metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
		}
	}
}

func preparePodStatus(pod, old *corev1.Pod) {
	// The owner is no business of the node agent that writes the status.
	pod.OwnerReferences = slices.Clone(old.OwnerReferences)
	if pod.Status.QOSClass == "" {
		pod.Status.QOSClass = old.Status.QOSClass
	}
}

// prepareEphemeralContainers lets an update change nothing but the ephemeral
// containers.
func prepareEphemeralContainers(pod, old *corev1.Pod) {
	added := pod.Spec.EphemeralContainers
	keepPod(pod, old)
	pod.Spec.EphemeralContainers = added
}

// prepareResize lets an update change nothing but resources and the resize
// policy of containers.
func prepareResize(pod, old *corev1.Pod) {
	asked := pod.Spec
	keepPod(pod, old)
	if len(asked.Containers) != len(old.Spec.Containers) || len(asked.InitContainers) != len(old.Spec.InitContainers) {
		// Validation reports it; nothing can be matched up here.
		pod.Spec.Containers, pod.Spec.InitContainers = asked.Containers, asked.InitContainers
		return
	}
	resize := func(to, from []corev1.Container) {
		for i := range to {
			to[i].Resources = from[i].Resources
			to[i].ResizePolicy = from[i].ResizePolicy
		}
	}
	resize(pod.Spec.Containers, asked.Containers)
	resize(pod.Spec.InitContainers, asked.InitContainers)
	pod.Spec.Resources = asked.Resources
}

// keepPod puts old's spec, status and what metadata a subresource may not
// touch back into pod.
func keepPod(pod, old *corev1.Pod) {
	rv, managed := pod.ResourceVersion, pod.ManagedFields
	old.DeepCopyInto(pod)
	pod.ResourceVersion, pod.ManagedFields = rv, managed
}

func podFields(pod *corev1.Pod) map[string]string {
	ip := pod.Status.PodIP
	if ip == "" && len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	return map[string]string{
		"spec.hostNetwork":         strconv.FormatBool(pod.Spec.HostNetwork),
		"spec.nodeName":            pod.Spec.NodeName,
		"spec.restartPolicy":       string(pod.Spec.RestartPolicy),
		"spec.schedulerName":       pod.Spec.SchedulerName,
		"spec.serviceAccountName":  pod.Spec.ServiceAccountName,
		"status.nominatedNodeName": pod.Status.NominatedNodeName,
		"status.phase":             string(pod.Status.Phase),
		"status.podIP":             ip,
	}
}

// podGrace: a bound pod that may still run is deleted by its node, after the
// requested time or the pod's own. A negative time means the shortest one
// that still lets the node act.
func podGrace(pod *corev1.Pod, requested *int64) Grace {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	switch {
	case requested != nil:
		seconds = *requested
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		seconds = *pod.Spec.TerminationGracePeriodSeconds
	}
	if seconds < 0 {
		seconds = 1
	}
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		seconds = 0
	}
	return Grace{Seconds: seconds, Graceful: seconds > 0}
}

// gracelessPod is what podGrace says of a pod that no node runs.
func gracelessPod(fields map[string]string, _ *int64) bool {
	node, known := fields["spec.nodeName"]
	phase := corev1.PodPhase(fields["status.phase"])
	return known && (node == "" || phase == corev1.PodSucceeded || phase == corev1.PodFailed)
}
