package resource

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestDeployment(t *testing.T) {
	testCreate(t, deployments(), []change[*appsv1.Deployment]{
		{"no selector", func(d *appsv1.Deployment) { d.Spec.Selector = nil }, errs("Required spec.selector")},
		{"empty selector", func(d *appsv1.Deployment) { d.Spec.Selector = &metav1.LabelSelector{} }, errs("Invalid spec.selector")},
		{"other labels", func(d *appsv1.Deployment) { d.Spec.Template.Labels["app"] = "x" }, errs("Invalid spec.template.metadata.labels")},
		{"bad selector", func(d *appsv1.Deployment) { d.Spec.Selector.MatchLabels["a b"] = "c" },
			errs("Invalid spec.selector", "Invalid spec.selector.matchLabels")},
		{"restart policy", func(d *appsv1.Deployment) { d.Spec.Template.Spec.RestartPolicy = "Never" }, errs("NotSupported spec.template.spec.restartPolicy")},
		{"deadline", func(d *appsv1.Deployment) { d.Spec.Template.Spec.ActiveDeadlineSeconds = new(int64(1)) },
			errs("Forbidden spec.template.spec.activeDeadlineSeconds")},
		{"replicas", func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(-1)) }, errs("Invalid spec.replicas")},
		{"container", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Name = "" }, errs("Required spec.template.spec.containers[0].name")},
		{"strategy", func(d *appsv1.Deployment) { d.Spec.Strategy.Type = "Slow" }, errs("NotSupported spec.strategy")},
		{"recreate with numbers", func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: "Recreate", RollingUpdate: &appsv1.RollingUpdateDeployment{}}
		}, errs("Forbidden spec.strategy.rollingUpdate")},
		{"no step", func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: new(intstr.FromInt32(0)), MaxUnavailable: new(intstr.FromString("0%"))}
		}, errs("Invalid spec.strategy.rollingUpdate.maxUnavailable")},
		{"more than all", func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: new(intstr.FromString("101%"))}
		}, errs("Invalid spec.strategy.rollingUpdate.maxUnavailable")},
		{"percent", func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: new(intstr.FromString("some"))}
		}, errs("Invalid spec.strategy.rollingUpdate.maxSurge")},
		{"progress", func(d *appsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = new(int32(5)); d.Spec.MinReadySeconds = 5 },
			errs("Invalid spec.progressDeadlineSeconds")},
	})
	testUpdate(t, deployments(), nil, []change[*appsv1.Deployment]{
		{"image", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "x" }, nil},
		{"selector", func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchLabels["app"] = "x"
			d.Spec.Template.Labels["app"] = "x"
		}, errs("Invalid spec.selector")},
	})
	testStatus(t, deployments(), nil, []change[*appsv1.Deployment]{
		{"counts", func(d *appsv1.Deployment) {
			d.Status = appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 2, AvailableReplicas: 3}
		}, errs("Invalid status.readyReplicas", "Invalid status.availableReplicas")},
	})
	r := deployments()
	old := created(t, r).(*appsv1.Deployment)
	d := old.DeepCopy()
	d.Annotations = map[string]string{"a": "b"}
	r.Prepare(d, old)
	if d.Generation != old.Generation+1 {
		t.Errorf("a new annotation leaves generation %d", d.Generation)
	}
}

func TestReplicaSet(t *testing.T) {
	testCreate(t, replicaSets(), []change[*appsv1.ReplicaSet]{
		{"other labels", func(rs *appsv1.ReplicaSet) { rs.Spec.Template.Labels = nil }, errs("Invalid spec.template.metadata.labels")},
		{"min ready", func(rs *appsv1.ReplicaSet) { rs.Spec.MinReadySeconds = -1 }, errs("Invalid spec.minReadySeconds")},
	})
	testUpdate(t, replicaSets(), nil, []change[*appsv1.ReplicaSet]{
		{"selector", func(rs *appsv1.ReplicaSet) { rs.Spec.Selector.MatchExpressions[0].Values = []string{"web", "x"} }, errs("Invalid spec.selector")},
	})
}

func TestScale(t *testing.T) {
	r := deployments()
	d := created(t, r).(*appsv1.Deployment)
	d.Status.Replicas = 3
	s := r.Scale(d)
	if s.Name != "web" || s.Spec.Replicas != 1 || s.Status.Replicas != 3 || s.Status.Selector != "app=web" {
		t.Errorf("scale: %+v", s)
	}
	s.Spec.Replicas = 5
	if errs := r.SetScale(d, s); len(errs) > 0 || *d.Spec.Replicas != 5 {
		t.Errorf("set to 5: %v, %d", errs, *d.Spec.Replicas)
	}
	s.Spec.Replicas = -1
	if got := errorTexts(r.SetScale(d, s)); len(got) != 1 || got[0] != "Invalid spec.replicas" || *d.Spec.Replicas != 5 {
		t.Errorf("set to -1: %v, %d", got, *d.Spec.Replicas)
	}
}

func TestPriorityClass(t *testing.T) {
	testCreate(t, priorityClasses(), []change[*schedulingv1.PriorityClass]{
		{"reserved", func(p *schedulingv1.PriorityClass) { p.Name = "system-mine" }, errs("Forbidden metadata.name")},
		{"too high", func(p *schedulingv1.PriorityClass) { p.Value = 1_000_000_001 }, errs("Forbidden value")},
		{"policy", func(p *schedulingv1.PriorityClass) { p.PreemptionPolicy = new(corev1.PreemptionPolicy("Sometimes")) }, errs("NotSupported preemptionPolicy")},
		{"system", func(p *schedulingv1.PriorityClass) { p.Name = "system-node-critical"; p.Value = 2_000_001_000 }, nil},
	})
	testUpdate(t, priorityClasses(), nil, []change[*schedulingv1.PriorityClass]{
		{"value", func(p *schedulingv1.PriorityClass) { p.Value++ }, errs("Forbidden value")},
		{"policy", func(p *schedulingv1.PriorityClass) { p.PreemptionPolicy = new(corev1.PreemptNever) }, errs("Invalid preemptionPolicy")},
		{"description", func(p *schedulingv1.PriorityClass) { p.Description = "x" }, nil},
	})
}

func TestRBAC(t *testing.T) {
	testCreate(t, roles(), []change[*rbacv1.Role]{
		{"no verbs", func(r *rbacv1.Role) { r.Rules[0].Verbs = nil }, errs("Required rules[0].verbs")},
		{"no groups", func(r *rbacv1.Role) { r.Rules[0].APIGroups = nil }, errs("Required rules[0].apiGroups")},
		{"URLs", func(r *rbacv1.Role) {
			r.Rules = []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/"}}}
		}, errs("Invalid rules[0].nonResourceURLs")},
	})
	testCreate(t, clusterRoles(), []change[*rbacv1.ClusterRole]{
		{"both", func(r *rbacv1.ClusterRole) { r.Rules[0].Resources = []string{"pods"} }, errs("Invalid rules[0].nonResourceURLs")},
		{"aggregation", func(r *rbacv1.ClusterRole) { r.AggregationRule.ClusterRoleSelectors = nil }, errs("Required aggregationRule.clusterRoleSelectors")},
	})
	testCreate(t, roleBindings(), []change[*rbacv1.RoleBinding]{
		{"kind", func(b *rbacv1.RoleBinding) { b.RoleRef.Kind = "User" }, errs("NotSupported roleRef.kind")},
		{"no name", func(b *rbacv1.RoleBinding) { b.RoleRef.Name = "" }, errs("Required roleRef.name")},
		{"subject kind", func(b *rbacv1.RoleBinding) { b.Subjects[0].Kind = "Robot" }, errs("NotSupported subjects[0].kind")},
		{"subject group", func(b *rbacv1.RoleBinding) { b.Subjects[3].APIGroup = "x" }, errs("NotSupported subjects[3].apiGroup")},
	})
	testCreate(t, clusterRoleBindings(), []change[*rbacv1.ClusterRoleBinding]{
		{"role", func(b *rbacv1.ClusterRoleBinding) { b.RoleRef.Kind = "Role" }, errs("NotSupported roleRef.kind")},
		{"no namespace", func(b *rbacv1.ClusterRoleBinding) {
			b.Subjects = []rbacv1.Subject{{Kind: "ServiceAccount", Name: "robot"}}
		}, errs("Required subjects[0].namespace")},
	})
	testUpdate(t, roleBindings(), nil, []change[*rbacv1.RoleBinding]{
		{"role", func(b *rbacv1.RoleBinding) { b.RoleRef.Name = "other" }, errs("Invalid roleRef")},
		{"subjects", func(b *rbacv1.RoleBinding) { b.Subjects = nil }, nil},
	})
}

func TestCertificateSigningRequest(t *testing.T) {
	r := certificateSigningRequests()
	type csr = certificatesv1.CertificateSigningRequest
	testCreate(t, r, []change[*csr]{
		{"request", func(c *csr) { c.Spec.Request = []byte("x") }, errs("Invalid spec.request")},
		{"no usages", func(c *csr) { c.Spec.Usages = nil }, errs("Required spec.usages")},
		{"usage", func(c *csr) { c.Spec.Usages[0] = "magic" }, errs("NotSupported spec.usages[0]")},
		{"usage twice", func(c *csr) { c.Spec.Usages[1] = c.Spec.Usages[0] }, errs("Duplicate spec.usages[1]")},
		{"no signer", func(c *csr) { c.Spec.SignerName = "" }, errs("Required spec.signerName")},
		{"signer", func(c *csr) { c.Spec.SignerName = "x" }, errs("Invalid spec.signerName")},
		{"time", func(c *csr) { c.Spec.ExpirationSeconds = new(int32(599)) }, errs("Invalid spec.expirationSeconds")},
	})
	testUpdate(t, r, nil, []change[*csr]{
		{"the spec stays", func(c *csr) { c.Spec.Username = "eve"; c.Spec.Usages = nil }, nil},
	})
	old := created(t, r).(*csr)
	approved := old.DeepCopy()
	approved.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	approved.Status.Certificate = []byte("x")
	approval, _ := r.Subresource("approval")
	approval.Prepare(approved, old)
	if got := approval.Validate(approved, old); len(got) > 0 || len(approved.Status.Certificate) > 0 || len(approved.Status.Conditions) != 1 {
		t.Errorf("approve: %v, %+v", got, approved.Status)
	}
	undone := approved.DeepCopy()
	undone.Status.Conditions[0].Type = certificatesv1.CertificateDenied
	approval.Prepare(undone, approved)
	if got := errorTexts(approval.Validate(undone, approved)); len(got) != 1 || got[0] != "Forbidden status.conditions" {
		t.Errorf("approval undone: %v", got)
	}
	sneaky := old.DeepCopy()
	sneaky.Status.Conditions = approved.Status.Conditions
	r.PrepareStatus(sneaky, old)
	if len(sneaky.Status.Conditions) != 0 {
		t.Error("a signer approved through /status")
	}
	stamped := old.DeepCopy()
	StampRequester(stamped, "ada", "7", []string{"ops"}, nil)
	if stamped.Spec.Username != "ada" || stamped.Spec.UID != "7" || len(stamped.Spec.Groups) != 1 {
		t.Errorf("requester: %+v", stamped.Spec)
	}
}
