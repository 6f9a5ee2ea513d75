//lint:file-ignore SA1019 Endpoints are deprecated, and still served.

package controllers_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/controllers"
)

func scriptsOfServices() []script {
	return []script{
		{
			name:    "mirrored Endpoints",
			objects: func(c *cluster) { c.makeService("external", nil) },
			steps: []func(*cluster){
				func(c *cluster) { c.mirror("192.0.2.1", "192.0.2.2") },
				func(c *cluster) { c.mirror("192.0.2.3") },
				func(c *cluster) { c.mirror() },
			},
		},
		{
			name: "load balancer",
			start: func(c *cluster, via transports) func() {
				return c.startControllers(via, func(cfg *controllers.Config) { cfg.LoadBalancers = netip.MustParsePrefix("10.89.0.252/30") })
			},
			steps: []func(*cluster){
				func(c *cluster) {
					c.makeBalancer("a")
					c.makeBalancer("b")
					if a, b := c.balancerOf("a"), c.balancerOf("b"); a == b {
						c.t.Errorf("both services have %s", a)
					}
				},
				func(c *cluster) {
					if _, err := c.Client.CoreV1().Services("default").Patch(c.t.Context(), "a", types.MergePatchType, []byte(`{"spec":{"type":"ClusterIP"}}`), metav1.PatchOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.eventually("a has no address", func() error {
						if a := c.service("a"); len(a.Status.LoadBalancer.Ingress) != 0 || len(a.Finalizers) != 0 {
							return fmt.Errorf("it has %v, finalizers %v", a.Status.LoadBalancer, a.Finalizers)
						}
						return nil
					})
				},
				func(c *cluster) {
					if err := c.Client.CoreV1().Services("default").Delete(c.t.Context(), "b", metav1.DeleteOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.wantNot("service b", func() error {
						_, err := c.Client.CoreV1().Services("default").Get(c.t.Context(), "b", metav1.GetOptions{})
						return err
					})
				},
			},
		},
	}
}

// wantNot waits until get does not find it.
func (c *cluster) wantNot(what string, get func() error) {
	c.t.Helper()
	c.eventually(what+" is gone", func() error {
		if err := get(); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
}

// mirror makes the Endpoints of external have these addresses, or deletes them
// when there are none, and waits until its slices say the same.
func (c *cluster) mirror(addresses ...string) {
	c.t.Helper()
	endpoints := c.Client.CoreV1().Endpoints("default")
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "external"}, Subsets: []corev1.EndpointSubset{{
		Ports: []corev1.EndpointPort{{Port: 80, Protocol: corev1.ProtocolTCP}},
	}}}
	for _, a := range addresses {
		e.Subsets[0].Addresses = append(e.Subsets[0].Addresses, corev1.EndpointAddress{IP: a})
	}
	var err error
	if len(addresses) == 0 {
		err = endpoints.Delete(c.t.Context(), "external", metav1.DeleteOptions{})
	} else if _, err = endpoints.Create(c.t.Context(), e, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		_, err = endpoints.Update(c.t.Context(), e, metav1.UpdateOptions{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.eventually(fmt.Sprintf("the slice has %v", addresses), func() error {
		if items, ready := c.slices("external"); !slices.Equal(ready, addresses) || len(items) != min(len(addresses), 1) {
			return fmt.Errorf("%d slices, ready %v", len(items), ready)
		}
		return nil
	})
}

func scriptsOfCluster() []script {
	return []script{
		{
			name: "nodes",
			objects: func(c *cluster) {
				c.settle()
				hasty := deployment("web", "v1", 6)
				for _, key := range []string{corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady} {
					hasty.Spec.Template.Spec.Tolerations = append(hasty.Spec.Template.Spec.Tolerations, corev1.Toleration{
						Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64),
					})
				}
				if _, err := c.Client.AppsV1().Deployments("default").Create(c.t.Context(), hasty, metav1.CreateOptions{}); err != nil {
					c.t.Fatal(err)
				}
				c.wantComplete("web")
			},
			steps: []func(*cluster){
				func(c *cluster) {
					c.patience = 3 * time.Minute // who has just started gives nodes a whole grace
					c.node.change(func(s *simulator) { s.dead["node-2"] = true })
					c.eventually("all pods run elsewhere", func() error { return c.runsWithout("node-2", 6) })
				},
				func(c *cluster) {
					c.node.change(func(s *simulator) { s.dead["node-2"] = false })
					c.wantTaints("node-2")
					c.patience = faultPatience
				},
			},
		},
		{
			name: "ranges of nodes",
			steps: []func(*cluster){
				func(c *cluster) {
					if _, err := c.Client.CoreV1().Nodes().Create(c.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.eventually("every node has a range of its own", func() error {
						seen := map[string]bool{}
						for _, name := range append([]string{"new"}, c.node.names...) {
							r := c.getNode(name).Spec.PodCIDR
							if r == "" || seen[r] {
								return fmt.Errorf("node %s has %q", name, r)
							}
							seen[r] = true
						}
						return nil
					})
				},
				func(c *cluster) {
					if err := c.Client.CoreV1().Nodes().Delete(c.t.Context(), "new", metav1.DeleteOptions{}); err != nil {
						c.t.Fatal(err)
					}
				},
			},
		},
		{
			name: "service accounts and root certificates",
			steps: []func(*cluster){
				func(c *cluster) { c.makeNamespace("ns"); c.wantFurnished("ns") },
				func(c *cluster) {
					if err := c.Client.CoreV1().ServiceAccounts("ns").Delete(c.t.Context(), "default", metav1.DeleteOptions{}); err != nil {
						c.t.Fatal(err)
					}
					if _, err := c.Client.CoreV1().ConfigMaps("ns").Patch(c.t.Context(), "kube-root-ca.crt", types.MergePatchType, []byte(`{"data":{"ca.crt":"another"}}`), metav1.PatchOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.wantFurnished("ns")
				},
			},
		},
		{name: "storage migration", objects: makeGadgets, steps: []func(*cluster){migrateGadgets}},
		{
			name: "aggregated roles",
			steps: []func(*cluster){
				func(c *cluster) {
					c.makeRole(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "sum"}, AggregationRule: &rbacv1.AggregationRule{
						ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"sum": "yes"}}}}})
					c.makeRole(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "part", Labels: map[string]string{"sum": "yes"}},
						Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}})
					c.wantRules("sum", 1)
				},
				func(c *cluster) {
					if err := c.Client.RbacV1().ClusterRoles().Delete(c.t.Context(), "part", metav1.DeleteOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.wantRules("sum", 0)
				},
			},
		},
	}
}

// runsWithout is nil when n pods are ready, none of them on the node.
func (c *cluster) runsWithout(node string, n int) error {
	pods, err := c.Client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	there := 0
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName == node && p.DeletionTimestamp == nil {
			there++
		}
	}
	if ready := c.readyPods("default")["v1"]; ready != n || there > 0 {
		return fmt.Errorf("%d are ready, %d on %s", ready, there, node)
	}
	return nil
}

// wantFurnished waits for what every namespace has.
func (c *cluster) wantFurnished(ns string) {
	c.t.Helper()
	c.eventually(ns+" has an account and the certificate", func() error {
		account, err := c.Client.CoreV1().ServiceAccounts(ns).Get(c.t.Context(), "default", metav1.GetOptions{})
		if err != nil || account.DeletionTimestamp != nil {
			return fmt.Errorf("account: %w", err)
		}
		roots, err := c.Client.CoreV1().ConfigMaps(ns).Get(c.t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		if err != nil || roots.Data["ca.crt"] != "a certificate" {
			return fmt.Errorf("certificate %v: %w", roots.Data, err)
		}
		return nil
	})
}

func (c *cluster) makeRole(role *rbacv1.ClusterRole) {
	c.t.Helper()
	if _, err := c.Client.RbacV1().ClusterRoles().Create(c.t.Context(), role, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) wantRules(role string, n int) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s has %d rules", role, n), func() error {
		r, err := c.Client.RbacV1().ClusterRoles().Get(c.t.Context(), role, metav1.GetOptions{})
		if err == nil && len(r.Rules) != n {
			err = fmt.Errorf("it has %v", r.Rules)
		}
		return err
	})
}

func scriptsOfHelpers() []script {
	return []script{
		{
			name: "HorizontalPodAutoscaler", pods: 3,
			start: func(c *cluster, via transports) func() {
				m := &metrics{c: c, cpu: 800}
				write := m.wrap
				if via.write != nil {
					write = func(next http.RoundTripper) http.RoundTripper { return via.write(m.wrap(next)) }
				}
				return c.startControllers(transports{read: via.read, write: write})
			},
			objects: func(c *cluster) {
				d := deployment("web", "v1", 2)
				d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
				if _, err := c.Client.AppsV1().Deployments("default").Create(c.t.Context(), d, metav1.CreateOptions{}); err != nil {
					c.t.Fatal(err)
				}
				c.wantComplete("web")
				time.Sleep(10 * time.Minute) // the pods have settled
			},
			steps: []func(*cluster){func(c *cluster) {
				c.autoscale(1, 3, cpuTarget(50))
				c.wantSize(3)
				c.wantComplete("web")
				c.wantScaling(autoscalingv2.ScalingLimited, "TooManyReplicas")
			}},
		},
		{
			name: "TTL after finished", pods: 1,
			objects: func(c *cluster) { c.tasks(always(0)) },
			steps: []func(*cluster){func(c *cluster) {
				c.makeJob(newJob(func(s *batchv1.JobSpec) { s.TTLSecondsAfterFinished = new(int32(5)) }))
				c.wantNot("the job", func() error {
					_, err := c.Client.BatchV1().Jobs("default").Get(c.t.Context(), "work", metav1.GetOptions{})
					return err
				})
				c.wantGone("pods of the job", func() int { return len(c.jobPods()) })
			}},
		},
		{
			name: "ResourceClaim", pods: 1,
			steps: []func(*cluster){
				func(c *cluster) {
					c.gpuTemplate("gpu")
					pod := c.podWithClaims("a", ofTemplate("gpu", "gpu"))
					claim := c.wantClaim("a", "gpu")
					claims := c.Client.ResourceV1().ResourceClaims("default")
					if list, err := claims.List(c.t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 1 && !c.stale {
						c.t.Errorf("%d claims for one reference: %v", len(list.Items), err)
					}
					c.allocate(claim, pod)
				},
				func(c *cluster) {
					c.deletePod("a")
					c.wantGone("claims", func() int {
						list, err := c.Client.ResourceV1().ResourceClaims("default").List(c.t.Context(), metav1.ListOptions{})
						if err != nil {
							c.t.Fatal(err)
						}
						return len(list.Items)
					})
				},
			},
		},
	}
}
