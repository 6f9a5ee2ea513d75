package kubelet

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStoppedAgentListsBeforeItStarts lets an agent wake up after a long stop:
// one of its pods was deleted meanwhile, which its watch does not tell, and the
// containers of both have ended.
func TestStoppedAgentListsBeforeItStarts(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.stop()
		n.silentPodWatch.Store(true)
		n.create(simplePod("p"))
		n.create(simplePod("q"))
		n.start()
		n.after(2 * time.Second)
		if n.runtime.Live("uid-p", "c") != 1 || n.runtime.Live("uid-q", "c") != 1 {
			t.Fatal("the pods do not run")
		}

		if err := n.client.CoreV1().Pods("ns").Delete(t.Context(), "q", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		n.noPodLists.Store(true)
		n.agent.lastBeat.Store(time.Now().Add(-time.Hour).UnixNano())
		n.runtime.Exit("uid-p", "c", 1)
		n.runtime.Exit("uid-q", "c", 1)
		n.after(3 * time.Second)
		if n.runtime.Starts("uid-p", "c")+n.runtime.Starts("uid-q", "c") != 2 {
			t.Error("restarted before the pods were listed")
		}
		n.noPodLists.Store(false)
		n.after(10 * time.Second)
		if n.runtime.Starts("uid-p", "c") != 2 || n.runtime.Starts("uid-q", "c") != 1 {
			t.Errorf("p started %d times, q %d times", n.runtime.Starts("uid-p", "c"), n.runtime.Starts("uid-q", "c"))
		}
	})
}

func TestStoppedAgentGoesOnWithoutTheAPIServer(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p"))
		n.after(2 * time.Second)
		n.away.Store(true)
		n.agent.lastBeat.Store(time.Now().Add(-time.Hour).UnixNano())
		n.runtime.Exit("uid-p", "c", 1)
		n.after(30 * time.Second)
		if n.runtime.Live("uid-p", "c") != 1 {
			t.Error("the pod does not run on")
		}
	})
}

func TestNewsOlderThanTheListIsIgnored(t *testing.T) {
	k := &Kubelet{listVersion: 100}
	for v, want := range map[string]bool{"99": true, "100": true, "101": false, "": false} {
		if got := k.outdated(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: v}}); got != want {
			t.Errorf("version %q: %v", v, got)
		}
	}
}
