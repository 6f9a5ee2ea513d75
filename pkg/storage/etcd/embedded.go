package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config describes an etcd inside this process.
type Config struct {
	// DataDir holds everything, readable for its owner only. It is made when
	// missing. Required.
	DataDir string
	// Name is this member's name. Default "coracle".
	Name string
	// Members are all members of the cluster by name, with their peer URLs,
	// this one included. Empty means this one alone, with a peer listener on a
	// free port of the loopback that nobody needs to reach.
	Members map[string]string
	// Join says that the cluster exists already and knows of this member.
	Join bool
	// PeerListen is the URL to listen on for the other members. Default this
	// member's own URL in Members.
	PeerListen string
	// PeerTLS is the identity towards the other members, which must show one
	// of the same authority. Required with Members, else made up.
	PeerTLS TLSFiles
	// QuotaBytes is the size at which the store refuses writes. Default 8 GiB.
	QuotaBytes int64
	// UnsafeNoFsync acknowledges writes before they are on the disk. For tests.
	UnsafeNoFsync bool
	// Log gets what etcd has to say, its notices at debug level. Nil discards.
	Log *slog.Logger
}

// TLSFiles name PEM files.
type TLSFiles struct {
	Cert, Key, CA string
}

const (
	defaultName  = "coracle"
	defaultQuota = 8 << 30
	startTimeout = time.Minute
	// commitInterval is how long what has been written may wait to be put into
	// etcd's file. The log has it at once, and all reads see it.
	commitInterval = 500 * time.Millisecond
)

// StartEmbedded starts an etcd in this process and returns when it serves. It
// has no client listener: only this process can reach it. Closing the store
// stops it.
func StartEmbedded(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	core := newZapCore(cfg.Log)
	settings, err := cfg.settings(core)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	server, err := embed.StartEtcd(settings)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd in %s does not start: %w", cfg.DataDir, err)
	}
	if err := awaitReady(ctx, server, len(cfg.Members) < 2); err != nil {
		server.Close()
		return nil, fmt.Errorf("embedded etcd in %s is not ready: %w", cfg.DataDir, err)
	}
	client, streams := newInProcessClient(server.Server)
	s := newStore(client, cfg.Log)
	s.shut = func() {
		streams.end()
		core.stopping.Store(true)
		server.Close()
	}
	// The in-process client can neither defragment nor stream a copy.
	s.defrag = func(context.Context) error { return server.Server.Backend().Defrag() }
	s.snapshot = func(context.Context) (io.ReadCloser, error) {
		snap := server.Server.Backend().Snapshot()
		r, w := io.Pipe()
		go func() {
			_, err := snap.WriteTo(w)
			w.CloseWithError(errors.Join(err, snap.Close()))
		}()
		return r, nil
	}
	return s, nil
}

// settings translates the Config. A single member is tuned for a quick start
// and little memory, several for a network between them.
func (cfg *Config) settings(core zapcore.Core) (*embed.Config, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("it needs a folder for its data")
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	s := embed.NewConfig()
	s.Dir = cfg.DataDir
	s.Name = cfg.Name
	if s.Name == "" {
		s.Name = defaultName
	}
	s.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	s.ListenClientUrls, s.ListenClientHttpUrls, s.AdvertiseClientUrls = nil, nil, nil
	s.EnableGRPCGateway = false
	s.AutoCompactionRetention = "0"
	s.SnapshotCount, s.SnapshotCatchUpEntries = 1000, 500
	s.BackendBatchInterval = commitInterval
	s.QuotaBackendBytes = cfg.QuotaBytes
	if s.QuotaBackendBytes == 0 {
		s.QuotaBackendBytes = defaultQuota
	}
	s.UnsafeNoFsync = cfg.UnsafeNoFsync
	if err := cfg.peers(s); err != nil {
		return nil, err
	}
	return s, nil
}

// peers fills in how the members reach each other.
func (cfg *Config) peers(s *embed.Config) error {
	members, files := cfg.Members, cfg.PeerTLS
	if len(members) == 0 {
		members = map[string]string{s.Name: "https://127.0.0.1:0"}
	}
	if files == (TLSFiles{}) && len(cfg.Members) == 0 {
		var err error
		if files, err = makePeerTLS(filepath.Join(cfg.DataDir, "peer")); err != nil {
			return err
		}
	}
	if files.Cert == "" || files.Key == "" || files.CA == "" {
		return errors.New("members talk over mutual TLS: name a certificate, its key and their authority")
	}
	s.PeerTLSInfo = transport.TLSInfo{CertFile: files.Cert, KeyFile: files.Key, TrustedCAFile: files.CA, ClientCertAuth: true,
		MinVersion: tls.VersionTLS13}

	own, err := peerURL(members[s.Name])
	if err != nil {
		return fmt.Errorf("member %q: %w", s.Name, err)
	}
	listen := own
	if cfg.PeerListen != "" {
		if listen, err = peerURL(cfg.PeerListen); err != nil {
			return fmt.Errorf("peer listener: %w", err)
		}
	}
	s.AdvertisePeerUrls, s.ListenPeerUrls = []url.URL{*own}, []url.URL{*listen}
	var initial []string
	for name, u := range members {
		initial = append(initial, name+"="+u)
	}
	s.InitialCluster = strings.Join(initial, ",")
	if cfg.Join {
		s.ClusterState = embed.ClusterStateFlagExisting
	}
	// Alone, nobody waits for a heartbeat and elect does not wait for the ticks.
	s.TickMs, s.ElectionMs = 500, 2500
	if len(members) > 1 {
		s.TickMs, s.ElectionMs = 100, 1000
	}
	return nil
}

func peerURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an https URL of a peer", raw)
	}
	return u, nil
}
