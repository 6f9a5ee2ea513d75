package recorder

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"coracle/pkg/storage"
	"coracle/pkg/testcluster/history"
)

// tap records what the store does, by a watch of its own from the beginning.
type tap struct {
	backend storage.Backend
	watch   storage.Watch

	mu      sync.Mutex // guards all below
	changes []history.Change
	live    map[history.Key]*history.State
	seen    storage.Revision
	err     error
}

// prefixes are the keys of the kinds that are recorded.
var prefixes = map[string]string{
	storage.Root + "configmaps/": configMaps,
	storage.Root + "minions/":    nodes,
}

// newTap begins to record a backend, which must be empty.
func newTap(ctx context.Context, backend storage.Backend) (*tap, error) {
	rev, err := backend.Current(ctx)
	if err != nil {
		return nil, err
	}
	w, err := backend.Watch(ctx, storage.Root, storage.WatchOptions{From: rev + 1})
	if err != nil {
		return nil, err
	}
	return &tap{backend: backend, watch: w, live: map[history.Key]*history.State{}, seen: rev}, nil
}

// run records until ctx ends.
func (t *tap) run(ctx context.Context) {
	for {
		batch, err := t.watch.Next(ctx)
		if err == nil {
			err = t.take(&batch)
		}
		if err != nil {
			if ctx.Err() == nil {
				t.mu.Lock()
				t.err = fmt.Errorf("the store's changes cannot be recorded: %w", err)
				t.mu.Unlock()
			}
			return
		}
	}
}

func (t *tap) take(batch *storage.Batch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range batch.Events {
		if err := t.event(&batch.Events[i]); err != nil {
			return err
		}
	}
	t.seen = max(t.seen, batch.Progress)
	return nil
}

// event records one change. t.mu is held.
func (t *tap) event(ev *storage.Event) error {
	resource := ""
	for prefix, name := range prefixes {
		if strings.HasPrefix(ev.KV.Key, prefix) {
			resource = name
		}
	}
	if resource == "" {
		return nil
	}
	rev := int64(ev.KV.ModRevision)
	if ev.Type == storage.Delete {
		key := keyOf(resource, ev.KV.Key)
		t.changes = append(t.changes, history.Change{Revision: rev, Key: key, Prev: t.live[key]})
		delete(t.live, key)
		return nil
	}
	now, err := stored(&ev.KV)
	if err != nil {
		return err
	}
	t.changes = append(t.changes, history.Change{Revision: rev, Key: now.Key, Prev: t.live[now.Key], Now: now})
	t.live[now.Key] = now
	return nil
}

// keyOf reads a storage key: its last parts are namespace and name.
func keyOf(resource, key string) history.Key {
	parts := strings.Split(strings.TrimPrefix(key, storage.Root), "/")
	k := history.Key{Resource: resource, Name: parts[len(parts)-1]}
	if len(parts) == 3 {
		k.Namespace = parts[1]
	}
	return k
}

// stored decodes a value with apimachinery's own decoder.
func stored(kv *storage.KV) (*history.State, error) {
	obj, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), kv.Value)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kv.Key, err)
	}
	o, ok := obj.(protoObject)
	if !ok {
		return nil, fmt.Errorf("decode %s: it is a %T", kv.Key, obj)
	}
	o.SetResourceVersion(kv.ModRevision.String())
	return stateOf(obj)
}

// reach waits until everything up to rev has been recorded.
func (t *tap) reach(ctx context.Context, rev storage.Revision) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		t.mu.Lock()
		seen, err := t.seen, t.err
		t.mu.Unlock()
		if err != nil || seen >= rev {
			return err
		}
		if n%20 == 10 {
			if err := t.backend.RequestProgress(ctx); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("the record of the store's changes does not get on")
		}
	}
}

// all is what has been recorded up to the store's present revision.
func (t *tap) all(ctx context.Context) ([]history.Change, int64, error) {
	rev, err := t.backend.Current(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := t.reach(ctx, rev); err != nil {
		return nil, 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changes := t.changes
	for len(changes) > 0 && changes[len(changes)-1].Revision > int64(rev) {
		changes = changes[:len(changes)-1]
	}
	return changes, int64(rev), nil
}
