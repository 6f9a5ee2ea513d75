package controllers_test

import (
	"crypto/rand"
	"os"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/controllers"
	"coracle/pkg/pki"
)

// signing gives the controllers an authority.
func signing(cfg *controllers.Config) {
	ca, err := pki.NewCA("test", 0, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), rand.Reader)
	if err != nil {
		panic(err)
	}
	cfg.Signer = ca
}

// approved makes a request for the certificate of a node, which a human approves.
func approved(name string, groups ...string) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		client := c.Client.CertificatesV1().CertificateSigningRequests()
		r, err := client.Create(c.t.Context(), request(c.t, name, "system:node:node-1", groups...), metav1.CreateOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		c.eventually(name+" is approved", func() error {
			if r, err = client.Get(c.t.Context(), name, metav1.GetOptions{}); err != nil {
				return err
			}
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "ByHand"}}
			_, err = client.UpdateApproval(c.t.Context(), name, r, metav1.UpdateOptions{})
			return err
		})
	}
}

// asked makes a PodCertificateRequest.
func asked(name string) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		data, err := os.ReadFile("../resource/testdata/kinds/podcertificaterequests.certificates.k8s.io.yaml")
		if err != nil {
			c.t.Fatal(err)
		}
		put(podRequests, name, strings.ReplaceAll(string(data), "namespace: shop", "namespace: default"))(c)
	}
}

// until is a step that waits for what check wants.
func until(what string, check func(*cluster) error) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		c.eventually(what, func() error { return check(c) })
	}
}

// scriptsOfAdmittance are about who is let in, and with what.
func scriptsOfAdmittance() []script {
	with := func(change func(*controllers.Config)) func(*cluster, transports) func() {
		return func(c *cluster, via transports) func() { return c.startControllers(via, change) }
	}
	return []script{
		{
			name: "certificate requests", start: with(signing),
			steps: []func(*cluster){
				all(approved("good", "system:nodes"), until("it is issued", has(requests, "", "good", "status.certificate", ""))),
				all(approved("bad", "system:masters"), until("it fails", says(requests, "", "bad", "Failed", "True", "SignerValidationFailure"))),
				func(*cluster) { time.Sleep(time.Hour) },
				all(until("the old ones go", lacks(requests, "", "good")), until("the failed one goes", lacks(requests, "", "bad"))),
			},
		},
		{
			name: "bootstrap tokens", start: with(func(cfg *controllers.Config) { cfg.BootstrapTokens = true }),
			objects: put(configMaps, "cluster-info", `{metadata: {namespace: kube-public}, data: {kubeconfig: the way in}}`),
			steps: []func(*cluster){
				func(c *cluster) {
					c.bootstrapToken("aaaaaa", time.Time{}, true)
					c.bootstrapToken("bbbbbb", time.Now().Add(time.Minute), true)
					c.eventually("both sign", c.signedBy("the way in", "aaaaaa", "bbbbbb"))
				},
				func(c *cluster) {
					time.Sleep(time.Minute)
					c.eventually("one has ended", c.signedBy("the way in", "aaaaaa"))
					c.eventually("it is gone", func() error { return lacks(secrets, "kube-system", "bootstrap-token-bbbbbb")(c) })
				},
				func(c *cluster) {
					if _, err := c.Client.CoreV1().ConfigMaps("kube-public").Patch(c.t.Context(), "cluster-info", types.MergePatchType, []byte(`{"data":{"kubeconfig":"another"}}`), metav1.PatchOptions{}); err != nil {
						c.t.Fatal(err)
					}
					c.eventually("it is signed anew", c.signedBy("another", "aaaaaa"))
				},
			},
		},
		{
			name: "pod certificate requests",
			steps: []func(*cluster){
				asked("a"),
				func(*cluster) { time.Sleep(15 * time.Minute) },
				until("it goes", lacks(podRequests, "default", "a")),
			},
		},
	}
}

// scriptsOfRanges are about addresses of Services.
func scriptsOfRanges() []script {
	return []script{{
		name: "a range of Services",
		steps: []func(*cluster){
			all(put(cidrs, "more", `{spec: {cidrs: [10.200.0.0/24]}}`), until("it is ready", says(cidrs, "", "more", "Ready", "True", ""))),
			all(put(services, "user", `{metadata: {namespace: default}, spec: {clusterIP: 10.200.0.5, ports: [{port: 80}]}}`), drop(cidrs, "", "more"),
				until("it waits for its user", says(cidrs, "", "more", "Ready", "False", "Terminating"))),
			all(drop(services, "default", "user"), until("it goes", lacks(cidrs, "", "more"))),
		},
	}}
}

// withDevice makes a pod on a node that has a device.
func withDevice(name string) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		p, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}, NodeName: "node-1",
				ResourceClaims: []corev1.PodResourceClaim{ofTemplate("gpu", "gpu")}},
		}, metav1.CreateOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		c.allocate(c.wantClaim(name, "gpu"), p)
	}
}

// broken has a rule say that the devices of a pool are of no use.
func broken(pool string) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: pool}, Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Pool: &pool},
			Taint:          resourcev1.DeviceTaint{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoExecute}}}
		if _, err := c.Client.ResourceV1().DeviceTaintRules().Create(c.t.Context(), rule, metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// scriptsOfDevices are about devices that break.
func scriptsOfDevices() []script {
	return []script{{
		name: "tainted devices", pods: 1,
		objects: func(c *cluster) { c.gpuTemplate("gpu"); withDevice("a")(c); time.Sleep(5 * time.Second) },
		steps: []func(*cluster){
			all(broken("another"), func(*cluster) { time.Sleep(10 * time.Second) }, func(c *cluster) {
				if lacks(pods, "default", "a")(c) == nil {
					c.t.Error("the rule of another pool ended a pod")
				}
			}),
			all(broken("p"), until("the pod is evicted", lacks(pods, "default", "a"))),
			func(c *cluster) {
				c.wantGone("claims", func() int {
					list, err := c.Client.ResourceV1().ResourceClaims("default").List(c.t.Context(), metav1.ListOptions{})
					if err != nil {
						c.t.Fatal(err)
					}
					return len(list.Items)
				})
			},
		},
	}}
}
