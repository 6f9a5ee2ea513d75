package apiserver_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// racing is a backend in which a test decides who is first.
type racing struct {
	storage.Backend

	mu        sync.Mutex       // guards all below
	beforePut func(key string) // called before a key is created
	held      chan struct{}    // while open, commits are answered and told to nobody
	lost      func()           // called when a Delete has lost a race
}

func (b *racing) wait(ctx context.Context) {
	b.mu.Lock()
	held := b.held
	b.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
		}
	}
}

func (b *racing) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	b.mu.Lock()
	before := b.beforePut
	b.mu.Unlock()
	if before != nil && expect == 0 {
		before(key)
	}
	rev, err := b.Backend.Put(ctx, key, value, expect, ttl)
	b.wait(ctx)
	return rev, err
}

func (b *racing) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	rev, err := b.Backend.Delete(ctx, key, expect)
	b.mu.Lock()
	lost := b.lost
	b.mu.Unlock()
	if lost != nil && err != nil {
		lost()
	}
	return rev, err
}

func (b *racing) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	w, err := b.Backend.Watch(ctx, prefix, opts)
	return &racingWatch{w, b}, err
}

type racingWatch struct {
	storage.Watch
	b *racing
}

func (w *racingWatch) Next(ctx context.Context) (storage.Batch, error) {
	batch, err := w.Watch.Next(ctx)
	w.b.wait(ctx)
	return batch, err
}

func newRacing(t *testing.T) (*racing, *server) {
	t.Helper()
	below := memory.New(memory.Config{})
	t.Cleanup(func() { closeIt(t, below) })
	b := &racing{Backend: below}
	return b, newServer(t, testcluster.WithBackend(b))
}

// TestApplyThatComesSecond: an apply that finds nobody there and is overtaken
// by a create is an update then, never AlreadyExists.
func TestApplyThatComesSecond(t *testing.T) {
	b, s := newRacing(t)
	var overtaken atomic.Bool
	b.mu.Lock()
	b.beforePut = func(key string) {
		if strings.HasSuffix(key, "/a") && !overtaken.Swap(true) {
			s.makeConfigMap(t, configMap("a", "created", "yes"))
		}
	}
	b.mu.Unlock()
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"applied":"yes"}}`
	s.must(t, http.StatusOK, http.MethodPatch, configMaps("/a?fieldManager=m"), body, contentType(string(types.ApplyYAMLPatchType)))
	cm, err := s.Client.CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || cm.Data["created"] != "yes" || cm.Data["applied"] != "yes" {
		t.Errorf("after create and apply: %v %v", cm, err)
	}
}

// TestDeleteDuringCommit: a delete that names no resourceVersion and loses to
// a commit that the cache has not seen yet waits for it, and does not spend
// its tries on the old object.
func TestDeleteDuringCommit(t *testing.T) {
	b, s := newRacing(t)
	ctx := t.Context()
	cms := s.Client.CoreV1().ConfigMaps("default")
	cm := s.makeConfigMap(t, configMap("a"))
	before := cm.ResourceVersion
	held, lost := make(chan struct{}), make(chan struct{})
	b.mu.Lock()
	b.held, b.lost = held, sync.OnceFunc(func() { close(lost) })
	b.mu.Unlock()

	updated := make(chan error, 1)
	go func() {
		cm.Data = map[string]string{"new": "yes"}
		_, err := cms.Update(ctx, cm, metav1.UpdateOptions{})
		updated <- err
	}()
	eventually(t, "the update is committed", func(ctx context.Context) (bool, error) {
		kv, _, err := b.Get(ctx, "/registry/configmaps/default/a")
		return err == nil && kv.ModRevision.String() != before, err
	})
	deleted := make(chan error, 1)
	go func() {
		deleted <- cms.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &cm.UID}})
	}()
	<-lost
	// The cache learns of the update only now.
	select {
	case err := <-deleted:
		deleted <- fmt.Errorf("before the cache has seen the update: %w", err)
	case <-time.After(20 * time.Millisecond):
	}
	b.mu.Lock()
	b.held = nil
	b.mu.Unlock()
	close(held)
	if err := <-updated; err != nil {
		t.Errorf("update: %v", err)
	}
	if err := <-deleted; err != nil {
		t.Errorf("delete: %v", err)
	}
}
