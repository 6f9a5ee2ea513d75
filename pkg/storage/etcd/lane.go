package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"coracle/pkg/storage"
)

// redialAfter is how long a lane that broke or could not be had is left alone.
const redialAfter = time.Second

// lane is the short way to an etcd for what an API server does all the time: a
// transaction, and the question for the revision. It costs a third of the same
// call through etcd's client. The client remains for everything else, and for
// these when there is no lane: before the first one is there, after it broke,
// and while etcd asks for another connection. A call that may have arrived is
// never repeated.
type lane struct {
	endpoints []*url.URL
	tls       *tls.Config // nil without TLS
	log       *slog.Logger

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup // the goroutines of connections

	mu      sync.Mutex // guards all below
	conn    *laneConn  // nil when there is none
	dialing bool
	again   time.Time // not before is another one dialled
	next    int       // of endpoints
}

// newLane returns nil where the endpoints are none that a lane knows.
func newLane(cfg *External) *lane {
	l := &lane{log: cfg.Log}
	for _, e := range cfg.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Port() == "" || u.Scheme != "https" && (u.Scheme != "http" || cfg.TLS != nil) {
			return nil
		}
		l.endpoints = append(l.endpoints, u)
	}
	if cfg.TLS != nil {
		l.tls = cfg.TLS.Clone()
		l.tls.NextProtos = []string{"h2"}
	} else if l.endpoints[0].Scheme == "https" {
		return nil
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *lane) close() {
	if l != nil {
		l.mu.Lock() // nobody dials any more
		l.cancel()
		l.mu.Unlock()
		l.wg.Wait()
	}
}

// get returns a connection, or nil and has one made for later.
func (l *lane) get() *laneConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && l.conn.usable() {
		return l.conn
	}
	if l.conn != nil {
		l.conn = nil
		l.again = time.Now().Add(redialAfter)
	}
	if !l.dialing && l.ctx.Err() == nil && !time.Now().Before(l.again) {
		l.dialing = true
		endpoint := l.endpoints[l.next%len(l.endpoints)]
		l.next++
		l.wg.Go(func() { l.dial(endpoint) })
	}
	return nil
}

func (l *lane) dial(endpoint *url.URL) {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	nc, err := l.connect(ctx, endpoint)
	cancel()
	l.mu.Lock()
	l.dialing = false
	if err != nil {
		l.again = time.Now().Add(redialAfter)
		l.mu.Unlock()
		l.log.Debug("No direct connection to etcd", "endpoint", endpoint.String(), "error", err)
		return
	}
	c := newLaneConn(nc, endpoint.Scheme, endpoint.Host, time.Now())
	l.conn = c
	l.mu.Unlock()
	l.wg.Go(func() { c.tend(l.ctx) })
	c.read()
}

func (l *lane) connect(ctx context.Context, endpoint *url.URL) (net.Conn, error) {
	if l.tls == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", endpoint.Host)
	}
	nc, err := (&tls.Dialer{Config: l.tls}).DialContext(ctx, "tcp", endpoint.Host)
	if err != nil {
		return nil, err
	}
	if nc.(*tls.Conn).ConnectionState().NegotiatedProtocol != "h2" {
		return nil, errors.Join(errors.New("the endpoint does not speak HTTP/2"), nc.Close())
	}
	return nc, nil
}

// call makes one call, with the errors of etcd's client. done is false when it
// has not been made, so that the client can make it.
func (l *lane) call(ctx context.Context, method string, message []byte) (reply []byte, done bool, err error) {
	if l == nil {
		return nil, false, nil
	}
	c := l.get()
	if c == nil {
		return nil, false, nil
	}
	reply, err = c.do(ctx, method, message)
	switch {
	case errors.Is(err, errNotDone):
		return nil, false, nil
	case err != nil && len(l.endpoints) > 1 && status.Code(err) == codes.Unavailable:
		// A member without a leader answers so: the next one is asked next time.
		c.close(err)
	}
	if err != nil {
		return nil, true, clientv3.ContextError(ctx, err)
	}
	return reply, true, nil
}

// transaction is a write that compares the revision of its key: message is the
// request, whose first five bytes are left free.
func (l *lane) transaction(ctx context.Context, message []byte) (resp *pb.TxnResponse, rev storage.Revision, done bool, err error) {
	reply, done, err := l.call(ctx, pb.KV_Txn_FullMethodName, message)
	if !done || err != nil {
		return nil, 0, done, err
	}
	succeeded := false
	rev, err = revisionIn(reply, func(num protowire.Number, v uint64) {
		if num == txnSucceeded {
			succeeded = v != 0
		}
	})
	if err != nil || succeeded {
		return nil, rev, true, err
	}
	resp = &pb.TxnResponse{}
	if err := proto.Unmarshal(reply, resp); err != nil {
		return nil, 0, true, status.Error(codes.Internal, err.Error())
	}
	return resp, rev, true, nil
}

// current is the store's revision, linearizably.
func (l *lane) current(ctx context.Context) (rev storage.Revision, done bool, err error) {
	message := protowire.AppendTag(make([]byte, 5, 16), rangeKey, protowire.BytesType)
	message = protowire.AppendString(message, "/")
	message = protowire.AppendTag(message, rangeCountOnly, protowire.VarintType)
	message = protowire.AppendVarint(message, 1)
	reply, done, err := l.call(ctx, pb.KV_Range_FullMethodName, message)
	if done && err == nil {
		rev, err = revisionIn(reply, func(protowire.Number, uint64) {})
	}
	// What reads only may be asked again, and the client knows when that helps.
	return rev, done && (err == nil || ctx.Err() != nil), err
}
