package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"coracle/pkg/storage"
	"coracle/pkg/storage/ordered"
)

// watch is one watch on the client's stream.
type watch struct {
	store     *Store
	responses clientv3.WatchChan
	cancel    context.CancelFunc
	done      chan struct{} // closed by Close
	once      sync.Once

	// progress belongs to the goroutine that calls Next.
	progress storage.Revision
}

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
	if _, cancel, err := s.begin(ctx); err != nil {
		return nil, err
	} else {
		cancel()
	}
	ops := []clientv3.OpOption{clientv3.WithRange(ordered.PrefixEnd(prefix)), clientv3.WithRev(int64(from))}
	if opts.Prev {
		ops = append(ops, clientv3.WithPrevKV())
	}
	watchCtx, cancel := context.WithCancel(streamContext(context.WithoutCancel(ctx)))
	w := &watch{store: s, cancel: cancel, done: make(chan struct{})}
	w.responses = s.client.Watch(watchCtx, prefix, ops...)
	return w, nil
}

// streamContext makes all watches share one stream, which ends when the member
// has lost its leader, so that a cut-off member does not look merely quiet.
func streamContext(ctx context.Context) context.Context { return clientv3.WithRequireLeader(ctx) }

// RequestProgress implements storage.Backend.
func (s *Store) RequestProgress(ctx context.Context) error {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := s.client.RequestProgress(streamContext(ctx)); err != nil {
		return s.readError(ctx, err, 0)
	}
	return nil
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
	if !open {
		return storage.Batch{}, w.ended(errors.New("the stream has been closed"))
	}
	if resp.CompactRevision != 0 {
		return storage.Batch{}, &storage.CompactedError{Compacted: storage.Revision(resp.CompactRevision)}
	}
	if err := resp.Err(); err != nil {
		return storage.Batch{}, w.ended(err)
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

// ended is the error of a watch that broke.
func (w *watch) ended(err error) error {
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
	w.once.Do(func() {
		close(w.done)
		w.cancel()
	})
}
