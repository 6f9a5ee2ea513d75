package fleet_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/kubelet/fleet"
	"coracle/pkg/testcluster"
)

// TestMain takes the pause out of the client library's handling of errors: it
// remembers the time of the last error, against which a bubble's virtual time
// lies decades in the past, so that the next error would wait for as long.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	os.Exit(m.Run())
}

// limit bounds what a test waits for, in virtual time.
const limit = time.Minute

// lab is a control plane and the credential of a fleet: just what the package
// says that it needs.
type lab struct {
	*testcluster.Cluster
	t      *testing.T
	client kubernetes.Interface
}

func newLab(t *testing.T) *lab {
	l := &lab{Cluster: testcluster.Start(t, testcluster.WithRoles()), t: t}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "fleet"}, Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"nodes", "pods"}},
		{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users"}},
		{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"groups"}, ResourceNames: []string{"system:nodes"}},
	}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "fleet"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "fleet"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "fleet"}},
	}
	if _, err := l.Client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.client = kubernetes.NewForConfigOrDie(l.As("fleet"))
	return l
}

// run starts a fleet and returns its end.
func (l *lab) run(cfg fleet.Config) (stop func()) {
	l.t.Helper()
	cfg.Client = l.client
	f, err := fleet.New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	select {
	case <-f.Registered():
	case <-time.After(limit):
		l.t.Fatal("the nodes are not registered")
	}
	return func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	}
}

// eventually polls, in virtual time.
func (l *lab) eventually(what string, ok func() string) {
	l.t.Helper()
	last := ""
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if last = ok(); last == "" {
			return
		}
	}
	l.t.Fatalf("%s: %s", what, last)
}

func (l *lab) pods() []corev1.Pod {
	l.t.Helper()
	list, err := l.Client.CoreV1().Pods("default").List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return list.Items
}

func (l *lab) create(pods ...*corev1.Pod) {
	l.t.Helper()
	for _, p := range pods {
		if _, err := l.Client.CoreV1().Pods("default").Create(l.t.Context(), p, metav1.CreateOptions{}); err != nil {
			l.t.Fatal(err)
		}
	}
}

func simple(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

// phases counts pods by phase.
func (l *lab) phases() string {
	count := map[corev1.PodPhase]int{}
	for _, p := range l.pods() {
		count[p.Status.Phase]++
	}
	return fmt.Sprint(count)
}

func TestPodsRunAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		stop := l.run(fleet.Config{Count: 3, Zones: 2, StartTime: time.Second, StopTime: 5 * time.Second})
		defer stop()
		p := simple("p")
		p.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "i"}}
		l.create(p, simple("q"), simple("r"), simple("s"))
		l.eventually("pods run", func() string {
			if got := l.phases(); got != "map[Running:4]" {
				return got
			}
			return ""
		})
		ips := map[string]bool{}
		for _, p := range l.pods() {
			ips[p.Status.PodIP] = true
			cs := p.Status.ContainerStatuses
			if len(cs) != 1 || cs[0].State.Running == nil || !cs[0].Ready || !strings.HasPrefix(cs[0].ContainerID, "simulated://") {
				t.Errorf("%s: containers are %+v", p.Name, cs)
			}
			if took := p.Status.StartTime.Sub(p.CreationTimestamp.Time); took < time.Second || took > 3*time.Second {
				t.Errorf("%s started after %s", p.Name, took)
			}
			for _, c := range p.Status.Conditions {
				if c.Status != corev1.ConditionTrue {
					t.Errorf("%s: condition %s is %s", p.Name, c.Type, c.Status)
				}
			}
			if p.Name == "p" && p.Status.InitContainerStatuses[0].State.Terminated == nil {
				t.Error("the init container is not said to have ended")
			}
		}
		if len(ips) != 4 || ips[""] {
			t.Errorf("addresses are %v", ips)
		}
		began := time.Now()
		if err := l.Client.CoreV1().Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		l.eventually("the pod is gone", func() string {
			if n := len(l.pods()); n != 3 {
				return fmt.Sprint(n, " pods")
			}
			return ""
		})
		if took := time.Since(began); took < 4*time.Second || took > 7*time.Second {
			t.Errorf("the pod went after %s, want about 5 s", took)
		}
	})
}

// TestAgain: a fleet that comes back finds its pods in what it told, and writes
// nothing about them; what happened meanwhile it catches up with.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		stop := l.run(fleet.Config{Count: 2})
		l.create(simple("a"), simple("b"))
		l.eventually("pods run", func() string {
			if got := l.phases(); got != "map[Running:2]" {
				return got
			}
			return ""
		})
		stop()
		l.create(simple("c"))
		if err := l.Client.CoreV1().Pods("default").Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		before := l.pods()[0]
		defer l.run(fleet.Config{Count: 2})()
		l.eventually("c runs and b is gone", func() string {
			if got := l.phases(); got != "map[Running:2]" || len(l.pods()) != 2 || l.pods()[1].Name != "c" {
				return got
			}
			return ""
		})
		time.Sleep(20 * time.Second) // in virtual time: whatever would be written, is
		pods := l.pods()
		if pods[0].ResourceVersion != before.ResourceVersion {
			t.Errorf("pod a was written again: %+v", pods[0].Status)
		}
		if pods[0].Spec.NodeName == pods[1].Spec.NodeName && pods[0].Status.PodIP == pods[1].Status.PodIP {
			t.Error("two pods have one address")
		}
	})
}

func TestJobsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.run(fleet.Config{Count: 2, RunTime: 3 * time.Second})()
		n := int32(4)
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{Completions: &n, Parallelism: &n, Template: corev1.PodTemplateSpec{
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}}}
		if _, err := l.Client.BatchV1().Jobs("default").Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		l.create(simple("stays"))
		l.eventually("the job completes", func() string {
			j, err := l.Client.BatchV1().Jobs("default").Get(t.Context(), "j", metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			if j.Status.Succeeded != 4 || j.Status.CompletionTime == nil {
				return fmt.Sprintf("%+v", j.Status)
			}
			return ""
		})
		time.Sleep(10 * time.Second)
		if got := l.phases(); got != "map[Running:1 Succeeded:4]" {
			t.Errorf("pods are %s, want the one that may not end to run", got)
		}
	})
}

// TestNodesStay: leases are renewed, nodes are ready for as long as the fleet
// runs, and one that somebody deletes comes back.
func TestNodesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.run(fleet.Config{Count: 5, Prefix: "many", Zones: 2, Labels: map[string]string{"a": "b"}})()
		time.Sleep(15 * time.Minute)
		check := func() string {
			nodes, err := l.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{LabelSelector: "a=b,topology.kubernetes.io/zone=zone-0," + fleet.Label + "=many"})
			if err != nil || len(nodes.Items) != 3 {
				return fmt.Sprint(len(nodes.Items), " nodes of the zone ", err)
			}
			for _, n := range nodes.Items {
				for _, c := range n.Status.Conditions {
					if c.Type == corev1.NodeReady && (c.Status != corev1.ConditionTrue || time.Since(c.LastHeartbeatTime.Time) > 6*time.Minute) {
						return fmt.Sprintf("%s: %+v", n.Name, c)
					}
				}
				if len(n.Spec.Taints) > 0 {
					return fmt.Sprintf("%s: %v", n.Name, n.Spec.Taints)
				}
			}
			leases, err := l.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(t.Context(), metav1.ListOptions{})
			if err != nil || len(leases.Items) != 5 {
				return fmt.Sprint(len(leases.Items), " leases ", err)
			}
			for _, lease := range leases.Items {
				if age := time.Since(lease.Spec.RenewTime.Time); age > 11*time.Second {
					return fmt.Sprintf("lease %s is %s old", lease.Name, age)
				}
			}
			return ""
		}
		if wrong := check(); wrong != "" {
			t.Error(wrong)
		}
		if err := l.Client.CoreV1().Nodes().Delete(t.Context(), "many-0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		l.eventually("the node comes back", check)
	})
}

// TestUnreachable: what controllers wrote while the fleet was away is put right
// when it is back.
func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		stop := l.run(fleet.Config{Count: 1})
		pod := simple("p")
		forever := corev1.Toleration{Operator: corev1.TolerationOpExists}
		pod.Spec.Tolerations = []corev1.Toleration{forever}
		l.create(pod)
		ready := func(want corev1.ConditionStatus) func() string {
			return func() string {
				for _, c := range l.pods()[0].Status.Conditions {
					if c.Type == corev1.PodReady && c.Status == want {
						return ""
					}
				}
				return fmt.Sprint(l.pods()[0].Status.Conditions)
			}
		}
		l.eventually("the pod is ready", ready(corev1.ConditionTrue))
		stop()
		time.Sleep(2 * time.Minute)
		l.eventually("the node is given up", ready(corev1.ConditionFalse))
		defer l.run(fleet.Config{Count: 1})()
		l.eventually("the pod is ready again", ready(corev1.ConditionTrue))
	})
}
