package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/attachment"
	"coracle/pkg/kubelet/csi"
)

// TestCSIVolume follows a claimed volume through two pods of the node: staged
// once, published for each, in the places where drivers look, and all of it
// taken down with the last.
func TestCSIVolume(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(csiPV("data", func(s *corev1.PersistentVolumeSpec) {
		s.MountOptions = []string{"noatime"}
		s.CSI.NodeStageSecretRef = &corev1.SecretReference{Namespace: "ns", Name: "sec"}
	}), noAttach(), secret("sec", "key", "value"))...)
	a, b := podCalled("a", claimOf("data")), podCalled("b", claimOf("data"))
	dir := n.mount(a)
	if want := filepath.Join(n.root, "pods/a/volumes/kubernetes.io~csi/pv-data/mount"); dir != want {
		t.Errorf("mounted at %s, want %s", dir, want)
	}
	global := filepath.Join(n.root, "plugins/kubernetes.io/csi", testDriver, digest("handle-data"))
	for file, want := range map[string]string{
		filepath.Join(global, "vol_data.json"): `{"volumeHandle":"handle-data","driverName":"d.example"}`,
		filepath.Join(filepath.Dir(dir), "vol_data.json"): `{"specVolID":"pv-data","volumeHandle":"handle-data","driverName":"d.example","nodeName":"n1",` +
			`"attachmentID":"` + attachment.Name(testDriver, "handle-data", "n1") + `","volumeLifecycleMode":"Persistent"}`,
	} {
		if got := strings.TrimSpace(read(t, file)); got != want {
			t.Errorf("%s:\n%s, want\n%s", file, got, want)
		}
	}
	stage := n.driver.Request("NodeStageVolume").(*spec.NodeStageVolumeRequest)
	if stage.GetStagingTargetPath() != filepath.Join(global, "globalmount") || stage.GetSecrets()["key"] != "value" ||
		stage.GetVolumeCapability().GetMount().GetFsType() != "ext4" || stage.GetVolumeCapability().GetMount().GetMountFlags()[0] != "noatime" ||
		stage.GetVolumeCapability().GetAccessMode().GetMode() != spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER {
		t.Errorf("staged with %v", stage)
	}
	publish := n.driver.Request("NodePublishVolume").(*spec.NodePublishVolumeRequest)
	if publish.GetStagingTargetPath() != stage.GetStagingTargetPath() || !cmp.Equal(publish.GetVolumeContext(), map[string]string{"pool": "p"}) {
		t.Errorf("published with %v", publish)
	}
	write(t, "hello", dir, "file")
	n.mount(a) // again: nothing to do
	other := n.mount(b)
	if read(t, other, "file") != "hello" {
		t.Error("the pods do not share the volume")
	}
	n.checkCalls("stage 1 publish 2 unpublish 0 unstage 0")
	n.unmount("a")
	n.checkCalls("stage 1 publish 2 unpublish 1 unstage 0")
	n.unmount("b")
	n.checkCalls("stage 1 publish 2 unpublish 2 unstage 1")
	n.checkClean()
	if read(t, n.driver.VolumePath("handle-data"), "file") != "hello" {
		t.Error("the data are gone with the pods")
	}
	n.mount(a) // staged anew
	n.checkCalls("stage 2 publish 3 unpublish 2 unstage 1")
}

// TestCSIWithoutStaging: a driver that does not stage gets no staging path.
func TestCSIWithoutStaging(t *testing.T) {
	n := newCSINode(t, nil, append(csiPV("data"), noAttach())...)
	n.mount(podCalled("a", claimOf("data")))
	if p := n.driver.Request("NodePublishVolume").(*spec.NodePublishVolumeRequest); p.GetStagingTargetPath() != "" {
		t.Errorf("staging path %q", p.GetStagingTargetPath())
	}
	n.unmount("a")
	n.checkCalls("stage 0 publish 1 unpublish 1 unstage 0")
	n.checkClean()
}

// TestCSISubPath: a container sees a folder of the volume, and the volume goes
// nevertheless.
func TestCSISubPath(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
	pod := podCalled("a", claimOf("data"))
	mounted, err := n.Mount(t.Context(), pod, PodFacts{})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := n.ContainerMounts(pod, &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/x", SubPath: "a/b"}}}, nil, mounted)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "x", mounts[0].HostPath, "file")
	n.unmount("a")
	n.checkClean()
	if read(t, n.driver.VolumePath("handle-data"), "a/b/file") != "x" {
		t.Error("the subPath was not in the volume")
	}
}

// TestCSIInline: a volume of the pod alone, with all that a driver may ask for.
func TestCSIInline(t *testing.T) {
	n := newCSINode(t, allCapabilities, secret("sec", "k", "v"), noAttach(func(s *storagev1.CSIDriverSpec) {
		s.PodInfoOnMount, s.RequiresRepublish = ptr(true), ptr(true)
		s.TokenRequests = []storagev1.TokenRequest{{Audience: "vault", ExpirationSeconds: ptr(int64(600))}}
	}))
	issueTokens(n.client)
	pod := podCalled("a", vol("v", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: testDriver, ReadOnly: ptr(true), VolumeAttributes: map[string]string{"x": "y"}, NodePublishSecretRef: &corev1.LocalObjectReference{Name: "sec"},
	}}))
	mounted, err := n.Mount(t.Context(), pod, PodFacts{})
	if err != nil {
		t.Fatal(err)
	}
	if !mounted["v"].ReadOnly {
		t.Error("containers may write")
	}
	if err := os.WriteFile(filepath.Join(mounted["v"].HostPath, "file"), nil, 0o600); err == nil {
		t.Error("the mount is writable")
	}
	p := n.driver.Request("NodePublishVolume").(*spec.NodePublishVolumeRequest)
	got := p.GetVolumeContext()
	if !strings.Contains(got[csiTokensKey], `"vault":{"token":"token-`) {
		t.Errorf("tokens %s", got[csiTokensKey])
	}
	delete(got, csiTokensKey)
	if diff := cmp.Diff(map[string]string{
		"x": "y", "csi.storage.k8s.io/pod.name": "pod-a", "csi.storage.k8s.io/pod.namespace": "ns", "csi.storage.k8s.io/pod.uid": "a",
		"csi.storage.k8s.io/serviceAccount.name": "sa", "csi.storage.k8s.io/ephemeral": "true",
	}, got); diff != "" {
		t.Error(diff)
	}
	if p.GetVolumeId() != inlineHandle("a", "v") || p.GetSecrets()["k"] != "v" || !p.GetReadonly() {
		t.Errorf("published with %v", p)
	}
	if err := n.Refresh(t.Context(), pod, PodFacts{}); err != nil {
		t.Fatal(err)
	}
	n.checkCalls("stage 0 publish 2 unpublish 0 unstage 0") // told again, as it wants
	n.unmount("a")
	n.checkCalls("stage 0 publish 2 unpublish 1 unstage 0")
	n.checkClean()
}

// TestCSIAttachment: the Node says that it uses the volume, then that it is
// attached; only then the driver is called, with what the attachment says.
func TestCSIAttachment(t *testing.T) {
	n := newCSINode(t, allCapabilities, csiPV("data")...) // no CSIDriver: it attaches
	pod := podCalled("a", claimOf("data"))
	name := corev1.UniqueVolumeName("kubernetes.io/csi/d.example^handle-data")
	waits := func(what string) {
		t.Helper()
		if _, err := n.Mount(t.Context(), pod, PodFacts{}); !OnlyWaits(err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want one that waits: %q", err, what)
		}
	}
	waits("does not say yet that it uses")
	if names, known := n.VolumesInUse(); !known || len(names) != 1 || names[0] != name {
		t.Errorf("in use: %v, %v", names, known)
	}
	n.report()
	waits("not attached according to node status")
	n.NodeChanged()
	if n.mu.Lock(); len(n.changes) != 1 || n.changes[0] != "a" {
		t.Errorf("changes %v", n.changes)
	}
	n.mu.Unlock()
	n.report(name)
	waits("GET error for volume attachment")
	va := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: attachment.Name(testDriver, "handle-data", "n1")}}
	if err := n.client.Tracker().Add(va); err != nil {
		t.Fatal(err)
	}
	waits("is not attached for volume attachment")
	va = va.DeepCopy()
	va.Status.AttachError = &storagev1.VolumeError{Message: "no such disk"}
	update := func() {
		t.Helper()
		if _, err := n.client.StorageV1().VolumeAttachments().UpdateStatus(t.Context(), va, updateOptions); err != nil {
			t.Fatal(err)
		}
	}
	update()
	if _, err := n.Mount(t.Context(), pod, PodFacts{}); err == nil || OnlyWaits(err) || !strings.Contains(err.Error(), `failed for volume "pv-data" : no such disk`) {
		t.Errorf("an attachment that failed: %v", err)
	}
	n.checkCalls("stage 0 publish 0 unpublish 0 unstage 0")
	va.Status = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "/dev/x"}}
	update()
	n.mount(pod)
	for _, context := range []map[string]string{
		n.driver.Request("NodeStageVolume").(*spec.NodeStageVolumeRequest).GetPublishContext(),
		n.driver.Request("NodePublishVolume").(*spec.NodePublishVolumeRequest).GetPublishContext(),
	} {
		if context["device"] != "/dev/x" {
			t.Errorf("publish context %v", context)
		}
	}
	n.restart()
	if names, known := n.VolumesInUse(); !known || len(names) != 1 || names[0] != name {
		t.Errorf("after a restart, in use: %v, %v", names, known)
	}
	n.unmount("a")
	n.checkClean()
}

// TestCSIWaitEndsWithThePod: a pod that never got its volume leaves nothing.
func TestCSIWaitEndsWithThePod(t *testing.T) {
	n := newCSINode(t, allCapabilities, csiPV("data")...)
	if _, err := n.Mount(t.Context(), podCalled("a", claimOf("data")), PodFacts{}); !OnlyWaits(err) {
		t.Fatal(err)
	}
	n.unmount("a")
	n.checkCalls("stage 0 publish 0 unpublish 0 unstage 0")
	n.checkClean()
}

// TestCSIExpansion: a claim that was given more tells so once the driver has
// made the file system larger.
func TestCSIExpansion(t *testing.T) {
	objects := append(csiPV("data", func(s *corev1.PersistentVolumeSpec) {
		s.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
	}), noAttach())
	n := newCSINode(t, allCapabilities, objects...)
	pod := podCalled("a", claimOf("data"))
	dir := n.mount(pod)
	claim := objects[0].(*corev1.PersistentVolumeClaim).DeepCopy()
	claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	claim.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{corev1.ResourceStorage: corev1.PersistentVolumeClaimNodeResizePending}
	claim.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimFileSystemResizePending, Status: corev1.ConditionTrue}, {Type: "Mine", Status: corev1.ConditionTrue}}
	if _, err := n.client.CoreV1().PersistentVolumeClaims("ns").UpdateStatus(t.Context(), claim, updateOptions); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second has nothing to do
		if err := n.Refresh(t.Context(), pod, PodFacts{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.driver.Calls("NodeExpandVolume"); got != 1 {
		t.Errorf("%d calls", got)
	}
	r := n.driver.Request("NodeExpandVolume").(*spec.NodeExpandVolumeRequest)
	if r.GetVolumePath() != dir || r.GetCapacityRange().GetRequiredBytes() != 2<<30 || r.GetStagingTargetPath() == "" {
		t.Errorf("request %v", r)
	}
	claim, err := n.client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "data", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if q := claim.Status.Capacity[corev1.ResourceStorage]; q.String() != "2Gi" || len(claim.Status.AllocatedResourceStatuses) != 0 || len(claim.Status.Conditions) != 1 {
		t.Errorf("status %+v", claim.Status)
	}
	if len(n.events) != 1 || !strings.HasPrefix(n.events[0], "Normal FileSystemResizeSuccessful") {
		t.Errorf("events %v", n.events)
	}
}

// TestCSIUsage: how full a volume is, as its driver said when last asked.
func TestCSIUsage(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
	pod := podCalled("a", claimOf("data"))
	n.mount(pod)
	if got := n.Usages("a"); len(got) != 0 {
		t.Errorf("before the driver was asked: %v", got)
	}
	if err := n.Refresh(t.Context(), pod, PodFacts{}); err != nil {
		t.Fatal(err)
	}
	want := []Usage{{Name: "v", Claim: "data", At: n.clock.Now(), Usage: csi.Usage{
		Bytes:  &csi.Amount{Total: 1 << 30, Used: 1 << 29, Available: 1 << 29},
		Inodes: &csi.Amount{Total: 1000, Used: 500, Available: 500},
	}}}
	if diff := cmp.Diff(want, n.Usages("a")); diff != "" {
		t.Error(diff)
	}
	n.unmount("a")
	if got := n.Usages("a"); len(got) != 0 {
		t.Errorf("after the pod: %v", got)
	}
}

// TestCSIUseOfUnattachedVolume: only what is attached is kept from detaching,
// whatever the notes of an earlier agent leave open.
func TestCSIUseOfUnattachedVolume(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
	pod := podCalled("a", claimOf("data"))
	n.mount(pod)
	n.restart()
	n.mount(pod)
	if names, known := n.VolumesInUse(); len(names) != 0 || !known {
		t.Errorf("in use: %v, %v", names, known)
	}
}

// TestCSIBlock: a device is passed to containers, from places of its own.
func TestCSIBlock(t *testing.T) {
	block := corev1.PersistentVolumeBlock
	n := newCSINode(t, allCapabilities, append(csiPV("data", func(s *corev1.PersistentVolumeSpec) { s.VolumeMode = &block }), noAttach())...)
	a, b := podCalled("a", claimOf("data")), podCalled("b", claimOf("data"))
	n.mount(b)
	n.unmount("b")
	n.checkClean()
	mounted, err := n.Mount(t.Context(), a, PodFacts{})
	if err != nil {
		t.Fatal(err)
	}
	device := filepath.Join(n.root, "plugins/kubernetes.io/csi/volumeDevices/publish/pv-data/a")
	devices, err := n.ContainerDevices(&corev1.Container{Name: "c", VolumeDevices: []corev1.VolumeDevice{{Name: "v", DevicePath: "/dev/xvda"}}}, mounted)
	if err != nil || len(devices) != 1 || devices[0].HostPath != device || devices[0].ContainerPath != "/dev/xvda" || devices[0].Permissions != "mrw" {
		t.Errorf("devices %v, %v", devices, err)
	}
	if _, err := n.ContainerMounts(a, &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/x"}}}, nil, mounted); err == nil {
		t.Error("a device was mounted as a folder")
	}
	if p := n.driver.Request("NodePublishVolume").(*spec.NodePublishVolumeRequest); p.GetVolumeCapability().GetBlock() == nil || p.GetTargetPath() != device ||
		p.GetStagingTargetPath() != filepath.Join(n.root, "plugins/kubernetes.io/csi/volumeDevices/staging/pv-data") {
		t.Errorf("published with %v", p)
	}
	n.restart()
	n.mount(b)
	n.unmount("a")
	n.checkCalls("stage 3 publish 3 unpublish 2 unstage 1")
	n.unmount("b")
	n.checkCalls("stage 3 publish 3 unpublish 3 unstage 2")
	n.checkClean()
}
