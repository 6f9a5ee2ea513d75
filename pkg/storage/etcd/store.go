package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/utils/clock"

	"coracle/pkg/storage"
	"coracle/pkg/storage/ordered"
)

// callTimeout bounds every call that has no earlier deadline of its own.
const callTimeout = 30 * time.Second

// Store is a storage.Backend over an etcd client.
type Store struct {
	client *clientv3.Client
	lane   *lane // nil when there is none
	leases *leases
	log    *slog.Logger
	// shut releases what is below the client, nil when nothing is.
	shut func()
	// defrag gives free space back to the disk.
	defrag func(context.Context) error
	// snapshot opens a copy of the whole store.
	snapshot func(context.Context) (io.ReadCloser, error)

	streams atomic.Uint64 // watches opened so far

	mu      sync.Mutex
	watches map[*watch]struct{} // the open ones; guarded by mu

	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error
}

var _ storage.Backend = (*Store)(nil)

func newStore(client *clientv3.Client, log *slog.Logger) *Store {
	s := &Store{
		client:  client,
		leases:  newLeases(client, clock.RealClock{}),
		log:     log,
		watches: map[*watch]struct{}{},
		closing: make(chan struct{}),
	}
	s.defrag = func(ctx context.Context) error {
		_, err := client.Defragment(ctx, s.endpoint())
		return err
	}
	s.snapshot = client.Snapshot
	return s
}

// Close implements storage.Backend. Closing an embedded etcd waits until it has
// stopped.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.lane.close()
		s.closeErr = s.client.Close()
		if errors.Is(s.closeErr, context.Canceled) {
			s.closeErr = nil
		}
		if s.shut != nil {
			s.shut()
		}
	})
	return s.closeErr
}

// begin bounds a call and refuses it when the store is closed or the caller has
// given up already.
func (s *Store) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	select {
	case <-s.closing:
		return nil, nil, storage.ErrClosed
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	return ctx, cancel, nil
}

// Get implements storage.Backend.
func (s *Store) Get(ctx context.Context, key string) (*storage.KV, storage.Revision, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer cancel()
	resp, err := s.client.Get(ctx, key)
	if err != nil {
		return nil, 0, s.readError(ctx, err, 0)
	}
	rev := storage.Revision(resp.Header.Revision)
	if len(resp.Kvs) == 0 {
		return nil, rev, storage.ErrNotFound
	}
	kv := fromEtcd(resp.Kvs[0])
	return &kv, rev, nil
}

// Range implements storage.Backend.
func (s *Store) Range(ctx context.Context, prefix string, opts storage.RangeOptions) (*storage.Page, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	start := prefix
	if opts.StartAfter != "" {
		start = max(start, opts.StartAfter+"\x00")
	}
	ops := []clientv3.OpOption{
		clientv3.WithRange(ordered.PrefixEnd(prefix)),
		clientv3.WithRev(int64(opts.Revision)),
		clientv3.WithLimit(int64(opts.Limit)),
	}
	if opts.CountOnly {
		ops = append(ops, clientv3.WithCountOnly())
	}
	resp, err := s.client.Get(ctx, start, ops...)
	if err != nil {
		return nil, s.readError(ctx, err, opts.Revision)
	}
	page := &storage.Page{Revision: storage.Revision(resp.Header.Revision), More: resp.More && !opts.CountOnly, Count: resp.Count}
	if len(resp.Kvs) > 0 {
		page.Items = make([]storage.KV, len(resp.Kvs))
		for i, kv := range resp.Kvs {
			page.Items[i] = fromEtcd(kv)
		}
	}
	return page, nil
}

// Put implements storage.Backend.
func (s *Store) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	if ttl <= 0 {
		return s.write(ctx, key, expect, change{value: value})
	}
	for attempt := 0; ; attempt++ {
		lease, err := s.lease(ctx, ttl)
		if err != nil {
			return 0, err
		}
		rev, err := s.write(ctx, key, expect, change{value: value, lease: int64(lease)})
		// The lease was shared with earlier keys and has just ended: etcd has
		// refused the whole transaction, so it can be sent with another one.
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) || attempt > 0 {
			return rev, err
		}
		s.leases.forget(lease)
	}
}

// lease returns a lease for ttl; nothing has been written when it fails.
func (s *Store) lease(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	lease, err := s.leases.get(ctx, ttl)
	if err != nil {
		return 0, s.readError(ctx, fmt.Errorf("no lease for the time to live: %w", err), 0)
	}
	return lease, nil
}

// Delete implements storage.Backend.
func (s *Store) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	if expect <= 0 {
		return 0, fmt.Errorf("key %s: a deletion must name the revision that it deletes", key)
	}
	return s.write(ctx, key, expect, change{delete: true})
}

// write is the one transaction behind every change.
func (s *Store) write(ctx context.Context, key string, expect storage.Revision, ch change) (storage.Revision, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	resp, rev, done, err := s.lane.transaction(ctx, transactionOf(key, expect, ch))
	if !done {
		resp, rev, err = s.transaction(ctx, key, expect, ch)
	}
	if err != nil {
		return 0, writeError(key, err)
	}
	if resp == nil {
		return rev, nil
	}
	conflict := &storage.ConflictError{Key: key, Expect: expect, Revision: rev}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		kv := fromEtcd(kvs[0])
		conflict.Current = &kv
	}
	return 0, conflict
}

// transaction makes a transaction through etcd's client. The response is nil
// when the change was made.
func (s *Store) transaction(ctx context.Context, key string, expect storage.Revision, ch change) (*pb.TxnResponse, storage.Revision, error) {
	op := clientv3.OpPut(key, string(ch.value), clientv3.WithLease(clientv3.LeaseID(ch.lease)))
	if ch.delete {
		op = clientv3.OpDelete(key)
	}
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", int64(expect))).
		Then(op).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return nil, 0, err
	}
	rev := storage.Revision(resp.Header.Revision)
	if resp.Succeeded {
		return nil, rev, nil
	}
	return (*pb.TxnResponse)(resp), rev, nil
}

// Current implements storage.Backend.
func (s *Store) Current(ctx context.Context) (storage.Revision, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	// Any linearizable read tells; this one finds no key.
	if rev, done, err := s.lane.current(ctx); done {
		if err != nil {
			return 0, s.readError(ctx, err, 0)
		}
		return rev, nil
	}
	resp, err := s.client.Get(ctx, "/", clientv3.WithCountOnly())
	if err != nil {
		return 0, s.readError(ctx, err, 0)
	}
	return storage.Revision(resp.Header.Revision), nil
}

// Compact implements storage.Backend.
func (s *Store) Compact(ctx context.Context, rev storage.Revision) error {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = s.client.Compact(ctx, int64(rev))
	if err == nil || errors.Is(err, rpctypes.ErrCompacted) {
		return nil
	}
	return s.readError(ctx, err, rev)
}

func fromEtcd(kv *mvccpb.KeyValue) storage.KV {
	return storage.KV{
		Key:            string(kv.Key),
		Value:          kv.Value,
		ModRevision:    storage.Revision(kv.ModRevision),
		CreateRevision: storage.Revision(kv.CreateRevision),
	}
}

// readError translates the error of a call that changes nothing.
func (s *Store) readError(ctx context.Context, err error, rev storage.Revision) error {
	select {
	case <-s.closing:
		return fmt.Errorf("%w: %w", storage.ErrClosed, err)
	default:
	}
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return &storage.CompactedError{}
	case errors.Is(err, rpctypes.ErrFutureRev):
		return &storage.FutureRevisionError{Asked: rev}
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return fmt.Errorf("etcd does not answer: %w", err)
}

// refused are the errors with which etcd answers before it does anything, so
// that the write has certainly not happened.
var refused = []struct{ etcd, ours error }{
	{rpctypes.ErrNoSpace, storage.ErrNoSpace},
	{rpctypes.ErrRequestTooLarge, storage.ErrTooLarge},
	{rpctypes.ErrLeaseNotFound, rpctypes.ErrLeaseNotFound},
	{rpctypes.ErrTooManyRequests, rpctypes.ErrTooManyRequests},
	{rpctypes.ErrPermissionDenied, rpctypes.ErrPermissionDenied},
	{rpctypes.ErrUserEmpty, rpctypes.ErrUserEmpty},
	{rpctypes.ErrInvalidAuthToken, rpctypes.ErrInvalidAuthToken},
}

// writeError translates the error of a write that has been sent.
func writeError(key string, err error) error {
	for _, r := range refused {
		if errors.Is(err, r.etcd) || rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(r.etcd) {
			return fmt.Errorf("key %s: %w", key, r.ours)
		}
	}
	// gRPC refuses on this side what is larger than a message may be.
	if status.Code(err) == codes.ResourceExhausted {
		return fmt.Errorf("key %s: %w: %w", key, storage.ErrTooLarge, err)
	}
	return &storage.OutcomeUnknownError{Err: err}
}
