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

// newer creates a ConfigMap and updates it; both versions are returned.
func (s *server) newer(t *testing.T) (old, now *corev1.ConfigMap) {
	t.Helper()
	old = s.makeConfigMap(t, configMap("a", "k", "old"))
	now = old.DeepCopy()
	now.Data["k"] = "new"
	now, err := s.Client.CoreV1().ConfigMaps("default").Update(t.Context(), now, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return old, now
}

// untouched checks that refused writes left what newer made.
func (s *server) untouched(t *testing.T, now *corev1.ConfigMap) {
	t.Helper()
	got, err := s.Client.CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || got.Data["k"] != "new" || got.ResourceVersion != now.ResourceVersion {
		t.Fatalf("refused writes left %v (%v), want it untouched", got, err)
	}
}

const otherUID = types.UID("00000000-0000-4000-8000-000000000000")

// checkStaleWrites: OC-1. An update on an old version, or of an object that
// has gone since, changes nothing.
func checkStaleWrites(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cms := s.Client.CoreV1().ConfigMaps("default")
		old, now := s.newer(t)
		old.Data["k"] = "lost"
		_, err := cms.Update(t.Context(), old, metav1.UpdateOptions{})
		refused(t, err, 409, metav1.StatusReasonConflict, "the object has been modified; please apply your changes to the latest version and try again")
		stranger := now.DeepCopy()
		stranger.UID = otherUID
		_, err = cms.Update(t.Context(), stranger, metav1.UpdateOptions{})
		refused(t, err, 409, metav1.StatusReasonConflict, "UID")
		s.untouched(t, now)
	})
}

// checkPreconditions: OC-2.
func checkPreconditions(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, cms := t.Context(), s.Client.CoreV1().ConfigMaps("default")
		old, now := s.newer(t)
		other := otherUID
		for _, p := range []metav1.Preconditions{{UID: &other}, {ResourceVersion: &old.ResourceVersion}, {UID: &now.UID, ResourceVersion: &old.ResourceVersion}} {
			err := cms.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &p})
			refused(t, err, 409, metav1.StatusReasonConflict, "recondition")
		}
		s.untouched(t, now)
		if err := cms.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion}}); err != nil {
			t.Fatal(err)
		}
		s.makeConfigMap(t, configMap("a"))
		err := cms.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &now.UID}})
		refused(t, err, 409, metav1.StatusReasonConflict, "UID")
		err = cms.Delete(ctx, "b", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &now.UID}})
		refused(t, err, 404, metav1.StatusReasonNotFound, `configmaps "b" not found`)
	})
}

// checkStalePatches: OC-3. A patch that names a version holds for that alone.
func checkStalePatches(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		old, now := s.newer(t)
		body := fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":%q},"data":{"k":"lost"}}`, old.ResourceVersion)
		patches := map[types.PatchType]string{
			types.MergePatchType: body, types.StrategicMergePatchType: body, types.ApplyPatchType: body,
			types.JSONPatchType: fmt.Sprintf(`[{"op":"replace","path":"/metadata/resourceVersion","value":%q},{"op":"replace","path":"/data/k","value":"lost"}]`, old.ResourceVersion),
		}
		for kind, patch := range patches {
			_, err := s.Client.CoreV1().ConfigMaps("default").Patch(t.Context(), "a", kind, []byte(patch), metav1.PatchOptions{FieldManager: "m"})
			refused(t, err, 409, metav1.StatusReasonConflict, "")
		}
		s.untouched(t, now)
	})
}

// checkTakenName: OC-4.
func checkTakenName(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cms := s.Client.CoreV1().ConfigMaps("default")
		first := s.makeConfigMap(t, configMap("a"))
		_, err := cms.Create(t.Context(), configMap("a"), metav1.CreateOptions{})
		refused(t, err, 409, metav1.StatusReasonAlreadyExists, `configmaps "a" already exists`)
		s.remove(t, "a")
		if again := s.makeConfigMap(t, configMap("a")); again.UID == first.UID {
			t.Error("a recreated object has its predecessor's UID")
		}
		// The version that no object has says nothing of one.
		s.must(t, 201, "POST", configMaps(""), `{"metadata":{"name":"b","resourceVersion":"0"}}`, contentType(jsonBody))
	})
}

// checkOneWinner: OC-1. Of many writers on one version exactly one wins, on one
// server or on several.
func checkOneWinner(t *testing.T) {
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

// checkPatchesLoseNothing: OC-3. Concurrent patches of different fields all
// arrive, also through different servers.
func checkPatchesLoseNothing(t *testing.T) {
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

// checkGeneratedNames: OC-4.
func checkGeneratedNames(t *testing.T) {
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
