package attachdetach

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/attachment"
)

const driver = "d.example.com"

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func aVolume(modes ...corev1.PersistentVolumeAccessMode) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: modes, ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "data", UID: "claim"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "vol-1"}}}}
}

func aPod(namespace, name, node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{NodeName: node,
		Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}}
}

func aNode(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	for _, f := range change {
		f(n)
	}
	return n
}

func using(n *corev1.Node) {
	n.Status.VolumesInUse = []corev1.UniqueVolumeName{"kubernetes.io/csi/other^vol-1", attachment.InStatus(driver, "vol-1")}
}
func silent(n *corev1.Node)   { n.Status.Conditions[0].Status = corev1.ConditionUnknown }
func powerOff(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}} }

func anAttachment(node string, change ...func(*storagev1.VolumeAttachment)) *storagev1.VolumeAttachment {
	pv := "pv"
	a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: attachment.Name(driver, "vol-1", node), UID: types.UID("at-" + node), CreationTimestamp: metav1.NewTime(noon)},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv}}}
	for _, f := range change {
		f(a)
	}
	return a
}

func attached(a *storagev1.VolumeAttachment) { a.Status.Attached = true }
func going(a *storagev1.VolumeAttachment)    { a.DeletionTimestamp = &metav1.Time{Time: noon} }
func failing(a *storagev1.VolumeAttachment) {
	a.Status.AttachError = &storagev1.VolumeError{Message: "no such disk", Time: metav1.NewTime(noon)}
}

// said is a plan in words: what is done where, and what users are told.
func said(p plan) []string {
	var out []string
	for _, w := range p.attach {
		out = append(out, "attach "+w.node)
	}
	for _, d := range p.detach {
		out = append(out, fmt.Sprintf("detach %s %v", d.attachment.Spec.NodeName, d.force))
	}
	for _, uid := range p.wanted {
		out = append(out, "keep "+string(uid))
	}
	for _, l := range p.lines {
		out = append(out, l.pod.Name+": "+l.message)
	}
	if p.after > 0 {
		out = append(out, "after "+p.after.String())
	}
	return out
}

func TestDecide(t *testing.T) {
	rwo, rwx := aVolume(corev1.ReadWriteOnce), aVolume(corev1.ReadWriteMany)
	nodes := func(all ...*corev1.Node) []*corev1.Node { return all }
	onTwo := []*corev1.Pod{aPod("ns", "a", "one"), aPod("ns", "b", "two")}
	for _, tt := range []struct {
		name        string
		volume      *corev1.PersistentVolume
		pods        []*corev1.Pod
		attachments []*storagev1.VolumeAttachment
		nodes       []*corev1.Node
		unwantedFor time.Duration
		age         time.Duration
		want        []string
	}{
		{name: "a pod comes", volume: rwo, pods: onTwo[:1], nodes: nodes(aNode("one")), want: []string{"attach one"}},
		{name: "to a node that is gone", volume: rwo, pods: onTwo[:1]},
		{name: "two pods of one node", volume: rwo, pods: []*corev1.Pod{aPod("ns", "a", "one"), aPod("ns", "c", "one")}, nodes: nodes(aNode("one")), want: []string{"attach one"}},
		{name: "two nodes, one may have it", volume: rwo, pods: onTwo, nodes: nodes(aNode("one"), aNode("two")), want: []string{"attach one"}},
		{name: "two nodes, both may", volume: rwx, pods: onTwo, nodes: nodes(aNode("one"), aNode("two")), want: []string{"attach one", "attach two"}},
		{name: "nobody knows", volume: aVolume(), pods: onTwo, nodes: nodes(aNode("one"), aNode("two")), want: []string{"attach one", "attach two"}},
		{name: "the other has it", volume: rwo, pods: onTwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one"), aNode("two")),
			want: []string{"keep at-one", `b: Waiting for detach for volume "pv" Volume is already used by pod(s) a`}},
		{name: "nobody there needs it, but has it", volume: rwo, pods: onTwo[1:], attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one", using), aNode("two")),
			want: []string{`b: Waiting for detach for volume "pv" Volume is already exclusively attached to one node, waiting on detach before it can be attached to another node`}},
		{name: "it is on its way", volume: rwo, pods: onTwo[1:], attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one"), aNode("two")), want: []string{"detach one false"}},
		{name: "it is still going", volume: rwo, pods: onTwo[1:], attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached, going)}, nodes: nodes(aNode("one"), aNode("two"))},
		{name: "its own is going", volume: rwx, pods: onTwo[:1], attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached, going)}, nodes: nodes(aNode("one"))},
		{name: "attached", volume: rwo, pods: onTwo[:1], attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one")), age: time.Hour, want: []string{"keep at-one"}},
		{name: "the attacher fails", volume: rwo, pods: onTwo[:1], attachments: []*storagev1.VolumeAttachment{anAttachment("one", failing)}, nodes: nodes(aNode("one")),
			want: []string{"keep at-one", `a: AttachVolume.Attach failed for volume "pv" : no such disk`}},
		{name: "the attacher works", volume: rwo, pods: onTwo[:1], attachments: []*storagev1.VolumeAttachment{anAttachment("one")}, nodes: nodes(aNode("one")), age: 30 * time.Second, want: []string{"keep at-one", "after 1m30s"}},
		{name: "the attacher is not there", volume: rwo, pods: onTwo[:1], attachments: []*storagev1.VolumeAttachment{anAttachment("one")}, nodes: nodes(aNode("one")), age: 2 * time.Minute,
			want: []string{"keep at-one", `a: AttachVolume.Attach failed for volume "pv" : timed out waiting for external-attacher of d.example.com CSI driver to attach volume vol-1`}},
		{name: "in use on a healthy node, for ever", volume: rwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one", using)), unwantedFor: time.Hour},
		{name: "in use on a silent node", volume: rwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one", using, silent)), unwantedFor: time.Minute, want: []string{"after 5m0s"}},
		{name: "in use on a node that is silent for long", volume: rwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one", using, silent)), unwantedFor: 6 * time.Minute, want: []string{"detach one true"}},
		{name: "not in use on a silent node", volume: rwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one", silent)), want: []string{"detach one false"}},
		{name: "in use on a node out of service", volume: rwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, nodes: nodes(aNode("one", using, silent, powerOff)), want: []string{"detach one true"}},
		{name: "on a node that is gone", volume: rwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, want: []string{"after 6m0s"}},
		{name: "on a node that is gone for long", volume: rwo, attachments: []*storagev1.VolumeAttachment{anAttachment("one", attached)}, unwantedFor: 7 * time.Minute, want: []string{"detach one true"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := noon.Add(tt.age)
			p := decide(view{
				wants:       gather([]*corev1.PersistentVolume{tt.volume}, func(*corev1.PersistentVolume) []*corev1.Pod { return tt.pods }),
				attachments: tt.attachments, now: now,
				unwanted: func(types.UID) time.Time { return now.Add(-tt.unwantedFor) },
				node: func(name string) *corev1.Node {
					for _, n := range tt.nodes {
						if n.Name == name {
							return n
						}
					}
					return nil
				},
			})
			if diff := cmp.Diff(tt.want, said(p)); diff != "" {
				t.Errorf("the plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUsedByNamesOwnPodsOnly(t *testing.T) {
	a, b, c := aPod("ns", "a", "one"), aPod("ns", "b", "one"), aPod("secret", "c", "one")
	for want, users := range map[string][]*corev1.Pod{
		"Volume is already used by pod(s) a, b":                                           {a, b},
		"Volume is already used by pod(s) a and 1 pod(s) in different namespaces":         {a, c},
		"Volume is already used by 1 pod(s) in different namespaces":                      {c},
		"Volume is already exclusively attached to one node, waiting on detach before it": nil,
	} {
		if got := usedBy(users, "ns"); !strings.HasPrefix(got, want) {
			t.Errorf("%d users: %q, want %q", len(users), got, want)
		}
	}
}

func TestReported(t *testing.T) {
	v := func(name string) corev1.AttachedVolume {
		return corev1.AttachedVolume{Name: corev1.UniqueVolumeName(name)}
	}
	const in = "kubernetes.io/csi/d.example.com^vol-1"
	nobodys := v("example.com/other")
	known := func(*storagev1.VolumeAttachment) corev1.UniqueVolumeName { return in }
	gone := func(*storagev1.VolumeAttachment) corev1.UniqueVolumeName { return "" }
	for _, tt := range []struct {
		name       string
		has        []corev1.AttachedVolume
		attachment *storagev1.VolumeAttachment
		nameIn     func(*storagev1.VolumeAttachment) corev1.UniqueVolumeName
		leaving    bool
		want       []corev1.AttachedVolume
	}{
		{name: "attached", has: []corev1.AttachedVolume{nobodys}, attachment: anAttachment("one", attached), nameIn: known, want: []corev1.AttachedVolume{nobodys, v(in)}},
		{name: "listed already", has: []corev1.AttachedVolume{v(in), nobodys}, attachment: anAttachment("one", attached), nameIn: known, want: []corev1.AttachedVolume{v(in), nobodys}},
		{name: "not yet", attachment: anAttachment("one"), nameIn: known},
		{name: "leaving", has: []corev1.AttachedVolume{v(in)}, attachment: anAttachment("one", attached), nameIn: known, leaving: true},
		{name: "being deleted", has: []corev1.AttachedVolume{v(in)}, attachment: anAttachment("one", attached, going), nameIn: known},
		{name: "of a volume that is gone", has: []corev1.AttachedVolume{v(in)}, attachment: anAttachment("one", attached), nameIn: gone, want: []corev1.AttachedVolume{v(in)}},
		{name: "of a volume that is gone and was never listed", attachment: anAttachment("one", attached), nameIn: gone},
		{name: "of another name", attachment: anAttachment("one", attached, func(a *storagev1.VolumeAttachment) { a.Name = "mine" }), nameIn: known},
		{name: "of a volume that is another now", attachment: anAttachment("one", attached), nameIn: func(*storagev1.VolumeAttachment) corev1.UniqueVolumeName { return in + "0" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node := aNode("one", func(n *corev1.Node) { n.Status.VolumesAttached = tt.has })
			got := reported(node, []*storagev1.VolumeAttachment{tt.attachment}, tt.nameIn, func(types.UID) bool { return tt.leaving })
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("the list (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVolumesOf(t *testing.T) {
	volume := aVolume(corev1.ReadWriteOnce)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "claim"},
		Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	for _, tt := range []struct {
		name   string
		pod    func(*corev1.Pod)
		claim  func(*corev1.PersistentVolumeClaim)
		volume func(*corev1.PersistentVolume)
		not    bool // the driver does not attach
		want   int
	}{
		{name: "needed", want: 1},
		{name: "no node", pod: func(p *corev1.Pod) { p.Spec.NodeName = "" }},
		{name: "ended", pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }},
		{name: "ending", pod: func(p *corev1.Pod) {
			p.DeletionTimestamp = &metav1.Time{Time: noon}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{running}
		}, want: 1},
		{name: "ended after its deletion", pod: func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} }},
		{name: "claim is pending", claim: func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimPending }},
		{name: "volume is another claim's", volume: func(v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "other" }},
		{name: "volume is nobody's", volume: func(v *corev1.PersistentVolume) { v.Spec.ClaimRef = nil }},
		{name: "volume is no driver's", volume: func(v *corev1.PersistentVolume) { v.Spec.CSI = nil }},
		{name: "driver does not attach", not: true},
		{name: "inline", pod: func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver}}
		}},
		{name: "ephemeral and somebody else's", pod: func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod, c, v := aPod("ns", "a", "one"), claim.DeepCopy(), volume.DeepCopy()
			if tt.pod != nil {
				tt.pod(pod)
			}
			if tt.claim != nil {
				tt.claim(c)
			}
			if tt.volume != nil {
				tt.volume(v)
			}
			got, err := volumesOf(pod, lookup{
				claim:    func(string, string) (*corev1.PersistentVolumeClaim, error) { return c, nil },
				volume:   func(string) (*corev1.PersistentVolume, error) { return v, nil },
				attached: func(string) bool { return !tt.not },
			})
			if err != nil || len(got) != tt.want {
				t.Errorf("%d volumes (%v), want %d", len(got), err, tt.want)
			}
		})
	}
}
