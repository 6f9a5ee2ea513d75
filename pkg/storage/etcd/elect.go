package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/raft/v3/raftpb"
)

// electEvery is how often a member that is alone is told to become the leader
// until it is.
const electEvery = 5 * time.Millisecond

// awaitReady returns when the member serves, or says why it does not.
func awaitReady(ctx context.Context, server *embed.Etcd, alone bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var tick <-chan time.Time
	if alone {
		ticker := time.NewTicker(electEvery)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-server.Server.ReadyNotify():
			return nil
		case err := <-server.Err():
			return err
		case <-server.Server.StopNotify():
			return errors.New("it stopped by itself")
		case <-ctx.Done():
			return fmt.Errorf("it found no leader: %w", ctx.Err())
		case <-tick:
			if err := elect(ctx, server.Server); err != nil {
				return err
			}
		}
	}
}

// elect has a member that has no leader stand for election now. By itself it
// waits for some of its ticks, which are rare so that an idle server sleeps; a
// member that is alone has nobody to wait for.
func elect(ctx context.Context, server *etcdserver.EtcdServer) error {
	if server.Leader() != 0 || server.AppliedIndex() < server.CommittedIndex() {
		return nil
	}
	id := uint64(server.MemberID())
	err := server.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: &id, To: &id})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("it cannot be made the leader: %w", err)
	}
	return nil
}
