package apiserver_test

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/controlplane"
	"coracle/pkg/testcluster"
)

// TestStaleWrites: OC-1, OC-2, OC-3. A write on an old version changes nothing.
func TestStaleWrites(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, cms := t.Context(), s.Client.CoreV1().ConfigMaps("default")
		old := s.makeConfigMap(t, configMap("a", "k", "old"))
		now := old.DeepCopy()
		now.Data["k"] = "new"
		now, err := cms.Update(ctx, now, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		old.Data["k"] = "lost"
		_, err = cms.Update(ctx, old, metav1.UpdateOptions{})
		refused(t, err, 409, metav1.StatusReasonConflict, "the object has been modified; please apply your changes to the latest version and try again")
		for _, patchType := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
			_, err = cms.Patch(ctx, "a", patchType, fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q},"data":{"k":"lost"}}`, old.ResourceVersion), metav1.PatchOptions{})
			refused(t, err, 409, metav1.StatusReasonConflict, "modified")
		}
		other := types.UID("00000000-0000-4000-8000-000000000000")
		stranger := now.DeepCopy()
		stranger.UID = other
		_, err = cms.Update(ctx, stranger, metav1.UpdateOptions{})
		refused(t, err, 409, metav1.StatusReasonConflict, "UID")
		for _, p := range []metav1.Preconditions{{UID: &other}, {ResourceVersion: &old.ResourceVersion}} {
			err = cms.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &p})
			refused(t, err, 409, metav1.StatusReasonConflict, "recondition")
		}
		got, err := cms.Get(ctx, "a", metav1.GetOptions{})
		if err != nil || got.Data["k"] != "new" || got.ResourceVersion != now.ResourceVersion {
			t.Fatalf("refused writes left %v (%v), want it untouched", got, err)
		}
		if err := cms.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion}}); err != nil {
			t.Fatal(err)
		}
		again := s.makeConfigMap(t, configMap("a"))
		if again.UID == now.UID {
			t.Error("a recreated object has its predecessor's UID")
		}
		err = cms.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &now.UID}})
		refused(t, err, 409, metav1.StatusReasonConflict, "UID")
		err = cms.Delete(ctx, "b", metav1.DeleteOptions{})
		refused(t, err, 404, metav1.StatusReasonNotFound, `configmaps "b" not found`)
		_, err = cms.Create(ctx, configMap("a"), metav1.CreateOptions{})
		refused(t, err, 409, metav1.StatusReasonAlreadyExists, `configmaps "a" already exists`)
	})
}

// TestOneWinner: OC-1. Of many writers on one version exactly one wins, on one
// server or on several.
func TestOneWinner(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		cm := a.makeConfigMap(t, configMap("a"))
		const writers = 20
		var wg sync.WaitGroup
		wins := make(chan string, writers)
		for i := range writers {
			client := []kubernetes.Interface{a.Client, b.Client}[i%2]
			wg.Go(func() {
				mine := cm.DeepCopy()
				mine.Data = map[string]string{"winner": strconv.Itoa(i)}
				got, err := client.CoreV1().ConfigMaps("default").Update(t.Context(), mine, metav1.UpdateOptions{})
				if err == nil {
					wins <- got.Data["winner"]
				} else if !apierrors.IsConflict(err) {
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		close(wins)
		var winners []string
		for w := range wins {
			winners = append(winners, w)
		}
		got, err := b.Client.CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || len(winners) != 1 || got.Data["winner"] != winners[0] {
			t.Fatalf("winners %v, stored %v (%v)", winners, got.Data, err)
		}
	})
}

// TestPatchesLoseNothing: OC-3. Concurrent patches of different fields all
// arrive, also through different servers.
func TestPatchesLoseNothing(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		a.makeConfigMap(t, configMap("a"))
		var wg sync.WaitGroup
		const patches = 24
		for i := range patches {
			client := []kubernetes.Interface{a.Client, b.Client}[i%2]
			kind, body := types.MergePatchType, fmt.Sprintf(`{"data":{"k%d":"v"}}`, i)
			opts := metav1.PatchOptions{}
			switch i % 3 {
			case 1:
				kind = types.StrategicMergePatchType
			case 2:
				kind, opts.FieldManager = types.ApplyPatchType, fmt.Sprintf("m%d", i)
				body = fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","data":{"k%d":"v"}}`, i)
			}
			wg.Go(func() {
				if _, err := client.CoreV1().ConfigMaps("default").Patch(t.Context(), "a", kind, []byte(body), opts); err != nil {
					t.Errorf("patch %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		got, err := a.Client.CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || len(got.Data) != patches {
			t.Fatalf("%d of %d patches arrived (%v): %v", len(got.Data), patches, err, got.Data)
		}
	})
}

// sameBytes is a source of randomness that repeats itself while stuck.
type sameBytes struct {
	mu    sync.Mutex
	stuck bool // guarded by mu
	n     byte // guarded by mu
}

func (r *sameBytes) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range b {
		if !r.stuck {
			r.n++
		}
		b[i] = r.n
	}
	return len(b), nil
}

var _ io.Reader = (*sameBytes)(nil)

// TestGeneratedNames: OC-4.
func TestGeneratedNames(t *testing.T) {
	random := &sameBytes{}
	s := newServer(t, testcluster.WithConfig(func(c *controlplane.Config) { c.Rand = random }))
	make := func() (*corev1.ConfigMap, error) {
		return s.Client.CoreV1().ConfigMaps("default").Create(t.Context(),
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}}, metav1.CreateOptions{})
	}
	names := map[string]bool{}
	for range 20 {
		cm, err := make()
		if err != nil {
			t.Fatal(err)
		}
		if names[cm.Name] || len(cm.Name) != 7 {
			t.Fatalf("generated %q, after %v", cm.Name, names)
		}
		names[cm.Name] = true
	}
	random.mu.Lock()
	random.stuck = true
	random.mu.Unlock()
	if _, err := make(); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	_, err := make()
	refused(t, err, 409, metav1.StatusReasonAlreadyExists, "already exists")
}
