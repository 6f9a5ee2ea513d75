package admission

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	podGroupGVR = schedulingv1beta1.SchemeGroupVersion.WithResource("podgroups")
	claimGVR    = corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
	ingressGVR  = networkingv1.SchemeGroupVersion.WithResource("ingresses")
	epoch       = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
)

// named is the metadata of an object made seconds after the epoch, with
// annotations "key", "value", ...
func named(name string, seconds int, annotations ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Time{Time: epoch.Add(time.Duration(seconds) * time.Second)}}
	for i := 0; i < len(annotations); i += 2 {
		metav1.SetMetaDataAnnotation(&m, annotations[i], annotations[i+1])
	}
	return m
}

func TestDefaultStorageClass(t *testing.T) {
	const def = "storageclass.kubernetes.io/is-default-class"
	class := func(m metav1.ObjectMeta) runtime.Object { return &storagev1.StorageClass{ObjectMeta: m} }
	tests := []struct {
		name    string
		classes []runtime.Object
		named   *string
		annot   string
		want    string // "-" for none
	}{
		{"no class", nil, nil, "", "-"},
		{"no default", []runtime.Object{class(named("a", 1)), class(named("b", 2, def, "false"))}, nil, "", "-"},
		{"one", []runtime.Object{class(named("a", 1)), class(named("b", 2, def, "true"))}, nil, "", "b"},
		{"the beta annotation", []runtime.Object{class(named("b", 2, "storageclass.beta.kubernetes.io/is-default-class", "true"))}, nil, "", "b"},
		{"the newest", []runtime.Object{class(named("a", 1, def, "true")), class(named("c", 3, def, "true")), class(named("b", 2, def, "true"))}, nil, "", "c"},
		{"of one age", []runtime.Object{class(named("b", 1, def, "true")), class(named("a", 1, def, "true"))}, nil, "", "a"},
		{"named", []runtime.Object{class(named("b", 2, def, "true"))}, new("own"), "", "own"},
		{"named empty", []runtime.Object{class(named("b", 2, def, "true"))}, new(""), "", ""},
		{"named by annotation", []runtime.Object{class(named("b", 2, def, "true"))}, nil, "own", "-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"},
				Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: tt.named}}
			if tt.annot != "" {
				metav1.SetMetaDataAnnotation(&claim.ObjectMeta, corev1.BetaStorageClassAnnotation, tt.annot)
			}
			plugin := DefaultStorageClass{Objects: stored{storageClassGVR: tt.classes}}
			refused(t, pass(t, plugin, request(t, Create, claimGVR, "", claim, nil)), "")
			if got := claim.Spec.StorageClassName; (got == nil) != (tt.want == "-") || got != nil && *got != tt.want {
				t.Errorf("the class is %v, want %s", got, tt.want)
			}
		})
	}
}

func TestDefaultIngressClass(t *testing.T) {
	const def = networkingv1.AnnotationIsDefaultIngressClass
	plugin := DefaultIngressClass{Objects: stored{ingressClassGVR: {
		&networkingv1.IngressClass{ObjectMeta: named("old", 1, def, "true")},
		&networkingv1.IngressClass{ObjectMeta: named("new", 2, def, "true")},
		&networkingv1.IngressClass{ObjectMeta: named("newer", 3)},
	}}}
	tests := []struct {
		name    string
		op      Operation
		ingress networkingv1.Ingress
		want    *string
	}{
		{"none", Create, networkingv1.Ingress{}, new("new")},
		{"named", Create, networkingv1.Ingress{Spec: networkingv1.IngressSpec{IngressClassName: new("x")}}, new("x")},
		{"annotated", Create, networkingv1.Ingress{ObjectMeta: named("", 0, "kubernetes.io/ingress.class", "")}, nil},
		{"updated", Update, networkingv1.Ingress{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, pass(t, plugin, request(t, tt.op, ingressGVR, "", &tt.ingress, nil)), "")
			got := tt.ingress.Spec.IngressClassName
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("the class is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestProtectionOfWhatIsInUse(t *testing.T) {
	tests := []struct {
		name string
		op   Operation
		gvr  schema.GroupVersionResource
		obj  interface {
			runtime.Object
			metav1.Object
		}
		want []string
	}{
		{"claim", Create, claimGVR, &corev1.PersistentVolumeClaim{}, []string{"kubernetes.io/pvc-protection"}},
		{"claim that has others", Create, claimGVR, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"x/y"}}},
			[]string{"x/y", "kubernetes.io/pvc-protection"}},
		{"claim that has it", Create, claimGVR, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"kubernetes.io/pvc-protection"}}},
			[]string{"kubernetes.io/pvc-protection"}},
		{"volume", Create, corev1.SchemeGroupVersion.WithResource("persistentvolumes"), &corev1.PersistentVolume{}, []string{"kubernetes.io/pv-protection"}},
		{"class", Create, storagev1.SchemeGroupVersion.WithResource("volumeattributesclasses"), &storagev1.VolumeAttributesClass{}, []string{"kubernetes.io/vac-protection"}},
		{"update", Update, claimGVR, &corev1.PersistentVolumeClaim{}, nil},
		{"group of pods", Create, podGroupGVR, &schedulingv1beta1.PodGroup{}, []string{"scheduling.k8s.io/podgroup-protection"}},
		{"update of a group", Update, podGroupGVR, &schedulingv1beta1.PodGroup{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var plugin Plugin = StorageObjectInUseProtection{}
			if tt.gvr.Group == schedulingv1beta1.GroupName {
				plugin = PodGroupProtection{}
			}
			refused(t, pass(t, plugin, request(t, tt.op, tt.gvr, "", tt.obj, nil)), "")
			if got := tt.obj.GetFinalizers(); !slices.Equal(got, tt.want) {
				t.Errorf("finalizers %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPersistentVolumeClaimResize(t *testing.T) {
	claim := func(size, class string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"},
			Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class,
				Resources: corev1.VolumeResourceRequirements{Requests: quantities("storage", size)}},
			Status: corev1.PersistentVolumeClaimStatus{Phase: phase}}
	}
	plugin := PersistentVolumeClaimResize{Objects: stored{storageClassGVR: {
		&storagev1.StorageClass{ObjectMeta: named("grows", 0), AllowVolumeExpansion: new(true)},
		&storagev1.StorageClass{ObjectMeta: named("stays", 0), AllowVolumeExpansion: new(false)},
		&storagev1.StorageClass{ObjectMeta: named("silent", 0)},
	}}}
	const cannot = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
	tests := []struct{ name, class, had, wants, refusal string }{
		{"grows", "grows", "1Gi", "2Gi", ""},
		{"shrinks", "stays", "2Gi", "1Gi", ""}, // validation has a word on that
		{"stays the same", "stays", "1Gi", "1Gi", ""},
		{"class forbids", "stays", "1Gi", "2Gi", cannot},
		{"class says nothing", "silent", "1Gi", "2Gi", cannot},
		{"class is gone", "gone", "1Gi", "2Gi", cannot},
		{"no class", "", "1Gi", "2Gi", cannot},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := request(t, Update, claimGVR, "", claim(tt.wants, tt.class, "Bound"), claim(tt.had, tt.class, "Bound"))
			refused(t, pass(t, plugin, a), tt.refusal)
		})
	}
	a := request(t, Update, claimGVR, "", claim("2Gi", "grows", "Pending"), claim("1Gi", "grows", "Pending"))
	refused(t, pass(t, plugin, a), "Only bound persistent volume claims can be expanded")
}
