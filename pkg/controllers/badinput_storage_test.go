package controllers_test

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/testcluster/sidecar"
)

func misfitStorage() map[string]misfit {
	idle := func(name string) func(*cluster) { return func(c *cluster) { c.makeClaim(name, "1Gi", "none") } }
	volume := func(name string) func(*cluster) { return func(c *cluster) { c.makeVolume(name, "1Gi", "none") } }
	class := func(name string) func(*cluster) { return func(c *cluster) { c.makeAttributesClass(name) } }
	const classes, groups = "storage.k8s.io/v1/volumeattributesclasses", "scheduling.k8s.io/v1beta1/podgroups"
	group := func(name string) func(*cluster) {
		return put(groups, name, `{metadata: {namespace: default}, spec: {schedulingPolicy: {gang: {minCount: 2}}}}`)
	}
	// Of a finalizer that stays, upstream's controllers say nothing: the object does.
	kept := func(resource, namespace string, make func(string) func(*cluster)) misfit {
		return misfit{
			refuse: []string{resource}, before: func(c *cluster) { all(make("bad"), make("good"))(c); time.Sleep(5 * time.Second) },
			bad: drop(resource, namespace, "bad"), good: drop(resource, namespace, "good"), served: lacks(resource, namespace, "good"),
		}
	}
	var driver *sidecar.Driver
	var disk string
	return map[string]misfit{
		"pvc-protection-controller":                   kept(claims, "default", idle),
		"pv-protection-controller":                    kept(volumes, "", volume),
		"volumeattributesclass-protection-controller": kept(classes, "", class),
		"podgroup-protection-controller":              kept(groups, "default", group),
		"persistent-volume-binder": {
			bad: func(c *cluster) { c.makeClaim("bad", "1Gi", "nowhere") }, told: event("default", "bad", "ProvisioningFailed"),
			good:   func(c *cluster) { c.makeVolume("v", "1Gi", "manual"); c.makeClaim("good", "1Gi", "manual") },
			served: has(claims, "default", "good", "status.phase", "Bound"),
		},
		"attachdetach-controller": {
			before: func(c *cluster) {
				driver = c.startDriver("disks")
				handle := c.makeDisk("bad", "disks")
				disk = c.makeDisk("good", "disks")
				c.makeUser("first", "bad", "node-1")
				c.wantAttached(driver, handle, "node-1")
			},
			bad: func(c *cluster) { c.makeUser("bad", "bad", "node-2") }, told: event("default", "bad", "FailedAttachVolume"),
			good: func(c *cluster) { c.makeUser("good", "good", "node-2") },
			served: func(c *cluster) error {
				c.wantAttached(driver, disk, "node-2")
				return nil
			},
		},
		"local-path-provisioner": {
			before: func(c *cluster) { c.offerLocalPath("node-1") },
			bad: func(c *cluster) {
				c.claimOnNode("bad", "node-1", func(p *corev1.PersistentVolumeClaim) {
					p.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
				})
			},
			told: event("default", "bad", "ProvisioningFailed"),
			good: func(c *cluster) { c.claimOnNode("good", "node-1") }, served: has(claims, "default", "good", "status.phase", "Bound"),
		},
	}
}

func misfitClaims() map[string]misfit {
	scratch := `{metadata: {namespace: default}, spec: {schedulerName: nobody, containers: [{name: c, image: v1}], volumes: [{name: scratch, ephemeral: {
		volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}}}}]}}`
	waiting := func(name, template string) func(*cluster) {
		return func(c *cluster) { c.podWithClaims(name, ofTemplate("gpu", template)) }
	}
	return map[string]misfit{
		"ephemeral-volume-controller": {
			before: func(c *cluster) { c.makeClaim("bad-scratch", "1Gi", "none") },
			bad:    put(pods, "bad", scratch), told: event("default", "bad", "FailedBinding"),
			good: put(pods, "good", scratch), served: has(claims, "default", "good-scratch", "metadata.uid", ""),
		},
		"resource-claim-controller": {
			before: func(c *cluster) { c.gpuTemplate("gpu") },
			bad:    waiting("bad", "nothing"), told: event("default", "bad", "FailedResourceClaimCreation"),
			good: waiting("good", "gpu"), served: has(pods, "default", "good", "status.resourceClaimStatuses", "good-gpu"),
		},
		"device-taint-eviction-controller": {
			before: func(c *cluster) { c.gpuTemplate("gpu"); withDevice("bad")(c) },
			refuse: []string{pods},
			// Both have the device; the good one is not there when the rule comes.
			bad: broken("p"), told: event("default", "bad", "DeviceTaintManagerEviction"),
			good: withDevice("good"), served: lacks(pods, "default", "good"),
		},
	}
}
