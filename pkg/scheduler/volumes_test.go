package scheduler_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/localpath"
	"coracle/pkg/testcluster"
)

func gib(n int64) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(n<<30, resource.BinarySI)}
}

// makeClass makes a class; one with the provisioner localpath.Provisioner is
// that of local clusters.
func makeClass(t *testing.T, c kubernetes.Interface, name, provisioner string, change func(*storagev1.StorageClass)) {
	t.Helper()
	class := localpath.Class()
	class.Name, class.Provisioner = name, provisioner
	if change != nil {
		change(class)
	}
	if _, err := c.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func makeClaim(t *testing.T, c kubernetes.Interface, name, class string, mode corev1.PersistentVolumeAccessMode) {
	t.Helper()
	if _, err := c.CoreV1().PersistentVolumeClaims("default").Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{mode},
			Resources: corev1.VolumeResourceRequirements{Requests: gib(1)}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// makeVolume makes a volume that node reaches, or all nodes when it is empty.
func makeVolume(t *testing.T, c kubernetes.Interface, name, class, node string) {
	t.Helper()
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: gib(1), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}}}}
	if node != "" {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}
	}
	if _, err := c.CoreV1().PersistentVolumes().Create(t.Context(), v, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func using(claims ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, name := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
		}
	}
}

func volumeOf(t *testing.T, c kubernetes.Interface, claim string) string {
	t.Helper()
	p, err := c.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), claim, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Spec.VolumeName
}

func says(text string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return strings.Contains(unschedulable(p), text) }
}

func TestPodWaitsForItsClaims(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n1", "4", nil)
	// Alike but for the claim.
	makePod(t, c, "free", "100m", nil)
	awaitPod(t, c, "free", bound)
	makePod(t, c, "p", "100m", using("data"))
	awaitPod(t, c, "p", says(`persistentvolumeclaim "data" not found`))
	makeClaim(t, c, "data", "manual", corev1.ReadWriteOnce)
	awaitPod(t, c, "p", says("pod has unbound immediate PersistentVolumeClaims"))
	makeVolume(t, c, "v", "manual", "n2")
	p := awaitPod(t, c, "p", says("didn't match"))
	if got, want := unschedulable(p), "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	makeNode(t, c, "n2", "4", nil)
	if p := awaitPod(t, c, "p", bound); p.Spec.NodeName != "n2" {
		t.Errorf("the pod is on %s, its volume on n2", p.Spec.NodeName)
	}
}

func TestVolumesThatWaitForPodsGoWithThem(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n1", "4", nil)
	makeNode(t, c, "n2", "4", nil)
	makeClass(t, c, "disks", "kubernetes.io/no-provisioner", func(s *storagev1.StorageClass) { s.AllowVolumeExpansion = nil })
	makeVolume(t, c, "v1", "disks", "n1")
	makeVolume(t, c, "v2", "disks", "n2")
	for _, name := range []string{"a", "b", "c"} {
		makeClaim(t, c, name, "disks", corev1.ReadWriteOnce)
	}
	makePod(t, c, "first", "100m", func(p *corev1.Pod) {
		using("a")(p)
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n2"}
	})
	if awaitPod(t, c, "first", bound); volumeOf(t, c, "a") != "v2" {
		t.Errorf("the claim has %s", volumeOf(t, c, "a"))
	}
	makePod(t, c, "both", "100m", using("b", "c"))
	awaitPod(t, c, "both", says("2 node(s) didn't find available persistent volumes to bind"))
	makePod(t, c, "second", "100m", using("b"))
	if p := awaitPod(t, c, "second", bound); p.Spec.NodeName != "n1" || volumeOf(t, c, "b") != "v1" {
		t.Errorf("the pod is on %s with %s", p.Spec.NodeName, volumeOf(t, c, "b"))
	}
}

func TestVolumesAreMadeWhereThePodGoes(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	folder := func(n *corev1.Node) { n.Annotations = map[string]string{localpath.Folder: "/v"} }
	makeNode(t, c, "n1", "4", folder)
	makeNode(t, c, "n2", "4", folder)
	makeClass(t, c, "local-path", localpath.Provisioner, nil)
	makeClass(t, c, "zoned", localpath.Provisioner, func(s *storagev1.StorageClass) {
		s.Annotations = nil
		s.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelHostname, Values: []string{"n2"}}}}}
	})
	makeClaim(t, c, "data", "local-path", corev1.ReadWriteOnce)
	makeClaim(t, c, "zoned", "zoned", corev1.ReadWriteOncePod)
	for _, name := range []string{"p1", "p2", "p3"} { // at once, of one claim
		makePod(t, c, name, "100m", using("data"))
	}
	node := awaitPod(t, c, "p1", bound).Spec.NodeName
	for _, name := range []string{"p2", "p3"} {
		if p := awaitPod(t, c, name, bound); p.Spec.NodeName != node {
			t.Errorf("pods of one folder are on %s and %s", node, p.Spec.NodeName)
		}
	}
	makePod(t, c, "z1", "100m", using("zoned"))
	if p := awaitPod(t, c, "z1", bound); p.Spec.NodeName != "n2" {
		t.Errorf("the pod is on %s, its class allows n2", p.Spec.NodeName)
	}
	makePod(t, c, "z2", "100m", using("zoned"))
	awaitPod(t, c, "z2", says("ReadWriteOncePod access mode already in-use by another pod"))
	if err := c.CoreV1().Pods("default").Delete(t.Context(), "z1", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	awaitPod(t, c, "z2", bound)
}

// TestVolumeThatCannotBeMadeIsTriedAgain: the provisioner gives the node back,
// and the pod finds its place when the node keeps volumes.
func TestVolumeThatCannotBeMadeIsTriedAgain(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n1", "4", nil)
	makeClass(t, c, "local-path", localpath.Provisioner, nil)
	makeClaim(t, c, "data", "local-path", corev1.ReadWriteOnce)
	makePod(t, c, "p", "100m", using("data"))
	awaitPod(t, c, "p", says(`running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "data"`))
	node, err := c.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Annotations = map[string]string{localpath.Folder: "/v"}
	if _, err := c.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPod(t, c, "p", bound)
}
