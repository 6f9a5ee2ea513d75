package attachment

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestName(t *testing.T) {
	// sha256 of "vol-1" + "d.example.com" + "node-1".
	const want = "csi-4499ee017ffbd7c27adcaf4b6d7385ae0ab9c5fa487205ab041ef1825c4e8e71"
	if got := Name("d.example.com", "vol-1", "node-1"); got != want || !IsName(got) {
		t.Errorf("the name is %s, want %s", got, want)
	}
	for _, other := range []string{"", "csi-1", want + "0", "x" + want, "CSI" + want[3:]} {
		if IsName(other) {
			t.Errorf("%q counts as a name", other)
		}
	}
}

func TestInStatus(t *testing.T) {
	const want = "kubernetes.io/csi/d.example.com^a^b"
	if got := InStatus("d.example.com", "a^b"); got != want {
		t.Errorf("in status it is %s", got)
	}
	if driver, handle, ok := FromStatus(want); !ok || driver != "d.example.com" || handle != "a^b" {
		t.Errorf("%s is of %q, %q, %v", want, driver, handle, ok)
	}
	for _, other := range []string{"kubernetes.io/iscsi/a^b", "kubernetes.io/csi/nothing", ""} {
		if _, _, ok := FromStatus(corev1.UniqueVolumeName(other)); ok {
			t.Errorf("%q counts as a CSI driver's", other)
		}
	}
}
