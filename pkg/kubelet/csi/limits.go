package csi

import (
	"context"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// followLimits asks drivers anew how many volumes the node may have, as often
// as their CSIDriver objects want that, until ctx ends. Only the limit is taken:
// what else a driver says of its node does not change while it is registered.
func (d *Drivers) followLimits(ctx context.Context) {
	asked := map[*Driver]time.Time{}
	for ctx.Err() == nil {
		d.mu.Lock()
		drivers := maps.Clone(d.drivers)
		d.mu.Unlock()
		present := map[*Driver]time.Time{}
		wait := checkEvery
		for name, r := range drivers {
			now := d.cfg.Clock.Now()
			last, known := asked[r.Driver]
			if !known {
				last = now // it has just registered
			}
			if period := d.limitPeriod(ctx, name); period > 0 {
				if now.Sub(last) >= period {
					d.askLimit(ctx, name, r.Driver)
					last = now
				}
				wait = min(wait, max(period-now.Sub(last), time.Second))
			}
			present[r.Driver] = last
		}
		asked = present
		d.pause(ctx, wait)
	}
}

// limitPeriod is 0 for a driver whose limit does not change.
func (d *Drivers) limitPeriod(ctx context.Context, name string) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	object, err := d.cfg.Client.StorageV1().CSIDrivers().Get(ctx, name, metav1.GetOptions{})
	if err != nil || object.Spec.NodeAllocatableUpdatePeriodSeconds == nil {
		return 0 // without an object, or for now
	}
	return time.Duration(*object.Spec.NodeAllocatableUpdatePeriodSeconds) * time.Second
}

func (d *Drivers) askLimit(ctx context.Context, name string, driver *Driver) {
	info, err := driver.info(ctx)
	if err != nil {
		if ctx.Err() == nil {
			d.cfg.Log.Warn("a CSI driver does not tell how many volumes the node may have, will ask again", "driver", name, "error", err)
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.wanted[name]
	if d.drivers[name].Driver != driver || known == nil || known.MaxVolumes == info.MaxVolumes {
		return
	}
	next := *known
	next.MaxVolumes = info.MaxVolumes
	d.wanted[name] = &next
	d.look()
}
