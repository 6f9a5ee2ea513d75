package aggregate

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"coracle/pkg/apiserver"
	"coracle/pkg/resource"
)

// AutomanagedLabel marks the APIServices that the server makes itself: those of
// built-in group versions at its start, those of custom resources whenever they
// come and go. One without the label is somebody else's and left alone.
const (
	AutomanagedLabel = "kube-aggregator.kubernetes.io/automanaged"
	OnStart          = "onstart"
	Always           = "true"
)

// Local are the APIServices of what a table serves: of its custom resources, or
// of its built-in kinds. apiregistration.k8s.io itself has none.
func Local(table *resource.Table, custom bool) []*apiregistrationv1.APIService {
	label := OnStart
	if custom {
		label = Always
	}
	var out []*apiregistrationv1.APIService
	for _, g := range table.Groups() {
		for _, v := range g.Versions {
			gv := schema.GroupVersion{Group: g.Group, Version: v}
			if table.IsCustom(gv) != custom || g.Group == apiregistrationv1.GroupName {
				continue
			}
			s := &apiregistrationv1.APIService{
				ObjectMeta: metav1.ObjectMeta{Name: v + "." + g.Group, Labels: map[string]string{AutomanagedLabel: label}},
				Spec:       apiregistrationv1.APIServiceSpec{Group: g.Group, Version: v},
			}
			s.Spec.GroupPriorityMinimum, s.Spec.VersionPriority = apiserver.LocalPriority(table, gv)
			out = append(out, s)
		}
	}
	return out
}

// Merge brings an APIService that the server manages to what it should be. It
// returns false when there is nothing to do, or somebody else manages it.
func Merge(current, wanted *apiregistrationv1.APIService) bool {
	if current.Labels[AutomanagedLabel] == "" || reflect.DeepEqual(current.Spec, wanted.Spec) && current.Labels[AutomanagedLabel] == wanted.Labels[AutomanagedLabel] {
		return false
	}
	current.Labels[AutomanagedLabel] = wanted.Labels[AutomanagedLabel]
	current.Spec = wanted.Spec
	return true
}

// Registrations are what has to be done so that each wanted APIService of
// custom resources is there and no other.
type Registrations struct {
	// Create and Update are wanted ones, Remove stored ones.
	Create, Update, Remove []*apiregistrationv1.APIService
}

// Register compares the APIServices of custom resources that are wanted with
// all that are stored. One that was made at a start and is not among those of
// the built-in kinds is of another release's.
func Register(wanted, builtin []*apiregistrationv1.APIService, stored map[string]*apiregistrationv1.APIService) Registrations {
	var out Registrations
	names := make(map[string]bool, len(wanted)+len(builtin))
	for _, b := range builtin {
		names[b.Name] = true
	}
	for _, w := range wanted {
		names[w.Name] = true
		switch s := stored[w.Name]; {
		case s == nil:
			out.Create = append(out.Create, w)
		case s.Labels[AutomanagedLabel] == Always && !reflect.DeepEqual(s.Spec, w.Spec):
			out.Update = append(out.Update, w)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		if label := stored[name].Labels[AutomanagedLabel]; (label == Always || label == OnStart) && !names[name] {
			out.Remove = append(out.Remove, stored[name])
		}
	}
	slices.SortFunc(out.Create, func(a, b *apiregistrationv1.APIService) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Stored returns the APIServices that are known. They are shared.
func (a *Aggregator) Stored() map[string]*apiregistrationv1.APIService {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]*apiregistrationv1.APIService, len(a.records))
	for name, r := range a.records {
		out[name] = r.stored
	}
	return out
}
