package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/kubelet/csi"
	"coracle/pkg/kubelet/csifake"
	"coracle/pkg/kubelet/plugins"
)

// TestCSICrashes kills the agent at each step, by having the driver die there,
// and lets another one go on from what is on disk, once to the end of the pod
// and once to its start.
func TestCSICrashes(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(d *csifake.Driver)
	}{
		{"before the staging", func(d *csifake.Driver) { d.Before("NodeStageVolume", lost) }},
		{"after the staging", func(d *csifake.Driver) { d.After("NodeStageVolume", lost) }},
		{"between staging and publishing", func(d *csifake.Driver) { d.Before("NodePublishVolume", lost) }},
		{"after the publishing", func(d *csifake.Driver) { d.After("NodePublishVolume", lost) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, finish := range []bool{true, false} {
				n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
				pod := podCalled("a", claimOf("data"))
				tt.fail(n.driver)
				if _, err := n.Mount(t.Context(), pod, PodFacts{}); err == nil {
					t.Fatal("the driver's death was not noticed")
				}
				for _, method := range []string{"NodeStageVolume", "NodePublishVolume"} {
					n.driver.Before(method, nil)
					n.driver.After(method, nil)
				}
				n.restart()
				if finish {
					write(t, "x", n.mount(pod), "file")
					if read(t, n.driver.VolumePath("handle-data"), "file") != "x" {
						t.Error("not the volume")
					}
				}
				n.unmount("a")
				n.checkClean()
			}
		})
	}
	for _, method := range []string{"NodeUnpublishVolume", "NodeUnstageVolume"} {
		for _, after := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, after %v", method, after), func(t *testing.T) {
				n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
				n.mount(podCalled("a", claimOf("data")))
				if after {
					n.driver.After(method, lost)
				} else {
					n.driver.Before(method, lost)
				}
				if err := n.Unmount(t.Context(), "a"); err == nil {
					t.Fatal("the driver's death was not noticed")
				}
				n.driver.Before(method, nil)
				n.driver.After(method, nil)
				n.restart()
				if orphans, err := n.Orphans(func(types.UID) bool { return false }); err != nil || len(orphans) != 1 {
					t.Errorf("orphans %v, %v", orphans, err)
				}
				n.unmount("a")
				n.checkClean()
			})
		}
	}
}

func lost(context.Context, any) error { return status.Error(codes.Unavailable, "connection lost") }

// TestCSIRefusals: a driver's final no leaves nothing behind, and is not asked
// again at once.
func TestCSIRefusals(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
	pod := podCalled("a", claimOf("data"))
	no := func(context.Context, any) error { return status.Error(codes.Internal, "disk on fire") }
	n.driver.Before("NodeStageVolume", no)
	for range 3 {
		if _, err := n.Mount(t.Context(), pod, PodFacts{}); err == nil ||
			!strings.Contains(err.Error(), `MountVolume.MountDevice failed for volume "pv-data" : rpc error: code = Internal desc = disk on fire`) {
			t.Errorf("refused: %v", err)
		}
	}
	n.checkCalls("stage 1 publish 0 unpublish 0 unstage 0")
	if uses, err := n.csiUses("a"); err != nil || len(uses) != 0 {
		t.Errorf("uses %v, %v", uses, err)
	}
	n.clock.step(csiFirstRetry)
	_, _ = n.Mount(t.Context(), pod, PodFacts{})
	n.clock.step(csiFirstRetry) // the second pause is twice as long
	_, _ = n.Mount(t.Context(), pod, PodFacts{})
	n.checkCalls("stage 2 publish 0 unpublish 0 unstage 0")
	n.driver.Before("NodeStageVolume", nil)
	n.driver.Before("NodePublishVolume", no)
	n.clock.step(csiMaxRetry)
	if _, err := n.Mount(t.Context(), pod, PodFacts{}); err == nil ||
		!strings.Contains(err.Error(), `MountVolume.SetUp failed for volume "pv-data" : rpc error: code = Internal desc = disk on fire`) {
		t.Errorf("refused: %v", err)
	}
	n.unmount("a")
	n.checkClean()
}

// TestCSIUnknownDriver: the words that users know, and no try is wasted.
func TestCSIUnknownDriver(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
	n.csi.Deregister(plugins.Plugin{Name: testDriver, Endpoint: n.driver.Endpoint()})
	pod := podCalled("a", claimOf("data"))
	if _, err := n.Mount(t.Context(), pod, PodFacts{}); err == nil || !errors.Is(err, csi.ErrUnknown) ||
		!strings.Contains(err.Error(), "driver name d.example not found in the list of registered CSI drivers") {
		t.Errorf("without the driver: %v", err)
	}
	n.register()
	n.mount(pod)
	n.csi.Deregister(plugins.Plugin{Name: testDriver, Endpoint: n.driver.Endpoint()})
	if err := n.Unmount(t.Context(), "a"); !errors.Is(err, csi.ErrUnknown) {
		t.Errorf("unmounting without the driver: %v", err)
	}
	if points, err := mountsBeneath(n.root); err != nil || len(points) != 2 {
		t.Errorf("mounts %v, %v", points, err)
	}
	n.register()
	n.unmount("a")
	n.checkClean()
}

// TestCSIHangingDriverDelaysNoOtherPod: one pod's driver never answers.
func TestCSIHangingDriverDelaysNoOtherPod(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(append(csiPV("data"), csiPV("other")...), noAttach())...)
	begun, release := make(chan struct{}), make(chan struct{})
	n.driver.Before("NodeStageVolume", func(ctx context.Context, req any) error {
		if req.(*spec.NodeStageVolumeRequest).GetVolumeId() != "handle-data" {
			return nil
		}
		close(begun)
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := n.Mount(ctx, podCalled("a", claimOf("data")), PodFacts{})
		failed <- err
	}()
	<-begun
	n.mount(podCalled("b", claimOf("other"))) // while the first hangs
	n.unmount("b")
	cancel()
	if err := <-failed; err == nil {
		t.Error("the hanging mount succeeded")
	}
	close(release)
	n.unmount("a")
	n.checkClean()
}

// TestCSIWithoutAPIServer: a pod's containers can be started again as long as
// the volume is mounted, and not when the machine has forgotten it.
func TestCSIWithoutAPIServer(t *testing.T) {
	n := newCSINode(t, allCapabilities, append(csiPV("data"), noAttach())...)
	pod := podCalled("a", claimOf("data"))
	dir := n.mount(pod)
	unreachableFrom := breakGets(n.client)
	n.restart()
	unreachableFrom(true)
	if again := n.mount(pod); again != dir {
		t.Errorf("mounted at %s, was %s", again, dir)
	}
	if err := unmount(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Mount(t.Context(), pod, PodFacts{}); err == nil {
		t.Error("a pod was given an empty folder for its volume")
	}
	unreachableFrom(false)
	n.unmount("a")
	n.checkClean()
}
