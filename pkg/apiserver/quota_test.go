package apiserver_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controlplane"
	"coracle/pkg/storage"
	"coracle/pkg/testcluster"
)

func bound(name string, n int) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceName(name): *resource.NewQuantity(int64(n), resource.DecimalSI)}}}
}

func secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// TestQuotaIsExactOnTwoServers: of 100 creates at once on two servers exactly
// as many get through as there is room for, also when some fail for another
// reason after they were charged.
func TestQuotaIsExactOnTwoServers(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		const writers, room = 100, 30
		ctx := t.Context()
		quotas := a.Client.CoreV1().ResourceQuotas("default")
		q, err := quotas.Create(ctx, bound("secrets", room), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		q.Status = corev1.ResourceQuotaStatus{Hard: q.Spec.Hard, Used: corev1.ResourceList{corev1.ResourceSecrets: resource.MustParse("0")}}
		if q, err = quotas.UpdateStatus(ctx, q, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other server has the quota", func(ctx context.Context) (bool, error) {
			got, err := b.Client.CoreV1().ResourceQuotas("default").Get(ctx, "q", metav1.GetOptions{ResourceVersion: "0"})
			return err == nil && got.ResourceVersion == q.ResourceVersion, nil
		})
		var made, refusals atomic.Int64
		var wg sync.WaitGroup
		for i := range writers {
			client := []*server{a, b}[i%2].Client.CoreV1().Secrets("default")
			wg.Go(func() {
				// Names collide: half of the writers lose to each other.
				_, err := client.Create(ctx, secret(fmt.Sprintf("s%d", i/2)), metav1.CreateOptions{})
				switch {
				case err == nil:
					made.Add(1)
				case apierrors.IsForbidden(err):
					refusals.Add(1)
				case !apierrors.IsAlreadyExists(err):
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		list, err := a.Client.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(list.Items); n > room || int64(n) != made.Load() {
			t.Errorf("there are %d secrets of %d that may be, %d were made", n, room, made.Load())
		}
		q, err = quotas.Get(ctx, "q", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if used := q.Status.Used[corev1.ResourceSecrets]; used.Value() != made.Load() {
			t.Errorf("%s are used, %d were made", used.String(), made.Load())
		}
		// What the losers were charged has been given back: there is room again
		// up to the bound, and not one further.
		for i := made.Load(); i < room; i++ {
			if _, err := b.Client.CoreV1().Secrets("default").Create(ctx, secret(fmt.Sprintf("more%d", i)), metav1.CreateOptions{}); err != nil {
				t.Fatalf("with room for %d more: %v", room-i, err)
			}
		}
		_, err = a.Client.CoreV1().Secrets("default").Create(ctx, secret("last"), metav1.CreateOptions{})
		refused(t, err, 403, metav1.StatusReasonForbidden, fmt.Sprintf("exceeded quota: q, requested: secrets=1, used: secrets=%d, limited: secrets=%d", room, room))
	})
}

// TestQuotaHoldsWhileObjectsComeAndGo: with the controller giving back what is
// deleted, there are never more objects than the quota has room for.
func TestQuotaHoldsWhileObjectsComeAndGo(t *testing.T) {
	test := func(t *testing.T, backend storage.Backend) {
		const writers, rounds, room = 12, 25, 4
		shared := []testcluster.Option{testcluster.WithBackend(backend), testcluster.WithConfig(func(c *controlplane.Config) { c.SoleWriter = false })}
		a := newServer(t, append(shared, testcluster.WithRoles())...)
		b := newServer(t, shared...)
		a.makeNamespace(t, "ns")
		ctx := t.Context()
		if _, err := a.Client.CoreV1().ResourceQuotas("ns").Create(ctx, bound("secrets", room), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		used := func(s *server) (int64, error) {
			q, err := s.Client.CoreV1().ResourceQuotas("ns").Get(ctx, "q", metav1.GetOptions{})
			if err != nil {
				return 0, err
			}
			n, ok := q.Status.Used[corev1.ResourceSecrets]
			if !ok {
				return -1, nil
			}
			return n.Value(), nil
		}
		for _, s := range []*server{a, b} {
			eventually(t, "the quota is counted", func(context.Context) (bool, error) { n, err := used(s); return n == 0, err })
		}
		begin, err := a.Client.CoreV1().Secrets("ns").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var made atomic.Int64
		var wg sync.WaitGroup
		for i := range writers {
			client := []*server{a, b}[i%2].Client.CoreV1().Secrets("ns")
			wg.Go(func() {
				for j := range rounds {
					name := fmt.Sprintf("s%d-%d", i, j)
					if _, err := client.Create(ctx, secret(name), metav1.CreateOptions{}); apierrors.IsForbidden(err) {
						continue
					} else if err != nil {
						t.Errorf("make %s: %v", name, err)
						return
					}
					made.Add(1)
					if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
						t.Errorf("delete %s: %v", name, err)
					}
				}
			})
		}
		wg.Wait()
		if made.Load() < room {
			t.Errorf("only %d were made of %d that may be at once", made.Load(), room)
		}
		// The history says how many there were at each moment.
		w := a.watch(t, "/api/v1/namespaces/ns/secrets?watch=1&resourceVersion="+begin.ResourceVersion)
		there, most := 0, 0
		for seen := int64(0); seen < 2*made.Load(); seen++ {
			if w.next().Type == "ADDED" {
				there++
			} else {
				there--
			}
			most = max(most, there)
		}
		if most > room {
			t.Errorf("there were %d objects at once, the quota is %d", most, room)
		}
		eventually(t, "all is given back", func(context.Context) (bool, error) { n, err := used(b); return n == 0, err })
	}
	t.Run("memory", func(t *testing.T) { t.Parallel(); test(t, newMemory(t)) })
	t.Run("etcd", func(t *testing.T) { t.Parallel(); test(t, startEtcd(t)) })
}
