package podenv

import (
	"fmt"
	"math/big"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ContainerResource gives the value of a resource reference for the container
// named by the reference, or for own when it names none (own may be nil then
// only if the reference names one).
func ContainerResource(pod *corev1.Pod, own *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	c := own
	if ref.ContainerName != "" {
		if c = findContainer(pod, ref.ContainerName); c == nil {
			return "", fmt.Errorf("resource %q is asked of container %q, which the pod does not have", ref.Resource, ref.ContainerName)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resource %q is asked of no container: set containerName", ref.Resource)
	}
	amount, err := containerAmount(pod, c, ref.Resource, allocatable)
	if err != nil {
		return "", err
	}
	return divide(amount, ref.Divisor), nil
}

func containerAmount(pod *corev1.Pod, c *corev1.Container, name string, allocatable corev1.ResourceList) (resource.Quantity, error) {
	section, res, _ := strings.Cut(name, ".")
	switch res {
	case "cpu", "memory", "ephemeral-storage":
	default:
		if !strings.HasPrefix(res, corev1.ResourceHugePagesPrefix) {
			return resource.Quantity{}, fmt.Errorf("resource %q is not one that a container can be told", name)
		}
	}
	switch section {
	case "requests":
		return c.Resources.Requests[corev1.ResourceName(res)], nil
	case "limits":
		return limit(pod, c, corev1.ResourceName(res), allocatable), nil
	}
	return resource.Quantity{}, fmt.Errorf("resource %q is neither a limit nor a request", name)
}

// limit is the container's own limit, else the pod's, else what the node has:
// the most that the container can use in practice.
func limit(pod *corev1.Pod, c *corev1.Container, name corev1.ResourceName, allocatable corev1.ResourceList) resource.Quantity {
	if q, ok := c.Resources.Limits[name]; ok && !q.IsZero() {
		return q
	}
	if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
		return resource.Quantity{}
	}
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && !q.IsZero() {
			return q
		}
	}
	return allocatable[name]
}

// divide gives amount in units of divisor, rounded up. A zero divisor is one.
func divide(amount, divisor resource.Quantity) string {
	if divisor.Sign() <= 0 {
		divisor = resource.MustParse("1")
	}
	// Milli units are the finest that both kinds of value need; big integers
	// keep petabytes in milli units exact.
	num, den := milli(amount), milli(divisor)
	if den.Sign() == 0 {
		den.SetInt64(1)
	}
	quo, rem := new(big.Int).QuoRem(num, den, new(big.Int))
	if rem.Sign() > 0 {
		quo.Add(quo, big.NewInt(1))
	}
	return quo.String()
}

// milli gives the quantity in thousandths, rounded up.
func milli(q resource.Quantity) *big.Int {
	d := q.AsDec()
	n := new(big.Int).Set(d.UnscaledBig())
	shift := int64(3) - int64(d.Scale())
	ten := big.NewInt(10)
	if shift >= 0 {
		return n.Mul(n, new(big.Int).Exp(ten, big.NewInt(shift), nil))
	}
	quo, rem := new(big.Int).QuoRem(n, new(big.Int).Exp(ten, big.NewInt(-shift), nil), new(big.Int))
	if rem.Sign() > 0 {
		quo.Add(quo, big.NewInt(1))
	}
	return quo
}

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}
