package hpa

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// customWindow is what a custom metric is taken to be the average of when it
// does not say.
const customWindow = time.Minute

// podMetrics is an answer of metrics.k8s.io, as far as it is read.
type podMetrics struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Timestamp  metav1.Time     `json:"timestamp"`
		Window     metav1.Duration `json:"window"`
		Containers []struct {
			Name  string              `json:"name"`
			Usage corev1.ResourceList `json:"usage"`
		} `json:"containers"`
	} `json:"items"`
}

// customMetrics is an answer of custom.metrics.k8s.io of either version.
type customMetrics struct {
	Items []struct {
		DescribedObject struct {
			Name string `json:"name"`
		} `json:"describedObject"`
		Timestamp metav1.Time       `json:"timestamp"`
		Window    *int64            `json:"windowSeconds"` // v1beta2
		OldWindow *int64            `json:"window"`        // v1beta1
		Value     resource.Quantity `json:"value"`
	} `json:"items"`
}

// externalMetrics is an answer of external.metrics.k8s.io.
type externalMetrics struct {
	Items []struct {
		Value resource.Quantity `json:"value"`
	} `json:"items"`
}

// read reads what a metric spec is about.
func (r *remote) read(ctx context.Context, namespace string, spec *autoscalingv2.MetricSpec, pods labels.Selector) (reading, error) {
	switch {
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		return r.usage(ctx, namespace, spec.Resource.Name, "", pods)
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		return r.usage(ctx, namespace, spec.ContainerResource.Name, spec.ContainerResource.Container, pods)
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		return r.ofPods(ctx, namespace, &spec.Pods.Metric, pods)
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		return r.ofObject(ctx, namespace, &spec.Object.DescribedObject, &spec.Object.Metric)
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		return r.external(ctx, namespace, &spec.External.Metric)
	}
	return reading{}, fmt.Errorf("unknown metric source type %q", spec.Type)
}

// usage reads what pods, or one container of each, use of a resource.
func (r *remote) usage(ctx context.Context, namespace string, name corev1.ResourceName, container string, pods labels.Selector) (reading, error) {
	var list podMetrics
	err := r.call(ctx, "GET", nil, url.Values{"labelSelector": {pods.String()}}, &list, "apis", "metrics.k8s.io", "v1beta1", "namespaces", namespace, "pods")
	if err != nil {
		return reading{}, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return reading{}, errors.New("no metrics returned from resource metrics API")
	}
	return reading{samples: list.samples(name, container)}, nil
}

// samples adds up what each pod uses. A pod of which a part is missing is
// missing as a whole.
func (l *podMetrics) samples(name corev1.ResourceName, container string) map[string]sample {
	out := make(map[string]sample, len(l.Items))
	for i := range l.Items {
		m := &l.Items[i]
		var total int64
		found := false
		for _, c := range m.Containers {
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Usage[name]
			if found = ok; !ok {
				break
			}
			total += q.MilliValue()
		}
		if found {
			out[m.Metadata.Name] = sample{value: total, at: m.Timestamp.Time, window: m.Window.Duration}
		}
	}
	return out
}

// ofPods reads a custom metric of pods.
func (r *remote) ofPods(ctx context.Context, namespace string, m *autoscalingv2.MetricIdentifier, pods labels.Selector) (reading, error) {
	list, err := r.custom(ctx, m, url.Values{"labelSelector": {pods.String()}}, "namespaces", namespace, "pods", "*", m.Name)
	if err != nil {
		return reading{}, err
	}
	if len(list.Items) == 0 {
		return reading{}, errors.New("no metrics returned from custom metrics API")
	}
	return reading{samples: list.samples()}, nil
}

func (l *customMetrics) samples() map[string]sample {
	out := make(map[string]sample, len(l.Items))
	for i := range l.Items {
		v := &l.Items[i]
		window := customWindow
		for _, w := range []*int64{v.OldWindow, v.Window} {
			if w != nil {
				window = time.Duration(*w) * time.Second
			}
		}
		out[v.DescribedObject.Name] = sample{value: v.Value.MilliValue(), at: v.Timestamp.Time, window: window}
	}
	return out
}

// ofObject reads a custom metric of one object, which is in the namespace or is
// the namespace.
func (r *remote) ofObject(ctx context.Context, namespace string, ref *autoscalingv2.CrossVersionObjectReference, m *autoscalingv2.MetricIdentifier) (reading, error) {
	gk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	at := []string{"namespaces", namespace, "metrics", m.Name}
	if gk != (schema.GroupKind{Kind: "Namespace"}) {
		mapping, err := r.mapper.RESTMapping(gk)
		if err != nil {
			return reading{}, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
		}
		at = []string{"namespaces", namespace, mapping.Resource.GroupResource().String(), ref.Name, m.Name}
	}
	list, err := r.custom(ctx, m, url.Values{}, at...)
	if err != nil {
		return reading{}, err
	}
	if n := len(list.Items); n != 1 {
		return reading{}, fmt.Errorf("the custom metrics API gave %d values for one object", n)
	}
	return reading{values: []int64{list.Items[0].Value.MilliValue()}}, nil
}

// custom asks the custom metrics API, in the older version where there is no
// newer one.
func (r *remote) custom(ctx context.Context, m *autoscalingv2.MetricIdentifier, query url.Values, at ...string) (*customMetrics, error) {
	if m.Selector != nil {
		selector, err := metav1.LabelSelectorAsSelector(m.Selector)
		if err != nil {
			return nil, err
		}
		query.Set("metricLabelSelector", selector.String())
	}
	list := &customMetrics{}
	err := r.call(ctx, "GET", nil, query, list, append([]string{"apis", "custom.metrics.k8s.io", "v1beta2"}, at...)...)
	if apierrors.IsNotFound(err) {
		older := &customMetrics{}
		if r.call(ctx, "GET", nil, query, older, append([]string{"apis", "custom.metrics.k8s.io", "v1beta1"}, at...)...) == nil {
			return older, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	return list, nil
}

// external reads a metric that is about no object of the cluster.
func (r *remote) external(ctx context.Context, namespace string, m *autoscalingv2.MetricIdentifier) (reading, error) {
	query := url.Values{}
	if m.Selector != nil {
		selector, err := metav1.LabelSelectorAsSelector(m.Selector)
		if err != nil {
			return reading{}, err
		}
		query.Set("labelSelector", selector.String())
	}
	var list externalMetrics
	if err := r.call(ctx, "GET", nil, query, &list, "apis", "external.metrics.k8s.io", "v1beta1", "namespaces", namespace, m.Name); err != nil {
		return reading{}, fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return reading{}, errors.New("no metrics returned from external metrics API")
	}
	var out reading
	for i := range list.Items {
		out.values = append(out.values, list.Items[i].Value.MilliValue())
	}
	return out, nil
}
