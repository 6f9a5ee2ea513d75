package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/cli-runtime/pkg/resource"
)

// exposing is one run of expose.
type exposing struct {
	*tool
	create    *creating
	name      string
	port      int32
	target    string
	protocol  string
	kind      string
	selector  string
	labels    string
	clusterIP string
}

func (t *tool) expose() *cobra.Command {
	o := &exposing{tool: t, create: &creating{tool: t}}
	cmd := &cobra.Command{
		Use:               "expose TYPE NAME [--port=PORT]",
		Short:             "Make a Service for the pods of a workload, a pod or another Service",
		Example:           "  ctl expose deploy web --port=80 --target-port=8080\n  ctl expose pod web-0 --type=NodePort",
		Args:              between(1, 2, "TYPE NAME or TYPE/NAME"),
		ValidArgsFunction: t.completeObjects,
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the Service; that of the object when empty")
	f.Int32Var(&o.port, "port", 0, "port of the Service; the containers' ports when 0")
	f.StringVar(&o.target, "target-port", "", "port of the container, by number or name; --port when empty")
	f.StringVar(&o.protocol, "protocol", "TCP", "TCP, UDP or SCTP")
	f.StringVar(&o.kind, "type", "", "ClusterIP, NodePort, LoadBalancer or ExternalName")
	f.StringVar(&o.selector, "selector", "", "labels of the pods; those that the object selects when empty")
	f.StringVarP(&o.labels, "labels", "l", "", "labels of the Service; those of the object when empty")
	f.StringVar(&o.clusterIP, "cluster-ip", "", "address of the Service; None for a headless one")
	addDryRun(cmd, &o.create.dry)
	o.create.printing = newPrinting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, err := t.builder(false)
		if err != nil {
			return err
		}
		infos, err := b.ResourceTypeOrNameArgs(false, args...).Flatten().Latest().Do().Infos()
		if err != nil {
			return err
		}
		for _, info := range infos {
			svc, err := o.service(info)
			if err != nil {
				return err
			}
			if _, err := o.create.sendAs(cmd.Context(), info.Namespace, svc, "exposed"); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// service makes the Service for one object.
func (o *exposing) service(info *resource.Info) (*corev1.Service, error) {
	u, ok := info.Object.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("the server answered with a %T", info.Object)
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: info.Name, Namespace: info.Namespace, Labels: u.GetLabels()}}
	if o.name != "" {
		svc.Name = o.name
	}
	if o.labels != "" {
		set, err := pairs(strings.Split(o.labels, ","), "label")
		if err != nil {
			return nil, err
		}
		svc.Labels = set
	}
	var err error
	if svc.Spec.Selector, err = o.podLabels(info, u); err != nil {
		return nil, err
	}
	svc.Spec.Type, svc.Spec.ClusterIP = corev1.ServiceType(o.kind), o.clusterIP
	svc.Spec.Ports = o.ports(u)
	if len(svc.Spec.Ports) == 0 && o.clusterIP != corev1.ClusterIPNone {
		return nil, usagef("%s names no port: give one with --port=PORT", objectName(info))
	}
	return svc, nil
}

// podLabels are the labels of the pods that the Service selects.
func (o *exposing) podLabels(info *resource.Info, u *unstructured.Unstructured) (map[string]string, error) {
	if o.selector != "" {
		return pairs(strings.Split(o.selector, ","), "selector")
	}
	if u.GetKind() == "Pod" {
		if len(u.GetLabels()) == 0 {
			return nil, fmt.Errorf("pod %s has no labels to select it by: set one with \"ctl label pod %[1]s app=%[1]s\"", info.Name)
		}
		return u.GetLabels(), nil
	}
	s, err := selectorOf(u)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be exposed: %w", objectName(info), err)
	}
	requirements, _ := s.Requirements()
	out := map[string]string{}
	for _, r := range requirements {
		if r.Values().Len() != 1 {
			return nil, fmt.Errorf("%s selects pods by more than equal labels: give --selector", objectName(info))
		}
		out[r.Key()] = r.Values().UnsortedList()[0]
	}
	if _, err := labels.ValidatedSelectorFromSet(out); err != nil {
		return nil, err
	}
	return out, nil
}

// ports are those of the flags, or else those that the object's containers, or
// the Service itself, name.
func (o *exposing) ports(u *unstructured.Unstructured) []corev1.ServicePort {
	target := func(port int32) intstr.IntOrString {
		if o.target != "" {
			return intstr.Parse(o.target)
		}
		return intstr.FromInt32(port)
	}
	if o.port > 0 {
		return []corev1.ServicePort{{Port: o.port, TargetPort: target(o.port), Protocol: corev1.Protocol(o.protocol)}}
	}
	var out []corev1.ServicePort
	for _, p := range namedPorts(u) {
		number, _ := p["containerPort"].(int64)
		if number == 0 {
			number, _ = p["port"].(int64)
		}
		protocol, _ := p["protocol"].(string)
		if protocol == "" {
			protocol = o.protocol
		}
		out = append(out, corev1.ServicePort{Port: int32(number), TargetPort: target(int32(number)), Protocol: corev1.Protocol(protocol)})
	}
	if len(out) > 1 {
		for i := range out {
			out[i].Name = fmt.Sprintf("port-%d", i+1)
		}
	}
	return out
}

// namedPorts reads the ports of a pod, a pod template or a Service.
func namedPorts(u *unstructured.Unstructured) []map[string]any {
	var lists []any
	lists = append(lists, nested(u, "spec", "ports"))
	for _, path := range [][]string{{"spec", "containers"}, {"spec", "template", "spec", "containers"}} {
		containers, _ := nested(u, path...).([]any)
		for _, c := range containers {
			if m, ok := c.(map[string]any); ok {
				lists = append(lists, m["ports"])
			}
		}
	}
	var out []map[string]any
	for _, l := range lists {
		ports, _ := l.([]any)
		for _, p := range ports {
			if m, ok := p.(map[string]any); ok {
				out = append(out, m)
			}
		}
	}
	return out
}
