package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestStatefulSet(t *testing.T) {
	type set = appsv1.StatefulSet
	testCreate(t, statefulSets(), []change[*set]{
		{"management", func(s *set) { s.Spec.PodManagementPolicy = "Chaos" }, errs("Invalid spec.podManagementPolicy")},
		{"on delete with numbers", func(s *set) {
			s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: "OnDelete", RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{}}
		}, errs("Invalid spec.updateStrategy.rollingUpdate")},
		{"partition", func(s *set) {
			s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(-1))}}
		}, errs("Invalid spec.updateStrategy.rollingUpdate.partition")},
		{"retention", func(s *set) {
			s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: "Maybe"}
		}, errs("NotSupported spec.persistentVolumeClaimRetentionPolicy.whenScaled")},
		{"mount of no claim", func(s *set) { s.Spec.VolumeClaimTemplates = nil }, errs("NotFound spec.template.spec.containers[0].volumeMounts[0].name")},
	})
	testUpdate(t, statefulSets(), nil, []change[*set]{
		{"replicas", func(s *set) { s.Spec.Replicas = new(int32(3)) }, nil},
		{"service", func(s *set) { s.Spec.ServiceName = "other" }, errs("Forbidden spec")},
		{"claim", func(s *set) { s.Spec.VolumeClaimTemplates[0].Labels = map[string]string{"a": "b"} }, errs("Forbidden spec")},
	})
}

func TestDaemonSet(t *testing.T) {
	type set = appsv1.DaemonSet
	update := func(unavailable, surge int32) func(*set) {
		return func(s *set) {
			s.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateDaemonSet{
				MaxUnavailable: new(intstr.FromInt32(unavailable)), MaxSurge: new(intstr.FromInt32(surge))}}
		}
	}
	testCreate(t, daemonSets(), []change[*set]{
		{"strategy", func(s *set) { s.Spec.UpdateStrategy.Type = "x" }, errs("NotSupported spec.updateStrategy")},
		{"neither", update(0, 0), errs("Required spec.updateStrategy.rollingUpdate.maxUnavailable")},
		{"both", update(1, 1), errs("Invalid spec.updateStrategy.rollingUpdate.maxSurge")},
		{"surge", update(0, 1), nil},
	})
	testUpdate(t, daemonSets(), nil, []change[*set]{
		{"selector", func(s *set) {
			s.Spec.Selector.MatchLabels["app"] = "x"
			s.Spec.Template.Labels["app"] = "x"
		}, errs("Invalid spec.selector")},
	})
}

func TestJob(t *testing.T) {
	testCreate(t, jobs(), []change[*batchv1.Job]{
		{"restart policy", func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = "Always"; j.Spec.PodFailurePolicy = nil },
			errs("Required spec.template.spec.restartPolicy")},
		{"completions", func(j *batchv1.Job) { j.Spec.Completions = new(int32(-1)) }, errs("Invalid spec.completions")},
		{"indexed without completions", func(j *batchv1.Job) {
			j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
			j.Spec.Parallelism = new(int32(1))
		}, errs("Required spec.completions")},
		{"own selector", func(j *batchv1.Job) {
			j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		}, errs("Invalid spec.template.metadata.labels")},
		{"manual selector", func(j *batchv1.Job) {
			j.Spec.ManualSelector = new(true)
			j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
			j.Spec.Template.Labels = map[string]string{"a": "b"}
		}, nil},
		{"failure action", func(j *batchv1.Job) { j.Spec.PodFailurePolicy.Rules[0].Action = "Shrug" }, errs("NotSupported spec.podFailurePolicy.rules[0].action")},
		{"exit codes", func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy.Rules[0] = batchv1.PodFailurePolicyRule{Action: "FailJob", OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: "In", Values: []int32{2, 1, 0}}}
		}, errs("Invalid spec.podFailurePolicy.rules[0].onExitCodes.values", "Invalid spec.podFailurePolicy.rules[0].onExitCodes.values[2]")},
	})
	testUpdate(t, jobs(), nil, []change[*batchv1.Job]{
		{"parallelism", func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(4)) }, nil},
		{"suspend", func(j *batchv1.Job) { j.Spec.Suspend = new(true) }, nil},
		{"completions", func(j *batchv1.Job) { j.Spec.Completions = new(int32(4)) }, errs("Invalid spec.completions")},
		{"template", func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "x" }, errs("Invalid spec.template")},
	})
	j := created(t, jobs()).(*batchv1.Job)
	if j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != "u-1" || j.Spec.Template.Labels["job-name"] != "once" {
		t.Errorf("selector %v, labels %v", j.Spec.Selector, j.Spec.Template.Labels)
	}
}

func TestCronJob(t *testing.T) {
	testCreate(t, cronJobs(), []change[*batchv1.CronJob]{
		{"no schedule", func(c *batchv1.CronJob) { c.Spec.Schedule = "" }, errs("Required spec.schedule")},
		{"schedule", func(c *batchv1.CronJob) { c.Spec.Schedule = "61 * * * *" }, errs("Invalid spec.schedule")},
		{"zone in the schedule", func(c *batchv1.CronJob) { c.Spec.Schedule = "TZ=UTC 1 * * * *" }, errs("Invalid spec.schedule")},
		{"zone", func(c *batchv1.CronJob) { c.Spec.TimeZone = new("Mars/Base") }, errs("Invalid spec.timeZone")},
		{"policy", func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = "x" }, errs("NotSupported spec.concurrencyPolicy")},
		{"selector", func(c *batchv1.CronJob) { c.Spec.JobTemplate.Spec.Selector = &metav1.LabelSelector{} }, errs("Invalid spec.jobTemplate.spec.selector")},
		{"name", func(c *batchv1.CronJob) { c.Name = "a123456789a123456789a123456789a123456789a123456789a12" }, errs("Invalid metadata.name")},
	})
	for schedule, good := range map[string]bool{
		"* * * * *": true, "*/5 0-6,12 1 jan-mar ?": true, "@daily": true, "@every 5m": true, "0 0 31 12 7": true,
		"* * * *": false, "* * * * * *": false, "@often": false, "@every x": false, "5-1 * * * *": false, "*/0 * * * *": false,
		"0 24 * * *": false, "0 0 0 * *": false, "0 0 * foo *": false,
	} {
		if msg := badSchedule(schedule); (msg == "") != good {
			t.Errorf("%q: %q", schedule, msg)
		}
	}
}

func TestQuotas(t *testing.T) {
	testCreate(t, limitRanges(), []change[*corev1.LimitRange]{
		{"min above max", func(l *corev1.LimitRange) { l.Spec.Limits[0].Min["cpu"] = resource.MustParse("3") },
			errs("Invalid spec.limits[0].min[cpu]", "Invalid spec.limits[0].default[cpu]", "Invalid spec.limits[0].defaultRequest[cpu]",
				"Invalid spec.limits[0].maxLimitRequestRatio[cpu]")},
		{"default of a pod", func(l *corev1.LimitRange) {
			l.Spec.Limits[1].Default = corev1.ResourceList{"cpu": resource.MustParse("1")}
		}, errs("Forbidden spec.limits[1].default")},
		{"type twice", func(l *corev1.LimitRange) { l.Spec.Limits[1] = l.Spec.Limits[0] }, errs("Duplicate spec.limits[1].type")},
	})
	testCreate(t, resourceQuotas(), []change[*corev1.ResourceQuota]{
		{"name", func(q *corev1.ResourceQuota) { q.Spec.Hard["gold"] = resource.MustParse("1") }, errs("Invalid spec.hard[gold]")},
		{"half a pod", func(q *corev1.ResourceQuota) { q.Spec.Hard["pods"] = resource.MustParse("500m") }, errs("Invalid spec.hard[pods]")},
		{"scope", func(q *corev1.ResourceQuota) { q.Spec.Scopes = []corev1.ResourceQuotaScope{"Odd"} }, errs("Invalid spec.scopes")},
	})
	testUpdate(t, resourceQuotas(), nil, []change[*corev1.ResourceQuota]{
		{"scopes", func(q *corev1.ResourceQuota) {
			q.Spec.Scopes = []corev1.ResourceQuotaScope{"BestEffort"}
			q.Spec.Hard = corev1.ResourceList{"pods": resource.MustParse("1")}
		}, errs("Invalid spec.scopes")},
		{"hard", func(q *corev1.ResourceQuota) { q.Spec.Hard["pods"] = resource.MustParse("11") }, nil},
	})
}

func TestStorage(t *testing.T) {
	testCreate(t, persistentVolumes(), []change[*corev1.PersistentVolume]{
		{"no source", func(v *corev1.PersistentVolume) { v.Spec.HostPath = nil }, errs("Required spec")},
		{"two sources", func(v *corev1.PersistentVolume) { v.Spec.NFS = &corev1.NFSVolumeSource{} }, errs("Forbidden spec.nfs")},
		{"no size", func(v *corev1.PersistentVolume) { v.Spec.Capacity = nil }, errs("NotSupported spec.capacity", "Required spec.capacity")},
		{"modes", func(v *corev1.PersistentVolume) { v.Spec.AccessModes = nil }, errs("Required spec.accessModes")},
		{"local without node", func(v *corev1.PersistentVolume) {
			v.Spec.HostPath = nil
			v.Spec.Local = &corev1.LocalVolumeSource{Path: "/x"}
		}, errs("Required spec.nodeAffinity")},
	})
	testUpdate(t, persistentVolumes(), nil, []change[*corev1.PersistentVolume]{
		{"source", func(v *corev1.PersistentVolume) { v.Spec.HostPath.Path = "/other" }, errs("Forbidden spec.persistentvolumesource")},
		{"claim", func(v *corev1.PersistentVolume) { v.Spec.ClaimRef = nil }, nil},
	})
	testCreate(t, persistentVolumeClaims(), []change[*corev1.PersistentVolumeClaim]{
		{"no size", func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = nil }, errs("Required spec.resources[storage]")},
		{"no modes", func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes = nil }, errs("Required spec.accessModes")},
		{"once only", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = append(c.Spec.AccessModes, corev1.ReadWriteOncePod)
		}, errs("Forbidden spec.accessModes")},
	})
	testUpdate(t, persistentVolumeClaims(), nil, []change[*corev1.PersistentVolumeClaim]{
		{"class", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("fast") }, errs("Forbidden spec")},
		{"growth while pending", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests["storage"] = resource.MustParse("2Gi")
		}, errs("Forbidden spec")},
	})
	r := persistentVolumeClaims()
	bound := example(t, r).(*corev1.PersistentVolumeClaim)
	r.Default(bound)
	grown := bound.DeepCopy()
	grown.Spec.Resources.Requests["storage"] = resource.MustParse("20Gi")
	if errs := r.ValidateUpdate(grown, bound); len(errs) > 0 {
		t.Errorf("a bound claim grows: %v", errs)
	}
	if got := errorTexts(r.ValidateUpdate(bound, grown)); len(got) != 1 || got[0] != "Forbidden spec.resources.requests.storage" {
		t.Errorf("a bound claim shrinks: %v", got)
	}
	testCreate(t, storageClasses(), []change[*storagev1.StorageClass]{
		{"no provisioner", func(c *storagev1.StorageClass) { c.Provisioner = "" }, errs("Required provisioner")},
		{"policy", func(c *storagev1.StorageClass) { c.ReclaimPolicy = new(corev1.PersistentVolumeReclaimRecycle) }, errs("NotSupported reclaimPolicy")},
	})
	testUpdate(t, storageClasses(), nil, []change[*storagev1.StorageClass]{
		{"parameters", func(c *storagev1.StorageClass) { c.Parameters = map[string]string{"a": "b"} }, errs("Forbidden parameters")},
		{"mode", func(c *storagev1.StorageClass) {
			c.VolumeBindingMode = new(storagev1.VolumeBindingWaitForFirstConsumer)
		}, errs("Invalid volumeBindingMode")},
	})
	testUpdate(t, csiDrivers(), nil, []change[*storagev1.CSIDriver]{
		{"attach", func(d *storagev1.CSIDriver) { d.Spec.AttachRequired = new(false) }, errs("Invalid spec.attachedRequired")},
		{"tokens", func(d *storagev1.CSIDriver) { d.Spec.TokenRequests = nil }, nil},
	})
	testCreate(t, volumeAttachments(), []change[*storagev1.VolumeAttachment]{
		{"no source", func(a *storagev1.VolumeAttachment) { a.Spec.Source = storagev1.VolumeAttachmentSource{} }, errs("Required spec.source")},
	})
}

func TestPodDisruptionBudget(t *testing.T) {
	testCreate(t, podDisruptionBudgets(), []change[*policyv1.PodDisruptionBudget]{
		{"both", func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = new(intstr.FromInt32(1)) }, errs("Invalid spec")},
		{"percent", func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = new(intstr.FromString("x")) }, errs("Invalid spec.minAvailable")},
		{"too much", func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = new(intstr.FromString("101%")) }, errs("Invalid spec.minAvailable")},
		{"policy", func(b *policyv1.PodDisruptionBudget) {
			b.Spec.UnhealthyPodEvictionPolicy = new(policyv1.UnhealthyPodEvictionPolicyType("x"))
		}, errs("NotSupported spec.unhealthyPodEvictionPolicy")},
	})
}

func TestHorizontalPodAutoscaler(t *testing.T) {
	type hpa = autoscalingv2.HorizontalPodAutoscaler
	r := horizontalPodAutoscalers()
	testCreate(t, r, []change[*hpa]{
		{"max below min", func(h *hpa) { h.Spec.MinReplicas = new(int32(9)) }, errs("Invalid spec.maxReplicas")},
		{"no target", func(h *hpa) { h.Spec.ScaleTargetRef.Name = "" }, errs("Required spec.scaleTargetRef.name")},
		{"other source", func(h *hpa) { h.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: "Pods"}} }, errs("Required spec.metrics[0].pods")},
		{"policy", func(h *hpa) {
			h.Spec.Behavior.ScaleUp = &autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{{Type: "Pods", Value: 0, PeriodSeconds: 1}}}
		}, errs("Invalid spec.behavior.scaleUp.policies[0].value")},
	})
	h := created(t, r).(*hpa)
	h.TypeMeta = metav1.TypeMeta{}
	h.Annotations = map[string]string{"mine": "kept"}
	h.Spec.Metrics = append(h.Spec.Metrics, autoscalingv2.MetricSpec{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "rps"}, Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: new(resource.MustParse("10"))}}})
	v1, err := r.Views[0].To(h)
	if err != nil {
		t.Fatal(err)
	}
	if p := v1.(*autoscalingv1.HorizontalPodAutoscaler).Spec.TargetCPUUtilizationPercentage; p == nil || *p != 80 {
		t.Errorf("v1 aims at %v", p)
	}
	back, err := r.Views[0].From(v1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h, back); diff != "" {
		t.Errorf("to v1 and back:\n%s", diff)
	}
}

func TestNetworking(t *testing.T) {
	testCreate(t, networkPolicies(), []change[*networkingv1.NetworkPolicy]{
		{"no peer", func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{} }, errs("Required spec.ingress[0].from[0]")},
		{"two peers", func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress[0].From[1].PodSelector = &metav1.LabelSelector{} }, errs("Forbidden spec.ingress[0].from[1]")},
		{"cidr", func(p *networkingv1.NetworkPolicy) {
			p.Spec.Ingress[0].From[1].IPBlock = &networkingv1.IPBlock{CIDR: "x"}
		}, errs("Invalid spec.ingress[0].from[1].ipBlock.cidr")},
		{"except", func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress[0].From[1].IPBlock.Except[0] = "11.0.0.0/16" }, errs("Invalid spec.ingress[0].from[1].ipBlock.except[0]")},
		{"end port", func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress[0].Ports[0].EndPort = new(int32(79)) }, errs("Invalid spec.ingress[0].ports[0].endPort")},
		{"type", func(p *networkingv1.NetworkPolicy) { p.Spec.PolicyTypes = []networkingv1.PolicyType{"Sideways"} }, errs("NotSupported spec.policyTypes[0]")},
	})
	testCreate(t, ingresses(), []change[*networkingv1.Ingress]{
		{"nothing", func(in *networkingv1.Ingress) { in.Spec.Rules = nil }, errs("Invalid spec")},
		{"path", func(in *networkingv1.Ingress) { in.Spec.Rules[0].HTTP.Paths[0].Path = "a" }, errs("Invalid spec.rules[0].http.paths[0].path")},
		{"path steps", func(in *networkingv1.Ingress) { in.Spec.Rules[0].HTTP.Paths[0].Path = "/a/../b" }, errs("Invalid spec.rules[0].http.paths[0].path")},
		{"path type", func(in *networkingv1.Ingress) { in.Spec.Rules[0].HTTP.Paths[0].PathType = nil }, errs("Required spec.rules[0].http.paths[0].pathType")},
		{"host", func(in *networkingv1.Ingress) { in.Spec.Rules[0].Host = "a b" }, errs("Invalid spec.rules[0].host")},
		{"port", func(in *networkingv1.Ingress) { in.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Port.Number = 0 }, errs("Required spec.rules[0].http.paths[0].backend")},
	})
	testUpdate(t, ingressClasses(), nil, []change[*networkingv1.IngressClass]{
		{"controller", func(c *networkingv1.IngressClass) { c.Spec.Controller = "example.com/other" }, errs("Invalid spec.controller")},
	})
	testCreate(t, serviceCIDRs(), []change[*networkingv1.ServiceCIDR]{
		{"none", func(s *networkingv1.ServiceCIDR) { s.Spec.CIDRs = nil }, errs("Required spec.cidrs")},
		{"cidr", func(s *networkingv1.ServiceCIDR) { s.Spec.CIDRs[0] = "10.96.0.0" }, errs("Invalid spec.cidrs[0]")},
	})
	if len(ipAddresses().ValidateName("10.96.0.01", false)) == 0 || len(ipAddresses().ValidateName("10.96.0.1", false)) > 0 {
		t.Error("only the canonical form names an IPAddress")
	}
}
