package controllers_test

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controllers"
)

// The resources of the rows.
const (
	pods        = "/v1/pods"
	nodes       = "/v1/nodes"
	namespaces  = "/v1/namespaces"
	secrets     = "/v1/secrets"
	configMaps  = "/v1/configmaps"
	services    = "/v1/services"
	claims      = "/v1/persistentvolumeclaims"
	volumes     = "/v1/persistentvolumes"
	jobs        = "batch/v1/jobs"
	roles       = "rbac.authorization.k8s.io/v1/clusterroles"
	endpoints   = "/v1/endpoints"
	sliceLists  = "discovery.k8s.io/v1/endpointslices"
	deployments = "apps/v1/deployments"
	requests    = "certificates.k8s.io/v1/certificatesigningrequests"
	podRequests = "certificates.k8s.io/v1/podcertificaterequests"
	cidrs       = "networking.k8s.io/v1/servicecidrs"
)

// misfits is a row for each controller.
func misfits() map[string]misfit {
	out := misfitWorkloads()
	for _, more := range []map[string]misfit{misfitJobs(), misfitCluster(), misfitNodes(), misfitServices(), misfitCertificates(), misfitStorage(), misfitClaims()} {
		maps.Copy(out, more)
	}
	return out
}

// workload is the part of a workload after its replicas.
func workload(name, rest string) string {
	return fmt.Sprintf(`{metadata: {namespace: default}, spec: {selector: {matchLabels: {app: %[1]s}},
		template: {metadata: {labels: {app: %[1]s}}, spec: {containers: [{name: c, image: v1}]}} %[2]s}}`, name, rest)
}

func misfitWorkloads() map[string]misfit {
	long := "bad" + strings.Repeat("x", 247) // leaves no room for the hash of a ReplicaSet
	pair := func(resource, rest, reason string, served string) misfit {
		return misfit{
			refuse: []string{pods},
			bad:    put(resource, "bad", workload("bad", rest)), told: event("default", "bad", reason),
			good: put(resource, "good", workload("good", rest)), served: has(resource, "default", "good", served, "2"),
		}
	}
	sets := pair("apps/v1/replicasets", ", replicas: 2", "FailedCreate", "status.readyReplicas")
	sets.told = both(sets.told, says("apps/v1/replicasets", "default", "bad", "ReplicaFailure", "True", "FailedCreate"))
	daemons := pair("apps/v1/daemonsets", "", "FailedCreate", "status.numberReady")
	daemons.served = has("apps/v1/daemonsets", "default", "good", "status.numberReady", "3")
	controllersOfOld := func(name string) string {
		return fmt.Sprintf(`{metadata: {namespace: default}, spec: {replicas: 2, selector: {app: %[1]s},
			template: {metadata: {labels: {app: %[1]s}}, spec: {containers: [{name: c, image: v1}]}}}}`, name)
	}
	const replicators = "/v1/replicationcontrollers"
	return map[string]misfit{
		"replicaset-controller": sets,
		"replication-controller": {
			refuse: []string{pods},
			bad:    put(replicators, "bad", controllersOfOld("bad")),
			told:   both(event("default", "bad", "FailedCreate"), says(replicators, "default", "bad", "ReplicaFailure", "True", "FailedCreate")),
			good:   put(replicators, "good", controllersOfOld("good")), served: has(replicators, "default", "good", "status.readyReplicas", "2"),
		},
		"deployment-controller": {
			bad:  put(deployments, long, workload("bad", ", replicas: 2")),
			told: both(event("default", "bad", "ReplicaSetCreateError"), says(deployments, "default", long, "Progressing", "False", "ReplicaSetCreateError")),
			good: put(deployments, "good", workload("good", ", replicas: 2")), served: has(deployments, "default", "good", "status.readyReplicas", "2"),
		},
		"daemon-set-controller": daemons,
		"statefulset-controller": pair("apps/v1/statefulsets", ", replicas: 2, podManagementPolicy: Parallel, serviceName: none", "FailedCreate",
			"status.readyReplicas"),
		"disruption-controller": {
			before: all(
				put(pods, "ghost", `{metadata: {namespace: default, labels: {app: bad}, ownerReferences: [{apiVersion: example.com/v1, kind: Ghost, name: g, uid: u, controller: true}]},
					spec: {containers: [{name: c, image: v1}]}}`),
				put(deployments, "good", workload("good", ", replicas: 2"))),
			bad: put("policy/v1/poddisruptionbudgets", "bad", `{metadata: {namespace: default}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: bad}}}}`),
			told: both(event("default", "bad", "CalculateExpectedPodCountFailed"),
				says("policy/v1/poddisruptionbudgets", "default", "bad", "DisruptionAllowed", "False", "SyncFailed")),
			good:   put("policy/v1/poddisruptionbudgets", "good", `{metadata: {namespace: default}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: good}}}}`),
			served: has("policy/v1/poddisruptionbudgets", "default", "good", "status.disruptionsAllowed", "1"),
		},
		"horizontal-pod-autoscaler": {
			before: put(deployments, "good", workload("good", ", replicas: 3")),
			bad:    put("autoscaling/v2/horizontalpodautoscalers", "bad", autoscalerOf("nobody")),
			told: both(event("default", "bad", "FailedGetScale"),
				says("autoscaling/v2/horizontalpodautoscalers", "default", "bad", "AbleToScale", "False", "FailedGetScale")),
			good:   put("autoscaling/v2/horizontalpodautoscalers", "good", autoscalerOf("good")),
			served: has(deployments, "default", "good", "spec.replicas", "2"),
		},
	}
}

func autoscalerOf(target string) string {
	return fmt.Sprintf(`{metadata: {namespace: default}, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %s}, minReplicas: 1, maxReplicas: 2}}`, target)
}

func misfitJobs() map[string]misfit {
	job := func(rest string) string {
		return `{metadata: {namespace: default}, spec: {` + rest + `template: {spec: {restartPolicy: Never, containers: [{name: c, image: task}]}}}}`
	}
	end := func(c *cluster) { c.tasks(always(0)) }
	const crons = "batch/v1/cronjobs"
	cron := `{metadata: {namespace: default}, spec: {schedule: "%s", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: task}]}}}}}}`
	return map[string]misfit{
		"job-controller": {
			refuse: []string{pods}, before: end,
			bad: put(jobs, "bad", job("")), told: event("default", "bad", "FailedCreate"),
			good: put(jobs, "good", job("")), served: has(jobs, "default", "good", "status.succeeded", "1"),
		},
		"cronjob-controller": {
			refuse: []string{jobs}, before: end,
			bad: put(crons, "bad", fmt.Sprintf(cron, "* * * * *")), told: event("default", "bad", "FailedCreate"),
			good: put(crons, "good", fmt.Sprintf(cron, "3 0 1 1 *")), after: time.Minute, served: has(crons, "default", "good", "status.lastScheduleTime", ""),
		},
		"ttl-after-finished-controller": {
			// Nobody is told: what should go is merely still there.
			refuse: []string{jobs}, before: end,
			bad:  put(jobs, "bad", job("ttlSecondsAfterFinished: 1, ")),
			good: put(jobs, "good", job("ttlSecondsAfterFinished: 1, ")), served: lacks(jobs, "default", "good"),
		},
	}
}

func misfitCluster() map[string]misfit {
	space := func(name string) func(*cluster) { return put(namespaces, name, "{}") }
	sum := func(name string) func(*cluster) {
		return all(
			put(roles, name+"-part", fmt.Sprintf(`{metadata: {labels: {sum: %s}}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}`, name)),
			put(roles, name, fmt.Sprintf(`{aggregationRule: {clusterRoleSelectors: [{matchLabels: {sum: %s}}]}}`, name)))
	}
	heir := func(name string) func(*cluster) {
		return func(c *cluster) {
			owner := c.makeConfigMap("default", name+"-owner")
			c.makeConfigMap("default", name, ownedBy("ConfigMap", owner.Name, owner.UID))
			time.Sleep(time.Second)
			drop(configMaps, "default", owner.Name)(c)
		}
	}
	const quotas, migrations = "/v1/resourcequotas", "storagemigration.k8s.io/v1/storageversionmigrations"
	accounts, once := "/v1/serviceaccounts", "it keeps one object, which no other waits for"
	return map[string]misfit{
		// Upstream's tell nobody of the next four: what is missing, or there, says it.
		"service-account-controller": {
			refuse: []string{accounts}, bad: space("bad"), good: space("good"), served: has(accounts, "good", "default", "metadata.uid", ""),
		},
		"root-ca-cert-publisher": {
			refuse: []string{configMaps}, bad: space("bad"), good: space("good"), served: has(configMaps, "good", "kube-root-ca.crt", "metadata.uid", ""),
		},
		"clusterrole-aggregation-controller": {
			refuse: []string{roles}, bad: sum("bad"), good: sum("good"), served: has(roles, "", "good", "rules", "pods"),
		},
		"generic-garbage-collector": {
			refuse: []string{configMaps}, bad: heir("bad"), good: heir("good"), served: lacks(configMaps, "default", "good"),
		},
		"namespace-controller": {
			before: all(space("bad"), space("good"), put(configMaps, "held", `{metadata: {namespace: bad, finalizers: [example.org/hold]}}`)),
			bad:    drop(namespaces, "", "bad"), told: says(namespaces, "", "bad", "NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain"),
			good: drop(namespaces, "", "good"), served: lacks(namespaces, "", "good"), after: 5 * time.Second,
		},
		"resourcequota-controller": {
			refuse: []string{quotas},
			bad:    put(quotas, "bad", `{metadata: {namespace: default}, spec: {hard: {secrets: "5"}}}`),
			good:   put(quotas, "good", `{metadata: {namespace: default}, spec: {hard: {secrets: "5"}}}`), served: has(quotas, "default", "good", "status.used.secrets", "0"),
		},
		"service-cidrs-controller": {
			before: func(c *cluster) {
				put(cidrs, "bad", `{spec: {cidrs: [10.200.0.0/24]}}`)(c)
				time.Sleep(5 * time.Second)
				put(services, "user", `{metadata: {namespace: default}, spec: {clusterIP: 10.200.0.5, ports: [{port: 80}]}}`)(c)
			},
			bad: drop(cidrs, "", "bad"), told: says(cidrs, "", "bad", "Ready", "False", "Terminating"),
			good: put(cidrs, "good", `{spec: {cidrs: [10.201.0.0/24]}}`), served: says(cidrs, "", "good", "Ready", "True", ""),
		},
		"storage-version-migrator-controller": {
			bad:  put(migrations, "bad", `{spec: {resource: {group: example.com, resource: nothings}}}`),
			told: has(migrations, "", "bad", "status.conditions", "Failed"),
			good: put(migrations, "good", `{spec: {resource: {group: "", resource: configmaps}}}`), served: has(migrations, "", "good", "status.conditions", "Succeeded"),
		},
		"kube-apiserver-serving-clustertrustbundle-publisher": {never: once},
		"bootstrap-signer": {never: once + ": a token that cannot be read has no signature there"},
	}
}

func misfitNodes() map[string]misfit {
	tainted := func(name, value string) func(*cluster) { return put(nodes, name, "{spec: {"+value+"}}") }
	on := func(node string) string {
		return `{metadata: {namespace: default}, spec: {nodeName: ` + node + `, containers: [{name: c, image: v1}]}}`
	}
	return map[string]misfit{
		"node-ipam-controller": {
			refuse: []string{nodes},
			bad:    tainted("bad", ""), told: event("default", "bad", "CIDRAssignmentFailed"),
			good: tainted("good", ""), served: has(nodes, "", "good", "spec.podCIDR", "10.244."),
		},
		"node-lifecycle-controller": {
			refuse: []string{nodes}, // of whose taints upstream's says nothing
			bad:    tainted("bad", "unschedulable: true"),
			good:   tainted("good", "unschedulable: true"), after: 100 * time.Second,
			served: both(has(nodes, "", "good", "spec.taints", "node.kubernetes.io/unschedulable"),
				says(nodes, "", "good", "Ready", "Unknown", "NodeStatusNeverUpdated")),
		},
		"taint-eviction-controller": {
			before: func(c *cluster) {
				put(pods, "bad", on("node-1"))(c)
				put(pods, "good", on("node-2"))(c)
				time.Sleep(5 * time.Second)
			},
			refuse: []string{pods},
			bad:    taint("node-1"), told: event("default", "bad", "TaintManagerEviction"),
			good: taint("node-2"), served: lacks(pods, "default", "good"),
		},
		"pod-garbage-collector": {
			refuse: []string{pods}, // of which upstream's says nothing
			bad:    put(pods, "bad", on("nowhere")),
			good:   put(pods, "good", on("nowhere")), served: lacks(pods, "default", "good"), after: time.Minute,
		},
	}
}

// taint has the pods of a node leave.
func taint(node string) func(*cluster) {
	return func(c *cluster) {
		n := c.getNode(node)
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "example.org/out", Effect: corev1.TaintEffectNoExecute})
		if _, err := c.Client.CoreV1().Nodes().Update(c.t.Context(), n, metav1.UpdateOptions{}); err != nil {
			c.t.Fatal(err)
		}
	}
}

func misfitServices() map[string]misfit {
	service := `{metadata: {namespace: default}, spec: {selector: {app: x}, ports: [{port: 80}]}}`
	mirrored := func(name string) func(*cluster) {
		return all(put(services, name, `{metadata: {namespace: default}, spec: {ports: [{port: 80}]}}`),
			put(endpoints, name, `{metadata: {namespace: default}, subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]}`))
	}
	sliced := func(c *cluster) error {
		if items, _ := c.slices("good"); len(items) != 1 {
			return fmt.Errorf("it has %d slices", len(items))
		}
		return nil
	}
	return map[string]misfit{
		"endpointslice-controller": {
			refuse: []string{sliceLists},
			bad:    put(services, "bad", service), told: event("default", "bad", "FailedToUpdateEndpointSlices"),
			good: put(services, "good", service), served: sliced,
		},
		"endpoint-controller": {
			refuse: []string{endpoints},
			bad:    put(services, "bad", service), told: event("default", "bad", "FailedToCreateEndpoint"),
			good: put(services, "good", service), served: has(endpoints, "default", "good", "metadata.uid", ""),
		},
		"endpointslicemirroring-controller": {
			refuse: []string{sliceLists},
			bad:    mirrored("bad"), told: event("default", "bad", "FailedToUpdateEndpointSlices"),
			good: mirrored("good"), served: sliced,
		},
		"service-controller": {
			config: func(cfg *controllers.Config) { cfg.LoadBalancers = netip.MustParsePrefix("10.89.0.252/30") },
			refuse: []string{services},
			bad:    func(c *cluster) { c.makeBalancer("bad") }, told: event("default", "bad", "SyncLoadBalancerFailed"),
			good:   func(c *cluster) { c.makeBalancer("good") },
			served: has(services, "default", "good", "status.loadBalancer.ingress", "10.89.0."),
		},
	}
}

func misfitCertificates() map[string]misfit {
	ended := func(id string) func(*cluster) {
		return func(c *cluster) { c.bootstrapToken(id, time.Now().Add(10*time.Second), false) }
	}
	return map[string]misfit{
		"certificate-controller": {
			config: signing,
			bad:    approved("bad", "system:nodes", "system:masters"), told: says(requests, "", "bad", "Failed", "True", "SignerValidationFailure"),
			good: approved("good", "system:nodes"), served: has(requests, "", "good", "status.certificate", ""),
		},
		"podcertificaterequestcleaner": { // upstream's tells nobody
			refuse: []string{podRequests},
			bad:    asked("bad"),
			good:   asked("good"), after: 15 * time.Minute, served: lacks(podRequests, "default", "good"),
		},
		"token-cleaner": { // neither does this one
			config: func(cfg *controllers.Config) { cfg.BootstrapTokens = true },
			refuse: []string{secrets},
			bad:    ended("bad000"),
			good:   ended("good00"), after: 10 * time.Second, served: lacks(secrets, "kube-system", "bootstrap-token-good00"),
		},
		"serviceaccount-token-controller": { // nor this
			config: signPlainly, refuse: []string{secrets},
			before: func(c *cluster) { c.makeAccount("robot") },
			bad:    func(c *cluster) { c.makeTokenSecret("bad", "robot") },
			good:   func(c *cluster) { c.makeTokenSecret("good", "robot") }, served: has(secrets, "default", "good", "data.token", ""),
		},
		"legacy-service-account-token-cleaner": {never: "it looks at each Secret by itself, once a day, and again the next day"},
	}
}
