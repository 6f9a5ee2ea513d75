package apiserver_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Events go when their time is over, without anybody deleting them, and
// watchers learn of it; what has no time to live stays. Both views of an event
// are of one object.
func TestEventsGo(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		for _, gvr := range []schema.GroupVersionResource{corev1.SchemeGroupVersion.WithResource("events"), eventsv1.SchemeGroupVersion.WithResource("events")} {
			res, ok := s.Registry().Table().ByGVR(gvr)
			if !ok || res.TTL != time.Hour && res.TTL != time.Second {
				t.Fatalf("%s live %v, want an hour", gvr, res)
			}
			res.TTL = time.Second // nothing else writes events here
		}
		const path = "/api/v1/namespaces/default/events"
		s.makeConfigMap(t, configMap("stays"))
		created := s.must(t, http.StatusCreated, "POST", path, `{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","namespace":"default","name":"p"},"reason":"R","type":"Normal"}`).object(t)
		w := s.watch(t, path+"?watch=1&resourceVersion="+created.GetResourceVersion())
		if e := w.next(); e.Type != "DELETED" {
			t.Fatalf("the watch has %s", e.Type)
		}
		eventually(t, "the event stays", func(context.Context) (bool, error) {
			return s.do(t, "GET", path+"/e", "").code == http.StatusNotFound &&
				s.do(t, "GET", "/apis/events.k8s.io/v1/namespaces/default/events/e", "").code == http.StatusNotFound, nil
		})
		s.must(t, http.StatusOK, "GET", configMaps("/stays"), "")
	})
}
