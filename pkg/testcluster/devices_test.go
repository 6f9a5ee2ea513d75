package testcluster_test

import (
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/testcluster"
)

// TestSelectorsOfDevicesMustCompile: whoever writes one hears of it at once,
// not from a pod that waits.
func TestSelectorsOfDevicesMustCompile(t *testing.T) {
	c := testcluster.Start(t).Client
	class := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	class.Spec.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: "device.nope"}}}
	_, err := c.ResourceV1().DeviceClasses().Create(t.Context(), class, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `DeviceClass.resource.k8s.io "gpu" is invalid: spec.selectors[0].cel.expression: Invalid value: "device.nope": compilation failed`) {
		t.Errorf("error %v", err)
	}
	class.Spec.Selectors[0].CEL.Expression = `device.driver == "gpu.example.com"`
	if _, err := c.ResourceV1().DeviceClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}
