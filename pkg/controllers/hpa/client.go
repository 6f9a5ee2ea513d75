package hpa

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

const (
	// callLimit bounds one call: the metrics APIs are programs of users.
	callLimit = 10 * time.Second
	// answerLimit bounds an answer in bytes; that of 10,000 pods has about 5 MB.
	answerLimit = 64 << 20
	// conflicts is how often a scale is written against other writers.
	conflicts = 5
)

// remote reads scales and metrics of an API server.
type remote struct {
	rest   rest.Interface
	mapper meta.RESTMapper
}

// call sends a request and decodes the answer. Segments are the parts of the
// path, none of which may lead elsewhere.
func (r *remote) call(ctx context.Context, method string, body []byte, query url.Values, out any, segments ...string) error {
	for _, s := range segments {
		if s == "" || len(content.IsPathSegmentName(s)) > 0 {
			return fmt.Errorf("%q cannot be part of a request's path", s)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	req := r.rest.Verb(method).AbsPath(segments...).SetHeader("Accept", "application/json")
	for name, values := range query {
		for _, v := range values {
			req = req.Param(name, v)
		}
	}
	if body != nil {
		req = req.SetHeader("Content-Type", "application/json").Body(body)
	}
	stream, err := req.Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	data, err := io.ReadAll(io.LimitReader(stream, answerLimit+1))
	if err != nil {
		return err
	}
	if len(data) > answerLimit {
		return fmt.Errorf("the answer is larger than %d bytes", answerLimit)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	return nil
}

// scale is a target's scale and where it is.
type scale struct {
	autoscalingv1.Scale
	path []string
}

// scaleOf finds the scale of a target of any kind.
func (r *remote) scaleOf(ctx context.Context, namespace string, ref autoscalingv2.CrossVersionObjectReference) (*scale, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, err
	}
	mappings, err := r.mapper.RESTMappings(schema.GroupKind{Group: gv.Group, Kind: ref.Kind})
	if err != nil {
		return nil, err
	}
	var first error
	for _, m := range mappings {
		s := &scale{path: append(prefix(m.Resource.GroupVersion()), "namespaces", namespace, m.Resource.Resource, ref.Name, "scale")}
		err := r.call(ctx, "GET", nil, nil, &s.Scale, s.path...)
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = errors.New("unrecognized resource")
	}
	return nil, first
}

// rescale gives a target a size, whatever else changes it at the same time.
func (r *remote) rescale(ctx context.Context, s *scale, replicas int32) error {
	for attempt := 1; ; attempt++ {
		s.Spec.Replicas = replicas
		body, err := json.Marshal(&s.Scale)
		if err != nil {
			return err
		}
		err = r.call(ctx, "PUT", body, nil, &autoscalingv1.Scale{}, s.path...)
		if !apierrors.IsConflict(err) || attempt == conflicts {
			return err
		}
		var now autoscalingv1.Scale
		if err := r.call(ctx, "GET", nil, nil, &now, s.path...); err != nil {
			return err
		}
		s.Scale = now
	}
}

func prefix(gv schema.GroupVersion) []string {
	if gv.Group == "" {
		return []string{"api", gv.Version}
	}
	return []string{"apis", gv.Group, gv.Version}
}
