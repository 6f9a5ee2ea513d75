package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// inBubble runs a Manager over a fake API server that prepare has set up.
func inBubble(t *testing.T, prepare func(*fake.Clientset), test func(t *testing.T, client *fake.Clientset, m *Manager, broken *atomic.Bool)) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		prepare(client)
		var broken atomic.Bool
		m := New(Config{
			Name: "n1", IPs: []string{"192.0.2.1"}, Client: client, MaxPods: 110, Port: 10250, Version: "v1.37.0", Simulated: true,
			Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")},
			Reserved: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")},
			Labels:   map[string]string{"example.com/rack": "a"},
			Check: func(context.Context) Health {
				if broken.Load() {
					return Health{Err: errors.New("container runtime is down")}
				}
				return Health{Runtime: "fake://1"}
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = m.Run(ctx) })
		test(t, client, m, &broken)
		cancel()
		done.Wait()
	})
}

func get(t *testing.T, client *fake.Clientset) *corev1.Node {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func ready(node *corev1.Node) corev1.NodeCondition {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c
		}
	}
	return corev1.NodeCondition{}
}

func TestRegisters(t *testing.T) {
	inBubble(t, func(*fake.Clientset) {}, func(t *testing.T, client *fake.Clientset, _ *Manager, _ *atomic.Bool) {
		synctest.Wait()
		node := get(t, client)
		for label, want := range map[string]string{
			"kubernetes.io/hostname": "n1", "kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux", "example.com/rack": "a",
		} {
			if node.Labels[label] != want {
				t.Errorf("label %s is %q, want %q", label, node.Labels[label], want)
			}
		}
		s := node.Status
		if c := ready(node); c.Status != corev1.ConditionTrue || c.Reason != "KubeletReady" {
			t.Errorf("Ready %+v", c)
		}
		if s.Allocatable.Cpu().String() != "3500m" || s.Capacity.Pods().Value() != 110 || s.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
			t.Errorf("status %+v", s)
		}
		if len(s.Addresses) != 2 || s.Addresses[0].Address != "192.0.2.1" || len(s.Conditions) != 4 {
			t.Errorf("addresses %v, conditions %v", s.Addresses, s.Conditions)
		}
	})
}

func TestRuntimeDownIsReportedAndBack(t *testing.T) {
	inBubble(t, func(*fake.Clientset) {}, func(t *testing.T, client *fake.Clientset, _ *Manager, broken *atomic.Bool) {
		synctest.Wait()
		for _, down := range []bool{true, false} {
			broken.Store(down)
			time.Sleep(checkEvery + time.Second)
			synctest.Wait()
			c := ready(get(t, client))
			if (c.Status == corev1.ConditionFalse) != down {
				t.Errorf("runtime down %v, Ready %+v", down, c)
			}
			if down && (c.Reason != "KubeletNotReady" || c.Message != "container runtime is down") {
				t.Errorf("Ready %+v", c)
			}
		}
	})
}

func TestStatusIsWrittenOnlyWhenChangedOrLate(t *testing.T) {
	inBubble(t, func(*fake.Clientset) {}, func(t *testing.T, client *fake.Clientset, _ *Manager, _ *atomic.Bool) {
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		patches := 0
		for _, a := range client.Actions() {
			if a.GetVerb() == "patch" && a.GetResource().Resource == "nodes" {
				patches++
			}
		}
		if patches < 6 || patches > 8 {
			t.Errorf("%d patches in 31 quiet minutes, want one in 5 minutes", patches)
		}
	})
}

func TestLeaseIsRenewedOnTheTick(t *testing.T) {
	var tries atomic.Int32
	everyOtherFails := func(client *fake.Clientset) {
		client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			if tries.Add(1)%2 == 1 {
				return true, nil, errors.New("no connection")
			}
			return false, nil, nil
		})
	}
	inBubble(t, everyOtherFails, func(t *testing.T, client *fake.Clientset, _ *Manager, _ *atomic.Bool) {
		time.Sleep(65 * time.Second)
		synctest.Wait()
		lease, err := client.CoordinationV1().Leases("kube-node-lease").Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if since := time.Since(lease.Spec.RenewTime.Time); since > RenewEvery {
			t.Errorf("renewed %v ago", since)
		}
		if *lease.Spec.HolderIdentity != "n1" || *lease.Spec.LeaseDurationSeconds != 40 || len(lease.OwnerReferences) != 1 {
			t.Errorf("lease %+v", lease)
		}
	})
}

func TestNodeDeletedIsRegisteredAgain(t *testing.T) {
	inBubble(t, func(*fake.Clientset) {}, func(t *testing.T, client *fake.Clientset, _ *Manager, _ *atomic.Bool) {
		synctest.Wait()
		if err := client.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkEvery + time.Second)
		synctest.Wait()
		get(t, client)
	})
}

// TestAVerdictOfOthersIsCorrected: a node that was cut off for a while was
// marked unknown, and says itself that it is well as soon as it can.
func TestAVerdictOfOthersIsCorrected(t *testing.T) {
	inBubble(t, func(*fake.Clientset) {}, func(t *testing.T, client *fake.Clientset, _ *Manager, _ *atomic.Bool) {
		synctest.Wait()
		node := get(t, client).DeepCopy()
		for i := range node.Status.Conditions {
			node.Status.Conditions[i].Status = corev1.ConditionUnknown
		}
		if _, err := client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkEvery + time.Second)
		synctest.Wait()
		if c := ready(get(t, client)); c.Status != corev1.ConditionTrue {
			t.Errorf("Ready %+v", c)
		}
	})
}

// TestExtendedResourcesStay: whoever counts a resource writes it into the
// capacity; the agent offers it to pods and does not take it away again.
func TestExtendedResourcesStay(t *testing.T) {
	inBubble(t, func(*fake.Clientset) {}, func(t *testing.T, client *fake.Clientset, _ *Manager, _ *atomic.Bool) {
		synctest.Wait()
		node := get(t, client).DeepCopy()
		node.Status.Capacity["example.com/dongle"] = resource.MustParse("5")
		node.Status.Capacity["kubernetes.io/other"] = resource.MustParse("5")
		if _, err := client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s := get(t, client).Status
		for what, list := range map[string]corev1.ResourceList{"capacity": s.Capacity, "allocatable": s.Allocatable} {
			if q := list["example.com/dongle"]; q.Value() != 5 {
				t.Errorf("%s %v", what, list)
			}
			if _, ok := list["kubernetes.io/other"]; ok {
				t.Errorf("%s has what is the agent's to measure: %v", what, list)
			}
		}
	})
}

func TestUntilTick(t *testing.T) {
	for _, s := range []int64{0, 1, 5, 7, 9} {
		at := time.Unix(1000+s, 0)
		next := at.Add(untilTick(at))
		if next.Unix()%10 != 0 || next.Sub(at) < 2*time.Second || next.Sub(at) > 12*time.Second {
			t.Errorf("from second %d to %v", s, next)
		}
	}
}

func TestMachine(t *testing.T) {
	if n := memTotal([]byte("MemTotal:       16384 kB\nMemFree: 1 kB\n")); n != 16<<20 {
		t.Errorf("memory %d", n)
	}
	if n := memTotal([]byte("garbage")); n != 0 {
		t.Errorf("memory %d", n)
	}
	if s := osImage([]byte("NAME=x\nPRETTY_NAME=\"Debian 12\"\n")); s != "Debian 12" {
		t.Errorf("os %q", s)
	}
	capacity, _ := measure("/no/such/folder")
	if capacity.Cpu().IsZero() || capacity.Memory().IsZero() || capacity.StorageEphemeral().IsZero() {
		t.Errorf("capacity %v", capacity)
	}
}
