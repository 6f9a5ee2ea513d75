package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdClient connects to the etcd that p is.
func (p *program) etcdClient() (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + p.address}, DialTimeout: dialTimeout, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return client, nil
}

// storedSize is the size of the value that is stored under the key that ends
// with suffix.
func (p *program) storedSize(ctx context.Context, suffix string) (int, error) {
	client, err := p.etcdClient()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	keys, err := client.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return 0, err
	}
	for _, kv := range keys.Kvs {
		if !strings.HasSuffix(string(kv.Key), suffix) {
			continue
		}
		value, err := client.Get(ctx, string(kv.Key))
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", kv.Key, err)
		}
		if len(value.Kvs) == 0 {
			break // it has just been deleted
		}
		return len(value.Kvs[0].Value), nil
	}
	return 0, fmt.Errorf("etcd has no key that ends with %s", suffix)
}

// transactions sends the transaction of a create, n times by so many workers,
// straight to etcd: what a server that costs nothing would reach.
func transactions(ctx context.Context, client *clientv3.Client, prefix string, n, workers, size int) (time.Duration, error) {
	value := strings.Repeat("v", size)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n && failed.Load() == nil; i = int(next.Add(1)) {
				key := fmt.Sprintf("%s%d", prefix, i)
				_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
					Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, fmt.Errorf("a transaction straight to etcd: %w", *err)
	}
	return time.Since(began), nil
}
