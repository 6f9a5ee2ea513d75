package resource

import (
	"testing"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWorkload(t *testing.T) {
	type workload = schedulingv1beta1.Workload
	first := func(f func(*schedulingv1beta1.PodGroupTemplate)) func(*workload) {
		return func(w *workload) { f(&w.Spec.PodGroupTemplates[0]) }
	}
	type template = schedulingv1beta1.PodGroupTemplate
	testCreate(t, workloads(), []change[*workload]{
		{"no templates", func(w *workload) { w.Spec.PodGroupTemplates = nil }, errs("Required spec.podGroupTemplates")},
		{"nine templates", func(w *workload) {
			for i := range 8 {
				t := *w.Spec.PodGroupTemplates[0].DeepCopy()
				t.Name = string(rune('a' + i))
				w.Spec.PodGroupTemplates = append(w.Spec.PodGroupTemplates, t)
			}
		}, errs("TooMany spec.podGroupTemplates")},
		{"twice", func(w *workload) {
			w.Spec.PodGroupTemplates = append(w.Spec.PodGroupTemplates, w.Spec.PodGroupTemplates[0])
		}, errs("Duplicate spec.podGroupTemplates[1]")},
		{"composite", func(w *workload) {
			w.Spec.CompositePodGroupTemplates = []schedulingv1beta1.CompositePodGroupTemplate{{}}
		}, errs("Forbidden spec.compositePodGroupTemplates")},
		{"controller", func(w *workload) {
			w.Spec.ControllerRef = &schedulingv1beta1.TypedLocalObjectReference{APIGroup: "A", Kind: "a/b"}
		}, errs("Invalid spec.controllerRef.apiGroup", "Invalid spec.controllerRef.kind", "Required spec.controllerRef.name")},
		{"name", first(func(t *template) { t.Name = "A" }), errs("Invalid spec.podGroupTemplates[0].name")},
		{"no policy", first(func(t *template) { t.SchedulingPolicy.Gang = nil }), errs("Invalid spec.podGroupTemplates[0].schedulingPolicy")},
		{"two policies", first(func(t *template) { t.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{} }),
			errs("Invalid spec.podGroupTemplates[0].schedulingPolicy")},
		{"gang of none", first(func(t *template) { t.SchedulingPolicy.Gang.MinCount = 0 }),
			errs("Invalid spec.podGroupTemplates[0].schedulingPolicy.gang.minCount")},
		{"two topologies", first(func(t *template) {
			t.SchedulingConstraints.Topology = []schedulingv1beta1.TopologyConstraint{{Key: "a"}, {Key: ""}}
		}), errs("TooMany spec.podGroupTemplates[0].schedulingConstraints.topology", "Required spec.podGroupTemplates[0].schedulingConstraints.topology[1].key")},
		{"claim", first(func(t *template) { t.ResourceClaims[0].ResourceClaimName = new("x") }),
			errs("Invalid spec.podGroupTemplates[0].resourceClaims[0]")},
		{"disruption", first(func(t *template) { t.DisruptionMode = &schedulingv1beta1.DisruptionMode{} }),
			errs("Invalid spec.podGroupTemplates[0].disruptionMode")},
		{"class", first(func(t *template) { t.PriorityClassName = "A" }), errs("Invalid spec.podGroupTemplates[0].priorityClassName")},
		{"priority", first(func(t *template) { t.Priority = new(int32(1_000_000_001)) }), errs("Invalid spec.podGroupTemplates[0].priority")},
		{"preemption", first(func(t *template) { t.PreemptionPolicy = new(schedulingv1beta1.PreemptNever) }),
			errs("Forbidden spec.podGroupTemplates[0].preemptionPolicy")},
	})
	testUpdate(t, workloads(), nil, []change[*workload]{
		{"gang", first(func(t *template) { t.SchedulingPolicy.Gang.MinCount = 9 }), nil},
		{"renamed", first(func(t *template) { t.Name = "b" }), errs("Forbidden spec.podGroupTemplates[0]", "Forbidden spec.podGroupTemplates")},
		{"policy", first(func(t *template) {
			t.SchedulingPolicy = schedulingv1beta1.PodGroupSchedulingPolicy{Basic: &schedulingv1beta1.BasicSchedulingPolicy{}}
		}), errs("Invalid spec.podGroupTemplates[0].schedulingPolicy.basic", "Invalid spec.podGroupTemplates[0].schedulingPolicy.gang")},
		{"class", first(func(t *template) { t.PriorityClassName = "low" }), errs("Invalid spec.podGroupTemplates[0].priorityClassName")},
		{"controller", func(w *workload) { w.Spec.ControllerRef = nil }, errs("Invalid spec.controllerRef")},
	})
}

func TestPodGroup(t *testing.T) {
	type podGroup = schedulingv1beta1.PodGroup
	testCreate(t, podGroups(), []change[*podGroup]{
		{"parent", func(g *podGroup) { g.Spec.ParentCompositePodGroupName = new("p") }, errs("Forbidden spec.parentCompositePodGroupName")},
		{"ref", func(g *podGroup) { g.Spec.WorkloadRef.TemplateName = "" }, errs("Required spec.workloadRef.templateName")},
		{"gang", func(g *podGroup) { g.Spec.SchedulingPolicy.Gang.MinCount = -1 }, errs("Invalid spec.schedulingPolicy.gang.minCount")},
	})
	testUpdate(t, podGroups(), nil, []change[*podGroup]{
		{"gang", func(g *podGroup) { g.Spec.SchedulingPolicy.Gang.MinCount = 5 }, nil},
		{"ref", func(g *podGroup) { g.Spec.WorkloadRef = nil }, errs("Invalid spec.workloadRef")},
	})
	g := created(t, podGroups()).(*podGroup)
	if g.Spec.DisruptionMode == nil || g.Spec.DisruptionMode.Single == nil {
		t.Errorf("disruptionMode is %v, want single", g.Spec.DisruptionMode)
	}
	g.Status.ResourceClaimStatuses = []schedulingv1beta1.PodGroupResourceClaimStatus{{Name: "gpu"}, {Name: "gpu"}, {Name: "other"}}
	g.Status.Conditions = []metav1.Condition{{Type: "x"}}
	if got := podGroups().ValidateStatus(g, g); len(got) < 4 {
		t.Errorf("a status with a claim twice, one of no claim and half a condition is refused for %v only", got)
	}
}
