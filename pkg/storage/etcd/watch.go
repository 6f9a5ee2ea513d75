package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"coracle/pkg/storage"
	"coracle/pkg/storage/ordered"
)

// watch is one watch on a stream of its own. etcd answers a request for
// progress for all watches of a stream together, and such an answer may overtake
// the first events of a watch that was added to the stream meanwhile; so no two
// watches share one, and progress is asked for only when etcd knows the watch.
type watch struct {
	store     *Store
	ctx       context.Context // names the stream; ends with the watch
	responses clientv3.WatchChan
	cancel    context.CancelFunc
	done      chan struct{} // closed by Close

	mu      sync.Mutex
	created bool // etcd has confirmed the watch; guarded by mu
	ended   bool // no more is to be asked for; guarded by mu

	// progress belongs to the goroutine that calls Next.
	progress storage.Revision
}

// streamKey is the metadata that makes the client open another stream.
const streamKey = "coracle-watch"

// Watch implements storage.Backend.
func (s *Store) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	from := opts.From
	if from == 0 {
		now, err := s.Current(ctx)
		if err != nil {
			return nil, err
		}
		from = now + 1
	}
	opening, opened, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer opened()
	ops := []clientv3.OpOption{clientv3.WithCreatedNotify(), clientv3.WithRange(ordered.PrefixEnd(prefix)), clientv3.WithRev(int64(from))}
	if opts.Prev {
		ops = append(ops, clientv3.WithPrevKV())
	}
	w := &watch{store: s, done: make(chan struct{})}
	id := strconv.FormatUint(s.streams.Add(1), 10)
	// The stream ends when the member has lost its leader, so that one that is
	// cut off does not look merely quiet.
	streamCtx := metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(context.WithoutCancel(ctx)), streamKey, id)
	w.ctx, w.cancel = context.WithCancel(streamCtx)
	// The client waits for the member to confirm the watch, and would for as long as
	// it takes: the caller's end and the bound of a call end the stream meanwhile.
	confirmed := context.AfterFunc(opening, w.cancel)
	w.responses = s.client.Watch(w.ctx, prefix, ops...)
	if !confirmed() {
		return nil, s.readError(ctx, fmt.Errorf("etcd has not confirmed the watch: %w", opening.Err()), 0)
	}
	s.mu.Lock()
	s.watches[w] = struct{}{}
	s.mu.Unlock()
	return w, nil
}

// RequestProgress implements storage.Backend.
func (s *Store) RequestProgress(ctx context.Context) error {
	_, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	cancel()
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	for _, w := range open {
		if err := w.requestProgress(); err != nil {
			return s.readError(ctx, err, 0)
		}
	}
	return nil
}

func (w *watch) requestProgress() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.created || w.ended {
		return nil
	}
	return w.store.client.RequestProgress(w.ctx)
}

// end makes sure that nobody asks for progress, which would open the stream
// again.
func (w *watch) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.store.mu.Lock()
	delete(w.store.watches, w)
	w.store.mu.Unlock()
}

// Next implements storage.Watch.
func (w *watch) Next(ctx context.Context) (storage.Batch, error) {
	if err := ctx.Err(); err != nil {
		return storage.Batch{}, err
	}
	for {
		select {
		case <-w.done:
			return storage.Batch{}, storage.ErrClosed
		case <-w.store.closing:
			return storage.Batch{}, storage.ErrClosed
		case <-ctx.Done():
			return storage.Batch{}, ctx.Err()
		case resp, open := <-w.responses:
			batch, err := w.translate(&resp, open)
			if err != nil || len(batch.Events) > 0 || batch.Progress > w.progress {
				w.progress = batch.Progress
				return batch, err
			}
		}
	}
}

func (w *watch) translate(resp *clientv3.WatchResponse, open bool) (storage.Batch, error) {
	switch {
	case !open:
		return storage.Batch{}, w.broken(errors.New("the stream has been closed"))
	case resp.CompactRevision != 0:
		w.end()
		return storage.Batch{}, &storage.CompactedError{Compacted: storage.Revision(resp.CompactRevision)}
	case resp.Err() != nil:
		return storage.Batch{}, w.broken(resp.Err())
	case resp.Created:
		w.mu.Lock()
		w.created = true
		w.mu.Unlock()
		return storage.Batch{Progress: w.progress}, nil
	}
	if resp.IsProgressNotify() {
		return storage.Batch{Progress: storage.Revision(resp.Header.Revision)}, nil
	}
	batch := storage.Batch{Progress: w.progress, Events: make([]storage.Event, len(resp.Events))}
	for i, ev := range resp.Events {
		out := &batch.Events[i]
		if ev.Type == clientv3.EventTypePut {
			out.Type, out.KV = storage.Put, fromEtcd(ev.Kv)
		} else {
			out.Type = storage.Delete
			out.KV = storage.KV{Key: string(ev.Kv.Key), ModRevision: storage.Revision(ev.Kv.ModRevision)}
		}
		if ev.PrevKv != nil {
			prev := fromEtcd(ev.PrevKv)
			out.Prev = &prev
		}
		batch.Progress = max(batch.Progress, out.KV.ModRevision)
	}
	return batch, nil
}

// broken is the error of a watch that has ended by itself.
func (w *watch) broken(err error) error {
	w.end()
	select {
	case <-w.done:
		return storage.ErrClosed
	case <-w.store.closing:
		return storage.ErrClosed
	default:
		return fmt.Errorf("etcd has ended the watch: %w", err)
	}
}

// Close implements storage.Watch.
func (w *watch) Close() {
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.done:
	default:
		close(w.done)
		w.cancel()
	}
}
