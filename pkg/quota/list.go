package quota

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func number(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }

// Equal says that both lists have the same names with the same amounts.
func Equal(a, b corev1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, x := range a {
		if y, ok := b[name]; !ok || x.Cmp(y) != 0 {
			return false
		}
	}
	return true
}

// Add is the sum of both lists.
func Add(a, b corev1.ResourceList) corev1.ResourceList {
	out := make(corev1.ResourceList, len(a))
	for name, x := range a {
		out[name] = x.DeepCopy()
	}
	for name, y := range b {
		sum, ok := out[name]
		if !ok {
			out[name] = y.DeepCopy()
			continue
		}
		sum.Add(y)
		out[name] = sum
	}
	return out
}

// Excess is by how much a is more than b, for the names of a; zero where it is
// not.
func Excess(a, b corev1.ResourceList) corev1.ResourceList {
	out := make(corev1.ResourceList, len(a))
	for name, x := range a {
		rest := x.DeepCopy()
		rest.Sub(b[name])
		if rest.Sign() < 0 {
			rest = resource.Quantity{Format: x.Format}
		}
		out[name] = rest
	}
	return out
}

// Mask is list with the names of by only.
func Mask(list, by corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, x := range list {
		if _, ok := by[name]; ok {
			out[name] = x.DeepCopy()
		}
	}
	return out
}

func withoutZeros(list corev1.ResourceList) corev1.ResourceList {
	for name, x := range list {
		if x.IsZero() {
			delete(list, name)
		}
	}
	return list
}

// below are the names with negative amounts, sorted.
func below(list corev1.ResourceList) []corev1.ResourceName {
	var out []corev1.ResourceName
	for name, x := range list {
		if x.Sign() < 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func joinNames(names []corev1.ResourceName) string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = string(name)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// text is a list as refusals show it: "cpu=1,pods=2".
func text(list corev1.ResourceList) string {
	out := make([]string, 0, len(list))
	for name, x := range list {
		out = append(out, string(name)+"="+x.String())
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
