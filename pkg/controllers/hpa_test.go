package controllers_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// metrics answers for the metrics APIs, in front of the API server: what each
// pod uses of its CPU, in thousandths, and a metric of something outside.
type metrics struct {
	c *cluster

	mu    sync.Mutex
	cpu   int // guarded by mu; below 0 the API is broken
	queue int // guarded by mu
}

func (m *metrics) set(cpu, queue int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cpu, m.queue = cpu, queue
}

func (m *metrics) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		body, code := "", http.StatusOK
		switch {
		case r.URL.Path == "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods":
			body, code = m.pods(r)
		case r.URL.Path == "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue":
			m.mu.Lock()
			body = fmt.Sprintf(`{"items":[{"metricName":"queue","value":"%d"}]}`, m.queue)
			m.mu.Unlock()
		default:
			return next.RoundTrip(r)
		}
		return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})
}

func (m *metrics) pods(r *http.Request) (string, int) {
	m.mu.Lock()
	cpu := m.cpu
	m.mu.Unlock()
	if cpu < 0 {
		return `{"kind":"Status","status":"Failure","reason":"ServiceUnavailable","message":"no metrics today","code":503}`, http.StatusServiceUnavailable
	}
	list, err := m.c.Client.CoreV1().Pods("default").List(r.Context(), metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
	if err != nil {
		return err.Error(), http.StatusInternalServerError
	}
	var items []string
	for _, p := range list.Items {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":%q},"timestamp":%q,"window":"15s","containers":[{"name":"main","usage":{"cpu":"%dm"}}]}`,
			p.Name, time.Now().UTC().Format(time.RFC3339), cpu))
	}
	return `{"kind":"PodMetricsList","items":[` + strings.Join(items, ",") + `]}`, http.StatusOK
}

// autoscaled runs body with a Deployment of two pods of one CPU each.
func autoscaled(t *testing.T, body func(t *testing.T, c *cluster, m *metrics)) {
	bubble(t, func(t *testing.T, c *cluster) {
		m := &metrics{c: c, cpu: 500}
		stop := c.startControllers(transports{write: m.wrap})
		defer stop()
		d := deployment("web", "v1", 2)
		d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		if _, err := c.Client.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantComplete("web")
		time.Sleep(10 * time.Minute) // the pods have settled
		body(t, c, m)
	})
}

func (c *cluster) autoscale(low, high int32, metrics ...autoscalingv2.MetricSpec) {
	c.t.Helper()
	_, err := c.Client.AutoscalingV2().HorizontalPodAutoscalers("default").Create(c.t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    &low, MaxReplicas: high, Metrics: metrics,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// wantSize waits until the Deployment is to have n pods.
func (c *cluster) wantSize(n int32) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("the deployment has %d replicas", n), func() error {
		if got := *c.getDeployment("web").Spec.Replicas; got != n {
			return fmt.Errorf("it has %d", got)
		}
		return nil
	})
}

// wantScaling waits until a condition of the autoscaler has a reason.
func (c *cluster) wantScaling(kind autoscalingv2.HorizontalPodAutoscalerConditionType, reason string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s is %s", kind, reason), func() error {
		h, err := c.Client.AutoscalingV2().HorizontalPodAutoscalers("default").Get(c.t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, cond := range h.Status.Conditions {
			if cond.Type == kind && cond.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("status %+v", h.Status)
	})
}

func cpuTarget(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent}}}
}

func TestAutoscalerFollowsLoad(t *testing.T) {
	autoscaled(t, func(t *testing.T, c *cluster, m *metrics) {
		m.set(1000, 0)
		c.autoscale(2, 5, cpuTarget(50))
		c.wantSize(4)
		c.wantEvent("default", "web", "SuccessfulRescale", "New size: 4; reason: cpu resource utilization (percentage of request) above target")
		c.wantSize(5)
		c.wantScaling(autoscalingv2.ScalingLimited, "TooManyReplicas")
		// Less load is believed after five minutes.
		begin := time.Now()
		m.set(100, 0)
		c.wantScaling(autoscalingv2.AbleToScale, "ScaleDownStabilized")
		time.Sleep(4 * time.Minute)
		c.wantSize(5)
		c.eventually("the deployment shrinks", func() error {
			if n := *c.getDeployment("web").Spec.Replicas; n != 2 {
				return fmt.Errorf("it has %d replicas", n)
			}
			return nil
		})
		if d := time.Since(begin); d < 5*time.Minute {
			t.Errorf("it shrank after %s", d)
		}
		// Without metrics nothing changes, and the status says why.
		m.set(-1, 0)
		c.wantScaling(autoscalingv2.ScalingActive, "FailedGetResourceMetric")
		c.wantEvent("default", "web", "FailedGetResourceMetric", "no metrics today")
		c.wantSize(2)
		// Who scales to zero has switched it off.
		c.patchDeployment("web", `{"spec":{"replicas":0}}`)
		c.wantScaling(autoscalingv2.ScalingActive, "ScalingDisabled")
		m.set(1000, 0)
		time.Sleep(time.Minute)
		c.wantSize(0)
	})
}

func TestAutoscalerOfExternalMetricSleepsAndWakes(t *testing.T) {
	autoscaled(t, func(t *testing.T, c *cluster, m *metrics) {
		m.set(0, 30)
		c.autoscale(0, 10, autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: "queue"},
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(10, resource.DecimalSI)},
		}})
		c.wantSize(3)
		m.set(0, 0)
		time.Sleep(6 * time.Minute)
		c.wantSize(0)
		c.wantScaling(autoscalingv2.ScaledToZero, "ScaledToZero")
		m.set(0, 20)
		c.wantSize(2)
	})
}

func TestAutoscalerSaysWhatIsWrong(t *testing.T) {
	autoscaled(t, func(t *testing.T, c *cluster, _ *metrics) {
		c.autoscale(2, 5, cpuTarget(50))
		c.wantScaling(autoscalingv2.ScalingActive, "ValidMetricFound")
		patch := func(patch string) {
			if _, err := c.Client.AutoscalingV2().HorizontalPodAutoscalers("default").Patch(t.Context(), "web", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		patch(`{"spec":{"scaleTargetRef":{"name":"other"}}}`)
		c.wantScaling(autoscalingv2.AbleToScale, "FailedGetScale")
		c.wantEvent("default", "web", "FailedGetScale", `deployments.apps "other" not found`)
		patch(`{"spec":{"scaleTargetRef":{"name":"web","kind":"Nothing"}}}`)
		c.wantEvent("default", "web", "FailedGetScale", `no matches for kind "Nothing"`)
	})
}
