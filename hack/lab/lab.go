// Package lab is a control plane for benchmarks: the API server over an embedded
// etcd that syncs each write, in this process, as in a local cluster. Its
// clients use the in-memory transport: every request is authorized, admitted,
// validated and audited, and none is encrypted.
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/audit"
	"coracle/pkg/auth"
	"coracle/pkg/controlplane"
	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
)

// startTimeout bounds the start of a control plane.
const startTimeout = time.Minute

// auditAll records each write once, and no reads.
const auditAll = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: Metadata
`

// Options say what is started.
type Options struct {
	// Dir is where the folder of the run is made; empty means the system's for
	// temporary files. Its disk is what etcd syncs to.
	Dir string
	// Roles runs the scheduler and the controllers too.
	Roles bool
	// PodCIDR is the range of the nodes' pod addresses; the zero value leaves
	// nodes without.
	PodCIDR netip.Prefix
	// AuditAll records every write; without it those are left out that the
	// default policy leaves out (Leases, Events, the statuses that nodes write).
	AuditAll bool
	// DisableAdmission leaves out admission plugins.
	DisableAdmission []string
}

// Lab is a running control plane.
type Lab struct {
	// Admin is an administrator's client.
	Admin kubernetes.Interface

	dir    string
	cp     *controlplane.ControlPlane
	store  storage.Backend
	cancel context.CancelFunc
	group  *errgroup.Group
}

// Start starts a control plane with an empty store and waits until it is ready.
func Start(ctx context.Context, o Options) (l *Lab, err error) {
	dir, err := os.MkdirTemp(o.Dir, "bench-")
	if err != nil {
		return nil, err
	}
	l = &Lab{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	log := slog.New(slog.DiscardHandler)
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if l.store, err = etcd.StartEmbedded(ctx, etcd.Config{DataDir: filepath.Join(dir, "etcd"), QuotaBytes: 8 << 30, Log: log}); err != nil {
		return l, err
	}
	settings := audit.Config{Path: l.AuditFile(), Log: log}
	if o.AuditAll {
		if settings.Policy, err = audit.ParsePolicy([]byte(auditAll)); err != nil {
			return l, err
		}
	}
	record, err := audit.New(settings)
	if err != nil {
		return l, err
	}
	l.cp, err = controlplane.New(controlplane.Config{
		Backend: l.store, SoleWriter: true, Roles: o.Roles, ClusterCIDR: o.PodCIDR, Audit: record,
		DisableAdmission: o.DisableAdmission, Log: log,
	})
	if err != nil {
		return l, err
	}
	l.group, ctx = errgroup.WithContext(ctx)
	l.group.Go(func() error { return l.cp.Run(ctx) })
	l.group.Go(func() error { return record.Run(ctx) })
	wait, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := l.cp.WaitReady(wait); err != nil {
		return l, err
	}
	l.Admin, err = kubernetes.NewForConfig(l.Config("admin", nil, auth.GroupMasters))
	return l, err
}

// Config is a client configuration of any user. wrap, if not nil, sees the
// requests.
func (l *Lab) Config(user string, wrap func(http.RoundTripper) http.RoundTripper, groups ...string) *rest.Config {
	c := l.cp.RESTConfig(&auth.User{Name: user, Groups: append(groups, auth.GroupAuthenticated)})
	c.WarningHandlerWithContext = rest.NoWarnings{}
	if wrap != nil {
		c.Wrap(wrap)
	}
	return c
}

// AuditFile is where it is written who asked for what, a moment later.
func (l *Lab) AuditFile() string { return filepath.Join(l.dir, "audit.log") }

// Close ends the control plane and removes all it has kept.
func (l *Lab) Close() error {
	var errs []error
	if l.cancel != nil {
		l.cancel()
	}
	if l.group != nil {
		errs = append(errs, l.group.Wait())
	}
	if l.store != nil {
		errs = append(errs, l.store.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// Each calls fn for 0 to n-1, several at a time, until one fails.
func Each(ctx context.Context, n, workers int, fn func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	g.Go(func() error {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			for i := range next {
				if err := fn(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// CPU is the time that this process has used processors for.
func CPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Rest waits, or until ctx ends.
func Rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Until polls ok every so often until it holds.
func Until(ctx context.Context, what string, limit, every time.Duration, ok func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		done, err := ok(ctx)
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: not within %s: %w", what, limit, errors.Join(err, ctx.Err()))
		}
		Rest(ctx, every)
	}
}
