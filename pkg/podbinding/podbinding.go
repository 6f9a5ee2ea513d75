// Package podbinding posts bindings, the one request that a scheduler makes for
// every pod.
//
// Contract: it reaches the API server that the client was made for, over the
// client's own connection and under its identity, and nothing else: no address
// comes from an object.
package podbinding

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// Binder posts bindings. Three quarters of what the client library does for one
// (options, retries, metrics, decoding an answer that says nothing) are for others:
// where there is a plain connection, the request is made by hand. An answer that
// is not a success is asked for again through the library, which waits and
// explains.
type Binder struct {
	client kubernetes.Interface
	// over makes the requests, nil when only client can; base is where the
	// namespaces are.
	over    http.RoundTripper
	base    *url.URL
	limit   func(context.Context) error // nil: no limit of the client's own
	encoder runtime.Encoder
}

// drained is how much of an answer is read so that its connection can be used
// again.
const drained = 4 << 10

const protobufType = "application/vnd.kubernetes.protobuf"

// New makes a Binder for whoever the client is.
func New(client kubernetes.Interface) *Binder {
	b := &Binder{client: client}
	plain, ok := client.CoreV1().RESTClient().(*rest.RESTClient)
	if !ok || plain == nil || plain.Client == nil || plain.Client.Transport == nil || plain.Client.Timeout != 0 {
		return b
	}
	b.base = plain.Verb(http.MethodPost).Resource("namespaces").URL()
	if l := plain.GetRateLimiter(); l != nil {
		b.limit = l.Wait
	}
	b.encoder = scheme.Codecs.EncoderForVersion(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), corev1.SchemeGroupVersion)
	b.over = plain.Client.Transport
	return b
}

// Bind gives a pod its node. The errors are the API's. The deadline is ctx's.
func (b *Binder) Bind(ctx context.Context, binding *corev1.Binding) error {
	if b.over != nil && !strings.Contains(binding.Namespace+binding.Name, "/") { // which the library refuses
		bound, err := b.post(ctx, binding)
		if bound || err != nil {
			return err
		}
	}
	return b.client.CoreV1().Pods(binding.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
}

// post is Bind by hand; bound is false when the server did not agree.
func (b *Binder) post(ctx context.Context, binding *corev1.Binding) (bound bool, err error) {
	body, err := runtime.Encode(b.encoder, binding)
	if err != nil {
		return false, fmt.Errorf("encode the binding of pod %s/%s: %w", binding.Namespace, binding.Name, err)
	}
	if b.limit != nil {
		if err := b.limit(ctx); err != nil {
			return false, fmt.Errorf("wait to bind pod %s/%s: %w", binding.Namespace, binding.Name, err)
		}
	}
	at := *b.base
	at.Path += "/" + binding.Namespace + "/pods/" + binding.Name + "/binding"
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	reader, _ := open() // has no error
	answer, err := b.over.RoundTrip((&http.Request{
		Method: http.MethodPost, URL: &at, Host: at.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {protobufType}, "Accept": {protobufType + ", application/json"}},
		Body:   reader, GetBody: open, ContentLength: int64(len(body)),
	}).WithContext(ctx))
	if err != nil {
		return false, fmt.Errorf("bind pod %s/%s: %w", binding.Namespace, binding.Name, err)
	}
	_, _ = io.CopyN(io.Discard, answer.Body, drained) // the header has said how it went
	_ = answer.Body.Close()
	return answer.StatusCode/100 == 2, nil
}
