package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/hack/lab"
	"coracle/pkg/kubelet"
	"coracle/pkg/kubelet/crifake"
	"coracle/pkg/kubelet/fleet"
)

const (
	// limit bounds whatever is waited for, look is how often it is looked at.
	limit = 20 * time.Minute
	look  = 5 * time.Millisecond
)

// cluster is a whole control plane and its nodes.
type cluster struct {
	*lab.Lab
	cancel context.CancelFunc
	ctx    context.Context // of the nodes
	ended  []chan error
}

// start starts a control plane with that many simulated nodes.
func (b *bench) start(ctx context.Context, nodes int) (*cluster, error) {
	l, err := lab.Start(ctx, lab.Options{Dir: b.dir, Roles: true, PodCIDR: netip.MustParsePrefix("10.128.0.0/9"), AuditAll: true})
	if err != nil {
		return nil, err
	}
	c := &cluster{Lab: l}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if nodes == 0 {
		return c, nil
	}
	f, err := fleet.New(fleet.Config{Client: l.Admin, Count: nodes})
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	c.run(f)
	select {
	case <-f.Registered():
		return c, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.close())
	}
}

// run runs a part of the nodes until the cluster is closed.
func (c *cluster) run(part interface{ Run(context.Context) error }) {
	ended := make(chan error, 1)
	c.ended = append(c.ended, ended)
	go func() { ended <- part.Run(c.ctx) }()
}

func (c *cluster) close() error {
	c.cancel()
	var errs []error
	for _, ended := range c.ended {
		errs = append(errs, <-ended)
	}
	return errors.Join(append(errs, c.Close())...)
}

// agent adds a node that the real agent runs, over a runtime that pretends.
func (c *cluster) agent(name, address string, pods netip.Prefix) error {
	client, err := kubernetes.NewForConfig(c.Config("system:node:"+name, nil, "system:nodes"))
	if err != nil {
		return err
	}
	k, err := kubelet.New(kubelet.Config{
		NodeName: name, NodeIPs: []string{address}, Client: client, Runtime: crifake.New(crifake.Config{PodCIDR: pods}), Simulated: true,
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("110")},
	})
	if err != nil {
		return err
	}
	c.run(k)
	return nil
}

// counted is how many objects there are, without listing them.
func counted(items int, rest *int64) int {
	if rest != nil {
		return items + int(*rest)
	}
	return items
}

func (c *cluster) countPods(ctx context.Context, namespace string) (int, error) {
	list, err := c.Admin.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	return counted(len(list.Items), list.RemainingItemCount), nil
}

func (c *cluster) countMaps(ctx context.Context, namespace string) (int, error) {
	list, err := c.Admin.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	return counted(len(list.Items), list.RemainingItemCount), nil
}

func (c *cluster) namespace(ctx context.Context, name string) error {
	_, err := c.Admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}
