package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/hack/lab"
	"coracle/hack/report"
)

// rest looks at a cluster that nobody uses.
func (b *bench) rest(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	const nodes = 3
	for i := range nodes {
		if err := c.agent(fmt.Sprintf("node-%d", i), fmt.Sprintf("192.0.2.%d", i+1), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128, byte(i), 0}), 24)); err != nil {
			return err
		}
	}
	err = lab.Until(ctx, "three nodes are ready", time.Minute, 20*look, func(ctx context.Context) (bool, error) {
		list, err := c.Admin.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready := 0
		for i := range list.Items {
			for _, cond := range list.Items[i].Status.Conditions {
				if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		return ready == nodes, nil
	})
	if err != nil {
		return err
	}
	lab.Rest(ctx, b.settle)
	log, err := newWrites(c.AuditFile())
	if err != nil {
		return err
	}
	syncs, err := logSyncs()
	if err != nil {
		return err
	}
	cpu, begin := lab.CPU(), time.Now()
	lab.Rest(ctx, b.idle)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	minutes := time.Since(begin).Minutes()
	used := (lab.CPU() - cpu).Minutes() / minutes
	after, err := logSyncs()
	if err != nil {
		return err
	}
	lab.Rest(ctx, time.Second) // for the log
	counts, err := log.count()
	if err != nil {
		return err
	}
	part := "Three idle nodes"
	b.r.Add(report.Row{Part: part, Name: "syncs of etcd's log", Unit: "/min", Value: float64(after-syncs) / minutes, Goal: report.Ptr(12)},
		report.Row{Part: part, Name: "CPU: control plane, etcd and the three agents, of a core", Unit: "%", Value: 100 * used})
	for _, w := range sorted(counts) {
		b.r.Add(report.Row{Part: part, Name: "- " + w.String(), Unit: "/min", Value: float64(counts[w]) / minutes})
	}
	return nil
}

// logSyncs is how often the etcd of this process has synced its log.
func logSyncs() (uint64, error) {
	const name = "etcd_disk_wal_fsync_duration_seconds"
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return 0, fmt.Errorf("read etcd's metrics: %w", err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetHistogram().GetSampleCount(), nil
		}
	}
	return 0, fmt.Errorf("etcd has no metric %s", name)
}
