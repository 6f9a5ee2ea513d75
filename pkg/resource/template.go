package resource

import (
	"strings"
	"sync"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Template is what is known of all objects of a kind whose specs are alike: most
// pods are made from the template of a workload, so that whatever depends on the
// spec alone need be found out once. It is safe for concurrent use.
type Template struct {
	// Object has the spec and nothing else. It is shared and never changed.
	Object runtime.Object

	mu    sync.Mutex
	facts map[any]any // guarded by mu; at most maxFacts
}

// maxFacts bounds what is noted of a template.
const maxFacts = 16

// Fact returns what is noted under a key, whose type is the caller's own.
func (t *Template) Fact(key any) (any, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fact, ok := t.facts[key]
	return fact, ok
}

// Note notes a fact that holds for every object of the template. It is shared
// from then on. What is noted later than maxFacts others is forgotten.
func (t *Template) Note(key, fact any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.facts == nil {
		t.facts = map[any]any{}
	}
	if len(t.facts) < maxFacts {
		t.facts[key] = fact
	}
}

// Templates is how a kind's objects are told to be of one template.
type Templates struct {
	// Key writes what objects of one template have in common and others hardly.
	Key func(obj runtime.Object, write func(text string))
	// Of makes the Object of a template out of an object, which stays as it is.
	Of func(obj runtime.Object) runtime.Object
	// Alike says that obj is of the template: whatever the spec of one can have
	// wrong is wrong with the other's. obj is the caller's alone; it is the same
	// afterwards.
	Alike func(obj, template runtime.Object) bool
	// Validate returns what Validate would of a new obj that is of the template
	// of one in which it found nothing.
	Validate func(obj runtime.Object) field.ErrorList
}

func templatesOfPods() *Templates {
	return &Templates{
		Key: func(obj runtime.Object, write func(string)) {
			spec := &obj.(*corev1.Pod).Spec
			write(spec.ServiceAccountName)
			for i := range spec.Containers {
				write(spec.Containers[i].Name)
				write(spec.Containers[i].Image)
			}
		},
		Of:    func(obj runtime.Object) runtime.Object { return &corev1.Pod{Spec: *obj.(*corev1.Pod).Spec.DeepCopy()} },
		Alike: func(obj, template runtime.Object) bool { return podsAlike(obj.(*corev1.Pod), template.(*corev1.Pod)) },
		Validate: func(obj runtime.Object) field.ErrorList {
			pod := obj.(*corev1.Pod)
			errs := append(validateSamePod(pod), checkVolumeClaimNames(field.NewPath("spec", "volumes"), pod)...)
			if pod.ResourceVersion != "" || len(pod.Annotations) == 0 {
				return errs
			}
			return append(errs, checkProfilesMatch(field.NewPath("spec"), pod.Annotations, &pod.Spec)...)
		},
	}
}

// podsAlike compares the specs of pods. The volume of a token has another random
// name in each pod: pod's is given that of template for as long as this takes.
func podsAlike(pod, template *corev1.Pod) bool {
	compare := func() bool { return podSpecsAlike()(unsafe.Pointer(&pod.Spec), unsafe.Pointer(&template.Spec)) }
	own, common := tokenVolume(&pod.Spec), tokenVolume(&template.Spec)
	if own == "" || common == "" || own == common {
		return compare()
	}
	strays := false // a mount of a volume that the pod does not have
	eachMount(&pod.Spec, func(name *string) { strays = strays || *name == common })
	if strays {
		return false
	}
	renameVolume(&pod.Spec, own, common)
	defer renameVolume(&pod.Spec, common, own)
	return compare()
}

const (
	// tokenVolumePrefix begins the name of a volume with a token, and
	// tokenSuffixLetters are those of the rest, of which there are tokenSuffix.
	tokenVolumePrefix  = "kube-api-access-"
	tokenSuffixLetters = "bcdfghjklmnpqrstvwxz2456789"
	tokenSuffix        = 5
)

// tokenVolume is the name of the one volume whose name is like those that
// admission gives, "" when there is none or several.
func tokenVolume(spec *corev1.PodSpec) string {
	found := ""
	for i := range spec.Volumes {
		rest, ok := strings.CutPrefix(spec.Volumes[i].Name, tokenVolumePrefix)
		if !ok {
			continue
		}
		if found != "" || len(rest) != tokenSuffix || strings.Trim(rest, tokenSuffixLetters) != "" || spec.Volumes[i].Projected == nil {
			return ""
		}
		found = spec.Volumes[i].Name
	}
	return found
}

// renameVolume renames a volume where it is defined and mounted.
func renameVolume(spec *corev1.PodSpec, from, to string) {
	rename := func(name *string) {
		if *name == from {
			*name = to
		}
	}
	for i := range spec.Volumes {
		rename(&spec.Volumes[i].Name)
	}
	eachMount(spec, rename)
}

// eachMount calls f with the names of the volumes that containers mount.
func eachMount(spec *corev1.PodSpec, f func(name *string)) {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			mounts := containers[i].VolumeMounts
			for j := range mounts {
				f(&mounts[j].Name)
			}
		}
	}
}
