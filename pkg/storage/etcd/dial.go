package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

const (
	dialTimeout = 10 * time.Second
	// keepAlive finds a dead connection within half a minute.
	keepAlive        = 15 * time.Second
	keepAliveTimeout = 10 * time.Second
	// maxMessage bounds what one answer of etcd may hold; a page of large
	// objects is far below.
	maxMessage = 1 << 30
	// streamWindow and connWindow are how much etcd may send ahead. Fixed ones
	// spare the pings with which gRPC would look for better ones, on every
	// answer.
	streamWindow = 4 << 20
	connWindow   = 16 << 20
)

// External describes an etcd reached over the network.
type External struct {
	// Endpoints are its client URLs. Required.
	Endpoints []string
	// TLS is how to talk to it; nil means without TLS, which only an endpoint
	// on the loopback deserves.
	TLS *tls.Config
	Log *slog.Logger // nil discards
}

// Dial connects to an etcd and returns when it has answered once.
func Dial(ctx context.Context, cfg External) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("name at least one etcd endpoint")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveTimeout,
		MaxCallRecvMsgSize:   maxMessage,
		DialOptions: []grpc.DialOption{
			grpc.WithDisableServiceConfig(), grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		},
		Logger: zapToSlog(cfg.Log),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %v: %w", cfg.Endpoints, err)
	}
	s := newStore(client, cfg.Log)
	s.lane = newLane(&cfg)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := s.Current(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("etcd at %v: check the endpoints and the certificates: %w", cfg.Endpoints, err)
	}
	return s, nil
}
