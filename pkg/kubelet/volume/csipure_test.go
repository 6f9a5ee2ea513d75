package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"coracle/pkg/attachment"
)

// issueTokens answers requests for tokens.
func issueTokens(client *fake.Clientset) {
	client.PrependReactor("create", "serviceaccounts", func(a k8stesting.Action) (bool, runtime.Object, error) {
		req := a.(k8stesting.CreateAction).GetObject().(*authenticationv1.TokenRequest).DeepCopy()
		req.Status = authenticationv1.TokenRequestStatus{
			Token: "token-" + strings.Join(req.Spec.Audiences, ","), ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
		}
		return true, req, nil
	})
}

// breakGets lets reads fail as long as the result was last called with true.
func breakGets(client *fake.Clientset) func(bool) {
	var broken atomic.Bool
	client.PrependReactor("get", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
		return broken.Load(), nil, errors.New("connection refused")
	})
	return broken.Store
}

// TestCSINames: these are Kubernetes', to the letter.
func TestCSINames(t *testing.T) {
	m := New(Config{RootDir: "/var/lib/kubelet", NodeName: "n1"})
	u := csiUse{Name: "pv-1", Handle: "vol-1", Driver: "hostpath.csi.k8s.io", pod: "uid"}
	dev := u
	dev.block = true
	for _, tt := range []struct{ got, want string }{
		{string(u.unique()), "kubernetes.io/csi/hostpath.csi.k8s.io^vol-1"},
		{m.csiTarget(&u), "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/pv-1/mount"},
		{m.csiUseData(&u), "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/pv-1/vol_data.json"},
		{m.csiStaging(&u), "/var/lib/kubelet/plugins/kubernetes.io/csi/hostpath.csi.k8s.io/d2e8363faaac7ae76def3b14091d8eb5755f6b92e9531627aeec833a8731cc49/globalmount"},
		{attachment.Name(u.Driver, u.Handle, "n1"), "csi-ffffc29a669717b61299488392f67014c84daf009b3c45d06bb6627113f72dbe"},
		{inlineHandle("uid", "v"), "csi-805993d7c078d84a6cd26549afcb8ef6e4eefee1458b1f9ebaf9d6996efbf3e5"},
		{m.csiTarget(&dev), "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pv-1/uid"},
		{m.csiStaging(&dev), "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/staging/pv-1"},
		{m.csiUseData(&dev), "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pv-1/data/vol_data.json"},
		{m.csiUsePath(&dev), "/var/lib/kubelet/pods/uid/volumeDevices/kubernetes.io~csi/pv-1"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s, want %s", tt.got, tt.want)
		}
	}
}

func TestTakesGroup(t *testing.T) {
	policy := func(p storagev1.FSGroupPolicy) *storagev1.CSIDriver {
		return &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{FSGroupPolicy: &p}}
	}
	once, many := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	pv := csiUse{Lifecycle: storagev1.VolumeLifecyclePersistent}
	inline := csiUse{Lifecycle: storagev1.VolumeLifecycleEphemeral}
	for _, tt := range []struct {
		object *storagev1.CSIDriver
		v      csiVolume
		group  *int64
		want   bool
	}{
		{nil, csiVolume{csiUse: pv, fsType: "ext4", modes: once}, ptr(int64(7)), true},
		{nil, csiVolume{csiUse: pv, fsType: "ext4", modes: once}, nil, false},
		{nil, csiVolume{csiUse: pv, fsType: "ext4", modes: many}, ptr(int64(7)), false},
		{nil, csiVolume{csiUse: pv, fsType: "ext4"}, ptr(int64(7)), false},
		{nil, csiVolume{csiUse: pv, modes: once}, ptr(int64(7)), false},
		{nil, csiVolume{csiUse: inline, fsType: "ext4"}, ptr(int64(7)), true},
		{nil, csiVolume{csiUse: inline}, ptr(int64(7)), false},
		{policy(storagev1.FileFSGroupPolicy), csiVolume{csiUse: pv, modes: many}, ptr(int64(7)), true},
		{policy(storagev1.FileFSGroupPolicy), csiVolume{csiUse: pv, readOnly: true}, ptr(int64(7)), false},
		{policy(storagev1.NoneFSGroupPolicy), csiVolume{csiUse: pv, fsType: "ext4", modes: once}, ptr(int64(7)), false},
	} {
		if got := takesGroup(tt.object, &tt.v, tt.group); got != tt.want {
			t.Errorf("%+v of %+v: %v", tt.v, tt.object, got)
		}
	}
}

func TestCheckLifecycle(t *testing.T) {
	driver := func(modes ...storagev1.VolumeLifecycleMode) *storagev1.CSIDriver {
		return &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{VolumeLifecycleModes: modes}}
	}
	const persistent, ephemeral = storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral
	for _, tt := range []struct {
		object *storagev1.CSIDriver
		mode   storagev1.VolumeLifecycleMode
		ok     bool
	}{
		{nil, persistent, true}, {nil, ephemeral, false}, {driver(), persistent, true}, {driver(), ephemeral, false},
		{driver(ephemeral), ephemeral, true}, {driver(ephemeral), persistent, false}, {driver(persistent, ephemeral), ephemeral, true},
	} {
		if err := checkLifecycle(tt.object, &csiUse{Lifecycle: tt.mode, Driver: "d"}); (err == nil) != tt.ok {
			t.Errorf("%s with %+v: %v", tt.mode, tt.object, err)
		}
	}
}

func TestOnlyWaits(t *testing.T) {
	waits, bad := notAttached{errors.New("not yet")}, errors.New("bad")
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {bad, false}, {waits, true}, {fmt.Errorf("volume: %w", waits), true},
		{errors.Join(waits, fmt.Errorf("volume: %w", waits)), true}, {errors.Join(waits, bad), false},
	} {
		if got := OnlyWaits(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}

// TestNoteIsNotOverwritten: two volumes cannot have one folder.
func TestNoteIsNotOverwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x", csiDataFile)
	one := csiUse{Handle: "1", Driver: "d"}
	for range 2 {
		if err := writeCSIUse(file, one); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeCSIUse(file, csiUse{Handle: "2", Driver: "d"}); err == nil || !strings.Contains(err.Error(), "is taken by") {
		t.Errorf("another volume's note: %v", err)
	}
	if err := os.WriteFile(file, make([]byte, maxCSIData+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readCSIUse(file); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("an endless note: %v", err)
	}
}

func FuzzParseCSIUse(f *testing.F) {
	f.Add([]byte(`{"volumeHandle":"h","driverName":"d.example","specVolID":"pv"}`))
	f.Add([]byte(`{"volumeHandle":"h","driverName":"../../etc"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := parseCSIUse(data)
		if err != nil {
			return
		}
		m := New(Config{RootDir: "/root"})
		u.Name, u.pod = "v", "uid"
		if path := m.csiStaging(&u); filepath.Dir(filepath.Dir(filepath.Dir(path))) != "/root/plugins/kubernetes.io/csi" {
			t.Errorf("%q leads to %s", data, path)
		}
	})
}
