package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"coracle/pkg/storage"
)

// Status is how full the store is.
type Status struct {
	Version string // of etcd
	Leader  bool   // the store has a leader
	// SizeBytes is what the database takes on the disk, InUseBytes what of it
	// holds data; the rest comes back with Defragment.
	SizeBytes, InUseBytes int64
	// QuotaBytes is the size at which writes are refused, 0 when unknown.
	QuotaBytes int64
	// NoSpace says that the quota has been reached and writes are refused until
	// Defragment has made room.
	NoSpace bool
}

// Size is the size of the database file in bytes, for metrics.
func (s *Store) Size(ctx context.Context) (int64, error) {
	status, err := s.Status(ctx)
	if err != nil {
		return 0, err
	}
	return status.SizeBytes, nil
}

// Status asks the first endpoint.
func (s *Store) Status(ctx context.Context) (*Status, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	resp, err := s.client.Status(ctx, s.endpoint())
	if err != nil {
		return nil, s.readError(ctx, err, 0)
	}
	alarms, err := s.client.AlarmList(ctx)
	if err != nil {
		return nil, s.readError(ctx, err, 0)
	}
	out := &Status{
		Version: resp.Version, Leader: resp.Leader != 0,
		SizeBytes: resp.DbSize, InUseBytes: resp.DbSizeInUse, QuotaBytes: resp.DbSizeQuota,
	}
	for _, alarm := range alarms.Alarms {
		if alarm.Alarm == etcdserverpb.AlarmType_NOSPACE {
			out.NoSpace = true
		}
	}
	return out, nil
}

// Defragment gives the space of deleted and compacted data back to the disk and
// accepts writes again. The member answers nothing meanwhile; it is for when the
// quota has been reached and objects have been deleted and compacted, not for
// every day.
func (s *Store) Defragment(ctx context.Context) error {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := s.defrag(ctx); err != nil {
		return fmt.Errorf("the store has not been defragmented: %w", s.readError(ctx, err, 0))
	}
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("the store still refuses writes: %w", s.readError(ctx, err, 0))
	}
	return nil
}

// Snapshot writes a copy of the whole store, as etcd's own tools restore it, as
// of one moment. It takes as long as w needs; the end of ctx ends it.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	select {
	case <-s.closing:
		return storage.ErrClosed
	default:
	}
	r, err := s.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("the store has not been copied: %w", err)
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("the store has not been copied completely: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}

// endpoint is the member asked; an embedded one has no address.
func (s *Store) endpoint() string {
	if all := s.client.Endpoints(); len(all) > 0 {
		return all[0]
	}
	return ""
}
