package kubelet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
)

// servicesTimeout bounds the wait of a container for the first list of
// Services.
const servicesTimeout = 10 * time.Second

// readServices runs the agent's own informers, if it has any, and tells when
// the Services were read.
func (k *Kubelet) readServices(ctx context.Context) error {
	if k.ownFactory != nil {
		k.ownFactory.StartWithContext(ctx)
		defer k.ownFactory.Shutdown()
	}
	if cache.WaitForCacheSync(ctx.Done(), k.servicesSynced) {
		close(k.servicesReady)
	}
	<-ctx.Done()
	return nil
}

// services lists what the environment of a pod's containers tells about
// Services: those of its namespace, and the API server's own.
func (k *Kubelet) services(ctx context.Context, pod *corev1.Pod) ([]*corev1.Service, error) {
	t := k.cfg.Clock.NewTimer(servicesTimeout)
	defer t.Stop()
	select {
	case <-k.servicesReady:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C():
		return nil, errors.New("the Services of the cluster are not known yet: the API server has not answered")
	}
	own, err := k.serviceLister.Services(pod.Namespace).List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("listing services: %w", err)
	}
	if pod.Namespace != corev1.NamespaceDefault {
		if master, err := k.serviceLister.Services(corev1.NamespaceDefault).Get("kubernetes"); err == nil {
			own = append(own, master)
		}
	}
	return own, nil
}

// record starts the recorder of Events, unless one was given, and returns what
// ends it.
func (k *Kubelet) record(ctx context.Context) (end func()) {
	if k.recorder != nil {
		return func() {}
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.cfg.Client.CoreV1().Events("")})
	k.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: k.cfg.NodeName})
	return broadcaster.Shutdown
}

// event records an Event about a pod, or about one of its containers.
func (k *Kubelet) event(pod *corev1.Pod, container, eventType, reason, message string) {
	if pod.ResourceVersion == "" && pod.Spec.NodeName == "" {
		return // made up for containers of a pod that is gone
	}
	ref, err := reference.GetPartialReference(scheme.Scheme, pod, fieldPath(pod, container))
	if err != nil {
		k.log.Error("event has no object to refer to", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		return
	}
	k.recorder.Event(ref, eventType, reason, message)
}

// fieldPath names a container inside its pod the way Events do.
func fieldPath(pod *corev1.Pod, container string) string {
	if container == "" {
		return ""
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == container {
			return "spec.initContainers{" + container + "}"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == container {
			return "spec.ephemeralContainers{" + container + "}"
		}
	}
	return "spec.containers{" + container + "}"
}

// deadline makes a runtime's time-out recognisable as context.DeadlineExceeded.
func deadline(err error) error {
	if grpcstatus.Code(err) == codes.DeadlineExceeded {
		return errors.Join(context.DeadlineExceeded, err)
	}
	return err
}
