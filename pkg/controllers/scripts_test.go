package controllers_test

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scripts is one entry per controller, or per way of its that may be disturbed.
func scripts() []script {
	return slices.Concat(scriptsOfWorkloads(), scriptsOfJobs(), scriptsOfOwners(), scriptsOfStorage(), scriptsOfOthers(),
		scriptsOfServices(), scriptsOfCluster(), scriptsOfTokens(), scriptsOfHelpers(),
		scriptsOfAdmittance(), scriptsOfRanges(), scriptsOfDevices())
}

func scriptsOfWorkloads() []script {
	return []script{
		{
			name: "ReplicaSet", pods: 3,
			steps: []func(*cluster){
				func(c *cluster) { c.makeReplicaSet("web", 3); c.wantPods(map[string]int{"v1": 3}) },
				func(c *cluster) { c.scaleReplicaSet("web", 1); c.wantPods(map[string]int{"v1": 1}) },
			},
		},
		{
			name: "ReplicationController", pods: 3,
			steps: []func(*cluster){
				func(c *cluster) { c.makeReplicationController("web", 2); c.wantReplicationController("web", 2) },
				func(c *cluster) { c.scaleReplicationController("web", 3); c.wantReplicationController("web", 3) },
			},
		},
		{
			name: "Deployment", pods: 4,
			steps: []func(*cluster){
				func(c *cluster) { c.deploy("web", "v1", 2) },
				func(c *cluster) { c.setImage("web", "v2"); c.wantComplete("web"); c.wantPods(map[string]int{"v2": 2}) },
				func(c *cluster) {
					if n := len(c.sets("app=web")); n != 2 {
						c.t.Errorf("%d replica sets, want 2", n)
					}
				},
			},
		},
		{
			name: "StatefulSet", pods: 4,
			steps: []func(*cluster){
				func(c *cluster) {
					const remove = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
					c.makeStatefulSet(statefulSet(2, withClaims(remove, remove)))
					c.wantRolledOut()
				},
				func(c *cluster) { c.setStatefulImage("v2"); c.wantRolledOut() },
				func(c *cluster) {
					c.patchStatefulSet(`{"spec":{"replicas":1}}`)
					c.wantRolledOut()
					c.wantMembers(map[string]string{"db-0": "v2"})
					c.wantClaims("data-db-0")
				},
			},
		},
		{
			name: "DaemonSet", pods: 6,
			steps: []func(*cluster){
				func(c *cluster) { c.makeDaemonSet("agent", "v1"); c.wantDaemons("agent", "v1", c.node.names...) },
				func(c *cluster) {
					c.patchDaemonSet("agent", `{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"v2"}]}}}}`)
					c.wantDaemons("agent", "v2", c.node.names...)
				},
			},
		},
		{
			name: "PodDisruptionBudget", pods: 4,
			objects: func(c *cluster) { c.makeBudget("web", "", "1"); c.deploy("web", "v1", 2) },
			steps:   []func(*cluster){evictOne, evictOne},
		},
	}
}

// evictOne evicts a pod and waits for another, and at no time too few are
// ready.
func evictOne(c *cluster) {
	name := c.podNames("web")[0]
	c.eventually(name+" is evicted", func() error {
		err := c.evict(name)
		if n := c.readyPods("default")["v1"]; n < 1 {
			c.t.Errorf("%d pods are ready while %s is evicted", n, name)
		}
		return err
	})
	c.wantPods(map[string]int{"v1": 2})
	c.wantBudget("web", 2, 1, 2, 1)
}

func (c *cluster) makeReplicaSet(name string, replicas int32) {
	c.t.Helper()
	d := deployment(name, "v1", replicas)
	_, err := c.Client.AppsV1().ReplicaSets("default").Create(c.t.Context(), &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: d.Spec.Selector, Template: d.Spec.Template},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) scaleReplicaSet(name string, replicas int32) {
	c.t.Helper()
	c.eventually("the scale is set", func() error {
		rs, err := c.Client.AppsV1().ReplicaSets("default").Get(c.t.Context(), name, metav1.GetOptions{})
		if err == nil {
			rs.Spec.Replicas = &replicas
			_, err = c.Client.AppsV1().ReplicaSets("default").Update(c.t.Context(), rs, metav1.UpdateOptions{})
		}
		return err
	})
}

func scriptsOfJobs() []script {
	return []script{
		{
			name: "Job", pods: 6,
			steps: []func(*cluster){
				func(c *cluster) { c.makeJob(newJob(jobOf(2, 3))); c.wantActive(2) },
				func(c *cluster) { c.patchJob(`{"spec":{"suspend":true}}`); c.wantActive(0) },
				func(c *cluster) {
					c.tasks(failOnce())
					c.patchJob(`{"spec":{"suspend":false}}`)
					s := c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached).Status
					// After a stale restart pods that are too many run, and count.
					if (s.Succeeded != 3 || s.Failed != 1) && !c.stale {
						c.t.Errorf("status %+v", s)
					}
				},
				(*cluster).wantNoFinalizers,
				func(c *cluster) {
					if err := c.Client.BatchV1().Jobs("default").Delete(c.t.Context(), "work", metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}); err != nil {
						c.t.Fatal(err)
					}
					c.wantGone("pods of the job", func() int { return len(c.jobPods()) })
				},
			},
		},
		{
			name: "CronJob", pods: 2,
			objects: func(c *cluster) { c.tasks(always(0)) },
			steps: []func(*cluster){
				func(c *cluster) {
					c.makeCron(func(s *batchv1.CronJobSpec) { s.SuccessfulJobsHistoryLimit = new(int32(1)) })
					time.Sleep(2*time.Minute + 2*time.Second - time.Duration(time.Now().Second())*time.Second)
					c.wantCron("has run twice and kept one", func(cron *batchv1.CronJob) error {
						names, _ := c.jobs()
						if at := cron.Status.LastScheduleTime; len(names) != 1 || len(cron.Status.Active) != 0 || at == nil || time.Since(at.Time) > 50*time.Second {
							return fmt.Errorf("the jobs are %v", names)
						}
						return nil
					})
				},
				func(c *cluster) {
					c.eventually("it is suspended", func() error {
						cron, err := c.Client.BatchV1().CronJobs("default").Get(c.t.Context(), "tick", metav1.GetOptions{})
						if err == nil {
							cron.Spec.Suspend = new(true)
							_, err = c.Client.BatchV1().CronJobs("default").Update(c.t.Context(), cron, metav1.UpdateOptions{})
						}
						return err
					})
					c.wantNoLeftovers()
				},
			},
		},
	}
}

// wantGone waits until count is 0.
func (c *cluster) wantGone(what string, count func() int) {
	c.t.Helper()
	c.eventually(what+" are gone", func() error {
		if n := count(); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
}

func scriptsOfOwners() []script {
	var out []script
	for _, tc := range []struct {
		policy     metav1.DeletionPropagation
		pods, sets int // that stay
	}{
		{metav1.DeletePropagationBackground, 0, 0},
		{metav1.DeletePropagationForeground, 0, 0},
		{metav1.DeletePropagationOrphan, 2, 1},
	} {
		out = append(out, script{
			name: "garbage collection, " + string(tc.policy), pods: 2,
			objects: func(c *cluster) { c.deploy("web", "v1", 2) },
			steps: []func(*cluster){func(c *cluster) {
				if err := c.Client.AppsV1().Deployments("default").Delete(c.t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &tc.policy}); err != nil {
					c.t.Fatal(err)
				}
				c.eventually("the deployment is gone and its dependents as they should be", func() error {
					_, err := c.Client.AppsV1().Deployments("default").Get(c.t.Context(), "web", metav1.GetOptions{})
					if pods, sets := len(c.podNames("web")), c.sets("app=web"); !apierrors.IsNotFound(err) || pods != tc.pods || len(sets) != tc.sets {
						return fmt.Errorf("deployment: %v; %d pods and %d sets, want %d and %d", err, pods, len(sets), tc.pods, tc.sets)
					}
					return nil
				})
			}},
		})
	}
	return append(out, script{
		name: "namespace deletion",
		objects: func(c *cluster) {
			c.makeNamespace("doomed")
			if _, err := c.Client.AppsV1().Deployments("doomed").Create(c.t.Context(), deployment("web", "v1", 2), metav1.CreateOptions{}); err != nil {
				c.t.Fatal(err)
			}
			c.eventually("pods run", func() error {
				if n := c.readyPods("doomed")["v1"]; n != 2 {
					return fmt.Errorf("%d ready", n)
				}
				return nil
			})
		},
		steps: []func(*cluster){func(c *cluster) {
			if err := c.Client.CoreV1().Namespaces().Delete(c.t.Context(), "doomed", metav1.DeleteOptions{}); err != nil {
				c.t.Fatal(err)
			}
			c.eventually("the namespace is gone", func() error {
				ns, err := c.Client.CoreV1().Namespaces().Get(c.t.Context(), "doomed", metav1.GetOptions{})
				if !apierrors.IsNotFound(err) {
					return fmt.Errorf("namespace %+v: %v", ns.Status, err)
				}
				return nil
			})
		}},
	})
}

func (c *cluster) makeNamespace(name string) {
	c.t.Helper()
	if _, err := c.Client.CoreV1().Namespaces().Create(c.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func podLike(name, app string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "v1"}}},
	}
}

func scriptsOfOthers() []script {
	return []script{
		{
			name: "EndpointSlice", pods: 3,
			objects: func(c *cluster) { c.makeService("web", map[string]string{"app": "web"}) },
			steps: []func(*cluster){
				func(c *cluster) { c.deploy("web", "v1", 3); c.wantEndpoints("web", 3) },
				func(c *cluster) { c.patchDeployment("web", `{"spec":{"replicas":1}}`); c.wantEndpoints("web", 1) },
			},
		},
		{
			name:    "resource quota",
			objects: func(c *cluster) { c.makeNamespace("ns") },
			steps: []func(*cluster){
				func(c *cluster) {
					c.limit("q", corev1.ResourceQuotaSpec{Hard: amounts("secrets", "5")})
					for i := range 2 {
						if _, err := c.Client.CoreV1().Secrets("ns").Create(c.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)}}, metav1.CreateOptions{}); err != nil {
							c.t.Fatal(err)
						}
					}
					c.wantUsed("q", "secrets", "2")
				},
				func(c *cluster) {
					if err := c.Client.CoreV1().Secrets("ns").Delete(c.t.Context(), "s0", metav1.DeleteOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.wantUsed("q", "secrets", "1")
				},
			},
		},
		{
			name: "ephemeral volume", pods: 1,
			steps: []func(*cluster){
				func(c *cluster) {
					pod, class := podLike("a", "scratch"), "none"
					pod.Spec.SchedulerName = "nobody"
					pod.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
						VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
							AccessModes: once, StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: storage("1Gi")},
						}},
					}}}}
					if _, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), pod, metav1.CreateOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.eventually("the claim is there", func() error {
						_, err := c.Client.CoreV1().PersistentVolumeClaims("default").Get(c.t.Context(), "a-scratch", metav1.GetOptions{})
						return err
					})
				},
				func(c *cluster) {
					if err := c.Client.CoreV1().Pods("default").Delete(c.t.Context(), "a", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
						c.t.Fatal(err)
					}
					c.eventually("the claim is gone", func() error {
						_, err := c.Client.CoreV1().PersistentVolumeClaims("default").Get(c.t.Context(), "a-scratch", metav1.GetOptions{})
						if !apierrors.IsNotFound(err) {
							return fmt.Errorf("it is there: %v", err)
						}
						return nil
					})
				},
			},
		},
	}
}

func (c *cluster) wantEndpoints(service string, n int) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("service %s has %d endpoints", service, n), func() error {
		if items, ready := c.slices(service); len(ready) != n || len(items) != 1 {
			return fmt.Errorf("%d slices with %d ready", len(items), len(ready))
		}
		return nil
	})
}

// bindVolumes makes three pairs: no volume is given twice and no claim has
// two.
func bindVolumes(c *cluster) {
	const n = 3
	for i := range n {
		c.makeVolume(fmt.Sprintf("v%d", i), fmt.Sprintf("%dGi", i+1), "manual")
		c.makeClaim(fmt.Sprintf("c%d", i), "1Gi", "manual")
	}
	c.eventually("each claim has a volume of its own", func() error {
		taken := map[string]string{}
		for i := range n {
			p := c.claim(fmt.Sprintf("c%d", i))
			if p.Status.Phase != corev1.ClaimBound {
				return fmt.Errorf("claim %d is %s", i, p.Status.Phase)
			}
			if other := taken[p.Spec.VolumeName]; other != "" {
				c.t.Errorf("volume %s has claims %s and %s", p.Spec.VolumeName, other, p.Name)
			}
			taken[p.Spec.VolumeName] = p.Name
			if v := c.volume(p.Spec.VolumeName); v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != p.UID || v.Status.Phase != corev1.VolumeBound {
				return fmt.Errorf("volume %s is %s for %v", v.Name, v.Status.Phase, v.Spec.ClaimRef)
			}
		}
		return nil
	})
}
