package ctl

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
)

func describeNode(p *page, obj runtime.Object) error {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return fmt.Errorf("not a Node: %T", obj)
	}
	p.head(n)
	p.line("CreationTimestamp", n.CreationTimestamp.Format(time.RFC1123Z))
	var taints []string
	for i := range n.Spec.Taints {
		taints = append(taints, n.Spec.Taints[i].ToString())
	}
	p.list("Taints", taints)
	p.line("Unschedulable", n.Spec.Unschedulable)
	var rows [][]string
	for _, c := range n.Status.Conditions {
		rows = append(rows, []string{string(c.Type), string(c.Status), age(c.LastHeartbeatTime.Time, p.now), c.Reason, c.Message})
	}
	p.section("Conditions", func() { p.table([]string{"Type", "Status", "Heartbeat", "Reason", "Message"}, rows) })
	p.section("Addresses", func() {
		for _, a := range n.Status.Addresses {
			p.line(string(a.Type), a.Address)
		}
	})
	p.resources("Capacity", n.Status.Capacity)
	p.resources("Allocatable", n.Status.Allocatable)
	p.section("System Info", func() {
		i := n.Status.NodeInfo
		p.line("OS Image", i.OSImage)
		p.line("Operating System", i.OperatingSystem+"/"+i.Architecture)
		p.line("Kernel Version", i.KernelVersion)
		p.line("Container Runtime Version", i.ContainerRuntimeVersion)
		p.line("Kubelet Version", i.KubeletVersion)
	})
	p.line("PodCIDR", n.Spec.PodCIDR)
	return p.podsOn(n)
}

// podsOn writes the pods of a node with what they ask for.
func (p *page) podsOn(n *corev1.Node) error {
	list, err := p.client.CoreV1().Pods("").List(p.ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.Name).String()})
	if err != nil {
		p.line("Pods", "<cannot be read: "+err.Error()+">")
		return nil
	}
	var rows [][]string
	total := corev1.ResourceList{}
	for i := range list.Items {
		pod := &list.Items[i]
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		sum := corev1.ResourceList{}
		for _, c := range pod.Spec.Containers {
			addTo(sum, c.Resources.Requests)
		}
		addTo(total, sum)
		rows = append(rows, []string{pod.Namespace, pod.Name, sum.Cpu().String(), sum.Memory().String(), age(pod.CreationTimestamp.Time, p.now)})
	}
	p.section(fmt.Sprintf("Pods (%d)", len(rows)), func() {
		p.table([]string{"Namespace", "Name", "CPU Requests", "Memory Requests", "Age"}, rows)
	})
	p.line("Requested", fmt.Sprintf("cpu %s of %s, memory %s of %s", total.Cpu(), n.Status.Allocatable.Cpu(), total.Memory(), n.Status.Allocatable.Memory()))
	return nil
}

func addTo(sum, more corev1.ResourceList) {
	for k, q := range more {
		s := sum[k]
		s.Add(q)
		sum[k] = s
	}
}

func describeService(p *page, obj runtime.Object) error {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return fmt.Errorf("not a Service: %T", obj)
	}
	p.head(s)
	p.set("Selector", s.Spec.Selector)
	p.line("Type", s.Spec.Type)
	if s.Spec.ExternalName != "" {
		p.line("External Name", s.Spec.ExternalName)
	}
	var families []string
	for _, f := range s.Spec.IPFamilies {
		families = append(families, string(f))
	}
	p.line("IP Families", strings.Join(families, ","))
	p.line("IPs", strings.Join(s.Spec.ClusterIPs, ","))
	slices, err := p.client.DiscoveryV1().EndpointSlices(s.Namespace).List(p.ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + s.Name})
	for _, port := range s.Spec.Ports {
		p.line("Port", strings.TrimSpace(fmt.Sprintf("%s  %d/%s", port.Name, port.Port, port.Protocol)))
		p.line("TargetPort", port.TargetPort.String()+"/"+string(port.Protocol))
		if port.NodePort != 0 {
			p.line("NodePort", fmt.Sprintf("%d/%s", port.NodePort, port.Protocol))
		}
		if err != nil {
			p.line("Endpoints", "<cannot be read: "+err.Error()+">")
			continue
		}
		var addresses []string
		for _, sl := range slices.Items {
			for _, sp := range sl.Ports {
				if sp.Name == nil || *sp.Name != port.Name || sp.Port == nil {
					continue
				}
				for _, e := range sl.Endpoints {
					if e.Conditions.Ready == nil || *e.Conditions.Ready {
						addresses = append(addresses, fmt.Sprintf("%s:%d", strings.Join(e.Addresses, ","), *sp.Port))
					}
				}
			}
		}
		p.line("Endpoints", shorten(addresses, 5))
	}
	p.line("Session Affinity", s.Spec.SessionAffinity)
	if s.Spec.ExternalTrafficPolicy != "" {
		p.line("External Traffic Policy", s.Spec.ExternalTrafficPolicy)
	}
	return nil
}

// shorten joins the first few values.
func shorten(values []string, n int) string {
	if len(values) > n {
		return strings.Join(values[:n], ",") + fmt.Sprintf(" + %d more...", len(values)-n)
	}
	return strings.Join(values, ",")
}

func describeNamespace(p *page, obj runtime.Object) error {
	n, ok := obj.(*corev1.Namespace)
	if !ok {
		return fmt.Errorf("not a Namespace: %T", obj)
	}
	p.head(n)
	p.line("Status", n.Status.Phase)
	for _, c := range n.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			p.line(string(c.Type), c.Message)
		}
	}
	quotas, err := p.client.CoreV1().ResourceQuotas(n.Name).List(p.ctx, metav1.ListOptions{})
	if err != nil || len(quotas.Items) == 0 {
		p.text("No resource quota.")
		return nil
	}
	for _, q := range quotas.Items {
		p.section("Resource Quota "+q.Name, func() {
			hard := map[string]string{}
			for k, v := range q.Status.Hard {
				used := q.Status.Used[k]
				hard[string(k)] = used.String() + " of " + v.String()
			}
			for _, k := range sortedKeys(hard) {
				p.line(k, hard[k])
			}
		})
	}
	return nil
}

func describeConfigMap(p *page, obj runtime.Object) error {
	cm, ok := obj.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("not a ConfigMap: %T", obj)
	}
	p.head(cm)
	p.text("\nData\n====")
	for _, k := range sortedKeys(cm.Data) {
		p.text("%s:\n----\n%s\n", k, cm.Data[k])
	}
	if len(cm.BinaryData) > 0 {
		p.text("BinaryData\n====")
		for _, k := range sortedKeys(cm.BinaryData) {
			p.text("%s: %d bytes", k, len(cm.BinaryData[k]))
		}
	}
	return nil
}

// describeSecret shows sizes only: a description is often read over a
// shoulder.
func describeSecret(p *page, obj runtime.Object) error {
	s, ok := obj.(*corev1.Secret)
	if !ok {
		return fmt.Errorf("not a Secret: %T", obj)
	}
	p.head(s)
	p.line("Type", s.Type)
	p.text("\nData\n====")
	for _, k := range sortedKeys(s.Data) {
		p.line(k, fmt.Sprintf("%d bytes", len(s.Data[k])))
	}
	return nil
}

func describeServiceAccount(p *page, obj runtime.Object) error {
	sa, ok := obj.(*corev1.ServiceAccount)
	if !ok {
		return fmt.Errorf("not a ServiceAccount: %T", obj)
	}
	p.head(sa)
	var pull, mountable []string
	for _, s := range sa.ImagePullSecrets {
		pull = append(pull, s.Name)
	}
	for _, s := range sa.Secrets {
		mountable = append(mountable, s.Name)
	}
	p.list("Image pull secrets", pull)
	p.list("Mountable secrets", mountable)
	return nil
}

func describeEvent(p *page, obj runtime.Object) error {
	e, ok := obj.(*corev1.Event)
	if !ok {
		return describeAny(p, obj)
	}
	p.head(e)
	p.line("Object", e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name)
	p.line("Type", e.Type)
	p.line("Reason", e.Reason)
	p.line("Message", e.Message)
	p.line("Seen", seen(e, p.now))
	p.line("From", reporter(e))
	return nil
}

// describeAny writes the fields of an object of any kind.
func describeAny(p *page, obj runtime.Object) error {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
		if err != nil {
			return err
		}
		u = &unstructured.Unstructured{Object: m}
	}
	p.head(u)
	p.line("API Version", u.GetAPIVersion())
	p.line("Kind", u.GetKind())
	created := u.GetCreationTimestamp()
	p.line("Creation Timestamp", created.Format(time.RFC1123Z))
	p.owner(u)
	for _, k := range sortedKeys(u.Object) {
		if k != "metadata" && k != "apiVersion" && k != "kind" {
			p.value(title(k), u.Object[k])
		}
	}
	return nil
}

// value writes any value, maps and lists indented.
func (p *page) value(name string, v any) {
	switch v := v.(type) {
	case map[string]any:
		p.section(name, func() {
			for _, k := range sortedKeys(v) {
				p.value(title(k), v[k])
			}
		})
	case []any:
		p.section(name, func() {
			for i, item := range v {
				if m, ok := item.(map[string]any); ok {
					p.value(fmt.Sprint(i), m)
					continue
				}
				p.text("%v", item)
			}
		})
	default:
		p.line(name, firstLine(fmt.Sprint(v)))
	}
}

// title makes words of a field's name: podCIDR becomes Pod CIDR.
func title(field string) string {
	var b strings.Builder
	lower := false
	for i, r := range field {
		upper := r >= 'A' && r <= 'Z'
		if i > 0 && upper && lower {
			b.WriteByte(' ')
		}
		lower = !upper
		if i == 0 {
			b.WriteString(strings.ToUpper(string(r)))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
