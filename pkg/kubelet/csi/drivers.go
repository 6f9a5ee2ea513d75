package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"coracle/pkg/kubelet/plugins"
)

const (
	firstRetry = 200 * time.Millisecond
	maxRetry   = 10 * time.Second
	// answerWithin is how long a driver may take until it knows its node.
	answerWithin = 2 * time.Minute
	// checkEvery is how often what is written is compared with what is known.
	checkEvery = 5 * time.Minute
	// maxDriverName is CSI's bound of a driver's name.
	maxDriverName = 63
)

// Config is what Drivers needs.
type Config struct {
	NodeName string
	Client   kubernetes.Interface
	Clock    clock.WithTicker // the real clock if nil
	Log      *slog.Logger     // nil discards
}

// Drivers are the drivers of this node. It is safe for concurrent use.
type Drivers struct {
	cfg  Config
	poke chan struct{}

	writing sync.Mutex // held while the cluster is told; before mu

	mu sync.Mutex
	// drivers are those that can be used; guarded by mu.
	drivers map[string]registered
	// wanted is what the cluster shall know of each driver; guarded by mu. A
	// driver that is gone stands for nil until the cluster knows.
	wanted map[string]*Info
}

type registered struct {
	*Driver
	endpoint string
}

var _ plugins.Handler = (*Drivers)(nil)

// New makes Drivers.
func New(cfg Config) *Drivers {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Drivers{cfg: cfg, poke: make(chan struct{}, 1), drivers: map[string]registered{}, wanted: map[string]*Info{}}
}

// ErrUnknown is what Find returns of a driver that has not registered.
var ErrUnknown = errors.New("not found in the list of registered CSI drivers")

// Find gives a registered driver. The error matches ErrUnknown: the driver may
// register at any time.
func (d *Drivers) Find(name string) (*Driver, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.drivers[name]
	if !ok {
		return nil, fmt.Errorf("driver name %s %w", name, ErrUnknown)
	}
	return r.Driver, nil
}

// Register implements plugins.Handler.
func (d *Drivers) Register(ctx context.Context, p plugins.Plugin) error {
	if err := check(p); err != nil {
		return err
	}
	driver, err := dial(p.Name, p.Endpoint)
	if err != nil {
		return err
	}
	info, err := d.ask(ctx, driver)
	if err == nil {
		err = d.tell(ctx, p.Name, &info)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("csi driver %s: %w", p.Name, err), driver.conn.Close())
	}
	d.mu.Lock()
	old := d.drivers[p.Name]
	d.drivers[p.Name] = registered{driver, p.Endpoint}
	d.mu.Unlock()
	if old.Driver != nil {
		_ = old.conn.Close()
	}
	return nil
}

// Deregister implements plugins.Handler. The cluster learns of it from Run.
func (d *Drivers) Deregister(p plugins.Plugin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.drivers[p.Name]
	if !ok || r.endpoint != p.Endpoint {
		return // another socket has the driver now
	}
	_ = r.conn.Close()
	delete(d.drivers, p.Name)
	d.wanted[p.Name] = nil
	d.look()
}

// check refuses what cannot be a driver of this agent's kind.
func check(p plugins.Plugin) error {
	if errs := validation.IsDNS1123Subdomain(strings.ToLower(p.Name)); len(errs) > 0 || len(p.Name) > maxDriverName {
		return fmt.Errorf("%q cannot be the name of a CSI driver: it must be a domain name of at most %d characters", p.Name, maxDriverName)
	}
	if !filepath.IsAbs(p.Endpoint) {
		return fmt.Errorf("csi driver %s: the endpoint %q is not the absolute path of a socket", p.Name, p.Endpoint)
	}
	for _, text := range p.Versions {
		if v, err := version.ParseGeneric(text); err == nil && v.Major() == 1 {
			return nil
		}
	}
	return fmt.Errorf("csi driver %s: none of the versions specified %q are supported: CSI 1.x is", p.Name, p.Versions)
}

// ask waits until the driver knows its node.
func (d *Drivers) ask(ctx context.Context, driver *Driver) (Info, error) {
	end := d.cfg.Clock.Now().Add(answerWithin)
	for delay := firstRetry; ; delay = min(2*delay, maxRetry) {
		info, err := driver.info(ctx)
		if err == nil || ctx.Err() != nil || d.cfg.Clock.Now().After(end) {
			return info, err
		}
		d.cfg.Log.Warn("a CSI driver does not tell about its node yet, will ask again", "driver", driver.name, "error", err)
		d.pause(ctx, delay)
	}
}

func (d *Drivers) pause(ctx context.Context, wait time.Duration) {
	t := d.cfg.Clock.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	}
}
